//! Telling the processor what will be read next.
//!
//! With a thousand connections the state of each is cold when its turn comes: it is fetched line by line, each when it is
//! first touched, and many of these lines are only found by what stands in another. Asked for all of it at once, the
//! processor fetches side by side.

/// The size of a cache line, in bytes.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Asks for all of `value`, and does not wait for it. Nothing happens where the processor has no such instruction that
/// Rust offers.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_first(value, usize::MAX);
}

/// The same for so many lines from its beginning, or fewer if it has no more.
#[inline]
pub fn prefetch_first<T: ?Sized>(value: &T, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first = std::ptr::from_ref(value).cast::<i8>();
        for offset in (0..size_of_val(value)).step_by(LINE).take(lines) {
            // SAFETY: it is a hint that reads nothing and fails for no address; this one is within `value`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, lines);
}

#[cfg(test)]
mod tests {
    use super::{prefetch, prefetch_first};

    #[test]
    fn it_changes_nothing() {
        let value: Vec<u8> = (0..=255).collect();
        prefetch(value.as_slice());
        prefetch(&value);
        prefetch("");
        prefetch_first(&value, 1);
        prefetch_first(value.as_slice(), 100);
        prefetch(&());
        assert!(value.iter().copied().eq(0..=255));
    }
}
