//! Ten thousand connections that wait, and fifty that do not.

use crate::asking::ask;
use crate::row::{BOUND, Row};
use curtsy_prove::Plan;
use curtsy_prove::child::usage_of;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const IDLE: usize = 10_000;
const BUSY: usize = 50;
/// Descriptors for everything else.
const RESERVE: u64 = 1000;
/// How many connections are opened, or asked, at a time.
const AT_ONCE: usize = 100;
/// It takes a fraction of a second; the bench says what exactly.
const MOVED_WITHIN: Duration = Duration::from_secs(30);

/// Asks on each of them, many at a time; who answered must be this generation.
async fn ask_all(streams: Vec<TcpStream>, generation: u32) -> Vec<TcpStream> {
    let by = format!("generation={generation}");
    let mut asked = Vec::with_capacity(streams.len());
    let mut asking = JoinSet::new();
    let mut streams = streams.into_iter();
    let share = IDLE.div_ceil(AT_ONCE);
    for _ in 0..AT_ONCE {
        let share: Vec<_> = streams.by_ref().take(share).collect();
        let by = by.clone();
        asking.spawn(async move {
            let mut share = share;
            for stream in &mut share {
                assert_eq!(ask(stream).await, by);
            }
            share
        });
    }
    while let Some(share) = asking.join_next().await {
        asked.extend(share.unwrap());
    }
    asked
}

async fn open(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = timeout(BOUND, TcpStream::connect(address)).await.unwrap();
        streams.push(stream.unwrap());
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_and_fifty_busy_connections_go_over() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let needed = (IDLE + BUSY) as u64 + RESERVE;
    if limit.maximum.is_some_and(|most| most < needed) {
        println!(
            "SKIPPED: a process may only have {:?} descriptors",
            limit.maximum
        );
        return;
    }
    let mut row = Row::start(&[]).await;
    let busy = Plan::to_address(row.address, "/pid")
        .connections(BUSY)
        .think([Duration::from_millis(5)])
        .refused_is_loss()
        .record_answers()
        .start();
    let idle = ask_all(open(row.address, IDLE).await, 0).await;
    assert_eq!(idle.len(), IDLE);
    let asked = Instant::now();
    row.restart().await;
    let moved = row.line("moved ").await;
    row.alone().await;
    // None has asked again: those that are open are the new process's.
    let held = usage_of(row.pid()).unwrap().descriptors;
    assert!(held >= IDLE + BUSY, "{held}");
    let line = moved.split("moved ").nth(1).unwrap();
    let mut words = line.split(' ');
    let count: usize = words.next().unwrap().parse().unwrap();
    let took: f64 = words.nth(3).unwrap().parse().unwrap();
    println!("{line}; the whole restart took {:?}", asked.elapsed());
    assert!(count <= IDLE + BUSY, "{line}");
    assert!(took < MOVED_WITHIN.as_secs_f64() * 1000.0, "{line}");
    let idle = ask_all(idle, 1).await;
    assert_eq!(idle.len(), IDLE);
    busy.stop();
    let report = busy.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, BUSY as u64, "{report}");
    assert_eq!(report.answers.len(), 2, "{report}");
    drop(idle);
    row.stop().await;
}
