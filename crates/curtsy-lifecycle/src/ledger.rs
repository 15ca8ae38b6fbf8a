//! Who is connected: the list of a worker's entries.
//!
//! A connection enters once and leaves once, under a lock that the request path never takes.

use crate::entry::Entry;
use crate::moment::Moment;
use crate::report::{Counts, Straggler};
use crate::state::State;
use slab::Slab;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The place of an entry in its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(usize);

/// The open connections of one worker.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Slab<Arc<Entry>>>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a connection.
    pub fn enter(&self, entry: Arc<Entry>) -> Key {
        Key(self.entries().insert(entry))
    }

    /// Strikes a connection out; how many are left.
    ///
    /// # Panics
    /// If `key` was struck out before.
    pub fn leave(&self, key: Key) -> usize {
        let mut entries = self.entries();
        let gone = entries.remove(key.0);
        let left = entries.len();
        // Gives the memory of a past crowd back, a step at a time.
        if left * 4 < entries.capacity() && entries.capacity() > 1024 {
            entries.shrink_to_fit();
        }
        drop(entries);
        drop(gone);
        left
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the connections, by state, to `counts`. Streams are not connections.
    pub fn count(&self, counts: &mut Counts) {
        for (_, entry) in self.entries().iter() {
            if entry.is_stream() {
                continue;
            }
            let state = entry.state();
            match state {
                State::New | State::Idle if entry.is_resting() => counts.add_parked(state, 1),
                State::New
                | State::Idle
                | State::Handshake
                | State::Active
                | State::Upgraded
                | State::Closed => counts.add(state),
            }
        }
    }

    /// Adds whatever would be missed to `stragglers`, in no order.
    pub fn stragglers(&self, now: Moment, stragglers: &mut Vec<Straggler>) {
        let entries: Vec<_> = self.entries().iter().map(|(_, e)| e.clone()).collect();
        stragglers.extend(entries.iter().filter_map(|entry| entry.straggler(now)));
    }

    /// Asks up to `most` resting connections to end, those first that have rested longest; how
    /// many were asked.
    pub fn dismiss_oldest(&self, most: usize) -> usize {
        let mut resting: Vec<_> = {
            let entries = self.entries();
            let waiting = entries.iter().map(|(_, entry)| entry);
            waiting
                .filter(|entry| entry.is_resting() && !entry.is_dismissed())
                .cloned()
                .collect()
        };
        resting.sort_unstable_by_key(|entry| entry.since());
        let asked = resting.iter().filter(|entry| entry.dismiss());
        asked.take(most).count()
    }

    /// Wakes whoever serves each connection, so that they look at the server's phase.
    pub fn wake_all(&self) {
        // Not under the lock: a woken task may run elsewhere at once and want to leave.
        let entries: Vec<_> = self.entries().iter().map(|(_, e)| e.clone()).collect();
        for entry in entries {
            entry.wake();
        }
    }

    /// Calls `visit` with every entry.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Entry>)) {
        let entries: Vec<_> = self.entries().iter().map(|(_, e)| e.clone()).collect();
        entries.iter().for_each(&mut visit);
    }

    fn entries(&self) -> MutexGuard<'_, Slab<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;
    use crate::{Address, Arrival, Counts, Entry, Event, Moment, Origin, Signal, State};
    use std::sync::Arc;

    fn entry(id: u64) -> Arc<Entry> {
        let origin = Arc::new(Origin::new("main", Arc::new(Signal::new())));
        let (here, now) = (Address::Unix(None), Moment::default());
        let arrival = Arrival {
            id,
            origin,
            peer: here.clone(),
            local: here,
            tls: false,
            carried: false,
            accepted: now,
        };
        Arc::new(Entry::new(arrival, State::New, now))
    }

    #[test]
    fn counts_lists_and_forgets() {
        let ledger = Ledger::new();
        let (a, b) = (entry(1), entry(2));
        let key_a = ledger.enter(a.clone());
        let key_b = ledger.enter(b);
        a.tell(Event::Bytes, Moment::from_millis(3));

        let mut counts = Counts::default();
        ledger.count(&mut counts);
        assert_eq!((counts.new, counts.active, counts.total()), (1, 1, 2));
        let mut stragglers = Vec::new();
        ledger.stragglers(Moment::from_millis(4), &mut stragglers);
        assert_eq!(stragglers.iter().map(|s| s.id).collect::<Vec<_>>(), [1]);

        assert_eq!(ledger.leave(key_a), 1);
        assert_eq!(ledger.leave(key_b), 0);
        assert!(ledger.is_empty());
    }

    #[test]
    fn those_that_rest_are_parked_and_the_oldest_are_dismissed() {
        let ledger = Ledger::new();
        let entries: Vec<_> = (0..4).map(entry).collect();
        for (n, entry) in entries.iter().enumerate() {
            ledger.enter(entry.clone());
            entry.tell(Event::Bytes, Moment::from_millis(1));
            // The first has rested for the shortest time.
            let since = Moment::from_millis(10 - n as u64);
            entry.tell(Event::Answered, since);
        }
        assert_eq!(ledger.dismiss_oldest(9), 0);
        entries[..3].iter().for_each(|entry| entry.begin_rest());
        let mut counts = Counts::default();
        ledger.count(&mut counts);
        assert_eq!((counts.idle, counts.parked, counts.total()), (4, 3, 4));
        assert_eq!(ledger.dismiss_oldest(2), 2);
        let dismissed: Vec<_> = entries.iter().map(|entry| entry.is_dismissed()).collect();
        assert_eq!(dismissed, [false, true, true, false]);
        assert_eq!(ledger.dismiss_oldest(2), 1);
        assert_eq!(ledger.dismiss_oldest(2), 0);
    }
}
