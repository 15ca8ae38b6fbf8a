//! Settings of the mimalloc allocator, for programs that use it.

use std::sync::{Mutex, PoisonError};

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`; the bindings do not name it.
const PURGE_DELAY: mi_option_t = 15;

/// Gives back to the system what this thread has freed and kept.
///
/// mimalloc keeps it for some milliseconds, and then until a thread allocates again. A server
/// whose connections have all fallen silent does not, and would keep the memory of its busiest
/// moment. Takes from some microseconds to a few milliseconds, by how much is kept.
pub fn give_back() {
    // Two at once would restore each other's delay.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: an option is a number in the allocator's own table, at an index within it, and both
    // that and the collection are allowed on any thread at any time.
    unsafe {
        let delay = mi_option_get(PURGE_DELAY);
        mi_option_set(PURGE_DELAY, 0);
        mi_collect(true);
        mi_option_set(PURGE_DELAY, delay);
    }
}

#[cfg(test)]
mod tests {
    use super::{PURGE_DELAY, mi_option_get};

    #[test]
    fn what_is_in_use_stays_and_the_delay_is_as_before() {
        // SAFETY: reads a number of the allocator's table.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        // mimalloc's documented defaults; with another option it would be another number.
        assert!(matches!(delay(), 10 | 1000));
        let before = delay();
        let mut kept: Vec<Vec<u8>> = (0..200).map(|n| vec![n; 10_000]).collect();
        kept.retain(|piece| piece[0] % 2 == 0);
        super::give_back();
        assert!(
            kept.iter()
                .all(|piece| piece.iter().all(|byte| *byte == piece[0]))
        );
        assert_eq!(delay(), before);
    }
}
