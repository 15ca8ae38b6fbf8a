//! TLS by rustls: certificates, what a listener does with them, and the encrypted stream.
//!
//! Invariant: a [`Certificate`] that exists is usable: it parses, its key fits it, and it was not
//! expired when it was made. What replaces another is checked first.
//!
//! Deliberately absent: asking an authority for certificates, and any version before TLS 1.2.

mod certificate;
mod config;
mod rest;
mod store;
mod stream;
mod tickets;
mod watch;

#[cfg(test)]
#[path = "../../tests/support/gullible.rs"]
mod gullible;

pub use certificate::Certificate;
pub use config::{ClientCertificates, TlsBuilder, TlsConfig};
pub(crate) use rest::rest;
pub use store::CertificateStore;
pub(crate) use stream::Secure;
pub(crate) use tickets::Tickets;
pub(crate) use watch::watch;
