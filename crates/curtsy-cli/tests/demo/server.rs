//! A demo under test.

use curtsy_prove::child::{Child, ChildSignal, Exit};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::process::Command;

/// Nothing here takes longer, however busy the machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A running `curtsy demo`.
pub(crate) struct Demo {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Demo {
    /// Starts one on a port that the kernel chooses.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::spawn(demo(flags)).await
    }

    /// The same, from a command of the test's own making.
    pub(crate) async fn spawn(command: Command) -> Self {
        let mut child = Child::spawn(command).unwrap();
        let line = child
            .wait_for_line(|line| line.contains("listening on http"), BOUND)
            .await
            .unwrap();
        let url = line.split("://").nth(1).unwrap();
        let address = url.split_whitespace().next().unwrap().parse().unwrap();
        Self { child, address }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn signal(&self, signal: ChildSignal) {
        self.child.signal(signal).unwrap();
    }

    /// Waits for the end, everything it wrote read.
    pub(crate) async fn end(&mut self) -> Exit {
        let exit = self.child.wait_exit(BOUND).await.unwrap();
        self.child.wait_output_end(BOUND).await.unwrap();
        exit
    }

    /// Stops it by SIGTERM; it must drain.
    pub(crate) async fn stop(mut self) {
        self.signal(ChildSignal::TERM);
        let exit = self.end().await;
        assert_eq!(exit.status.code(), Some(0), "{}", self.child.stderr());
    }
}

/// `curtsy demo` with those flags, listening where the kernel says.
pub(crate) fn demo(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curtsy"));
    command
        .args(["demo", "--listen", "127.0.0.1:0"])
        .args(flags)
        .env("RUST_BACKTRACE", "0");
    command
}
