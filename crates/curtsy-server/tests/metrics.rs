//! What is counted is what happened: exactly, in a program's runtime and with workers of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod support;

use curtsy_server::{Limits, Metrics};
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use support::{Answer, Running, ms, request, serve_with};

/// Waits until the counters show what is expected; the last of it may follow the answer's last byte.
async fn until(server: &Running, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
    server
        .until(what, |_| wanted(&server.handle.metrics()))
        .await;
    server.handle.metrics()
}

fn length(answer: &Answer) -> u64 {
    (answer.head.len() + answer.body.len()) as u64
}

/// So many clients at once, each with some requests of every kind; what they sent and got, in bytes.
async fn load(server: &Running, clients: usize) -> (u64, u64) {
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let mut client = server.client().await;
        tasks.push(tokio::spawn(async move {
            let (mut sent, mut got) = (0, 0);
            for (target, status) in [
                ("/", 200),
                ("/big?bytes=100000", 200),
                ("/refuse-body", 403),
                ("/", 200),
            ] {
                let text = request("GET", target);
                client.send(&text).await;
                let answer = client.answer().await;
                assert_eq!(answer.status, status);
                sent += text.len() as u64;
                got += length(&answer);
            }
            // In one packet: the server answers them in one.
            let five = request("GET", "/pipelined").repeat(5);
            client.send(&five).await;
            sent += five.len() as u64;
            for _ in 0..5 {
                got += length(&client.answer().await);
            }
            let last = request("GET", "/panic");
            client.send(&last).await;
            sent += last.len() as u64;
            let answer = client.answer().await;
            assert_eq!(answer.status, 500);
            got += length(&answer);
            client.ends().await;
            (sent, got)
        }));
    }
    let (mut sent, mut got) = (0, 0);
    for task in tasks {
        let (more_sent, more_got) = task.await.unwrap();
        sent += more_sent;
        got += more_got;
    }
    (sent, got)
}

async fn counts_exactly(server: Running) {
    const CLIENTS: usize = 24;
    let n = CLIENTS as u64;
    let (sent, got) = load(&server, CLIENTS).await;
    let metrics = until(&server, "counted", |m| m.latency.count() == 10 * n).await;
    assert_eq!(metrics.requests, 10 * n);
    assert_eq!(metrics.answers, [0, 8 * n, 0, n, n]);
    assert_eq!(metrics.accepted, n);
    assert_eq!(metrics.received_bytes, sent);
    assert_eq!(metrics.sent_bytes, got);
    assert_eq!((metrics.malformed, metrics.drains), (0, 0));
    server.drain().await;
}

