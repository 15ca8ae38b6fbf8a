//! The framework on the server: over a real socket, told of its client and of the drain.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test"
)]

use curtsy::web::{Context, Engine, Run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn engine() -> Engine {
    let mut r = Engine::new();
    r.get("/", async |c: &mut Context| c.string(200, "Hello, World!"));
    r.get("/user/:name", async |c: &mut Context| {
        let greeting = format!("Hello, {}!", c.param("name"));
        c.string(200, greeting);
    });
    r.get("/ip", async |c: &mut Context| {
        let ip = c.remote_ip().map(|ip| ip.to_string()).unwrap_or_default();
        c.string(200, ip);
    });
    r.get("/wait", async |c: &mut Context| {
        c.draining().wait().await;
        c.string(200, "told");
    });
    r
}

fn ask(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_served_and_drains() {
    let server = engine().into_server("127.0.0.1:0").unwrap();
    let (_, address) = server.listeners().next().unwrap();
    let address = address.tcp().unwrap();
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    let ask = move |path: &'static str| tokio::task::spawn_blocking(move || ask(address, path));

    assert!(ask("/").await.unwrap().ends_with("Hello, World!"));
    assert!(ask("/user/ada").await.unwrap().ends_with("Hello, ada!"));
    assert!(ask("/ip").await.unwrap().ends_with("127.0.0.1"));
    assert!(ask("/none").await.unwrap().contains("404 page not found"));

    let waiting = ask("/wait");
    while handle.snapshot().stragglers.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(handle.snapshot().stragglers[0].target, "/wait");
    assert!(handle.shutdown().await.unwrap().is_drained());
    assert!(waiting.await.unwrap().ends_with("told"));
    assert!(running.await.unwrap().unwrap().is_drained());
}

#[test]
fn run_blocks_with_workers_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the process: nobody signals a test.
    std::thread::spawn(move || engine().run_listener(listener));
    assert!(ask(address, "/").ends_with("Hello, World!"));
}

#[tokio::test]
async fn run_refuses_to_block_a_runtime() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = engine().run_listener(listener).unwrap_err();
    assert!(
        error.is_runtime() && error.to_string().contains("Server::run"),
        "{error}"
    );
}

#[test]
fn an_address_in_use_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = engine().run(&address).unwrap_err();
    assert!(
        error.is_bind() && error.to_string().contains("in use"),
        "{error}"
    );
}
