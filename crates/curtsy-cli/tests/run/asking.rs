//! Who serves, asked on a connection that stays open.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer does not take longer, however busy the machine.
const BOUND: Duration = Duration::from_secs(60);

/// Asks who serves; the answer's last word.
pub(crate) async fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains("generation=") {
        let read = timeout(BOUND, stream.read(&mut buffer)).await.unwrap();
        let read = read.unwrap();
        assert!(read > 0, "closed after {text:?}");
        text += std::str::from_utf8(&buffer[..read]).unwrap();
    }
    assert!(!text.to_lowercase().contains("connection: close"), "{text}");
    text.rsplit(' ').next().unwrap().to_owned()
}
