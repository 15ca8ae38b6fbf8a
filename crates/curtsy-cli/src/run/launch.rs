//! Starting the command as `LISTEN_FDS` programs expect it.
//!
//! `LISTEN_PID` must be the number of the process that executes the command, and nobody knows it before that process
//! exists. So what is started is `curtsy` itself, which puts its own number there and becomes the command ([`become_it`]):
//! the number stays.
//!
//! Invariants:
//! - The command inherits the listening sockets, from 3 on, and the standard streams; nothing else.
//! - It leads a process group: a signal from the terminal reaches the supervisor alone, which passes it on once, and what
//!   the command started can be killed with it.
//! - It is told to end (SIGTERM) when the supervisor dies, so that no orphan keeps the sockets.
//! - A command that cannot be executed says why in the words of the service manager protocol, `ERRNO=` and `STATUS=`.

use clap::Args;
use curtsy::Listener;
use curtsy_handover::broker::{self, Broker};
use curtsy_handover::env::Start;
use curtsy_handover::notify::Notify;
use curtsy_sys::spawn::Spawn;
use rustix::process::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// The name of the inner command.
pub(crate) const BECOME: &str = "__become";
/// The program as it was when it was started, whatever is at its path now.
const SELF: &str = "/proc/self/exe";
const FIRST_FD: RawFd = 3;
/// What is the supervisor's own business with whoever started it.
const NOT_PASSED_ON: [&str; 9] = [
    "CURTSY_HANDOVER",
    broker::VARIABLE,
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
/// As shells have it.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// The command with its sockets.
#[derive(Debug)]
pub(crate) struct Launch {
    args: Vec<OsString>,
    vars: Vec<(OsString, OsString)>,
}

impl Launch {
    pub(crate) fn new(command: &[OsString], listeners: &[Listener]) -> Self {
        let mut args: Vec<OsString> = vec!["curtsy".into(), BECOME.into(), "--".into()];
        args.extend_from_slice(command);
        let is_passed_on = |name: &OsString| {
            !name
                .to_str()
                .is_some_and(|name| NOT_PASSED_ON.contains(&name))
        };
        let mut vars: Vec<(OsString, OsString)> = std::env::vars_os()
            .filter(|(name, _)| is_passed_on(name))
            .collect();
        let names: Vec<&str> = listeners.iter().map(Listener::name).collect();
        vars.push(("LISTEN_FDS".into(), names.len().to_string().into()));
        vars.push(("LISTEN_FDNAMES".into(), names.join(":").into()));
        vars.push(Broker::variable());
        Self { args, vars }
    }

    /// Starts one process; its number.
    pub(crate) fn start(&self, listeners: &[Listener], notify: &str) -> io::Result<u32> {
        let mut vars = self.vars.clone();
        vars.push(("NOTIFY_SOCKET".into(), notify.into()));
        let sockets = listeners.iter().map(Listener::socket);
        let fds: Vec<(BorrowedFd<'_>, RawFd)> = sockets.zip(FIRST_FD..).collect();
        Spawn {
            program: PathBuf::from(SELF),
            args: self.args.clone(),
            vars,
            directory: None,
            fds,
        }
        .start()
    }
}

/// What `curtsy run` starts itself as.
#[derive(Args, Clone, Debug)]
pub(crate) struct BecomeArguments {
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the command; returns only if that cannot be.
pub(crate) fn become_it(arguments: BecomeArguments) -> ExitCode {
    // Both fail only on systems where there is no such thing.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    let Some((program, rest)) = arguments.command.split_first() else {
        return ExitCode::from(2);
    };
    let error = std::process::Command::new(program)
        .args(rest)
        .env("LISTEN_PID", std::process::id().to_string())
        .exec();
    let why = format!("cannot execute {}: {error}", program.display());
    let errno = error.raw_os_error().unwrap_or(0);
    let told = Notify::new(&Start::capture()).failed(errno, &why);
    if let Err(unheard) = told {
        super::say(&format!("curtsy: {why} (and cannot say so: {unheard})"));
    }
    match error.kind() == io::ErrorKind::NotFound {
        true => ExitCode::from(NOT_FOUND),
        false => ExitCode::from(NOT_EXECUTABLE),
    }
}
