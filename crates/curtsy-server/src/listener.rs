//! Bound sockets with a stable name.
//!
//! Invariants:
//! - A listening socket is never `shutdown(2)`: that would reset the queue of every duplicate.
//! - A Unix socket's path is unlinked only by whoever bound it, and only while the path still
//!   leads to that very socket.
//! - Before the last descriptor of a TCP listener is closed, the kernel is told to take no new
//!   connection and the queue is emptied: closing would reset what is queued.
//! - Not so for an inherited one, which a successor or the service manager may still accept from.

use crate::address::ListenAddress;
use crate::error::{Error, Kind};
use crate::mode::{Asked, Mode, ModeName, PlainOnTls};
use crate::proxy::ProxyPeers;
use crate::tls::TlsConfig;
use curtsy_handover::InheritedListener;
use curtsy_lifecycle::Address;
use rustix::fs::{
    FileType, FlockOperation, Mode as FileMode, OFlags, chmod, fchmod, flock, stat, unlink,
};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many connections may wait to be accepted; the kernel's `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// A bound socket, or several that share one address, with a name.
///
/// A server makes its own. This is for a process that holds sockets for others, as a supervisor does: they stay open,
/// and their queue is kept, while the programs that accept from them come and go.
///
/// ```
/// use curtsy_server::{ListenAddress, Listener};
///
/// let address: ListenAddress = "127.0.0.1:0".parse()?;
/// let held = Listener::bind(vec![("web", address).into()])?;
/// assert_eq!(held[0].name(), "web");
/// assert_ne!(held[0].address().tcp().map_or(0, |address| address.port()), 0);
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    pub(crate) name: String,
    pub(crate) local: Address,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) asked: Asked,
    /// Kept so that the path goes with the listener.
    path: Option<BoundPath>,
    /// Whoever gave it to this process may go on accepting from it.
    is_shared: bool,
}

impl Listener {
    /// Binds everything asked for, or nothing.
    ///
    /// # Errors
    /// As when a server is built: what cannot be bound, with the way out, and a name used twice.
    pub fn bind(wanted: Vec<ListenOn>) -> Result<Vec<Self>, Error> {
        bind_all(wanted, 1, None)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens; the port that the kernel chose if it was to.
    pub fn address(&self) -> &Address {
        &self.local
    }

    /// The socket, non-blocking until somebody makes it otherwise: that belongs to the socket, and not to a process.
    pub fn socket(&self) -> BorrowedFd<'_> {
        // Every way to make one puts at least one in.
        self.sockets[0].as_fd()
    }

    /// Has the kernel take no new connection; those in the queue stay there for whoever accepts from it.
    ///
    /// One that was inherited is left as it is: another process may be about to accept from it.
    pub fn refuse_new(&mut self) {
        if !self.is_shared {
            self.close_door();
        }
    }
}

/// What a server is asked to listen on: an address to bind, or a socket that exists.
#[derive(Debug)]
pub struct ListenOn {
    pub(crate) name: Option<String>,
    pub(crate) source: Source,
    pub(crate) asked: Asked,
}

#[derive(Debug)]
pub(crate) enum Source {
    Address(Result<ListenAddress, Error>),
    Socket(io::Result<Socket>),
    Inherited,
}

impl ListenOn {
    /// The sockets that a service manager hands to this process (`LISTEN_FDS`), under the names it
    /// gave them. Binding fails if there are none.
    pub fn inherited() -> Self {
        Self {
            name: None,
            source: Source::Inherited,
            asked: Asked::default(),
        }
    }

