//! The deadlines of one worker's HTTP/1 connections: one timer for all of them.
//!
//! A ring of slots, one for each tick of the near future; what is due later stands in the last
//! one. A busy connection's deadline moves on with each request, and is left where it is: when
//! its slot comes, the connection is looked at and, if it has only been idle for less than it
//! may, set anew without being woken. So a request costs one look at a number, and a thousand
//! busy connections wake for nothing never.
//!
//! A connection may stand in several slots; the one that counts is the one that its entry names.
//!
//! Where the worker is a runtime of many threads, a connection that becomes busy at the very
//! moment when it is looked at may be woken later than it asked for, by as much as `park_after`.
//!
//! It also knows when the worker falls silent, for the program's hook ([`Quiet`]); of connections whose deadlines are not
//! here ([`Awake`]) it is told once for each time they are busy, not for each request.
//!
//! Deliberately absent: precision. Deadlines are late by up to two ticks. A tick is much longer than the kernel's own
//! (some milliseconds): a thread that waits for events no longer than that has the processor's timer set before it sleeps
//! and again when it wakes, each a microsecond or more in a virtual machine, and between the client and its answer. For
//! the same reason the wheel is turned by a timer of the kernel's and none of the runtime's.

use crate::alarm::Timer;
use crate::clock;
use crate::http1::park_at;
use crate::limits::Limits;
use crate::worker::Worker;
use curtsy_lifecycle::{Entry, Moment, State};
use curtsy_sys::prefetch::prefetch_first;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// In milliseconds.
const TICK: u64 = 32;
/// About a second in all.
const SLOTS: u64 = 32;
/// A slot that had more gives its memory back.
const ROOM: usize = 1024;
/// So many connections before it is looked at, one is fetched.
const AHEAD: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Wheel {
    slots: Mutex<Slots>,
    /// Something is due before whoever turns the wheel wakes.
    sooner: Notify,
}

#[derive(Debug)]
struct Slots {
    ring: Vec<Vec<Arc<Entry>>>,
    /// The last tick that was looked at.
    passed: u64,
    /// The tick for which whoever turns the wheel sleeps.
    sleeps_until: u64,
    /// Connections that are busy and set no deadlines here.
    awake: usize,
    /// How many such have fallen silent or ended since whoever turns the wheel looked.
    stirred: u64,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            ring: (0..SLOTS).map(|_| Vec::new()).collect(),
            passed: 0,
            sleeps_until: u64::MAX,
            awake: 0,
            stirred: 0,
        }
    }
}

/// A connection that is busy and sets no deadlines here: a handshake, an engine of HTTP/2. With it, the worker is not
/// silent; without it, the worker may have fallen silent.
///
/// There is none where the program does not want to know of quiet moments.
pub(crate) struct Awake(Arc<Worker>);

impl Awake {
    pub(crate) fn begin(worker: &Arc<Worker>) -> Option<Self> {
        worker.shared.hooks.quiet.as_ref()?;
        worker.wheel.slots().awake += 1;
        Some(Self(worker.clone()))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let mut slots = self.0.wheel.slots();
        slots.awake -= 1;
        slots.stirred += 1;
        if slots.awake == 0 || slots.stirred.is_multiple_of(Quiet::MANY) {
            drop(slots);
            self.0.wheel.sooner.notify_one();
        }
    }
}

/// The first tick at which `at` has come.
#[inline]
fn tick(at: Moment) -> u64 {
    at.as_millis().div_ceil(TICK)
}

/// Whether the connection will be looked at when `at` comes, or before.
#[inline]
pub(crate) fn is_set(entry: &Entry, at: Moment) -> bool {
    let set = entry.alarm();
    set != 0 && set <= tick(at)
}

impl Wheel {
    /// Has the connection's task woken when `at` comes, or before.
    pub(crate) fn set(&self, entry: &Arc<Entry>, at: Moment) {
        let mut slots = self.slots();
        let tick = slots.put(entry.clone(), at, clock::now());
        if tick < slots.sleeps_until {
            slots.sleeps_until = tick;
            drop(slots);
            self.sooner.notify_one();
        }
    }

    /// Whether connections without deadlines are busy, and whether any were since the last look.
    fn take_stirred(&self) -> (bool, bool) {
        let mut slots = self.slots();
        let stirred = std::mem::take(&mut slots.stirred);
        (slots.awake > 0, stirred > 0)
    }

