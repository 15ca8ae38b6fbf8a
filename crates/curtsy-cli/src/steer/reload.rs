//! `curtsy reload`: the next generation, step by step.

use super::{Whom, run, say};
use clap::Args;
use curtsy::BoxError;
use curtsy::control::Event;
use std::process::ExitCode;

/// Have a server or supervisor start the next generation, and wait until it serves.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "It restarts as by SIGHUP: the program that is at the same path by then takes over.\n\
    Exit codes: 0 the new generation serves · 1 the old one was kept, with the reason · 2 usage"
)]
pub(crate) struct Reload {
    #[command(flatten)]
    whom: Whom,
}

/// Asks, tells, and ends as the reload did.
pub(crate) fn reload(arguments: &Reload) -> ExitCode {
    run(async {
        let asked = ask(arguments).await;
        asked.map_err(|error| format!("not reloaded: {error}").into())
    })
}

async fn ask(arguments: &Reload) -> Result<ExitCode, BoxError> {
    let mut server = arguments.whom.connect().await?;
    let answer = server.reload(|event| {
        if let Event::Restart { step, text, .. } = event
            && !is_told_by_the_answer(step)
        {
            say(text);
        }
    });
    let answer = answer.await?;
    let generation = answer.generation.unwrap_or_default();
    match answer.pid {
        Some(pid) => say(&format!("generation {generation} serves (pid {pid})")),
        None => say(&format!("generation {generation} serves")),
    }
    Ok(ExitCode::SUCCESS)
}

fn is_told_by_the_answer(step: &str) -> bool {
    matches!(step, "serves" | "kept")
}
