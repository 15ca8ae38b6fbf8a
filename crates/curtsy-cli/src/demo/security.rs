//! The demo's flags about TLS and who speaks it.

use clap::{Args, ValueEnum};
use curtsy::{Certificate, Error, ListenOn, Mode, ModeName, PlainOnTls, ProxyPeers, TlsConfig};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Clone, Debug, Default)]
pub(super) struct Security {
    /// Have a certificate made for this run, for localhost; its fingerprint is printed
    #[arg(long, value_name = "WHICH", conflicts_with = "cert")]
    tls: Option<Which>,
    /// A PEM file with the certificate and its chain
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Look at the files every so often, and read them again when they have changed [default: only
    /// when `curtsy reload-certificates` says so]
    #[arg(long, value_name = "TIME", requires = "cert", value_parser = crate::duration::parse)]
    pub(super) watch_certificates: Option<Duration>,
    /// What to speak: plain, tls, or both on one port [default: tls if there is a certificate]
    #[arg(long)]
    mode: Option<ModeName>,
    /// What a client gets that does not encrypt while the mode is tls
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    plain_on_tls: Plain,
    /// Take PROXY headers from this address or network (10.0.0.0/8). May be given again
    #[arg(long, value_name = "PEER", value_parser = peer)]
    proxied_by: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    SelfSigned,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Plain {
    /// 400
    #[default]
    Refuse,
    /// 308 to https
    Redirect,
    /// What it asked for
    Serve,
}

/// A peer, as it is written; for clap.
fn peer(text: &str) -> Result<String, Error> {
    ProxyPeers::new([text]).map(|_| text.to_owned())
}

/// What the flags come to, for every listener.
pub(super) struct Speaking {
    mode: Mode,
    tls: Option<TlsConfig>,
    plain_on_tls: PlainOnTls,
    proxies: Option<ProxyPeers>,
}

impl Security {
    /// The certificate that is made for the run, as PEM text: the one of the process before, if there was one.
    pub(super) fn made(&self, before: Option<&[u8]>) -> Result<Option<Vec<u8>>, Error> {
        let make = || Certificate::self_signed_pem(["localhost", "127.0.0.1", "::1"]);
        match (self.tls, before) {
            (None, _) => Ok(None),
            (Some(Which::SelfSigned), Some(before)) => Ok(Some(before.to_vec())),
            (Some(Which::SelfSigned), None) => make().map(|made| Some(made.into_bytes())),
        }
    }

    /// What it comes to, with the certificate that was made.
    pub(super) fn decide(&self, made: Option<&[u8]>) -> Result<Speaking, Error> {
        let certificate = match (made, &self.cert, &self.key) {
            (Some(made), _, _) => Some(Certificate::from_pem(made, made)?),
            (None, Some(cert), Some(key)) => Some(Certificate::from_pem_files(cert, key)?),
            (None, _, _) => None,
        };
        let tls = certificate
            .map(|certificate| TlsConfig::new([certificate]))
            .transpose()?;
        let asked = self.mode.unwrap_or(match tls {
            Some(_) => ModeName::Tls,
            None => ModeName::Plain,
        });
        let proxies = match self.proxied_by.is_empty() {
            true => None,
            false => Some(ProxyPeers::new(self.proxied_by.iter().map(String::as_str))?),
        };
        Ok(Speaking {
            mode: asked.with(tls.as_ref())?,
            tls,
            plain_on_tls: match self.plain_on_tls {
                Plain::Refuse => PlainOnTls::Refuse400,
                Plain::Redirect => PlainOnTls::Redirect308,
                Plain::Serve => PlainOnTls::Serve,
            },
            proxies,
        })
    }
}

impl Speaking {
    /// The certificate's fingerprint, if there is one.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let certificates = self.tls.as_ref()?.certificates().certificates();
        let first = certificates.first()?;
        Some(first.fingerprint().to_owned())
    }

    /// How its addresses begin.
    pub(super) fn scheme(&self) -> &'static str {
        match self.mode.name() {
            ModeName::Plain => "http",
            ModeName::Tls => "https",
            ModeName::Both => "http(s)",
        }
    }

    /// A listener that speaks so.
    pub(super) fn on(&self, on: ListenOn) -> ListenOn {
        let mut on = on.mode(self.mode.clone()).plain_on_tls(self.plain_on_tls);
        if let Some(tls) = &self.tls {
            on = on.tls_in_reserve(tls.clone());
        }
        if let Some(proxies) = &self.proxies {
            on = on.proxied_by(proxies.clone());
        }
        on
    }
}
