//! The server's end of the control socket.

use crate::address::ListenAddress;
use crate::control::message::LINE_MOST;
use crate::control::{Command, Reply, parse};
use crate::error::{Error, Kind};
use crate::listener::{ListenOn, Listener, bind_all};
use crate::server::Handle;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Who may open it: its owner.
const MODE: u32 = 0o600;
/// The most clients at a time; more wait to be accepted.
const CLIENTS_MOST: usize = 8;
/// How long a client may be silent, or not take its answer.
const SILENCE_MOST: Duration = Duration::from_secs(60);
/// How long to wait after an error of accepting.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound control socket; its path goes with it.
#[derive(Debug)]
pub(crate) struct ControlSocket(Listener);

impl ControlSocket {
    pub(crate) fn bind(path: PathBuf) -> Result<Self, Error> {
        let failed = |error| Error::because(Kind::Control, "cannot open the control socket", error);
        let address = ListenAddress::Unix {
            path,
            mode: Some(MODE),
        };
        let bound = bind_all(vec![ListenOn::from(address)], 1, None).map_err(failed)?;
        let bound = bound.into_iter().next();
        let nothing = || Error::new(Kind::Control, "cannot open the control socket");
        bound.map(Self).ok_or_else(nothing)
    }

    /// Obeys until it is dropped.
    pub(crate) async fn obey(self, handle: Handle) {
        let listener = self.0.sockets.first().map(|socket| {
            let socket = socket.try_clone()?;
            UnixListener::from_std(OwnedFd::from(socket).into())
        });
        let listener = match listener {
            Some(Ok(listener)) => listener,
            Some(Err(error)) => {
                tracing::error!(%error, "the control socket cannot be used");
                return;
            }
            None => return,
        };
        let room = Arc::new(Semaphore::new(CLIENTS_MOST));
        let mut clients = tokio::task::JoinSet::new();
        loop {
            while clients.try_join_next().is_some() {}
            let Ok(place) = room.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let handle = handle.clone();
                    clients.spawn(async move {
                        if let Err(error) = converse(stream, &handle).await {
                            tracing::debug!(%error, "a control client was left");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether a process of that user may steer ours.
pub(super) fn may(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

async fn converse(stream: UnixStream, handle: &Handle) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    if !may(user) {
        let reply = Reply::failed("only the server's own user may steer it");
        return say(&mut write, &reply).await;
    }
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than is taken, and the end.
        let most = LINE_MOST as u64 + 2;
        let mut limited = (&mut read).take(most);
        let reading = limited.read_until(b'\n', &mut line);
        if timeout(SILENCE_MOST, reading).await?? == 0 {
            return Ok(());
        }
        let is_whole = line.last() == Some(&b'\n');
        let text = line.trim_ascii_end();
        if text.is_empty() && is_whole {
            continue;
        }
        let reply = match parse(text) {
            Ok(command) => obey(command, handle).await,
            Err(reply) => reply,
        };
        say(&mut write, &reply).await?;
        if !is_whole {
            // The rest of an endless line, or a client that has hung up.
            return Ok(());
        }
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    timeout(SILENCE_MOST, write.write_all(reply.line().as_bytes())).await?
}

async fn obey(command: Command, handle: &Handle) -> Reply {
    let done = |result: Result<(), Error>| match result {
        Ok(()) => Reply::done(),
        Err(error) => Reply::failed(error),
    };
    match command {
        Command::Switch { listener, mode } => {
            let switched = mode.parse();
            done(switched.and_then(|mode| handle.switch_to(&listener, mode)))
        }
        Command::ReloadCertificates => {
            let handle = handle.clone();
            // It reads files.
            let reloading = tokio::task::spawn_blocking(move || handle.reload_certificates());
            reloading.await.map_or_else(Reply::failed, done)
        }
        Command::Snapshot => Reply::snapshot(&handle.snapshot()),
    }
}
