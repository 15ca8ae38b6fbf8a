//! Three demos at addresses that stay, and a load balancer before them.

use curtsy_prove::child::{Child, ChildSignal, free_address};
use curtsy_prove::{Plan, Report, Running};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Nothing here takes longer, however busy the machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 40;
const ROUNDS: usize = 2;

/// The program, if it is there; Debian keeps it where not everybody looks.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = places
        .map(|place| place.join(name))
        .find(|path| path.exists());
    if found.is_none() {
        println!("SKIPPED: {name} is not installed");
    }
    found
}

/// A file that is shipped.
pub(crate) fn shipped(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(path);
    std::fs::read_to_string(path).unwrap()
}

pub(crate) struct Instance {
    pub(crate) main: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) child: Child,
}

async fn start(main: SocketAddr, admin: SocketAddr) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curtsy"));
    command
        .args([
            "demo",
            "--workers",
            "1",
            "--lame-duck",
            "1500ms",
            "--linger",
            "300ms",
        ])
        .arg(format!("--listen={main}"))
        .arg(format!("--admin={admin}"))
        .env("RUST_BACKTRACE", "0");
    let mut child = Child::spawn(command).unwrap();
    let said = child
        .wait_for_line(|line| line.contains("admin on"), BOUND)
        .await;
    said.unwrap_or_else(|error| panic!("{error}\n{}", child.stderr()));
    child
}

impl Instance {
    /// Stops it in good order and starts another at its place.
    pub(crate) async fn replace(&mut self) {
        self.child.signal(ChildSignal::TERM).unwrap();
        let exit = self.child.wait_exit(BOUND).await.unwrap();
        assert_eq!(exit.status.code(), Some(0), "{}", self.child.stderr());
        self.child = start(self.main, self.admin).await;
    }
}

pub(crate) async fn fleet() -> Vec<Instance> {
    let mut fleet = Vec::new();
    for _ in 0..3 {
        let (main, admin) = (free_address().unwrap(), free_address().unwrap());
        let child = start(main, admin).await;
        fleet.push(Instance { main, admin, child });
    }
    fleet
}

/// The shipped configuration with these instances and this front in the places of its own.
pub(crate) fn placed(config: &str, fleet: &[Instance], front: SocketAddr) -> String {
    let mut config = config.replace("127.0.0.1:8080", &front.to_string());
    for (number, instance) in fleet.iter().enumerate() {
        let main = format!("127.0.0.1:90{number}0");
        assert!(config.contains(&main), "{main}");
        config = config
            .replace(
                &format!("{main} port 90{number}1"),
                &format!("{} port {}", instance.main, instance.admin.port()),
            )
            .replace(&main, &instance.main.to_string());
    }
    config
}

/// Waits until the front answers.
pub(crate) async fn answers(front: SocketAddr, balancer: &Child) {
    let begun = Instant::now();
    while !get(front).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
        assert!(
            begun.elapsed() < BOUND,
            "no answer\n{}{}",
            balancer.stdout(),
            balancer.stderr()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A strict client at the front.
pub(crate) fn load(front: SocketAddr) -> Running {
    Plan::to_address(front, "/pid")
        .connections(CONNECTIONS)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start()
}

/// Rolls all of them twice while there is load: each in turn as `one` does it. Then the account.
pub(crate) async fn roll(
    running: Running,
    fleet: &mut [Instance],
    mut one: impl AsyncFnMut(&mut Instance, usize),
) -> Report {
    for round in 1..=ROUNDS {
        for instance in &mut *fleet {
            more(&running).await;
            one(instance, round).await;
        }
    }
    more(&running).await;
    running.stop();
    running.finish().await
}

async fn more(running: &Running) {
    let before = running.counts().answered;
    running.wait_answered(before + 200, BOUND).await.unwrap();
}

/// Nothing was lost, and everybody had their share: three of the beginning and three of each round.
pub(crate) fn assert_whole(report: &Report, balancer: &Child, processes: usize) {
    let said = format!("{report}\n{}{}", balancer.stdout(), balancer.stderr());
    assert_eq!(report.lost(), 0, "{said}");
    assert!(
        report.answers.len() >= processes,
        "{:?}\n{said}",
        report.answers
    );
}