    /// Looks at what is due; how long nothing will be, if anything will.
    fn look(&self, limits: &Limits, now: Moment) -> Option<Duration> {
        let reached = now.as_millis() / TICK;
        let mut due = Vec::new();
        let mut slots = self.slots();
        while let Some(tick) = slots.next().filter(|tick| *tick <= reached) {
            slots.passed = tick;
            std::mem::swap(&mut due, slots.slot(tick));
            let mut entries = due.drain(..);
            while let Some(entry) = entries.next() {
                if let Some(later) = entries.as_slice().get(AHEAD) {
                    prefetch_first(&**later, 1);
                }
                if entry.alarm() != tick {
                    continue;
                }
                entry.set_alarm(0);
                let rests_until = park_at(limits, entry.since());
                if entry.state() == State::Idle && rests_until > now {
                    slots.put(entry, rests_until, now);
                } else {
                    entry.wake();
                }
            }
            drop(entries);
            if due.capacity() > ROOM {
                due = Vec::new();
            }
        }
        let next = slots.next();
        slots.sleeps_until = next.unwrap_or(u64::MAX);
        next.map(|tick| Moment::from_millis(tick * TICK).since(now))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn slot(&mut self, tick: u64) -> &mut Vec<Arc<Entry>> {
        // A remainder of `SLOTS` is one of its indices.
        &mut self.ring[(tick % SLOTS) as usize]
    }

    fn put(&mut self, entry: Arc<Entry>, at: Moment, now: Moment) -> u64 {
        // While the wheel stands still, nothing is in it.
        if self.next().is_none() {
            self.passed = now.as_millis() / TICK;
        }
        let tick = tick(at).clamp(self.passed + 1, self.passed + SLOTS - 1);
        entry.set_alarm(tick);
        self.slot(tick).push(entry);
        tick
    }

    /// The next tick for which something stands.
    fn next(&self) -> Option<u64> {
        (self.passed + 1..self.passed + SLOTS)
            .find(|tick| !self.ring[(tick % SLOTS) as usize].is_empty())
    }
}

/// Turns the wheel, for as long as the worker lives.
pub(crate) async fn turn(worker: Arc<Worker>) {
    let limits = &worker.shared.limits;
    let mut quiet = Quiet::default();
    let mut timer = Timer::new();
    loop {
        let sooner = worker.wheel.sooner.notified();
        let now = clock::now();
        let pause = worker.wheel.look(limits, now);
        let (is_awake, has_stirred) = worker.wheel.take_stirred();
        if is_awake || has_stirred {
            quiet.stir();
        }
        let is_silent = pause.is_none() && !is_awake;
        let pause = quiet.look(&worker, now, is_silent).or(pause);
        let elapses = timer.until(pause.map(|pause| now + pause));
        futures_util::future::select(pin!(sooner), pin!(elapses)).await;
    }
}

/// When the program's hook for quiet moments is called.
#[derive(Debug, Default)]
struct Quiet {
    /// How many parkings there were when it was called last.
    parkings: u64,
    at: Option<Moment>,
    /// There was something in the wheel, or busy without it, since then.
    was_busy: bool,
    /// Since when there is nothing.
    silent_since: Option<Moment>,
}

impl Quiet {
    /// How long it has to be quiet, and not to be called again.
    const PAUSE: Duration = Duration::from_secs(1);
    /// So many parkings are worth a call in the midst of work.
    const MANY: u64 = 4096;

    /// Something was busy that was never in the wheel.
    fn stir(&mut self) {
        self.was_busy = true;
        self.silent_since = None;
    }

