//! What a process says of itself: the receiving end of the `sd_notify` protocol, one socket for each process.
//!
//! The socket has an abstract name, so that a program that changes its user, its root or its mounts still reaches it.
//! Such a name can be sent to by anybody on the machine: only the process itself, and what runs as the supervisor's own
//! user, is believed, by the kernel's word.
//!
//! One descriptor is taken: the end of a pair that a program sends which can hand over (`curtsy_handover::broker`).
//!
//! Deliberately absent: descriptors that a program wants kept, watchdogs, extended timeouts.

use curtsy_handover::broker::GREETING;
use curtsy_sys::clock::{self, Clock};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, UCred, recvmsg, sockopt};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as Plain};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Longer messages are cut: what is asked for is in the first lines.
const MESSAGE_BYTES: usize = 4096;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The ear for one process.
#[derive(Debug)]
pub(crate) struct Words {
    socket: UnixDatagram,
    name: String,
    said: Mutex<Said>,
    /// Its end of a pair, until it is asked for.
    pair: Mutex<Option<OwnedFd>>,
}

/// What it has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) is_ready: bool,
    pub(crate) errno: Option<i32>,
    pub(crate) status: Option<String>,
}

impl Words {
    pub(crate) fn new() -> io::Result<Self> {
        // The supervisor's number and a count are unique; the time keeps a name from being guessed and taken before.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = clock::now(Clock::Monotonic).subsec_nanos();
        let name = format!("curtsy-run/{}/{count}/{time}", std::process::id());
        let socket = Plain::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
            name,
            said: Mutex::default(),
            pair: Mutex::default(),
        })
    }

    /// As `NOTIFY_SOCKET` has it.
    pub(crate) fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// Everything that was said up to now, whether the runtime has seen it come or not.
    pub(crate) fn said(&self, process: u32) -> Said {
        // It ends by `WouldBlock`; another error would say that there is nothing to hear.
        while self.hear(process).is_ok() {}
        self.lock().clone()
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self, process: u32) {
        while !self.said(process).is_ready {
            if self.socket.readable().await.is_err() {
                return std::future::pending().await;
            }
            // Through the runtime, which thereby learns when there is nothing more.
            let hear = || self.hear(process);
            while self.socket.try_io(Interest::READABLE, hear).is_ok() {}
        }
    }

    /// Waits until it says that it can hand over, and how it is reached.
    pub(crate) async fn pair(&self, process: u32) -> OwnedFd {
        loop {
            self.said(process);
            let pair = self
                .pair
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(pair) = pair {
                return pair;
            }
            if self.socket.readable().await.is_err() {
                return std::future::pending().await;
            }
            // Through the runtime, as above.
            let hear = || self.hear(process);
            while self.socket.try_io(Interest::READABLE, hear).is_ok() {}
        }
    }

    fn hear(&self, process: u32) -> io::Result<()> {
        let mut bytes = [0; MESSAGE_BYTES];
        let (length, sender, pair) = receive(&self.socket, &mut bytes)?;
        let is_believed = sender.is_some_and(|sender| {
            u32::try_from(sender.pid.as_raw_nonzero().get()) == Ok(process)
                || sender.uid == rustix::process::geteuid()
        });
        if is_believed && &bytes[..length] == GREETING.as_bytes() {
            let mut found = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
            *found = pair;
        } else if is_believed {
            self.lock().add(&String::from_utf8_lossy(&bytes[..length]));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Received = (usize, Option<UCred>, Option<OwnedFd>);

fn receive(socket: &UnixDatagram, bytes: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut beside, flags)?;
    let (mut sender, mut pair) = (None, None);
    for message in beside.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
            // All but the last are closed as they come.
            RecvAncillaryMessage::ScmRights(fds) => pair = fds.last(),
            _ => {}
        }
    }
    Ok((received.bytes, sender, pair))
}

impl Said {
    fn add(&mut self, message: &str) {
        for line in message.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => self.is_ready = true,
                Some(("ERRNO", number)) => self.errno = number.parse().ok(),
                Some(("STATUS", status)) => self.status = Some(status.to_owned()),
                Some(_) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Said, Words};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn send(words: &Words, message: &str) {
        let address = words.address();
        let name = address.strip_prefix('@').unwrap();
        UnixDatagram::unbound()
            .unwrap()
            .send_to_addr(
                message.as_bytes(),
                &SocketAddr::from_abstract_name(name).unwrap(),
            )
            .unwrap();
    }

    #[tokio::test]
    async fn what_was_said_is_kept_together() {
        let words = Words::new().unwrap();
        assert_eq!(words.said(1), Said::default());
        send(&words, "STATUS=warming up\nMAINPID=7");
        assert_eq!(words.said(1).status.as_deref(), Some("warming up"));
        send(&words, "READY=0");
        assert!(!words.said(1).is_ready);
        send(&words, "READY=1\nSTATUS=a=b");
        words.ready(1).await;
        let said = words.said(1);
        assert_eq!(said.status.as_deref(), Some("a=b"));
        send(&words, "ERRNO=2");
        assert_eq!(words.said(1).errno, Some(2));
    }
}
