//! What a compiler cannot know: which way the code of a request nearly always goes.
//!
//! A server comes back to its own code from the kernel's with most of that out of the processor's nearest cache. What it
//! then fetches are whole lines, so the code that a request does run should lie side by side, and what is for the few
//! that are otherwise elsewhere. Without a word the compiler leaves it where it stands in the source.

use std::hint::cold_path;

/// The condition, which is hardly ever true.
///
/// ```
/// use curtsy_sys::hint::unlikely;
///
/// let length = 3;
/// assert!(!unlikely(length > 1 << 20));
/// ```
#[inline(always)]
pub fn unlikely(condition: bool) -> bool {
    if condition {
        cold_path();
    }
    condition
}

/// What was found, as it nearly always is.
///
/// ```
/// use curtsy_sys::hint::expected;
///
/// let number: Option<u32> = expected("12".parse().ok());
/// assert_eq!(number, Some(12));
/// ```
#[inline(always)]
pub fn expected<T>(found: Option<T>) -> Option<T> {
    if found.is_none() {
        cold_path();
    }
    found
}
