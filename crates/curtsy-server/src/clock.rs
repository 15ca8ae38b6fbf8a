//! The one clock of the server: the kernel's coarse monotonic clock.
//!
//! A few nanoseconds a look and a few milliseconds of resolution: ages and time limits need no
//! more, and the request path looks at it.

use curtsy_lifecycle::Moment;
use curtsy_sys::clock::{self, Clock};

/// The current moment, to a few milliseconds. All moments of one machine are comparable until it
/// is restarted.
#[inline]
pub(crate) fn now() -> Moment {
    let time = clock::now(Clock::MonotonicCoarse);
    Moment::from_millis(time.as_secs() * 1_000 + u64::from(time.subsec_millis()))
}
