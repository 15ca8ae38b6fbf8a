//! The drain: what a server does between the wish to stop and its end.
//!
//! One machine, told of events, answering with commands. It owns the order of the steps and every
//! time limit; it opens and closes nothing itself.
//!
//! Invariants:
//! - Phases only go forward, but for a lame duck that is recalled.
//! - Each command is given at most once in a machine's life, [`Command::Recall`] and
//!   [`Command::Announce`] apart.
//! - [`Command::Finish`] is the last.

use crate::moment::Moment;
use crate::phase::Phase;
use crate::report::Ending;
use std::time::Duration;

/// What to do at the deadline with whatever is still running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtDeadline {
    /// Close it.
    #[default]
    Cut,
    /// Leave it running and return: what Go's `Shutdown` does.
    Leave,
}

/// How a drain goes.
///
/// ```
/// use curtsy_lifecycle::DrainPolicy;
/// use std::time::Duration;
///
/// let policy = DrainPolicy::default();
/// assert_eq!(policy.lame_duck, Duration::ZERO);
/// assert_eq!(policy.linger, Duration::from_secs(1));
/// assert_eq!(policy.deadline, Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainPolicy {
    /// How long to go on serving while telling load balancers to look elsewhere.
    pub lame_duck: Duration,
    /// How long an idle connection is still listened to after the drain began. A client that
    /// sends its next request within it is answered; with zero, idle connections are closed at
    /// once, after a last look at each.
    pub linger: Duration,
    /// When the drain ends whatever is left, counted from the end of the lame duck.
    pub deadline: Duration,
    /// What happens then.
    pub at_deadline: AtDeadline,
}

impl DrainPolicy {
    /// The default linger: longer than most clients pause between two requests of one page.
    pub const LINGER: Duration = Duration::from_secs(1);
    /// The default deadline: what orchestrators commonly grant before they kill.
    pub const DEADLINE: Duration = Duration::from_secs(30);
}

impl Default for DrainPolicy {
    fn default() -> Self {
        Self {
            lame_duck: Duration::ZERO,
            linger: Self::LINGER,
            deadline: Self::DEADLINE,
            at_deadline: AtDeadline::Cut,
        }
    }
}

/// What can happen to the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainEvent {
    /// The server accepts now.
    Ready,
    /// Somebody wants an orderly stop.
    Shutdown,
    /// Somebody wants the lame duck to go back to serving.
    Recall,
    /// Somebody wants the end at once.
    Close,
    /// Time has passed.
    Tick,
    /// The listeners are closed, their queues emptied.
    ListenersClosed,
    /// Every shutdown hook has finished.
    HooksDone,
    /// No connection is open. May come before it matters; it is remembered until a
    /// [`DrainEvent::Busy`].
    Quiet,
    /// A connection is open.
    Busy,
}

/// What the driver of the drain must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say that the server is not ready for new work, and go on.
    Announce,
    /// Say that it is ready again.
    Recall,
    /// Empty the accept queues, close the listeners, start the hooks, tell every request, and let
    /// idle connections linger.
    StopAccepting,
    /// Look at each idle connection once more and close it.
    EndLinger,
    /// Write down what is still running, then close all of it.
    Cut,
    /// Write down what is still running and leave it.
    Leave,
    /// Return.
    Finish(Ending),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Drain {
    policy: DrainPolicy,
    phase: Phase,
    wished_at: Option<Moment>,
    drain_at: Option<Moment>,
    linger_over: bool,
    listeners_closed: bool,
    hooks_done: bool,
    quiet: bool,
    cut: Option<Ending>,
}

