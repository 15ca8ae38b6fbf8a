//! The PROXY protocol, versions 1 and 2: what a load balancer says of the client before the
//! client's own bytes.
//!
//! Pure: bytes in, addresses out. Whoever can connect can claim any address, so headers are taken
//! only from peers that were named. Deliberately absent: the type-length-values of version 2
//! (they are skipped), and datagrams.

use crate::error::{Error, Kind};
use curtsy_lifecycle::Address;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its end included, in bytes; as its specification says.
const LINE_MOST: usize = 107;
/// The longest header of version 2 that is taken, in bytes. Its specification allows 64 KiB;
/// addresses need 52, and what balancers add beside them a few hundred.
const HEADER_MOST: usize = 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The peers whose connections begin with a PROXY header.
///
/// ```
/// use curtsy_server::ProxyPeers;
///
/// let balancers = ProxyPeers::new(["10.1.0.0/16", "fd00::1"])?;
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyPeers {
    /// Networks: an address and how many of its leading bits count.
    networks: Vec<(IpAddr, u8)>,
    unix: bool,
}

impl ProxyPeers {
    /// Peers by address or network (`10.0.0.0/8`), or `unix` for all who come over a Unix socket.
    ///
    /// # Errors
    /// If one of them is neither.
    pub fn new<'a>(peers: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut named = Self::default();
        for peer in peers {
            if peer == "unix" {
                named.unix = true;
            } else {
                named.networks.push(network(peer)?);
            }
        }
        Ok(named)
    }

    pub(crate) fn contains(&self, peer: &Address) -> bool {
        let Some(ip) = peer.ip() else {
            return self.unix;
        };
        let ip = ip.to_canonical();
        self.networks
            .iter()
            .any(|(network, bits)| match (network, ip) {
                (IpAddr::V4(network), IpAddr::V4(ip)) => {
                    let shift = 32 - u32::from(*bits);
                    network.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
                }
                (IpAddr::V6(network), IpAddr::V6(ip)) => {
                    let shift = 128 - u32::from(*bits);
                    network.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
                }
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
            })
    }
}

fn network(text: &str) -> Result<(IpAddr, u8), Error> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits)),
        None => (text, None),
    };
    let parsed = ip.parse::<IpAddr>().ok().and_then(|ip| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok());
        bits.filter(|bits| *bits <= most).map(|bits| (ip, bits))
    });
    parsed.ok_or_else(|| {
        let text = format!("{text:?} is neither an address nor a network such as 10.0.0.0/8");
        Error::new(Kind::Address, text)
    })
}

/// What a connection's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// More of it must come.
    Incomplete,
    /// It takes so many bytes. Without addresses the socket's own hold.
    Complete {
        length: usize,
        addresses: Option<Carried>,
    },
    /// It is none.
    Bad,
}

/// The client's address and the one it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// Reads the header at the beginning of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Header {
    let begins = |with: &[u8]| {
        let both = bytes.len().min(with.len());
        bytes[..both] == with[..both]
    };
    if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(b"PROXY ") {
        line(bytes)
    } else {
        Header::Bad
    }
}

fn line(bytes: &[u8]) -> Header {
    let within = &bytes[..bytes.len().min(LINE_MOST)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() < LINE_MOST {
            true => Header::Incomplete,
            false => Header::Bad,
        };
    };
    let length = end + 2;
    let Ok(text) = std::str::from_utf8(&bytes[..end]) else {
        return Header::Bad;
    };
    let words: Vec<&str> = text.split(' ').collect();
    if let ["PROXY", "UNKNOWN", ..] = words.as_slice() {
        return Header::Complete {
            length,
            addresses: None,
        };
    }
    let addresses = match words.as_slice() {
        ["PROXY", "TCP4", client, server, from, to] => {
            carried::<Ipv4Addr>(client, server, from, to)
        }
        ["PROXY", "TCP6", client, server, from, to] => {
            carried::<Ipv6Addr>(client, server, from, to)
        }
        _ => None,
    };
    match addresses {
        Some(_) => Header::Complete { length, addresses },
        None => Header::Bad,
    }
}

fn carried<A>(client: &str, server: &str, from: &str, to: &str) -> Option<Carried>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let address = |ip: &str, port: &str| {
        let ip: IpAddr = ip.parse::<A>().ok()?.into();
        // `parse` alone would take a sign.
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = is_number.then(|| port.parse().ok()).flatten()?;
        Some(SocketAddr::new(ip, port))
    };
    Some(Carried {
        client: address(client, from)?,
        server: address(server, to)?,
    })
}

fn binary(bytes: &[u8]) -> Header {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Header::Incomplete;
    };
    let [.., command, family, high, low] = *head;
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_MOST || command >> 4 != 2 {
        return Header::Bad;
    }
    if bytes.len() < length {
        return Header::Incomplete;
    }
    let body = &rest[..length - 16];
    let addresses = match (command & 0xF, family) {
        // The balancer speaks for itself: a health check.
        (0, _) => None,
        (1, 0x11) => match body.split_first_chunk::<12>() {
            Some((body, _)) => Some(binary_v4(body)),
            None => return Header::Bad,
        },
        (1, 0x21) => match body.split_first_chunk::<36>() {
            Some((body, _)) => Some(binary_v6(body)),
            None => return Header::Bad,
        },
        // Unspecified, or a Unix socket's path: there is nothing to tell.
        (1, 0x00 | 0x31) => None,
        _ => return Header::Bad,
    };
    Header::Complete { length, addresses }
}

