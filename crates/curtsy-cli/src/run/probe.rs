//! Whether it is the new process that answers.
//!
//! During a reload the old and the new generation accept from one socket, so that an answer alone proves nothing: it may be
//! the old one's. A probe counts only when the new process, or one that it started, *holds the server's end of the very
//! connection*, which the kernel and `/proc` tell: the connection's inode is among its descriptors.
//!
//! To be ready to accept is seen sooner: the new process, or one that it started, has the listening socket in an epoll set
//! (which the kernel tells of its own accord, in `fdinfo`). Under a load that keeps the old process awake it may win the
//! race for one probe after the other.
//!
//! Deliberately absent: Unix sockets, whose two ends have no addresses to ask by; TLS.

use super::diag::inode;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The pause between two probes.
const PAUSE: Duration = Duration::from_millis(20);
/// The time for one; whoever was asked may have other things to do, and the next probe may reach another process.
const ONE: Duration = Duration::from_secs(1);
/// How much of an answer's beginning is read.
const HEAD_BYTES: usize = 1024;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// To be accepted, or waited for.
    Accept,
    /// A GET of this path, to be answered with 200 to 299.
    Get(String),
}

/// The socket that the process is to accept from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) inode: u64,
}

/// Waits until the process answers.
pub(crate) async fn answered(process: u32, door: Door, question: &Question) {
    let address = reachable(door.address);
    loop {
        if *question == Question::Accept && watches(process, door.inode) {
            return;
        }
        // Any failure means: not yet.
        if let Ok(Ok(true)) = timeout(ONE, ask(process, address, question)).await {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Where a listener on every address is found.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listener.port())
}

async fn ask(process: u32, address: SocketAddr, question: &Question) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let ends = (stream.peer_addr()?, stream.local_addr()?);
    match question {
        Question::Get(path) => {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut answer = [0; HEAD_BYTES];
            let mut length = 0;
            while !answer[..length].contains(&b'\n') {
                match stream.read(&mut answer[length..]).await? {
                    0 => return Ok(false),
                    n => length += n,
                }
            }
            Ok(is_success(&answer[..length]) && holds(process, ends))
        }
        Question::Accept => loop {
            match inode(ends.0, ends.1) {
                // Queued, and nobody's yet.
                Some(0) => sleep(PAUSE / 4).await,
                Some(inode) => return Ok(is_held(process, inode)),
                None => return Ok(false),
            }
        },
    }
}

fn is_success(answer: &[u8]) -> bool {
    let status = answer
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(1..))
        .and_then(|rest| rest.strip_prefix(b" 2"));
    status.is_some()
}

fn holds(process: u32, (own, peer): (SocketAddr, SocketAddr)) -> bool {
    inode(own, peer).is_some_and(|inode| inode != 0 && is_held(process, inode))
}

/// Whether the process or one that descends from it has the socket.
fn is_held(process: u32, inode: u64) -> bool {
    let link = format!("socket:[{inode}]");
    family(process).into_iter().any(|member| {
        // One that is gone, or is not ours to look at, does not hold it as far as anybody can tell.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{member}/fd")) else {
            return false;
        };
        descriptors.flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == link.as_str())
        })
    })
}

/// Whether the process or one that descends from it has the socket in an epoll set.
fn watches(process: u32, inode: u64) -> bool {
    let watched = format!(" ino:{inode:x} ");
    family(process).into_iter().any(|member| {
        let Ok(sets) = fs::read_dir(format!("/proc/{member}/fdinfo")) else {
            return false;
        };
        sets.flatten().any(|entry| {
            fs::read_to_string(entry.path()).is_ok_and(|info| {
                let mut lines = info.lines().filter(|line| line.starts_with("tfd:"));
                lines.any(|line| line.contains(&watched))
            })
        })
    })
}

/// The process and everything that descends from it.
fn family(process: u32) -> HashSet<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        // The name, in parentheses, may hold anything; after it come the state and the parent.
        let parent = fs::read_to_string(entry.path().join("stat"))
            .ok()
            .and_then(|stat| {
                let (_, rest) = stat.rsplit_once(") ")?;
                rest.split(' ').nth(1)?.parse::<u32>().ok()
            });
        if let Some(parent) = parent {
            parents.push((pid, parent));
        }
    }
    let mut family = HashSet::from([process]);
    loop {
        let before = family.len();
        for (pid, parent) in &parents {
            if family.contains(parent) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Question, ask, family, is_success, watches};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[test]
    fn success_is_two_hundred_and_something() {
        assert!(is_success(b"HTTP/1.1 204 No Content\r\n"));
        assert!(is_success(b"HTTP/1.0 200 OK\r\n"));
        assert!(!is_success(b"HTTP/1.1 503 Not yet\r\n"));
        assert!(!is_success(b"nonsense 200\r\n"));
    }

    #[tokio::test]
    async fn a_socket_in_an_epoll_set_is_seen() {
        let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = format!("/proc/self/fd/{}", plain.as_raw_fd());
        let inode = std::fs::metadata(own).unwrap().ino();
        let us = std::process::id();
        assert!(!watches(us, inode), "only bound");
        plain.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(plain).unwrap();
        assert!(watches(us, inode), "the runtime watches it");
        assert!(!watches(u32::MAX, inode));
        drop(listener);
        assert!(!watches(us, inode));
    }

    #[tokio::test]
    async fn only_who_holds_the_connection_counts() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                println!("SKIPPED: no {address} here");
                continue;
            };
            let address = super::reachable(listener.local_addr().unwrap());
            let us = std::process::id();
            let accept = async {
                let mut held = Vec::new();
                loop {
                    held.push(listener.accept().await.unwrap());
                }
            };
            let asking = async {
                assert!(ask(us, address, &Question::Accept).await.unwrap());
                // Nobody descends from a number that is not in use.
                assert!(!ask(u32::MAX, address, &Question::Accept).await.unwrap());
            };
            tokio::select! {
                () = asking => {}
                () = accept => {}
            }
            // Queued is not accepted.
            let queued = ask(us, address, &Question::Accept);
            let answer = tokio::time::timeout(Duration::from_millis(100), queued).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        assert!(family(1).contains(&std::process::id()) || std::process::id() == 1);
    }
}
