//! The server's end of the control socket: who may come, and how many.

use super::event::Crier;
use super::message::{Answer, Command, Reply};
use super::path::{Place, meanwhile, sweep};
use super::session::Session;
use crate::address::ListenAddress;
use crate::error::{Error, Kind};
use crate::listener::{ListenOn, bind_all};
use crate::spare::Spare;
use crate::vacancy;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Who may open it: its owner.
const MODE: u32 = 0o600;
/// The most clients at a time; more wait to be accepted.
const CLIENTS_MOST: usize = 32;
/// How many of them may listen to events, for as long as they like: an operator must find room.
const LISTENERS_MOST: usize = 16;
/// How long to wait after an error of accepting.
const PAUSE: Duration = Duration::from_millis(100);
/// How long clients have, at the end, to take what was said to them.
const FAREWELL: Duration = Duration::from_millis(100);

/// What is steered over a control socket: a server; or a supervisor, which keeps its own.
pub trait Subject: Send + Sync + 'static {
    /// Does what it is told, or says why not. [`Command::Events`] is answered here like
    /// [`Command::Status`]; the lines that follow come from [`Subject::crier`].
    fn obey(
        &self,
        command: Command,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + '_>>;

    /// Where it tells of what happens.
    fn crier(&self) -> &Crier;
}

/// A bound control socket; its path goes with it.
///
/// A server makes its own ([`Builder::control`](crate::Builder::control)). This is for a program that
/// is steered in the same language and is no server.
#[derive(Debug)]
pub struct ControlSocket {
    place: Place,
    /// Another process of the service has it.
    waits_for: Option<PathBuf>,
}

impl ControlSocket {
    /// Binds one at `path`, with mode 0600. What a dead process left there is replaced.
    ///
    /// # Errors
    /// If it cannot be bound: somebody listens there, or the path cannot be.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Ok(Self::at(Place::new(bind(&path.into())?, None)))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            waits_for: None,
        }
    }

    /// The same for a process that is to take over from another, which has the path still: it is
    /// bound beside it, and moved when [`Place::claim`] is called.
    pub(crate) fn bind_as_heir(path: PathBuf, donor: u32) -> Result<Self, Error> {
        if !is_of(donor, &path) {
            return Self::bind(path);
        }
        let bound = bind(&meanwhile(&path))?;
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(Self::at(Place::new(bound, Some(path))))
    }

    /// One that is had when the process that has it ends.
    fn when_free(path: PathBuf) -> Self {
        Self {
            place: Place::none(),
            waits_for: Some(path),
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Hears clients until it is told to stop hearing; must be called in a tokio runtime.
    ///
    /// # Errors
    /// If the runtime does not take the socket.
    pub fn serve(self, subject: Arc<dyn Subject>) -> Result<Hearing, Error> {
        self.serve_unless(subject, std::future::pending())
    }

    /// The same; if another process has it, it is waited for until `too_late`.
    pub(crate) fn serve_unless(
        self,
        subject: Arc<dyn Subject>,
        too_late: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Hearing, Error> {
        let place = self.place;
        let (closing, mut closed) = watch::channel(false);
        let task = match self.waits_for {
            None => tokio::spawn(hear(listener(&place)?, subject, place, closed)),
            Some(path) => tokio::spawn(async move {
                let take = move || bind(&path);
                let bound = tokio::select! {
                    biased;
                    // It is told so, or the one to tell is gone.
                    _ = closed.changed() => return,
                    () = too_late => return,
                    bound = vacancy::taken("control socket", take) => bound,
                };
                tracing::info!(address = %bound.local, "the control socket is this process's now");
                place.put(bound);
                match listener(&place) {
                    Ok(listener) => hear(listener, subject, place, closed).await,
                    Err(error) => tracing::error!(%error, "the server cannot be steered"),
                }
            }),
        };
        Ok(Hearing { closing, task })
    }
}

/// What is bound at the place, in this runtime.
fn listener(place: &Place) -> Result<UnixListener, Error> {
    let failed = |e| Error::because(Kind::Control, "cannot use the control socket", e);
    let socket = place.socket()?;
    socket.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(socket).map_err(failed)
}

/// Where a server is to have one.
#[derive(Debug)]
pub(crate) struct Wanted {
    path: PathBuf,
    is_needed: bool,
}

impl Wanted {
    pub(crate) fn needed(path: PathBuf) -> Self {
        Self {
            path,
            is_needed: true,
        }
    }

    pub(crate) fn if_possible(path: PathBuf) -> Self {
        Self {
            path,
            is_needed: false,
        }
    }

    /// Opens it for the heir of `donor`, if that is one. `waits` if it is to be waited for where another process has it.
    pub(crate) fn open(
        self,
        donor: Option<u32>,
        waits: bool,
    ) -> Result<Option<ControlSocket>, Error> {
        let path = self.path.clone();
        let opened = match donor {
            Some(donor) => ControlSocket::bind_as_heir(self.path, donor),
            None => ControlSocket::bind(self.path),
        };
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if waits && error.is_in_use() => {
                tracing::warn!(
                    path = %path.display(),
                    "another process has the control socket; going on without it until it is free"
                );
                Ok(Some(ControlSocket::when_free(path)))
            }
            Err(error) if self.is_needed => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the server cannot be steered");
                Ok(None)
            }
        }
    }
}

