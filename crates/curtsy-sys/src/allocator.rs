//! Settings of the mimalloc allocator, for programs that use it.

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`; the bindings do not name it.
const PURGE_DELAY: mi_option_t = 15;

/// Has freed pages given back to the system at once instead of at the next opportunity.
///
/// mimalloc waits a second, and then for a thread to allocate again. A server whose connections
/// have all fallen silent does not, and would keep the memory of its busiest moment.
pub fn give_back_at_once() {
    // SAFETY: setting an option is a store into the allocator's own table, at an index within it;
    // the allocator allows it at any time.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}

/// Gives back the pages that this thread keeps for its next allocations, and nothing stands in.
///
/// Takes from some microseconds to a few milliseconds, by how many there are.
pub fn give_back() {
    // SAFETY: the allocator allows it on any thread at any time.
    unsafe { mi_collect(true) };
}

/// How many milliseconds freed pages are kept.
pub fn purge_delay_ms() -> i64 {
    // SAFETY: reads the table that `give_back_at_once` writes.
    unsafe { mi_option_get(PURGE_DELAY) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_option_is_the_one_meant() {
        // mimalloc's documented default; with another option it would be another number.
        assert!(matches!(super::purge_delay_ms(), 10 | 1000));
        super::give_back_at_once();
        assert_eq!(super::purge_delay_ms(), 0);
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
