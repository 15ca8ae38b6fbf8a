//! Connections that wait: they change hands with what little is known of them, restart by restart.

use crate::row::{BOUND, Row};
use curtsy_prove::Plan;
use curtsy_prove::child::usage_of;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ASK: &[u8] = b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n";

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends bytes, and reads the answers to as many requests as they complete.
async fn exchange(stream: &mut TcpStream, bytes: &[u8], answers: usize) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.matches("generation=").count() < answers {
        let read = timeout(BOUND, stream.read(&mut buffer)).await.unwrap();
        let read = read.unwrap();
        assert!(read > 0, "closed after {text:?}");
        text += std::str::from_utf8(&buffer[..read]).unwrap();
    }
    assert!(!text.to_lowercase().contains("connection: close"), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_connections_and_descriptors_go_through_ten_restarts() {
    const RESTARTS: usize = 10;
    const SLACK: usize = 4;
    let mut row = Row::start(&[]).await;
    let mut silent = Vec::new();
    let mut idle = Vec::new();
    for _ in 0..25 {
        silent.push(connect(row.address).await);
        let mut stream = connect(row.address).await;
        exchange(&mut stream, ASK, 1).await;
        idle.push(stream);
    }
    let mut descriptors = None;
    for generation in 1..=RESTARTS {
        row.restart().await;
        row.alone().await;
        let by = format!("pid={} generation={generation}", row.pid());
        // Another one each time.
        idle.rotate_left(1);
        let answer = exchange(&mut idle[0], ASK, 1).await;
        assert!(answer.ends_with(&by), "{answer} instead of {by}");
        if generation == 3 {
            // Before the patience with silent clients, which goes over too, is at its end.
            for stream in &mut silent {
                assert!(exchange(stream, ASK, 1).await.ends_with(&by));
            }
        }
        // The channel to the old process closes a moment after that has ended. A leak of one
        // descriptor a restart would be more than the slack by the end.
        let settled = async {
            loop {
                let now = usage_of(row.pid()).unwrap().descriptors;
                if descriptors.is_none_or(|before| now <= before + SLACK) {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let now = timeout(BOUND, settled).await;
        let now = now.unwrap_or_else(|_| panic!("more than {descriptors:?} descriptors"));
        if generation > 1 {
            descriptors.get_or_insert(now);
        }
        assert_eq!(row.children(), [0; 0], "a child is left");
    }
    let last = format!("generation={RESTARTS}");
    for stream in silent.iter_mut().chain(&mut idle) {
        assert!(exchange(stream, ASK, 1).await.ends_with(&last));
    }
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_head_stays_and_its_connection_follows() {
    let mut row = Row::start(&[]).await;
    let mut stream = connect(row.address).await;
    exchange(&mut stream, ASK, 1).await;
    let (half, rest) = ASK.split_at(20);
    // A whole request and half of the next: the half is read with it.
    let answer = exchange(&mut stream, &[ASK, half].concat(), 1).await;
    assert!(answer.ends_with("generation=0"), "{answer}");
    let mut late = connect(row.address).await;
    late.write_all(half).await.unwrap();
    // The half heads are read by now: this answer came after them.
    exchange(&mut connect(row.address).await, ASK, 1).await;
    row.restart().await;
    let answer = exchange(&mut late, rest, 1).await;
    assert!(answer.contains("generation="), "{answer}");
    let answer = exchange(&mut late, ASK, 1).await;
    assert!(answer.ends_with("generation=1"), "{answer}");
    exchange(&mut stream, rest, 1).await;
    let answer = exchange(&mut stream, ASK, 1).await;
    assert!(answer.ends_with("generation=1"), "{answer}");
    row.alone().await;
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_listener_goes_over_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("demo.sock");
    let mut row = Row::start(&["--listen", &format!("unix:{}", path.display())]).await;
    let running = Plan::to_unix(&path, "/pid")
        .connections(50)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start();
    for _ in 0..2 {
        let before = running.counts().answered;
        running.wait_answered(before + 200, BOUND).await.unwrap();
        row.restart().await;
    }
    row.alone().await;
    let fresh = Plan::to_unix(&path, "/pid")
        .connections(5)
        .requests_each(2)
        .refused_is_loss()
        .start()
        .finish()
        .await;
    assert_eq!((fresh.lost(), fresh.counts.answered), (0, 10), "{fresh}");
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, 50, "{report}");
    assert_eq!(report.answers.len(), 3, "{report}");
    row.stop().await;
    assert!(!path.exists(), "the last owner left the path behind");
}
