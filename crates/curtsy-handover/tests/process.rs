//! Real processes: the example is restarted, killed at each step, and counted.
//!
//! This process makes itself the one that orphans fall to, so that it sees the end of every generation, and ends only
//! those it has been told of.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use curtsy_sys::pidfd;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const PATIENCE: Duration = Duration::from_secs(20);

/// The built example. A run of this file alone does not build it.
fn example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "curtsy-handover",
            "--example",
            "tcp_echo",
        ]);
        let here = std::env::current_exe().unwrap();
        let profile = here.parent().and_then(Path::parent).unwrap();
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        profile.join("examples/tcp_echo")
    })
}

/// An echo service: one process after another, with one output.
struct Service {
    first: Child,
    lines: Mutex<mpsc::Receiver<String>>,
    address: SocketAddr,
    pids: Vec<u32>,
    _directory: tempfile::TempDir,
    flag: PathBuf,
}

impl Service {
    fn start(die: Option<&str>, vars: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flag = directory.path().join("die");
        if die.is_some() {
            std::fs::write(&flag, "").unwrap();
        }
        let mut command = Command::new(example());
        command
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .env("ECHO_DIE_FLAG", &flag);
        command
            .env("ECHO_DIE", die.unwrap_or(""))
            .envs(vars.iter().copied());
        let mut first = command.spawn().unwrap();
        let output = BufReader::new(first.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut service = Self {
            first,
            lines: Mutex::new(lines),
            address: ([127, 0, 0, 1], 0).into(),
            pids: vec![],
            _directory: directory,
            flag,
        };
        let line = service.wait_for("serving");
        service.address = field(&line, "address").parse().unwrap();
        service
    }

    /// The next line with this in it.
    fn wait_for(&mut self, what: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut heard = vec![];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.lock().unwrap().recv_timeout(left);
            let line =
                line.unwrap_or_else(|_| panic!("no line with {what:?} in time, but {heard:#?}"));
            if line.contains("serving") {
                self.pids.push(field(&line, "pid").parse().unwrap());
            }
            if line.contains(what) {
                return line;
            }
            heard.push(line);
        }
    }

    fn pid(&self) -> u32 {
        *self.pids.last().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(raw(self.pid()), signal).unwrap();
    }

    /// Whether the heir serves, or else has ended. It is reaped if it has.
    fn is_followed(&mut self, heir: &std::os::fd::OwnedFd) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let line = self
                .lines
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_millis(5));
            if let Ok(line) = line
                && line.contains("generation=1 serving")
            {
                self.pids.push(field(&line, "pid").parse().unwrap());
                return true;
            }
            if pidfd::reap(heir).unwrap().is_some() {
                return false;
            }
        }
        panic!("the heir neither serves nor ends");
    }

    /// Restarts, and waits until the old process is gone.
    fn restart(&mut self) {
        let old = self.pid();
        self.signal(Signal::HUP);
        self.wait_for("serving");
        self.wait_for("donor gone: Some");
        self.wait_for_end(old);
    }

    /// Waits for a process to end, and reaps it if it is ours.
    fn wait_for_end(&mut self, pid: u32) {
        // Once only: afterwards the number may be another's.
        let known = self.pids.len();
        self.pids.retain(|other| *other != pid);
        if self.pids.len() == known {
            return;
        }
        if pid == self.first.id() {
            let held = pidfd::open(pid).unwrap();
            await_end(&held);
            self.first.wait().unwrap();
        } else if let Ok(held) = pidfd::open(pid) {
            await_end(&held);
            // Not ours, if its parent still lives: then its parent reaps it.
            let _ = waitpid(Some(raw(pid)), WaitOptions::NOHANG);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A generation may have said that it serves, and nobody has asked yet.
        while let Ok(line) = self.lines.lock().unwrap().try_recv() {
            if line.contains("serving") {
                self.pids.push(field(&line, "pid").parse().unwrap());
            }
        }
        for pid in self.pids.clone().into_iter().rev() {
            let _ = kill_process(raw(pid), Signal::KILL);
            self.wait_for_end(pid);
        }
    }
}

