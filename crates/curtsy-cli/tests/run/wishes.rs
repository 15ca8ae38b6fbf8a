//! Restarts that a supervised program asks for itself: its supervisor brings them about.

use crate::supervisor::{BOUND, DEMO, Supervisor, answers, finish_after, reload};
use curtsy_prove::Plan;
use rustix::process::{Signal, kill_process};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_to_the_program_is_a_reload_and_closes_nothing() {
    let mut supervisor = Supervisor::start(&[], &DEMO).await;
    let running = Plan::to_address(supervisor.address, "/pid")
        .connections(50)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start();
    for generation in 0..3 {
        answers(&running, 200).await;
        let pid = supervisor.pid(generation).await;
        kill_process(pid, Signal::HUP).unwrap();
        supervisor
            .line(&format!("curtsy: generation {} serves", generation + 1))
            .await;
    }
    let report = finish_after(running, 200).await;
    let stderr = supervisor.child.stderr();
    assert_eq!(report.lost(), 0, "{report}\n{stderr}");
    assert_eq!(report.counts.opened, 50, "{report}\n{stderr}");
    assert_eq!(report.answers.len(), 4, "{report}");
    assert_eq!(supervisor.count("asks for a reload"), 3, "{stderr}");
    // Nothing of it looked like a death.
    assert_eq!(supervisor.count("starting it again"), 0, "{stderr}");
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_hears_what_became_of_its_wish() {
    // The next one ends at once while there is this file.
    let script = format!(
        "if [ -e $DIRECTORY/broken ]; then exit 3; fi; exec {} --control $DIRECTORY/demo",
        DEMO.join(" ")
    );
    let mut supervisor = Supervisor::start(&[], &["sh", "-c", &script]).await;
    let (broken, control) = (
        supervisor.directory.path().join("broken"),
        supervisor.directory.path().join("demo"),
    );
    std::fs::write(&broken, "").unwrap();
    let (code, said) = reload(&control).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("generation 1 exited with status 3; the old one was kept"),
        "{said}"
    );
    // In its own words, too.
    supervisor
        .line("kept the old process: generation 1 exited with status 3")
        .await;
    assert!(supervisor.get("/pid").await.ends_with("generation=0"));
    std::fs::remove_file(&broken).unwrap();
    let (code, said) = reload(&control).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(supervisor.get("/pid").await.ends_with("generation=1"));
    let stderr = supervisor.child.stderr();
    assert_eq!(supervisor.count("starting it again"), 0, "{stderr}");
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wishes_of_two_processes_are_fulfilled() {
    let mut supervisor = Supervisor::start(&["--processes", "2"], &DEMO).await;
    let started = |line: &curtsy_prove::child::Line| {
        let rest = line.text.split("generation 0 started  (pid ").nth(1)?;
        rest.trim_end_matches(')').parse().ok()
    };
    let pids: Vec<i32> = supervisor
        .child
        .lines()
        .iter()
        .filter_map(started)
        .collect();
    assert_eq!(pids.len(), 2);
    let running = Plan::to_address(supervisor.address, "/pid")
        .connections(20)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .start();
    running.wait_answered(100, BOUND).await.unwrap();
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }
    // One after the other, as reloads are that others ask for. The second wish may come too late to be heard, from a
    // process that has handed over: its heir asks in its place, or the wish ended with it.
    supervisor.line("curtsy: generation 1 serves").await;
    supervisor.lines("curtsy: drained in", 2).await;
    let report = finish_after(running, 200).await;
    let stderr = supervisor.child.stderr();
    assert_eq!(report.lost(), 0, "{report}\n{stderr}");
    assert_eq!(supervisor.count("starting it again"), 0, "{stderr}");
    assert_eq!(supervisor.stop().await, Some(0));
}
