//! Orders that are obeyed at once or refused.

use super::{Whom, run, say};
use clap::Args;
use curtsy::ModeName;
use curtsy::control::Command;
use std::process::ExitCode;

/// Switch a listener to another mode while it is in use.
#[derive(Args, Clone, Debug)]
pub(crate) struct Switch {
    /// The listener: `main`, unless it was given another name
    name: String,
    /// plain, tls or both
    mode: ModeName,
    #[command(flatten)]
    whom: Whom,
}

/// Let a server read its certificates' files again.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReloadCertificates {
    #[command(flatten)]
    whom: Whom,
}

/// Stop a server at once, whatever it is doing.
#[derive(Args, Clone, Debug)]
#[command(after_help = "What is under way is cut. To stop in good order: curtsy drain")]
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
pub(crate) struct Kill {
    /// Its number, as `curtsy connections` and `curtsy stragglers` have it
    #[arg(value_name = "ID")]
    connection: u64,
    #[command(flatten)]
    whom: Whom,
}

/// Have a server log more, or less.
#[derive(Args, Clone, Debug)]
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
