//! Generations that can hand over, under a supervisor: it brings them together, and connections go over.

use crate::asking::ask;
use crate::supervisor::{BOUND, CURTSY, DEMO, Supervisor, answers, finish_after, kill};
use curtsy_prove::Plan;
use curtsy_prove::child::ChildSignal;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

const RELOADS: u64 = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_reloads_close_none_of_200_busy_connections() {
    let mut supervisor = Supervisor::start(&[], &DEMO).await;
    let running = Plan::to_address(supervisor.address, "/pid")
        .connections(200)
        .think([0, 2, 50].map(Duration::from_millis))
        .refused_is_loss()
        .record_answers()
        .start();
    for reload in 1..=RELOADS {
        answers(&running, 500).await;
        running.mark(&format!("reload {reload}"));
        supervisor.reloads().await;
    }
    let report = finish_after(running, 500).await;
    let stderr = supervisor.child.stderr();
    assert_eq!(report.lost(), 0, "{report}\n{stderr}");
    let counts = &report.counts;
    assert_eq!(counts.opened, 200, "{report}\n{stderr}");
    assert_eq!(counts.refused, 0, "{report}");
    assert_eq!(
        counts.closed_by_server_announced + counts.closed_while_idle + counts.closed_by_loss,
        0,
        "{report}\n{stderr}"
    );
    for generation in 0..=RELOADS {
        let by = format!("generation={generation}");
        let answered = report.answers.keys().any(|answer| answer.ends_with(&by));
        assert!(answered, "nothing from {by}\n{report}");
    }
    assert_eq!(supervisor.stop().await, Some(0));
}

async fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut stream).await, "generation=0");
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_two_processes_go_over_to_two() {
    let mut supervisor = Supervisor::start(&["--processes", "2"], &DEMO).await;
    let mut idle = idle(supervisor.address, 50).await;
    supervisor.reloads().await;
    supervisor.lines("curtsy: drained in", 2).await;
    for stream in &mut idle {
        assert_eq!(ask(stream).await, "generation=1");
    }
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_cannot_take_over_begins_on_its_own() {
    // The second does not know the supervisor: its variable is gone.
    let script = format!(
        "if [ -e $DIRECTORY/second ]; then unset CURTSY_RUN; fi; touch $DIRECTORY/second; \
         exec {CURTSY} demo --inherit --workers 2"
    );
    let mut supervisor = Supervisor::start(&[], &["sh", "-c", &script]).await;
    let running = Plan::to_address(supervisor.address, "/pid")
        .connections(50)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start();
    // Alone from the first, too, as the third has nobody to take over from.
    for _ in 0..2 {
        answers(&running, 200).await;
        supervisor.reloads().await;
    }
    let report = finish_after(running, 200).await;
    assert_eq!(report.lost(), 0, "{report}\n{}", supervisor.child.stderr());
    // Drained and opened anew: they did not go over.
    assert!(report.counts.opened >= 100, "{report}");
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_generation_comes_back_when_the_new_one_dies_on_trial() {
    // It accepts at once, and is judged later.
    let flags = ["--ready", "delay:1500ms"];
    let mut supervisor = Supervisor::start(&flags, &DEMO).await;
    let idle = idle(supervisor.address, 20).await;
    let slow = Plan::to_address(supervisor.address, "/slow?ms=4000")
        .connections(10)
        .requests_each(1)
        .start();
    slow.wait_sent(10).await;
    supervisor.child.signal(ChildSignal::HUP).unwrap();
    let pid = supervisor.pid(1).await;
    // The new one has them, and the old one has stopped accepting.
    supervisor.line("moved ").await;
    kill(pid);
    supervisor.line("the old one was kept").await;
    drop(idle);
    // What was never the new one's is answered, and so is who comes now.
    let answer = supervisor.get("/pid").await;
    assert!(answer.ends_with("generation=0"), "{answer}");
    let report = slow.finish().await;
    assert_eq!((report.lost(), report.counts.answered), (0, 10), "{report}");
    // The next one succeeds.
    supervisor.reloads().await;
    let answer = supervisor.get("/pid").await;
    assert!(answer.contains("generation=1"), "{answer}");
    assert_eq!(supervisor.stop().await, Some(0));
}

trait Sent {
    async fn wait_sent(&self, requests: u64);
}

impl Sent for curtsy_prove::Running {
    async fn wait_sent(&self, requests: u64) {
        let wait = async {
            while self.counts().sent < requests {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(BOUND, wait).await.unwrap();
    }
}
