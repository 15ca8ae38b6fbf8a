//! The steering end of the control socket.

use crate::control::message::line;
use crate::control::socket::may;
use crate::control::{Command, Reply, Request};
use crate::error::{Error, Kind};
use crate::mode::ModeName;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is taken, in bytes: a snapshot with a hundred thousand stragglers.
const REPLY_MOST: u64 = 64 << 20;

/// Where the control socket of process `pid` is unless its program says otherwise:
/// `$XDG_RUNTIME_DIR/curtsy-<pid>.sock`, or `/tmp/curtsy-<uid>-<pid>.sock` without such a
/// directory.
pub fn control_path(pid: u32) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(directory) => Path::new(&directory).join(format!("curtsy-{pid}.sock")),
        None => {
            let user = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("curtsy-{user}-{pid}.sock"))
        }
    }
}

/// A running server, steered over its control socket.
///
/// ```no_run
/// # async fn steer() -> Result<(), curtsy_server::Error> {
/// use curtsy_server::{Control, ModeName};
///
/// let mut server = Control::connect("/run/app/control.sock").await?;
/// server.switch("main", ModeName::Tls).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Control {
    /// Connects to the server whose control socket is at `path`.
    ///
    /// # Errors
    /// If nobody listens there, or somebody else than this user or root does.
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let failed = |error: std::io::Error| {
            let text = format!("cannot reach a server at {}", path.display());
            Error::because(Kind::Control, text, error)
        };
        let stream = UnixStream::connect(&path).await.map_err(failed)?;
        let user = stream.peer_cred().map_err(failed)?.uid();
        if !may(user) {
            let text = format!("{} belongs to user {user}, not to this one", path.display());
            return Err(Error::new(Kind::Control, text));
        }
        Ok(Self {
            stream: BufReader::new(stream),
            path,
        })
    }

    /// Switches a listener to another mode.
    ///
    /// # Errors
    /// If the server refuses: there is no such listener, or no usable certificate. Nothing has
    /// changed then.
    pub async fn switch(&mut self, listener: &str, mode: ModeName) -> Result<(), Error> {
        let command = Command::Switch {
            listener: listener.to_owned(),
            mode: mode.to_string(),
        };
        self.ask(command).await.map(drop)
    }

    /// Lets the server read its certificates' files again.
    ///
    /// # Errors
    /// If one of them cannot be used; then the server keeps the old ones.
    pub async fn reload_certificates(&mut self) -> Result<(), Error> {
        self.ask(Command::ReloadCertificates).await.map(drop)
    }

    /// What the server is doing, as JSON: phase, connections by state, stragglers.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn snapshot(&mut self) -> Result<String, Error> {
        let reply = self.ask(Command::Snapshot).await?;
        Ok(reply.snapshot.unwrap_or_default().to_string())
    }

    async fn ask(&mut self, command: Command) -> Result<Reply, Error> {
        let asked = timeout(PATIENCE, self.exchange(command)).await;
        let reply = asked
            .unwrap_or_else(|late| Err(late.into()))
            .map_err(|error| {
                let text = format!("the server at {} does not answer", self.path.display());
                Error::because(Kind::Control, text, error)
            })?;
        match reply.error {
            _ if reply.ok => Ok(reply),
            error => Err(Error::new(
                Kind::Control,
                error.unwrap_or_else(|| "the server refused and did not say why".to_owned()),
            )),
        }
    }

    async fn exchange(&mut self, command: Command) -> std::io::Result<Reply> {
        let request = line(&Request::new(command));
        self.stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        let mut limited = (&mut self.stream).take(REPLY_MOST);
        limited.read_until(b'\n', &mut reply).await?;
        Ok(serde_json::from_slice(&reply)?)
    }
}
