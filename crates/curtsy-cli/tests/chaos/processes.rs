//! The processes under test: a row of servers, with a supervisor above it or without.

use crate::clients::{BOUND, Victim};
use crate::server::LOG;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What has lost its parent becomes a child of this process, which sees its end then.
pub(crate) fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

/// Who is above the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Above {
    Nobody,
    /// A supervisor that brings old and new together.
    Broker,
    /// One that only starts again what ends: the servers do not know it.
    Starter,
}

/// A service: its first process, or the supervisor of that.
pub(crate) struct Service {
    top: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// The first process that serves.
    pub(crate) donor: u32,
    pub(crate) address: SocketAddr,
    pub(crate) log: PathBuf,
    /// Whoever removes it dies.
    pub(crate) flag: PathBuf,
    /// Which connections have gone over.
    owners: PathBuf,
    /// From the first process's birth to its readiness; with a supervisor, as it judges that.
    pub(crate) start_took: Duration,
    _directory: tempfile::TempDir,
}

impl Service {
    /// Starts it; `step` is where one process is to die.
    pub(crate) fn start(above: Above, step: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        let (log, flag, owners) = (at("log"), at("once"), at("owners"));
        let own = std::env::current_exe().unwrap();
        let run = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_curtsy"));
            command.args(["run", "--listen", "127.0.0.1:0", "--ready", "tcp", "--"]);
            command
        };
        let mut command = match above {
            Above::Broker => {
                let mut command = run();
                command.arg(&own).arg("serve");
                command
            }
            Above::Starter => {
                let mut command = run();
                command.args(["env", "-u", "CURTSY_RUN"]);
                command.arg(&own).arg("serve");
                command
            }
            Above::Nobody => {
                let mut command = Command::new(own);
                command.args(["serve", "127.0.0.1:0"]);
                command
            }
        };
        if let Some(step) = step {
            std::fs::write(&flag, "").unwrap();
            command
                .env("CURTSY_CHAOS_AT", step)
                .env("CURTSY_CHAOS_ONCE", &flag);
        }
        command
            .env(LOG, &log)
            .env("CURTSY_CHAOS_OWNERS", &owners)
            .stderr(Stdio::piped());
        let began = Instant::now();
        let mut top = command.spawn().unwrap();
        let output = BufReader::new(top.stderr.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        let mut service = Self {
            top,
            lines,
            donor: 0,
            address: ([127, 0, 0, 1], 0).into(),
            log,
            flag,
            owners,
            start_took: Duration::ZERO,
            _directory: directory,
        };
        let line = service.line("generation 0 at ");
        let word = |after: &str| {
            let rest = line.split(after).nth(1).unwrap();
            rest.split([' ', ')']).next().unwrap().to_owned()
        };
        service.address = word(" at ").parse().unwrap();
        service.donor = word("(pid ").parse().unwrap();
        if above != Above::Nobody {
            service.line("generation 0 serves");
        }
        service.start_took = began.elapsed();
        service
    }

