//! Where to listen, as people write it.
//!
//! Deliberately absent: resolving while parsing. A name is looked up when it is bound.

use crate::error::{Error, Kind};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// A place to listen at.
///
/// | written | meaning |
/// |---|---|
/// | `127.0.0.1:9000`, `[::1]:9000` | that address and port |
/// | `:9000` | every address of the machine, IPv4 and IPv6 alike |
/// | `9000` | the same |
/// | `localhost:9000` | the first address the name resolves to |
/// | `:http`, `:https` | ports 80 and 443 |
/// | `unix:/run/app.sock`, `/run/app.sock` | a Unix socket |
/// | `unix:/run/app.sock?mode=660` | the same, with that file mode (octal) |
///
/// ```
/// use curtsy_server::ListenAddress;
///
/// let address: ListenAddress = ":9000".parse()?;
/// assert_eq!(address.to_string(), "[::]:9000");
/// assert!("localhost".parse::<ListenAddress>().is_err());
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and port.
    Tcp(SocketAddr),
    /// A name and port, resolved when bound.
    Name(String, u16),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// The file mode it gets; what the process's umask makes of 0777 if `None`.
        mode: Option<u32>,
    },
}

impl ListenAddress {
    /// Every address that it stands for.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        match self {
            Self::Tcp(address) => Ok(vec![*address]),
            Self::Unix { .. } => Ok(Vec::new()),
            Self::Name(name, port) => {
                let found = (name.as_str(), *port).to_socket_addrs().map_err(|e| {
                    Error::because(
                        Kind::Address,
                        format!("cannot listen on {self}: the name {name:?} does not resolve"),
                        e,
                    )
                })?;
                Ok(found.collect())
            }
        }
    }
}

/// What is wrong with a Unix socket's.
const NO_PATH: &str = "it has no path, or a mode that is not octal and from 0 to 777";

impl FromStr for ListenAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::new(
                Kind::Address,
                format!("cannot listen on {text:?}: {why}; write HOST:PORT, :PORT or unix:/PATH"),
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).ok_or_else(|| wrong(NO_PATH));
        }
        if text.starts_with('/') || text.starts_with("./") {
            return unix(text).ok_or_else(|| wrong(NO_PATH));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Tcp(address));
        }
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self::Tcp(everywhere(port)));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("it has no port"))?;
        let port = match port {
            "http" => 80,
            "https" => 443,
            number => number
                .parse()
                .map_err(|_| wrong("its port is not a number from 0 to 65535"))?,
        };
        match host {
            "" | "*" => Ok(Self::Tcp(everywhere(port))),
            name if name.contains([':', '[', ']', '/', ' ']) => {
                Err(wrong("its host is not a name or an address"))
            }
            name => Ok(name.parse::<IpAddr>().map_or_else(
                |_| Self::Name(name.to_owned(), port),
                |ip| Self::Tcp(SocketAddr::new(ip, port)),
            )),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl TryFrom<&str> for ListenAddress {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

fn unix(text: &str) -> Option<ListenAddress> {
    let (path, mode) = match text.split_once("?mode=") {
        Some((path, mode)) => (path, Some(u32::from_str_radix(mode, 8).ok()?)),
        None => (text, None),
    };
    if path.is_empty() || mode.is_some_and(|mode| mode > 0o777) {
        return None;
    }
    Some(ListenAddress::Unix {
        path: PathBuf::from(path),
        mode,
    })
}

#[cfg(test)]
mod tests {
    use super::ListenAddress;

    #[test]
    fn what_people_write() {
        for (text, expected) in [
            (":8080", "[::]:8080"),
            ("8080", "[::]:8080"),
            ("*:80", "[::]:80"),
            (":http", "[::]:80"),
            (":https", "[::]:443"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("localhost:9000", "localhost:9000"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("/run/a.sock", "unix:/run/a.sock"),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), expected, "{text}");
        }
        let with_mode: ListenAddress = "unix:/run/a.sock?mode=660".parse().unwrap();
        assert!(matches!(
            with_mode,
            ListenAddress::Unix {
                mode: Some(0o660),
                ..
            }
        ));
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, why) in [
            ("localhost", "no port"),
            ("localhost:99999", "port is not a number"),
            (":x", "port is not a number"),
            ("", "no port"),
            ("a b:80", "host is not a name"),
            ("http://x:80", "host is not a name"),
            ("unix:", "no path"),
            ("unix:/a?mode=9", "octal"),
            ("unix:/a?mode=7777", "octal"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.is_address());
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }
}
