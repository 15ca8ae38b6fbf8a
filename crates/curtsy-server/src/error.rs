//! What can go wrong with a server as a whole. What goes wrong with one connection is logged, not
//! returned.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// Why a server could not start or go on.
///
/// Its text names the thing and, where there is one, the way out; its kind is told by the `is_*`
/// methods, and the operating system's own error is its [`source`](StdError::source).
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    text: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Address,
    Bind,
    Inherit,
    Closed,
    Accept,
    Config,
    Runtime,
    Restart,
    Certificate,
    Control,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    pub(crate) fn because(
        kind: Kind,
        text: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            text: text.into(),
            source: Some(source.into()),
        }
    }

    /// The same kind of error, as the cause of what it keeps from happening.
    pub(crate) fn within(self, text: impl Into<String>) -> Self {
        Self::because(self.kind, text, self)
    }

    /// Whether what was wanted is somebody else's now, and may be free later.
    pub(crate) fn is_in_use(&self) -> bool {
        let mut cause = self.source();
        while let Some(error) = cause {
            let found = error.downcast_ref::<io::Error>();
            if found.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// An address that cannot be understood or resolved.
    pub fn is_address(&self) -> bool {
        self.kind == Kind::Address
    }

    /// A listener could not be bound: the port is in use, privileged, not ours; the path is taken.
    pub fn is_bind(&self) -> bool {
        self.kind == Kind::Bind
    }

    /// Inherited descriptors were promised and are not there or not listening sockets, or the
    /// process before this one could not hand over.
    pub fn is_inherit(&self) -> bool {
        self.kind == Kind::Inherit
    }

    /// The server was told to stop before it was run: it bound its listeners and has closed them.
    pub fn is_server_closed(&self) -> bool {
        self.kind == Kind::Closed
    }

    /// Accepting failed in a way that does not pass.
    pub fn is_accept(&self) -> bool {
        self.kind == Kind::Accept
    }

    /// An option is out of its range or two of them contradict each other.
    pub fn is_config(&self) -> bool {
        self.kind == Kind::Config
    }

    /// A restart failed; the old process goes on serving.
    pub fn is_restart(&self) -> bool {
        self.kind == Kind::Restart
    }

    /// A certificate or its key cannot be used: it does not parse, they do not fit each other, it
    /// has expired.
    pub fn is_certificate(&self) -> bool {
        self.kind == Kind::Certificate
    }

    /// The control socket could not be had, or whoever is behind it did not understand or refused.
    pub fn is_control(&self) -> bool {
        self.kind == Kind::Control
    }

    /// The asynchronous runtime could not be had or does not fit.
    pub fn is_runtime(&self) -> bool {
        self.kind == Kind::Runtime
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
