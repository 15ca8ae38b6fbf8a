//! The admin listener: what an operator and a machine that operates look at.
//!
//! `/livez` and `/readyz` for orchestrators and load balancers, `/metrics` for Prometheus, `/` a page for people,
//! `/status` and `/events` what the page shows, for programs.
//!
//! Invariants:
//! - It only tells. Nothing can be changed here; that is the control socket's.
//! - Its connections are not the server's: they are in no count, and no drain waits for them. It answers until the
//!   drain is over, with or without listeners that accept.
//! - It is bound to loopback unless it was told an address, and there answers only requests that were made to an
//!   address or to `localhost`: a page from elsewhere cannot read it by having its name point here.
//! - Clients, streams and the time each may take are bounded.
//! - During a restart it is the process that accepts whose admin listener does.
//! - One of several processes that a supervisor keeps serves without it while another has it, and takes it when it is free.
//!
//! Deliberately absent: TLS and passwords. Who may not see it must not reach it.

mod desk;
mod events;
mod page;

use crate::accept::Accepting;
use crate::address::ListenAddress;
use crate::error::{Error, Kind};
use crate::handle::Handle;
use crate::listener::{ListenOn, Listener, bind_all};
use crate::spare::Spare;
use crate::vacancy;
use curtsy_handover::InheritedListener;
use curtsy_lifecycle::Address;
use desk::Desk;
use socket2::Socket;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

/// What it is called among the listeners that are handed over.
const NAME: &str = "curtsy-admin";
/// The most clients at a time; more wait to be accepted.
const CLIENTS_MOST: usize = 64;
/// How long after the drain's end answers may still be on their way.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long to wait after an error of accepting.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the admin listener is, as people write it: on loopback, unless a host is named.
///
/// ```
/// use curtsy_server::AdminAddress;
///
/// let address: AdminAddress = "9001".parse()?;
/// assert_eq!(address.to_string(), "127.0.0.1:9001");
/// assert_eq!(":9001".parse::<AdminAddress>()?.to_string(), "127.0.0.1:9001");
/// assert_eq!("0.0.0.0:9001".parse::<AdminAddress>()?.to_string(), "0.0.0.0:9001");
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddress(String);

impl AdminAddress {
    fn listen(&self) -> Result<ListenAddress, Error> {
        let text = self.0.as_str();
        match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
            Ok(port) => Ok(ListenAddress::Tcp((Ipv4Addr::LOCALHOST, port).into())),
            // Too large a port, and not an address without one.
            Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => format!(":{text}").parse(),
            Err(_) => text.parse(),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let address = Self(text.to_owned()).listen()?;
        Ok(Self(address.to_string()))
    }
}

/// What cannot be understood is said when the server is built.
impl From<&str> for AdminAddress {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The listener: bound, or wanted while another process of the service has it.
#[derive(Debug)]
pub(crate) enum AdminListener {
    Bound(Listener),
    Wanted(AdminAddress),
}

impl AdminListener {
    /// Binds it, or takes the one of the process before. Without a wish, that one is not left among those that a
    /// program might take for its own. `waits` if it is to be waited for where it is in use.
    pub(crate) fn bind(
        wish: Option<AdminAddress>,
        mut heirlooms: Option<&mut Vec<InheritedListener>>,
        waits: bool,
    ) -> Result<Option<Self>, Error> {
        let Some(address) = wish else {
            if let Some(heirlooms) = heirlooms.as_deref_mut() {
                heirlooms.retain(|heirloom| heirloom.name != NAME);
            }
            return Ok(None);
        };
        match bind(&address, heirlooms) {
            Err(error) if waits && error.is_in_use() => {
                tracing::warn!(
                    %address,
                    "another process has the admin listener's address; serving without it until it is free"
                );
                Ok(Some(Self::Wanted(address)))
            }
            bound => bound.map(Self::Bound).map(Some),
        }
    }

    /// Where it is, if it is this process's.
    pub(crate) fn address(&self) -> Option<&Address> {
        match self {
            Self::Bound(listener) => Some(&listener.local),
            Self::Wanted(_) => None,
        }
    }
}

fn bind(
    address: &AdminAddress,
    heirlooms: Option<&mut Vec<InheritedListener>>,
) -> Result<Listener, Error> {
    let on = ListenOn::from(address.listen()?).named(NAME);
    let bound = bind_all(vec![on], 1, heirlooms)
        .map_err(|error| error.within("cannot open the admin listener"))?;
    let nothing = || Error::new(Kind::Bind, "cannot open the admin listener");
    bound.into_iter().next().ok_or_else(nothing)
}

/// The admin listener of a running server.
pub(crate) struct Admin {
    counter: Arc<Counter>,
    /// Held by everyone who still answers.
    alive: mpsc::Sender<()>,
}

/// Where clients come.
struct Counter {
    held: Mutex<Held>,
    handle: Handle,
    room: Arc<Semaphore>,
    desk: OnceLock<Arc<Desk>>,
}

/// What a server has of its admin listener.
enum Held {
    Wanted(AdminAddress),
    Bound(Listener),
    /// It is another process's, and not wanted any more.
    Left,
}

/// What is left to wait for when the server has stopped.
pub(crate) struct LastWords(mpsc::Receiver<()>);

impl Admin {
    pub(crate) fn new(listener: AdminListener, handle: Handle) -> (Self, LastWords) {
        let (alive, ended) = mpsc::channel(1);
        let held = match listener {
            AdminListener::Bound(listener) => Held::Bound(listener),
            AdminListener::Wanted(address) => Held::Wanted(address),
        };
        let counter = Counter {
            held: Mutex::new(held),
            handle,
            room: Arc::new(Semaphore::new(CLIENTS_MOST)),
            desk: OnceLock::new(),
        };
        let admin = Self {
            counter: Arc::new(counter),
            alive,
        };
        (admin, LastWords(ended))
    }

