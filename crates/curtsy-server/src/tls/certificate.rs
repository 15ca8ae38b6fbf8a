//! A certificate with its key, checked when it is read.

use crate::error::{Error, Kind};
use crate::service::BoxError;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A chain of certificates and the private key of the first: parsed, fitting each other, and valid
/// at the time it was made.
///
/// ```
/// use curtsy_server::Certificate;
///
/// let certificate = Certificate::self_signed(["localhost"])?;
/// println!("sha-256 {}", certificate.fingerprint());
/// assert!(certificate.names().eq(["localhost"]));
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone)]
pub struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    fingerprint: String,
    source: Source,
}

/// Where it can be had again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Files { chain: PathBuf, key: PathBuf },
    Memory,
}

impl Certificate {
    /// Reads a chain and a key from PEM files; the server's own certificate comes first in the
    /// chain. [`CertificateStore::reload`](crate::CertificateStore::reload) reads them again.
    ///
    /// # Errors
    /// If a file cannot be read, holds nothing usable, the key does not fit the certificate, or
    /// the certificate is not valid now. The text names the file.
    pub fn from_pem_files(
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        let (chain, key) = (chain.into(), key.into());
        let certificate = Self::from_parts(&read(&chain)?, &chain, &read(&key)?, &key)?;
        Ok(Self {
            source: Source::Files { chain, key },
            ..certificate
        })
    }

    /// Takes a chain and a key as PEM text.
    ///
    /// # Errors
    /// As for [`Certificate::from_pem_files`].
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let chain_name = Path::new("the certificate");
        let key_name = Path::new("the key");
        Self::from_parts(chain.as_ref(), chain_name, key.as_ref(), key_name)
    }

    /// Makes a certificate that nobody has signed but itself, for development: clients must be
    /// told to trust it, or to ask nothing (`curl -k`).
    ///
    /// # Errors
    /// If a name is neither a host name nor an IP address.
    pub fn self_signed<I>(names: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item: Into<String>>,
    {
        let both = Self::self_signed_pem(names)?;
        Self::from_pem(&both, &both)
    }

    /// Makes a certificate as [`Certificate::self_signed`] does, as PEM text with its key, to be kept and read by
    /// [`Certificate::from_pem`]: given as both, chain and key.
    ///
    /// # Errors
    /// As for [`Certificate::self_signed`].
    pub fn self_signed_pem<I>(names: I) -> Result<String, Error>
    where
        I: IntoIterator<Item: Into<String>>,
    {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let failed = |error| {
            Error::because(
                Kind::Certificate,
                "cannot make a self-signed certificate",
                error,
            )
        };
        let made = rcgen::generate_simple_self_signed(names).map_err(failed)?;
        Ok(made.cert.pem() + &made.signing_key.serialize_pem())
    }

    /// The host names it is for, `*.` ones included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The SHA-256 of the certificate, in hexadecimal with colons, as browsers show it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// When it expires.
    pub fn expires(&self) -> SystemTime {
        let seconds = u64::try_from(self.not_after).unwrap_or(0);
        UNIX_EPOCH + std::time::Duration::from_secs(seconds)
    }

    /// Reads the same files again; one that came from memory stays as it is.
    pub(crate) fn again(&self) -> Result<Self, Error> {
        match &self.source {
            Source::Files { chain, key } => Self::from_pem_files(chain, key),
            Source::Memory => Ok(self.clone()),
        }
    }

    /// The files it came from: chain and key.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        match &self.source {
            Source::Files { chain, key } => Some((chain, key)),
            Source::Memory => None,
        }
    }

    /// Fails if it is not valid at `now`.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), Error> {
        let name = match &self.source {
            Source::Files { chain, .. } => chain.as_path(),
            Source::Memory => Path::new("the certificate"),
        };
        self.check_as(name, now)
    }

    fn check_as(&self, name: &Path, now: SystemTime) -> Result<(), Error> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
        let wrong = if now > self.not_after {
            "has expired"
        } else if now < self.not_before {
            "is not valid yet"
        } else {
            return Ok(());
        };
        Err(Error::new(
            Kind::Certificate,
            format!(
                "{} {wrong} (valid from {} to {})",
                name.display(),
                date(self.not_before),
                date(self.not_after)
            ),
        ))
    }

    fn from_parts(
        chain: &[u8],
        chain_name: &Path,
        key: &[u8],
        key_name: &Path,
    ) -> Result<Self, Error> {
        let bad = |name: &Path, what: &str| {
            Error::new(Kind::Certificate, format!("{}: {what}", name.display()))
        };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| {
                let text = format!("{} is not PEM", chain_name.display());
                Error::because(Kind::Certificate, text, in_words(error))
            })?;
        let Some(first) = chain.first().cloned() else {
            return Err(bad(chain_name, "no certificate in it (PEM is expected)"));
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            let text = format!("{} holds no private key", key_name.display());
            Error::because(Kind::Certificate, text, in_words(error))
        })?;
        let (_, parsed) = X509Certificate::from_der(&first).map_err(|error| {
            let text = format!("{} is not a certificate", chain_name.display());
            Error::because(Kind::Certificate, text, error.to_string())
        })?;
        let signer = ring::sign::any_supported_type(&key).map_err(|error| {
            let text = format!("the key in {} cannot be used", key_name.display());
            Error::because(Kind::Certificate, text, error)
        })?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|error| {
            let text = format!(
                "the key in {} does not belong to the certificate in {}",
                key_name.display(),
                chain_name.display()
            );
            Error::because(Kind::Certificate, text, error)
        })?;
        let certificate = Self {
            key: Arc::new(certified),
            names: names(&parsed),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            fingerprint: fingerprint(&first),
            source: Source::Memory,
        };
        certificate.check_as(chain_name, SystemTime::now())?;
        Ok(certificate)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        let text = format!("cannot read {}", path.display());
        Error::because(Kind::Certificate, text, error)
    })
}

