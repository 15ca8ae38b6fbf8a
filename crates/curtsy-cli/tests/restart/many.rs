//! Many restarts: in a row, as fast as they go, and with old processes that do not end.

use crate::row::{BOUND, Row, gone, kill, state};
use curtsy_prove::Plan;
use curtsy_prove::child::{ChildSignal, usage_of};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// As many old processes may drain at a time.
const DRAINING_MOST: usize = 8;
const REFUSED: &str = "old generations are still draining";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_restarts_as_fast_as_they_go_leave_nothing_behind() {
    const RESTARTS: usize = 100;
    const CONNECTIONS: u64 = 20;
    const SLACK: usize = 4;
    let flags = ["--bake-after", "1ms", "--workers", "2"];
    let mut row = Row::start(&flags).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(usize::try_from(CONNECTIONS).unwrap())
        .think([2, 20].map(Duration::from_millis))
        .refused_is_loss()
        .start();
    running.wait_answered(100, BOUND).await.unwrap();
    let mut first = None;
    let mut refused = 0;
    while row.generation() < RESTARTS {
        row.signal(ChildSignal::HUP);
        match row.restarted_or_kept(refused).await {
            Ok(()) => {}
            Err(why) => {
                // Truthfully, and for this reason only: this one goes on until an old one has ended.
                assert!(why.contains(REFUSED), "{why}");
                refused += 1;
                let living = row.living();
                assert!(living > 1, "{why}");
                gone(row.oldest_living()).await;
            }
        }
        assert!(row.living() <= DRAINING_MOST + 2, "{}", row.living());
        if row.generation() == 2 && first.is_none() {
            row.alone().await;
            first = Some(settled(row.pid(), 0).await);
        }
    }
    row.alone().await;
    let first = first.unwrap();
    let last = settled(row.pid(), first + SLACK).await;
    assert!(last <= first + SLACK, "{first} descriptors, then {last}");
    assert_eq!(row.children(), [0; 0], "a child is left");
    println!("{RESTARTS} restarts, {refused} refused; {first} descriptors, then {last}");
    let before = running.counts().answered;
    running.wait_answered(before + 200, BOUND).await.unwrap();
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, CONNECTIONS, "{report}");
    row.stop().await;
}

/// How many descriptors a process has once it has no more than `most` (0: once that stands still).
async fn settled(pid: u32, most: usize) -> usize {
    let mut last = usize_of(pid);
    for _ in 0..200 {
        sleep(Duration::from_millis(20)).await;
        let now = usize_of(pid);
        if now <= most || (most == 0 && now == last) {
            return now;
        }
        last = now;
    }
    last
}

fn usize_of(pid: u32) -> usize {
    usage_of(pid).unwrap().descriptors
}

/// A request that keeps its process from ending.
async fn pin(row: &Row, ms: u32) -> TcpStream {
    let mut stream = TcpStream::connect(row.address).await.unwrap();
    // Its answer to the first request shows that the second is on its way to the same process.
    let ask = b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut buffer = [0; 1024];
    let read = timeout(BOUND, stream.read(&mut buffer)).await.unwrap();
    let text = String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned();
    let by = format!("generation={}", row.generation());
    assert!(text.ends_with(&by), "{text} instead of {by}");
    let ask = format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n{ms}");
    // Half a body: its answer has begun, so it has arrived.
    stream
        .write_all(&ask.as_bytes()[..ask.len() - 2])
        .await
        .unwrap();
    let read = timeout(BOUND, stream.read(&mut buffer)).await.unwrap();
    let text = String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    stream
}