    /// The first line with this in it.
    pub(crate) fn line(&self, part: &str) -> String {
        let until = Instant::now() + BOUND;
        loop {
            let found = self.said().into_iter().find(|line| line.contains(part));
            if let Some(line) = found {
                return line;
            }
            assert!(Instant::now() < until, "no {part:?} in {:#?}", self.said());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Who served as this generation.
    pub(crate) fn pid_of(&self, generation: u32) -> u32 {
        let line = self.line(&format!("generation {generation} at "));
        let pid = line.split("(pid ").nth(1).unwrap();
        pid.trim_end_matches(')').parse().unwrap()
    }

    /// Waits for a line with one of these in it.
    pub(crate) fn any_line(&self, parts: &[&str]) -> String {
        let until = Instant::now() + BOUND;
        let has = |line: &String| parts.iter().any(|part| line.contains(part));
        loop {
            let said = self.said();
            if let Some(line) = said.iter().find(|line| has(line)) {
                return line.clone();
            }
            assert!(Instant::now() < until, "none of {parts:?} in {said:#?}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    pub(crate) fn said(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Asks the first process for a restart.
    pub(crate) fn restart(&self) {
        kill_process(raw(self.donor), Signal::HUP).unwrap();
    }

    /// Asks the supervisor for a reload.
    pub(crate) fn reload(&self) {
        kill_process(raw(self.top.id()), Signal::HUP).unwrap();
    }

    /// The supervisor's number, or the first process's if there is none.
    pub(crate) fn top(&self) -> u32 {
        self.top.id()
    }

    /// The connections, by their clients' ports, that had become the heir's when the victim was killed, by the word of the
    /// other.
    pub(crate) fn moved(&self, victim: Victim) -> HashSet<u16> {
        // There is no file where nothing has moved.
        let bytes = std::fs::read(&self.owners).unwrap_or_default();
        assert_eq!(bytes.len() % 7, 0);
        let records = bytes.chunks_exact(7).map(|record| {
            let heir = u32::from_be_bytes(record[1..5].try_into().unwrap());
            let port = u16::from_be_bytes(record[5..].try_into().unwrap());
            (record[0], heir, port)
        });
        let witness = match victim {
            Victim::Donor => b'h',
            Victim::Heir(_) => b'd',
        };
        let records: Vec<_> = records.filter(|record| record.0 == witness).collect();
        // Unless it is known, the heir is the first that there was.
        let heir = match victim {
            Victim::Heir(Some(heir)) => Some(heir),
            Victim::Heir(None) | Victim::Donor => records.first().map(|record| record.1),
        };
        let of_it = records.iter().filter(|record| Some(record.1) == heir);
        of_it.map(|record| record.2).collect()
    }

    /// The process of the supervisor's that a reload has started, as soon as there is one.
    pub(crate) fn next_process(&self) -> Option<u32> {
        let until = Instant::now() + BOUND;
        loop {
            let mut children = children(self.top.id()).into_iter();
            if let Some(next) = children.find(|pid| *pid != self.donor) {
                return Some(next);
            }
            if !is_alive(self.donor) {
                return None;
            }
            assert!(Instant::now() < until, "no new process");
            std::hint::spin_loop();
        }
    }

    /// The heir, as soon as there is one; `None` if the donor is gone without.
    pub(crate) fn heir(&self) -> Option<u32> {
        let until = Instant::now() + BOUND;
        loop {
            if let Some(heir) = children(self.donor).first() {
                return Some(*heir);
            }
            if !is_alive(self.donor) {
                return None;
            }
            assert!(Instant::now() < until, "no heir");
            std::hint::spin_loop();
        }
    }

    /// Ends whatever is left.
    pub(crate) fn end(self, what: &str) {
        drop(self);
        reap_orphans(what);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut left = Vec::new();
        let mut look_at = vec![self.top.id(), self.donor];
        while let Some(pid) = look_at.pop() {
            if left.contains(&pid) || !is_alive(pid) {
                continue;
            }
            left.push(pid);
            look_at.extend(children(pid));
        }
        // Orphans are children of this process; so is the top.
        look_at.extend(children(std::process::id()));
        left.extend(look_at);
        for pid in left {
            // Only ones that this test has started, none of which was waited for by anybody else.
            let _ = kill_process(raw(pid), Signal::KILL);
        }
        // Reaped with the others, if not here.
        let _ = self.top.wait();
    }
}

/// Waits for everybody who is a child of this process by now.
fn reap_orphans(what: &str) {
    let until = Instant::now() + BOUND;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => {
                for pid in children(std::process::id()) {
                    let _ = kill_process(raw(pid), Signal::KILL);
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Err(_) => return,
        }
        assert!(Instant::now() < until, "{what}: a process does not end");
    }
}

pub(crate) fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

pub(crate) fn kill(pid: u32) {
    // It may have ended by itself.
    let _ = kill_process(raw(pid), Signal::KILL);
}

/// A process's state letter and its parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The children of all of a process's threads, zombies included.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().map(str::parse);
            pids.collect::<Result<Vec<u32>, _>>().unwrap()
        })
        .collect()
}

/// Waits until a process has waited for all of its children that have ended.
pub(crate) fn await_no_zombies(pid: u32, what: &str) {
    let until = Instant::now() + BOUND;
    while zombies_of(pid) > 0 {
        assert!(Instant::now() < until, "{what}: a zombie stays");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn zombies_of(pid: u32) -> usize {
    let children = children(pid).into_iter();
    children
        .filter(|child| stat(*child).is_some_and(|(state, _)| state == 'Z'))
        .count()
}

/// Waits until a process has ended.
pub(crate) fn await_end(pid: u32, what: &str) {
    let until = Instant::now() + BOUND;
    while is_alive(pid) {
        assert!(Instant::now() < until, "{what}: {pid} does not end");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Waits until a process has no more than so many descriptors.
pub(crate) fn await_descriptors(pid: u32, most: usize, what: &str) {
    let until = Instant::now() + BOUND;
    while descriptors(pid) > most {
        let now = descriptors(pid);
        assert!(
            Instant::now() < until,
            "{what}: {now} descriptors, {most} before"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