    /// Gives the listener a name; without one the first is `main`, the others `listener-2` and so
    /// on.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What it speaks: [`Mode::Plain`] unless this says otherwise. A running server's
    /// [`Handle::switch`](crate::Handle::switch) changes it.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.asked.mode = mode;
        self
    }

    /// Speaks TLS: [`Mode::Tls`].
    #[must_use]
    pub fn tls(self, config: TlsConfig) -> Self {
        self.mode(Mode::Tls(config))
    }

    /// Speaks TLS and plain, as the client's first byte says: [`Mode::Both`].
    #[must_use]
    pub fn both(self, config: TlsConfig) -> Self {
        self.mode(Mode::Both(config))
    }

    /// Has `config` at hand for a switch by name ([`Handle::switch_to`](crate::Handle::switch_to)),
    /// whatever the mode is now.
    #[must_use]
    pub fn tls_in_reserve(mut self, config: TlsConfig) -> Self {
        self.asked.reserve = Some(config);
        self
    }

    /// What a client gets that speaks without encryption while the mode is [`Mode::Tls`].
    #[must_use]
    pub fn plain_on_tls(mut self, what: PlainOnTls) -> Self {
        self.asked.plain_on_tls = what;
        self
    }

    /// Connections from these peers begin with a header of the PROXY protocol, version 1 or 2; the
    /// addresses it carries are then the connection's. Others are what they seem.
    #[must_use]
    pub fn proxied_by(mut self, peers: ProxyPeers) -> Self {
        self.asked.proxies = Some(std::sync::Arc::new(peers));
        self
    }

    fn socket(socket: io::Result<Socket>) -> Self {
        Self {
            name: None,
            source: Source::Socket(socket),
            asked: Asked::default(),
        }
    }
}

impl<T> From<T> for ListenOn
where
    T: TryInto<ListenAddress>,
    Error: From<T::Error>,
{
    fn from(address: T) -> Self {
        Self {
            name: None,
            source: Source::Address(address.try_into().map_err(Error::from)),
            asked: Asked::default(),
        }
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl<T> From<(&str, T)> for ListenOn
where
    T: Into<ListenOn>,
{
    fn from((name, on): (&str, T)) -> Self {
        on.into().named(name)
    }
}

impl From<std::net::TcpListener> for ListenOn {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::socket(Ok(listener.into()))
    }
}

impl From<tokio::net::TcpListener> for ListenOn {
    fn from(listener: tokio::net::TcpListener) -> Self {
        Self::socket(listener.into_std().map(Socket::from))
    }
}

impl From<std::os::unix::net::UnixListener> for ListenOn {
    fn from(listener: std::os::unix::net::UnixListener) -> Self {
        Self::socket(Ok(Socket::from(OwnedFd::from(listener))))
    }
}

impl From<tokio::net::UnixListener> for ListenOn {
    fn from(listener: tokio::net::UnixListener) -> Self {
        Self::socket(listener.into_std().map(|l| Socket::from(OwnedFd::from(l))))
    }
}

impl From<OwnedFd> for ListenOn {
    fn from(fd: OwnedFd) -> Self {
        Self::socket(Ok(Socket::from(fd)))
    }
}

/// Binds everything asked for, `sockets` sockets to each TCP address. All or nothing.
///
/// What another process handed over under the same name is taken instead, if its address is still
/// the one asked for; what nobody asks for is left in `heirlooms`.
pub(crate) fn bind_all(
    wanted: Vec<ListenOn>,
    sockets: usize,
    mut heirlooms: Option<&mut Vec<InheritedListener>>,
) -> Result<Vec<Listener>, Error> {
    let mut bound: Vec<Listener> = Vec::new();
    for on in wanted {
        let position = bound.len() + 1;
        let name = on.name.unwrap_or_else(|| match position {
            1 => "main".to_owned(),
            n => format!("listener-{n}"),
        });
        if let Some(heirlooms) = heirlooms.as_deref_mut()
            && let Some(taken) = take(heirlooms, &name, &on.source, &on.asked)?
        {
            bound.extend(taken);
            continue;
        }
        let before = bound.len();
        match on.source {
            Source::Address(address) => bound.push(bind(name, &address?, sockets)?),
            Source::Socket(socket) => {
                let socket = socket.map_err(|e| {
                    Error::because(Kind::Bind, format!("cannot listen with {name}"), e)
                })?;
                bound.push(adopt(name, socket)?);
            }
            Source::Inherited => bound.extend(inherited()?),
        }
        for listener in &mut bound[before..] {
            listener.asked = on.asked.clone();
        }
    }
    let mut names: Vec<&str> = bound.iter().map(|l| l.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::new(
            Kind::Config,
            format!("two listeners are named {:?}; names must differ", pair[0]),
        ));
    }
    Ok(bound)
}

