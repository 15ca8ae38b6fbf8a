//! The command of `--while`: run by a shell, again and again, with a pause before each run.
//!
//! It inherits stderr, and gets it as stdout too: a pipe to this process would break under a server that the command starts and
//! leaves running. At a terminal it stays in the foreground's process group, so that it can ask for a password and gets Ctrl-C like
//! any command; elsewhere it has a group of its own, so that one that hangs can be killed with what it started.

use std::io::{self, IsTerminal, stderr, stdin};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout_at};

/// A command that is run again and again.
#[derive(Debug)]
pub(super) struct Repeated {
    text: String,
    pause: Duration,
    limit: Duration,
    started: Instant,
    state: State,
    /// A run under way was interrupted with the load: how it ends says nothing about it.
    is_interrupted: bool,
    history: History,
}

#[derive(Debug)]
enum State {
    /// Nothing runs; the next run begins then.
    Pausing {
        until: Instant,
    },
    Running {
        child: Child,
        begun: Instant,
    },
    /// Nothing runs, and nothing will.
    Over,
}

/// What has just happened.
#[derive(Debug)]
pub(super) enum Step {
    /// The run with this number began.
    Began(u64),
    /// A run ended.
    Ended(Run),
}

/// What became of all its runs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct History {
    pub(super) command: String,
    /// How many runs there were.
    pub(super) count: u64,
    /// How many of them failed.
    pub(super) failed: u64,
    /// The first [`RUNS_KEPT`] of them.
    pub(super) runs: Vec<Run>,
}

/// One run of the command.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    /// The first is 1.
    pub(super) number: u64,
    /// When it began, in milliseconds since the load did.
    pub(super) at_ms: u64,
    /// How long it took.
    pub(super) took_ms: u64,
    /// It did not exit with 0, and was not interrupted together with the load.
    pub(super) failed: bool,
    /// Its exit code, if it exited.
    pub(super) exit_code: Option<i32>,
    /// How it ended, in words: `exit 1`, `signal 9`, `killed after 60s`.
    pub(super) outcome: String,
}

impl Repeated {
    /// The first run begins after a pause.
    pub(super) fn new(text: &str, pause: Duration, limit: Duration) -> Self {
        let started = Instant::now();
        Self {
            text: text.to_owned(),
            pause,
            limit,
            started,
            state: State::Pausing {
                until: started + pause,
            },
            is_interrupted: false,
            history: History {
                command: text.to_owned(),
                count: 0,
                failed: 0,
                runs: Vec::new(),
            },
        }
    }

