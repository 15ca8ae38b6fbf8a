//! A listener that was switched to another mode is in that mode after a restart.

use crate::row::{BOUND, Row};
use curtsy_prove::Plan;
use curtsy_prove::child::Child;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

const CURTSY: &str = env!("CARGO_BIN_EXE_curtsy");

/// Whether requests are answered; otherwise it goes on trying for a while.
async fn is_answered(row: &Row, scheme: &str) -> bool {
    let plan = Plan::to(&format!("{scheme}://{}/pid", row.address)).unwrap();
    let report = plan
        .connections(1)
        .think([Duration::from_millis(50)])
        .duration(Duration::from_millis(200))
        .insecure()
        .start()
        .finish()
        .await;
    report.counts.answered > 0
}

async fn switch(control: &Path, mode: &str) {
    let mut command = Command::new(CURTSY);
    command
        .args(["switch", "main", mode, "--control"])
        .arg(control);
    let mut child = Child::spawn(command).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(0), "{}", child.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listeners_switched_mode_goes_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(CURTSY);
    command
        .args(["demo", "--listen", "127.0.0.1:0", "--bake-after", "100ms"])
        .args(["--tls", "self-signed", "--mode", "plain"])
        .env("XDG_RUNTIME_DIR", directory.path());
    let mut row = Row::run(command, "http://").await;
    // Each to the next, and twice over: what came with the program's flags is not what counts.
    for (mode, plain, tls) in [
        ("tls", false, true),
        ("both", true, true),
        ("plain", true, false),
    ] {
        let control = directory.path().join(format!("curtsy-{}.sock", row.pid()));
        switch(&control, mode).await;
        for restarts in 0..2 {
            let what = format!("{mode} after {restarts} restarts\n{}", row.child.stderr());
            assert_eq!(is_answered(&row, "http").await, plain, "plain, {what}");
            assert_eq!(is_answered(&row, "https").await, tls, "encrypted, {what}");
            if restarts == 0 {
                row.restart().await;
                row.alone().await;
            }
        }
    }
    row.stop().await;
}
