//! The commands that steer a running server, or supervisor, over its control socket.
//!
//! What was asked for goes to standard output; what is said about it, to standard error.

mod drain;
mod find;
mod lists;
mod orders;
mod reload;
mod status;
mod text;

pub(crate) use drain::{Drain, drain};
pub(crate) use find::Whom;
pub(crate) use lists::{Connections, Stragglers, connections, stragglers};
pub(crate) use orders::{
    Kill, LogLevel, ReloadCertificates, Stop, Switch, Undrain, kill, log_level,
    reload_certificates, stop, switch, undrain,
};
pub(crate) use reload::{Reload, reload};
pub(crate) use status::{StatusOf, share, status};
use text::bar;
pub(crate) use text::{age, bytes, clean, count};

use curtsy::BoxError;
use std::io::Write;
use std::process::ExitCode;

/// Runs what is asked; its exit code, or 1 with the reason.
fn run(what: impl Future<Output = Result<ExitCode, BoxError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(what),
        Err(error) => Err(error.into()),
    };
    done.unwrap_or_else(|error| {
        say(&error.to_string());
        ExitCode::from(1)
    })
}

/// For people.
fn say(text: &str) {
    crate::voice::say(&format!("curtsy: {text}\n"));
}

/// What was asked for.
fn print(text: &str) -> Result<(), BoxError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // `curtsy connections | head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A value as a line of JSON.
fn json(value: &impl serde::Serialize) -> Result<String, BoxError> {
    Ok(format!("{}\n", serde_json::to_string(value)?))
}
