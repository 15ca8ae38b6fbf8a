//! What an idle connection costs the server's process, encrypted or of HTTP/2.

use crate::server::{BOUND, demo};
use curtsy_prove::child::Child;
use std::time::Duration;
use tokio::process::Command;

/// Opens encrypted connections, makes a request on each, and leaves them idle.
const CLIENT: &str = r#"
import socket, ssl, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
idle = []
for _ in range(count):
    client = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    idle.append(client)
print("idle", flush=True)
sys.stdin.read()
"#;

/// The same over HTTP/2 with prior knowledge, in frames by hand.
const HTTP2_CLIENT: &str = r#"
import socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
settings, acknowledgement = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"
request = b"\0\0\6\1\5\0\0\0\1\x82\x86\x84\x41\1a"
idle = []
for _ in range(count):
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + request)
    answer = b""
    while b"Hello, World!" not in answer:
        part = client.recv(4096)
        assert part, answer
        answer += part
    client.sendall(acknowledgement)
    idle.append(client)
print("idle", flush=True)
sys.stdin.read()
"#;

const MOST: u64 = 8 << 10;
/// Of which the engine's buffers, of which only the first pages are touched, are 12 KiB.
const HTTP2_MOST: u64 = 32 << 10;
const CONNECTIONS: u64 = 800;

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn an_idle_encrypted_connection_takes_at_most_8_kib() {
    idle_connections_take(&["--tls", "self-signed"], CLIENT, MOST).await;
}

#[tokio::test]
async fn an_idle_connection_of_http2_takes_at_most_32_kib() {
    idle_connections_take(&[], HTTP2_CLIENT, HTTP2_MOST).await;
}

async fn idle_connections_take(flags: &[&str], script: &str, most: u64) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = demo(&["--workers", "1"]);
    command
        .args(flags)
        .arg("--control")
        .arg(directory.path().join("c.sock"));
    let mut server = Child::spawn(command).unwrap();
    let line = server
        .wait_for_line(|line| line.contains("listening on http"), BOUND)
        .await
        .unwrap();
    let port = line.split("://127.0.0.1:").nth(1).unwrap();
    let port = port.split_whitespace().next().unwrap().to_owned();
    let pid = server.pid().unwrap();
    let open = async |count: u64| {
        let mut client = Command::new("python3");
        client.args(["-c", script, &port, &count.to_string()]);
        // Without an end of its input it stays.
        client
            .stdin(std::process::Stdio::piped())
            .kill_on_drop(true);
        client.stdout(std::process::Stdio::piped());
        let mut client = client.spawn().ok()?;
        let mut said = tokio::io::BufReader::new(client.stdout.take().unwrap());
        let mut line = String::new();
        let reading = tokio::io::AsyncBufReadExt::read_line(&mut said, &mut line);
        tokio::time::timeout(BOUND, reading).await.unwrap().unwrap();
        assert_eq!(line, "idle\n");
        Some(client)
    };
    // The first ones pay for what all share.
    let Some(_first) = open(50).await else {
        println!("SKIPPED: python3 is not installed");
        return;
    };
    let before = settled(pid).await;
    let _idle = open(CONNECTIONS).await.unwrap();
    let after = settled(pid).await;
    let each = after.saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes for each idle connection");
    assert!(each <= most, "{each} bytes for each idle connection");
    server
        .signal(curtsy_prove::child::ChildSignal::TERM)
        .unwrap();
    let exit = server.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(0));
}

/// The resident size once it has stood still for a while: connections rest only after 100 ms.
async fn settled(pid: u32) -> u64 {
    let mut last = resident(pid);
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = resident(pid);
        if now == last {
            return now;
        }
        last = now;
    }
    last
}
