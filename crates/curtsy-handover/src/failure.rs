//! Why a handover failed: what happened, for people and for `is_*` predicates alike.

use std::fmt;
use std::time::Duration;

use curtsy_sys::pidfd::Exit;

use crate::wire::WireError;

/// What went wrong between two generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The heir's process ended, or closed the channel. Without a status while its end is awaited.
    Crashed(Option<Exit>),
    /// READY did not come in this time.
    NotReady(Duration),
    /// BAKED did not come in this time.
    NotBaked(Duration),
    /// An offered connection was not answered in this time.
    Hung(Duration),
    /// The peer speaks another version of the protocol.
    Version {
        /// Which.
        theirs: u16,
    },
    /// The peer said something that makes no sense.
    Protocol(String),
    /// The peer ended the handover, and said why.
    Refused(String),
    /// The server changed its mind.
    Cancelled,
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Version { theirs } => Self::Version { theirs },
            WireError::Magic
            | WireError::Type { .. }
            | WireError::Critical { .. }
            | WireError::TooLong
            | WireError::Malformed(_) => Self::Protocol(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashed(None) => f.write_str("the new process closed the handover"),
            Self::Crashed(Some(exit)) => write!(f, "the new process ended with {exit}"),
            Self::NotReady(limit) => write!(f, "the new process was not ready within {limit:?}"),
            Self::NotBaked(limit) => {
                write!(f, "the new process did not prove itself within {limit:?}")
            }
            Self::Hung(limit) => write!(f, "the new process did not answer within {limit:?}"),
            Self::Version { theirs } => {
                let ours = crate::wire::VERSION;
                write!(
                    f,
                    "the other process speaks handover protocol version {theirs}, and this one version {ours}"
                )
            }
            Self::Protocol(what) => {
                write!(f, "the other process broke the handover protocol: {what}")
            }
            Self::Refused(reason) => write!(f, "the other process ended the handover: {reason}"),
            Self::Cancelled => f.write_str("the handover was called off"),
        }
    }
}
