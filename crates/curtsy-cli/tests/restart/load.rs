//! Restarts under load: nothing is lost, refused or closed, and every generation answers.

use crate::row::{BOUND, Row};
use curtsy_prove::{Plan, Report, Running};
use std::time::Duration;

const CONNECTIONS: usize = 200;
const RESTARTS: usize = 7;
/// Seven trials of a second each would be most of the test.
const FLAGS: [&str; 2] = ["--bake-after", "100ms"];

/// Restarts `restarts` times in the middle of a run; what became of every request.
async fn restarts(running: Running, row: &mut Row, restarts: usize) -> Report {
    let answers = |running: &Running| running.counts().answered;
    for _ in 0..restarts {
        let before = answers(&running);
        running.wait_answered(before + 500, BOUND).await.unwrap();
        running.mark("restart");
        row.restart().await;
    }
    let before = answers(&running);
    running.wait_answered(before + 500, BOUND).await.unwrap();
    running.stop();
    running.finish().await
}

fn assert_every_generation_answered(report: &Report, generations: usize) {
    for generation in 0..generations {
        let by = format!("generation={generation}");
        let answered = report.answers.keys().any(|answer| answer.ends_with(&by));
        assert!(answered, "nothing from {by}\n{report}");
    }
}

async fn busy_connections(pause: u64) {
    let mut row = Row::start(&FLAGS).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(CONNECTIONS)
        .think([Duration::from_millis(pause)])
        .refused_is_loss()
        .record_answers()
        .start();
    let report = restarts(running, &mut row, RESTARTS).await;
    let stderr = row.child.stderr();
    assert_eq!(report.lost(), 0, "pause {pause} ms\n{report}\n{stderr}");
    let counts = &report.counts;
    assert_eq!(counts.opened, CONNECTIONS as u64, "{report}\n{stderr}");
    assert_eq!(counts.refused, 0, "{report}");
    assert_eq!(
        counts.closed_by_server_announced + counts.closed_while_idle + counts.closed_by_loss,
        0,
        "{report}\n{stderr}"
    );
    assert_every_generation_answered(&report, RESTARTS + 1);
    row.alone().await;
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_without_pauses_stay() {
    busy_connections(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_with_pauses_of_2_ms_stay() {
    busy_connections(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_with_pauses_of_50_ms_stay() {
    busy_connections(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_new_connection_is_refused_or_reset() {
    let mut row = Row::start(&FLAGS).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(50)
        .connection_per_request()
        .refused_is_loss()
        .record_answers()
        .start();
    let report = restarts(running, &mut row, RESTARTS).await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.refused, 0, "{report}");
    assert_every_generation_answered(&report, RESTARTS + 1);
    row.alone().await;
    row.stop().await;
}
