//! Whether it is the new process that answers.
//!
//! During a reload the old and the new generation accept from one socket, so that an answer alone proves nothing: it may be
//! the old one's. A probe counts only when the new process, or one that it started, *holds the server's end of the very
//! connection*, which `/proc` tells: the connection's inode is among its descriptors.
//!
//! Deliberately absent: Unix sockets, whose two ends `/proc` does not pair; TLS.

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
    /// To be accepted.
    Accept,
    /// A GET of this path, to be answered with 200 to 299.
    Get(String),
}

/// Waits until the process answers.
pub(crate) async fn answered(process: u32, listener: SocketAddr, question: &Question) {
    let address = reachable(listener);
    loop {
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
            Ok(is_success(&answer[..length]) && holds(process, ends)?)
        }
        Question::Accept => loop {
            match inode(ends)? {
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

fn holds(process: u32, ends: (SocketAddr, SocketAddr)) -> io::Result<bool> {
    Ok(inode(ends)?.is_some_and(|inode| inode != 0 && is_held(process, inode)))
}

/// The inode of the connection with these ends (its own first); 0 while it is not accepted.
fn inode((own, peer): (SocketAddr, SocketAddr)) -> io::Result<Option<u64>> {
    // An IPv6 socket accepts IPv4 connections, too, and has them in its own table.
    let tables = match own {
        SocketAddr::V4(_) => ["/proc/net/tcp", "/proc/net/tcp6"],
        SocketAddr::V6(_) => ["/proc/net/tcp6", "/proc/net/tcp"],
    };
    for table in tables {
        // A machine without IPv6 has no table of it.
        let Ok(text) = fs::read_to_string(table) else {
            continue;
        };
        let found = text
            .lines()
            .skip(1)
            .filter_map(connection)
            .find(|(a, b, _)| (*a, *b) == (own, peer));
        if let Some((_, _, inode)) = found {
            return Ok(Some(inode));
        }
    }
    Ok(None)
}

/// A line of the table: own end, peer's end, inode.
fn connection(line: &str) -> Option<(SocketAddr, SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let own = end(fields.nth(1)?)?;
    let peer = end(fields.next()?)?;
    let inode = fields.nth(6)?.parse().ok()?;
    Some((own, peer, inode))
}

/// `0100007F:2328`: words of 32 bits in the machine's order, then the port.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
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
    use super::{Question, ask, connection, family, is_success};
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = "   1: 0100007F:2328 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4242 1 0";
        if cfg!(target_endian = "little") {
            let (own, peer, inode) = connection(line).unwrap();
            assert_eq!(own, "127.0.0.1:9000".parse().unwrap());
            assert_eq!(peer, "127.0.0.1:54321".parse().unwrap());
            assert_eq!(inode, 4242);
        }
        assert_eq!(connection("garbage"), None);
    }

    #[test]
    fn success_is_two_hundred_and_something() {
        assert!(is_success(b"HTTP/1.1 204 No Content\r\n"));
        assert!(is_success(b"HTTP/1.0 200 OK\r\n"));
        assert!(!is_success(b"HTTP/1.1 503 Not yet\r\n"));
        assert!(!is_success(b"nonsense 200\r\n"));
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
