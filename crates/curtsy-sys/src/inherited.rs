//! Descriptors that a service manager handed to this process (`sd_listen_fds(3)`).
//!
//! Invariant: each descriptor is taken at most once in a process's life, so that nobody owns what
//! another has closed.

use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use std::fmt;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first inherited descriptor, by the protocol.
const FIRST: RawFd = 3;
/// More than this is a mistake, not a configuration.
const MOST: usize = 1024;

/// An inherited descriptor and its name (`LISTEN_FDNAMES`), `unknown` if it has none.
#[derive(Debug)]
pub struct Inherited {
    /// The name, as the service manager gave it.
    pub name: String,
    /// The descriptor, closed on exec.
    pub fd: OwnedFd,
}

/// Why the inherited descriptors cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `LISTEN_FDS` is not a number from 0 to 1024.
    Count(String),
    /// `LISTEN_FDNAMES` does not have as many names as there are descriptors.
    Names {
        /// How many names there are.
        names: usize,
        /// How many descriptors there are.
        count: usize,
    },
    /// The descriptor is not open, or is not a socket.
    NotASocket(RawFd),
    /// They were taken before.
    Taken,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(text) => write!(f, "LISTEN_FDS is {text:?}, not a number up to {MOST}"),
            Self::Names { names, count } => write!(
                f,
                "LISTEN_FDNAMES has {names} names for {count} descriptors"
            ),
            Self::NotASocket(fd) => write!(f, "inherited descriptor {fd} is not a socket"),
            Self::Taken => f.write_str("the inherited descriptors were taken before"),
        }
    }
}

impl std::error::Error for Refusal {}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the descriptors that `LISTEN_FDS` promises to this process; none if `LISTEN_PID` names
/// another process or the variables are not set.
///
/// The variables stay in the environment; a child that this process starts has another pid than
/// `LISTEN_PID` and ignores them.
///
/// # Errors
/// See [`Refusal`]. After an error nothing was taken.
pub fn take() -> Result<Vec<Inherited>, Refusal> {
    let promised = promised_here()?;
    if promised.is_empty() {
        return Ok(Vec::new());
    }
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(Refusal::Taken);
    }
    let taken = adopt(promised);
    if taken.is_err() {
        TAKEN.store(false, Ordering::Release);
    }
    taken
}

/// How many descriptors are promised to this process and were not taken; 0 if the promise is broken.
pub fn untaken() -> usize {
    match TAKEN.load(Ordering::Acquire) {
        true => 0,
        false => promised_here().map_or(0, |promised| promised.len()),
    }
}

fn promised_here() -> Result<Vec<(String, RawFd)>, Refusal> {
    let variable = |name: &str| std::env::var(name).ok();
    promised(
        std::process::id(),
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
    )
}

fn adopt(promised: Vec<(String, RawFd)>) -> Result<Vec<Inherited>, Refusal> {
    for (_, number) in &promised {
        // SAFETY: the descriptor is only looked at, and only during this loop body; if it is not
        // open, `fstat` says so.
        let fd = unsafe { BorrowedFd::borrow_raw(*number) };
        let is_socket =
            fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
        if !is_socket {
            return Err(Refusal::NotASocket(*number));
        }
    }
    Ok(promised
        .into_iter()
        .map(|(name, number)| {
            // SAFETY: the service manager opened it for this process and for nobody else, it was
            // just seen to be an open socket, and `TAKEN` lets this line run once.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            if let Ok(flags) = fcntl_getfd(&fd) {
                // Failing to set it would only mean that a child inherits the socket too.
                let _ = fcntl_setfd(&fd, flags | FdFlags::CLOEXEC);
            }
            Inherited { name, fd }
        })
        .collect())
}

fn promised(
    pid: u32,
    listen_pid: Option<&str>,
    fds: Option<&str>,
    names: Option<&str>,
) -> Result<Vec<(String, RawFd)>, Refusal> {
    let (Some(listen_pid), Some(fds)) = (listen_pid, fds) else {
        return Ok(Vec::new());
    };
    if listen_pid.parse() != Ok(pid) {
        return Ok(Vec::new());
    }
    let count = fds
        .parse::<usize>()
        .ok()
        .filter(|count| *count <= MOST)
        .ok_or_else(|| Refusal::Count(fds.to_owned()))?;
    let names: Vec<&str> = match names {
        Some(names) if !names.is_empty() => names.split(':').collect(),
        Some(_) | None => vec!["unknown"; count],
    };
    if names.len() != count {
        return Err(Refusal::Names {
            names: names.len(),
            count,
        });
    }
    Ok(names.into_iter().map(str::to_owned).zip(FIRST..).collect())
}

#[cfg(test)]
mod tests {
    use super::{Refusal, promised};

    #[test]
    fn only_what_is_meant_for_this_process() {
        assert_eq!(promised(7, None, Some("2"), None), Ok(vec![]));
        assert_eq!(promised(7, Some("8"), Some("2"), None), Ok(vec![]));
        assert_eq!(promised(7, Some("7"), None, None), Ok(vec![]));
        assert_eq!(
            promised(7, Some("7"), Some("2"), None),
            Ok(vec![("unknown".into(), 3), ("unknown".into(), 4)])
        );
        assert_eq!(
            promised(7, Some("7"), Some("2"), Some("http:admin")),
            Ok(vec![("http".into(), 3), ("admin".into(), 4)])
        );
    }

    #[test]
    fn broken_promises_are_named() {
        assert_eq!(
            promised(7, Some("7"), Some("x"), None),
            Err(Refusal::Count("x".into()))
        );
        assert_eq!(
            promised(7, Some("7"), Some("99999"), None),
            Err(Refusal::Count("99999".into()))
        );
        assert_eq!(
            promised(7, Some("7"), Some("2"), Some("a:b:c")),
            Err(Refusal::Names { names: 3, count: 2 })
        );
    }
}
