//! Who is told of a server's life: the service manager, and the file with the process number.
//!
//! Only the process that is the service speaks, because the manager listens to nobody else: the old one says who comes
//! after it, and is silent from then on. The file names the process that has proved itself.

use crate::restart::RestartStep;
use curtsy_handover::notify::Notify;
use curtsy_handover::{Start, pidfile};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
pub(crate) struct Herald {
    notify: Notify,
    pidfile: Option<PathBuf>,
    has_left: bool,
}

impl Herald {
    pub(crate) fn new(start: &Start, pidfile: Option<PathBuf>) -> Self {
        Self {
            notify: Notify::new(start),
            pidfile,
            has_left: false,
        }
    }

    /// This process accepts, and nobody is the service but it.
    pub(crate) fn ready(&self) {
        self.tell(self.notify.ready());
    }

    /// This process is the one that is left.
    pub(crate) fn proved(&self) {
        if let Some(path) = &self.pidfile {
            tell_file(path, pidfile::write(path, std::process::id()));
        }
    }

    /// A restart goes on.
    pub(crate) fn step(&mut self, step: &RestartStep<'_>) {
        match step {
            RestartStep::Begun { .. } => self.tell(self.notify.reloading()),
            RestartStep::Ready { .. } | RestartStep::Moved { .. } => {}
            RestartStep::Serves { pid, .. } => {
                self.tell(self.notify.main_pid(*pid));
                self.has_left = true;
            }
            RestartStep::Kept(_) => self.tell(self.notify.ready()),
        }
    }

    /// The server stops.
    pub(crate) fn stopping(&self) {
        if !self.has_left {
            self.tell(self.notify.stopping());
        }
    }

    /// It has stopped.
    pub(crate) fn stopped(&self) {
        if let Some(path) = &self.pidfile {
            tell_file(
                path,
                pidfile::remove_own(path, std::process::id()).map(drop),
            );
        }
    }

    fn tell(&self, told: io::Result<()>) {
        // A service is not ended because somebody does not want to hear of it.
        if let Err(error) = told {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

/// The same of the file.
fn tell_file(path: &Path, told: io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(pidfile = %path.display(), %error, "the pid file could not be written or removed");
    }
}
