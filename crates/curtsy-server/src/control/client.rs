//! The steering end of the control socket.

use super::event::Event;
use super::listing::Filter;
use super::message::{Answer, Command, Reply};
use super::socket::may;
use super::status::Status;
use crate::error::{Error, Kind};
use crate::mode::ModeName;
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a server may take to answer; a restart takes its own time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest line that is taken, in bytes: ten thousand connections.
const LINE_MOST: u64 = 64 << 20;

/// A running server, or supervisor, steered over its control socket.
///
/// ```no_run
/// # async fn steer() -> Result<(), curtsy_server::Error> {
/// use curtsy_server::control::Control;
///
/// let mut server = Control::connect("/run/app/control.sock").await?;
/// println!("{}", server.status().await?.phase);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    /// What has been read of a line.
    line: Vec<u8>,
    /// Events that came before a reply.
    events: VecDeque<(Event, Value)>,
}

/// A line from the server.
enum Line {
    Reply(Box<Reply>),
    Event(Event, Value),
}

impl Control {
    /// Connects to the server whose control socket is at `path`.
    ///
    /// # Errors
    /// If nobody listens there, or somebody else than this user or root does.
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let failed = |error: io::Error| {
            let kind = error.kind();
            let hint = match (
                kind == io::ErrorKind::NotFound,
                kind == io::ErrorKind::ConnectionRefused,
            ) {
                (true, _) => ", where nothing is",
                (_, true) => ", where nobody listens",
                (false, false) => "",
            };
            let text = format!("cannot reach a server at {}{hint}", path.display());
            Error::because(Kind::Control, text, error)
        };
        let stream = timeout(PATIENCE, UnixStream::connect(&path))
            .await
            .unwrap_or_else(|late| Err(late.into()))
            .map_err(failed)?;
        let user = stream.peer_cred().map_err(failed)?.uid();
        if !may(user) {
            let text = format!("{} belongs to user {user}, not to this one", path.display());
            return Err(Error::new(Kind::Control, text));
        }
        Ok(Self {
            stream: BufReader::new(stream),
            path,
            line: Vec::new(),
            events: VecDeque::new(),
        })
    }

    /// Where it is connected to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a command and waits for what comes of it; not for longer than 30 s, but for as long as
    /// it takes if it is a [`Command::Reload`]. Events that come before are kept for
    /// [`Control::event`].
    ///
    /// # Errors
    /// Why it was not obeyed, in the server's words; or if the server does not answer.
    ///
    /// # Cancel safety
    /// Not cancel safe: the next answer might be this one's. Drop the connection.
    pub async fn ask(&mut self, command: Command) -> Result<Answer, Error> {
        let is_long = matches!(command, Command::Reload {});
        self.send(&command).await?;
        let waiting = async {
            loop {
                match self.read().await? {
                    Line::Reply(reply) => return Ok(reply),
                    Line::Event(event, line) => self.events.push_back((event, line)),
                }
            }
        };
        let reply: io::Result<_> = match is_long {
            true => waiting.await,
            false => timeout(PATIENCE, waiting)
                .await
                .unwrap_or_else(|late| Err(late.into())),
        };
        let reply = reply.map_err(|error| self.silent(error))?;
        obeyed(*reply)
    }

    /// Asks for a restart; `step` is called with each event until the end.
    ///
    /// # Errors
    /// Why the old generation was kept; or if the server does not answer.
    pub async fn reload(&mut self, mut step: impl FnMut(&Event)) -> Result<Answer, Error> {
        self.send(&Command::Reload {}).await?;
        loop {
            match self.read().await.map_err(|error| self.silent(error))? {
                Line::Reply(reply) => return obeyed(*reply),
                Line::Event(event, _) => step(&event),
            }
        }
    }

    /// What it is doing.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn status(&mut self) -> Result<Status, Error> {
        let answer = self.ask(Command::Status {}).await?;
        self.status_in(answer)
    }

    /// Listens to what happens from now on: call [`Control::event`] then. What the server is doing
    /// now.
    ///
    /// # Errors
    /// If too many listen already, or the server does not answer.
    pub async fn listen(&mut self) -> Result<Status, Error> {
        let answer = self.ask(Command::Events {}).await?;
        self.status_in(answer)
    }

    /// The next event, with its line as it came; `None` when there will be no more.
    ///
    /// # Errors
    /// If what comes cannot be understood, or the connection breaks.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn event(&mut self) -> Result<Option<(Event, Value)>, Error> {
        if let Some(kept) = self.events.pop_front() {
            return Ok(Some(kept));
        }
        loop {
            match self.read().await {
                Ok(Line::Event(event, line)) => return Ok(Some((event, line))),
                // To something that was asked before and not waited for.
                Ok(Line::Reply(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(self.silent(error)),
            }
        }
    }

    /// Lists connections.
    ///
    /// # Errors
    /// If the filter makes no sense, or the server does not answer.
    pub async fn connections(&mut self, filter: Filter) -> Result<Answer, Error> {
        self.ask(Command::Connections(filter)).await
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
        self.ask(Command::ReloadCertificates {}).await.map(drop)
    }

    fn status_in(&self, answer: Answer) -> Result<Status, Error> {
        let nothing = || self.silent(io::ErrorKind::InvalidData.into());
        answer.status.map(|status| *status).ok_or_else(nothing)
    }

    fn silent(&self, error: io::Error) -> Error {
        let text = format!("the server at {} does not answer", self.path.display());
        Error::because(Kind::Control, text, error)
    }

    async fn send(&mut self, command: &Command) -> Result<(), Error> {
        let line = command.line();
        let sent = timeout(PATIENCE, self.stream.write_all(line.as_bytes())).await;
        match sent.unwrap_or_else(|late| Err(late.into())) {
            // It has hung up, and may have said why: whoever reads hears it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|error| self.silent(error)),
        }
    }

    /// The next line. Cancel safe.
    async fn read(&mut self) -> io::Result<Line> {
        let most = LINE_MOST.saturating_sub(self.line.len() as u64);
        let mut limited = (&mut self.stream).take(most);
        limited.read_until(b'\n', &mut self.line).await?;
        let line = std::mem::take(&mut self.line);
        match line.last() {
            Some(b'\n') => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(_) => {
                let text = "the connection ended in the middle of a line";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        let value: Value = serde_json::from_slice(&line)?;
        if value.get("event").is_some() {
            return Ok(Line::Event(serde_json::from_value(value.clone())?, value));
        }
        Ok(Line::Reply(serde_json::from_value(value)?))
    }
}

fn obeyed(reply: Reply) -> Result<Answer, Error> {
    match reply.error {
        _ if reply.ok => Ok(reply.answer),
        error => Err(Error::new(
            Kind::Control,
            error.unwrap_or_else(|| "the server refused and did not say why".to_owned()),
        )),
    }
}
