//! HAProxy, which asks the admin listener who is ready.

use crate::fleet::{
    BOUND, Instance, answers, assert_whole, fleet, load, placed, program, roll, shipped,
};
use curtsy_prove::child::{Child, free_address};
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

/// What HAProxy knows of each server: its name, whether it is up, and how often it had to try again.
fn servers(socket: &Path) -> Vec<(String, String, u64)> {
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
            let tried_again = row[column("wretr")].parse::<u64>().unwrap()
                + row[column("wredis")].parse::<u64>().unwrap();
            (
                row[1].to_owned(),
                row[column("status")].to_owned(),
                tried_again,
            )
        })
        .collect()
}

async fn all_up(socket: &Path) {
    let begun = Instant::now();
    loop {
        let servers = servers(socket);
        if servers.len() == 3 && servers.iter().all(|(_, status, _)| status == "UP") {
            return;
        }
        assert!(begun.elapsed() < BOUND, "{servers:?}");
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
    println!("{report}\n{:?}", servers(&socket));
    assert_whole(&report, &balancer, 9);
}