/// What was handed over for this wish.
fn take(
    heirlooms: &mut Vec<InheritedListener>,
    name: &str,
    source: &Source,
    asked: &Asked,
) -> Result<Option<Vec<Listener>>, Error> {
    let resume = |heirloom: InheritedListener| resume(heirloom, asked);
    if matches!(source, Source::Inherited) {
        // The service manager's sockets come through the first process.
        let all = heirlooms.drain(..).map(resume);
        let mut all = all.collect::<Result<Vec<_>, _>>()?;
        for listener in &mut all {
            listener.is_shared = true;
            listener.path = None;
        }
        // A supervisor gives them to each generation, and this one has them twice then.
        drop(curtsy_sys::inherited::take());
        return Ok(Some(all));
    }
    let Some(at) = heirlooms.iter().position(|found| found.name == name) else {
        return Ok(None);
    };
    let found = resume(heirlooms.swap_remove(at))?;
    let fits = match source {
        Source::Address(Ok(address)) => is_at(&found.local, address)?,
        // What the program holds in its hands is the address it wants.
        Source::Address(Err(_)) => false,
        Source::Socket(_) | Source::Inherited => true,
    };
    if !fits {
        tracing::warn!(
            name,
            "the listener has another address now; the old one is closed"
        );
    }
    Ok(fits.then(|| vec![found]))
}

/// Whether a listener that has `local` is what `address` asks for.
fn is_at(local: &Address, address: &ListenAddress) -> Result<bool, Error> {
    let found = match (local, address) {
        (Address::Unix(Some(local)), ListenAddress::Unix { path, .. }) => return Ok(local == path),
        (Address::Tcp(local), ListenAddress::Tcp(_) | ListenAddress::Name(..)) => local,
        (Address::Unix(_), _) | (Address::Tcp(_), ListenAddress::Unix { .. }) => return Ok(false),
    };
    let is_same = |wanted: &SocketAddr| {
        let everywhere = wanted.ip().is_unspecified() && found.ip().is_unspecified();
        (everywhere || wanted.ip() == found.ip())
            && (wanted.port() == 0 || wanted.port() == found.port())
    };
    Ok(address.resolve()?.iter().any(is_same))
}

/// A listener of the process before this one. Its path stays that one's for now.
fn resume(heirloom: InheritedListener, asked: &Asked) -> Result<Listener, Error> {
    let InheritedListener {
        name,
        sockets,
        mode,
        ..
    } = heirloom;
    let mut listeners = sockets
        .into_iter()
        .map(|socket| adopt(name.clone(), Socket::from(socket)))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    let mut listener = listeners.next().ok_or_else(|| {
        Error::new(
            Kind::Inherit,
            format!("listener {name} came without a socket"),
        )
    })?;
    listener.sockets.extend(listeners.flat_map(|l| l.sockets));
    listener.asked = as_it_was(asked.clone(), &listener.name, &mode);
    if let Address::Unix(Some(path)) = &listener.local {
        // One that cannot be found is nobody's to remove.
        listener.path = BoundPath::of(path).ok();
        listener.disown();
    }
    Ok(listener)
}

/// What is asked of a listener, in the mode that it was switched to before.
fn as_it_was(mut asked: Asked, name: &str, mode: &str) -> Asked {
    // A mode that only a later version knows is no reason not to serve.
    let was = mode.parse().unwrap_or(asked.mode.name());
    if was == asked.mode.name() {
        return asked;
    }
    let config = asked.mode.tls().cloned().or(asked.reserve.clone());
    match (was, config) {
        (ModeName::Plain, config) => (asked.mode, asked.reserve) = (Mode::Plain, config),
        (ModeName::Tls, Some(config)) => asked.mode = Mode::Tls(config),
        (ModeName::Both, Some(config)) => asked.mode = Mode::Both(config),
        (ModeName::Tls | ModeName::Both, None) => {
            tracing::warn!(
                name,
                mode,
                "no certificate to go on with the listener's mode"
            );
        }
    }
    asked
}

