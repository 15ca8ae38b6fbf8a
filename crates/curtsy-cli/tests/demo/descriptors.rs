//! A server that is out of descriptors: while encrypted connections idle, and while every connection is busy.

use crate::server::{BOUND, Demo, demo};
use crate::trusting::{localhost, trusting};
use curtsy_prove::child::ChildSignal;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

const DESCRIPTORS: usize = 100;
const CLIENTS: usize = 150;

/// A demo that has so few, with its control socket there.
async fn limited(flags: &[&str], control: &Path) -> Demo {
    let mut whole = demo(flags);
    whole.args(["--workers", "1", "--control"]).arg(control);
    let whole = whole.as_std();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\""),
        ])
        .arg(whole.get_program())
        .args(whole.get_args());
    Demo::spawn(command).await
}

/// Idle encrypted connections are given up for new ones, the oldest first and with a goodbye.
#[tokio::test]
async fn idle_encrypted_connections_make_room_for_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    let server = limited(&["--tls", "self-signed"], &control).await;
    let connector = trusting(&[]);
    let mut idle = Vec::new();
    for n in 0..CLIENTS {
        let served = async {
            let socket = TcpStream::connect(server.address).await.unwrap();
            let mut client = connector.connect(localhost(), socket).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
            client.write_all(request).await.unwrap();
            client.flush().await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"Hello, World!") {
                assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
            }
            client
        };
        let client = timeout(BOUND, served).await;
        idle.push(client.unwrap_or_else(|_| panic!("client {n} was not served")));
    }
    // The first is told; without the alert it would be an error.
    let mut rest = Vec::new();
    let ended = timeout(BOUND, idle[0].read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(ended.unwrap(), 0);
    drop(idle);
    server.stop().await;
}

/// Whoever looks after the server finds room, again and again, and the log stays short.
#[tokio::test]
async fn operators_find_room_where_clients_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    let mut server = limited(&["--admin", "0"], &control).await;
    let line = server
        .child
        .wait_for_line(|line| line.contains("admin on http://"), BOUND)
        .await
        .unwrap();
    let admin = line.split("http://").nth(1).unwrap().to_owned();
    let mut busy = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let request = b"GET /slow?ms=600000 HTTP/1.1\r\nhost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        busy.push(client);
    }
    server
        .child
        .wait_for_line(|line| line.contains("clients wait in the queue"), BOUND)
        .await
        .unwrap();
    for _ in 0..5 {
        let status = Command::new(env!("CARGO_BIN_EXE_curtsy"))
            .args(["status", "--control"])
            .arg(&control)
            .output();
        let status = timeout(BOUND, status).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&status.stdout);
        assert!(said.contains("GET /slow?ms=600000"), "{status:?}");
        let asked = async {
            let mut operator = TcpStream::connect(&admin).await.unwrap();
            let request = b"GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n";
            operator.write_all(request).await.unwrap();
            let mut answer = String::new();
            operator.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = timeout(BOUND, asked).await.unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }
    drop(busy);
    server.signal(ChildSignal::TERM);
    server.end().await;
    let said = server.child.stderr();
    let complaints = said.lines().filter(|line| line.contains("cannot accept"));
    assert!(complaints.count() < 20, "{said}");
}
