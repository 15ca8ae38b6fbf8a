//! A handler that blocks its worker's thread is seen and named, and so is its end.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use curtsy_server::{Body, Limits, Server};
use http::{Request, Response};
use std::convert::Infallible;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Client, PATIENCE, request};

/// Sends each line of the log through a channel.
#[derive(Clone)]
struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nobody listens any more at the end of the test.
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line_with(lines: &Receiver<String>, words: &str) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap();
        if line.contains(words) {
            return line;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_worker_is_named_with_its_requests() {
    let (log, lines) = channel();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Lines(log.clone()))
        .init();
    let (release, released) = channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let service = hyper::service::service_fn(move |request: Request<Body>| {
        let released = released.clone();
        async move {
            if request.uri().path() == "/blocks" {
                // Just what a handler must not do.
                released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            Ok::<_, Infallible>(Response::new("done".to_owned()))
        }
    });
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(NonZeroUsize::new(2).unwrap())
        .signals(false)
        .limits(Limits {
            blocked_after: Duration::from_millis(200),
            ..Limits::default()
        })
        .build(service)
        .unwrap();
    let (_, address) = server.listeners().next().unwrap();
    let address = address.tcp().unwrap();
    let handle = server.handle();
    let running = tokio::spawn(server.run());

    let mut client = Client::connect(address).await;
    client.send(request("GET", "/blocks?n=1")).await;
    let told = tokio::task::spawn_blocking(move || {
        let line = line_with(&lines, "blocks a worker");
        (line, lines)
    });
    let (line, lines) = told.await.unwrap();
    assert!(line.contains("GET /blocks?n=1"), "{line}");
    assert!(line.contains("blocked_ms="), "{line}");

    release.send(()).unwrap();
    assert_eq!(client.answer().await.status, 200);
    let over = tokio::task::spawn_blocking(move || line_with(&lines, "runs again"));
    over.await.unwrap();
    handle.wish_shutdown();
    running.await.unwrap().unwrap();
}