impl Listener {
    /// Leaves the path to the process that has the listener now.
    pub(crate) fn disown(&mut self) {
        if let Some(path) = &mut self.path {
            path.ours = false;
        }
    }

    /// Gives its path another name, in place of what is there.
    pub(crate) fn move_to(&mut self, to: &Path) -> io::Result<()> {
        let Some(bound) = &mut self.path else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        std::fs::rename(&bound.path, to)?;
        bound.path = std::path::absolute(to)?;
        self.local = Address::Unix(Some(bound.path.clone()));
        Ok(())
    }

    /// The path goes with this process's listener from now on.
    pub(crate) fn own(&mut self) {
        if let Some(path) = &mut self.path {
            path.ours = true;
        }
    }

    /// Tells the kernel to take no new connection, so that the queue can be emptied for good.
    ///
    /// For TCP a socket filter drops packets that would open a connection; the handshakes under
    /// way finish. A client whose packet was dropped tries again and finds the port closed. For a
    /// Unix socket the path goes first: nobody finds it any more.
    fn close_door(&mut self) {
        drop(self.path.take());
        if matches!(self.local, Address::Tcp(_)) {
            for socket in &self.sockets {
                if let Err(error) = socket.attach_filter(&NO_SYN) {
                    tracing::debug!(listener = self.name, %error, "cannot refuse new connections");
                }
            }
        }
    }
}

/// Classic BPF over the TCP header: drop what has SYN without ACK, pass the rest.
static NO_SYN: [SockFilter; 5] = {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
};

fn bind(name: String, address: &ListenAddress, sockets: usize) -> Result<Listener, Error> {
    if let ListenAddress::Unix { path, mode } = address {
        return bind_unix(name, path, *mode);
    }
    let mut failed = None;
    for candidate in address.resolve()? {
        match bind_tcp(candidate, sockets) {
            Ok(sockets) => {
                let local = sockets
                    .first()
                    .and_then(|socket| socket.local_addr().ok()?.as_socket())
                    .unwrap_or(candidate);
                return Ok(Listener {
                    name,
                    local: Address::Tcp(local),
                    sockets,
                    asked: Asked::default(),
                    path: None,
                    is_shared: false,
                });
            }
            Err(error) => failed = Some((candidate, error)),
        }
    }
    Err(match failed {
        Some((candidate, error)) => refused(address, candidate, error),
        None => Error::new(
            Kind::Address,
            format!("cannot listen on {address}: the name has no address"),
        ),
    })
}

fn bind_tcp(address: SocketAddr, sockets: usize) -> io::Result<Vec<Socket>> {
    let (first, address) = match open_tcp(address) {
        // `[::]` on a machine without IPv6 means every IPv4 address.
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
                && address.ip().is_unspecified() =>
        {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            (open_tcp(v4)?, v4)
        }
        opened => (opened?, address),
    };
    // Bound before it may be shared: so a port that another program shares with others is in use
    // for us, and nobody's requests are stolen.
    first.bind(&SockAddr::from(address))?;
    let actual = first.local_addr()?;
    let mut bound = vec![first];
    if sockets > 1 {
        bound[0].set_reuse_port(true)?;
        for _ in 1..sockets {
            let socket = open_tcp(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&actual)?;
            bound.push(socket);
        }
    }
    for socket in &bound {
        socket.listen(BACKLOG)?;
    }
    Ok(bound)
}

fn open_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn refused(asked: &ListenAddress, tried: SocketAddr, error: io::Error) -> Error {
    let asked = asked.to_string();
    let tried = tried.to_string();
    let place = if asked == tried {
        asked
    } else {
        format!("{asked} ({tried})")
    };
    let port = tried.rsplit(':').next().unwrap_or_default().to_owned();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library adds kinds at will"
    )]
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is in use by another program (`ss -ltnp 'sport = :{port}'` names it); \
             stop it or choose another port"
        ),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root, CAP_NET_BIND_SERVICE, or a socket from the service manager"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => "the system refused it".to_owned(),
    };
    Error::because(
        Kind::Bind,
        format!("cannot listen on {place}: {why}"),
        error,
    )
}

