//! A server under test, its control socket in a directory of its own, and those who steer it.

use curtsy_prove::child::{Child, ChildSignal, Exit};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Nothing here takes longer, however busy the machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
pub(crate) const CURTSY: &str = env!("CARGO_BIN_EXE_curtsy");

/// A running `curtsy demo` or `curtsy run`. An heir of it is stopped over the socket, too.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) directory: TempDir,
}

impl Server {
    /// A demo.
    pub(crate) async fn demo(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = curtsy(&["demo", "--listen", "127.0.0.1:0", "--workers", "1"]);
        command.args(flags);
        command
            .arg("--control")
            .arg(directory.path().join("control"));
        Self::start(command, directory, "listening on http://").await
    }

    /// A demo behind a supervisor; its own control socket is where such sockets are by default.
    pub(crate) async fn supervised(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = curtsy(&["run", "--listen", "127.0.0.1:0"]);
        command.args(flags);
        command
            .arg("--control")
            .arg(directory.path().join("control"));
        command.env("XDG_RUNTIME_DIR", directory.path());
        command.args(["--", CURTSY, "demo", "--inherit", "--workers", "1"]);
        let mut this = Self::start(command, directory, "held on http://").await;
        this.line("generation 0 serves").await;
        this
    }

    pub(crate) async fn start(command: Command, directory: TempDir, says: &str) -> Self {
        let mut child = Child::spawn(command).unwrap();
        let line = child.wait_for_line(|line| line.contains(says), BOUND).await;
        let line = line.unwrap_or_else(|error| panic!("{error}: {}", child.stderr()));
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
        let line = self.child.wait_for_line(found, BOUND).await;
        line.unwrap_or_else(|error| panic!("no {text:?}: {error}\n{}", self.child.stderr()))
    }

    /// A request under way; it is when this returns.
    pub(crate) async fn straggler(&self) -> TcpStream {
        let client = self
            .send("GET /slow?ms=600000 HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        self.until(|status| status["stragglers_total"] == 1).await;
        client
    }

    /// A connection at rest.
    pub(crate) async fn parked(&self) -> TcpStream {
        let mut client = self.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = [0; 1024];
        assert_ne!(client.read(&mut answer).await.unwrap(), 0);
        self.until(|status| status["connections"]["parked"] == 1)
            .await;
        client
    }

    pub(crate) async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Waits until `curtsy status` says so.
    pub(crate) async fn until(&self, what: impl Fn(&serde_json::Value) -> bool) {
        let waiting = async {
            loop {
                let (code, out, err) = self.run(&["status", "--json"]).await;
                assert_eq!(code, Some(0), "{err}");
                if what(&serde_json::from_str(&out).unwrap()) {
                    return;
                }
            }
        };
        tokio::time::timeout(BOUND, waiting).await.unwrap();
    }

    /// `curtsy ... --control` to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = curtsy(arguments);
        command.arg("--control").arg(self.control());
        run(command).await
    }

    /// Waits for the end, everything it wrote read.
    pub(crate) async fn end(&mut self) -> Exit {
        let exit = self.child.wait_exit(BOUND).await.unwrap();
        self.child.wait_output_end(BOUND).await.unwrap();
        exit
    }

    /// Stops it by SIGTERM; it must drain.
    pub(crate) async fn drains(mut self) {
        self.child.signal(ChildSignal::TERM).unwrap();
        let exit = self.end().await;
        assert_eq!(exit.status.code(), Some(0), "{}", self.child.stderr());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An heir is nobody's child here; what serves at the socket now is told to stop.
        let path = self.control();
        if !Path::exists(&path) {
            return;
        }
        let stop = |path: &Path| -> std::io::Result<()> {
            use std::io::{Read, Write};
            let mut stream = std::os::unix::net::UnixStream::connect(path)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"{\"v\":1,\"command\":\"stop\"}\n")?;
            stream.read(&mut [0; 64]).map(drop)
        };
        // It is dead, or dying.
        let _ = stop(&path);
    }
}

/// The command with those arguments.
pub(crate) fn curtsy<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(CURTSY);
    command.args(arguments).env("RUST_BACKTRACE", "0");
    command.env_remove("CURTSY_CONTROL");
    command
}

/// A command to its end: its code, what it printed, and what it said.
pub(crate) async fn run(command: Command) -> (Option<i32>, String, String) {
    let mut child = Child::spawn(command).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    (exit.status.code(), child.stdout(), child.stderr())
}
