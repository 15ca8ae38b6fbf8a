//! The phase of a whole server.

use std::fmt;

/// Where a server is in its life. A server goes through its phases in this order, never back,
/// with one exception: a lame duck may be recalled to [`Phase::Serving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Built, its listeners bound, not yet accepting.
    Starting = 0,
    /// Accepting and answering.
    Serving = 1,
    /// Still accepting and answering, but telling load balancers to look elsewhere.
    LameDuck = 2,
    /// No longer accepting; finishing what there is.
    Draining = 3,
    /// Over.
    Stopped = 4,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Serving,
        Self::LameDuck,
        Self::Draining,
        Self::Stopped,
    ];

    /// The phase whose number (`phase as u8`) this is.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Starting),
            1 => Some(Self::Serving),
            2 => Some(Self::LameDuck),
            3 => Some(Self::Draining),
            4 => Some(Self::Stopped),
            _ => None,
        }
    }

    /// Whether a load balancer should send requests here: only while [`Phase::Serving`].
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Serving)
    }

    /// The word for people and for the control socket: `starting`, `serving`, `lame-duck`,
    /// `draining`, `stopped`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::LameDuck => "lame-duck",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Phase;

    #[test]
    fn numbers_and_phases_are_one_to_one() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_u8(phase as u8), Some(phase));
        }
        assert_eq!(Phase::from_u8(5), None);
    }
}
