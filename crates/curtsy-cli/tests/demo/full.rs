//! Files that cannot be written while it serves: it serves, and says which and why.

use crate::server::{BOUND, Demo};
use curtsy_prove::child::ChildSignal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn ask(demo: &Demo) {
    let asked = async {
        let mut client = TcpStream::connect(demo.address).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("Hello, World!"), "{answer}");
    };
    timeout(BOUND, asked).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_costs_lines_of_the_log_and_nothing_else() {
    let mut demo = Demo::start(&["--access-log", "common:/dev/full"]).await;
    ask(&demo).await;
    let is_told = |line: &str| line.contains("the access log cannot be written");
    let line = demo.child.wait_for_line(is_told, BOUND).await.unwrap();
    assert!(
        line.contains("lines=1") && line.contains("No space left"),
        "{line}"
    );
    for _ in 0..20 {
        ask(&demo).await;
    }
    demo.signal(ChildSignal::TERM);
    assert_eq!(demo.end().await.status.code(), Some(0));
    let said = demo.child.stderr();
    // And once more at the end.
    assert_eq!(
        said.lines().filter(|line| is_told(line)).count(),
        2,
        "{said}"
    );
    assert!(said.contains("lines=20"), "{said}");
}

#[tokio::test]
async fn a_pid_file_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing/demo.pid");
    let path = path.to_str().unwrap();
    let mut demo = Demo::start(&["--pidfile", path]).await;
    let is_told = |line: &str| line.contains("the pid file could not be written");
    let line = demo.child.wait_for_line(is_told, BOUND).await.unwrap();
    assert!(
        line.contains(path) && line.contains("No such file"),
        "{line}"
    );
    ask(&demo).await;
    demo.stop().await;
}