impl Drain {
    /// A server that is starting.
    pub fn new(policy: DrainPolicy) -> Self {
        Self {
            policy,
            phase: Phase::Starting,
            wished_at: None,
            drain_at: None,
            linger_over: false,
            listeners_closed: false,
            hooks_done: false,
            quiet: true,
            cut: None,
        }
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Drains without being a lame duck first: another process serves already.
    pub fn skip_lame_duck(&mut self) {
        self.policy.lame_duck = Duration::ZERO;
    }

    /// The policy it follows.
    pub fn policy(&self) -> &DrainPolicy {
        &self.policy
    }

    /// When the wish to stop came.
    pub fn wished_at(&self) -> Option<Moment> {
        self.wished_at
    }

    /// When the linger ends, once draining.
    pub fn linger_ends(&self) -> Option<Moment> {
        self.drain_at.map(|at| at + self.policy.linger)
    }

    /// When the deadline is, once draining.
    pub fn deadline(&self) -> Option<Moment> {
        self.drain_at.map(|at| at + self.policy.deadline)
    }

    /// Whether everything is being closed without further ado.
    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// When it next wants a [`DrainEvent::Tick`].
    pub fn next_tick(&self) -> Option<Moment> {
        match self.phase {
            Phase::Starting | Phase::Serving | Phase::Stopped => None,
            Phase::LameDuck => self.wished_at.map(|at| at + self.policy.lame_duck),
            Phase::Draining if self.cut.is_some() => None,
            Phase::Draining if self.linger_over => self.deadline(),
            Phase::Draining => self.linger_ends().min(self.deadline()),
        }
    }

    /// What `event` at `now` demands, in order.
    pub fn step(&mut self, event: DrainEvent, now: Moment) -> Vec<Command> {
        match event {
            DrainEvent::Quiet => self.quiet = true,
            DrainEvent::Busy => self.quiet = false,
            DrainEvent::ListenersClosed => self.listeners_closed = true,
            DrainEvent::HooksDone => self.hooks_done = true,
            DrainEvent::Ready
            | DrainEvent::Shutdown
            | DrainEvent::Recall
            | DrainEvent::Close
            | DrainEvent::Tick => {}
        }
        match self.phase {
            Phase::Starting => self.starting(event, now),
            Phase::Serving => self.serving(event, now),
            Phase::LameDuck => self.lame_duck(event, now),
            Phase::Draining => self.draining(event, now),
            Phase::Stopped => Vec::new(),
        }
    }

    fn starting(&mut self, event: DrainEvent, now: Moment) -> Vec<Command> {
        match event {
            DrainEvent::Ready => {
                self.phase = Phase::Serving;
                Vec::new()
            }
            // A server told to stop before it began has nobody to announce anything to.
            DrainEvent::Shutdown => {
                self.wished_at = Some(now);
                self.begin(now)
            }
            DrainEvent::Close => self.close(now),
            DrainEvent::Recall
            | DrainEvent::Tick
            | DrainEvent::ListenersClosed
            | DrainEvent::HooksDone
            | DrainEvent::Quiet
            | DrainEvent::Busy => Vec::new(),
        }
    }

    fn serving(&mut self, event: DrainEvent, now: Moment) -> Vec<Command> {
        match event {
            DrainEvent::Shutdown => {
                self.wished_at = Some(now);
                if self.policy.lame_duck.is_zero() {
                    return self.begin(now);
                }
                self.phase = Phase::LameDuck;
                vec![Command::Announce]
            }
            DrainEvent::Close => self.close(now),
            DrainEvent::Ready
            | DrainEvent::Recall
            | DrainEvent::Tick
            | DrainEvent::ListenersClosed
            | DrainEvent::HooksDone
            | DrainEvent::Quiet
            | DrainEvent::Busy => Vec::new(),
        }
    }

    fn lame_duck(&mut self, event: DrainEvent, now: Moment) -> Vec<Command> {
        match event {
            DrainEvent::Tick if self.next_tick().is_some_and(|at| now >= at) => self.begin(now),
            DrainEvent::Recall => {
                self.phase = Phase::Serving;
                self.wished_at = None;
                vec![Command::Recall]
            }
            DrainEvent::Close => self.close(now),
            // A second wish joins the first.
            DrainEvent::Shutdown
            | DrainEvent::Ready
            | DrainEvent::Tick
            | DrainEvent::ListenersClosed
            | DrainEvent::HooksDone
            | DrainEvent::Quiet
            | DrainEvent::Busy => Vec::new(),
        }
    }

    fn draining(&mut self, event: DrainEvent, now: Moment) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            DrainEvent::Close if self.cut.is_none() => {
                self.cut = Some(Ending::Closed);
                commands.push(Command::Cut);
            }
            DrainEvent::Tick if self.cut.is_none() => {
                if !self.linger_over && self.linger_ends().is_some_and(|at| now >= at) {
                    self.linger_over = true;
                    commands.push(Command::EndLinger);
                }
                if self.deadline().is_some_and(|at| now >= at) && !self.is_complete() {
                    self.cut = Some(Ending::DeadlinePassed);
                    match self.policy.at_deadline {
                        AtDeadline::Cut => commands.push(Command::Cut),
                        AtDeadline::Leave => {
                            commands.push(Command::Leave);
                            self.quiet = true;
                        }
                    }
                }
            }
            DrainEvent::Close
            | DrainEvent::Tick
            | DrainEvent::Ready
            | DrainEvent::Shutdown
            | DrainEvent::Recall
            | DrainEvent::ListenersClosed
            | DrainEvent::HooksDone
            | DrainEvent::Quiet
            | DrainEvent::Busy => {}
        }
        commands.extend(self.finish());
        commands
    }

    fn begin(&mut self, now: Moment) -> Vec<Command> {
        self.phase = Phase::Draining;
        self.drain_at = Some(now);
        let mut commands = vec![Command::StopAccepting];
        if self.policy.linger.is_zero() {
            self.linger_over = true;
            commands.push(Command::EndLinger);
        }
        commands
    }

    fn close(&mut self, now: Moment) -> Vec<Command> {
        self.wished_at.get_or_insert(now);
        self.phase = Phase::Draining;
        self.drain_at = Some(now);
        self.linger_over = true;
        // `Close` runs no hooks: there is no time for them.
        self.hooks_done = true;
        self.cut = Some(Ending::Closed);
        vec![Command::StopAccepting, Command::Cut]
    }

    fn is_complete(&self) -> bool {
        self.quiet && self.listeners_closed && self.hooks_done
    }

    fn finish(&mut self) -> Option<Command> {
        let ending = match self.cut {
            // Once cut, hooks are no longer waited for.
            Some(ending) if self.quiet && self.listeners_closed => ending,
            None if self.is_complete() => Ending::Drained,
            Some(_) | None => return None,
        };
        self.phase = Phase::Stopped;
        Some(Command::Finish(ending))
    }
}

