//! Restarts that fail, and restarts during restarts: the old process goes on, and says why.

use crate::row::{BOUND, Row, gone, kill};
use curtsy_prove::Plan;
use curtsy_prove::child::ChildSignal;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Puts a file into the place of another at once, as a deployment does.
fn deploy(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::rename(&new, to).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_program_is_not_taken_over_by() {
    let good = Path::new(env!("CARGO_BIN_EXE_curtsy"));
    let directory = tempfile::tempdir().unwrap();
    let (program, garbage) = (directory.path().join("server"), directory.path().join("g"));
    fs::copy(good, &program).unwrap();
    fs::write(&garbage, "neither a program nor a script").unwrap();
    fs::set_permissions(&garbage, fs::metadata(good).unwrap().permissions()).unwrap();
    let mut row = Row::spawn(&program, &[]).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(20)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start();

    let mut failures = 0;
    for (file, why) in [
        (None, "could not be started: No such file"),
        (Some(garbage.as_path()), "could not be started: Exec format"),
        (Some(Path::new("/bin/false")), "ended with"),
        // It does not understand the arguments, and says so.
        (Some(Path::new("/bin/sleep")), "last words were: / "),
    ] {
        match file {
            Some(file) => deploy(file, &program),
            None => fs::remove_file(&program).unwrap(),
        }
        row.signal(ChildSignal::HUP);
        failures += 1;
        let line = row.line_number("kept the old process: ", failures).await;
        assert!(line.contains(why), "{line}\ninstead of {why}");
        let before = running.counts().answered;
        running.wait_answered(before + 100, BOUND).await.unwrap();
        assert_eq!(row.children(), [0; 0], "a child is left");
    }
    deploy(good, &program);
    row.restart().await;
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, 20, "{report}");
    assert_eq!(report.answers.len(), 2, "{report}");
    row.alone().await;
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_during_a_restart_has_its_turn() {
    let mut row = Row::start(&[]).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(50)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start();
    running.wait_answered(100, BOUND).await.unwrap();
    row.signal(ChildSignal::HUP);
    row.line("starting generation 1").await;
    row.signal(ChildSignal::HUP);
    row.restarted().await;
    row.restarted().await;
    let before = running.counts().answered;
    running.wait_answered(before + 200, BOUND).await.unwrap();
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, 50, "{report}");
    row.alone().await;
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_heir_takes_only_its_own_with_it() {
    const CONNECTIONS: u64 = 50;
    let mut row = Row::start(&[]).await;
    let busy = Plan::to_address(row.address, "/pid")
        .connections(50)
        .think([Duration::from_millis(20)])
        .start();
    // These are the old process's all the time.
    let slow = Plan::to_address(row.address, "/slow?ms=3000")
        .connections(10)
        .requests_each(1)
        .start();
    busy.wait_answered(100, BOUND).await.unwrap();
    row.signal(ChildSignal::HUP);
    let line = row.line("generation 1 accepts (pid ").await;
    let heir = line.split("(pid ").nth(1).unwrap();
    let heir: u32 = heir.split(')').next().unwrap().parse().unwrap();
    kill(heir, ChildSignal::KILL).unwrap();
    let line = row.line("kept the old process: ").await;
    assert!(line.contains("ended with"), "{line}");
    gone(heir).await;
    assert_eq!(row.children(), [0; 0], "a zombie is left");

    // Served again, by the old process.
    let before = busy.counts().answered;
    busy.wait_answered(before + 200, BOUND).await.unwrap();
    let report = slow.finish().await;
    assert_eq!((report.lost(), report.counts.answered), (0, 10), "{report}");
    // The next one succeeds, with whatever there is by now.
    row.restart().await;
    busy.stop();
    let report = busy.finish().await;
    assert!(report.lost() <= CONNECTIONS, "{report}");
    assert!(report.counts.opened <= 2 * CONNECTIONS, "{report}");
    assert_eq!(report.counts.refused, 0, "{report}");
    row.alone().await;
    row.stop().await;
}