    /// Calls it if the moment has come; else how long that may take, if nothing else happens.
    fn look(&mut self, worker: &Worker, now: Moment, is_silent: bool) -> Option<Duration> {
        let hook = worker.shared.hooks.quiet.as_ref()?;
        let parkings = worker.tally.parkings();
        let due = if is_silent {
            if !self.was_busy {
                return None;
            }
            *self.silent_since.get_or_insert(now) + Self::PAUSE
        } else {
            self.was_busy = true;
            self.silent_since = None;
            if parkings - self.parkings < Self::MANY {
                return None;
            }
            self.at.map_or(now, |at| at + Self::PAUSE)
        };
        if now < due {
            return is_silent.then(|| due.since(now));
        }
        *self = Self {
            parkings,
            at: Some(now),
            was_busy: !is_silent,
            silent_since: None,
        };
        if catch_unwind(AssertUnwindSafe(|| hook())).is_err() {
            tracing::error!("the hook for quiet moments panicked");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{SLOTS, TICK, Wheel, is_set};
    use crate::clock;
    use crate::limits::Limits;
    use curtsy_lifecycle::{Address, Arrival, Entry, Event, Moment, Origin, Signal, State};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Connection {
        entry: Arc<Entry>,
        woken: Arc<Woken>,
    }

    impl Connection {
        fn new(state: State, now: Moment) -> Self {
            let arrival = Arrival {
                id: 1,
                origin: Arc::new(Origin::new("main", Arc::new(Signal::new()))),
                peer: Address::Unix(None),
                local: Address::Unix(None),
                tls: false,
                carried: false,
                accepted: now,
            };
            let entry = Arc::new(Entry::new(arrival, state, now));
            let woken = Arc::new(Woken::default());
            entry.watch(&Waker::from(woken.clone()));
            Self { entry, woken }
        }

        fn times_woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    fn after(now: Moment, ms: u64) -> Moment {
        now + Duration::from_millis(ms)
    }

    #[test]
    fn who_is_due_is_woken_once() {
        let (wheel, limits, now) = (Wheel::default(), Limits::default(), clock::now());
        let connection = Connection::new(State::Active, now);
        assert!(!is_set(&connection.entry, after(now, 3 * TICK)));
        wheel.set(&connection.entry, after(now, 3 * TICK));
        assert!(is_set(&connection.entry, after(now, 3 * TICK)));
        assert!(is_set(&connection.entry, after(now, 500)));
        assert!(!is_set(&connection.entry, after(now, 2 * TICK)));
        let pause = wheel.look(&limits, after(now, TICK)).unwrap();
        let (least, most) = (2 * TICK, 3 * TICK);
        assert!(pause >= Duration::from_millis(least) && pause <= Duration::from_millis(most));
        assert_eq!(connection.times_woken(), 0);
        assert_eq!(wheel.look(&limits, after(now, 4 * TICK)), None);
        assert_eq!(connection.times_woken(), 1);
        assert!(!is_set(&connection.entry, after(now, 10_000)));
    }

    #[test]
    fn a_busy_connection_is_not_woken() {
        let (wheel, limits, begun) = (Wheel::default(), Limits::default(), clock::now());
        let connection = Connection::new(State::Idle, begun);
        wheel.set(&connection.entry, begun + limits.park_after);
        for ms in (0..2_000).step_by(3) {
            let now = after(begun, ms);
            connection.entry.tell(Event::Bytes, now);
            connection.entry.tell(Event::Answered, now);
            wheel.look(&limits, now).unwrap();
            assert!(is_set(&connection.entry, now + limits.park_after));
        }
        assert_eq!(connection.times_woken(), 0);
        // And when it falls silent it is, when it has been for long enough.
        let silent = connection.entry.since();
        wheel.look(&limits, silent + limits.park_after / 2);
        assert_eq!(connection.times_woken(), 0);
        let late = after(silent + limits.park_after, 2 * TICK);
        assert_eq!(wheel.look(&limits, late), None);
        assert_eq!(connection.times_woken(), 1);
    }

    #[test]
    fn the_nearest_of_several_deadlines_counts() {
        let (wheel, limits, now) = (Wheel::default(), Limits::default(), clock::now());
        let connection = Connection::new(State::Active, now);
        wheel.set(&connection.entry, after(now, 400));
        wheel.set(&connection.entry, after(now, 100));
        wheel.look(&limits, after(now, 100 + TICK));
        assert_eq!(connection.times_woken(), 1);
        assert_eq!(wheel.look(&limits, after(now, 400 + TICK)), None);
        assert_eq!(connection.times_woken(), 1);
    }

    #[test]
    fn far_deadlines_are_looked_at_before_and_late_looks_miss_none() {
        let (wheel, limits, now) = (Wheel::default(), Limits::default(), clock::now());
        let far = Connection::new(State::Active, now);
        let near = Connection::new(State::Active, now);
        wheel.set(&far.entry, after(now, 60_000));
        wheel.set(&near.entry, after(now, 20));
        // Nobody looked for much longer than the ring is.
        assert_eq!(wheel.look(&limits, after(now, 10 * SLOTS * TICK)), None);
        assert_eq!((far.times_woken(), near.times_woken()), (1, 1));
    }

    #[tokio::test]
    async fn whoever_turns_it_is_told_of_what_comes_sooner() {
        let wheel = Wheel::default();
        let connection = Connection::new(State::Active, clock::now());
        let sooner = wheel.sooner.notified();
        wheel.set(&connection.entry, after(clock::now(), 20));
        tokio::time::timeout(Duration::from_secs(20), sooner)
            .await
            .unwrap();
    }
}
