//! A supervisor between two generations that it started: how a process finds it, and what they say to each other.
//!
//! The supervisor sets [`VARIABLE`] for what it starts. A process that speaks this protocol makes a pair of sockets and
//! sends one end to `NOTIFY_SOCKET`, so that a program that does not speak it inherits nothing it does not know. Over the
//! pair the supervisor says which part the process has ([`Role`]), asks the old one to give ([`Word::Give`]), and tells
//! the new one when it is the service ([`Word::Bake`]). The handover itself goes directly from one to the other. A process
//! that wants to be restarted asks for it ([`Word::Wish`]), and hears how that went: only the supervisor can tell a process
//! that makes room for the next from one that ended.
//!
//! Invariants
//! - Nobody is offered a channel who has not said that he speaks this protocol.
//! - The new process proves itself to the supervisor, and not by living for a while: what is ready is the supervisor's to
//!   judge.
//!
//! Deliberately absent: what a reload is. A wish is one more of those that the supervisor gets from elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use curtsy_sys::watched::{Interest, Watched};
use curtsy_sys::{scm, seqpacket};

use crate::env::Start;

/// The variable that says who supervises, and which generation the process is.
pub const VARIABLE: &str = "CURTSY_RUN";

/// What a process says, with one end of its pair, to whoever listens at `NOTIFY_SOCKET`.
pub const GREETING: &str = "CURTSY_RUN=1";

/// One end of the pair between a supervisor and a process of its.
#[derive(Debug)]
pub struct Broker {
    socket: Watched,
}

/// What is said.
#[derive(Debug)]
pub enum Word {
    /// To a new process: there is nobody to take over from; it is of this generation.
    First(u32),
    /// To a new process: take over through this channel, as this generation.
    Take(u32, OwnedFd),
    /// To the old process: give to the process of this number, held by the second descriptor, through the first.
    Give(u32, OwnedFd, OwnedFd),
    /// To the new process: it is the service now.
    Bake,
    /// From the old process: the new one accepts, and this one does not.
    Given,
    /// From the old process: it gave nothing, and why. To a process that wished: there is no new generation, and why.
    Kept(String),
    /// From a process: it wants to be restarted.
    Wish,
    /// To a process that wished: this generation serves.
    Serves(u32),
}

/// Which part a new process has.
#[derive(Debug)]
pub enum Role {
    /// There is nobody to take over from.
    First {
        /// Its generation.
        generation: u32,
    },
    /// It is an heir.
    Heir {
        /// Its generation.
        generation: u32,
        /// Where its donor is.
        channel: OwnedFd,
    },
}

impl Broker {
    /// Finds the supervisor of this process; `None` if it has none that brokers.
    ///
    /// # Errors
    /// When it has one that cannot be reached.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn find(start: &Start) -> io::Result<Option<Self>> {
        if supervisor(start).is_none() {
            return Ok(None);
        }
        let name = variable(start, "NOTIFY_SOCKET").and_then(|name| name.strip_prefix('@'));
        let Some(name) = name else {
            return Ok(None);
        };
        let (ours, theirs) = seqpacket::pair()?;
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        scm::send(&socket, GREETING.as_bytes(), &[theirs.as_fd()])?;
        Self::over(ours).map(Some)
    }

    /// The variable for a process that this one starts.
    #[must_use]
    pub fn variable() -> (std::ffi::OsString, std::ffi::OsString) {
        let us = std::process::id();
        (VARIABLE.into(), format!("parent={us}").into())
    }

    /// Over one end of a pair.
    ///
    /// # Errors
    /// When it cannot be watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn over(socket: OwnedFd) -> io::Result<Self> {
        let socket = Watched::new(socket, Interest::READABLE)?;
        Ok(Self { socket })
    }

    /// Waits to be told which part this process has. A supervisor that does not say so in time is taken for one that
    /// has nobody to take over from.
    ///
    /// # Errors
    /// When the supervisor is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn role(&self) -> io::Result<Role> {
        let Ok(word) = tokio::time::timeout(ROLE_WAIT, self.next()).await else {
            return Ok(Role::First { generation: 0 });
        };
        match word? {
            Word::First(generation) => Ok(Role::First { generation }),
            Word::Take(generation, channel) => Ok(Role::Heir {
                generation,
                channel,
            }),
            Word::Give(..)
            | Word::Bake
            | Word::Given
            | Word::Kept(_)
            | Word::Wish
            | Word::Serves(_) => Err(io::Error::other("the supervisor makes no sense")),
        }
    }

    /// What is said next.
    ///
    /// # Errors
    /// At the end, and for what is no word.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&self) -> io::Result<Word> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(heard) = ready.try_io(|socket| Word::receive(socket.get_ref())) {
                return heard;
            }
        }
    }

    /// Says something. It is short and rare, so that there is always room.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        let (text, fds) = word.write();
        let end = text.floor_char_boundary(WORD_BYTES);
        scm::send(&self.socket, &text.as_bytes()[..end], &fds)
    }
}

