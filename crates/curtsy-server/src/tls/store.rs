//! The certificates a listener shows, by the name the client asks for; replaced while in use.

use crate::error::{Error, Kind};
use crate::tls::Certificate;
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Certificates by host name. Clones share them: what is replaced through one is replaced for all,
/// and for every listener that shows them.
///
/// A client that names a host gets the certificate for exactly that name, else the one for
/// `*.` and the name's parent, else the first; so does a client that names none.
///
/// ```
/// use curtsy_server::{Certificate, CertificateStore};
///
/// let first = Certificate::self_signed(["a.test"])?;
/// let second = Certificate::self_signed(["*.b.test"])?;
/// let store = CertificateStore::new([first, second])?;
/// // later, while it is in use:
/// store.replace([Certificate::self_signed(["a.test"])?])?;
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone)]
pub struct CertificateStore(Arc<ArcSwap<Shown>>);

struct Shown {
    certificates: Vec<Certificate>,
    exact: HashMap<String, usize>,
    /// By the name without its `*.`.
    wildcard: HashMap<String, usize>,
}

impl CertificateStore {
    /// A store of `certificates`, the first of which is for whoever asks for no other.
    ///
    /// # Errors
    /// If there is none, or one has expired.
    pub fn new(certificates: impl IntoIterator<Item = Certificate>) -> Result<Self, Error> {
        let shown = Shown::new(certificates.into_iter().collect())?;
        Ok(Self(Arc::new(ArcSwap::from_pointee(shown))))
    }

    /// Shows `certificates` instead from now on, to new connections.
    ///
    /// # Errors
    /// As for [`CertificateStore::new`]; then the old ones stay.
    pub fn replace(
        &self,
        certificates: impl IntoIterator<Item = Certificate>,
    ) -> Result<(), Error> {
        let shown = Shown::new(certificates.into_iter().collect())?;
        self.0.store(Arc::new(shown));
        Ok(())
    }

    /// Reads those that came from files again. All or nothing: if one of them cannot be used, all
    /// old ones stay. Blocks on the file system for as long as the files take to read.
    ///
    /// # Errors
    /// As for [`Certificate::from_pem_files`].
    pub fn reload(&self) -> Result<(), Error> {
        let again: Result<Vec<_>, _> = self
            .0
            .load()
            .certificates
            .iter()
            .map(Certificate::again)
            .collect();
        self.replace(again?)
    }

    /// The certificates shown now.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.0.load().certificates.clone()
    }

    /// The files that [`CertificateStore::reload`] reads.
    pub fn files(&self) -> Vec<PathBuf> {
        let shown = self.0.load();
        let pairs = shown.certificates.iter().filter_map(Certificate::files);
        pairs
            .flat_map(|(chain, key)| [chain.to_owned(), key.to_owned()])
            .collect()
    }

    /// Fails if one of them cannot be used any more.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let now = SystemTime::now();
        let shown = self.0.load();
        shown.certificates.iter().try_for_each(|one| one.check(now))
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.load();
        let index = name.and_then(|name| shown.index(name)).unwrap_or(0);
        shown.certificates.get(index).map(|found| found.key.clone())
    }
}

impl Shown {
    fn new(certificates: Vec<Certificate>) -> Result<Self, Error> {
        if certificates.is_empty() {
            return Err(Error::new(
                Kind::Certificate,
                "there is no certificate to show",
            ));
        }
        let now = SystemTime::now();
        certificates.iter().try_for_each(|one| one.check(now))?;
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (index, certificate) in certificates.iter().enumerate() {
            for name in certificate.names() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name),
                };
                // Of two for one name the first is meant.
                map.entry(name.to_owned()).or_insert(index);
            }
        }
        Ok(Self {
            certificates,
            exact,
            wildcard,
        })
    }

    fn index(&self, name: &str) -> Option<usize> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let parent = || {
            name.split_once('.')
                .and_then(|(_, parent)| self.wildcard.get(parent))
        };
        self.exact.get(&name).or_else(parent).copied()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0.load().certificates).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::CertificateStore;
    use crate::tls::Certificate;

    fn signed(names: &[&str]) -> Certificate {
        Certificate::self_signed(names.iter().copied()).unwrap()
    }

    #[test]
    fn names_are_found_exactly_then_by_wildcard_then_not() {
        let certificates = [
            signed(&["first.test"]),
            signed(&["a.test", "*.a.test"]),
            signed(&["x.a.test"]),
        ];
        let store = CertificateStore::new(certificates.clone()).unwrap();
        for (asked, expected) in [
            (None, 0),
            (Some("unknown.test"), 0),
            (Some("first.test"), 0),
            (Some("a.test"), 1),
            (Some("A.Test."), 1),
            (Some("y.a.test"), 1),
            (Some("x.a.test"), 2),
            // A wildcard stands for one label.
            (Some("z.y.a.test"), 0),
            (Some("test"), 0),
        ] {
            let found = store.find(asked).unwrap();
            assert_eq!(found.cert, certificates[expected].key.cert, "{asked:?}");
        }
    }

    #[test]
    fn a_reload_takes_all_or_leaves_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = (
            directory.path().join("c.pem"),
            directory.path().join("k.pem"),
        );
        let write = |text: (String, String)| {
            std::fs::write(&chain, text.0).unwrap();
            std::fs::write(&key, text.1).unwrap();
        };
        let fresh = || {
            let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        write(fresh());
        let from_files = Certificate::from_pem_files(&chain, &key).unwrap();
        let store = CertificateStore::new([from_files]).unwrap();
        let fingerprint =
            |store: &CertificateStore| store.certificates()[0].fingerprint().to_owned();
        let first = fingerprint(&store);

        write((fresh().0, fresh().1));
        assert!(store.reload().unwrap_err().is_certificate());
        assert_eq!(fingerprint(&store), first);

        write(fresh());
        store.reload().unwrap();
        assert_ne!(fingerprint(&store), first);
        assert!(store.replace([]).is_err());
        assert_eq!(store.files(), [chain, key]);
    }
}
