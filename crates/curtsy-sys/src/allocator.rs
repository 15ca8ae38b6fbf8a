//! Settings of the mimalloc allocator, for programs that use it.

use libmimalloc_sys::{mi_option_get, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`; the bindings do not name it.
const PURGE_DELAY: mi_option_t = 15;

/// Has freed pages given back to the system at once instead of at the next opportunity.
///
/// mimalloc waits some milliseconds, and then for a thread to allocate again. A server whose
/// connections have all fallen silent does not, and would keep the memory of its busiest moment.
pub fn give_back_at_once() {
    // SAFETY: setting an option is a store into the allocator's own table, at an index within it;
    // the allocator allows it at any time.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
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
}
