//! Stopping under load: the strict client counts, and nothing may be missing.

use crate::server::{BOUND, Demo};
use curtsy_prove::child::ChildSignal;
use curtsy_prove::{Plan, Report};
use std::time::Duration;

const CONNECTIONS: usize = 200;
/// Answers to see before the signal, so that it comes in the middle.
const BEFORE: u64 = 1_000;

/// Sends the signal once the load is under way; what became of every request.
async fn stop_in_the_middle(plan: Plan, mut demo: Demo) -> Report {
    let running = plan.start();
    let under_way = async {
        while running.counts().answered < BEFORE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, under_way).await.unwrap();
    demo.signal(ChildSignal::TERM);
    let exit = demo.end().await;
    assert_eq!(exit.status.code(), Some(0), "{}", demo.child.stderr());
    // A port that nobody listens on any more ends each client.
    running.finish().await
}

async fn three_runs(pause: u64) {
    for run in 1..=3 {
        let demo = Demo::start(&[]).await;
        let plan = Plan::to_address(demo.address, "/")
            .connections(CONNECTIONS)
            .think([Duration::from_millis(pause)])
            .expect_text("Hello, World!");
        let report = stop_in_the_middle(plan, demo).await;
        assert_eq!(report.lost(), 0, "run {run}, pause {pause} ms\n{report}");
        assert!(report.counts.answered >= BEFORE, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_without_pauses() {
    three_runs(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_pauses_of_2_ms() {
    three_runs(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_pauses_of_50_ms() {
    three_runs(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_new_connection_is_lost() {
    let demo = Demo::start(&[]).await;
    let plan = Plan::to_address(demo.address, "/")
        .connections(50)
        .think([Duration::ZERO])
        .connection_per_request();
    let report = stop_in_the_middle(plan, demo).await;
    assert_eq!(report.lost(), 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_under_way_arrive_whole() {
    let mut demo = Demo::start(&[]).await;
    let running = Plan::to_address(demo.address, "/upload")
        .connections(20)
        .requests_each(1)
        .upload_paced(1 << 20, 1 << 20)
        .expect_text("received=1048576")
        .start();
    let under_way = async {
        while running.counts().sent < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, under_way).await.unwrap();
    demo.signal(ChildSignal::TERM);
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(report.counts.answered, 20, "{report}");
    assert_eq!(demo.end().await.status.code(), Some(0));
}
