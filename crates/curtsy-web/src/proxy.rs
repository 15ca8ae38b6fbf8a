//! Who the client is: trusted proxies, and what their headers say.
//!
//! Invariants:
//! - A header is believed only if the peer is trusted, and in it only what stands left of trusted
//!   proxies' own addresses: from the right, the first address that is not trusted is the client.
//! - An entry that is no address ends the walk: nothing left of it can be believed.
//! - An IPv4 address mapped into IPv6 is that IPv4 address.

use crate::error::Error;
use http::{HeaderMap, HeaderName};
use std::net::IpAddr;

/// Headers by which platforms name the client, for
/// [`Settings::trusted_platform`](crate::Settings::trusted_platform).
///
/// ```
/// use curtsy_web::{Engine, platform};
///
/// let mut r = Engine::new();
/// r.settings_mut().trusted_platform = Some(platform::CLOUDFLARE);
/// ```
pub mod platform {
    use http::HeaderName;

    /// Google App Engine.
    pub const APP_ENGINE: HeaderName = HeaderName::from_static("x-appengine-remote-addr");
    /// Cloudflare.
    pub const CLOUDFLARE: HeaderName = HeaderName::from_static("cf-connecting-ip");
    /// Fly.io.
    pub const FLY: HeaderName = HeaderName::from_static("fly-client-ip");
}

/// The networks whose word is taken.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    networks: Vec<Network>,
    /// Nobody has said whom to trust.
    pub(crate) unset: bool,
}

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Proxies {
    /// Everybody: gin's default.
    pub(crate) fn everything() -> Self {
        let all = |address: IpAddr| Network { address, bits: 0 };
        Self {
            networks: vec![all([0; 4].into()), all([0_u16; 8].into())],
            unset: true,
        }
    }

    pub(crate) fn parse<'p>(entries: impl IntoIterator<Item = &'p str>) -> Result<Self, Error> {
        let parse = |entry: &str| {
            let wrong = || Error::route(format!("\"{entry}\" is neither an address nor a network"));
            Network::parse(entry).ok_or_else(wrong)
        };
        let networks: Result<_, _> = entries.into_iter().map(parse).collect();
        Ok(Self {
            networks: networks?,
            unset: false,
        })
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.has(address))
    }

    /// The client that a list of addresses names, read from its right end.
    fn walk(&self, list: &str) -> Option<IpAddr> {
        let mut entries = list.rsplit(',').map(str::trim).peekable();
        while let Some(entry) = entries.next() {
            let address = parse_address(entry)?;
            if entries.peek().is_none() || !self.trusts(address) {
                return Some(address);
            }
        }
        None
    }

    /// The client that the headers name. Several lines of one header are one list.
    pub(crate) fn forwarded(&self, headers: &HeaderMap, names: &[HeaderName]) -> Option<IpAddr> {
        names.iter().find_map(|name| {
            let lines: Vec<&str> = headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap_or("?"))
                .collect();
            self.walk(&lines.join(","))
        })
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let width = if written.is_ipv4() { 32 } else { 128 };
        let mut bits: u8 = match bits {
            None => width,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
        };
        if bits > width {
            return None;
        }
        let address = written.to_canonical();
        if written.is_ipv6() && address.is_ipv4() {
            bits = bits.checked_sub(96)?;
        }
        Some(Self { address, bits })
    }

    fn has(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differing = u32::from(a) ^ u32::from(b);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differing = u128::from(a) ^ u128::from(b);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// An address as headers write it.
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    text.trim()
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::{Network, Proxies};

    #[test]
    fn networks() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("172.16.0.0/12", "::ffff:172.31.0.1", "172.32.0.1"),
        ] {
            let proxies = Proxies::parse([network]).unwrap();
            assert!(proxies.trusts(inside.parse().unwrap()), "{network}");
            assert!(!proxies.trusts(outside.parse().unwrap()), "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "x",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "::/129",
            "1.2.3.4/",
            "::ffff:1.2.3.4/8",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
            assert!(Proxies::parse([text]).unwrap_err().is_route());
        }
    }
}
