//! The driver of the drain: waits for events, asks the machine, does what it commands.
//!
//! Poll-free: each wait is for something that happens, with the machine's next tick as its bound.

use crate::accept::Accepting;
use crate::clock;
use crate::error::Error;
use crate::hooks::ShutdownHook;
use crate::shared::{Orders, Shared, Times};
use curtsy_lifecycle::{
    Command, Counts, Drain, DrainEvent, Ending, Moment, Phase, Report, Snapshot, Straggler,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long cut connections are given to close their sockets: they do at their next turn; a
/// handler that blocks its thread does not, and is not waited for.
const CUT_GRACE: Duration = Duration::from_millis(100);

/// What a handle can wish for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Shutdown,
    Recall,
    Close,
}

pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) drain: Drain,
    pub(crate) wishes: mpsc::UnboundedReceiver<Wish>,
    pub(crate) accepting: watch::Sender<Accepting>,
    /// Each accepting task, and what became of it.
    pub(crate) acceptors: JoinSet<Result<(), Error>>,
    pub(crate) hooks: Vec<ShutdownHook>,
    pub(crate) refuse_new: Box<dyn FnMut() + Send>,
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
        loop {
            match commands.pop_front() {
                Some(Command::Announce) => tracing::info!("lame duck: not ready for new work"),
                Some(Command::Recall) => tracing::info!("recalled: ready again"),
                Some(Command::StopAccepting) => self.stop_accepting(&mut running, &mut progress),
                Some(Command::EndLinger) => self.end_linger(),
                Some(Command::Cut) => {
                    progress.stragglers = self.shared.stragglers();
                    self.cut().await;
                    commands.extend(self.step(DrainEvent::Quiet));
                    commands.extend(self.step(DrainEvent::ListenersClosed));
                }
                Some(Command::Leave) => progress.stragglers = self.shared.stragglers(),
                Some(Command::Finish(ending)) => {
                    return self.finish(ending, &mut running, progress);
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
                Wish::Shutdown => DrainEvent::Shutdown,
                Wish::Recall => DrainEvent::Recall,
                Wish::Close => DrainEvent::Close,
            },
            Some(ended) = self.acceptors.join_next() => {
                let failed = match ended {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error),
                    Err(error) => Some(Error::because(
                        crate::error::Kind::Accept, "an accepting task panicked", error)),
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
                if self.shared.open() == 0 { DrainEvent::Quiet } else { DrainEvent::Busy }
            }
            () = until(tick) => DrainEvent::Tick,
        };
        self.step(event)
    }

    fn step_if_closed(&mut self) -> Vec<Command> {
        if self.acceptors.is_empty() {
            // Connections out of the queues are counted by now.
            let now = if self.shared.open() == 0 {
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
            });
            self.shared.set_phase(phase);
            self.phases.send_replace(phase);
        }
        commands
    }

    fn stop_accepting(&mut self, hooks: &mut JoinSet<()>, progress: &mut Progress) {
        progress.open_at_start = self.shared.open();
        (self.refuse_new)();
        self.shared.orders.give(Orders::DRAIN);
        self.accepting.send_replace(Accepting::Stop);
        self.shared.signal.raise();
        let wanted = std::mem::take(&mut self.hooks);
        // A server that is closed at once runs no hooks.
        if !self.drain.is_cut() {
            for hook in wanted {
                hooks.spawn(async move { hook().await });
            }
        }
        self.shared.hooks_left.store(hooks.len(), Ordering::Release);
        if hooks.is_empty() {
            progress.hooks_done = true;
            // No command can come of it: the listeners are not closed yet.
            self.step(DrainEvent::HooksDone);
        }
        if self.acceptors.is_empty() {
            self.shared.quiet.notify_one();
        }
        self.wake_all();
    }

    fn end_linger(&self) {
        self.shared.orders.give(Orders::END_LINGER);
        self.wake_all();
        for worker in self.shared.workers() {
            worker.lot.clear(worker);
        }
    }

    /// Closes everything, and waits a bounded while for it to be closed.
    async fn cut(&mut self) {
        self.shared.orders.give(Orders::CUT);
        self.accepting.send_replace(Accepting::Stop);
        for worker in self.shared.workers() {
            worker.lot.cut(worker);
            worker.ledger.for_each(|entry| entry.kill());
        }
        // Whoever is late is not waited for.
        let _ = timeout(CUT_GRACE, async {
            while self.acceptors.join_next().await.is_some() {}
            while self.shared.open() > 0 {
                self.shared.quiet.notified().await;
            }
        })
        .await;
        self.acceptors.abort_all();
    }

    fn wake_all(&self) {
        for worker in self.shared.workers() {
            worker.ledger.wake_all();
        }
    }

    fn finish(self, ending: Ending, hooks: &mut JoinSet<()>, progress: Progress) -> Ended {
        let now = clock::now();
        let hooks_unfinished = hooks.len();
        hooks.abort_all();
        Ended {
            report: Report {
                ending,
                took: now.since(self.drain.wished_at().unwrap_or(now)),
                open_at_start: progress.open_at_start,
                stragglers: progress.stragglers,
                hooks_unfinished,
                hooks_panicked: progress.hooks_panicked,
            },
            failure: progress.failure,
        }
    }
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