fn binary_v4(body: &[u8; 12]) -> Carried {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *body;
    let address = |ip: [u8; 4], port| {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), u16::from_be_bytes(port))
    };
    Carried {
        client: address([a, b, c, d], [i, j]),
        server: address([e, f, g, h], [k, l]),
    }
}

fn binary_v6(body: &[u8; 36]) -> Carried {
    let (ips, ports) = body.split_at(32);
    let address = |ip: &[u8], port: &[u8]| {
        let ip = <[u8; 16]>::try_from(ip).unwrap_or_default();
        let port = <[u8; 2]>::try_from(port).unwrap_or_default();
        SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), u16::from_be_bytes(port))
    };
    Carried {
        client: address(&ips[..16], &ports[..2]),
        server: address(&ips[16..], &ports[2..]),
    }
}

#[cfg(test)]
mod tests {
    use super::{Carried, HEADER_MOST, Header, LINE_MOST, ProxyPeers, SIGNATURE, parse};
    use curtsy_lifecycle::Address;
    use proptest::prelude::*;

    fn complete(length: usize, client: &str, server: &str) -> Header {
        Header::Complete {
            length,
            addresses: Some(Carried {
                client: client.parse().unwrap(),
                server: server.parse().unwrap(),
            }),
        }
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend(body);
        header
    }

    #[test]
    fn lines() {
        let v4 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET";
        assert_eq!(
            parse(v4),
            complete(v4.len() - 3, "192.0.2.1:56324", "192.0.2.2:443")
        );
        let v6 = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(parse(v6), complete(v6.len(), "[2001:db8::1]:1", "[::1]:2"));
        let unknown = b"PROXY UNKNOWN whatever\r\n";
        let length = unknown.len();
        let addresses = None;
        assert_eq!(parse(unknown), Header::Complete { length, addresses });
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"proxy TCP4",
        ] {
            assert_eq!(
                parse(bad),
                Header::Bad,
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
        let endless = vec![b'1'; LINE_MOST];
        let endless = [b"PROXY TCP4 ".as_slice(), &endless].concat();
        assert_eq!(parse(&endless[..LINE_MOST - 1]), Header::Incomplete);
        assert_eq!(parse(&endless[..LINE_MOST]), Header::Bad);
    }

    #[test]
    fn binary_headers() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 1, 187, 0xEE, 0, 0];
        let header = version_2(0x21, 0x11, &v4);
        assert_eq!(parse(&header), complete(31, "192.0.2.1:1", "192.0.2.2:443"));
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        assert_eq!(
            parse(&version_2(0x21, 0x21, &v6)),
            complete(52, "[::1]:3", "[::2]:4")
        );
        for (command, family) in [(0x20, 0), (0x20, 0x11), (0x21, 0), (0x21, 0x31)] {
            let addresses = None;
            let header = version_2(command, family, &[]);
            assert_eq!(
                parse(&header),
                Header::Complete {
                    length: 16,
                    addresses
                }
            );
        }
        for bad in [
            version_2(0x11, 0x11, &v4),
            version_2(0x22, 0x11, &v4),
            version_2(0x21, 0x12, &v4),
            version_2(0x21, 0x11, &v4[..11]),
            version_2(0x21, 0x21, &v6[..35]),
            version_2(0x20, 0, &[0; HEADER_MOST]),
        ] {
            assert_eq!(parse(&bad), Header::Bad);
        }
    }

    #[test]
    fn peers_are_addresses_networks_and_unix() {
        let peers = ProxyPeers::new(["10.0.0.0/8", "192.0.2.7", "fd00::/8", "unix"]).unwrap();
        let at = |ip: &str| Address::Tcp(std::net::SocketAddr::new(ip.parse().unwrap(), 1));
        for (ip, expected) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("::ffff:10.0.0.1", true),
        ] {
            assert_eq!(peers.contains(&at(ip)), expected, "{ip}");
        }
        assert!(peers.contains(&Address::Unix(None)));
        let everyone = ProxyPeers::new(["0.0.0.0/0"]).unwrap();
        assert!(everyone.contains(&at("1.2.3.4")) && !everyone.contains(&at("::1")));
        for bad in ["10.0.0.0/33", "host", "10.0.0.0/", "::/129"] {
            assert!(ProxyPeers::new([bad]).unwrap_err().is_address(), "{bad}");
        }
    }

    proptest! {
        /// Whatever comes, a verdict that was final stays so when more comes.
        #[test]
        fn more_bytes_change_no_verdict(
            kind in 0..3usize,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            more in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let begin = [&b""[..], b"PROXY TCP4 1.2.3.4 1.2.3.4 1 ", SIGNATURE][kind];
            let short = [begin, &bytes].concat();
            let long = [short.as_slice(), &more].concat();
            let verdict = parse(&short);
            if verdict != Header::Incomplete {
                prop_assert_eq!(parse(&long), verdict);
            }
            if let Header::Complete { length, .. } = verdict {
                prop_assert!(length <= short.len() && length <= HEADER_MOST);
            }
        }
    }
}