#[cfg(test)]
mod tests {
    use super::{AtDeadline, Command, Drain, DrainEvent, DrainPolicy};
    use crate::{Ending, Moment, Phase};
    use Command::{Announce, Cut, EndLinger, Finish, Leave, Recall, StopAccepting};
    use DrainEvent::{Busy, Close, HooksDone, ListenersClosed, Quiet, Ready, Shutdown, Tick};
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
    use std::time::Duration;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn serving(policy: DrainPolicy) -> Drain {
        let mut drain = Drain::new(policy);
        assert_eq!(drain.step(Ready, at(0)), []);
        assert_eq!(drain.phase(), Phase::Serving);
        drain
    }

    #[test]
    fn an_orderly_drain_ends_with_the_last_connection() {
        let mut drain = serving(DrainPolicy::default());
        drain.step(Busy, at(5));
        assert_eq!(drain.step(Shutdown, at(10)), [StopAccepting]);
        assert_eq!(drain.next_tick(), Some(at(1_010)));
        assert_eq!(drain.step(ListenersClosed, at(11)), []);
        assert_eq!(drain.step(HooksDone, at(12)), []);
        assert_eq!(drain.step(Tick, at(1_010)), [EndLinger]);
        assert_eq!(drain.next_tick(), Some(at(30_010)));
        assert_eq!(drain.step(Quiet, at(1_500)), [Finish(Ending::Drained)]);
        assert_eq!(drain.phase(), Phase::Stopped);
        assert_eq!(drain.next_tick(), None);
    }

    #[test]
    fn without_connections_it_ends_when_listeners_and_hooks_are_done() {
        let mut drain = serving(DrainPolicy::default());
        drain.step(Shutdown, at(10));
        assert_eq!(drain.step(HooksDone, at(11)), []);
        assert_eq!(
            drain.step(ListenersClosed, at(11)),
            [Finish(Ending::Drained)]
        );
    }

    #[test]
    fn a_lame_duck_serves_until_its_time_and_can_be_recalled() {
        let mut drain = serving(DrainPolicy {
            lame_duck: Duration::from_secs(5),
            ..DrainPolicy::default()
        });
        assert_eq!(drain.step(Shutdown, at(0)), [Announce]);
        assert_eq!(drain.step(Shutdown, at(1)), []);
        assert_eq!(drain.step(Tick, at(4_999)), []);
        assert_eq!(drain.step(DrainEvent::Recall, at(4_999)), [Recall]);
        assert_eq!(drain.phase(), Phase::Serving);
        assert_eq!(drain.step(Shutdown, at(6_000)), [Announce]);
        assert_eq!(drain.next_tick(), Some(at(11_000)));
        assert_eq!(drain.step(Tick, at(11_000)), [StopAccepting]);
        // Too late to be recalled.
        assert_eq!(drain.step(DrainEvent::Recall, at(11_001)), []);
        assert_eq!(drain.deadline(), Some(at(41_000)));
    }

    #[test]
    fn a_server_with_an_heir_is_no_lame_duck() {
        let mut drain = serving(DrainPolicy {
            lame_duck: Duration::from_secs(5),
            ..DrainPolicy::default()
        });
        drain.skip_lame_duck();
        assert_eq!(drain.step(Shutdown, at(10)), [StopAccepting]);
        assert_eq!(drain.phase(), Phase::Draining);
    }

    #[test]
    fn no_linger_means_a_last_look_at_once() {
        let mut drain = serving(DrainPolicy {
            linger: Duration::ZERO,
            ..DrainPolicy::default()
        });
        drain.step(Busy, at(0));
        assert_eq!(drain.step(Shutdown, at(10)), [StopAccepting, EndLinger]);
    }

