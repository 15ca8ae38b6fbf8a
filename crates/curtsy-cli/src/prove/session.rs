//! One session: the load, the command beside it, the signals that end it early, and its end.
//!
//! The load goes on until the time is over, and, with a command, until its last run has ended and some time after it has
//! passed: what a reload does to connections comes after it as often as during it.

use std::time::Duration;

use curtsy_prove::{Counts, Plan, Report, Running};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::account::{Account, Ending};
use super::arguments::Arguments;
use super::command::{RUNS_KEPT, Repeated, Run, Step};
use super::live::{Live, Moment};
use super::signals::Signals;

/// Runs it; the error says why there is nothing to account for.
pub(super) async fn run(plan: Plan, arguments: &Arguments) -> Result<Account, String> {
    let signals = Signals::new().map_err(|error| format!("cannot catch signals: {error}"))?;
    let command = arguments
        .command
        .as_ref()
        .map(|text| Repeated::new(text, arguments.pause, arguments.while_timeout));
    let session = Session {
        run: plan.start(),
        command,
        signals,
        live: Live::new(arguments.seconds),
        arguments,
    };
    Box::pin(session.drive()).await
}

struct Session<'a> {
    run: Running,
    command: Option<Repeated>,
    signals: Signals,
    live: Live,
    arguments: &'a Arguments,
}

impl Session<'_> {
    async fn drive(mut self) -> Result<Account, String> {
        let ending = self.load().await;
        self.live.clear();
        self.run.stop();
        if ending == Ending::Signal {
            self.live
                .say("curtsy: waiting for what is under way; the same again ends at once");
            if let Some(command) = &mut self.command {
                command.interrupt();
            }
        }
        if !self.finish().await {
            if let Some(command) = &mut self.command {
                command.kill();
            }
            return Err("ended at once by a second signal, without a report".to_owned());
        }
        let report = self.run.finish().await;
        if report.counts.sent == 0 {
            return Err(unreachable(&self.arguments.url, &report));
        }
        let history = self.command.map(Repeated::into_history);
        Ok(Account::new(report, ending, history))
    }

    /// Lets the load go on until there is a reason to end it.
    async fn load(&mut self) -> Ending {
        let mut end = Instant::now() + self.arguments.seconds;
        // When the time after the last run of the command is over, too.
        let mut settled = Instant::now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_time_over = false;
        loop {
            tokio::select! {
                biased;
                () = self.signals.next() => return Ending::Signal,
                () = self.run.wait_clients() => return Ending::Clients,
                step = next(&mut self.command, &mut self.live) => {
                    self.tell(&step);
                    settled = Instant::now() + self.arguments.pause.min(AFTER);
                    if is_time_over {
                        end = settled;
                    }
                }
                () = sleep_until(end), if !(is_time_over && self.is_command_running()) => {
                    match self.command.as_mut().filter(|_| !is_time_over) {
                        Some(command) => {
                            command.end();
                            is_time_over = true;
                            end = settled;
                        }
                        None => return Ending::Time,
                    }
                }
                _ = tick.tick() => {
                    let counts = self.run.counts();
                    if self.is_hopeless(&counts) {
                        return Ending::Unreachable;
                    }
                    self.show(&counts);
                }
            }
        }
    }

    /// Waits for the requests under way, and for the command if a signal came while it ran. False: a second signal came.
    async fn finish(&mut self) -> bool {
        if let Some(command) = &mut self.command {
            command.end();
        }
        let mut is_load_over = false;
        while !is_load_over || self.is_command_running() {
            tokio::select! {
                biased;
                () = self.signals.next() => return false,
                step = next(&mut self.command, &mut self.live) => self.tell(&step),
                () = self.run.wait_clients(), if !is_load_over => is_load_over = true,
            }
        }
        true
    }

    fn is_command_running(&self) -> bool {
        self.command.as_ref().is_some_and(Repeated::is_running)
    }

    /// Marks what the command did, and says it if it failed.
    fn tell(&mut self, step: &Step) {
        match step {
            Step::Began(number) if *number <= RUNS_MARKED => {
                self.run.mark_in("during a run", &format!("run {number}"));
            }
            Step::Began(_) => {}
            Step::Ended(run) => {
                self.live.take_back();
                if run.number <= RUNS_MARKED {
                    self.run.mark_in("after a run", &after(run));
                }
                if run.failed && run.number <= RUNS_KEPT as u64 {
                    self.live.say(&format!(
                        "curtsy: run {} of {:?} failed: {}, after {} ms",
                        run.number,
                        self.arguments.command.as_deref().unwrap_or_default(),
                        run.outcome,
                        run.took_ms
                    ));
                }
            }
        }
    }

    fn show(&mut self, counts: &Counts) {
        let refused = match self.arguments.is_refusal_a_loss() {
            true => counts.refused,
            false => 0,
        };
        self.live.show(&Moment {
            elapsed: self.run.elapsed(),
            counts,
            lost: counts.lost.total() + counts.connect_failed + refused,
            command: self
                .command
                .as_ref()
                .map(|command| (command.history().count, command.is_running()))
                .filter(|(count, _)| *count > 0),
        });
    }

    /// Nobody was there from the beginning: going on would only count the tries.
    fn is_hopeless(&self, counts: &Counts) -> bool {
        let tries = counts.refused + counts.connect_failed;
        let enough = TRIES_ENOUGH.min(self.arguments.connections() as u64);
        counts.sent == 0 && tries >= enough
    }
}

/// The next step of the command; without one, it never comes. The command has the terminal to itself when it begins.
async fn next(command: &mut Option<Repeated>, live: &mut Live) -> Step {
    match command {
        Some(command) => command.next(|| live.lend()).await,
        None => std::future::pending().await,
    }
}

fn after(run: &Run) -> String {
    match run.failed {
        false => format!("after run {}", run.number),
        true => format!("after run {} ({})", run.number, run.outcome),
    }
}

/// Why no request could even be sent.
fn unreachable(url: &str, report: &Report) -> String {
    if report.counts.connect_failed > 0 {
        let errors: Vec<&str> = report.connect_errors.keys().map(String::as_str).collect();
        let errors = errors.join("; ");
        let hint = match errors.contains("invalid peer certificate") {
            true => " (--insecure takes any certificate)",
            false => "",
        };
        format!("cannot reach {url}: {errors}{hint}")
    } else if report.counts.refused > 0 {
        format!("cannot reach {url}: connection refused, nobody listens there")
    } else {
        format!("ended before anything was sent to {url}")
    }
}

/// How often the line on the terminal moves, and how soon it is noticed that nobody is there.
const TICK: Duration = Duration::from_millis(100);
/// How long the load goes on at most after the last run of the command.
const AFTER: Duration = Duration::from_secs(1);
/// So many failed connects, and no request sent, mean that the server cannot be reached.
const TRIES_ENOUGH: u64 = 10;
/// Each run has two marks, and a report keeps 1,000; the runs after these belong to the time after the last of them.
const RUNS_MARKED: u64 = 499;
