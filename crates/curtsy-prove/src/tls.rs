//! The client's side of TLS: whom to trust, which name to expect, which protocol to ask for.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Kind};

/// Whom a plan trusts.
#[derive(Debug, Clone, Default)]
pub(crate) enum Trust {
    /// The system's authorities.
    #[default]
    System,
    /// These and no others.
    These(Vec<CertificateDer<'static>>),
    /// Anybody: for servers with certificates of their own making.
    Anybody,
}

impl Trust {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| Error::new(Kind::Target, format!("the certificates: {e}")))?;
        if certificates.is_empty() {
            return Err(Error::new(Kind::Target, "no certificate in that PEM text"));
        }
        Ok(Self::These(certificates))
    }
}

/// How every connection of a run shakes hands.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    wants_http2: bool,
}

impl Tls {
    pub(crate) fn new(name: ServerName<'static>, trust: &Trust, wants_http2: bool) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            // The provider's suites cover both versions.
            .expect("TLS 1.2 and 1.3 with this provider");
        let mut config = match trust {
            Trust::System => builder.with_root_certificates(system_roots()),
            Trust::These(certificates) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates.iter().cloned());
                builder.with_root_certificates(roots)
            }
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustAnybody(provider))),
        }
        .with_no_client_auth();
        let protocol: &[u8] = if wants_http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
            wants_http2,
        }
    }

    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let stream = self
            .connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(|e| format!("TLS handshake: {e}"))?;
        // Without an answer to the offer a server speaks HTTP/1.1.
        if self.wants_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the server does not offer HTTP/2".to_owned());
        }
        Ok(stream)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .field("wants_http2", &self.wants_http2)
            .finish_non_exhaustive()
    }
}

/// What the system trusts. Without any, every handshake fails and says so; the run is the place to tell it.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Takes any certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