fn await_end(held: &std::os::fd::OwnedFd) {
    let timeout = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let mut interest = [rustix::event::PollFd::new(
        held,
        rustix::event::PollFlags::IN,
    )];
    assert_eq!(
        rustix::event::poll(&mut interest, Some(&timeout)).unwrap(),
        1,
        "a process does not end"
    );
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let found = line
        .split([' ', '/'])
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// A client that keeps one connection and counts what it asked on it.
struct Client {
    stream: TcpStream,
    asked: u64,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, asked: 0 }
    }

    /// Asks, and gives back the generation that answered. Each answer must be to the question just asked, so one that
    /// is lost or served twice shows.
    fn ask(&mut self) -> std::io::Result<u32> {
        self.asked += 1;
        self.stream.write_all(&self.asked.to_be_bytes())?;
        let mut answer = [0; 12];
        self.stream.read_exact(&mut answer)?;
        let (question, generation) = answer.split_first_chunk::<8>().unwrap();
        assert_eq!(
            u64::from_be_bytes(*question),
            self.asked,
            "an answer to another question"
        );
        Ok(u32::from_be_bytes(generation.try_into().unwrap()))
    }
}

/// Clients that ask without end, and what became of it.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<(BTreeSet<u32>, Option<std::io::Error>)>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let run = |at: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut generations = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.ask() {
                        Ok(generation) => generations.insert(generation),
                        Err(error) => return (generations, Some(error)),
                    };
                    answered.fetch_add(1, Ordering::Relaxed);
                    // Some without a pause, some with: both kinds of idle moment.
                    std::thread::park_timeout(Duration::from_millis(at as u64 % 4 * 2));
                }
                (generations, None)
            })
        };
        let clients = (0..clients).map(run).collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until so many more have been answered: everybody is at work.
    fn go_on(&self, more: usize) {
        let (from, until) = (
            self.answered.load(Ordering::Relaxed),
            Instant::now() + PATIENCE,
        );
        while self.answered.load(Ordering::Relaxed) < from + more {
            assert!(Instant::now() < until, "nothing is answered any more");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// How many lost their connection, and which generations answered the others.
    fn end(self) -> (usize, BTreeSet<u32>) {
        self.stop.store(true, Ordering::Relaxed);
        let ends: Vec<_> = self
            .clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        let lost = ends.iter().filter(|(_, error)| error.is_some()).count();
        (
            lost,
            ends.into_iter()
                .flat_map(|(generations, _)| generations)
                .collect(),
        )
    }
}

/// How many children of this process are zombies.
fn zombies_of(parent: u32) -> usize {
    let stats = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let zombie = |stat: &String| {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some(fields.next()? == "Z" && fields.next()? == parent.to_string())
    };
    stats.filter(|stat| zombie(stat) == Some(true)).count()
}

fn descriptors_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

#[test]
fn restarts_under_load_lose_nothing_and_leak_nothing() {
    let mut service = Service::start(None, &[]);
    let load = Load::start(service.address, 8);
    load.go_on(100);
    let mut descriptors = vec![];
    for _ in 0..8 {
        service.restart();
        load.go_on(50);
        assert_eq!(zombies_of(service.pid()), 0);
        descriptors.push(descriptors_of(service.pid()));
    }
    let (lost, generations) = load.end();
    assert_eq!(lost, 0);
    assert_eq!(generations, (0..=8).collect());
    // From the second heir on everything is the same, and so is the count.
    assert_eq!(descriptors[1], descriptors[7], "{descriptors:?}");
}

#[test]
fn a_second_signal_while_a_restart_runs_restarts_the_heir() {
    let mut service = Service::start(None, &[("ECHO_BAKE_MS", "200")]);
    let load = Load::start(service.address, 4);
    load.go_on(20);
    service.signal(Signal::HUP);
    let first = service.pid();
    service.wait_for("generation=1 serving");
    // The donor still waits for BAKED; its heir is asked in its place when that has come.
    kill_process(raw(first), Signal::HUP).unwrap();
    service.wait_for("generation=2 serving");
    load.go_on(50);
    service.wait_for("generation=1 stopped");
    assert_eq!(load.end().0, 0);
}

/// Kills the heir at this step, or has it fail: the donor must go on, say why, and succeed the next time.
fn heir_fails_at(step: &str, says: &str, may_lose: bool) {
    // Long enough for the heir that comes after, however busy the machine is.
    let ready_ms = if step == "heir-hang" { "2000" } else { "20000" };
    let vars = [("ECHO_READY_MS", ready_ms), ("ECHO_BAKE_MS", "300")];
    let mut service = Service::start(Some(step), &vars);
    let load = Load::start(service.address, 6);
    load.go_on(50);
    let donor = service.pid();
    let before = descriptors_of(donor);
    service.signal(Signal::HUP);
    let line = service.wait_for("restart failed");
    assert!(line.contains(says), "{step}: {line}");
    assert!(!service.flag.exists(), "{step} was not reached");
    // It accepts, and within a second.
    let asked = Instant::now();
    assert_eq!(Client::connect(service.address).ask().unwrap(), 0);
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{step}: {:?}",
        asked.elapsed()
    );
    assert_eq!(zombies_of(donor), 0, "{step}");
    if !may_lose {
        load.go_on(50);
        // The client that has just asked may not be gone yet.
        let after = descriptors_of(donor);
        assert!(
            after <= before + 1,
            "{step}: {before} descriptors before, {after} after"
        );
    }
    // An heir that failed may have said that it serves.
    service.pids = vec![donor];
    service.restart();
    let (lost, generations) = load.end();
    if may_lose {
        assert!(lost <= 6);
    } else {
        assert_eq!(lost, 0, "{step}");
        assert!(generations.contains(&1), "{step}: {generations:?}");
    }
    assert_eq!(Client::connect(service.address).ask().unwrap(), 1);
}