#[tokio::test]
async fn a_runtime_of_one_thread_counts_exactly() {
    counts_exactly(serve_with(|builder| builder).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_runtime_of_many_threads_counts_exactly() {
    counts_exactly(serve_with(|builder| builder).await).await;
}

#[tokio::test]
async fn workers_count_exactly_each_by_itself() {
    let workers = NonZeroUsize::new(3).unwrap();
    counts_exactly(serve_with(|builder| builder.workers(workers)).await).await;
}

#[tokio::test]
async fn a_latency_is_what_the_client_waited() {
    let server = serve_with(|builder| builder).await;
    let mut client = server.client().await;
    client.get("/slow?ms=300").await.is(200, "slept 300");
    let metrics = until(&server, "counted", |m| m.latency.count() == 1).await;
    // Coarse, but not that coarse; and the machine may be slow.
    let took = metrics.latency.sum();
    assert!(took >= ms(290) && took < support::PATIENCE, "{took:?}");
    let quantile = metrics.latency.quantile(1.0).unwrap();
    assert!(quantile > ms(250), "{quantile:?}");
    let shorter = metrics
        .latency
        .buckets()
        .take_while(|(bound, _)| bound.is_some_and(|b| b <= ms(250)));
    assert_eq!(shorter.map(|(_, count)| count).sum::<u64>(), 0);
    drop(client);
    server.drain().await;
}

#[tokio::test]
async fn what_is_no_request_is_counted_as_such() {
    let server = serve_with(|builder| builder).await;
    for _ in 0..3 {
        let mut client = server.client().await;
        client.send("nonsense\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 400);
        client.ends().await;
    }
    let metrics = until(&server, "counted", |m| m.malformed == 3).await;
    assert_eq!((metrics.requests, metrics.accepted), (0, 3));
    server.drain().await;
}

#[tokio::test]
async fn parking_and_draining_are_counted() {
    let limits = Limits {
        park_after: ms(5),
        ..Limits::default()
    };
    let server = serve_with(|builder| builder.limits(limits)).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = server.client().await;
        client.get("/").await.is(200, "hello from /");
        clients.push(client);
    }
    let metrics = until(&server, "parked", |m| m.snapshot.counts.parked == 4).await;
    assert!(metrics.parkings >= 4, "{metrics:?}");
    let handle = server.handle.clone();
    server.drain().await;
    let text = handle.metrics().prometheus();
    for line in [
        "curtsy_drains_total 1\n",
        "curtsy_drains_ended_total{result=\"drained\"} 1\n",
        "curtsy_drains_ended_total{result=\"closed\"} 0\n",
        "curtsy_phase{phase=\"stopped\"} 1\n",
        "curtsy_phase{phase=\"serving\"} 0\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

/// Gives `text` to a program; what it says if it finds fault. `None` if there is no such program.
fn judged_by(program: &str, arguments: &[&str], text: &str) -> Option<Result<(), String>> {
    use std::io::Write;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some(match output.status.success() && said.trim().is_empty() {
        true => Ok(()),
        false => Err(said),
    })
}

async fn after_some_load() -> Metrics {
    let server = serve_with(|builder| builder).await;
    load(&server, 2).await;
    let metrics = until(&server, "counted", |m| m.latency.count() == 20).await;
    server.drain().await;
    metrics
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    let text = after_some_load().await.prometheus();
    let Some(judged) = judged_by("promtool", &["check", "metrics"], &text) else {
        println!("SKIPPED: promtool is not installed");
        return;
    };
    assert_eq!(judged, Ok(()), "{text}");
    // It does find faults.
    let wrong = text.replace("_requests_total", "_requests");
    assert!(
        judged_by("promtool", &["check", "metrics"], &wrong)
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn the_openmetrics_parser_finds_no_fault() {
    const PARSE: &str = "
import sys
try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
except ImportError:
    sys.exit(77)
found = {family.name: family for family in parse(sys.stdin.read())}
assert found['curtsy_http_requests'].type == 'counter', found.keys()
assert found['curtsy_sent_bytes'].unit == 'bytes'
assert found['curtsy_http_response_duration_seconds'].type == 'histogram'
count = [s for s in found['curtsy_http_response_duration_seconds'].samples if s.name.endswith('_count')]
assert count[0].value == 20, count
";
    let text = after_some_load().await.open_metrics();
    let missing = Command::new("python3")
        .args(["-c", "import prometheus_client"])
        .output();
    if !missing.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no Python with prometheus_client");
        return;
    }
    assert_eq!(
        judged_by("python3", &["-c", PARSE], &text),
        Some(Ok(())),
        "{text}"
    );
    let cut = text.replace("# EOF\n", "");
    assert!(judged_by("python3", &["-c", PARSE], &cut).unwrap().is_err());
}

/// Every metric that the dashboard asks for is one that is told.
#[tokio::test]
async fn the_dashboard_asks_for_what_there_is() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/grafana/curtsy.json"
    );
    let dashboard = std::fs::read_to_string(path).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() >= 12, "{queries:?}");
    let server = serve_with(|builder| builder).await;
    let text = server.handle.metrics().prometheus();
    let told: Vec<&str> = (text.lines())
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', '{']).next())
        .collect();
    let mut asked = Vec::new();
    for query in &queries {
        let names = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        asked.extend(names.filter(|name| name.starts_with("curtsy_")));
    }
    for name in &asked {
        assert!(told.contains(name), "{name} is asked for and not told");
    }
    for name in [
        "curtsy_connections",
        "curtsy_phase",
        "curtsy_http_responses_total",
    ] {
        assert!(asked.contains(&name), "{name}");
    }
    // Labels too.
    for query in &queries {
        for pair in query.split('{').skip(1) {
            let label = pair.split(['=', '!', '}']).next().unwrap_or_default();
            let known = [
                "",
                "job",
                "instance",
                "phase",
                "state",
                "class",
                "le",
                "result",
                "reason",
                "direction",
            ];
            assert!(
                known.contains(&label.trim_end_matches('~')),
                "{label} in {query}"
            );
        }
    }
    server.drain().await;
}

fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(query) if name == "expr" => queries.push(query.to_owned()),
                    _ => collect(value, queries),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}
