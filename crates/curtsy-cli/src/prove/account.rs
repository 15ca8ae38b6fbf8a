//! What came out of a session: for people, for programs, and as an exit code.

use std::fmt;
use std::process::ExitCode;

use curtsy_prove::Report;
use serde::Serialize;

use super::command::{History, Run};

/// The account of a session.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    /// Nothing was lost, something was answered, and nothing came unasked.
    clean: bool,
    /// Requests lost, and connections that should have been made.
    lost: u64,
    answers_per_second: f64,
    ending: Ending,
    #[serde(rename = "while")]
    history: Option<History>,
    #[serde(flatten)]
    pub(super) report: Report,
}

/// Why the load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// The time was over.
    Time,
    /// SIGINT or SIGTERM.
    Signal,
    /// No client was left: the listener was closed.
    Clients,
    /// Nobody was there at the beginning.
    Unreachable,
}

impl Account {
    pub(super) fn new(report: Report, ending: Ending, history: Option<History>) -> Self {
        Self {
            clean: report.is_clean(),
            lost: report.lost(),
            answers_per_second: report.rate(),
            ending,
            history,
            report,
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self.is_good() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    pub(super) fn json(&self) -> String {
        // All keys are texts or numbers, and no number is infinite: nothing in it can fail.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        text + "\n"
    }

    fn is_good(&self) -> bool {
        self.clean
            && self
                .history
                .as_ref()
                .is_none_or(|history| history.failed == 0)
    }

    fn verdict(&self) -> String {
        let counts = &self.report.counts;
        let mut bad = Vec::new();
        if self.lost > 0 {
            bad.push(format!("{} lost", self.lost));
        }
        if counts.answered == 0 {
            bad.push("nothing answered".to_owned());
        }
        if counts.unsolicited > 0 {
            bad.push("unsolicited bytes".to_owned());
        }
        if let Some(history) = self.history.as_ref().filter(|history| history.failed > 0) {
            bad.push(format!(
                "{} of {} runs of the command failed",
                history.failed, history.count
            ));
        }
        match bad.is_empty() {
            true => format!("OK: nothing lost of {} requests", counts.sent),
            false => format!("FAILED: {}", bad.join(", ")),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        if let Some(history) = &self.history {
            runs(f, history)?;
        }
        writeln!(f)?;
        match self.ending {
            Ending::Time => {}
            Ending::Signal => writeln!(f, "ended early, by a signal")?,
            Ending::Clients => writeln!(
                f,
                "ended early: nobody listened any more, which is no loss without --refused-is-loss"
            )?,
            Ending::Unreachable => writeln!(f, "ended early: nobody was there at first")?,
        }
        writeln!(f, "{}", self.verdict())
    }
}

/// The runs of the command: all of them if they are few, else the first that failed.
fn runs(f: &mut fmt::Formatter<'_>, history: &History) -> fmt::Result {
    writeln!(
        f,
        "\n  while {:?}: run {} times, failed {} times",
        history.command, history.count, history.failed
    )?;
    let is_short = history.runs.len() <= RUNS_SHOWN;
    let shown = |run: &&Run| is_short || run.failed;
    for run in history.runs.iter().filter(shown).take(RUNS_SHOWN) {
        writeln!(
            f,
            "    run {:<4} at {:>7.2} s, {:>6} ms: {}",
            run.number,
            run.at_ms as f64 / 1000.0,
            run.took_ms,
            run.outcome
        )?;
    }
    if !is_short {
        let slowest = history.runs.iter().map(|run| run.took_ms).max();
        writeln!(f, "    the slowest took {} ms", slowest.unwrap_or(0))?;
    }
    Ok(())
}

/// Runs that are told one by one.
const RUNS_SHOWN: usize = 20;