    /// Does something with the listener, if it is this process's.
    pub(crate) fn with_listener<T>(&self, what: impl FnOnce(&mut Listener) -> T) -> Option<T> {
        match &mut *self.counter.held() {
            Held::Bound(listener) => Some(what(listener)),
            Held::Wanted(_) | Held::Left => None,
        }
    }

    /// Leaves it to another process.
    pub(crate) fn leave(self) {
        self.with_listener(Listener::disown);
        *self.counter.held() = Held::Left;
    }

    /// Accepts until the listener is handed over, or `orders` end with the server. While another process has the address,
    /// it is waited for until this one is to stop accepting.
    pub(crate) fn open(&self, orders: &watch::Receiver<Accepting>) -> Result<(), Error> {
        let orders = orders.clone();
        let wanted = match &*self.counter.held() {
            Held::Bound(listener) => {
                return self.counter.open(listener, &orders, &self.alive);
            }
            Held::Wanted(address) => address.clone(),
            Held::Left => return Ok(()),
        };
        let (counter, alive) = (self.counter.clone(), self.alive.clone());
        drop(tokio::spawn(counter.wait(wanted, orders, alive)));
        Ok(())
    }
}

impl Counter {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(
        &self,
        listener: &Listener,
        orders: &watch::Receiver<Accepting>,
        alive: &mpsc::Sender<()>,
    ) -> Result<(), Error> {
        let desk = self.desk.get_or_init(|| {
            let is_local = match &listener.local {
                Address::Tcp(address) => address.ip().is_loopback(),
                Address::Unix(_) => false,
            };
            Arc::new(Desk::new(self.handle.clone(), is_local))
        });
        for socket in &listener.sockets {
            let socket = socket
                .try_clone()
                .and_then(Socketed::new)
                .map_err(|error| {
                    let text = format!("cannot accept on {}", listener.local);
                    Error::because(Kind::Accept, text, error)
                })?;
            let (desk, room) = (desk.clone(), self.room.clone());
            let work = accept(socket, desk, room, orders.clone(), alive.clone());
            drop(tokio::spawn(work));
        }
        Ok(())
    }

    /// Takes the address when it is free.
    async fn wait(
        self: Arc<Self>,
        wanted: AdminAddress,
        mut orders: watch::Receiver<Accepting>,
        alive: mpsc::Sender<()>,
    ) {
        let take = move || bind(&wanted, None);
        let listener = tokio::select! {
            biased;
            // Who does not serve any more is not who is looked for; an error is the server's end.
            _ = orders.wait_for(|order| *order != Accepting::Yes) => return,
            listener = vacancy::taken("admin listener", take) => listener,
        };
        let mut held = self.held();
        if !matches!(*held, Held::Wanted(_)) {
            return;
        }
        tracing::info!(address = %listener.local, "the admin listener is this process's now");
        // Nobody else sets it.
        let address = listener.local.to_string();
        let _ = self.handle.shared().admin.set(address);
        if let Err(error) = self.open(&listener, &orders, &alive) {
            tracing::error!(%error, "the admin listener cannot be used");
        }
        *held = Held::Bound(listener);
    }
}

impl LastWords {
    /// Waits for the answers that are on their way, a bounded while.
    pub(crate) async fn said(mut self) {
        // Whoever does not take them is not waited for.
        let _ = timeout(LAST_WORDS, self.0.recv()).await;
    }
}

enum Socketed {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socketed {
    fn new(socket: Socket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        match address.as_socket() {
            Some(_) => TcpListener::from_std(socket.into()).map(Self::Tcp),
            None => UnixListener::from_std(OwnedFd::from(socket).into()).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<crate::stream::Stream> {
        use crate::stream::Stream;
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

async fn accept(
    socket: Socketed,
    desk: Arc<Desk>,
    room: Arc<Semaphore>,
    mut orders: watch::Receiver<Accepting>,
    alive: mpsc::Sender<()>,
) {
    let spare = Arc::new(Spare::new("admin listener"));
    loop {
        let accepted = async {
            let place = room
                .clone()
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            Ok::<_, io::Error>((socket.accept().await?, place))
        };
        let accepted = tokio::select! {
            biased;
            _ = orders.wait_for(|order| *order == Accepting::HandOver) => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                spare.refill();
                let (desk, alive, spare) = (desk.clone(), alive.clone(), spare.clone());
                drop(tokio::spawn(async move {
                    desk.answer(stream).await;
                    spare.refill();
                    drop((place, alive));
                }));
            }
            Err(error) if spare.make_room(&error) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}
