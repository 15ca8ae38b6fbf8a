//! What is written down of requests: access log and spans.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod support;

use curtsy_server::{AccessLog, AccessLogFormat, Body, OnDisconnect, TraceParent};
use http::{Request, Response};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::{App, Running, request, serve_this, serve_with};
use tracing_subscriber::fmt::format::FmtSpan;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn logging(format: AccessLogFormat, path: &Path) -> Running {
    let log = AccessLog::to_file(format, path);
    serve_with(|builder| builder.access_log(log)).await
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_request_has_its_line_when_the_server_has_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let server = logging(AccessLogFormat::Combined, &path).await;
    let mut client = server.client().await;
    client
        .send(
            "GET /a\"b?c=d HTTP/1.1\r\nHost: a\r\nUser-Agent: test/1\r\nReferer: http://x/\r\n\r\n",
        )
        .await;
    client.answer().await;
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer_to("HEAD").await;
    client.send(request("GET", "/big?bytes=70000")).await;
    client.answer().await;
    client.send(request("GET", "/pipelined").repeat(3)).await;
    for _ in 0..3 {
        client.answer().await;
    }
    client.send(request("GET", "/panic")).await;
    client.answer().await;
    // No request, and one whose client does not wait.
    let mut odd = server.client().await;
    odd.send("nonsense\r\n\r\n").await;
    odd.answer().await;
    let mut gone = server.client().await;
    gone.send(request("GET", "/gate?g")).await;
    server.app.noted("in /gate?g").await;
    drop(gone);
    server.app.noted("dropped /gate?g").await;
    server.drain().await;

    let lines = lines(&path);
    let ends = [
        "\"GET /a\\\"b?c=d HTTP/1.1\" 200 19 \"http://x/\" \"test/1\"",
        "\"HEAD /head HTTP/1.1\" 200 - \"-\" \"-\"",
        "\"GET /big?bytes=70000 HTTP/1.1\" 200 70000 \"-\" \"-\"",
        "\"GET /pipelined HTTP/1.1\" 200 21 \"-\" \"-\"",
        "\"GET /pipelined HTTP/1.1\" 200 21 \"-\" \"-\"",
        "\"GET /pipelined HTTP/1.1\" 200 21 \"-\" \"-\"",
        "\"GET /panic HTTP/1.1\" 500 22 \"-\" \"-\"",
        "\"-\" 400 - \"-\" \"-\"",
        "\"GET /gate?g HTTP/1.1\" - - \"-\" \"-\"",
    ];
    assert_eq!(lines.len(), ends.len(), "{lines:#?}");
    for (line, end) in lines.iter().zip(ends) {
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(
            line.contains(" +0000] ") && line.ends_with(end),
            "{line}\n{end}"
        );
    }
}

