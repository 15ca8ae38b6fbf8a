//! Everything a restart needs from the operating system, behind two traits, so that tests start no process; and what this
//! process was started with, read once.
//!
//! Invariants
//! - The environment is read by [`Start::capture`] and never written: changing it in a running program races with every
//!   other thread. What must not reach the next process is left out of the snapshot instead.
//! - The path to start again is fixed at the beginning. Once the file has been replaced, `/proc/self/exe` names what is
//!   gone.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use curtsy_sys::pidfd::{self, Exit};
use curtsy_sys::spawn::Spawn;
use curtsy_sys::watched::{Interest, Watched};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// A future that a trait object can return.
pub type Boxed<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// What the upgrader asks of the operating system.
pub trait Env: fmt::Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Instant;

    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be executed.
    fn launch(&self, launch: Launch<'_>) -> io::Result<Box<dyn Process>>;
}

/// A process that was started.
pub trait Process: fmt::Debug + Send + Sync {
    /// Its number.
    fn pid(&self) -> u32;

    /// Ends it at once. One that has ended is no error.
    ///
    /// # Errors
    /// When the operating system does not let us.
    fn kill(&self) -> io::Result<()>;

    /// Its end, reaped. Cancel safe; asked again until it resolves, and not after.
    fn exited(&mut self) -> Boxed<'_, Exit>;

    /// The last lines it wrote to standard error, complete once it has ended.
    fn last_words(&mut self) -> Boxed<'_, String>;
}

/// A process to start.
#[derive(Debug)]
pub struct Launch<'fd> {
    /// The file.
    pub program: PathBuf,
    /// Its arguments, the name first.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub vars: Vec<(OsString, OsString)>,
    /// Its directory; ours if `None`.
    pub directory: Option<PathBuf>,
    /// What it inherits, and at which numbers.
    pub fds: Vec<(BorrowedFd<'fd>, RawFd)>,
    /// Whether its standard error goes through this process until it says READY.
    pub capture_stderr: bool,
}

/// What this process was started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The file to start again.
    pub program: PathBuf,
    /// Its arguments, the name first.
    pub args: Vec<OsString>,
    /// Its environment, without what was meant for this process alone.
    pub vars: Vec<(OsString, OsString)>,
    /// Where to start it; in this process's directory if `None`.
    pub directory: Option<PathBuf>,
    /// The process that started this one, when it could be seen.
    pub parent: Option<u32>,
    /// What the parent left for us, when it is there and meant for us.
    pub summons: Option<Summons>,
    /// What another process left: that of a grandparent, which is not for us, or of a parent that has died since.
    pub stale: Option<Summons>,
}

/// What a donor says to its heir through the environment: where the channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summons {
    /// The channel's number.
    pub channel: RawFd,
    /// The number of the standard error to return to, if the present one goes through the donor.
    pub stderr: Option<RawFd>,
    /// Who wrote this. A process that is not its child (a grandchild that inherited the environment) ignores it.
    pub parent: u32,
    /// The generation that the reader is.
    pub generation: u32,
}

impl Start {
    /// Reads it all. To be called once, early.
    #[must_use]
    pub fn capture() -> Self {
        let args: Vec<OsString> = std::env::args_os().collect();
        Self::from_parts(
            args,
            std::env::vars_os().collect(),
            std::env::current_exe().ok(),
            pidfd::parent(),
        )
    }

    /// As [`Start::capture`], from what a test says.
    #[must_use]
    pub fn from_parts(
        args: Vec<OsString>,
        vars: Vec<(OsString, OsString)>,
        executable: Option<PathBuf>,
        parent: Option<u32>,
    ) -> Self {
        let variable = vars.iter().find(|(name, _)| name == VARIABLE);
        let found = variable.and_then(|(_, value)| Summons::parse(value.to_str()?));
        let is_for_us = |summons: &Summons| Some(summons.parent) == parent;
        let summons = found.filter(is_for_us);
        let stale = found.filter(|summons| !is_for_us(summons));
        let ours = |name: &OsString| {
            name.to_str()
                .is_some_and(|name| NOT_PASSED_ON.contains(&name))
        };
        Self {
            program: program(args.first(), executable),
            args,
            vars: vars.into_iter().filter(|(name, _)| !ours(name)).collect(),
            directory: None,
            parent,
            summons,
            stale,
        }
    }

    /// Which generation this process is: 0 unless it is an heir.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.summons.map_or(0, |summons| summons.generation)
    }
}