#[test]
fn an_heir_killed_before_ready_changes_nothing() {
    heir_fails_at("heir-start", "signal 9", false);
    heir_fails_at("heir-inherited", "signal 9", false);
}

#[test]
fn an_heir_that_hangs_or_gives_up_changes_nothing() {
    heir_fails_at("heir-hang", "not ready within", false);
    heir_fails_at("heir-fails", "the configuration is broken", false);
}

#[test]
fn an_heir_killed_after_ready_gives_back_what_it_had_not_taken() {
    // At once: nothing is taken, nothing may be lost. After the first arrivals: those are its own, and lost with it.
    heir_fails_at("heir-ready", "signal 9", false);
    heir_fails_at("heir-first", "signal 9", true);
}

/// Kills the donor at this step: the heir must serve on, and within a second.
fn donor_dies_at(step: &str) {
    let mut service = Service::start(Some(step), &[]);
    let donor = service.pid();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(service.address)).collect();
    assert!(clients.iter_mut().all(|client| client.ask().unwrap() == 0));
    service.signal(Signal::HUP);
    service.wait_for("generation=1 serving");
    service.wait_for_end(donor);
    assert!(!service.flag.exists(), "{step} was not reached");
    let asked = Instant::now();
    assert_eq!(Client::connect(service.address).ask().unwrap(), 1);
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{step}: {:?}",
        asked.elapsed()
    );
    // A connection either went over whole or died with its owner; none hangs, none is answered twice.
    let answered = clients
        .iter_mut()
        .filter_map(|client| client.ask().ok())
        .collect::<Vec<_>>();
    assert!(
        answered.iter().all(|generation| *generation == 1),
        "{step}: {answered:?}"
    );
    if step == "donor-baked" {
        assert_eq!(answered.len(), 20, "all had been taken by then");
    }
    service.wait_for("donor gone");
    service.restart();
    assert_eq!(Client::connect(service.address).ask().unwrap(), 2);
}

#[test]
fn a_donor_killed_at_any_step_leaves_an_heir_that_serves() {
    for step in ["donor-ready", "donor-offered", "donor-baked"] {
        donor_dies_at(step);
    }
}

