//! `curtsy demo` under `curtsy run`: reloads and stops under load, and nothing may be missing.

use crate::supervisor::{BOUND, DEMO, Supervisor, answers, finish_after, kill};
use curtsy_prove::child::ChildSignal;
use curtsy_prove::{Plan, Report};
use std::time::Duration;

const RELOADS: u64 = 3;
/// Answers to see between two reloads.
const BETWEEN: u64 = 500;

/// Reloads again and again in the middle of the load.
async fn reloaded(plan: Plan, supervisor: &Supervisor) -> Report {
    let running = plan.refused_is_loss().start();
    for reload in 1..=RELOADS {
        answers(&running, BETWEEN).await;
        running.mark(&format!("reload {reload}"));
        supervisor.reloads().await;
    }
    answers(&running, BETWEEN).await;
    running.stop();
    running.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_lose_no_request_of_busy_connections() {
    let mut supervisor = Supervisor::start(&[], &DEMO).await;
    let plan = Plan::to_address(supervisor.address, "/pid")
        .connections(100)
        .think([0, 2, 50].map(Duration::from_millis))
        .record_answers();
    let report = reloaded(plan, &supervisor).await;
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(report.counts.refused, 0, "{report}");
    let generations = usize::try_from(RELOADS).unwrap() + 1;
    assert_eq!(report.answers.len(), generations, "{:?}", report.answers);
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_lose_no_new_connection() {
    let mut supervisor = Supervisor::start(&["--processes", "2"], &DEMO).await;
    let plan = Plan::to_address(supervisor.address, "/")
        .connections(30)
        .connection_per_request()
        .expect_text("Hello, World!");
    let report = reloaded(plan, &supervisor).await;
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(report.counts.refused, 0, "{report}");
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_empties_the_queue_first() {
    let mut supervisor = Supervisor::start(&[], &DEMO).await;
    let running = Plan::to_address(supervisor.address, "/")
        .connections(50)
        .connection_per_request()
        .start();
    running.wait_answered(BETWEEN, BOUND).await.unwrap();
    assert_eq!(supervisor.stop().await, Some(0));
    // A port that nobody listens on any more ends each client.
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_while_a_dead_process_comes_back() {
    let mut supervisor = Supervisor::start(&[], &DEMO).await;
    let running = Plan::to_address(supervisor.address, "/pid")
        .connections(20)
        .connection_per_request()
        .record_answers()
        .start();
    running.wait_answered(BETWEEN, BOUND).await.unwrap();
    let pid = supervisor.pid(0).await;
    kill(pid);
    supervisor.line("starting it again in 100 ms").await;
    let report = finish_after(running, BETWEEN).await;
    // What the dead process had accepted went with it; nobody was turned away.
    assert_eq!(report.counts.refused, 0, "{report}");
    assert_eq!(report.counts.connect_failed, 0, "{report}");
    assert!(report.lost() <= 20, "{report}");
    assert_eq!(report.answers.len(), 2, "{:?}", report.answers);
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_reloads_and_reloads_that_meet_are_all_answered() {
    let mut supervisor = Supervisor::start(&[], &DEMO).await;
    supervisor.child.signal(ChildSignal::HUP).unwrap();
    supervisor.line("generation 1 serves").await;
    let (a, b, c) = tokio::join!(
        supervisor.reload(),
        supervisor.reload(),
        supervisor.reload()
    );
    for (code, said) in [a, b, c] {
        assert_eq!(code, Some(0), "{said}");
    }
    // The first, and one for those that came during it.
    supervisor.line("generation 2 serves").await;
    let pid = supervisor.get("/pid").await;
    assert!(pid.contains("pid="), "{pid}");
    assert_eq!(supervisor.stop().await, Some(0));
}
