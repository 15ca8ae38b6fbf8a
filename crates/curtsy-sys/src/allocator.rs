//! Memory that the mimalloc allocator keeps, for programs that use it.

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set, mi_option_t};
use std::sync::{Mutex, PoisonError};

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`; the bindings do not name it.
const PURGE_DELAY: mi_option_t = 15;

/// How long freed pages are kept; mimalloc takes ten times as long for whole areas.
const SOON_MS: i64 = 10;

/// Has freed pages given back to the system within a tenth of a second instead of ten.
///
/// To give them back at once would cost a busy server system calls and page faults at each
/// connection.
pub fn give_back_soon() {
    // SAFETY: setting an option is a store into the allocator's own table, at an index within it;
    // the allocator allows it at any time.
    unsafe { mi_option_set(PURGE_DELAY, SOON_MS) };
}

/// Has nothing given back any more: for the end of a process, which gives back everything at once.
pub fn keep_all() {
    // SAFETY: as in `give_back_soon`.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}

/// How many milliseconds freed pages are kept; less than 0 if they are for good.
pub fn purge_delay_ms() -> i64 {
    // SAFETY: reads the table that `give_back_soon` writes.
    unsafe { mi_option_get(PURGE_DELAY) }
}

/// Gives back the pages that this thread keeps for its next allocations, and nothing stands in;
/// and those that any thread has freed.
///
/// By itself mimalloc gives something back only when a thread allocates again. A server whose
/// connections have all fallen silent does not, and would keep the memory of its busiest moment.
///
/// Takes from some microseconds to a few milliseconds, by how many there are; two threads take
/// turns.
pub fn give_back() {
    // The allocator lets one thread give back at a time, and others go on without.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the allocator allows it on any thread at any time.
    unsafe { mi_collect(true) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_option_is_the_one_meant() {
        // mimalloc's default; with another option it would be another number.
        assert_eq!(super::purge_delay_ms(), 1000);
        super::give_back_soon();
        assert_eq!(super::purge_delay_ms(), super::SOON_MS);
        super::keep_all();
        assert_eq!(super::purge_delay_ms(), -1);
    }

    #[test]
    fn what_is_in_use_stays() {
        let mut kept: Vec<Vec<u8>> = (0..200).map(|n| vec![n; 10_000]).collect();
        kept.retain(|piece| piece[0] % 2 == 0);
        super::give_back();
        let is_whole = |piece: &Vec<u8>| piece.iter().all(|byte| *byte == piece[0]);
        assert!(kept.iter().all(is_whole));
    }
}
