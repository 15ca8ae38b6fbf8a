//! What a compiler cannot know: which way the code of a request nearly always goes.
//!
//! A server comes back to its own code from the kernel's with most of that out of the processor's nearest cache. What it
//! then fetches are whole lines, so the code that a request does run should lie side by side, and what is for the few
//! that are otherwise elsewhere. Without a word the compiler leaves it where it stands in the source.

use std::hint::cold_path;

/// The condition, which is hardly ever true.
#[inline(always)]
pub(crate) fn unlikely(condition: bool) -> bool {
    if condition {
        cold_path();
    }
    condition
}

/// What was found, as it nearly always is.
#[inline(always)]
pub(crate) fn expected<T>(found: Option<T>) -> Option<T> {
    if found.is_none() {
        cold_path();
    }
    found
}
