//! What can become of a request and of a connection: the words of the account.
//!
//! Every request that was begun ends in exactly one of "answered" and the causes of [`Loss`]; every connection that was
//! opened ends in exactly one of [`Closed`].

use std::fmt;
use std::io;

use serde::Serialize;

/// Why a request counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// `ECONNRESET` or `EPIPE` while the request was written or its answer read.
    Reset,
    /// The peer closed before the first byte of the answer.
    EofBefore,
    /// The peer closed in the middle of the answer.
    EofInside,
    /// A whole answer with another status than the expected ones.
    WrongStatus,
    /// A whole answer with another length or content than expected.
    WrongBody,
    /// No whole answer within the time allowed for a request.
    Timeout,
    /// What came is not HTTP.
    Garbage,
    /// HTTP/2: the server said that it has not looked at the request (GOAWAY, `REFUSED_STREAM`). It could be sent again; a
    /// client that retries nothing has lost it.
    Unprocessed,
}

impl Loss {
    /// Every cause, in the order in which reports list them.
    pub const ALL: [Self; 8] = [
        Self::Reset,
        Self::EofBefore,
        Self::EofInside,
        Self::WrongStatus,
        Self::WrongBody,
        Self::Timeout,
        Self::Garbage,
        Self::Unprocessed,
    ];

    /// The name used in reports, as `eof_before`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::EofBefore => "eof_before",
            Self::EofInside => "eof_inside",
            Self::WrongStatus => "wrong_status",
            Self::WrongBody => "wrong_body",
            Self::Timeout => "timeout",
            Self::Garbage => "garbage",
            Self::Unprocessed => "unprocessed",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The answer before said that it would be the last one.
    ByServerAnnounced,
    /// The peer closed (or reset) while no request was in flight and none was being written.
    WhileIdle,
    /// It took a request with it, or an answer on it was wrong in its framing.
    ByLoss,
    /// The run was over, or the plan wants a new connection for each request.
    ByClient,
}

/// A request's misfortune: the cause, and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) loss: Loss,
    pub(crate) detail: String,
}

impl Trouble {
    pub(crate) fn new(loss: Loss, detail: impl Into<String>) -> Self {
        Self {
            loss,
            detail: detail.into(),
        }
    }

    /// An I/O error while writing a request or reading its answer.
    pub(crate) fn from_io(error: &io::Error, doing: &str) -> Self {
        let loss = if error.kind() == io::ErrorKind::InvalidData {
            Loss::Garbage
        } else {
            Loss::Reset
        };
        Self::new(loss, format!("{doing}: {error}"))
    }
}
