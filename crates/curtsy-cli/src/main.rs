//! The `curtsy` command.
//!
//! Exit codes: 0 the server drained, 1 it could not start or serve, 2 usage, 3 the deadline
//! passed (or a second signal came) and stragglers were cut. `curtsy run` exits as its program did.

#![forbid(unsafe_code)]

mod demo;
mod documents;
mod duration;
mod log;
mod number;
mod progress;
mod prove;
mod run;
mod steer;
mod top;
mod voice;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An HTTP server for the whole life of a service: start, serve, reload, restart, switch, stop,
/// without losing one request.
///
/// Without a command it runs the demo.
#[derive(Debug, Parser)]
#[command(name = "curtsy", version, propagate_version = true)]
#[command(after_help = "Examples:\n  \
    curtsy                                  the demo on 127.0.0.1:9000\n  \
    curtsy demo --listen :8080 --linger 0s  on every address, stopping as Go's servers do\n  \
    curtsy run --listen :9000 -- ./app      a program of yours, restarted without a refused connection\n  \
    curl 'http://127.0.0.1:9000/slow?ms=5000' & curtsy drain --wait\n\
    \n\
    CURTSY_LOG says how much is logged: error, warn (the default), info, debug; or by module:\n\
    CURTSY_LOG=info,curtsy_server=debug. `curtsy log-level` changes it while a server runs.\n\
    \n\
    A command exits with 0 if all is well, 1 if not, 2 if it was called wrongly; some have more to\n\
    say, and say so in their help.")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Prove(prove::Arguments),
    Run(run::Arguments),
    Status(steer::StatusOf),
    Top(top::Arguments),
    Stragglers(steer::Stragglers),
    Connections(steer::Connections),
    Reload(steer::Reload),
    Switch(steer::Switch),
    ReloadCertificates(steer::ReloadCertificates),
    Drain(steer::Drain),
    Undrain(steer::Undrain),
    Stop(steer::Stop),
    Kill(steer::Kill),
    LogLevel(steer::LogLevel),
    Completions(documents::Completions),
    Man(documents::Man),
    #[command(name = run::BECOME, hide = true)]
    Become(run::BecomeArguments),
}

fn main() -> ExitCode {
    // With huge pages the first byte of a buffer makes all of it resident, and its neighbours: idle
    // connections would cost twice as much, and the process 2 MiB more. Where it cannot be done, they do.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    curtsy_sys::allocator::give_back_soon();
    let arguments = Arguments::parse();
    log::begin();
    let command = arguments
        .command
        .unwrap_or_else(|| Command::Demo(demo::Arguments::default()));
    // What serves must not wait for whoever reads what it says.
    let serves = matches!(command, Command::Demo(_) | Command::Run(_));
    let last_words = serves.then(voice::begin);
    let code = match command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Prove(arguments) => prove::run(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Status(arguments) => steer::status(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Stragglers(arguments) => steer::stragglers(&arguments),
        Command::Connections(arguments) => steer::connections(&arguments),
        Command::Reload(arguments) => steer::reload(&arguments),
        Command::Switch(arguments) => steer::switch(&arguments),
        Command::ReloadCertificates(arguments) => steer::reload_certificates(&arguments),
        Command::Drain(arguments) => steer::drain(&arguments),
        Command::Undrain(arguments) => steer::undrain(&arguments),
        Command::Stop(arguments) => steer::stop(&arguments),
        Command::Kill(arguments) => steer::kill(&arguments),
        Command::LogLevel(arguments) => steer::log_level(&arguments),
        Command::Completions(arguments) => documents::completions(&arguments),
        Command::Man(arguments) => documents::man(&arguments),
        Command::Become(arguments) => run::become_it(arguments),
    };
    drop(last_words);
    curtsy_sys::allocator::keep_all();
    code
}