#[tokio::test]
async fn json_lines_tell_of_the_trace() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.json");
    let server = logging(AccessLogFormat::Json, &path).await;
    let mut client = server.client().await;
    client
        .send(format!(
            "GET /a HTTP/1.1\r\nHost: a\r\ntraceparent: {PARENT}\r\n\r\n"
        ))
        .await;
    client.answer().await;
    client.get("/slow?ms=50").await;
    drop(client);
    server.drain().await;
    let lines: Vec<serde_json::Value> = (lines(&path).iter())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(lines[0]["parent_id"], "00f067aa0ba902b7");
    assert_eq!(
        (&lines[1]["target"], &lines[1]["status"]),
        (&"/slow?ms=50".into(), &200.into())
    );
    assert!(
        lines[1]["duration_ms"].as_f64().unwrap() >= 50.0,
        "{}",
        lines[1]
    );
    assert_eq!(lines[1]["connection"], lines[0]["connection"]);
    assert_eq!(lines[1].get("trace_id"), None);
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_is_said() {
    let app = App::default();
    let log = AccessLog::to_file(AccessLogFormat::Common, "/nowhere/at/all");
    let builder = curtsy_server::Server::builder().listen("127.0.0.1:0");
    let error = builder
        .access_log(log)
        .build(app.into_service())
        .unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("/nowhere/at/all"),
        "{error}"
    );
}

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Heard {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn listen(&self, filter: &str) -> tracing::subscriber::DefaultGuard {
        let heard = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_span_events(FmtSpan::CLOSE)
            .with_ansi(false)
            .with_writer(move || heard.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }
}

/// A service that says which trace it was told of, and something in whatever span it is in.
async fn tell(request: Request<Body>) -> Result<Response<String>, Infallible> {
    tokio::task::yield_now().await;
    tracing::info!("in the handler");
    let trace = request.extensions().get::<TraceParent>();
    Ok(Response::new(
        trace.map_or("none".to_owned(), ToString::to_string),
    ))
}

async fn traced(filter: &str, what: OnDisconnect) -> (String, String) {
    traced_with(filter, what, &format!("Traceparent: {PARENT}\r\n")).await
}

async fn traced_with(filter: &str, what: OnDisconnect, header: &str) -> (String, String) {
    let heard = Heard::default();
    let _listening = heard.listen(filter);
    let service = hyper::service::service_fn(tell);
    let server = serve_this(App::default(), service, |builder| {
        builder.on_disconnect(what)
    })
    .await;
    let mut client = server.client().await;
    client
        .send(format!(
            "GET /a?secret=1 HTTP/1.1\r\nHost: a\r\n{header}\r\n"
        ))
        .await;
    let told = client.answer().await.text();
    drop(client);
    server.drain().await;
    (told, heard.text())
}

#[tokio::test]
async fn a_request_has_a_span_within_its_connections() {
    for what in [OnDisconnect::Cancel, OnDisconnect::Finish] {
        let (told, heard) = traced("info,curtsy::connection=debug", what).await;
        assert_eq!(told, PARENT);
        let line = heard
            .lines()
            .find(|line| line.contains("in the handler"))
            .unwrap();
        for part in [
            "connection{client.address=127.0.0.1:",
            ":request{http.request.method=GET url.path=\"/a\"",
            "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 parent_id=\"00f067aa0ba902b7\"",
        ] {
            assert!(line.contains(part), "{part}\n{heard}");
        }
        assert!(!heard.contains("secret"), "{heard}");
        let closed = heard
            .lines()
            .find(|line| line.contains("curtsy::request: close"))
            .unwrap();
        assert!(closed.contains("http.response.status_code=200"), "{heard}");
        assert!(heard.contains("curtsy::connection: close"), "{heard}");
    }
}

#[tokio::test]
async fn a_request_that_brings_no_trace_begins_one() {
    let malformed = format!("Traceparent: {}\r\n", PARENT.replace("4bf9", "4BF9"));
    let mut traces = vec![PARENT.parse::<TraceParent>().unwrap().trace_id];
    for header in ["", "", &malformed] {
        let (told, heard) = traced_with("info", OnDisconnect::Cancel, header).await;
        // What the handler sends on is what the span says.
        let begun: TraceParent = told.parse().unwrap();
        assert!(!traces.contains(&begun.trace_id), "{told}");
        traces.push(begun.trace_id);
        let line = heard.lines().find(|line| line.contains("in the handler"));
        let line = line.unwrap();
        let trace = format!("trace_id={:032x}", begun.trace_id);
        let step = format!("span_id=\"{:016x}\"", begun.parent_id);
        assert!(line.contains(&trace) && line.contains(&step), "{heard}");
        assert!(!line.contains("parent_id"), "{heard}");
    }
}

#[tokio::test]
async fn where_nobody_listens_there_is_no_span() {
    let (told, heard) = traced("info,curtsy::request=off", OnDisconnect::Cancel).await;
    assert_eq!(told, "none");
    assert!(
        !heard.contains("request{") && !heard.contains("connection{"),
        "{heard}"
    );
    assert!(heard.contains("in the handler"), "{heard}");
}

#[tokio::test]
async fn every_step_of_a_life_is_logged_in_order() {
    let (_, heard) = traced("info", OnDisconnect::Cancel).await;
    let mut rest = heard.as_str();
    for step in [
        "accepting listener=\"main\" address=127.0.0.1:",
        "phase=serving",
        "phase=draining",
        "accepting no more",
        "phase=stopped",
        "drained",
    ] {
        let at = rest
            .find(step)
            .unwrap_or_else(|| panic!("no {step:?} in its place\n{heard}"));
        rest = &rest[at..];
    }
}
