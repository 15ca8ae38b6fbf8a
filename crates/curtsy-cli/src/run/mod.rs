//! `curtsy run`: a supervisor that owns the sockets of a service while its generations come and go.

mod brokering;
mod control;
mod diag;
mod driver;
mod launch;
mod machine;
mod probe;
mod readiness;
mod words;

pub(crate) use launch::{BECOME, BecomeArguments, become_it};

use crate::duration;
use clap::Args;
use control::Steered;
use curtsy::control::{ControlSocket, Crier, Hearing};
use curtsy::{ListenAddress, ListenOn, Listener, control_path};
use curtsy_handover::env::Start;
use curtsy_handover::notify::Notify;
use curtsy_handover::pidfile;
use driver::{Driver, Heard};
use launch::Launch;
use machine::{Event, Machine, Policy};
use readiness::Readiness;
use rustix::process::Signal;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Run a program, in any language, whose sockets outlive it: it is restarted without a refused connection.
///
/// The program gets the sockets as a service manager would give them: from descriptor 3 on, with LISTEN_FDS,
/// LISTEN_FDNAMES and LISTEN_PID; and a NOTIFY_SOCKET to say READY=1 on.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Where to listen: HOST:PORT, :PORT, or unix:/PATH[?mode=660]. May be given again
    #[arg(
        long,
        value_name = "ADDRESS",
        required_unless_present = "inherit",
        conflicts_with = "inherit"
    )]
    listen: Vec<ListenAddress>,
    /// Take the sockets of the service manager (LISTEN_FDS) instead of binding an address
    #[arg(long)]
    inherit: bool,
    /// The names of the sockets, in the order of --listen [default: main, listener-2, ...]
    #[arg(long, value_name = "NAME", value_parser = name, conflicts_with = "inherit")]
    name: Vec<String>,
    /// When a process is ready: auto, notify, tcp, http:/PATH or delay:TIME
    #[arg(long, value_name = "HOW", default_value = "auto")]
    ready: Readiness,
    /// How long it may take to be ready
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    ready_timeout: Duration,
    /// How long it may take to end after SIGTERM, before SIGKILL
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    grace: Duration,
    /// How many processes accept from the same sockets
    #[arg(long, value_name = "N", default_value = "1")]
    processes: NonZeroUsize,
    /// A file for the supervisor's own process number, which stays
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Where the control socket is (`curtsy reload`, `curtsy status`)
    /// [default: $XDG_RUNTIME_DIR/curtsy-PID.sock]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Readiness:
  auto          READY=1, or as with tcp: whichever comes first.
                With Unix sockets only: READY=1, or one second of life
  notify        READY=1 on NOTIFY_SOCKET
  tcp           the process waits for connections (epoll), or has accepted a probe's
  http:/PATH    the process answered GET PATH with 200 to 299
  delay:2s      it has lived so long
Signals: HUP reloads. TERM, INT and QUIT are passed on and stop; USR1, USR2 and WINCH are passed on.
TTIN starts one process more, TTOU ends one.
Exit codes: the program's own (128 + N for signal N) · 1 it could not start · 2 usage ·
126 it cannot be executed · 127 it is not there";

/// Runs it to its end.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let supervised = match runtime {
        Ok(runtime) => runtime.block_on(supervise(arguments)),
        Err(error) => Err(Failure::new(1, error)),
    };
    match supervised {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            say(&format!("curtsy: {}", failure.why));
            ExitCode::from(failure.status)
        }
    }
}

/// Why nothing was started.
struct Failure {
    status: u8,
    why: String,
}

impl Failure {
    fn new(status: u8, why: impl ToString) -> Self {
        let why = why.to_string();
        Self { status, why }
    }
}