/// The host names of the subject's alternative names, in lower case. The common name has not been
/// looked at by clients for years, and is not here.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| {
            let GeneralName::DNSName(name) = name else {
                return None;
            };
            Some(name.to_ascii_lowercase())
        })
        .collect()
}

fn fingerprint(certificate: &[u8]) -> String {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let Some(suite) = suite.tls13() else {
        return String::new();
    };
    let hash = suite.common.hash_provider.hash(certificate);
    let bytes: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    bytes.join(":")
}

fn date(timestamp: i64) -> String {
    let seconds = u64::try_from(timestamp).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("expires", &date(self.not_after))
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a PEM text, for people: the reader shows bytes as numbers.
fn in_words(error: pem::Error) -> BoxError {
    if let pem::Error::MissingSectionEnd { end_marker } = &error {
        let kind = String::from_utf8_lossy(end_marker);
        return format!("it is cut short: -----END {kind}----- is missing").into();
    }
    if let pem::Error::IllegalSectionStart { line } = &error {
        let line = String::from_utf8_lossy(line);
        return format!("no section begins with {line:?}").into();
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::Certificate;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::time::SystemTime;

    fn dated(from: i32, to: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(to, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_valid_one_tells_its_names_expiry_and_fingerprint() {
        let (chain, key) = dated(2020, 2100);
        let certificate = Certificate::from_pem(chain, key).unwrap();
        assert!(certificate.names().eq(["a.test"]));
        assert!(certificate.expires() > SystemTime::now());
        assert_eq!(certificate.fingerprint().len(), 32 * 3 - 1);
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (good, good_key) = dated(2020, 2100);
        let (old, old_key) = dated(2020, 2021);
        let (early, early_key) = dated(2099, 2100);
        let (_, other_key) = dated(2020, 2100);
        let cut = good[..good.len() / 2].to_owned();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (chain, key, named, expected) in [
            (&old, &old_key, "c.pem", "has expired"),
            (&early, &early_key, "c.pem", "is not valid yet"),
            (
                &good,
                &other_key,
                "k.pem",
                "does not belong to the certificate",
            ),
            (&good, &good, "k.pem", "holds no private key"),
            (&good_key, &good_key, "c.pem", "no certificate in it"),
            (
                &cut,
                &good_key,
                "c.pem",
                "-----END CERTIFICATE----- is missing",
            ),
            (
                &broken.to_owned(),
                &good_key,
                "c.pem",
                "is not a certificate",
            ),
        ] {
            let (c, k) = (put("c.pem", chain), put("k.pem", key));
            let error = Certificate::from_pem_files(&c, &k).unwrap_err();
            let text = error.to_string();
            assert!(error.is_certificate(), "{text}");
            assert!(text.contains(named) && text.contains(expected), "{text}");
        }
        let missing = directory.path().join("none.pem");
        let error = Certificate::from_pem_files(&missing, &missing).unwrap_err();
        assert!(error.to_string().contains("cannot read"), "{error}");
    }
}
