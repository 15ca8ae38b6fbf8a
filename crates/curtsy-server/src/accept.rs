//! Accepting: one task a listener and worker.
//!
//! Errors pass or do not. Those that pass (no descriptor left, no memory) are waited out, from
//! 5 ms doubling to 1 s, after parked connections were given up to make room; one that does not
//! pass ends the server.

use crate::error::{Error, Kind};
use crate::metrics::AcceptTrouble;
use crate::mode::Board;
use crate::stream::{Bare, Stream};
use crate::worker::Worker;
use curtsy_lifecycle::{Address, Moment};
use curtsy_sys::watched::{Interest, Watched};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketAddrUnix, SocketFlags, acceptfrom_with, getsockname};
use socket2::Socket;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often the log tells that there is no room.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// How many parked connections are given up when descriptors run out.
const GIVE_UP: usize = 16;

/// What the accepting tasks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepting {
    Yes,
    /// Take what is queued, close, and end.
    Stop,
    /// Close and end: what is queued is the heir's.
    HandOver,
}

/// One listening socket of one worker.
pub(crate) struct Acceptor {
    socket: Watched,
    unix: bool,
    board: Arc<Board>,
    /// The address of the listener, if connections cannot have another.
    local: Option<Address>,
    worker: Arc<Worker>,
}

impl Acceptor {
    /// Must be called in the worker's runtime.
    pub(crate) fn new(
        socket: Socket,
        local: &Address,
        board: Arc<Board>,
        worker: Arc<Worker>,
    ) -> io::Result<Self> {
        let (unix, local) = match local {
            Address::Tcp(address) => {
                // What is accepted from it inherits that (Linux, tcp(7)).
                socket.set_tcp_nodelay(true)?;
                let is_known = !address.ip().is_unspecified();
                (false, is_known.then(|| local.clone()))
            }
            Address::Unix(_) => (true, Some(local.clone())),
        };
        Ok(Self {
            socket: Watched::new(socket.into(), Interest::READABLE)?,
            unix,
            board,
            local,
            worker,
        })
    }

    /// Accepts until told to stop.
    pub(crate) async fn run(self, mut orders: watch::Receiver<Accepting>) -> Result<(), Error> {
        let mut wait = Wait::default();
        let mut told: Option<Moment> = None;
        loop {
            let trouble = tokio::select! {
                biased;
                () = stopped(&mut orders) => None,
                error = self.accept_all(&mut wait) => Some(error),
            };
            match trouble {
                None if *orders.borrow() == Accepting::HandOver => return Ok(()),
                None => return self.empty_queue().await,
                Some(error) if passes(&error) => {
                    self.worker.tally.accept_error(AcceptTrouble::Resources);
                    self.make_room(&error);
                    let wait = wait.again();
                    // Room comes and goes many times a second; the metrics count each time.
                    let now = crate::clock::now();
                    if told.is_none_or(|told| now.since(told) >= TOLD_EVERY) {
                        told = Some(now);
                        tracing::warn!(
                            listener = self.board.name,
                            %error,
                            retry_in_ms = wait.as_millis(),
                            "cannot accept; clients wait in the queue{}",
                            way_out(&error)
                        );
                    }
                    tokio::select! {
                        () = stopped(&mut orders) => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                Some(error) if concerns_one(&error) => {
                    self.worker.tally.accept_error(AcceptTrouble::Gone);
                }
                Some(error) => {
                    self.worker.tally.accept_error(AcceptTrouble::Listener);
                    let text = format!("listener {} cannot accept", self.board.name);
                    return Err(Error::because(Kind::Accept, text, error));
                }
            }
        }
    }

    /// Accepts until there is trouble; each success ends the wait after earlier ones.
    async fn accept_all(&self, wait: &mut Wait) -> io::Error {
        loop {
            match self.accept().await {
                Ok(()) => *wait = Wait::default(),
                Err(error) => return error,
            }
        }
    }

    /// Waits for room and a connection, and puts it into service.
    async fn accept(&self) -> io::Result<()> {
        while !self.worker.shared.has_room() {
            self.worker.shared.room.notified().await;
        }
        let (socket, peer) = std::future::poll_fn(|cx| self.poll_accept(cx)).await?;
        self.admit(socket, peer);
        // Another acceptor may wait for room that is there.
        if self.worker.shared.limits.connections.is_some() && self.worker.shared.has_room() {
            self.worker.shared.room.notify_one();
        }
        Ok(())
    }

    /// Takes everything that is in the queue, then closes. Room or not: these are connected.
    async fn empty_queue(self) -> Result<(), Error> {
        loop {
            let next = std::future::poll_fn(|cx| match self.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                Poll::Pending => Poll::Ready(None),
            });
            match next.await {
                Some(Ok((socket, peer))) => self.admit(socket, peer),
                Some(Err(error)) if concerns_one(&error) => {}
                Some(Err(error)) if passes(&error) && self.make_room(&error) > 0 => {
                    tokio::task::yield_now().await;
                }
                Some(Err(error)) => {
                    let listener = &self.board.name;
                    tracing::warn!(listener, %error, "some queued connections are lost");
                    return Ok(());
                }
                None => {
                    if self.is_queue_empty() {
                        return Ok(());
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Asks the kernel, for the runtime may not have been told yet.
    fn is_queue_empty(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }

    /// A socket that was accepted is not registered with the runtime: whoever has to wait for it
    /// does that.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Bare, Address)>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = self.socket.poll_read_io(cx, |socket| {
            acceptfrom_with(socket, flags).map_err(Into::into)
        });
        accepted.map_ok(|(fd, peer)| {
            let unix = self.unix;
            (Bare { fd, unix }, address(peer))
        })
    }

    fn admit(&self, socket: Bare, peer: Address) {
        let local = match &self.local {
            Some(local) => local.clone(),
            None => match getsockname(&socket.fd) {
                Ok(local) => address(Some(local)),
                // The client was gone before it was accepted.
                Err(_) => return,
            },
        };
        let stream = Stream::new(socket);
        self.worker
            .accepted(stream, peer, local, &self.board.epoch());
    }

    /// Descriptors ran out: gives the longest idle connections up; how many.
    fn make_room(&self, error: &io::Error) -> usize {
        let out_of_descriptors = matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE)
        );
        if !out_of_descriptors {
            return 0;
        }
        let oldest = self.worker.lot.take_oldest(GIVE_UP);
        let count = oldest.len();
        for parked in oldest {
            crate::lot::dismiss(parked, &self.worker);
        }
        // Encrypted ones rest in tasks of their own, which must run to close them.
        count + self.worker.ledger.dismiss_oldest(GIVE_UP - count)
    }
}

/// How long to wait after the next error that passes.
#[derive(Debug)]
struct Wait(Duration);

impl Default for Wait {
    fn default() -> Self {
        Self(FIRST_WAIT)
    }
}

impl Wait {
    /// This time; the next time longer.
    fn again(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST_WAIT);
        now
    }
}

