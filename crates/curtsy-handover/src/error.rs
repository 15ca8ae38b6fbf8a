//! The crate's one error.

use std::fmt;
use std::io;

use crate::failure::Failure;

/// Why a restart did not happen, or an inheritance was not to be had. The process that asked goes on as before.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    /// The new process's last lines on standard error.
    last_words: String,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// The new process could not be started.
    Exec(io::Error),
    /// It was started, and then this happened.
    Failed(Failure),
    /// As many old generations as allowed are still draining.
    TooManyGenerations(usize),
    /// This process has handed over already; its heir was asked instead.
    Forwarded(u32),
    /// This process has handed over already, and the heir is gone.
    Over,
    /// A supervisor of this number started this process, and is not to take its end for a death.
    Supervised(u32),
    /// The operating system.
    Io(&'static str, io::Error),
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self(Box::new(Inner {
            kind,
            last_words: String::new(),
        }))
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(Kind::Io(what, error))
    }

    pub(crate) fn failed(failure: Failure, last_words: String) -> Self {
        Self(Box::new(Inner {
            kind: Kind::Failed(failure),
            last_words,
        }))
    }

    fn failure(&self) -> Option<&Failure> {
        match &self.0.kind {
            Kind::Failed(failure) => Some(failure),
            Kind::Exec(_)
            | Kind::TooManyGenerations(_)
            | Kind::Forwarded(_)
            | Kind::Over
            | Kind::Supervised(_)
            | Kind::Io(..) => None,
        }
    }

    /// The new process could not be executed.
    #[must_use]
    pub fn is_exec(&self) -> bool {
        matches!(self.0.kind, Kind::Exec(_))
    }

    /// The other process ended, or closed the handover.
    #[must_use]
    pub fn is_crash(&self) -> bool {
        matches!(self.failure(), Some(Failure::Crashed(_)))
    }

    /// The new process was too slow: to be ready, to answer, or to prove itself.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.failure(),
            Some(Failure::NotReady(_) | Failure::NotBaked(_) | Failure::Hung(_))
        )
    }

    /// The other process speaks another version of the protocol.
    #[must_use]
    pub fn is_other_version(&self) -> bool {
        matches!(self.failure(), Some(Failure::Version { .. }))
    }

    /// The other process broke the protocol.
    #[must_use]
    pub fn is_protocol(&self) -> bool {
        matches!(self.failure(), Some(Failure::Protocol(_)))
    }

    /// The other process ended it, and said why.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.failure(), Some(Failure::Refused(_)))
    }

    /// It was called off here.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.failure(), Some(Failure::Cancelled))
    }

    /// Too many old generations are still draining.
    #[must_use]
    pub fn is_too_many_generations(&self) -> bool {
        matches!(self.0.kind, Kind::TooManyGenerations(_))
    }

    /// This process has an heir already, which was asked to restart in its place. Nothing failed.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        matches!(self.0.kind, Kind::Forwarded(_))
    }

    /// A supervisor (`curtsy run`) started this process, and is the one to start the next.
    #[must_use]
    pub fn is_supervised(&self) -> bool {
        matches!(self.0.kind, Kind::Supervised(_))
    }

    /// The last lines that the new process wrote to standard error before it failed; empty if it wrote none.
    #[must_use]
    pub fn last_words(&self) -> &str {
        &self.0.last_words
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error")
            .field(&self.0.kind)
            .field(&self.0.last_words)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Exec(error) => write!(f, "the new process could not be started: {error}")?,
            Kind::Failed(failure) => write!(f, "{failure}")?,
            Kind::TooManyGenerations(living) => {
                write!(f, "{living} old generations are still draining")?
            }
            Kind::Forwarded(generation) => write!(
                f,
                "generation {generation} serves by now, and was asked instead"
            )?,
            Kind::Over => {
                f.write_str("this process has handed over, and the new process is gone")?
            }
            Kind::Supervised(pid) => write!(
                f,
                "this process is supervised, and its end would be taken for a death: ask the supervisor \
                 (pid {pid}) for a reload"
            )?,
            Kind::Io(what, error) => write!(f, "{what}: {error}")?,
        }
        if !self.0.last_words.is_empty() {
            write!(f, "; its last words were:\n{}", self.0.last_words)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            Kind::Exec(error) | Kind::Io(_, error) => Some(error),
            Kind::Failed(_)
            | Kind::TooManyGenerations(_)
            | Kind::Forwarded(_)
            | Kind::Over
            | Kind::Supervised(_) => None,
        }
    }
}
