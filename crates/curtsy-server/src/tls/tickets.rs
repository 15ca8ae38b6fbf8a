//! Session tickets whose keys can be handed to the next process.
//!
//! A ticket is the name of its key, a nonce, and the session sealed with AES-256-GCM. The first of a few keys seals, all
//! of them open; a key seals for six hours and opens for twelve more, and then it is gone, and with it what an attacker who
//! finds it later could read.
//!
//! Invariants:
//! - A nonce is random and used with one key; a key seals for so short a time that two never meet.
//! - What does not open is no ticket, whatever is wrong with it; the client handshakes in full then.
//! - Keys leave this process in one way only: to its heir.
//!
//! Deliberately absent: tickets that hold no session but lead to one.

use crate::error::{Error, Kind};
use arc_swap::ArcSwap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use zeroize::Zeroizing;

const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
/// How long a key seals, in seconds.
const SEALS_S: i64 = 6 * 60 * 60;
/// How long a ticket is good for, in seconds.
const LIFETIME_S: u32 = 12 * 60 * 60;
/// How long a key opens: as long as the last ticket that it sealed is good for.
const OPENS_S: i64 = SEALS_S + LIFETIME_S as i64;
/// As many as can be of use at a time.
const KEYS_MOST: usize = 4;
/// A key as it is handed over: name, secret, age in seconds.
const KEY_BYTES: usize = NAME_BYTES + SECRET_BYTES + 8;

/// What seals and opens tickets.
pub(crate) struct Tickets {
    began: Instant,
    random: SystemRandom,
    /// The newest first; never empty.
    keys: ArcSwap<Vec<Arc<Key>>>,
    /// Held by whoever changes the keys.
    changing: Mutex<()>,
}

struct Key {
    name: [u8; NAME_BYTES],
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    cipher: LessSafeKey,
    /// In seconds since the beginning here; before it, if the key came from elsewhere.
    made: i64,
}

impl Tickets {
    pub(crate) fn new() -> Result<Self, Error> {
        let random = SystemRandom::new();
        let failed = || Error::new(Kind::Certificate, "cannot make a key for session tickets");
        let key = Key::new(&random, 0).ok_or_else(failed)?;
        Ok(Self {
            began: Instant::now(),
            random,
            keys: ArcSwap::from_pointee(vec![Arc::new(key)]),
            changing: Mutex::new(()),
        })
    }

    /// The keys, for the next process.
    pub(crate) fn export(&self) -> Zeroizing<Vec<u8>> {
        self.export_at(self.now())
    }