/// Waits for the order to stop; an order that cannot come any more is one.
async fn stopped(orders: &mut watch::Receiver<Accepting>) {
    drop(orders.wait_for(|order| *order != Accepting::Yes).await);
}

/// An address as the kernel tells it; that of an IPv4 client who came over an IPv6 socket is his own.
fn address(told: Option<SocketAddrAny>) -> Address {
    let Some(told) = told else {
        return Address::Unix(None);
    };
    if let Ok(tcp) = SocketAddr::try_from(told.clone()) {
        return Address::Tcp(SocketAddr::new(tcp.ip().to_canonical(), tcp.port()));
    }
    let unix = SocketAddrUnix::try_from(told).ok();
    let path = unix.and_then(|unix| {
        unix.path()
            .map(|path| OsStr::from_bytes(path.to_bytes()).into())
    });
    Address::Unix(path)
}

/// Whether waiting helps.
fn passes(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// What can be done about it, if there is more than to wait.
fn way_out(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "; raise the process's limit of open files (ulimit -n, LimitNOFILE=) to serve more"
        }
        Some(Errno::NFILE) => "; the system's limit of open files is reached (fs.file-max)",
        _ => "",
    }
}

/// Whether it is the trouble of one connection, which is gone (`accept(2)`, "Error handling").
fn concerns_one(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::OPNOTSUPP
                | Errno::TIMEDOUT
        )
    )
}

#[cfg(test)]
mod tests {
    use super::{Wait, concerns_one, passes};
    use rustix::io::Errno;
    use std::io;

    #[tokio::test]
    async fn accepted_sockets_inherit_nodelay() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        socket2::SockRef::from(&listener)
            .set_tcp_nodelay(true)
            .unwrap();
        let address = listener.local_addr().unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn waits_double_up_to_a_second() {
        let mut wait = Wait::default();
        let waits: Vec<_> = (0..10).map(|_| wait.again().as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    }

    #[test]
    fn errors_are_of_three_kinds() {
        for (errno, wait, one) in [
            (Errno::MFILE, true, false),
            (Errno::NFILE, true, false),
            (Errno::NOMEM, true, false),
            (Errno::CONNABORTED, false, true),
            (Errno::BADF, false, false),
            (Errno::INVAL, false, false),
        ] {
            let error = io::Error::from(errno);
            assert_eq!(
                (passes(&error), concerns_one(&error)),
                (wait, one),
                "{error}"
            );
        }
    }
}