/// Lets a pinned request finish; its answer must come from the process it was asked.
async fn release(mut stream: TcpStream) {
    stream.write_all(b"00").await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"00") && !text.ends_with(b"00\r\n0\r\n\r\n") {
        let mut buffer = [0; 1024];
        let read = timeout(BOUND, stream.read(&mut buffer)).await.unwrap();
        let read = read.unwrap();
        assert!(
            read > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&text)
        );
        text.extend(&buffer[..read]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_generations_drain_at_once() {
    let flags = ["--bake-after", "50ms", "--workers", "2"];
    let mut row = Row::start(&flags).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(50)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start();
    let mut pinned = Vec::new();
    for _ in 0..3 {
        pinned.push(pin(&row, 1000).await);
        row.restart().await;
        let before = running.counts().answered;
        running.wait_answered(before + 100, BOUND).await.unwrap();
    }
    assert_eq!(row.living(), 4, "{}", row.child.stderr());
    // The middle one first: each ends for itself.
    for index in [1, 1, 0] {
        release(pinned.remove(index)).await;
    }
    row.alone().await;
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, 50, "{report}");
    assert_eq!(report.answers.len(), 4, "{report}");
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_over_the_most_that_may_drain_is_refused_and_later_done() {
    let flags = ["--bake-after", "1ms", "--workers", "1"];
    let mut row = Row::start(&flags).await;
    let mut pinned = std::collections::VecDeque::new();
    for _ in 0..DRAINING_MOST {
        pinned.push_back(pin(&row, 1000).await);
        row.restart().await;
    }
    assert_eq!(row.living(), DRAINING_MOST + 1);
    row.signal(ChildSignal::HUP);
    let why = row.restarted_or_kept(0).await.unwrap_err();
    assert!(
        why.contains("8 old generations are still draining"),
        "{why}"
    );
    // The one that refused serves on, and all others finish what they have.
    let last = pin(&row, 1000).await;
    let oldest = row.oldest_living();
    release(pinned.pop_front().unwrap()).await;
    gone(oldest).await;
    row.restart().await;
    release(last).await;
    for stream in pinned {
        release(stream).await;
    }
    row.alone().await;
    row.stop().await;
}

impl Row {
    /// Waits until the next generation has proved itself, or for the line after so many that says that the old process
    /// was kept.
    async fn restarted_or_kept(&mut self, kept_before: usize) -> Result<(), String> {
        let served = format!("generation {} serves (pid ", self.generation() + 1);
        let wait = async {
            loop {
                let lines = self.lines();
                if lines.iter().any(|line| line.text.contains(&served)) {
                    return None;
                }
                let kept = |line: &&curtsy_prove::child::Line| {
                    line.text.contains("kept the old process: ")
                };
                if let Some(line) = lines.iter().filter(kept).nth(kept_before) {
                    return Some(line.text.clone());
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let decided = timeout(BOUND, wait).await;
        let decided =
            decided.unwrap_or_else(|_| panic!("nothing decided\n{}", self.child.stderr()));
        match decided {
            None => {
                self.restarted().await;
                Ok(())
            }
            Some(why) => Err(why),
        }
    }

    fn is_living(pid: u32) -> bool {
        state(pid).is_some_and(|state| state != 'Z')
    }

    /// How many generations there are.
    fn living(&self) -> usize {
        let pids = self.pids().iter();
        pids.filter(|pid| Self::is_living(**pid)).count()
    }

    /// The oldest of them.
    fn oldest_living(&self) -> u32 {
        let mut pids = self.pids().iter().copied();
        pids.find(|pid| Self::is_living(*pid)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_the_trial_waits_for_its_end_and_loses_nothing() {
    let mut row = Row::start(&["--bake-after", "500ms"]).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(50)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .start();
    running.wait_answered(100, BOUND).await.unwrap();
    let old = row.pid();
    row.signal(ChildSignal::HUP);
    row.line("generation 1 accepts (pid ").await;
    kill(old, ChildSignal::TERM).unwrap();
    row.restarted().await;
    row.alone().await;
    let before = running.counts().answered;
    running.wait_answered(before + 100, BOUND).await.unwrap();
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, 50, "{report}");
    row.stop().await;
}