/// A control socket in use.
#[derive(Debug)]
pub struct Hearing {
    closing: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Hearing {
    /// Hears nobody any more. Who listens is told what was said before; that takes a moment at most,
    /// and none if nobody does.
    pub async fn end(self) {
        self.closing.send_replace(true);
        // It ends by itself, with a bound.
        let _ = self.task.await;
    }
}

fn bind(path: &Path) -> Result<crate::Listener, Error> {
    let failed = |error| Error::because(Kind::Control, "cannot open the control socket", error);
    if let Some(directory) = path.parent() {
        sweep(match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        });
    }
    let address = ListenAddress::Unix {
        path: path.to_owned(),
        mode: Some(MODE),
    };
    let bound = bind_all(vec![ListenOn::from(address)], 1, None).map_err(failed)?;
    let nothing = || Error::new(Kind::Control, "cannot open the control socket");
    bound.into_iter().next().ok_or_else(nothing)
}

/// Whether the process that this one takes over from listens there: nobody else's path is taken over.
fn is_of(donor: u32, path: &Path) -> bool {
    let Ok(stream) = std::os::unix::net::UnixStream::connect(path) else {
        // Nobody does. What else may be wrong with it is found out by binding.
        return false;
    };
    let listener = rustix::net::sockopt::socket_peercred(&stream).map(|peer| peer.pid);
    listener.is_ok_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(donor))
}

/// Whether a process of that user may steer ours.
pub(super) fn may(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

async fn hear(
    listener: UnixListener,
    subject: Arc<dyn Subject>,
    place: Place,
    mut closed: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CLIENTS_MOST));
    let listeners = Arc::new(Semaphore::new(LISTENERS_MOST));
    let mut clients = JoinSet::new();
    let wait_for_end = closed.clone();
    let spare = Arc::new(Spare::new("control socket"));
    loop {
        while clients.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            // It is told so, or the one to tell is gone.
            _ = closed.changed() => break,
        };
        match accepted {
            Ok((stream, Some(place))) => {
                let session =
                    Session::new(subject.clone(), listeners.clone(), wait_for_end.clone());
                spare.refill();
                let spare = spare.clone();
                clients.spawn(async move {
                    if let Err(error) = converse(stream, session).await {
                        tracing::debug!(%error, "a control client was left");
                    }
                    spare.refill();
                    drop(place);
                });
            }
            Ok((_, None)) => break,
            Err(error) if spare.make_room(&error) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
    // Nobody finds it any more.
    drop(listener);
    place.leave();
    let farewell = async { while clients.join_next().await.is_some() {} };
    // Who is late is cut.
    let _ = timeout(FAREWELL, farewell).await;
}

type Room = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &UnixListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(UnixStream, Option<Room>)> {
    let permit = room.clone().acquire_owned().await.ok();
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn converse(stream: UnixStream, session: Session) -> std::io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if may(user) {
        return session.run(stream).await;
    }
    let refusal = "only the server's own user and root may steer it";
    // A few bytes, which an empty socket takes at once.
    stream.writable().await?;
    stream.try_write(Reply::failed(refusal).line().as_bytes())?;
    Ok(())
}