    /// Goes on with the keys of the process before this one; whether they were any.
    pub(crate) fn adopt(&self, bytes: &[u8]) -> bool {
        self.adopt_at(self.now(), bytes)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX)
    }

    fn export_at(&self, now: i64) -> Zeroizing<Vec<u8>> {
        let keys = self.keys.load();
        // At once as long as it will be: what grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(keys.len() * KEY_BYTES));
        for key in keys.iter() {
            bytes.extend(key.name);
            bytes.extend(key.secret.iter());
            bytes.extend((now - key.made).max(0).to_be_bytes());
        }
        bytes
    }

    fn adopt_at(&self, now: i64, bytes: &[u8]) -> bool {
        let mut keys = Vec::new();
        for bytes in bytes.chunks_exact(KEY_BYTES).take(KEYS_MOST) {
            let Some((name, rest)) = bytes.split_first_chunk::<NAME_BYTES>() else {
                continue;
            };
            let Some((secret, age)) = rest.split_first_chunk::<SECRET_BYTES>() else {
                continue;
            };
            let age = <[u8; 8]>::try_from(age).map_or(i64::MAX, i64::from_be_bytes);
            if (0..OPENS_S).contains(&age)
                && let Some(key) = Key::from_parts(*name, Zeroizing::new(*secret), now - age)
            {
                keys.push(Arc::new(key));
            }
        }
        let found = !keys.is_empty();
        if found {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            self.keys.store(Arc::new(keys));
        }
        found
    }

    /// The key that seals now; a new one if that has done so for long enough.
    fn sealing(&self, now: i64) -> Option<Arc<Key>> {
        let newest = |keys: &[Arc<Key>]| {
            let first = keys.first();
            first.filter(|key| now - key.made < SEALS_S).cloned()
        };
        if let Some(key) = newest(&self.keys.load()) {
            return Some(key);
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.keys.load();
        if let Some(key) = newest(&old) {
            return Some(key);
        }
        let key = Arc::new(Key::new(&self.random, now)?);
        let opening = old.iter().filter(|key| now - key.made < OPENS_S);
        let keys = std::iter::once(&key).chain(opening).take(KEYS_MOST);
        self.keys.store(Arc::new(keys.cloned().collect()));
        Some(key)
    }

    fn seal(&self, now: i64, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.sealing(now)?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_BYTES + NONCE_LEN + plain.len() + 16);
        ticket.extend(key.name);
        ticket.extend(nonce);
        ticket.extend(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = &mut ticket[NAME_BYTES + NONCE_LEN..];
        let tag = key
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from(key.name), sealed)
            .ok()?;
        ticket.extend(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, now: i64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.load();
        let key = keys
            .iter()
            .find(|key| key.name == *name && now - key.made < OPENS_S)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .cipher
            .open_in_place(nonce, Aad::from(key.name), &mut sealed);
        let length = opened.ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl Key {
    fn new(random: &SystemRandom, made: i64) -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME_BYTES], Zeroizing::new([0; SECRET_BYTES]));
        random.fill(&mut name).ok()?;
        random.fill(&mut *secret).ok()?;
        Self::from_parts(name, secret, made)
    }

    fn from_parts(
        name: [u8; NAME_BYTES],
        secret: Zeroizing<[u8; SECRET_BYTES]>,
        made: i64,
    ) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*secret).ok()?);
        Some(Self {
            name,
            secret,
            cipher,
            made,
        })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(self.now(), plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(self.now(), ticket)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("keys", &self.keys.load().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS_MOST, LIFETIME_S, OPENS_S, SEALS_S, Tickets};

    #[test]
    fn a_ticket_opens_for_its_lifetime_and_not_much_longer() {
        for made in [0, 1, SEALS_S - 1, SEALS_S, 5 * SEALS_S + 7] {
            let tickets = Tickets::new().unwrap();
            let ticket = tickets.seal(made, b"a session").unwrap();
            let last = made + i64::from(LIFETIME_S) - 1;
            for later in [made, made + SEALS_S, last] {
                // Others come and have keys made meanwhile.
                tickets.seal(later, b"another").unwrap();
                let opened = tickets.open(later, &ticket);
                assert_eq!(opened.as_deref(), Some(&b"a session"[..]), "{made} {later}");
            }
            assert_eq!(tickets.open(made + OPENS_S, &ticket), None);
            assert!(tickets.keys.load().len() <= KEYS_MOST);
        }
        // Two of the same are not the same.
        let tickets = Tickets::new().unwrap();
        tickets.seal(0, b"a").unwrap();
        let now = 100 * SEALS_S;
        assert_ne!(
            tickets.seal(now, b"a").unwrap(),
            tickets.seal(now, b"a").unwrap()
        );
        assert_eq!(tickets.keys.load().len(), 1, "old keys are gone");
    }

    #[test]
    fn what_was_changed_or_is_not_ours_does_not_open() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.seal(0, b"a session").unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.open(0, &changed), None, "byte {index}");
            assert_eq!(tickets.open(0, &ticket[..index]), None, "{index} bytes");
        }
        assert_eq!(Tickets::new().unwrap().open(0, &ticket), None);
    }

    #[test]
    fn an_heir_opens_what_its_donor_sealed_and_for_no_longer() {
        let donor = Tickets::new().unwrap();
        let first = donor.seal(0, b"first").unwrap();
        let second = donor.seal(SEALS_S, b"second").unwrap();
        let now = SEALS_S + 60;
        let heir = Tickets::new().unwrap();
        // The heir's clock begins anew.
        assert!(heir.adopt_at(5, &donor.export_at(now)));
        for (ticket, text) in [(&first, &b"first"[..]), (&second, b"second")] {
            assert_eq!(heir.open(5, ticket).as_deref(), Some(text));
        }
        // And the donor, which drains, opens what the heir seals.
        let third = heir.seal(5, b"third").unwrap();
        assert_eq!(donor.open(now, &third).as_deref(), Some(&b"third"[..]));
        // The first key is SEALS_S + 60 old at 5.
        let end = 5 + OPENS_S - SEALS_S - 60;
        assert!(heir.open(end - 1, &first).is_some());
        assert_eq!(heir.open(end, &first), None);
        // The second key seals until its own time is over.
        assert_eq!(heir.export_at(5).len(), donor.export_at(now).len());
        heir.seal(5 + SEALS_S, b"x").unwrap();
        assert!(heir.export_at(5 + SEALS_S).len() > donor.export_at(now).len());
    }

    #[test]
    fn nonsense_is_not_adopted() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.seal(0, b"a session").unwrap();
        let mut old = Tickets::new().unwrap().export_at(OPENS_S).to_vec();
        assert!(!tickets.adopt_at(0, &old));
        old.truncate(20);
        assert!(!tickets.adopt_at(0, &old));
        assert!(!tickets.adopt_at(0, b""));
        assert!(tickets.open(0, &ticket).is_some());
        assert!(!format!("{tickets:?}").contains("secret"));
    }
}
