//! Orders that are obeyed at once or refused.

use super::{Whom, run, say};
use crate::number;
use clap::Args;
use curtsy::ModeName;
use curtsy::control::Command;
use std::process::ExitCode;

/// Switch a listener to another mode while it is in use.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    curtsy switch main both     HTTP and HTTPS on one port\n  \
    curtsy switch main tls      HTTPS; connections that do not encrypt are drained\n\
    The server needs a certificate (`curtsy demo`: --cert and --key, or --tls self-signed).\n\
    Exit codes: 0 it speaks so · 1 it does not, with the reason, and nothing has changed · 2 usage")]
pub(crate) struct Switch {
    /// The listener: `main`, unless it was given another name; `curtsy status` lists them
    name: String,
    /// plain (HTTP), tls (HTTPS), or both
    mode: ModeName,
    #[command(flatten)]
    whom: Whom,
}

/// Let a server read its certificates' files again.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Connections that are open stay; new ones get the new certificates. What cannot be used is told, and\n\
    changes nothing.\n\
    Exit codes: 0 they are in use · 1 they are not, with the reason · 2 usage"
)]
pub(crate) struct ReloadCertificates {
    #[command(flatten)]
    whom: Whom,
}

/// Stop a server at once, whatever it is doing.
#[derive(Args, Clone, Debug)]
#[command(after_help = "What is under way is cut. To stop in good order: curtsy drain --wait")]
pub(crate) struct Stop {
    #[command(flatten)]
    whom: Whom,
}

/// Take an order to drain back, while the server is a lame duck.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 it serves again · 1 it was too late, or nothing to take back · 2 usage"
)]
pub(crate) struct Undrain {
    #[command(flatten)]
    whom: Whom,
}

/// Cut one connection.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example: curtsy stragglers --limit 1, and then curtsy kill 12\n\
    Exit codes: 0 it is cut · 1 there is no such connection · 2 usage"
)]
pub(crate) struct Kill {
    /// Its number, as `curtsy connections` and `curtsy stragglers` have it
    #[arg(value_name = "ID", value_parser = number::connection)]
    connection: u64,
    #[command(flatten)]
    whom: Whom,
}

/// Have a server log more, or less.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    curtsy log-level info\n  \
    curtsy log-level warn,curtsy_server=debug\n  \
    curtsy log-level warn       as it is without CURTSY_LOG\n\
    The processes that take over from this one log as much.")]
pub(crate) struct LogLevel {
    /// off, error, warn, info, debug or trace; or by module: `info,curtsy_server=debug`
    level: String,
    #[command(flatten)]
    whom: Whom,
}

pub(crate) fn switch(arguments: &Switch) -> ExitCode {
    let command = Command::Switch {
        listener: arguments.name.clone(),
        mode: arguments.mode.to_string(),
    };
    let done = format!("{} speaks {} now", arguments.name, arguments.mode);
    order(&arguments.whom, command, &done)
}

pub(crate) fn reload_certificates(arguments: &ReloadCertificates) -> ExitCode {
    let done = "the certificates were read again";
    order(&arguments.whom, Command::ReloadCertificates {}, done)
}

pub(crate) fn stop(arguments: &Stop) -> ExitCode {
    order(&arguments.whom, Command::Stop {}, "it stops at once")
}

pub(crate) fn undrain(arguments: &Undrain) -> ExitCode {
    order(&arguments.whom, Command::Undrain {}, "it serves again")
}

pub(crate) fn kill(arguments: &Kill) -> ExitCode {
    let connection = arguments.connection;
    let done = format!("connection {connection} was cut");
    order(&arguments.whom, Command::Kill { connection }, &done)
}

pub(crate) fn log_level(arguments: &LogLevel) -> ExitCode {
    let level = arguments.level.clone();
    let done = format!("the log level is {level} now");
    order(&arguments.whom, Command::LogLevel { level }, &done)
}

fn order(whom: &Whom, command: Command, done: &str) -> ExitCode {
    run(async {
        whom.connect().await?.ask(command).await?;
        say(done);
        Ok(ExitCode::SUCCESS)
    })
}
