//! The clients that people use. What is not installed is skipped, loudly.

use crate::support::*;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::process::Command;

pub(crate) fn find(tool: &str) -> Option<&str> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&paths)
        .any(|path: std::path::PathBuf| Path::new(&path).join(tool).is_file());
    if !is_there {
        println!("SKIPPED: {tool} is not installed");
    }
    is_there.then_some(tool)
}

pub(crate) async fn run(tool: &str, arguments: &[&str], input: &str) -> String {
    soon(run_on(tool, arguments, input)).await
}

/// The same, for as long as it takes.
pub(crate) async fn run_on(tool: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A tool that does not read closes it.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[tokio::test]
async fn curl_speaks_every_protocol() {
    let Some(curl) = find("curl") else { return };
    let server = serve(any_port().both(config()), |b| b).await;
    let port = server.address.port();
    let features = run(curl, &["--version"], "").await;
    for (flags, scheme, expected) in [
        (&["--http1.1"][..], "http", "HTTP/1.1 /x"),
        (&["--http1.1", "-k"], "https", "HTTP/1.1 /x"),
        (
            &["--tls-max", "1.2", "-k", "--http1.1"],
            "https",
            "HTTP/1.1 /x",
        ),
        (&["--http2", "-k"], "https", "HTTP/2.0 /x"),
        (&["--http2-prior-knowledge"], "http", "HTTP/2.0 /x"),
        // It offers an upgrade to HTTP/2, which no server has to take.
        (&["--http2"], "http", "HTTP/1.1 /x"),
    ] {
        if expected.starts_with("HTTP/2") && !features.contains("HTTP2") {
            println!("SKIPPED: this curl knows no HTTP/2");
            continue;
        }
        let url = format!("{scheme}://127.0.0.1:{port}/x");
        let arguments = [&["-sS", "--max-time", "10"], flags, &[url.as_str()]].concat();
        assert_eq!(run(curl, &arguments, "").await, expected, "{flags:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn openssl_handshakes_resumes_and_chooses_by_name() {
    let Some(openssl) = find("openssl") else {
        return;
    };
    let named = |name: &str| curtsy_server::Certificate::self_signed([name]).unwrap();
    let tls = curtsy_server::TlsConfig::new([named("one.test"), named("two.test")]).unwrap();
    let server = serve(any_port().tls(tls), |b| b).await;
    let address = server.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    let session = directory.path().join("session");
    let session = session.to_str().unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let base = [
            "s_client",
            "-connect",
            address.as_str(),
            version,
            "-ign_eof",
        ];
        let full = [&base[..], &["-sess_out", session]].concat();
        let said = run(openssl, &full, request).await;
        assert!(said.contains(&format!("New, {name}")), "{said}");
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        let again = [&base[..], &["-sess_in", session]].concat();
        let said = run(openssl, &again, request).await;
        assert!(said.contains(&format!("Reused, {name}")), "{said}");
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
    }
    let shown = async |name: &str| {
        let arguments = [
            "s_client",
            "-connect",
            address.as_str(),
            "-servername",
            name,
        ];
        let said = run(openssl, &arguments, "").await;
        let begin = said.find("-----BEGIN CERTIFICATE-----").unwrap();
        let end = said.find("-----END CERTIFICATE-----").unwrap();
        said[begin..end].to_owned()
    };
    assert_ne!(shown("one.test").await, shown("two.test").await);
    assert_eq!(shown("one.test").await, shown("unknown.test").await);
    server.stop().await;
}

/// No stream is lost when the server drains under load, and none when its mode is switched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_loses_no_stream_to_a_drain() {
    let Some(h2load) = find("h2load") else { return };
    let server = serve(any_port().tls(config()), |b| b).await;
    let url = format!("https://127.0.0.1:{}/x", server.address.port());
    let arguments = ["-c", "4", "-m", "8", "-n", "2000000", &url].map(str::to_owned);
    let load = tokio::spawn(async move {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(h2load, &arguments, "").await
    });
    server.until(|now| now.counts.active >= 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let called = server.called.clone();
    let outcome = server.stop().await;
    assert!(outcome.is_drained(), "{}", outcome.report());
    let said = soon(load).await.unwrap();
    let line = said
        .lines()
        .find(|line| line.starts_with("requests:"))
        .unwrap_or("");
    let count = |what: &str| {
        let part = line
            .split(", ")
            .find(|part| part.contains(what))
            .unwrap_or("");
        let digits = part.trim_start_matches("requests: ");
        digits
            .split(' ')
            .next()
            .unwrap_or("")
            .parse::<u64>()
            .unwrap()
    };
    assert!(count("succeeded") > 0, "{said}");
    // Those it counts as failed were never begun, or begun after the last GOAWAY, which says so:
    // every stream that came to the service is among the answered.
    let statuses = said.lines().find(|line| line.starts_with("status codes:"));
    let answered = format!("status codes: {} 2xx", called.load(Ordering::Relaxed));
    assert!(
        statuses.unwrap_or("").starts_with(&answered),
        "{answered}: {said}"
    );
    assert_eq!(count("timeout"), 0, "{said}");
}
