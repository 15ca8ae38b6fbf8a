//! Where control sockets are, whose they are, and how dead ones go.
//!
//! A server killed with -9 leaves its path behind. A path with a process's number in it would never
//! be bound again, so whoever binds one looks after the others in that directory: a socket that
//! refuses connections, and whose process is gone, is removed. Both must be so: between its bind and
//! its listen a living server's socket refuses, too.

use crate::error::{Error, Kind};
use crate::listener::Listener;
use rustix::fs::{FileType, lstat};
use rustix::process::{Pid, test_kill_process};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const ENDING: &str = ".sock";
const BEGINNING: &str = "curtsy-";
/// What the socket of a process that has not taken over yet is called meanwhile.
const MEANWHILE: &str = ".curtsy-";

/// Where the control socket of process `pid` is unless its program says otherwise:
/// `$XDG_RUNTIME_DIR/curtsy-<pid>.sock`, or `/tmp/curtsy-<uid>-<pid>.sock` without such a
/// directory.
pub fn control_path(pid: u32) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(directory) => Path::new(&directory).join(format!("{BEGINNING}{pid}{ENDING}")),
        None => {
            let user = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("{BEGINNING}{user}-{pid}{ENDING}"))
        }
    }
}

/// The control sockets where [`control_path`] puts them, those of this user alone, in the order of
/// their names. Some may be dead.
///
/// # Errors
/// If the directory cannot be read.
pub fn control_paths() -> io::Result<Vec<PathBuf>> {
    let somebody = control_path(0);
    let directory = somebody.parent().unwrap_or(Path::new("/"));
    let prefix = name(&somebody).trim_end_matches("0.sock").to_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if name(&path).starts_with(&prefix) && process(name(&path)).is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// The process that a name of ours names.
fn process(name: &str) -> Option<u32> {
    if let Some(rest) = name.strip_prefix(MEANWHILE) {
        return rest.split_once('-')?.0.parse().ok();
    }
    let rest = name.strip_prefix(BEGINNING)?.strip_suffix(ENDING)?;
    rest.rsplit('-').next()?.parse().ok()
}

/// Removes what dead processes left in that directory.
pub(crate) fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(pid) = process(name(&path)) else {
            continue;
        };
        if !is_alive(pid) && is_dead_socket(&path) && std::fs::remove_file(&path).is_ok() {
            tracing::debug!(path = %path.display(), "removed a dead control socket");
        }
    }
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn is_dead_socket(path: &Path) -> bool {
    lstat(path).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::Socket
            && rustix::process::geteuid().as_raw() == found.st_uid
    }) && UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A name beside `path` that nobody else takes.
pub(crate) fn meanwhile(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    path.with_file_name(format!("{MEANWHILE}{pid}-{count}"))
}

/// The path of a control socket. It goes with the socket; and where another process has it still, it
/// is taken over when this one has proved itself.
#[derive(Clone, Debug)]
pub(crate) struct Place(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    bound: Option<Listener>,
    /// Not its own yet.
    wanted: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new(bound: Listener, wanted: Option<PathBuf>) -> Self {
        let bound = Some(bound);
        Self(Arc::new(Mutex::new(Held { bound, wanted })))
    }

    /// One that is not had yet.
    pub(crate) fn none() -> Self {
        let (bound, wanted) = (None, None);
        Self(Arc::new(Mutex::new(Held { bound, wanted })))
    }

    /// Has it from now on.
    pub(crate) fn put(&self, bound: Listener) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.bound = Some(bound);
    }

    /// Takes the path over, if it was another's.
    pub(crate) fn claim(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wanted) = held.wanted.take() else {
            return;
        };
        let Some(bound) = &mut held.bound else { return };
        if let Err(error) = bound.move_to(&wanted) {
            let path = wanted.display();
            tracing::error!(%error, "cannot take the control socket {path} over");
        }
    }

    /// Removes the path, if it is still its own.
    pub(crate) fn leave(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(held.bound.take());
    }

    /// The listening socket, for a runtime.
    pub(crate) fn socket(&self) -> Result<std::os::unix::net::UnixListener, Error> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = match &held.bound {
            Some(bound) => bound.socket().try_clone_to_owned(),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        socket
            .map(Into::into)
            .map_err(|e| Error::because(Kind::Control, "cannot use the control socket", e))
    }
}

#[cfg(test)]
mod tests {
    use super::{control_path, is_alive, meanwhile, process, sweep};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    #[test]
    fn names_tell_their_process() {
        let path = control_path(4711);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(process(name), Some(4711));
        for (name, expected) in [
            ("curtsy-12.sock", Some(12)),
            ("curtsy-1000-12.sock", Some(12)),
            (".curtsy-12-0", Some(12)),
            ("curtsy-.sock", None),
            ("curtsy-x.sock", None),
            ("other-12.sock", None),
            ("control.sock", None),
        ] {
            assert_eq!(process(name), expected, "{name}");
        }
        let beside = meanwhile(Path::new("/run/app/control.sock"));
        assert_eq!(beside.parent(), Some(Path::new("/run/app")));
        let name = beside.file_name().unwrap().to_str().unwrap();
        assert_eq!(process(name), Some(std::process::id()));
    }

    #[test]
    fn only_dead_sockets_of_dead_processes_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let us = std::process::id();
        // Above what the kernel gives out.
        let dead = 0x7fff_fff0;
        assert!(is_alive(us) && !is_alive(dead));
        let living = UnixListener::bind(at(&format!("curtsy-1-{dead}.sock"))).unwrap();
        let starting = at(&format!("curtsy-{us}.sock"));
        drop(UnixListener::bind(&starting).unwrap());
        let left = at(&format!("curtsy-{dead}.sock"));
        drop(UnixListener::bind(&left).unwrap());
        let on_trial = at(&format!(".curtsy-{dead}-0"));
        drop(UnixListener::bind(&on_trial).unwrap());
        let other = at("app.sock");
        drop(UnixListener::bind(&other).unwrap());
        let file = at(&format!("curtsy-2-{dead}.sock"));
        std::fs::write(&file, "precious").unwrap();

        sweep(directory.path());
        assert!(!left.exists() && !on_trial.exists());
        assert!(starting.exists() && other.exists() && file.exists());
        assert!(at(&format!("curtsy-1-{dead}.sock")).exists());
        drop(living);
    }
}
