//! The one clock of the server: the kernel's coarse monotonic clock.
//!
//! A few nanoseconds a look and a few milliseconds of resolution: ages and time limits need no
//! more, and the request path looks at it.

use curtsy_lifecycle::Moment;
use rustix::time::{ClockId, clock_gettime};

/// The current moment, to a few milliseconds. All moments of one machine are comparable until it
/// is restarted.
#[inline]
pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment::from_millis(seconds * 1_000 + nanos / 1_000_000)
}