#[test]
fn an_heir_killed_at_any_moment_leaves_a_donor_that_serves() {
    // It proves itself later than it lives.
    let mut service = Service::start(None, &[("ECHO_BAKE_MS", "20000")]);
    let donor = service.pid();
    let expected = descriptors_of(donor) + 1;
    for round in 0..25_u32 {
        let mut clients: Vec<_> = (0..10).map(|_| Client::connect(service.address)).collect();
        assert!(clients.iter_mut().all(|client| client.ask().unwrap() == 0));
        service.signal(Signal::HUP);
        let heir = only_child_of(donor);
        // A moment that differs from round to round, from its first instruction to its first connections.
        let moment = Instant::now() + Duration::from_micros(u64::from(round * round % 97) * 200);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        pidfd::kill(&heir).unwrap();
        let line = service.wait_for("restart failed");
        assert!(line.contains("signal 9"), "{line}");
        service.pids = vec![donor];
        let asked = Instant::now();
        assert_eq!(Client::connect(service.address).ask().unwrap(), 0);
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        // Taken ones died with their owner, all others are the donor's; an answer is never a wrong one.
        assert!(
            clients
                .iter_mut()
                .filter_map(|client| client.ask().ok())
                .all(|generation| generation == 0)
        );
        drop(clients);
        assert_eq!(zombies_of(donor), 0);
        // The donor hears of the clients' end in its own time.
        let until = Instant::now() + PATIENCE;
        while descriptors_of(donor) > expected {
            assert!(
                Instant::now() < until,
                "descriptors leak: {} and not {expected}",
                descriptors_of(donor)
            );
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_donor_killed_at_any_moment_is_followed_or_missed_but_never_half() {
    let (mut followed, mut missed) = (0, 0);
    for round in 0..16_u32 {
        let mut service = Service::start(None, &[("ECHO_BAKE_MS", "5")]);
        let donor = service.pid();
        let mut clients: Vec<_> = (0..10).map(|_| Client::connect(service.address)).collect();
        assert!(clients.iter_mut().all(|client| client.ask().unwrap() == 0));
        service.signal(Signal::HUP);
        let heir = only_child_of(donor);
        let moment = Instant::now() + Duration::from_micros(u64::from(round * round % 53) * 300);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        // It may have left by itself already, which is no error.
        let _ = kill_process(raw(donor), Signal::KILL);
        service.wait_for_end(donor);
        // Either the heir had everything, and serves; or it had not, and ends. Nothing hangs, and no client gets a wrong
        // answer or waits for one that never comes.
        if service.is_followed(&heir) {
            followed += 1;
            assert_eq!(Client::connect(service.address).ask().unwrap(), 1);
            assert!(
                clients
                    .iter_mut()
                    .filter_map(|client| client.ask().ok())
                    .all(|generation| generation == 1)
            );
        } else {
            missed += 1;
            assert!(clients.iter_mut().all(|client| client.ask().is_err()));
            assert!(
                TcpStream::connect(service.address).is_err(),
                "the listener outlives everybody"
            );
        }
    }
    assert_eq!(followed + missed, 16);
    println!("followed {followed}, missed {missed}");
}

/// The one child that this process has, or is about to have.
fn only_child_of(parent: u32) -> std::os::fd::OwnedFd {
    let until = Instant::now() + PATIENCE;
    loop {
        let children =
            std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        if let Some(child) = children.split_whitespace().next() {
            return pidfd::open(child.parse().unwrap()).unwrap();
        }
        assert!(Instant::now() < until, "no child");
        std::hint::spin_loop();
    }
}

#[test]
fn restarts_as_fast_as_they_go_lose_nothing() {
    let mut service = Service::start(None, &[("ECHO_BAKE_MS", "30")]);
    let load = Load::start(service.address, 6);
    load.go_on(20);
    // One fewer than may drain at a time: more would be refused until the first has ended.
    for generation in 1..=7 {
        // The next is asked for as soon as the last accepts: its donor, and maybe that one's, are still handing over.
        service.signal(Signal::HUP);
        service.wait_for(&format!("generation={generation} serving"));
    }
    service.wait_for("generation=6 stopped");
    load.go_on(50);
    let (lost, generations) = load.end();
    assert_eq!(lost, 0);
    assert!(generations.contains(&7), "{generations:?}");
}

#[test]
fn ten_thousand_idle_connections_go_over_at_once() {
    // Both ends count: ours here, theirs in the donor and, duplicated, in the heir.
    let most = curtsy_sys::descriptors::room()
        .unwrap()
        .saturating_sub(1000);
    let connections = most.min(10_000);
    assert!(
        connections >= 1000,
        "the limit for open files is too low for this to mean something"
    );
    let mut service = Service::start(None, &[]);
    let mut clients: Vec<_> = (0..connections)
        .map(|_| {
            let mut client = Client::connect(service.address);
            assert_eq!(client.ask().unwrap(), 0);
            client
        })
        .collect();
    service.signal(Signal::HUP);
    let line = service.wait_for("moved=");
    assert_eq!(field(&line, "moved").parse::<usize>().unwrap(), connections);
    println!("{line}");
    // The other end of them all is generation 1 by now.
    for client in clients.iter_mut().step_by(97) {
        assert_eq!(client.ask().unwrap(), 1);
    }
    service.wait_for("donor gone: Some");
}
