//! What a listener does with its certificates.

use crate::error::{Error, Kind};
use crate::tls::{Certificate, CertificateStore, Tickets};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, SupportedProtocolVersion};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// How many tickets a client gets for later: one for each handshake it saves.
const TICKETS: usize = 1;

/// Whether clients must show certificates of their own.
#[derive(Clone, Debug, Default)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    No,
    /// They are asked; one that is shown must be signed by one of these authorities (PEM).
    Optional(Vec<u8>),
    /// A client without a certificate signed by one of these authorities (PEM) is turned away.
    Required(Vec<u8>),
}

/// TLS 1.2 and 1.3 with certificates of a [`CertificateStore`], HTTP/2 and HTTP/1.1 by ALPN, and
/// session tickets whose keys are made anew every six hours and go over in a restart. Cheap to clone.
///
/// ```
/// use curtsy_server::{Certificate, TlsConfig};
///
/// let config = TlsConfig::new([Certificate::self_signed(["localhost"])?])?;
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone)]
pub struct TlsConfig {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) tickets: Arc<Tickets>,
    store: CertificateStore,
}

/// How a [`TlsConfig`] is to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct TlsBuilder {
    store: CertificateStore,
    clients: ClientCertificates,
    http2: bool,
    tls12: bool,
}

impl TlsConfig {
    /// With these certificates, and everything else as usual.
    ///
    /// # Errors
    /// If there is no certificate, or one has expired.
    pub fn new(certificates: impl IntoIterator<Item = Certificate>) -> Result<Self, Error> {
        Self::builder(CertificateStore::new(certificates)?).build()
    }

    /// With the certificates of a store, to be described further.
    pub fn builder(store: CertificateStore) -> TlsBuilder {
        TlsBuilder {
            store,
            clients: ClientCertificates::No,
            http2: true,
            tls12: true,
        }
    }

    /// The certificates, to be replaced or reloaded.
    pub fn certificates(&self) -> &CertificateStore {
        &self.store
    }
}

impl TlsBuilder {
    /// Whether clients must show certificates; they are not asked by default.
    pub fn client_certificates(mut self, clients: ClientCertificates) -> Self {
        self.clients = clients;
        self
    }

    /// Whether HTTP/2 is offered; it is by default.
    pub fn http2(mut self, offered: bool) -> Self {
        self.http2 = offered;
        self
    }

    /// Whether TLS 1.2 is spoken beside 1.3; it is by default.
    pub fn tls12(mut self, spoken: bool) -> Self {
        self.tls12 = spoken;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// If the authorities for client certificates cannot be used.
    pub fn build(self) -> Result<TlsConfig, Error> {
        static NEW: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        let failed = |error| Error::because(Kind::Certificate, "cannot set TLS up", error);
        let provider = Arc::new(ring::default_provider());
        let versions = if self.tls12 {
            rustls::ALL_VERSIONS
        } else {
            NEW
        };
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(failed)?
            .with_client_cert_verifier(verifier(&self.clients, &provider)?)
            .with_cert_resolver(Arc::new(self.store.clone()));
        server.alpn_protocols = match self.http2 {
            true => vec![H2.to_vec(), HTTP_1_1.to_vec()],
            false => vec![HTTP_1_1.to_vec()],
        };
        let tickets = Arc::new(Tickets::new()?);
        server.ticketer = tickets.clone();
        server.send_tls13_tickets = TICKETS;
        Ok(TlsConfig {
            server: Arc::new(server),
            tickets,
            store: self.store,
        })
    }
}

fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let (authorities, required) = match clients {
        ClientCertificates::No => return Ok(Arc::new(NoClientAuth)),
        ClientCertificates::Optional(authorities) => (authorities, false),
        ClientCertificates::Required(authorities) => (authorities, true),
    };
    let unusable = |error: &(dyn std::error::Error + Send + Sync)| {
        let text = "the authorities for client certificates cannot be used";
        Error::because(Kind::Certificate, text, error.to_string())
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    let verifier = builder.build().map_err(|error| unusable(&error))?;
    Ok(verifier)
}

impl ClientCertificates {
    /// Reads the authorities of [`ClientCertificates::Required`] from a PEM file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn required_by_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let read = std::fs::read(path).map_err(|error| {
            let text = format!("cannot read {}", path.display());
            Error::because(Kind::Certificate, text, error)
        });
        read.map(Self::Required)
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("certificates", &self.store)
            .finish_non_exhaustive()
    }
}