    #[test]
    fn the_deadline_cuts_and_then_waits_for_the_cut_to_be_done() {
        let mut drain = serving(DrainPolicy::default());
        drain.step(Busy, at(0));
        drain.step(Shutdown, at(0));
        drain.step(ListenersClosed, at(1));
        assert_eq!(drain.step(Tick, at(30_000)), [EndLinger, Cut]);
        assert_eq!(drain.next_tick(), None);
        // The hooks never finished; nobody waits for them any more.
        assert_eq!(
            drain.step(Quiet, at(30_001)),
            [Finish(Ending::DeadlinePassed)]
        );
    }

    #[test]
    fn a_deadline_can_leave_the_rest_running() {
        let mut drain = serving(DrainPolicy {
            at_deadline: AtDeadline::Leave,
            ..DrainPolicy::default()
        });
        drain.step(Busy, at(0));
        drain.step(Shutdown, at(0));
        drain.step(ListenersClosed, at(1));
        drain.step(Tick, at(1_000));
        assert_eq!(
            drain.step(Tick, at(30_000)),
            [Leave, Finish(Ending::DeadlinePassed)]
        );
    }

    #[test]
    fn the_deadline_waits_for_hooks_that_are_late() {
        let mut drain = serving(DrainPolicy::default());
        drain.step(Shutdown, at(0));
        drain.step(ListenersClosed, at(0));
        drain.step(Tick, at(1_000));
        assert_eq!(
            drain.step(Tick, at(30_000)),
            [Cut, Finish(Ending::DeadlinePassed)]
        );
    }

    #[test]
    fn close_cuts_at_once_in_every_phase() {
        let mut drain = serving(DrainPolicy::default());
        drain.step(Busy, at(0));
        assert_eq!(drain.step(Close, at(1)), [StopAccepting, Cut]);
        assert_eq!(drain.step(ListenersClosed, at(1)), []);
        assert_eq!(drain.step(Quiet, at(2)), [Finish(Ending::Closed)]);

        let mut drain = serving(DrainPolicy::default());
        drain.step(Busy, at(0));
        drain.step(Shutdown, at(1));
        assert_eq!(drain.step(Close, at(2)), [Cut]);
        assert_eq!(drain.step(Close, at(3)), []);
        drain.step(ListenersClosed, at(3));
        assert_eq!(drain.step(Quiet, at(4)), [Finish(Ending::Closed)]);
    }

    fn events() -> impl Strategy<Value = Vec<(DrainEvent, u16)>> {
        let event = prop::sample::select(vec![
            Ready,
            Shutdown,
            DrainEvent::Recall,
            Close,
            Tick,
            ListenersClosed,
            HooksDone,
            Quiet,
            Busy,
        ]);
        prop::collection::vec((event, any::<u16>()), 0..60)
    }

    proptest! {
        /// Whatever happens in whatever order: phases go forward, commands come once and in
        /// order, nothing comes after the end, and enough time always brings the end.
        #[test]
        fn any_history_is_orderly(history in events(), linger in 0u64..3_000, lame in 0u64..3_000) {
            let mut drain = Drain::new(DrainPolicy {
                linger: Duration::from_millis(linger),
                lame_duck: Duration::from_millis(lame),
                ..DrainPolicy::default()
            });
            let mut now = 0;
            let mut given = Vec::new();
            let mut last = drain.phase();
            for (event, later) in history {
                now += u64::from(later);
                let commands = drain.step(event, at(now));
                let recalled = commands.contains(&Recall);
                prop_assert!(drain.phase() >= last || recalled, "{last} to {}", drain.phase());
                last = drain.phase();
                given.extend(commands);
            }
            // Let it end: told to stop, its waits fulfilled, then time enough.
            for event in [Ready, Shutdown, ListenersClosed] {
                given.extend(drain.step(event, at(now)));
            }
            for _ in 0..4 {
                if let Some(next) = drain.next_tick() {
                    now = now.max(next.as_millis());
                    given.extend(drain.step(Tick, at(now)));
                }
            }
            given.extend(drain.step(Quiet, at(now)));
            prop_assert_eq!(drain.phase(), Phase::Stopped);
            prop_assert!(matches!(given.last(), Some(Finish(_))));
            for once in [StopAccepting, EndLinger, Cut, Leave] {
                prop_assert!(given.iter().filter(|c| **c == once).count() <= 1, "{once:?} twice");
            }
            let finishes = given.iter().filter(|c| matches!(c, Finish(_))).count();
            prop_assert_eq!(finishes, 1);
        }
    }
}