impl Summons {
    /// The variable and its value.
    #[must_use]
    pub fn variable(&self) -> (OsString, OsString) {
        let stderr = self
            .stderr
            .map_or_else(String::new, |number| format!(" stderr={number}"));
        let Self {
            channel,
            parent,
            generation,
            ..
        } = self;
        (
            VARIABLE.into(),
            format!("channel={channel}{stderr} parent={parent} generation={generation}").into(),
        )
    }

    fn parse(value: &str) -> Option<Self> {
        let field = |name: &str| {
            value
                .split(' ')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        Some(Self {
            channel: field("channel")?
                .parse()
                .ok()
                .filter(|number| *number > 2)?,
            stderr: field("stderr")
                .and_then(|number| number.parse().ok())
                .filter(|number| *number > 2),
            parent: field("parent")?.parse().ok()?,
            generation: field("generation")?.parse().ok()?,
        })
    }
}

/// The path to start again. Not `/proc/self/exe` where it can be helped: that has symbolic links resolved, and a
/// deployment that turns a link to a new directory would be restarted from the old one.
fn program(name: Option<&OsString>, executable: Option<PathBuf>) -> PathBuf {
    let named = name
        .map(PathBuf::from)
        .filter(|path| path.components().count() > 1 || path.is_absolute());
    let named = named.and_then(|path| std::path::absolute(path).ok());
    match (named, executable) {
        (Some(named), Some(executable)) if is_same_file(&named, &executable) => named,
        (_, Some(executable)) => executable,
        (Some(named), None) => named,
        (None, None) => PathBuf::from("/proc/self/exe"),
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .map(|meta| (meta.dev(), meta.ino()))
    };
    identity(a).is_some_and(|a| Some(a) == identity(b))
}

/// The variable that names the channel.
pub const VARIABLE: &str = "CURTSY_HANDOVER";

/// For this process alone: the channel, and the sockets that a service manager gave to the first generation (the later
/// ones get them through the channel).
const NOT_PASSED_ON: [&str; 5] = [
    VARIABLE,
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
];

/// The operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Env for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn launch(&self, launch: Launch<'_>) -> io::Result<Box<dyn Process>> {
        let Launch {
            program,
            args,
            vars,
            directory,
            mut fds,
            capture_stderr,
        } = launch;
        let pipe = if capture_stderr {
            // Only our end is non-blocking: the two ends are two open file descriptions.
            Some(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
        } else {
            None
        };
        if let Some((_, writer)) = &pipe {
            fds.push((writer.as_fd(), 2));
        }
        let pid = Spawn {
            program,
            args,
            vars,
            directory,
            fds,
        }
        .start()?;
        // A child's number is not reused before it is reaped, and only this process reaps it.
        let held = pidfd::open(pid).and_then(|held| Watched::new(held, Interest::READABLE));
        let held = held.inspect_err(|_| pidfd::discard(pid))?;
        let words = Arc::new(Mutex::new(Tail::default()));
        let listener = match pipe {
            Some((reader, writer)) => {
                drop(writer);
                Some(tokio::spawn(listen(
                    pipe::Receiver::from_owned_fd(reader)?,
                    Arc::clone(&words),
                )))
            }
            None => None,
        };
        Ok(Box::new(Child {
            pid,
            held,
            words,
            listener,
        }))
    }
}

/// A process that somebody else started, by its pidfd: a supervisor's child that is to be this process's heir. Its end is
/// seen, its exit status is not.
///
/// # Errors
/// When the pidfd cannot be watched.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled.
pub fn hold(pid: u32, pidfd: OwnedFd) -> io::Result<Box<dyn Process>> {
    let held = Watched::new(pidfd, Interest::READABLE)?;
    Ok(Box::new(Child {
        pid,
        held,
        words: Arc::default(),
        listener: None,
    }))
}

/// A process that is held.
#[derive(Debug)]
struct Child {
    pid: u32,
    held: Watched,
    words: Arc<Mutex<Tail>>,
    listener: Option<tokio::task::JoinHandle<()>>,
}

impl Process for Child {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn kill(&self) -> io::Result<()> {
        pidfd::kill(&self.held)
    }

    fn exited(&mut self) -> Boxed<'_, Exit> {
        Box::pin(async {
            loop {
                match pidfd::reap(&self.held) {
                    Ok(Some(exit)) => return exit,
                    Ok(None) => {}
                    Err(_) => return Exit::Unknown,
                }
                match self.held.readable().await {
                    // An end is for ever, so readiness is only cleared when it was a false alarm.
                    Ok(mut ready) if !pidfd::has_ended(&self.held) => ready.clear_ready(),
                    Ok(_) => {}
                    Err(_) => return Exit::Unknown,
                }
            }
        })
    }

    fn last_words(&mut self) -> Boxed<'_, String> {
        Box::pin(async {
            if let Some(listener) = self.listener.take() {
                // The pipe ends with the process, unless a process of its own holds it.
                let _ = tokio::time::timeout(LAST_WORDS_WAIT, listener).await;
            }
            self.words
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .text()
        })
    }
}

