//! Several processes of one program that are all told the same admin address and the same control path: one has them, the
//! others serve without, and take them when they are free.

use crate::admin::get;
use crate::supervisor::{BOUND, CURTSY, Supervisor, kill, status_at};
use curtsy_prove::child::free_address;
use rustix::process::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NO_ADMIN: &str = "another process has the admin listener's address";
const NO_CONTROL: &str = "another process has the control socket";

/// Asks again and again until somebody else than `before` answers.
async fn other_than<F: Future<Output = Option<u64>>>(before: u64, ask: impl Fn() -> F) -> u64 {
    let begun = Instant::now();
    loop {
        match ask().await {
            Some(answer) if answer != before => return answer,
            answer => assert!(begun.elapsed() < BOUND, "still {answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is told at the admin address, if somebody is there.
async fn told_at(admin: SocketAddr, what: &str) -> Option<u64> {
    let answer = get(admin, "/status").await.ok()?;
    let status: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
    status[what].as_u64()
}

/// Who answers at the control path.
async fn steered_at(control: &Path) -> Option<u64> {
    status_at(control).await?["pid"].as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_takes_nothing_over_waits_for_the_admin_port() {
    let admin = free_address().unwrap();
    // Without the variable nobody brings the two together.
    let script =
        format!("unset CURTSY_RUN; exec {CURTSY} demo --inherit --workers 1 --admin {admin}");
    let mut supervisor = Supervisor::start(&[], &["sh", "-c", &script]).await;
    let first = told_at(admin, "pid").await.unwrap();
    // The old generation has an answer to bring to its end until its client leaves.
    let mut slow = TcpStream::connect(supervisor.address).await.unwrap();
    let head = b"GET /big?bytes=50000000 HTTP/1.1\r\nHost: test\r\n\r\n";
    slow.write_all(head).await.unwrap();
    assert!(slow.read(&mut [0; 64]).await.unwrap() > 0);
    supervisor.reloads().await;
    assert_eq!(supervisor.count(NO_ADMIN), 1);
    assert_eq!(
        told_at(admin, "pid").await,
        Some(first),
        "until its drain is over"
    );
    let rest = get(supervisor.address, "/pid").await.unwrap();
    assert!(!rest.contains(&format!("pid={first} ")), "{rest}");
    drop(slow);
    let second = other_than(first, || told_at(admin, "pid")).await;
    assert!(rest.contains(&format!("pid={second} ")), "{second}: {rest}");
    assert_eq!(supervisor.count(NO_ADMIN), 1, "it is said once");
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_processes_has_what_only_one_can_have() {
    let admin = free_address().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("program");
    let (at_admin, at_control) = (
        format!("--admin={admin}"),
        format!("--control={}", control.display()),
    );
    let program = [
        CURTSY,
        "demo",
        "--inherit",
        "--workers=1",
        &at_admin,
        &at_control,
    ];
    let mut supervisor = Supervisor::start(&["--processes", "3"], &program).await;
    // Each of the two is one process's, and the same one's or not.
    assert_eq!(supervisor.count(NO_ADMIN), 2);
    assert_eq!(supervisor.count(NO_CONTROL), 2);
    let seen = told_at(admin, "pid").await.unwrap();
    let steered = steered_at(&control).await.unwrap();
    for pid in BTreeSet::from([seen, steered]) {
        kill(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap());
    }
    // Others have them now: what the killed one left at the path is no hindrance.
    other_than(seen, || told_at(admin, "pid")).await;
    other_than(steered, || steered_at(&control)).await;
    // And they go to the next generation, which is another three.
    supervisor.line("starting it again").await;
    supervisor.reloads().await;
    other_than(0, || told_at(admin, "generation")).await;
    assert!(steered_at(&control).await.is_some());
    assert_eq!(supervisor.stop().await, Some(0));
    assert!(!control.exists(), "it goes with the last that had it");
}
