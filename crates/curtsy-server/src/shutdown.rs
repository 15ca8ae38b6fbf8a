//! The driver of the drain: waits for events, asks the machine, does what it commands.
//!
//! Poll-free: each wait is for something that happens, with the machine's next tick as its bound.

use crate::accept::Accepting;
use crate::clock;
use crate::doors::{Accepters, Doors};
use crate::error::{Error, Kind};
use crate::ferry;
use crate::hooks::ShutdownHook;
use crate::restart::{Event, RestartStep, Restarts, Stage};
use crate::shared::{Orders, Shared, Times};
use curtsy_handover::broker::Word;
use curtsy_lifecycle::{
    Command, Counts, Drain, DrainEvent, Ending, Moment, Phase, Report, Snapshot, Straggler,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long cut connections are given to close their sockets: they do at their next turn; a
/// handler that blocks its thread does not, and is not waited for.
const CUT_GRACE: Duration = Duration::from_millis(100);

/// What a handle can wish for.
#[derive(Debug)]
pub(crate) enum Wish {
    Shutdown,
    /// And whom to tell in which phase it was: too late, or not to be taken back, if no lame duck.
    Recall(oneshot::Sender<Phase>),
    Close,
}

pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) drain: Drain,
    pub(crate) wishes: mpsc::UnboundedReceiver<Wish>,
    pub(crate) accepters: Accepters,
    pub(crate) doors: Doors,
    pub(crate) restarts: Restarts,
    pub(crate) hooks: Vec<ShutdownHook>,
    pub(crate) phases: watch::Sender<Phase>,
}

/// How the driver's life went.
pub(crate) struct Ended {
    pub(crate) report: Report,
    /// Accepting failed: why the server stopped at all.
    pub(crate) failure: Option<Error>,
}

impl Driver {
    pub(crate) async fn run(mut self) -> Ended {
        let mut running = JoinSet::new();
        let mut progress = Progress::default();
        let mut commands = VecDeque::from(self.step(DrainEvent::Ready));
        self.announce();
        loop {
            match commands.pop_front() {
                Some(Command::Announce) => tracing::info!("lame duck: not ready for new work"),
                Some(Command::Recall) => {
                    self.shared.life.recalled();
                    tracing::info!("recalled: ready again");
                }
                Some(Command::StopAccepting) => {
                    commands.extend(self.stop_accepting(&mut running, &mut progress));
                }
                Some(Command::EndLinger) => {
                    tracing::info!(
                        open = self.shared.open(),
                        "the linger is over; idle connections close"
                    );
                    self.end_linger();
                }
                Some(Command::Cut) => {
                    progress.stragglers = self.shared.stragglers();
                    self.cut().await;
                    commands.extend(self.step(DrainEvent::Quiet));
                    commands.extend(self.step(DrainEvent::ListenersClosed));
                }
                Some(Command::Leave) => progress.stragglers = self.shared.stragglers(),
                Some(Command::Finish(ending)) => {
                    return self.finish(ending, &mut running, progress).await;
                }
                None => commands.extend(self.next(&mut running, &mut progress).await),
            }
        }
    }

