//! What is told on stderr while a run goes on: a line that moves, on a terminal; elsewhere only what went wrong.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use curtsy_prove::Counts;

/// The line that moves.
#[derive(Debug)]
pub(super) struct Live {
    is_terminal: bool,
    is_coloured: bool,
    length: Duration,
    last: (Instant, u64),
    rate: f64,
    /// Until then the terminal is the command's.
    lent_until: Option<Instant>,
}

/// What it tells.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    pub(super) elapsed: Duration,
    pub(super) counts: &'a Counts,
    pub(super) lost: u64,
    /// The command's runs so far, and whether one is under way.
    pub(super) command: Option<(u64, bool)>,
}

impl Live {
    pub(super) fn new(length: Duration) -> Self {
        let is_terminal = stderr().is_terminal();
        Self {
            is_terminal,
            is_coloured: is_terminal && std::env::var_os("NO_COLOR").is_none(),
            length,
            last: (Instant::now(), 0),
            rate: 0.0,
            lent_until: None,
        }
    }

    /// The command begins, and may write to the same terminal: most say what they do at once, and end soon. With one that
    /// takes its time the line comes back.
    pub(super) fn lend(&mut self) {
        self.clear();
        self.lent_until = Some(Instant::now() + LENT);
    }

    /// The command has ended.
    pub(super) fn take_back(&mut self) {
        self.lent_until = None;
    }

    pub(super) fn show(&mut self, moment: &Moment<'_>) {
        if !self.is_terminal || self.lent_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let (at, answered) = self.last;
        if at.elapsed() >= RATE_OVER || answered == 0 {
            let more = moment.counts.answered.saturating_sub(answered);
            self.rate = more as f64 / at.elapsed().as_secs_f64();
            if at.elapsed() >= RATE_OVER {
                self.last = (Instant::now(), moment.counts.answered);
            }
        }
        let line = line(moment, self.length, self.rate);
        let line = match self.is_coloured && moment.lost > 0 {
            true => format!("\x1b[31m{line}\x1b[0m"),
            false => line,
        };
        // A line that wrapped could not be taken back: no wrapping while it is written.
        write(&format!("\r\x1b[2K\x1b[?7l{line}\x1b[?7h"));
    }

    /// Says something for good, above the line that moves.
    pub(super) fn say(&self, text: &str) {
        self.clear();
        say(text);
    }

    pub(super) fn clear(&self) {
        if self.is_terminal {
            write("\r\x1b[2K");
        }
    }
}

fn line(moment: &Moment<'_>, length: Duration, rate: f64) -> String {
    let c = moment.counts;
    let closed =
        c.closed_by_server_announced + c.closed_while_idle + c.closed_by_loss + c.closed_by_client;
    let mut line = format!(
        "{:.1} of {} s  {} answered ({rate:.0}/s)  {} lost  {} open",
        moment.elapsed.as_secs_f64(),
        length.as_secs_f64(),
        c.answered,
        moment.lost,
        c.opened.saturating_sub(closed)
    );
    match moment.command {
        Some((run, true)) => line += &format!("  run {run} of the command"),
        Some((run, false)) => line += &format!("  after run {run}"),
        None => {}
    }
    line
}

/// Writes a line to stderr.
pub(super) fn say(text: &str) {
    write(&format!("{text}\n"));
}

fn write(text: &str) {
    let mut out = stderr().lock();
    // A closed stderr must not end the run.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The time over which answers per second are told.
const RATE_OVER: Duration = Duration::from_secs(1);
/// How long the command has the terminal to itself.
const LENT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_time_answers_losses_and_the_command() {
        let mut counts = Counts::default();
        counts.answered = 1234;
        counts.opened = 12;
        counts.closed_while_idle = 2;
        let mut moment = Moment {
            elapsed: Duration::from_millis(2500),
            counts: &counts,
            lost: 1,
            command: None,
        };
        let length = Duration::from_secs(10);
        let text = line(&moment, length, 617.0);
        assert_eq!(text, "2.5 of 10 s  1234 answered (617/s)  1 lost  10 open");
        moment.command = Some((3, true));
        assert!(line(&moment, length, 0.0).ends_with("  run 3 of the command"));
        moment.command = Some((3, false));
        assert!(line(&moment, length, 0.0).ends_with("  after run 3"));
    }
}
