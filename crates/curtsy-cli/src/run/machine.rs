//! What the supervisor does about what happens: a state machine without processes, sockets or a clock.
//!
//! Every process is in a *slot* of a generation. A generation serves (`current`), is on its way in (the candidate of a
//! reload), or is on its way out (its slots are `Ending`).
//!
//! Invariants:
//! - The current generation is told to end only when every process of the candidate is ready.
//! - A slot of the current generation whose process ends by itself is filled again, after a wait that doubles.
//! - What has never served is not started again: a command that cannot start is an answer, not a state to stay in.
//! - One reload at a time; the requests that come during it are one more reload after it.
//! - An order to stop is final.
//!
//! Deliberately absent: how a process is started and how it is known to be ready.

use rustix::process::Signal;
use std::fmt;
use std::time::Duration;

/// The first wait before a process is started again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest.
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// A process that lived so long ended for a new reason: the wait is the first again.
const BACKOFF_RESET: Duration = Duration::from_secs(10);
/// A slip of the finger must not start more.
const PROCESSES_MAX: usize = 1024;
/// Generations that are still ending; the oldest beyond it is killed.
const ENDING_MAX: usize = 8;

/// Time since the supervisor began.
pub(crate) type Moment = Duration;

/// The settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) ready_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) processes: usize,
}

/// A process, from its start to its end. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(pub(crate) u64);

/// A generation: the number that people know it by, and which try it was.
///
/// One that failed leaves its number to the next: what serves is always one more than what served before. The try is
/// not used again, so that what is still ending of a failed one is not taken for its successor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) number: u32,
    pub(crate) attempt: u32,
}

impl Generation {
    const FIRST: Self = Self {
        number: 0,
        attempt: 0,
    };
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The beginning; once.
    Start,
    Ready(Id),
    Ended(Id, End),
    Reload,
    /// The order to stop, by this signal.
    Stop(Signal),
    /// The order to end everything at once.
    Cut,
    /// A signal to pass on.
    Pass(Signal),
    More,
    Fewer,
    /// A moment that was waited for has come.
    Tick,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Status(u8),
    Signal(i32),
    /// It never was: the command cannot be executed.
    NotExecuted {
        why: String,
        status: u8,
    },
}

/// What to do about it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start {
        process: Id,
        generation: Generation,
    },
    Signal(Id, Signal),
    Kill(Id),
    /// The first generation serves.
    Serving,
    /// A reload begins.
    Reloading(Generation),
    /// It is over: the generation serves, or why the old one was kept.
    Reloaded(Generation, Result<(), String>),
    /// A reload cannot be, now.
    Refused(&'static str),
    /// No new connections.
    Close,
    /// For people.
    Tell(String),
    Exit(u8),
}

/// Where the supervisor as a whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing has served yet.
    Starting,
    Serving,
    Reloading {
        candidate: Generation,
    },
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Started, not ready; given up at this moment.
    Starting(Moment),
    Ready,
    /// Ended; to be started again at this moment.
    Waiting(Moment),
    /// Not ready in time and killed; to be started again after its end.
    Again,
    /// Told to end; killed at this moment, or killed already.
    Ending(Option<Moment>),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    process: Id,
    generation: Generation,
    state: State,
    since: Moment,
    failures: u32,
}

/// The supervisor.
#[derive(Debug)]
pub(crate) struct Machine {
    policy: Policy,
    phase: Phase,
    current: Generation,
    newest: Generation,
    slots: Vec<Slot>,
    wanted: usize,
    processes: u64,
    is_reload_queued: bool,
    status: u8,
    actions: Vec<Action>,
}