/// Passes a child's standard error on to ours, and keeps the end of it.
async fn listen(mut pipe: pipe::Receiver, words: Arc<Mutex<Tail>>) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&buffer[..read]);
        let mut rest = &buffer[..read];
        // Through the descriptor and not the standard library's stream: nothing is formatted, nothing can panic.
        while let Ok(written @ 1..) = rustix::io::write(rustix::stdio::stderr(), rest) {
            rest = &rest[written..];
        }
    }
}

/// The end of what was written.
#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let over = self.0.len().saturating_sub(LAST_WORDS_BYTES);
        self.0.drain(..over);
    }

    /// The last lines, whole ones unless there is but one.
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<&str> = text
            .trim_end()
            .lines()
            .rev()
            .take(LAST_WORDS_LINES)
            .collect();
        lines.reverse();
        lines.join("\n")
    }
}

/// How much of a child's standard error is remembered, bytes.
const LAST_WORDS_BYTES: usize = 8 * 1024;

/// How many lines of it are reported.
const LAST_WORDS_LINES: usize = 20;

/// How long to wait for the end of a dead child's standard error.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn start(vars: &[(&str, &str)], parent: u32) -> Start {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Start::from_parts(
            vec!["./x/../server".into(), "--flag".into()],
            vars,
            Some("/opt/server".into()),
            Some(parent),
        )
    }

    #[test]
    fn a_summons_is_for_the_child_alone_and_is_not_passed_on() {
        let summons = Summons {
            channel: 3,
            stderr: Some(4),
            parent: 77,
            generation: 5,
        };
        let (name, value) = summons.variable();
        let vars = [
            (name.to_str().unwrap(), value.to_str().unwrap()),
            ("LISTEN_FDS", "2"),
            ("HOME", "/root"),
        ];
        let child = start(&vars, 77);
        assert_eq!(child.summons, Some(summons));
        assert_eq!(child.generation(), 5);
        assert_eq!(child.vars, vec![("HOME".into(), "/root".into())]);
        let grandchild = start(&vars, 78);
        assert_eq!((grandchild.summons, grandchild.generation()), (None, 0));
        assert_eq!((grandchild.stale, child.stale), (Some(summons), None));
        for bad in [
            "",
            "channel=3",
            "channel=1 parent=77 generation=1",
            "channel=x parent=77 generation=1",
        ] {
            assert_eq!(start(&[(VARIABLE, bad)], 77).summons, None, "{bad:?}");
        }
    }

    #[test]
    fn the_path_is_as_it_was_called_if_that_is_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(
            program(Some(&link.clone().into()), Some(real.clone())),
            link
        );
        assert_eq!(
            program(Some(&"lies/about/it".into()), Some(real.clone())),
            real
        );
        assert_eq!(program(Some(&"server".into()), Some(real.clone())), real);
        assert_eq!(program(None, None), PathBuf::from("/proc/self/exe"));
    }

    #[test]
    fn the_tail_is_bounded_in_bytes_and_lines() {
        let mut tail = Tail::default();
        for line in 0..10_000 {
            tail.push(format!("line {line}\n").as_bytes());
        }
        let text = tail.text();
        assert_eq!(text.lines().count(), LAST_WORDS_LINES);
        assert!(text.ends_with("line 9999"));
        assert!(tail.0.len() <= LAST_WORDS_BYTES);
    }

    #[tokio::test]
    async fn a_child_is_heard_killed_and_reaped() {
        let shell = |script: &str| Launch {
            program: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            vars: vec![],
            directory: None,
            fds: vec![],
            capture_stderr: true,
        };
        let mut loud = System.launch(shell("echo broken >&2; exit 7")).unwrap();
        assert_eq!(loud.exited().await, Exit::Status(7));
        assert_eq!(loud.last_words().await, "broken");
        let mut deaf = System.launch(shell("exec sleep 60")).unwrap();
        deaf.kill().unwrap();
        assert_eq!(deaf.exited().await, Exit::Signal(9));
        assert!(
            System
                .launch(Launch {
                    program: "/nonexistent".into(),
                    ..shell("")
                })
                .is_err()
        );
    }
}
