//! Every route of the demo: what it answers, and what it refuses.

use crate::server::{BOUND, Demo, demo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The answer to one request on a connection of its own: its status line and fields, and its body.
async fn ask(demo: &Demo, method: &str, target: &str, body: &str) -> (String, String) {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(demo.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(BOUND, exchange).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn each_route_answers_as_it_says() {
    let demo = Demo::start(&[]).await;
    let identity = format!("pid={} generation=0", demo.child.pid().unwrap());
    for (method, target, body, status, expected) in [
        ("GET", "/", "", 200, "Hello, World!"),
        ("GET", "/pid", "", 200, identity.as_str()),
        ("GET", "/slow?ms=30", "", 200, "slept 30 ms\n"),
        ("POST", "/echo", "said", 200, "said"),
        ("POST", "/echo", "", 200, ""),
        ("POST", "/upload", "0123456789", 200, "received=10"),
        ("GET", "/big?bytes=0", "", 200, ""),
        ("GET", "/panic", "", 500, "internal server error\n"),
        ("GET", "/nowhere", "", 404, "no such page\n"),
        ("POST", "/", "x", 405, "method not allowed\n"),
        ("GET", "/upload", "", 405, "method not allowed\n"),
        (
            "GET",
            "/slow?ms=-1",
            "",
            400,
            "ms must be a number from 0 to 600000\n",
        ),
        (
            "GET",
            "/slow?ms=600001",
            "",
            400,
            "ms must be a number from 0 to 600000\n",
        ),
        (
            "GET",
            "/big?bytes=x",
            "",
            400,
            "bytes must be a number from 0 to 1073741824\n",
        ),
    ] {
        let (head, got) = ask(&demo, method, target, body).await;
        let line = format!("HTTP/1.1 {status} ");
        assert!(head.starts_with(&line), "{method} {target}: {head}");
        assert_eq!(got, expected, "{method} {target}: {head}");
    }
    let (head, body) = ask(&demo, "GET", "/big?bytes=100000", "").await;
    assert!(head.contains("content-length: 100000"), "{head}");
    assert_eq!(body.len(), 100_000);
    let (head, body) = ask(&demo, "HEAD", "/big?bytes=100000", "").await;
    assert!(head.contains("content-length: 100000") && body.is_empty());
    let (head, _) = ask(&demo, "POST", "/pid", "").await;
    assert!(head.contains("allow: GET, HEAD"), "{head}");
    // A handler's panic is in the log, with its request.
    let log = demo.child.stderr();
    assert!(
        log.contains("panicked") && log.contains("GET /panic"),
        "{log}"
    );
    demo.stop().await;
}

/// Several addresses, a port alone among them, and a path: one server.
#[tokio::test]
async fn it_listens_wherever_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = format!("unix:{}?mode=600", path.display());
    let flags = ["--listen", ":0", "--listen", &unix, "--workers", "2"];
    let mut demo = Demo::spawn(demo(&flags)).await;
    let local = format!("unix:{}", path.display());
    demo.child
        .wait_for_line(|line| line.contains(&local), BOUND)
        .await
        .unwrap();
    let log = demo.child.stderr();
    let everywhere = log
        .lines()
        .filter_map(|line| line.split("http://[::]:").nth(1))
        .find_map(|rest| rest.split_whitespace().next()?.parse::<u16>().ok())
        .unwrap_or_else(|| panic!("{log}"));
    for address in ["127.0.0.1", "::1"] {
        let stream = TcpStream::connect((address, everywhere)).await;
        hello(stream.unwrap_or_else(|error| panic!("{address}: {error}"))).await;
    }
    hello(tokio::net::UnixStream::connect(&path).await.unwrap()).await;
    hello(TcpStream::connect(demo.address).await.unwrap()).await;
    demo.stop().await;
    assert!(!path.exists(), "the path outlives its server");
}

async fn hello(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(BOUND, read).await.unwrap().unwrap();
    assert!(answer.ends_with("Hello, World!"), "{answer}");
}
