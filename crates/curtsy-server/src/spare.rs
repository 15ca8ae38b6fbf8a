//! Room for those who look after a server whose connections have taken every descriptor: without it nobody could ask what
//! the server is doing, or tell it to drain.
//!
//! Wherever such clients are accepted, a few descriptors are kept. When there is none left for a client one is given up, and
//! taken again when a client has gone.
//!
//! Deliberately absent: certainty. What is given up may be another thread's before it is used; then it is tried again.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many clients find room.
const KEPT: usize = 2;
/// How often the log tells that one could not be accepted.
const TOLD_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Spare {
    /// Where clients come to, as the log names it.
    place: &'static str,
    kept: Mutex<Vec<OwnedFd>>,
    told: Mutex<Option<Instant>>,
}

impl Spare {
    pub(crate) fn new(place: &'static str) -> Self {
        let spare = Self {
            place,
            kept: Mutex::default(),
            told: Mutex::default(),
        };
        spare.refill();
        spare
    }

    /// A client could not be accepted; whether there is room for it now. If not, that is told now and then.
    pub(crate) fn make_room(&self, error: &io::Error) -> bool {
        let is_full = matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE)
        );
        // It closes as it goes.
        if is_full && lock(&self.kept).pop().is_some() {
            return true;
        }
        let mut told = lock(&self.told);
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(%error, "cannot accept on the {}", self.place);
        }
        false
    }

    /// A client has gone, or was accepted: what was given up is taken again, if there is enough.
    pub(crate) fn refill(&self) {
        let mut kept = lock(&self.kept);
        while kept.len() < KEPT
            && let Ok(one) = eventfd(0, EventfdFlags::CLOEXEC)
        {
            kept.push(one);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Spare};
    use rustix::io::Errno;

    #[test]
    fn room_is_made_while_there_is_some_and_only_for_want_of_descriptors() {
        let spare = Spare::new("test");
        let full = Errno::MFILE.into();
        assert!(!spare.make_room(&Errno::CONNABORTED.into()));
        for _ in 0..KEPT {
            assert!(spare.make_room(&full));
        }
        assert!(!spare.make_room(&full));
        spare.refill();
        assert!(spare.make_room(&full));
    }
}