fn bind_unix(name: String, path: &Path, mode: Option<u32>) -> Result<Listener, Error> {
    let failed = |why: &str, error: io::Error| {
        let text = format!("cannot listen on unix:{}: {why}", path.display());
        Error::because(Kind::Bind, text, error)
    };
    let _alone = DirectoryLock::of(path);
    clear_stale(path)?;
    let bound = (|| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        if let Some(mode) = mode {
            // Before the bind, so that the path never has a wider mode than asked for.
            fchmod(&socket, FileMode::from_raw_mode(mode))?;
        }
        socket.bind(&SockAddr::unix(path)?)?;
        if let Some(mode) = mode {
            // And after it, for the bits that the umask took away.
            chmod(path, FileMode::from_raw_mode(mode))?;
        }
        socket.listen(BACKLOG)?;
        Ok(socket)
    })();
    let socket = bound.map_err(|error: io::Error| {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the standard library adds kinds at will"
        )]
        let why = match error.kind() {
            io::ErrorKind::NotFound => "its directory does not exist",
            io::ErrorKind::PermissionDenied => "its directory may not be written to",
            io::ErrorKind::InvalidInput => "the path is longer than a socket's may be (107 bytes)",
            _ => "the system refused it",
        };
        failed(why, error)
    })?;
    let guard = BoundPath::of(path).map_err(|e| failed("it vanished at once", e))?;
    Ok(Listener {
        name,
        local: Address::Unix(Some(path.to_owned())),
        sockets: vec![socket],
        asked: Asked::default(),
        path: Some(guard),
        is_shared: false,
    })
}

/// Removes what a dead server left at `path`; anything else there is an error.
fn clear_stale(path: &Path) -> Result<(), Error> {
    let text = |why: &str| format!("cannot listen on unix:{}: {why}", path.display());
    let in_use = || {
        let text = text("another server listens there; stop it or choose another path");
        Error::because(
            Kind::Bind,
            text,
            io::Error::from(rustix::io::Errno::ADDRINUSE),
        )
    };
    let Ok(found) = rustix::fs::lstat(path) else {
        return Ok(());
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(Error::new(
            Kind::Bind,
            text("something that is not a socket is there; remove it or choose another path"),
        ));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match probe {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => unlink(path)
            .map_err(|e| Error::because(Kind::Bind, text("a dead socket cannot be removed"), e)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => Err(in_use()),
        // Its queue is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(in_use()),
        Err(error) => Err(Error::because(
            Kind::Bind,
            text("a socket is there and cannot be asked whether it is alive"),
            error,
        )),
    }
}

/// Keeps others that bind a path in the same directory out, from the look whether somebody listens there until we do.
/// Without it, one of several processes that are started together takes another's socket, which is bound and does not
/// listen yet, for a dead one's.
struct DirectoryLock(OwnedFd);

impl DirectoryLock {
    /// How long to wait for the others, who need a moment. A lock that is held for longer is somebody's who means
    /// something else by it.
    const WAIT: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(5);

    /// None where the directory cannot be locked; what is wrong with it, binding tells.
    fn of(path: &Path) -> Option<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, FileMode::empty()).ok()?;
        let until = Instant::now() + Self::WAIT;
        loop {
            match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(Self(opened)),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(Self::PAUSE);
                }
                Err(_) => return None,
            }
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // At once, even if another thread is just starting a process that has the descriptor, too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn adopt(name: String, socket: Socket) -> Result<Listener, Error> {
    let failed = |e: io::Error| Error::because(Kind::Bind, format!("cannot listen with {name}"), e);
    if !socket.is_listener().map_err(failed)? {
        return Err(Error::new(
            Kind::Bind,
            format!("cannot listen with {name}: the socket does not listen"),
        ));
    }
    socket.set_nonblocking(true).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    let local = match address.as_socket() {
        Some(address) => Address::Tcp(address),
        None => Address::Unix(address.as_pathname().map(Path::to_owned)),
    };
    Ok(Listener {
        name,
        local,
        sockets: vec![socket],
        asked: Asked::default(),
        path: None,
        is_shared: false,
    })
}