impl Machine {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            phase: Phase::Starting,
            current: Generation::FIRST,
            newest: Generation::FIRST,
            slots: Vec::new(),
            wanted: policy.processes,
            processes: 0,
            is_reload_queued: false,
            status: 0,
            actions: Vec::new(),
        }
    }

    /// The generation that serves, or is the first to.
    pub(crate) fn current(&self) -> Generation {
        self.current
    }

    /// Where it is, in a word.
    pub(crate) fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Reloading { .. } => "reloading",
            Phase::Stopping => "draining",
        }
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping)
    }

    /// The processes: which, of which generation, how far, since when.
    pub(crate) fn processes(
        &self,
    ) -> impl Iterator<Item = (Id, Generation, &'static str, Moment)> + use<'_> {
        self.slots.iter().map(|slot| {
            let state = match slot.state {
                State::Starting(_) => "starting",
                State::Ready => "ready",
                State::Waiting(_) | State::Again => "waiting",
                State::Ending(_) => "ending",
            };
            (slot.process, slot.generation, state, slot.since)
        })
    }

    /// When to call with [`Event::Tick`], if nothing happens before.
    pub(crate) fn wakes_at(&self) -> Option<Moment> {
        let moments = self.slots.iter().filter_map(|slot| match slot.state {
            State::Starting(until) | State::Waiting(until) => Some(until),
            State::Ending(until) => until,
            State::Ready | State::Again => None,
        });
        moments.min()
    }

    /// Goes by other times from now on; what a reload has just started, too.
    pub(crate) fn set_times(&mut self, ready_timeout: Duration, grace: Duration) {
        self.policy.ready_timeout = ready_timeout;
        self.policy.grace = grace;
        let Phase::Reloading { candidate } = self.phase else {
            return;
        };
        for slot in &mut self.slots {
            if slot.generation == candidate && matches!(slot.state, State::Starting(_)) {
                slot.state = State::Starting(slot.since + ready_timeout);
            }
        }
    }

    /// The one transition.
    pub(crate) fn handle(&mut self, now: Moment, event: Event) -> Vec<Action> {
        use Phase::{Reloading, Serving, Starting, Stopping};
        match (self.phase, event) {
            // Settled below: the first generation has too few processes.
            (Starting, Event::Start) => {}
            (Serving | Reloading { .. } | Stopping, Event::Start) => {}

            (Starting | Serving | Reloading { .. }, Event::Ready(process)) => self.ready(process),
            (Stopping, Event::Ready(_)) => {}

            (Starting, Event::Ended(process, end)) => self.ended_at_first(now, process, &end),
            (Serving, Event::Ended(process, end)) => self.ended(now, process, &end),
            (Reloading { candidate }, Event::Ended(process, end)) => {
                match self.is_alive_in(process, candidate) {
                    true => {
                        self.slots.retain(|slot| slot.process != process);
                        self.abandon(now, candidate, end.to_string());
                    }
                    false => self.ended(now, process, &end),
                }
            }
            (Stopping, Event::Ended(process, end)) => self.ended_at_last(process, &end),

            (Serving, Event::Reload) => self.reload(),
            (Starting | Reloading { .. }, Event::Reload) => self.is_reload_queued = true,
            (Stopping, Event::Reload) => self.actions.push(Action::Refused("it is stopping")),

            (Starting | Serving | Reloading { .. }, Event::Stop(signal)) => self.stop(now, signal),
            (Stopping, Event::Stop(signal)) => self.signal_all(signal),

            (Starting | Serving | Reloading { .. } | Stopping, Event::Cut) => self.cut(now),

            (Starting | Serving | Reloading { .. }, Event::Pass(signal)) => self.pass(signal),
            (Stopping, Event::Pass(_)) => {}

            (Starting | Serving | Reloading { .. }, Event::More) => {
                self.wanted = (self.wanted + 1).min(PROCESSES_MAX);
            }
            (Starting | Serving | Reloading { .. }, Event::Fewer) => {
                self.wanted = (self.wanted - 1).max(1);
            }
            (Stopping, Event::More | Event::Fewer) => {}

            (Starting | Serving | Reloading { .. } | Stopping, Event::Tick) => self.tick(now),
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    fn ready(&mut self, process: Id) {
        for slot in &mut self.slots {
            if slot.process == process && matches!(slot.state, State::Starting(_)) {
                slot.state = State::Ready;
            }
        }
    }

    fn is_alive_in(&self, process: Id, generation: Generation) -> bool {
        self.slots.iter().any(|slot| {
            slot.process == process
                && slot.generation == generation
                && matches!(slot.state, State::Starting(_) | State::Ready)
        })
    }

    fn ended_at_first(&mut self, now: Moment, process: Id, end: &End) {
        let expected = !self.is_alive_in(process, self.current);
        self.slots.retain(|slot| slot.process != process);
        if !expected {
            let when = match end {
                End::NotExecuted { .. } => "",
                End::Status(_) | End::Signal(_) => " before it was ready",
            };
            self.give_up(now, end.status().max(1), &format!("{end}{when}"));
        }
    }

    /// Nothing has served, and nothing will.
    fn give_up(&mut self, now: Moment, status: u8, why: &str) {
        self.tell(format!("cannot start: generation 0 {why}"));
        self.stop(now, Signal::TERM);
        self.status = status;
    }

    fn ended(&mut self, now: Moment, process: Id, end: &End) {
        let Some(index) = self.slots.iter().position(|slot| slot.process == process) else {
            return;
        };
        let slot = &mut self.slots[index];
        match slot.state {
            State::Ending(_) => {
                self.slots.remove(index);
            }
            State::Starting(_) | State::Ready | State::Again => {
                if now.saturating_sub(slot.since) >= BACKOFF_RESET {
                    slot.failures = 0;
                }
                let wait = BACKOFF_FIRST * 2_u32.saturating_pow(slot.failures.min(10));
                let wait = wait.min(BACKOFF_LONGEST);
                slot.failures += 1;
                slot.state = State::Waiting(now + wait);
                let generation = slot.generation;
                self.tell(format!(
                    "generation {generation} {end}; starting it again in {} ms",
                    wait.as_millis()
                ));
            }
            // It has no process; nothing can end.
            State::Waiting(_) => {}
        }
    }

    fn ended_at_last(&mut self, process: Id, end: &End) {
        let Some(index) = self.slots.iter().position(|slot| slot.process == process) else {
            return;
        };
        let slot = self.slots.remove(index);
        if slot.generation == self.current && self.status == 0 {
            self.status = end.status();
        }
    }

    fn reload(&mut self) {
        self.newest = Generation {
            number: self.current.number + 1,
            attempt: self.newest.attempt + 1,
        };
        self.phase = Phase::Reloading {
            candidate: self.newest,
        };
        self.actions.push(Action::Reloading(self.newest));
    }

    /// The candidate of a reload failed: the old generation stays.
    fn abandon(&mut self, now: Moment, candidate: Generation, why: String) {
        self.end_generation(now, candidate);
        self.phase = Phase::Serving;
        self.actions.push(Action::Reloaded(candidate, Err(why)));
    }

    /// Every process of that generation is told to end, once.
    fn end_generation(&mut self, now: Moment, generation: Generation) {
        let kill_at = now + self.policy.grace;
        for slot in &mut self.slots {
            if slot.generation == generation
                && matches!(slot.state, State::Starting(_) | State::Ready)
            {
                slot.state = State::Ending(Some(kill_at));
                self.actions
                    .push(Action::Signal(slot.process, Signal::TERM));
            }
        }
        self.forget_unborn(generation);
    }

    /// Slots that wait for a process do so no longer; one that was killed is not started again.
    fn forget_unborn(&mut self, generation: Generation) {
        self.slots.retain(|slot| {
            slot.generation != generation || !matches!(slot.state, State::Waiting(_))
        });
        for slot in &mut self.slots {
            if slot.generation == generation && slot.state == State::Again {
                slot.state = State::Ending(None);
            }
        }
    }

    fn stop(&mut self, now: Moment, signal: Signal) {
        if let Phase::Reloading { candidate } = self.phase {
            let why = "the supervisor was stopped".to_owned();
            self.actions.push(Action::Reloaded(candidate, Err(why)));
        }
        if self.is_reload_queued {
            self.is_reload_queued = false;
            self.actions.push(Action::Refused("it is stopping"));
        }
        self.phase = Phase::Stopping;
        // Before the signal: what a program finds in the queue when it stops is the last of it.
        self.actions.push(Action::Close);
        let kill_at = now + self.policy.grace;
        for generation in [self.current, self.newest] {
            self.forget_unborn(generation);
        }
        for slot in &mut self.slots {
            if matches!(slot.state, State::Starting(_) | State::Ready) {
                slot.state = State::Ending(Some(kill_at));
                self.actions.push(Action::Signal(slot.process, signal));
            }
        }
    }

    /// The end, without grace.
    fn cut(&mut self, now: Moment) {
        if self.phase != Phase::Stopping {
            self.stop(now, Signal::TERM);
        }
        for slot in &mut self.slots {
            slot.state = State::Ending(None);
            self.actions.push(Action::Kill(slot.process));
        }
    }

    /// The order to stop, said again: programs cut short then.
    fn signal_all(&mut self, signal: Signal) {
        let alive = self.slots.iter();
        self.actions
            .extend(alive.map(|slot| Action::Signal(slot.process, signal)));
    }

    /// Only to those that are ready: before, the signal might find no handler and end the process.
    fn pass(&mut self, signal: Signal) {
        let ready = self.slots.iter().filter(|slot| slot.state == State::Ready);
        self.actions
            .extend(ready.map(|slot| Action::Signal(slot.process, signal)));
    }

    fn tick(&mut self, now: Moment) {
        for index in 0..self.slots.len() {
            let slot = self.slots[index];
            match slot.state {
                State::Starting(until) if until <= now => self.late(index),
                State::Waiting(until) if until <= now => self.start(now, index),
                State::Ending(Some(until)) if until <= now => {
                    self.slots[index].state = State::Ending(None);
                    self.tell(format!(
                        "generation {} did not end within {:?} and is killed",
                        slot.generation, self.policy.grace
                    ));
                    self.actions.push(Action::Kill(slot.process));
                }
                State::Starting(_)
                | State::Waiting(_)
                | State::Ending(_)
                | State::Ready
                | State::Again => {}
            }
        }
        // What was given up above may have taken others with it; nothing is removed while slots are walked.
        if let Phase::Reloading { candidate } = self.phase {
            let is_late = self
                .slots
                .iter()
                .any(|slot| slot.generation == candidate && slot.state == State::Again);
            if is_late {
                let why = self.not_ready();
                self.abandon(now, candidate, why);
            }
        } else if self.phase == Phase::Starting
            && self.slots.iter().any(|slot| slot.state == State::Again)
        {
            let why = self.not_ready();
            let hint = "--ready says how that is known, --ready-timeout how long it may take";
            self.give_up(now, 1, &format!("{why}; {hint}"));
        }
    }

    fn not_ready(&self) -> String {
        format!("was not ready within {:?}", self.policy.ready_timeout)
    }

    fn late(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.state = State::Again;
        let (process, generation) = (slot.process, slot.generation);
        self.actions.push(Action::Kill(process));
        let why = self.not_ready();
        self.tell(format!("generation {generation} {why} and is killed"));
    }

    fn start(&mut self, now: Moment, index: usize) {
        self.processes += 1;
        let slot = &mut self.slots[index];
        slot.process = Id(self.processes);
        slot.state = State::Starting(now + self.policy.ready_timeout);
        slot.since = now;
        self.actions.push(Action::Start {
            process: slot.process,
            generation: slot.generation,
        });
    }

    /// Brings about what the phase asks for: the right number of processes, the next phase, the end.
    fn settle(&mut self, now: Moment) {
        loop {
            let before = self.phase;
            match self.phase {
                Phase::Starting => {
                    self.fill(now, self.current);
                    if self.is_ready(self.current) {
                        self.phase = Phase::Serving;
                        self.actions.push(Action::Serving);
                    }
                }
                Phase::Serving => {
                    self.fill(now, self.current);
                    if std::mem::take(&mut self.is_reload_queued) {
                        self.reload();
                    }
                }
                Phase::Reloading { candidate } => {
                    self.fill(now, self.current);
                    self.fill(now, candidate);
                    if self.is_ready(candidate) {
                        let old = std::mem::replace(&mut self.current, candidate);
                        self.end_generation(now, old);
                        self.kill_oldest();
                        self.phase = Phase::Serving;
                        self.actions.push(Action::Reloaded(candidate, Ok(())));
                    }
                }
                Phase::Stopping => {
                    if self.slots.is_empty() {
                        self.actions.push(Action::Exit(self.status));
                    }
                }
            }
            if self.phase == before {
                return;
            }
        }
    }

    /// As many processes as are wanted: new ones for what is missing, an end for the youngest of too many.
    fn fill(&mut self, now: Moment, generation: Generation) {
        let is_counted =
            |slot: &Slot| slot.generation == generation && !matches!(slot.state, State::Ending(_));
        while self.slots.iter().filter(|slot| is_counted(slot)).count() < self.wanted {
            self.slots.push(Slot {
                process: Id(0),
                generation,
                state: State::Ready,
                since: now,
                failures: 0,
            });
            self.start(now, self.slots.len() - 1);
        }
        while self.slots.iter().filter(|slot| is_counted(slot)).count() > self.wanted {
            let Some(index) = self.slots.iter().rposition(is_counted) else {
                return;
            };
            let kill_at = now + self.policy.grace;
            let slot = &mut self.slots[index];
            match slot.state {
                State::Waiting(_) => {
                    self.slots.remove(index);
                }
                State::Again => slot.state = State::Ending(None),
                State::Starting(_) | State::Ready | State::Ending(_) => {
                    slot.state = State::Ending(Some(kill_at));
                    self.actions
                        .push(Action::Signal(slot.process, Signal::TERM));
                }
            }
        }
    }

    fn is_ready(&self, generation: Generation) -> bool {
        let mut counted = self.slots.iter().filter(|slot| {
            slot.generation == generation && !matches!(slot.state, State::Ending(_))
        });
        counted.all(|slot| slot.state == State::Ready)
    }

    fn kill_oldest(&mut self) {
        let mut ending: Vec<Generation> = self
            .slots
            .iter()
            .filter(|slot| matches!(slot.state, State::Ending(Some(_))))
            .map(|slot| slot.generation)
            .collect();
        ending.dedup();
        let Some(many) = ending.len().checked_sub(ENDING_MAX) else {
            return;
        };
        for generation in ending.into_iter().take(many) {
            self.tell(format!(
                "generation {generation} is killed: {ENDING_MAX} younger ones are ending, too"
            ));
            for slot in &mut self.slots {
                if slot.generation == generation {
                    slot.state = State::Ending(None);
                    self.actions.push(Action::Kill(slot.process));
                }
            }
        }
    }

    fn tell(&mut self, text: String) {
        self.actions.push(Action::Tell(text));
    }
}

impl End {
    /// As a shell tells it.
    fn status(&self) -> u8 {
        match self {
            Self::Status(status) | Self::NotExecuted { status, .. } => *status,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::NotExecuted { why, .. } => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests;
