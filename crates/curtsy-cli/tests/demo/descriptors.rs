//! A server that is out of descriptors while encrypted connections idle.

use crate::server::{BOUND, Demo, demo};
use crate::trusting::{localhost, trusting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

const DESCRIPTORS: usize = 100;
const CLIENTS: usize = 150;

/// Idle encrypted connections are given up for new ones, the oldest first and with a goodbye.
#[tokio::test]
async fn idle_encrypted_connections_make_room_for_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    let flags = ["--tls", "self-signed", "--workers", "1", "--control"];
    let mut whole = demo(&flags);
    whole.arg(control);
    let whole = whole.as_std();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\""),
        ])
        .arg(whole.get_program())
        .args(whole.get_args());
    let server = Demo::spawn(command).await;
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
