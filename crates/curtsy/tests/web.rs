//! The framework on the server: over a real socket, told of its client and of the drain.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test"
)]
#![allow(
    clippy::print_stdout,
    reason = "what is skipped is said on standard output"
)]

use curtsy::web::{Context, Engine, Run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

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

#[test]
fn run_on_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let on = path.clone();
    std::thread::spawn(move || engine().run_unix(on));
    let begun = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(&path) {
            Ok(stream) => break stream,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    write!(stream, "GET /user/ada HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("Hello, ada!"), "{answer}");
}

#[test]
fn run_on_a_descriptor() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || engine().run_fd(listener.into()));
    assert!(ask(address, "/user/ada").ends_with("Hello, ada!"));
}

#[test]
fn run_with_tls_needs_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("chain"), directory.path().join("key"));
    let error = engine().run_tls("127.0.0.1:0", &chain, &key).unwrap_err();
    assert!(error.to_string().contains("chain"), "{error}");
}

/// A certificate's files, made by openssl; without it they cannot be had here.
fn made_by_openssl(chain: &Path, key: &Path) -> bool {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost";
    let openssl = Command::new("openssl")
        .args(arguments.split(' '))
        .arg("-out")
        .arg(chain)
        .arg("-keyout")
        .arg(key)
        .output();
    openssl.is_ok_and(|output| output.status.success())
}

#[test]
fn run_with_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("chain"), directory.path().join("key"));
    let curl = Command::new("curl").arg("--version").output();
    if curl.is_err() || !made_by_openssl(&chain, &key) {
        println!("SKIPPED: openssl or curl is not installed");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let (on, with) = (address.clone(), chain.clone());
    std::thread::spawn(move || engine().run_tls(&on, with, key));
    let arguments = "-sS --retry 100 --retry-connrefused --retry-delay 0 --max-time 60 --cacert";
    let output = Command::new("curl")
        .args(arguments.split(' '))
        .arg(&chain)
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .arg(format!("https://localhost:{port}/user/ada"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said,
        "Hello, ada!",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
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
