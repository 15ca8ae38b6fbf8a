//! The one error of this crate: opaque, with predicates, its cause in `source()`.
//!
//! What happens to a request is never an error: it is an entry in the [`Report`](crate::Report).

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// Why a plan could not be made or a child process not be used.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Target,
    Child,
    Exited,
    TimedOut,
}

impl Error {
    /// The URL or the address cannot be used.
    pub fn is_target(&self) -> bool {
        self.kind == Kind::Target
    }

    /// A child process ended before what was awaited of it happened.
    pub fn is_exited(&self) -> bool {
        self.kind == Kind::Exited
    }

    /// The bound of a wait passed.
    pub fn is_timed_out(&self) -> bool {
        self.kind == Kind::TimedOut
    }

    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn with_source(kind: Kind, message: impl Into<String>, source: io::Error) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(source),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
