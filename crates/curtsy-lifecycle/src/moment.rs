//! Time as the life cycle sees it: milliseconds since the server's own beginning.
//!
//! Deliberately absent: `now()`. The caller owns the clock.

use std::fmt;
use std::time::Duration;

/// A point in time: milliseconds since an epoch that the caller chose (in Curtsy's server, the
/// moment the process built its first server).
///
/// ```
/// use curtsy_lifecycle::Moment;
/// use std::time::Duration;
///
/// let start = Moment::from_millis(1_000);
/// let later = start + Duration::from_millis(250);
/// assert_eq!(later.since(start), Duration::from_millis(250));
/// assert_eq!(start.since(later), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `ms` milliseconds after the epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    /// Rounds the duration down to whole milliseconds and saturates: "for ever" stays for ever.
    #[inline]
    fn add(self, after: Duration) -> Self {
        let ms = after.as_secs().saturating_mul(1_000);
        let ms = ms.saturating_add(u64::from(after.subsec_millis()));
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}
