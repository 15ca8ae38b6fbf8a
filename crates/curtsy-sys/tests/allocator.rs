//! Memory goes back to the system. In a process of its own: what others have in memory would count.
#![cfg(feature = "mimalloc")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use curtsy_sys::allocator::give_back;
use libmimalloc_sys::{mi_free, mi_malloc};
use std::sync::Barrier;

/// What of this process is in memory, in bytes: counted page by page, which `statm` is not (proc_pid_smaps(5)).
fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Rss:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
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
            // It is looked at now.
            full.wait();
            for piece in pieces {
                // SAFETY: it came from there, and nobody else has it.
                unsafe { mi_free(piece as *mut _) };
            }
            // All at the same moment.
            freed.wait();
            give_back();
        };
        let threads = [(); THREADS].map(|()| scope.spawn(work));
        full.wait();
        let there = resident() - before;
        full.wait();
        assert!(there > THREADS * EACH, "only {there} bytes are there");
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let left = resident().saturating_sub(before);
    assert!(left < THREADS * EACH / 4, "{left} bytes are still there");
}
