//! `curtsy prove`: a strict client that accounts for every request while something is done to the server.
//!
//! The counting is the library's (`curtsy-prove`); here is what a person at a terminal, or a script, needs around it. Invariants:
//! stdout carries the report and nothing else, so that `--json` can be piped; what happens meanwhile is told on stderr. Once
//! a request was sent, there is a report, however the run ended; only a second signal does without.

mod account;
mod arguments;
mod command;
mod live;
mod session;
mod signals;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use account::Account;
pub(crate) use arguments::Arguments;

/// Runs it to its end.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    if let Err(why) = arguments.check() {
        arguments::usage(&why);
    }
    match prove(&arguments) {
        Ok(account) => account.exit_code(),
        Err(why) => {
            live::say(&format!("curtsy: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn prove(arguments: &Arguments) -> Result<Account, String> {
    let plan = match arguments.plan() {
        Ok(plan) => plan,
        // Not a URL at all is a matter of usage; a name that nobody knows is one of the network.
        Err(error) if std::error::Error::source(&error).is_none() => {
            arguments::usage(&error.to_string())
        }
        Err(error) => return Err(error.to_string()),
    };
    allow_connections(arguments.connections())?;
    // Opened now: ten minutes of load are not to end with a misspelt directory.
    let picture = match &arguments.svg {
        Some(path) => Some((File::create(path).map_err(|e| named(path, &e))?, path)),
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let outcome = runtime.block_on(session::run(plan, arguments));
    runtime.shutdown_background();
    let account = outcome?;
    if let Some((mut file, path)) = picture {
        let svg = account.report.svg();
        file.write_all(svg.as_bytes())
            .map_err(|e| named(path, &e))?;
    }
    let text = match arguments.json {
        true => account.json(),
        false => account.to_string(),
    };
    // A reader that has gone away (`| head`) does not change what came out.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(account)
}

fn named(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// Raises the soft limit of descriptors as far as the connections need it.
fn allow_connections(connections: usize) -> Result<(), String> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let needed = connections as u64 + DESCRIPTORS_BESIDE;
    let mut limit = getrlimit(Resource::Nofile);
    // None is no limit.
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(most) = limit.maximum
        && most < needed
    {
        return Err(format!(
            "{connections} connections need {needed} descriptors, and this process may have {most} (ulimit -Hn)"
        ));
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("setrlimit: {error}"))
}

/// What this process has open beside its connections, with room to spare.
const DESCRIPTORS_BESIDE: u64 = 64;
