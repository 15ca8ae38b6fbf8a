//! HAProxy, which asks the admin listener who is ready.

use crate::fleet::{
    BOUND, Instance, answers, assert_whole, fleet, load, placed, program, roll, shipped,
};
use curtsy_prove::child::{Child, ChildSignal, free_address};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

#[test]
fn the_shipped_configuration_is_valid() {
    let Some(haproxy) = program("haproxy") else {
        return;
    };
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/haproxy/haproxy.cfg"
    );
    let output = std::process::Command::new(haproxy)
        .args(["-c", "-f", config])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && !said.contains("[WARNING]"),
        "{said}"
    );
}

/// What HAProxy knows of a server.
#[derive(Debug)]
struct Backend {
    status: String,
    /// Requests that were sent again, to it (`wretr`, also after a connection that ended without an answer) or to another
    /// (`wredis`).
    tried_again: u64,
    /// Connects (`econ`) and answers (`eresp`) that failed for good.
    failed: u64,
}

fn backends(socket: &Path) -> Vec<Backend> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"show stat\n").unwrap();
    let mut table = String::new();
    stream.read_to_string(&mut table).unwrap();
    let mut lines = table.lines();
    let names: Vec<&str> = lines
        .next()
        .unwrap()
        .trim_start_matches("# ")
        .split(',')
        .collect();
    let column = |name: &str| names.iter().position(|found| *found == name).unwrap();
    let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
    rows.filter(|row| row.len() > 10 && row[0] == "curtsy" && row[1] != "BACKEND")
        .map(|row| {
            let count = |name: &str| row[column(name)].parse::<u64>().unwrap();
            Backend {
                status: row[column("status")].to_owned(),
                tried_again: count("wretr") + count("wredis"),
                failed: count("econ") + count("eresp"),
            }
        })
        .collect()
}

fn tried_again(socket: &Path) -> u64 {
    backends(socket).iter().map(|one| one.tried_again).sum()
}

async fn all_up(socket: &Path) {
    let begun = Instant::now();
    loop {
        let backends = backends(socket);
        if backends.len() == 3 && backends.iter().all(|one| one.status == "UP") {
            return;
        }
        assert!(begun.elapsed() < BOUND, "{backends:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_rolled_twice_lose_nothing_at_its_front() {
    let Some(haproxy) = program("haproxy") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (config, socket) = (
        directory.path().join("haproxy.cfg"),
        directory.path().join("stats.sock"),
    );
    let mut fleet = fleet().await;
    let front = free_address().unwrap();
    let stats = format!("global\n    stats socket {}", socket.display());
    let text = placed(&shipped("haproxy/haproxy.cfg"), &fleet, front).replacen("global", &stats, 1);
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(haproxy);
    command.args(["-db", "-f"]).arg(&config);
    let balancer = Child::spawn(command).unwrap();
    answers(front, &balancer).await;
    all_up(&socket).await;

    let report = roll(
        load(front),
        &mut fleet,
        async |instance: &mut Instance, _| {
            instance.replace().await;
            // Only then the next one goes.
            all_up(&socket).await;
        },
    )
    .await;
    println!("{report}\n{:?}", backends(&socket));
    assert_whole(&report, &balancer, 9);
    // Nor behind it: nothing had to be sent again, so that a POST would have come through, too.
    for backend in backends(&socket) {
        assert_eq!((backend.tried_again, backend.failed), (0, 0), "{backend:?}");
    }
    // It does count that: of an instance that is killed something is lost, and sent again.
    let running = load(front);
    running.wait_answered(200, BOUND).await.unwrap();
    fleet[0].child.signal(ChildSignal::KILL).unwrap();
    let begun = Instant::now();
    while tried_again(&socket) == 0 {
        assert!(begun.elapsed() < BOUND, "{:?}", backends(&socket));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop();
    println!("{}\n{:?}", running.finish().await, backends(&socket));
}
