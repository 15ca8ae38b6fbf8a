//! The kernel's clocks (`clock_gettime(2)`), and how it counts processor time.
//!
//! They are asked through libc: rustix, which goes without it, looks for what the kernel told the process at its start
//! itself, and takes a fault where a tool has put some of that out of sight, as valgrind does.

use std::mem::MaybeUninit;
use std::time::Duration;

/// Which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It only ever goes on; the same for all processes of a machine, until it is started again.
    Monotonic,
    /// The same, as it was at the last tick: some milliseconds ago, for less.
    MonotonicCoarse,
    /// The time of day since 1970, as it was at the last tick.
    RealtimeCoarse,
}

/// What the clock shows.
///
/// ```
/// use curtsy_sys::clock::{Clock, now};
///
/// let before = now(Clock::Monotonic);
/// assert!(now(Clock::Monotonic) >= before);
/// ```
#[inline]
pub fn now(clock: Clock) -> Duration {
    let id = match clock {
        Clock::Monotonic => libc::CLOCK_MONOTONIC,
        Clock::MonotonicCoarse => libc::CLOCK_MONOTONIC_COARSE,
        Clock::RealtimeCoarse => libc::CLOCK_REALTIME_COARSE,
    };
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: it writes one timespec, and for these clocks, which every Linux has, it does not fail.
    unsafe { libc::clock_gettime(id, time.as_mut_ptr()) };
    // SAFETY: zeroed, it is one as well.
    let time = unsafe { time.assume_init() };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// How many ticks make the second that the kernel counts processor time in (`proc_pid_stat(5)`).
pub fn ticks_per_second() -> u64 {
    // SAFETY: it takes nothing and changes nothing.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    // On Linux programs are told 100, whatever the kernel's own are.
    u64::try_from(ticks).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clocks_are_a_tick_behind_at_most() {
        let coarse = now(Clock::MonotonicCoarse);
        let exact = now(Clock::Monotonic);
        assert!(coarse <= exact);
        let tick = Duration::from_millis(100);
        assert!(now(Clock::MonotonicCoarse) + tick >= exact, "{exact:?}");
        let day = std::time::SystemTime::UNIX_EPOCH + now(Clock::RealtimeCoarse);
        let now = std::time::SystemTime::now();
        let behind = now.duration_since(day).unwrap_or_default();
        assert!(behind < Duration::from_secs(1), "{behind:?}");
    }

    #[test]
    fn processor_time_is_counted_in_hundredths() {
        assert_eq!(ticks_per_second(), 100);
    }
}
