//! What is under way when the restart comes: it finishes where it began, and what has no end is told.

use crate::row::{BOUND, Row};
use curtsy_prove::{Plan, Running};
use std::time::Duration;

/// Waits until so many requests were sent.
async fn sent(running: &Running, requests: u64) {
    let wait = async {
        while running.counts().sent < requests {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_downloads_and_slow_answers_finish() {
    const MEGABYTES: u64 = 20;
    let mut row = Row::start(&[]).await;
    let uploads = Plan::to_address(row.address, "/upload")
        .connections(4)
        .requests_each(1)
        .upload_paced(MEGABYTES << 20, 8 << 20)
        .expect_text(&format!("received={}", MEGABYTES << 20))
        .start();
    let slow = Plan::to_address(row.address, "/slow?ms=2500")
        .connections(10)
        .requests_each(1)
        .expect_text("slept 2500 ms\n")
        .start();
    let downloads = Plan::to_address(row.address, "/big?bytes=52428800")
        .connections(4)
        .requests_each(2)
        .expect_length(50 << 20)
        .start();
    sent(&uploads, 4).await;
    sent(&slow, 10).await;
    sent(&downloads, 4).await;
    row.restart().await;
    for (what, running, answers) in [
        ("uploads", uploads, 4),
        ("slow", slow, 10),
        ("downloads", downloads, 8),
    ] {
        let report = running.finish().await;
        assert_eq!(report.lost(), 0, "{what}\n{report}");
        assert_eq!(report.counts.answered, answers, "{what}\n{report}");
    }
    row.alone().await;
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_and_streams_are_told_while_the_heir_serves() {
    const CONNECTIONS: usize = 10;
    let mut row = Row::start(&[]).await;
    let sockets = Plan::to_address(row.address, "/ws")
        .connections(CONNECTIONS)
        .think([Duration::from_millis(5)])
        .websocket(32)
        .start();
    let streams = Plan::to_address(row.address, "/events")
        .connections(CONNECTIONS)
        .requests_each(1)
        .expect_body(
            |body| match body.ends_with(b"event: draining\ndata: bye\n\n") {
                true => Ok(()),
                false => Err("the stream was not told".to_owned()),
            },
        )
        .start();
    sockets.wait_answered(100, BOUND).await.unwrap();
    sent(&streams, CONNECTIONS as u64).await;
    row.restart().await;
    let report = streams.finish().await;
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(report.counts.answered, CONNECTIONS as u64, "{report}");
    row.alone().await;
    let before = sockets.counts().answered;
    sockets.wait_answered(before + 100, BOUND).await.unwrap();
    sockets.stop();
    let report = sockets.finish().await;
    assert_eq!(report.lost(), 0, "{report}");
    let told = report.close_codes.get(&1001).copied();
    assert_eq!(told, Some(CONNECTIONS as u64), "{report}");
    row.stop().await;
}
