//! A row of demos under test: each the heir of the one before.

use curtsy_prove::child::{Child, ChildSignal, Line};
use rustix::process::{Pid, kill_process};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// Nothing here takes longer, however busy the machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A running `curtsy demo` and its heirs. What is left of them ends with this.
pub(crate) struct Row {
    /// The first; the heirs write to the same standard error.
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pids: Vec<u32>,
}

impl Row {
    /// Starts the first on a port that the kernel chooses.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::spawn(Path::new(env!("CARGO_BIN_EXE_curtsy")), flags).await
    }

    /// The same, from another file.
    pub(crate) async fn spawn(program: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .args(["demo", "--listen", "127.0.0.1:0"])
            .args(flags);
        Self::run(command, "http://").await
    }

    /// The same, from a command that may say more; `scheme` is what it listens for.
    pub(crate) async fn run(mut command: Command, scheme: &str) -> Self {
        command.env("RUST_BACKTRACE", "0");
        let mut child = Child::spawn(command).unwrap();
        let line = child
            .wait_for_line(|line| line.contains("listening on "), BOUND)
            .await
            .unwrap();
        let url = line.split(scheme).nth(1).unwrap();
        let address = url.split_whitespace().next().unwrap().parse().unwrap();
        let pid = child.pid().unwrap();
        Self {
            child,
            address,
            pids: vec![pid],
        }
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> u32 {
        *self.pids.last().unwrap()
    }

    /// All of them, the first first.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    pub(crate) fn generation(&self) -> usize {
        self.pids.len() - 1
    }

    /// Sends a signal to the process that serves.
    pub(crate) fn signal(&self, signal: ChildSignal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Asks for a restart and waits until the heir has proved itself.
    pub(crate) async fn restart(&mut self) {
        self.signal(ChildSignal::HUP);
        self.restarted().await;
    }

    /// Waits until the next generation has proved itself.
    pub(crate) async fn restarted(&mut self) {
        let next = format!("generation {} serves (pid ", self.generation() + 1);
        let line = self.line(&next).await;
        let pid = line.split(&next).nth(1).unwrap();
        let pid = pid.split(')').next().unwrap().parse().unwrap();
        self.pids.push(pid);
    }

    /// Waits for the next line that contains this, also of those that have come already.
    pub(crate) async fn line(&mut self, part: &str) -> String {
        let found = self
            .child
            .wait_for_line(|line| line.contains(part), BOUND)
            .await;
        found.unwrap_or_else(|error| panic!("no {part:?}: {error}\n{}", self.child.stderr()))
    }

    /// Waits for the `number`th line, from 1, that contains this.
    pub(crate) async fn line_number(&mut self, part: &str, number: usize) -> String {
        let mut last = (0, String::new());
        let wait = async {
            while last.0 < number {
                let lines = self.child.lines();
                let found: Vec<_> = lines.iter().filter(|l| l.text.contains(part)).collect();
                last = (
                    found.len(),
                    found.last().map_or_else(String::new, |l| l.text.clone()),
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(BOUND, wait).await;
        assert!(waited.is_ok(), "no {part:?}\n{}", self.child.stderr());
        last.1
    }

    /// The children of the process that serves, zombies included.
    pub(crate) fn children(&self) -> Vec<u32> {
        let parent = self.pid().to_string();
        let numbers = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_child = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // After the name, which may contain anything: the state, then the parent.
            let after_name = stat.rsplit(") ").next().unwrap_or_default();
            after_name.split(' ').nth(1) == Some(parent.as_str())
        };
        numbers.filter(is_child).collect()
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.child.lines()
    }

    /// Waits until every generation but the last is gone.
    pub(crate) async fn alone(&mut self) {
        if self.generation() > 0 {
            let exit = self.child.wait_exit(BOUND).await.unwrap();
            assert_eq!(exit.status.code(), Some(0), "{}", self.child.stderr());
        }
        for pid in &self.pids[..self.generation()] {
            gone(*pid).await;
        }
    }

    /// Stops the last by SIGTERM; all must have drained.
    pub(crate) async fn stop(mut self) {
        self.signal(ChildSignal::TERM);
        let exit = self.child.wait_exit(BOUND).await.unwrap();
        assert_eq!(exit.status.code(), Some(0), "{}", self.child.stderr());
        for pid in &self.pids {
            gone(*pid).await;
        }
        self.child.wait_output_end(BOUND).await.unwrap();
        let lines = self.lines();
        let drained = lines
            .iter()
            .filter(|line| line.text.starts_with("curtsy: drained in"));
        assert_eq!(drained.count(), self.pids.len(), "{}", self.child.stderr());
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        for pid in &self.pids {
            // Most are gone.
            let _ = kill(*pid, ChildSignal::KILL);
        }
    }
}

pub(crate) fn kill(pid: u32, signal: ChildSignal) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal)
}

/// Waits until a process is no more, or is only waited for by nobody.
pub(crate) async fn gone(pid: u32) {
    let wait = async {
        while state(pid).is_some_and(|state| state != 'Z') {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(BOUND, wait).await;
    assert!(waited.is_ok(), "process {pid} does not end");
}

/// A process's state letter, `None` if there is no such process.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}
