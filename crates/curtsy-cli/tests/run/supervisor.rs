//! A supervisor under test.

use curtsy_prove::child::{Child, ChildSignal};
use curtsy_prove::{Report, Running};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// Nothing here takes longer, however busy the machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
/// The command under test.
pub(crate) const CURTSY: &str = env!("CARGO_BIN_EXE_curtsy");
/// What most tests supervise.
pub(crate) const DEMO: [&str; 5] = [CURTSY, "demo", "--inherit", "--workers", "2"];

/// In the first line that it writes.
const HELD: &str = "held on http://";

/// A running `curtsy run` on a port that the kernel chose.
pub(crate) struct Supervisor {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) directory: TempDir,
}

impl Supervisor {
    /// Starts one and waits until its first generation serves.
    pub(crate) async fn start<S: AsRef<OsStr>>(flags: &[&str], program: &[S]) -> Self {
        let mut this = Self::begin(flags, program).await;
        this.line("generation 0 serves").await;
        this
    }

    /// Starts one and waits until it holds its socket.
    pub(crate) async fn begin<S: AsRef<OsStr>>(flags: &[&str], program: &[S]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(CURTSY);
        command
            .args(["run", "--listen", "127.0.0.1:0", "--control"])
            .arg(directory.path().join("control"))
            .args(flags)
            .arg("--")
            .args(program)
            .env("RUST_BACKTRACE", "0")
            .env("DIRECTORY", directory.path());
        let mut child = Child::spawn(command).unwrap();
        let line = child
            .wait_for_line(|line| line.contains(HELD), BOUND)
            .await
            .unwrap();
        let url = line.split("http://").nth(1).unwrap();
        let address = url.split_whitespace().next().unwrap().parse().unwrap();
        Self {
            child,
            address,
            directory,
        }
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// Waits for a line with that text.
    pub(crate) async fn line(&mut self, text: &str) -> String {
        let found = |line: &str| line.contains(text);
        self.child.wait_for_line(found, BOUND).await.unwrap()
    }

    /// Waits for so many lines with that text, those that came before the call included.
    pub(crate) async fn lines(&mut self, text: &str, count: usize) {
        let mut seen = 0;
        let last = |line: &str| {
            // Each look begins with the first line of all, which is this one.
            if line.contains(HELD) {
                seen = 0;
            }
            seen += usize::from(line.contains(text));
            seen == count
        };
        let waited = self.child.wait_for_line(last, BOUND).await;
        assert!(waited.is_ok(), "{}", self.child.stderr());
    }

    /// `curtsy reload`: its code and what it said.
    pub(crate) async fn reload(&self) -> (Option<i32>, String) {
        reload(&self.control()).await
    }

    /// `curtsy status --json`.
    pub(crate) async fn status(&self) -> Value {
        status_at(&self.control()).await.unwrap()
    }

    /// A reload that must succeed.
    pub(crate) async fn reloads(&self) {
        let (code, said) = self.reload().await;
        assert_eq!(code, Some(0), "{said}{}", self.child.stderr());
        assert!(said.contains("serves"), "{said}");
    }

    /// The process of a generation.
    pub(crate) async fn pid(&mut self, generation: u32) -> Pid {
        let line = self.line(&format!("generation {generation} started")).await;
        let pid = line.split("(pid ").nth(1).unwrap().trim_end_matches(')');
        Pid::from_raw(pid.parse().unwrap()).unwrap()
    }

    /// How many lines have that text.
    pub(crate) fn count(&self, text: &str) -> usize {
        let lines = self.child.lines();
        lines.iter().filter(|line| line.text.contains(text)).count()
    }

    /// Waits for its end and its last word; its code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let exit = self.child.wait_exit(BOUND).await.unwrap();
        self.child.wait_output_end(BOUND).await.unwrap();
        exit.status.code()
    }

    /// Stops it by SIGTERM; its code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.child.signal(ChildSignal::TERM).unwrap();
        self.end().await
    }

    /// One request on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect(self.address).await?;
            let head = format!("GET {path} HTTP/1.0\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        tokio::time::timeout(BOUND, exchange)
            .await
            .unwrap()
            .unwrap()
    }
}

/// What whoever is at that control socket says of itself, if somebody is.
pub(crate) async fn status_at(control: &Path) -> Option<Value> {
    let mut command = Command::new(CURTSY);
    command.args(["status", "--json", "--control"]).arg(control);
    let mut child = Child::spawn(command).unwrap();
    child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    serde_json::from_str(&child.stdout()).ok()
}

/// `curtsy reload` at that control socket: its code and what it said.
pub(crate) async fn reload(control: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(CURTSY);
    command.args(["reload", "--control"]).arg(control);
    let mut child = Child::spawn(command).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    (exit.status.code(), child.stderr())
}

/// Waits until so many more requests were answered.
pub(crate) async fn answers(running: &Running, more: u64) {
    let answered = running.counts().answered + more;
    running.wait_answered(answered, BOUND).await.unwrap();
}

/// The report of a load that ends when so many more requests were answered.
pub(crate) async fn finish_after(running: Running, more: u64) -> Report {
    answers(&running, more).await;
    running.stop();
    running.finish().await
}

/// Kills a process that a supervisor of ours has not reaped.
pub(crate) fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}