impl Word {
    fn write(&self) -> (String, Vec<BorrowedFd<'_>>) {
        match self {
            Self::First(generation) => (format!("first {generation}"), vec![]),
            Self::Take(generation, channel) => {
                (format!("take {generation}"), vec![channel.as_fd()])
            }
            Self::Give(pid, channel, process) => (
                format!("give {pid}"),
                vec![channel.as_fd(), process.as_fd()],
            ),
            Self::Bake => ("bake 0".to_owned(), vec![]),
            Self::Given => ("given 0".to_owned(), vec![]),
            Self::Kept(why) => (format!("kept {why}"), vec![]),
            Self::Wish => ("wish 0".to_owned(), vec![]),
            Self::Serves(generation) => (format!("serves {generation}"), vec![]),
        }
    }

    fn receive(socket: &OwnedFd) -> io::Result<Self> {
        let mut buffer = [0; WORD_BYTES];
        let received = scm::recv(socket, &mut buffer)?;
        match received.len {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Self::read(&buffer[..length], received.fds),
        }
    }

    fn read(text: &[u8], fds: Vec<OwnedFd>) -> io::Result<Self> {
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "no word of a broker");
        let text = String::from_utf8_lossy(text);
        let (word, rest) = text.split_once(' ').ok_or_else(nonsense)?;
        let number = || rest.parse::<u32>().map_err(|_| nonsense());
        let mut fds = fds.into_iter();
        let mut fd = || fds.next().ok_or_else(nonsense);
        Ok(match word {
            "first" => Self::First(number()?),
            "take" => Self::Take(number()?, fd()?),
            "give" => Self::Give(number()?, fd()?, fd()?),
            "bake" => Self::Bake,
            "given" => Self::Given,
            "kept" => Self::Kept(rest.to_owned()),
            "wish" => Self::Wish,
            "serves" => Self::Serves(number()?),
            _ => return Err(nonsense()),
        })
    }
}

/// Whether a supervisor started this process, which may keep others of the same program: beside it, or its successor before
/// it has ended.
#[must_use]
pub fn is_supervised(start: &Start) -> bool {
    supervisor(start).is_some()
}

/// The number of the supervisor that started this process, if one did.
pub(crate) fn supervisor(start: &Start) -> Option<u32> {
    let parent = variable(start, VARIABLE)?.strip_prefix("parent=")?;
    // A child of the supervised program has the variable, too, and another parent.
    let parent = parent.parse().ok()?;
    (Some(parent) == start.parent).then_some(parent)
}

fn variable<'a>(start: &'a Start, wanted: &str) -> Option<&'a str> {
    let found = start.vars.iter().find(|(name, _)| name == wanted);
    found.and_then(|(_, value)| value.to_str())
}

/// Longer than any word but a reason, which is cut.
const WORD_BYTES: usize = 4096;

/// A supervisor answers at once, if it is not as busy as a machine can be.
const ROLE_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_arrive_as_they_were_said() {
        let (a, b) = seqpacket::pair().unwrap();
        let (supervisor, process) = (Broker::over(a).unwrap(), Broker::over(b).unwrap());
        let (c, d) = seqpacket::pair().unwrap();
        supervisor.say(&Word::First(3)).unwrap();
        assert!(matches!(
            process.role().await.unwrap(),
            Role::First { generation: 3 }
        ));
        supervisor
            .say(&Word::Take(4, seqpacket::duplicate(&c).unwrap()))
            .unwrap();
        let role = process.role().await.unwrap();
        assert!(matches!(role, Role::Heir { generation: 4, .. }));
        supervisor.say(&Word::Give(77, c, d)).unwrap();
        assert!(matches!(
            process.next().await.unwrap(),
            Word::Give(77, _, _)
        ));
        supervisor.say(&Word::Bake).unwrap();
        assert!(process.role().await.is_err());
        process.say(&Word::Given).unwrap();
        process.say(&Word::Kept("because".repeat(2000))).unwrap();
        assert!(matches!(supervisor.next().await.unwrap(), Word::Given));
        let Word::Kept(why) = supervisor.next().await.unwrap() else {
            panic!("another word");
        };
        assert!(why.starts_with("becausebecause"));
        drop(process);
        assert!(supervisor.next().await.is_err());
        assert!(Word::read(b"nonsense", vec![]).is_err());
        assert!(Word::read(b"take 1", vec![]).is_err());
    }

    #[tokio::test]
    async fn a_process_finds_its_own_supervisor_only() {
        let name = format!("curtsy-broker-test/{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let start = |parent: u32| {
            let vars = vec![
                (VARIABLE.into(), "parent=77".into()),
                ("NOTIFY_SOCKET".into(), format!("@{name}").into()),
            ];
            Start::from_parts(vec![], vars, None, Some(parent))
        };
        assert_eq!(super::supervisor(&start(78)), None);
        assert_eq!(super::supervisor(&start(77)), Some(77));
        assert!(Broker::find(&start(78)).unwrap().is_none());
        let process = Broker::find(&start(77)).unwrap().unwrap();
        let mut buffer = [0; 64];
        let mut greeting = scm::recv(&manager, &mut buffer).unwrap();
        assert_eq!(&buffer[..greeting.len], GREETING.as_bytes());
        let supervisor = Broker::over(greeting.fds.pop().unwrap()).unwrap();
        supervisor.say(&Word::Bake).unwrap();
        assert!(matches!(process.next().await.unwrap(), Word::Bake));
    }
}
