//! Sees a worker whose thread a handler blocks, and says so while it lasts.
//!
//! A worker counts the times its runtime falls asleep and wakes; a thread beside the workers looks
//! at the counts now and then. One that runs for long without falling asleep is either very busy
//! or blocked: it is asked to run a task, and only a blocked one does not.
//!
//! Invariants: the request path knows nothing of this. While every worker sleeps, so does the
//! watchdog, and wakes with the first of them.
//!
//! Deliberately absent: naming the handler. Many requests may be in flight on the worker; they are
//! all told, and the one that blocks is among them.

use crate::clock;
use crate::shared::Shared;
use crate::worker::Worker;
use curtsy_lifecycle::Moment;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;
use tokio::sync::Notify;

/// How many requests of a blocked worker are told.
const TOLD: usize = 5;

/// What a worker lets the watchdog see of it.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Times that the runtime fell asleep or woke: odd while it sleeps.
    turns: AtomicU64,
    /// Times that it ran the task it was asked to.
    answers: AtomicU64,
    ask: Notify,
}

impl Pulse {
    /// The runtime wakes.
    pub(crate) fn wakes(&self, watchdog: &Watchdog) {
        // In one order with `Watchdog::asleep`, so that one of the two sees the other.
        self.turn(Ordering::SeqCst);
        watchdog.stir();
    }

    /// The runtime falls asleep; whoever does not see it yet looks again later.
    pub(crate) fn sleeps(&self) {
        self.turn(Ordering::Release);
    }

    fn turn(&self, order: Ordering) {
        // Its one writer is the worker's thread.
        let turns = self.turns.load(Ordering::Relaxed);
        self.turns.store(turns + 1, order);
    }

    fn is_asleep(&self) -> bool {
        self.turns.load(Ordering::SeqCst) % 2 == 1
    }

    /// Runs on the worker, to answer when it is asked.
    pub(crate) async fn answer(self: Arc<Self>) {
        loop {
            self.ask.notified().await;
            self.answers.fetch_add(1, Ordering::Release);
        }
    }
}

