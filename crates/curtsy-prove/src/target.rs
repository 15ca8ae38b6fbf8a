//! Where the requests go: the addresses to connect to, the `Host` and the path to ask for.
//!
//! Names are resolved once, when the target is made: a run measures a server, not a resolver.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use http::Uri;
use rustls::pki_types::ServerName;

use crate::error::{Error, Kind};

/// The server and the resource that a plan asks for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    /// What goes into `Host` (and, over TLS, into the server name).
    pub(crate) authority: String,
    /// Path and query, beginning with `/`.
    pub(crate) path: String,
    /// The name to expect in the server's certificate; `None` without TLS.
    pub(crate) tls_name: Option<ServerName<'static>>,
}

/// What to connect to.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// Tried in this order until one answers.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::new(Kind::Target, format!("{url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("write http://HOST[:PORT]/PATH, or https")),
        };
        let authority = uri.authority().ok_or_else(|| bad("no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("user names in URLs are not supported"));
        }
        let host = authority.host();
        let port = authority
            .port_u16()
            .unwrap_or(if is_tls { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tls_name = is_tls
            .then(|| ServerName::try_from(bare.to_owned()))
            .transpose()
            .map_err(|_| bad("the host is no name for a certificate"))?;
        let addresses: Vec<SocketAddr> = (bare, port)
            .to_socket_addrs()
            .map_err(|e| Error::with_source(Kind::Target, format!("{host}: {e}"), e))?
            .collect();
        if addresses.is_empty() {
            return Err(bad("the name has no address"));
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Self {
            endpoint: Endpoint::Tcp(addresses),
            authority: authority.as_str().to_owned(),
            path: absolute(path),
            tls_name,
        })
    }

    pub(crate) fn at_address(address: SocketAddr, path: &str) -> Self {
        Self {
            endpoint: Endpoint::Tcp(vec![address]),
            authority: address.to_string(),
            path: absolute(path),
            tls_name: None,
        }
    }

    pub(crate) fn at_unix(socket: &Path, path: &str) -> Self {
        Self {
            endpoint: Endpoint::Unix(socket.to_owned()),
            authority: "localhost".to_owned(),
            path: absolute(path),
            tls_name: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp(_) => {
                let s = if self.tls_name.is_some() { "s" } else { "" };
                write!(f, "http{s}://{}{}", self.authority, self.path)
            }
            Endpoint::Unix(socket) => write!(f, "unix:{}:{}", socket.display(), self.path),
        }
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_addresses_host_and_path() {
        let t = Target::parse("http://127.0.0.1:9000/slow?ms=5").expect("a good URL");
        assert!(
            matches!(&t.endpoint, Endpoint::Tcp(a) if a[..] == ["127.0.0.1:9000".parse().expect("address")])
        );
        assert_eq!(t.authority, "127.0.0.1:9000");
        assert_eq!(t.path, "/slow?ms=5");
        assert_eq!(t.to_string(), "http://127.0.0.1:9000/slow?ms=5");

        let t = Target::parse("https://127.0.0.1/x").expect("a good URL");
        assert!(
            matches!(&t.endpoint, Endpoint::Tcp(a) if a[..] == ["127.0.0.1:443".parse().expect("address")])
        );
        assert!(t.tls_name.is_some());
        assert_eq!(t.to_string(), "https://127.0.0.1/x");

        let t = Target::parse("http://[::1]").expect("a good URL");
        assert!(
            matches!(&t.endpoint, Endpoint::Tcp(a) if a[..] == ["[::1]:80".parse().expect("address")])
        );
        assert_eq!(t.path, "/");
    }

    #[test]
    fn what_is_no_http_url_is_refused_with_its_reason() {
        for (url, why) in [
            ("ftp://127.0.0.1/", "write http://"),
            ("/only/a/path", "write http://"),
            ("http://", "URL"),
            ("http://me@127.0.0.1/", "user names"),
        ] {
            let error = Target::parse(url).expect_err(url);
            assert!(error.is_target());
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
    }
}