fn inherited() -> Result<Vec<Listener>, Error> {
    let taken = curtsy_sys::inherited::take().map_err(|e| {
        Error::because(
            Kind::Inherit,
            "cannot take the service manager's sockets",
            e,
        )
    })?;
    if taken.is_empty() {
        return Err(Error::new(
            Kind::Inherit,
            "no sockets were inherited: LISTEN_FDS is not set for this process; \
             start it from a socket unit, or name an address to listen on",
        ));
    }
    let mut seen = std::collections::HashMap::new();
    taken
        .into_iter()
        .map(|inherited| {
            // Several sockets of one unit come under one name.
            let count = seen.entry(inherited.name.clone()).or_insert(0);
            *count += 1;
            let name = match *count {
                1 => inherited.name,
                n => format!("{}-{n}", inherited.name),
            };
            let mut listener = adopt(name, Socket::from(inherited.fd))?;
            listener.is_shared = true;
            Ok(listener)
        })
        .collect()
}

/// A path that leads to a socket of ours, unlinked with this value.
struct BoundPath {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// False while, or since, another process answers for it.
    ours: bool,
}

impl BoundPath {
    fn of(path: &Path) -> io::Result<Self> {
        let stat = stat(path)?;
        // A relative path must be found again after a change of directory.
        let path = std::path::absolute(path)?;
        Ok(Self {
            path,
            device: stat.st_dev,
            inode: stat.st_ino,
            ours: true,
        })
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let ours = stat(&self.path)
            .is_ok_and(|stat| stat.st_dev == self.device && stat.st_ino == self.inode);
        if ours && let Err(error) = unlink(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

impl fmt::Debug for BoundPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoundPath").field(&self.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{ListenOn, bind_all};
    use crate::Error;

    fn bind(on: impl Into<ListenOn>, sockets: usize) -> Result<super::Listener, Error> {
        bind_all(vec![on.into()], sockets, None).map(|mut bound| bound.remove(0))
    }

    #[test]
    fn a_port_in_use_is_named_with_the_way_out() {
        let first = bind("127.0.0.1:0", 1).unwrap();
        let address = first.local.to_string();
        for sockets in [1, 2] {
            let error = bind(address.as_str(), sockets).unwrap_err();
            assert!(error.is_bind());
            let text = error.to_string();
            assert!(text.contains(&address) && text.contains("in use"), "{text}");
        }
    }

    #[test]
    fn a_shared_port_is_in_use_for_others() {
        let first = bind("127.0.0.1:0", 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let error = bind(first.local.to_string().as_str(), 2).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn of_many_who_want_a_dead_path_at_once_one_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = format!("unix:{}", path.display());
        for _ in 0..50 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let together = std::sync::Barrier::new(4);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let each = || {
                    together.wait();
                    bind(address.as_str(), 1)
                };
                let all = [(); 4].map(|()| scope.spawn(each));
                all.map(|one| one.join().unwrap()).into_iter().collect()
            });
            let had = bound.iter().filter(|one| one.is_ok()).count();
            assert_eq!(had, 1, "{bound:?}");
            assert!(bound.iter().flatten().all(|one| one.path.is_some()));
            std::os::unix::net::UnixStream::connect(&path).unwrap();
            for refused in bound.iter().filter_map(|one| one.as_ref().err()) {
                assert!(refused.is_in_use(), "{refused}");
            }
        }
    }

    #[test]
    fn a_unix_path_is_cleared_when_stale_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let text = format!("unix:{}?mode=600", path.display());

        // What a killed server leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = bind(text.as_str(), 1).unwrap();
        let mode = rustix::fs::stat(&path).unwrap().st_mode & 0o777;
        assert_eq!(mode, 0o600);

        let error = bind(text.as_str(), 1).unwrap_err();
        assert!(error.to_string().contains("another server"), "{error}");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        let error = bind(path.to_str().unwrap(), 1).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_successors_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let listener = bind(path.to_str().unwrap(), 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn two_listeners_cannot_have_one_name() {
        let error = bind_all(
            vec![("a", "127.0.0.1:0").into(), ("a", "127.0.0.1:0").into()],
            1,
            None,
        )
        .unwrap_err();
        assert!(error.is_config() && error.to_string().contains("\"a\""));
    }
}