/// The thread that looks after the workers.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    asleep: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Watchdog {
    /// Starts looking after the workers, whose `pulses` come in the order of `shared.workers()`.
    pub(crate) fn start(
        self: &Arc<Self>,
        pulses: Vec<Arc<Pulse>>,
        shared: Arc<Shared>,
    ) -> io::Result<()> {
        let watchdog = self.clone();
        let limit = shared.limits.blocked_after;
        let thread = thread::Builder::new()
            .name("curtsy-watchdog".to_owned())
            .spawn(move || watchdog.watch(&pulses, &shared, limit))?;
        self.thread.get_or_init(|| thread.thread().clone());
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// A worker has woken.
    fn stir(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn watch(&self, pulses: &[Arc<Pulse>], shared: &Shared, limit: Duration) {
        let mut looks: Vec<_> = pulses.iter().map(|_| Look::default()).collect();
        while !self.stopped.load(Ordering::Acquire) {
            let now = clock::now();
            for (index, (look, pulse)) in looks.iter_mut().zip(pulses).enumerate() {
                let turns = pulse.turns.load(Ordering::SeqCst);
                let answers = pulse.answers.load(Ordering::Acquire);
                let worker = shared.workers().get(index);
                match look.at(turns, answers, now, limit) {
                    Found::Well => {}
                    Found::Silent => pulse.ask.notify_one(),
                    Found::Blocked(since) => {
                        tell(index, worker, now, now.since(since));
                    }
                    Found::Free(since) => tracing::info!(
                        worker = index,
                        blocked_ms = now.since(since).as_millis(),
                        "the blocked worker runs again"
                    ),
                }
            }
            self.rest(pulses, &looks, limit / 2);
        }
    }

    /// Waits for the time of the next look; if all is quiet, for a worker to wake first.
    fn rest(&self, pulses: &[Arc<Pulse>], looks: &[Look], until: Duration) {
        self.asleep.store(true, Ordering::SeqCst);
        let quiet = pulses.iter().all(|pulse| pulse.is_asleep()) && !looks.iter().any(Look::is_odd);
        if quiet && !self.stopped.load(Ordering::Acquire) {
            thread::park();
            self.asleep.store(false, Ordering::SeqCst);
            return;
        }
        self.asleep.store(false, Ordering::SeqCst);
        if !self.stopped.load(Ordering::Acquire) {
            thread::park_timeout(until);
        }
    }
}

/// What the watchdog remembers of a worker.
#[derive(Debug, Default)]
struct Look {
    turns: u64,
    since: Moment,
    /// The answers there were when it was asked.
    asked_at: Option<u64>,
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Well,
    /// It should be asked.
    Silent,
    /// It runs since then and does not answer.
    Blocked(Moment),
    /// It was blocked since then, and is not any more.
    Free(Moment),
}

impl Look {
    fn at(&mut self, turns: u64, answers: u64, now: Moment, limit: Duration) -> Found {
        let asleep = turns % 2 == 1;
        let answered = self.asked_at.is_some_and(|before| answers > before);
        if asleep || answered || turns != self.turns {
            let was = (self.told, self.since);
            *self = Self {
                turns,
                since: now,
                ..Self::default()
            };
            return match was {
                (true, since) => Found::Free(since),
                (false, _) => Found::Well,
            };
        }
        if self.asked_at.is_none() {
            self.asked_at = Some(answers);
            return Found::Silent;
        }
        if now.since(self.since) < limit || self.told {
            return Found::Well;
        }
        self.told = true;
        Found::Blocked(self.since)
    }

    /// Whether it is to be looked at again, whatever happens.
    fn is_odd(&self) -> bool {
        self.told
    }
}

fn tell(index: usize, worker: Option<&Arc<Worker>>, now: Moment, blocked: Duration) {
    let mut stragglers = Vec::new();
    if let Some(worker) = worker {
        worker.ledger.stragglers(now, &mut stragglers);
    }
    stragglers.sort_by_key(|straggler| std::cmp::Reverse(straggler.age));
    let mut requests = String::new();
    for straggler in stragglers.iter().take(TOLD) {
        let comma = if requests.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(requests, "{comma}{straggler}");
    }
    if stragglers.len() > TOLD {
        let _ = write!(requests, "; and {} more", stragglers.len() - TOLD);
    }
    tracing::warn!(
        worker = index,
        blocked_ms = blocked.as_millis(),
        requests,
        "a handler blocks a worker, and none of its other connections is served; \
         use `tokio::task::spawn_blocking` for what takes long"
    );
}

#[cfg(test)]
mod tests {
    use super::{Found, Look};
    use curtsy_lifecycle::Moment;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(1);

    fn at(look: &mut Look, turns: u64, answers: u64, ms: u64) -> Found {
        look.at(turns, answers, Moment::from_millis(ms), LIMIT)
    }

    #[test]
    fn a_worker_that_neither_sleeps_nor_answers_is_blocked_until_it_does() {
        let mut look = Look::default();
        assert_eq!(at(&mut look, 4, 0, 10_000), Found::Well);
        assert_eq!(at(&mut look, 4, 0, 10_500), Found::Silent);
        assert_eq!(at(&mut look, 4, 0, 10_900), Found::Well);
        let since = Moment::from_millis(10_000);
        assert_eq!(at(&mut look, 4, 0, 11_000), Found::Blocked(since));
        // Told once.
        assert_eq!(at(&mut look, 4, 0, 11_500), Found::Well);
        assert_eq!(at(&mut look, 5, 0, 12_000), Found::Free(since));
        assert_eq!(at(&mut look, 5, 1, 12_500), Found::Well);
    }

    #[test]
    fn a_busy_worker_answers_and_a_sleeping_one_is_left_alone() {
        let mut look = Look::default();
        for round in 0..20 {
            let now = 10_000 + round * 1_000;
            assert_eq!(at(&mut look, 4, round, now), Found::Well);
            assert_eq!(at(&mut look, 4, round, now + 500), Found::Silent);
        }
        let mut look = Look::default();
        for now in 0..20 {
            assert_eq!(at(&mut look, 5, 0, now * 1_000), Found::Well);
        }
    }
}