    /// Waits for the next run to begin, or for the one under way to end; for ever after [`end`](Self::end). `before` is called
    /// just before a run begins.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, before: impl FnOnce()) -> Step {
        match &mut self.state {
            State::Over => std::future::pending().await,
            State::Pausing { until } => {
                sleep_until(*until).await;
                before();
                self.begin()
            }
            State::Running { child, begun } => {
                let begun = *begun;
                match timeout_at(begun + self.limit, child.wait()).await {
                    Ok(outcome) => self.ended(begun, outcome),
                    Err(_) => {
                        kill(child);
                        let limit = self.limit;
                        self.enter(begun, None, format!("killed after {limit:?}"))
                    }
                }
            }
        }
    }

    /// No run begins any more; one that is under way goes on.
    pub(super) fn end(&mut self) {
        if !self.is_running() {
            self.state = State::Over;
        }
        // So that the state after the run under way is `Over`, too.
        self.pause = Duration::MAX;
    }

    /// As [`end`](Self::end), because of a signal that a run under way may have got as well.
    pub(super) fn interrupt(&mut self) {
        self.end();
        self.is_interrupted = true;
    }

    /// Kills the run under way.
    pub(super) fn kill(&mut self) {
        if let State::Running { child, .. } = &mut self.state {
            kill(child);
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn into_history(self) -> History {
        self.history
    }

    fn begin(&mut self) -> Step {
        self.history.count += 1;
        let begun = Instant::now();
        match spawn(&self.text) {
            Ok(child) => {
                self.state = State::Running { child, begun };
                Step::Began(self.history.count)
            }
            Err(error) => self.enter(begun, None, format!("cannot run sh: {error}")),
        }
    }

    fn ended(&mut self, begun: Instant, outcome: io::Result<ExitStatus>) -> Step {
        match outcome {
            Ok(status) => {
                let words = match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exit {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => status.to_string(),
                };
                self.enter(begun, status.code(), words)
            }
            Err(error) => self.enter(begun, None, format!("cannot wait for it: {error}")),
        }
    }

    fn enter(&mut self, begun: Instant, exit_code: Option<i32>, outcome: String) -> Step {
        self.state = match Instant::now().checked_add(self.pause) {
            Some(until) => State::Pausing { until },
            None => State::Over,
        };
        let run = Run {
            number: self.history.count,
            at_ms: millis(begun - self.started),
            took_ms: millis(begun.elapsed()),
            failed: exit_code != Some(0) && !self.is_interrupted,
            exit_code,
            outcome: match self.is_interrupted {
                true => format!("{outcome} (interrupted)"),
                false => outcome,
            },
        };
        self.history.failed += u64::from(run.failed);
        if self.history.runs.len() < RUNS_KEPT {
            self.history.runs.push(run.clone());
        }
        Step::Ended(run)
    }
}

fn spawn(text: &str) -> io::Result<Child> {
    let mut command = Command::new("sh");
    command
        .args(["-c", text])
        .stdin(Stdio::null())
        .stdout(stderr().as_fd().try_clone_to_owned()?);
    if !stdin().is_terminal() {
        command.process_group(0);
    }
    command.spawn()
}

/// Kills the shell, and everything in its group if it has one of its own.
fn kill(child: &mut Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    // It was not waited for, so that its number is its own; an error means that it has no group, or that nobody is left.
    if let Some(pid) = pid {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.start_kill();
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Runs that are told one by one; the counts go on.
pub(super) const RUNS_KEPT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The next run, from its beginning to its end.
    async fn one(repeated: &mut Repeated) -> Run {
        assert!(matches!(repeated.next(|| {}).await, Step::Began(_)));
        match repeated.next(|| {}).await {
            Step::Ended(run) => run,
            Step::Began(number) => panic!("run {number} began while one was under way"),
        }
    }

    fn repeated(text: &str) -> Repeated {
        Repeated::new(text, Duration::from_millis(1), Duration::from_secs(60))
    }

    #[tokio::test]
    async fn tells_how_each_run_ended() {
        for (text, failed, exit_code, outcome) in [
            ("true", false, Some(0), "exit 0"),
            ("exit 7", true, Some(7), "exit 7"),
            ("kill -9 $$", true, None, "signal 9"),
        ] {
            let run = one(&mut repeated(text)).await;
            let told = (run.failed, run.exit_code, run.outcome.as_str());
            assert_eq!(told, (failed, exit_code, outcome), "{text}");
        }
    }

    #[tokio::test]
    async fn runs_again_until_its_end() {
        let mut repeated = repeated("false");
        one(&mut repeated).await;
        assert_eq!(one(&mut repeated).await.number, 2);
        assert!(matches!(repeated.next(|| {}).await, Step::Began(3)));
        repeated.end();
        assert!(repeated.is_running());
        assert!(matches!(repeated.next(|| {}).await, Step::Ended(_)));
        let more = tokio::time::timeout(Duration::from_millis(50), repeated.next(|| {})).await;
        assert!(more.is_err(), "{more:?}");
        let history = repeated.into_history();
        assert_eq!((history.count, history.failed), (3, 3));
    }

    #[tokio::test]
    async fn one_that_is_interrupted_has_not_failed() {
        let mut repeated = repeated("kill -TERM $$");
        assert!(matches!(repeated.next(|| {}).await, Step::Began(1)));
        repeated.interrupt();
        let Step::Ended(run) = repeated.next(|| {}).await else {
            panic!("a second run began");
        };
        assert!(!run.failed);
        assert_eq!(run.outcome, "signal 15 (interrupted)");
        assert_eq!(repeated.history().failed, 0);
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_and_has_failed() {
        let limit = Duration::from_millis(50);
        let mut repeated = Repeated::new("exec sleep 600", Duration::ZERO, limit);
        let run = one(&mut repeated).await;
        assert!(run.failed);
        assert_eq!(run.outcome, "killed after 50ms");
        assert!((50..60_000).contains(&run.took_ms), "{run:?}");
    }
}
