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

/// How many milliseconds freed pages are kept.
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
    use libmimalloc_sys::{mi_free, mi_malloc};
    use std::sync::Barrier;

    #[test]
    fn the_option_is_the_one_meant() {
        // mimalloc's default; with another option it would be another number.
        assert_eq!(super::purge_delay_ms(), 1000);
        super::give_back_soon();
        assert_eq!(super::purge_delay_ms(), super::SOON_MS);
    }

    #[test]
    fn what_is_in_use_stays() {
        let mut kept: Vec<Vec<u8>> = (0..200).map(|n| vec![n; 10_000]).collect();
        kept.retain(|piece| piece[0] % 2 == 0);
        super::give_back();
        let is_whole = |piece: &Vec<u8>| piece.iter().all(|byte| *byte == piece[0]);
        assert!(kept.iter().all(is_whole));
    }

    /// What of this process is in memory, in bytes.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    #[test]
    fn what_several_threads_have_freed_goes_back() {
        const EACH: usize = 32 << 20;
        const THREADS: usize = 4;
        let (full, freed) = (Barrier::new(THREADS + 1), Barrier::new(THREADS));
        let before = resident();
        std::thread::scope(|scope| {
            let work = || {
                let pieces: Vec<usize> = (0..EACH / 8192)
                    .map(|_| {
                        // SAFETY: the piece is as large as what is written to it.
                        unsafe {
                            let piece = mi_malloc(8192);
                            piece.cast::<u8>().write_bytes(1, 8192);
                            piece as usize
                        }
                    })
                    .collect();
                full.wait();
                for piece in pieces {
                    // SAFETY: it came from there, and nobody else has it.
                    unsafe { mi_free(piece as *mut _) };
                }
                // All at the same moment.
                freed.wait();
                super::give_back();
            };
            let threads = [(); THREADS].map(|()| scope.spawn(work));
            full.wait();
            assert!(resident() > before + THREADS * EACH);
            for thread in threads {
                thread.join().unwrap();
            }
        });
        let left = resident().saturating_sub(before);
        assert!(left < THREADS * EACH / 4, "{left} bytes are still there");
    }
}
