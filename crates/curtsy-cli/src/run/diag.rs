//! Which socket is the other end of a connection: one question to the kernel's `sock_diag`, however many connections there
//! are. Reading `/proc/net/tcp` takes a tenth of a second and more on a busy machine; it is the way out where there is no
//! `sock_diag` (some sandboxes).
//!
//! Deliberately absent: everything but the inode of a TCP connection whose two ends are known.

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with, sockopt};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// `SOCK_DIAG_BY_FAMILY`, for question and answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
const HEAD_BYTES: u32 = 16;
const QUESTION_BYTES: u32 = 56;
/// The answer's head, then family, state, timer and retries (4), the ends (48), expiry, two queues, user: the inode.
const INODE_AT: usize = 16 + 4 + 48 + 4 * 4;
/// After the answer's head and the family.
const STATE_AT: usize = 16 + 1;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;
/// The kernel answers at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// The inode of the connection with these ends (its own first): 0 while nobody has accepted it, `None` if there is none.
pub(crate) fn inode(own: SocketAddr, peer: SocketAddr) -> Option<u64> {
    match ask(own, peer) {
        Ok(found) => found,
        Err(_) => read(own, peer),
    }
}

fn ask(own: SocketAddr, peer: SocketAddr) -> io::Result<Option<u64>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &question(own, peer), SendFlags::empty(), &kernel)?;
    let mut answer = [0; 1024];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    understand(&answer[..length]).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn question(own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((HEAD_BYTES + QUESTION_BYTES).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // Count and sender: one question, and the kernel knows whose.
    bytes.extend([0; 8]);
    let family = match own {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    // Both families' numbers fit into a byte, as the kernel has them.
    bytes.push(family.as_raw().to_le_bytes()[0]);
    // IPPROTO_TCP, no extensions, padding; every state.
    bytes.extend([6, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(own.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    for address in [own, peer] {
        let mut words = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => words[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => words = ip.octets(),
        }
        bytes.extend(words);
    }
    // Any interface, any cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

/// The inode, or that there is no such connection; `None` for an answer that is neither.
fn understand(answer: &[u8]) -> Option<Option<u64>> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    match half(4)? {
        // A listener answers for a connection that is not there.
        BY_FAMILY if answer.get(STATE_AT) == Some(&LISTEN) => Some(None),
        BY_FAMILY => Some(Some(u64::from(word(INODE_AT)?))),
        // -ENOENT: it is a number with its sign turned.
        ERROR
            if word(16)?
                == rustix::io::Errno::NOENT
                    .raw_os_error()
                    .unsigned_abs()
                    .wrapping_neg() =>
        {
            Some(None)
        }
        _ => None,
    }
}

/// The same from `/proc`.
fn read(own: SocketAddr, peer: SocketAddr) -> Option<u64> {
    // An IPv6 socket accepts IPv4 connections, too, and has them in its own table. A machine without IPv6 has none.
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|text| {
            text.lines()
                .skip(1)
                .filter_map(connection)
                .find(|(a, b, _)| (*a, *b) == (own, peer))
                .map(|(_, _, inode)| inode)
        })
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

#[cfg(test)]
mod tests {
    use super::{ask, connection, read};
    use std::net::{SocketAddr, TcpListener, TcpStream};

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
    fn the_kernel_and_the_table_agree() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                println!("SKIPPED: no {address} here");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let ip = match address {
                "[::1]:0" => "[::1]",
                // By IPv4, to a socket of IPv6 in the last case.
                _ => "127.0.0.1",
            };
            let to: SocketAddr = format!("{ip}:{port}").parse().unwrap();
            let client = TcpStream::connect(to).unwrap();
            let (own, peer) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!(read(own, peer), Some(0), "{address}");
            let _held = listener.accept().unwrap();
            let inode = read(own, peer).unwrap();
            assert_ne!(inode, 0, "{address}");
            match ask(own, peer) {
                Ok(found) => assert_eq!(found, Some(inode), "{address}"),
                Err(error) => println!("SKIPPED: no sock_diag here: {error}"),
            }
            let nobody = SocketAddr::new(peer.ip(), 1);
            assert_eq!(read(own, nobody), None);
            assert!(matches!(ask(own, nobody), Ok(None) | Err(_)), "{address}");
        }
    }
}
