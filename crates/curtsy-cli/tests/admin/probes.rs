//! What orchestrators ask, over restarts and to the end.

use crate::demo::{BOUND, Demo, get};
use curtsy_prove::child::ChildSignal;
use std::time::Duration;

#[tokio::test]
async fn during_a_restart_whoever_accepts_is_ready() {
    let mut demo = Demo::start(&["--linger", "0s"]).await;
    assert_eq!(demo.ask("/readyz"), (200, "ready\n".to_owned()));
    for generation in 1..=2 {
        // One that keeps the old process draining for a while.
        let (main, answer) = (demo.main, format!("/slow?ms=2000&n={generation}"));
        let slow = std::thread::spawn(move || get(main, &answer));
        while !demo.ask("/status").1.contains("/slow?ms=2000") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let status: serde_json::Value = serde_json::from_str(&demo.ask("/status").1).unwrap();
        let pid = i32::try_from(status["pid"].as_u64().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, ChildSignal::HUP).unwrap();
        demo.line(&format!("generation {generation} serves")).await;
        // New clients get the new process, never the draining one.
        for _ in 0..50 {
            assert_eq!(demo.ask("/readyz"), (200, "ready\n".to_owned()));
        }
        let metrics = demo.ask("/metrics").1;
        let line = format!("curtsy_generation {generation}\n");
        assert!(metrics.contains(&line), "{metrics}");
        assert_eq!(slow.join().unwrap().unwrap().0, 200);
    }
    let status: serde_json::Value = serde_json::from_str(&demo.ask("/status").1).unwrap();
    let pid = i32::try_from(status["pid"].as_u64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, ChildSignal::TERM).unwrap();
    demo.child.wait_output_end(BOUND).await.unwrap();
}

#[tokio::test]
async fn a_lame_duck_serves_and_is_not_ready() {
    let mut demo = Demo::start(&["--lame-duck", "3s", "--linger", "0s"]).await;
    demo.child.signal(ChildSignal::TERM).unwrap();
    demo.line("lame-duck").await;
    assert_eq!(
        demo.ask("/readyz"),
        (503, "not ready: lame-duck\n".to_owned())
    );
    assert_eq!(demo.ask("/livez").0, 200);
    assert_eq!(
        get(demo.main, "/").unwrap(),
        (200, "Hello, World!".to_owned())
    );
    let exit = demo.child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(0), "{}", demo.child.stderr());
}

#[tokio::test]
async fn a_place_that_is_taken_is_said() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let program = env!("CARGO_BIN_EXE_curtsy");
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--admin", &taken];
    let mut child = curtsy_prove::child::Child::start(program, arguments).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(1), "{}", child.stderr());
    assert!(child.stderr().contains(&taken), "{}", child.stderr());
}
