//! A process held by a descriptor (`pidfd`): its number cannot be reused under us, and its end is readable.
//!
//! A pidfd may be passed to another process: whoever holds it sees the end, only the parent gets the exit status.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
    /// It has ended, and the status went to somebody else (another waiter, or this process is not the parent).
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => write!(f, "an unknown status"),
        }
    }
}

/// Holds the process with this number.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid =
        pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process number"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Holds the calling process, to give to another one.
///
/// # Errors
/// What `pidfd_open(2)` says.
pub fn own() -> io::Result<OwnedFd> {
    Ok(pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?)
}

/// The parent's number, or `None` when it is in another pid namespace (or there is none).
#[must_use]
pub fn parent() -> Option<u32> {
    rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
}

/// Ends the process at once (`SIGKILL`). One that has ended already is no error.
///
/// # Errors
/// `EPERM`, when it runs as somebody else.
pub fn kill(pidfd: impl AsFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Ends and reaps a child that could not be held, so that it neither runs on unseen nor stays a zombie.
pub fn discard(child: u32) {
    if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
        // A child's number is not reused before it is reaped, and it is reaped here. There is nobody to tell of a failure.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

/// Whether the process has ended, without reaping it and without waiting.
#[must_use]
pub fn has_ended(pidfd: impl AsFd) -> bool {
    let mut interest = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(
            &mut interest,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(ready) => return ready > 0,
            Err(_) => return false,
        }
    }
}

/// Reaps the process if it has ended: `None` while it runs.
///
/// # Errors
/// What `waitid(2)` says, except that a child reaped by somebody else, or somebody else's, is [`Exit::Unknown`].
pub fn reap(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    if !has_ended(&pidfd) {
        return Ok(None);
    }
    loop {
        match waitid(
            WaitId::PidFd(pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(Some(Exit::Unknown)),
            Err(other) => return Err(other.into()),
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                let exit = status.exit_status().map(Exit::Status);
                return Ok(Some(
                    exit.or(status.terminating_signal().map(Exit::Signal))
                        .unwrap_or(Exit::Unknown),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(
        clippy::zombie_processes,
        reason = "reaped through its pidfd, which is the test"
    )]
    fn a_process_is_seen_running_killed_and_reaped_once() {
        let child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let held = open(child.id()).unwrap();
        assert!(!has_ended(&held));
        assert_eq!(reap(&held).unwrap(), None);
        kill(&held).unwrap();
        poll(
            &mut [PollFd::new(&held, PollFlags::IN)],
            Some(&Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            }),
        )
        .unwrap();
        assert_eq!(reap(&held).unwrap(), Some(Exit::Signal(9)));
        assert_eq!(reap(&held).unwrap(), Some(Exit::Unknown));
        kill(&held).unwrap();
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "reaped by what is tested")]
    fn a_discarded_child_is_no_zombie() {
        let child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        discard(child.id());
        assert_eq!(
            open(child.id()).unwrap_err().raw_os_error(),
            Some(libc::ESRCH)
        );
    }

    #[test]
    fn a_process_can_hold_itself_but_not_reap_itself() {
        let own = own().unwrap();
        assert!(!has_ended(&own));
        assert!(open(0).is_err());
        assert!(parent().is_some());
    }
}