    /// Waits for the next event; what it demands.
    async fn next(&mut self, hooks: &mut JoinSet<()>, progress: &mut Progress) -> Vec<Command> {
        let tick = self.drain.next_tick();
        let hooks_run = self.drain.phase() == Phase::Draining && !progress.hooks_done;
        let event = tokio::select! {
            biased;
            Some(wish) = self.wishes.recv() => match wish {
                Wish::Shutdown if matches!(self.restarts.stage, Stage::Trial(_)) => {
                    // Who stops accepting is not decided yet.
                    self.restarts.stop_wished = true;
                    return Vec::new();
                }
                Wish::Shutdown => DrainEvent::Shutdown,
                Wish::Recall(reply) => {
                    let phase = self.drain.phase();
                    let commands = self.step(DrainEvent::Recall);
                    // Who does not wait for the answer does not want it.
                    let _ = reply.send(phase);
                    return commands;
                }
                Wish::Close => DrainEvent::Close,
            },
            event = self.restarts.next() => return self.restart(event, progress),
            Some(ended) = self.accepters.tasks.join_next() => {
                let failed = match ended {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error),
                    Err(error) => Some(Error::because(
                        Kind::Accept, "an accepting task panicked", error)),
                };
                if let Some(error) = failed {
                    tracing::error!(%error, "the server stops");
                    progress.failure.get_or_insert(error);
                    // What is connected is still served.
                    let mut commands = self.step(DrainEvent::Shutdown);
                    commands.extend(self.step_if_closed());
                    return commands;
                }
                return self.step_if_closed();
            },
            Some(hook) = hooks.join_next(), if hooks_run => {
                self.shared.hooks_left.store(hooks.len(), Ordering::Release);
                self.shared.crier.nudge();
                if let Err(error) = hook && error.is_panic() {
                    tracing::error!("a shutdown hook panicked");
                    progress.hooks_panicked += 1;
                }
                if hooks.is_empty() {
                    progress.hooks_done = true;
                    DrainEvent::HooksDone
                } else {
                    return Vec::new();
                }
            },
            () = self.shared.quiet.notified() => {
                if self.shared.is_quiet() { DrainEvent::Quiet } else { DrainEvent::Busy }
            }
            () = until(tick) => DrainEvent::Tick,
        };
        self.step(event)
    }

    fn step_if_closed(&mut self) -> Vec<Command> {
        // During a restart's trial, accepting may be resumed.
        if self.accepters.tasks.is_empty() && self.drain.phase() == Phase::Draining {
            // Connections out of the queues are counted by now.
            let now = if self.shared.is_quiet() {
                DrainEvent::Quiet
            } else {
                DrainEvent::Busy
            };
            let mut commands = self.step(now);
            commands.extend(self.step(DrainEvent::ListenersClosed));
            return commands;
        }
        Vec::new()
    }

    fn step(&mut self, event: DrainEvent) -> Vec<Command> {
        let before = self.drain.phase();
        let commands = self.drain.step(event, clock::now());
        let phase = self.drain.phase();
        if phase != before {
            tracing::info!(%phase, "phase");
            self.shared.set_times(Times {
                wished_at: self.drain.wished_at(),
                deadline: self.drain.deadline(),
                lame_duck_ends: (self.drain.next_tick()).filter(|_| phase == Phase::LameDuck),
                linger_ends: self.drain.linger_ends(),
                patience: Some(self.drain.policy().deadline),
                open_at_start: match phase {
                    Phase::Draining => Some(self.shared.open()),
                    Phase::Stopped => self.shared.times().open_at_start,
                    Phase::Starting | Phase::Serving | Phase::LameDuck => None,
                },
            });
            self.shared.set_phase(phase);
            self.phases.send_replace(phase);
            self.shared.crier.tell_phase(phase);
        }
        commands
    }

    fn stop_accepting(&mut self, hooks: &mut JoinSet<()>, progress: &mut Progress) -> Vec<Command> {
        progress.open_at_start = self.shared.open();
        self.shared.life.drain();
        tracing::info!(
            open = progress.open_at_start,
            heir = self.restarts.has_heir(),
            "accepting no more"
        );
        self.restarts.call_off();
        if self.restarts.has_heir() {
            self.doors.leave();
            self.shared.orders.give(Orders::HEIR_SERVES);
            if self.shared.heir_refuses.load(Ordering::SeqCst) {
                self.shared.orders.give(Orders::DRAIN);
            }
        } else {
            self.restarts.herald.stopping();
            self.shut(progress.failure.is_some());
        }
        self.shared.signal.raise();
        let wanted = std::mem::take(&mut self.hooks);
        // A server that is closed at once runs no hooks.
        if !self.drain.is_cut() {
            for hook in wanted {
                hooks.spawn(async move { hook().await });
            }
        }
        self.shared.hooks_left.store(hooks.len(), Ordering::Release);
        let mut commands = Vec::new();
        if hooks.is_empty() {
            progress.hooks_done = true;
            commands = self.step(DrainEvent::HooksDone);
        }
        self.wake_all();
        // With an heir they are closed already.
        commands.extend(self.step_if_closed());
        commands
    }

    /// Closes the listeners, which are this process's to close, and takes what is queued.
    fn shut(&mut self, failed: bool) {
        let mut accepting = Accepting::Stop;
        if let Some(heir) = &mut self.restarts.heir {
            heir.refuse();
            if heir.is_on_trial() && failed {
                // The process before this one accepts again.
                self.doors.leave();
                accepting = Accepting::HandOver;
            } else if heir.is_on_trial() {
                // To be stopped in good order is proof enough of being the service.
                self.doors.own();
                self.restarts.herald.proved();
                heir.bake();
            }
        }
        self.doors.refuse_new();
        self.shared.orders.give(Orders::DRAIN);
        self.accepters.orders.send_replace(accepting);
    }

    fn restart(&mut self, event: Event, progress: &mut Progress) -> Vec<Command> {
        match event {
            Event::Asked(reply) => {
                self.restarts.waiting.push(reply);
                self.next_restart();
            }
            Event::Proved => self.prove(),
            Event::Word(Ok(Word::Bake)) => self.prove(),
            Event::Word(Ok(Word::Give(pid, channel, process))) => {
                let is_serving = self.drain.phase() == Phase::Serving;
                let gift = self.doors.gift();
                self.restarts
                    .give((pid, channel, process), is_serving, gift);
            }
            Event::Word(Ok(Word::Kept(why))) => {
                self.restarts.wished(Err(why));
                self.next_restart();
            }
            Event::Word(Ok(Word::Serves(_))) => {
                self.restarts.wished(Ok(()));
                self.next_restart();
            }
            Event::Word(Ok(Word::First(_) | Word::Take(..) | Word::Given | Word::Wish)) => {}
            Event::Word(Err(error)) => {
                tracing::warn!(%error, "the supervisor is silent from here on");
                self.restarts.broker = None;
                self.restarts
                    .wished(Err("the supervisor is silent".to_owned()));
            }
            Event::Ready(Ok(successor)) => {
                let (pid, generation) = (successor.pid(), u64::from(successor.generation()));
                self.restarts.tell(&RestartStep::Ready { pid, generation });
                self.accepters.orders.send_replace(Accepting::HandOver);
                self.shared.heir_refuses.store(false, Ordering::SeqCst);
                self.shared.orders.give(Orders::HAND_OVER);
                let ferries = self.shared.workers().iter();
                let ferries: Vec<_> = ferries
                    .map(|worker| ferry::open(worker, successor.lane()))
                    .collect();
                self.restarts.count_moved(ferries);
                self.wake_all();
                self.restarts.stage = Stage::Trial(successor);
            }
            Event::Moved(moved) => self.restarts.moved(moved),
            Event::Ready(Err(error)) => {
                self.restarts.failed(kept(error));
                self.next_restart();
            }
            Event::Decided(Ok(())) => {
                let alone = std::mem::replace(&mut self.restarts.stage, Stage::Alone);
                if let Stage::Trial(successor) = alone {
                    self.restarts.succeeded(successor);
                }
                self.drain.skip_lame_duck();
                return self.step(DrainEvent::Shutdown);
            }
            Event::Decided(Err(error)) => {
                self.stop_handing_over();
                let reopened = self.doors.open();
                self.restarts.failed(kept(error));
                match reopened {
                    Ok(accepters) => self.accepters = accepters,
                    Err(error) => {
                        progress.failure.get_or_insert(error);
                        return self.step(DrainEvent::Shutdown);
                    }
                }
                if std::mem::take(&mut self.restarts.stop_wished) {
                    return self.step(DrainEvent::Shutdown);
                }
                self.next_restart();
            }
        }
        Vec::new()
    }

    /// Says that this process serves, to whoever wants to know.
    fn announce(&self) {
        let restarts = &self.restarts;
        let is_heir = restarts.heir.is_some();
        if !is_heir {
            restarts.herald.proved();
        }
        // Of the heir that it started itself, the old process speaks.
        if !is_heir || restarts.broker.is_some() {
            restarts.herald.ready();
        }
    }

    /// This process, an heir, is the service from now on.
    fn prove(&mut self) {
        if let Some(heir) = &mut self.restarts.heir
            && heir.is_on_trial()
        {
            // First: who hears that this process serves finds it at its paths.
            self.doors.own();
            self.restarts.herald.proved();
            heir.bake();
        }
        self.next_restart();
    }

    /// Begins the restart that somebody waits for, if this is the time.
    fn next_restart(&mut self) {
        let restarts = &mut self.restarts;
        if restarts.waiting.is_empty() {
            return;
        }
        let is_on_trial = restarts
            .heir
            .as_ref()
            .is_some_and(|heir| heir.is_on_trial());
        match restarts.stage {
            Stage::Alone if self.drain.phase() != Phase::Serving => {
                restarts.asked.append(&mut restarts.waiting);
                restarts.failed(Error::new(Kind::Restart, "the server is stopping"));
            }
            // The process before this one may still come back.
            Stage::Alone if is_on_trial => {}
            Stage::Alone => {
                if !restarts.wish() {
                    restarts.begin(self.doors.gift());
                }
            }
            Stage::Starting(_) | Stage::Trial(_) => {}
            Stage::Succeeded(_) => restarts.pass_on(),
        }
    }

    fn stop_handing_over(&self) {
        self.shared.orders.withdraw(Orders::HAND_OVER);
        for worker in self.shared.workers() {
            worker.way_out.close();
        }
    }

    fn end_linger(&self) {
        // Requests that came in the linger are told of, too.
        self.shared.crier.nudge();
        self.shared.orders.give(Orders::END_LINGER);
        self.wake_all();
        crate::lot::clear_all(self.shared.workers());
    }

    /// Closes everything, and waits a bounded while for it to be closed.
    async fn cut(&mut self) {
        self.shared.orders.give(Orders::CUT);
        for worker in self.shared.workers() {
            worker.lot.cut(worker);
            worker.ledger.for_each(|entry| entry.kill());
        }
        // Whoever is late is not waited for.
        let _ = timeout(CUT_GRACE, async {
            while self.accepters.tasks.join_next().await.is_some() {}
            while self.shared.open() > 0 {
                self.shared.quiet.notified().await;
            }
        })
        .await;
        self.accepters.tasks.abort_all();
    }

    fn wake_all(&self) {
        for worker in self.shared.workers() {
            worker.ledger.wake_all();
        }
    }

    async fn finish(self, ending: Ending, hooks: &mut JoinSet<()>, progress: Progress) -> Ended {
        let now = clock::now();
        let hooks_unfinished = hooks.len();
        self.shared.life.ended(ending);
        for straggler in &progress.stragglers {
            tracing::warn!(%straggler, "still running at the end");
        }
        hooks.abort_all();
        let report = Report {
            ending,
            took: now.since(self.drain.wished_at().unwrap_or(now)),
            open_at_start: progress.open_at_start,
            stragglers: progress.stragglers,
            hooks_unfinished,
            hooks_panicked: progress.hooks_panicked,
        };
        tracing::info!(took_ms = report.took.as_millis(), "{}", ending_word(ending));
        self.stop_handing_over();
        self.restarts.herald.stopped();
        self.restarts.finish(report.to_string()).await;
        Ended {
            report,
            failure: progress.failure,
        }
    }
}

