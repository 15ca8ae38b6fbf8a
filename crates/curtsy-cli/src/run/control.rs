//! The control socket: a Unix socket over which a reload is asked for and its result told.
//!
//! One line of JSON asks, `{"command":"reload"}`. Each line of the answer is an object: `{"progress":"..."}` any number of
//! times, then `{"ok":"..."}` or `{"error":"..."}`, then the end. Only the supervisor's own user and root may ask.
//!
//! Deliberately absent, so far: every other command.

use super::machine::Event;
use curtsy::{ListenAddress, Listener};
use serde_json::{Value, json};
use std::io;
use std::os::unix::net::UnixListener as Plain;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// The longest question.
const QUESTION_BYTES: u64 = 4096;
/// The time to ask it.
const QUESTION_TIME: Duration = Duration::from_secs(5);
/// How many may wait for an answer at a time.
const CLIENTS_MAX: usize = 64;

/// What a client is told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Progress(String),
    Done(Result<String, String>),
}

/// Who wants to be told about a reload.
pub(crate) type Client = UnboundedSender<Answer>;

/// The socket; its path goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    _bound: Vec<Listener>,
    socket: UnixListener,
}

impl Control {
    pub(crate) fn bind(path: &Path) -> Result<Self, String> {
        let address = ListenAddress::Unix {
            path: path.to_owned(),
            mode: Some(0o600),
        };
        let bound = Listener::bind(vec![("control", address).into()]).map_err(|e| e.to_string())?;
        let socket = bound
            .iter()
            .map(|listener| listener.socket().try_clone_to_owned())
            .next()
            .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
            .and_then(|socket| UnixListener::from_std(Plain::from(socket)))
            .map_err(|error| format!("cannot watch the control socket: {error}"))?;
        Ok(Self {
            _bound: bound,
            socket,
        })
    }

    /// Hears clients for ever.
    pub(crate) async fn serve(self, events: UnboundedSender<(Event, Option<Client>)>) {
        let mut clients = tokio::task::JoinSet::new();
        loop {
            while clients.len() >= CLIENTS_MAX {
                clients.join_next().await;
            }
            while clients.try_join_next().is_some() {}
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    let events = events.clone();
                    clients.spawn(async move {
                        // A client that goes away is told nothing.
                        let _ = attend(stream, events).await;
                    });
                }
                // Out of descriptors, say: it passes.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn attend(
    stream: UnixStream,
    events: UnboundedSender<(Event, Option<Client>)>,
) -> io::Result<()> {
    let is_allowed = may_ask(&stream.peer_cred()?);
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(QUESTION_BYTES));
    timeout(QUESTION_TIME, reader.read_line(&mut line)).await??;
    let command = serde_json::from_str::<Value>(&line)
        .ok()
        .and_then(|question| question.get("command")?.as_str().map(str::to_owned));
    let refusal = match command.as_deref() {
        _ if !is_allowed => Some("only root and the supervisor's own user may ask".to_owned()),
        Some("reload") => None,
        Some(other) => Some(format!("there is no command {other:?}")),
        None => Some("the question is not understood".to_owned()),
    };
    if let Some(refusal) = refusal {
        return write(&mut writer, &Answer::Done(Err(refusal))).await;
    }
    let (client, mut answers): (Client, UnboundedReceiver<Answer>) = unbounded_channel();
    let asked = events.send((Event::Reload, Some(client)));
    if asked.is_err() {
        let gone = Answer::Done(Err("the supervisor is ending".to_owned()));
        return write(&mut writer, &gone).await;
    }
    while let Some(answer) = answers.recv().await {
        write(&mut writer, &answer).await?;
    }
    Ok(())
}

fn may_ask(peer: &UCred) -> bool {
    peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw()
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> io::Result<()> {
    let object = match answer {
        Answer::Progress(text) => json!({ "progress": text }),
        Answer::Done(Ok(text)) => json!({ "ok": text }),
        Answer::Done(Err(text)) => json!({ "error": text }),
    };
    writer.write_all(format!("{object}\n").as_bytes()).await
}
