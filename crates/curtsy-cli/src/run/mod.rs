//! `curtsy run`: a supervisor that owns the sockets of a service while its generations come and go.

mod brokering;
mod control;
mod diag;
mod driver;
mod launch;
mod machine;
mod probe;
mod readiness;
mod settings;
mod words;

pub(crate) use launch::{BECOME, BecomeArguments, become_it};
pub(crate) use settings::Arguments;

use control::Steered;
use curtsy::control::{ControlSocket, Crier, Hearing};
use curtsy::{ListenOn, Listener, control_path};
use curtsy_handover::env::Start;
use curtsy_handover::notify::Notify;
use curtsy_handover::pidfile;
use driver::{Driver, Heard, Plan};
use machine::{Event, Machine, Policy};
use rustix::process::Signal;
use settings::Fixed;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

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
#[derive(Debug)]
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
    let settings = arguments.settings()?;
    if arguments.check {
        say("curtsy: flags and file are in order");
        return Ok(0);
    }
    let fixed = settings.fixed.clone();
    let listeners = bind(&fixed)?;
    let has_tcp = listeners
        .iter()
        .any(|listener| listener.address().tcp().is_some());
    // Those of a service manager are known by now.
    if settings.ready.needs_tcp() && !has_tcp {
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
    let hearing = steer(&fixed, steered)?;
    if let Some(path) = &fixed.pidfile {
        pidfile::write(path, us).map_err(|error| {
            Failure::new(
                1,
                format!("cannot write the pid file {}: {error}", path.display()),
            )
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
        ready_timeout: settings.ready_timeout,
        grace: settings.grace,
        processes: fixed.processes.get(),
    });
    let plan = Plan::new(&settings, &listeners);
    let notify = Notify::new(&start);
    let driver = Driver::new(
        machine,
        plan,
        (arguments, fixed.clone()),
        listeners,
        notify,
        (events, heard),
        crier,
    );
    let status = driver.run(children).await;
    if let Some(hearing) = hearing {
        hearing.end().await;
    }
    if let Some(path) = &fixed.pidfile
        && let Err(error) = pidfile::remove_own(path, us)
    {
        say(&format!(
            "curtsy: cannot remove the pid file {}: {error}",
            path.display()
        ));
    }
    Ok(status)
}

/// Opens the control socket. Where nobody chose its path, it is done without one if need be.
fn steer(fixed: &Fixed, steered: Steered) -> Result<Option<Hearing>, Failure> {
    let path = match &fixed.control {
        Some(path) => path.clone(),
        None => control_path(std::process::id()),
    };
    let hearing =
        ControlSocket::bind(path).and_then(|socket| socket.serve(std::sync::Arc::new(steered)));
    match hearing {
        Ok(hearing) => Ok(Some(hearing)),
        Err(error) if fixed.control.is_none() => {
            tracing::warn!(%error, "the supervisor cannot be steered");
            Ok(None)
        }
        Err(error) => Err(Failure::new(1, error)),
    }
}

fn bind(fixed: &Fixed) -> Result<Vec<Listener>, Failure> {
    let mut wanted: Vec<ListenOn> = fixed
        .listen
        .iter()
        .map(|address| ListenOn::from(address.clone()))
        .collect();
    for (index, name) in fixed.name.iter().enumerate() {
        let on = fixed.listen[index].clone();
        wanted[index] = ListenOn::from(on).named(name);
    }
    if fixed.inherit {
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

fn say(text: &str) {
    crate::voice::say(&format!("{text}\n"));
}
