//! Telling systemd (or whoever made the socket) how the service is: the `sd_notify` protocol.
//!
//! Ours, because the crates for it read `NOTIFY_SOCKET` from the environment at each call, and here the environment is
//! read once and passed on: an heir's messages must be testable without changing this process's environment.
//!
//! Invariant: without a socket everything here does nothing and succeeds.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::env::Start;
use curtsy_sys::clock::{self, Clock};

/// Where to tell.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    address: Option<SocketAddr>,
}

impl Notify {
    /// The service manager that this process was started by, if there is one.
    #[must_use]
    pub fn new(start: &Start) -> Self {
        let value = start
            .vars
            .iter()
            .find(|(name, _)| name == "NOTIFY_SOCKET")
            .map(|(_, value)| value);
        Self {
            address: value.and_then(|value| address(value)),
        }
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.address.is_some()
    }

    /// The service is up, or its reload is over.
    ///
    /// # Errors
    /// What the socket says.
    pub fn ready(&self) -> io::Result<()> {
        self.send("READY=1")
    }

    /// A reload begins. It must end with [`Notify::ready`] or [`Notify::main_pid`].
    ///
    /// # Errors
    /// What the socket says.
    pub fn reloading(&self) -> io::Result<()> {
        // Without the time, `Type=notify-reload` takes this for the news of an older reload.
        let micros = clock::now(Clock::Monotonic).as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"))
    }

    /// This process is the service from now on, and ready. The donor says it of its heir, because by default only the
    /// main process is listened to.
    ///
    /// # Errors
    /// What the socket says.
    pub fn main_pid(&self, pid: u32) -> io::Result<()> {
        self.send(&format!("MAINPID={pid}\nREADY=1"))
    }

    /// The service stops.
    ///
    /// # Errors
    /// What the socket says.
    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1")
    }

    /// A line for people.
    ///
    /// # Errors
    /// What the socket says.
    pub fn status(&self, status: &str) -> io::Result<()> {
        self.send(&format!("STATUS={}", status.replace('\n', " ")))
    }

    /// The service cannot start: the system's error number, and why for people.
    ///
    /// # Errors
    /// What the socket says.
    pub fn failed(&self, errno: i32, why: &str) -> io::Result<()> {
        self.send(&format!("ERRNO={errno}\nSTATUS={}", why.replace('\n', " ")))
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some(address) = &self.address else {
            return Ok(());
        };
        UnixDatagram::unbound()?
            .send_to_addr(message.as_bytes(), address)
            .map(|_| ())
    }
}

fn address(value: &OsStr) -> Option<SocketAddr> {
    match value.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(value).ok(),
        // `vsock:` and whatever else there may be.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(value: &str) -> Notify {
        let vars = vec![("NOTIFY_SOCKET".into(), value.into())];
        Notify::new(&Start::from_parts(vec![], vars, None, None))
    }

    #[test]
    fn a_reload_is_told_as_systemd_wants_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = notify(path.to_str().unwrap());
        assert!(notify.is_there());
        let heard = || {
            let mut buffer = [0; 256];
            let len = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..len].to_vec()).unwrap()
        };
        notify.reloading().unwrap();
        let reloading = heard();
        let time = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
        notify.main_pid(42).unwrap();
        assert_eq!(heard(), "MAINPID=42\nREADY=1");
        notify.status("two\nlines").unwrap();
        assert_eq!(heard(), "STATUS=two lines");
        notify.failed(2, "no such\nfile").unwrap();
        assert_eq!(heard(), "ERRNO=2\nSTATUS=no such file");
        notify.ready().unwrap();
        notify.stopping().unwrap();
        assert_eq!(
            (heard().as_str(), heard().as_str()),
            ("READY=1", "STOPPING=1")
        );
        drop(manager);
        std::fs::remove_file(&path).unwrap();
        assert!(notify.ready().is_err());
    }

    #[test]
    fn nobody_there_is_no_error() {
        assert!(!notify("vsock:1:2").is_there());
        Notify::default().ready().unwrap();
        assert!(notify("@abstract").is_there());
    }
}