fn ending_word(ending: Ending) -> &'static str {
    match ending {
        Ending::Drained => "drained",
        Ending::DeadlinePassed => "the deadline has passed",
        Ending::Closed => "closed",
    }
}

fn kept(error: curtsy_handover::Error) -> Error {
    Error::because(Kind::Restart, "the restart failed", error)
}

#[derive(Default)]
struct Progress {
    open_at_start: usize,
    stragglers: Vec<Straggler>,
    hooks_done: bool,
    hooks_panicked: usize,
    failure: Option<Error>,
}

/// Until `at`, or for ever. A little later: the clock ticks coarsely.
async fn until(at: Option<Moment>) {
    const TICK: Duration = Duration::from_millis(4);
    match at {
        Some(at) => sleep(at.since(clock::now()) + TICK).await,
        None => std::future::pending().await,
    }
}

impl Shared {
    /// What would be cut now, oldest first.
    pub(crate) fn stragglers(&self) -> Vec<Straggler> {
        let now = clock::now();
        let mut stragglers = Vec::new();
        for worker in self.workers() {
            worker.ledger.stragglers(now, &mut stragglers);
        }
        stragglers.sort_by(|a, b| b.age.cmp(&a.age).then(a.id.cmp(&b.id)));
        stragglers
    }

    /// What the server is doing.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut counts = Counts::default();
        for worker in self.workers() {
            worker.ledger.count(&mut counts);
            worker.lot.count(&mut counts);
        }
        let (now, times) = (clock::now(), self.times());
        Snapshot {
            phase: self.phase(),
            generation: self.generation,
            draining_for: times.wished_at.map_or(Duration::ZERO, |at| now.since(at)),
            deadline_in: times.deadline.map(|at| at.since(now)),
            counts,
            stragglers: self.stragglers(),
            hooks: self.hooks_left.load(Ordering::Acquire),
        }
    }
}