async fn supervise(arguments: Arguments) -> Result<u8, Failure> {
    let start = Start::capture();
    let listeners = bind(&arguments)?;
    let has_tcp = listeners
        .iter()
        .any(|listener| listener.address().tcp().is_some());
    if arguments.ready.needs_tcp() && !has_tcp {
        let why = "--ready tcp and http ask over TCP, and all sockets are Unix sockets; use notify or delay";
        return Err(Failure::new(2, why));
    }
    // Before anything is started: its end must not be missed.
    let failed = |error| Failure::new(1, format!("cannot catch signals: {error}"));
    let children = signal(SignalKind::child()).map_err(failed)?;
    let (events, heard) = unbounded_channel();
    obey(&events).map_err(failed)?;
    let us = std::process::id();
    let crier = Crier::new();
    let steered = Steered {
        events: events.clone(),
        crier: crier.clone(),
    };
    let hearing = steer(&arguments, steered)?;
    if let Some(path) = &arguments.pidfile {
        pidfile::write(path, us).map_err(|error| {
            Failure::new(1, format!("cannot write {}: {error}", path.display()))
        })?;
    }
    for listener in &listeners {
        let (name, address) = (listener.name(), listener.address());
        let url = match address.tcp() {
            Some(address) => format!("http://{address}"),
            None => address.to_string(),
        };
        say(&format!("curtsy: {name} held on {url}  (pid {us})"));
    }
    let machine = Machine::new(Policy {
        ready_timeout: arguments.ready_timeout,
        grace: arguments.grace,
        processes: arguments.processes.get(),
    });
    let launch = Launch::new(&arguments.command, &listeners);
    let notify = Notify::new(&start);
    let readiness = arguments.ready;
    let driver = Driver::new(
        machine,
        launch,
        listeners,
        readiness,
        notify,
        (events, heard),
        crier,
    );
    let status = driver.run(children).await;
    if let Some(hearing) = hearing {
        hearing.end().await;
    }
    if let Some(path) = &arguments.pidfile
        && let Err(error) = pidfile::remove_own(path, us)
    {
        say(&format!(
            "curtsy: cannot remove {}: {error}",
            path.display()
        ));
    }
    Ok(status)
}

/// Opens the control socket. Where nobody chose its path, it is done without one if need be.
fn steer(arguments: &Arguments, steered: Steered) -> Result<Option<Hearing>, Failure> {
    let path = match &arguments.control {
        Some(path) => path.clone(),
        None => control_path(std::process::id()),
    };
    let hearing =
        ControlSocket::bind(path).and_then(|socket| socket.serve(std::sync::Arc::new(steered)));
    match hearing {
        Ok(hearing) => Ok(Some(hearing)),
        Err(error) if arguments.control.is_none() => {
            tracing::warn!(%error, "the supervisor cannot be steered");
            Ok(None)
        }
        Err(error) => Err(Failure::new(1, error)),
    }
}

fn bind(arguments: &Arguments) -> Result<Vec<Listener>, Failure> {
    if arguments.name.len() > arguments.listen.len() {
        let why = "there are more names (--name) than addresses (--listen)";
        return Err(Failure::new(2, why));
    }
    let mut wanted: Vec<ListenOn> = arguments
        .listen
        .iter()
        .map(|address| ListenOn::from(address.clone()))
        .collect();
    for (index, name) in arguments.name.iter().enumerate() {
        let on = arguments.listen[index].clone();
        wanted[index] = ListenOn::from(on).named(name);
    }
    if arguments.inherit {
        wanted.push(ListenOn::inherited());
    }
    let listeners = Listener::bind(wanted).map_err(|error| Failure::new(1, error))?;
    for listener in &listeners {
        // As service managers give them: what wants it otherwise makes it so, for all who share it.
        rustix::io::ioctl_fionbio(listener.socket(), false)
            .map_err(|error| Failure::new(1, error))?;
    }
    Ok(listeners)
}

/// Turns signals into events, for ever.
fn obey(events: &UnboundedSender<Heard>) -> std::io::Result<()> {
    let meanings = [
        (Signal::HUP, Event::Reload),
        (Signal::TERM, Event::Stop(Signal::TERM)),
        (Signal::INT, Event::Stop(Signal::INT)),
        (Signal::QUIT, Event::Stop(Signal::QUIT)),
        (Signal::USR1, Event::Pass(Signal::USR1)),
        (Signal::USR2, Event::Pass(Signal::USR2)),
        (Signal::WINCH, Event::Pass(Signal::WINCH)),
        (Signal::TTIN, Event::More),
        (Signal::TTOU, Event::Fewer),
    ];
    for (caught, meaning) in meanings {
        let mut caught = signal(SignalKind::from_raw(caught.as_raw()))?;
        let events = events.clone();
        tokio::spawn(async move {
            while caught.recv().await.is_some()
                && events.send(Heard::Event(meaning.clone())).is_ok()
            {}
        });
    }
    Ok(())
}

/// A name that fits into LISTEN_FDNAMES.
fn name(text: &str) -> Result<String, String> {
    let is_fit = !text.is_empty()
        && text.len() <= 255
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':');
    match is_fit {
        true => Ok(text.to_owned()),
        false => Err("1 to 255 visible characters without a colon".to_owned()),
    }
}

#[allow(
    clippy::print_stderr,
    reason = "this is the command's conversation with its user"
)]
fn say(text: &str) {
    eprintln!("{text}");
}
