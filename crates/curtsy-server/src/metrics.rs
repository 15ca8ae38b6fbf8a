//! What is counted while serving, and its sum.
//!
//! Each worker has a tally of its own. What happens with every request is written to a block that
//! belongs to the worker's thread alone: a plain load and store, no read-modify-write, no line of
//! memory shared with another worker. Whoever reads pays: a reading sums all blocks.
//!
//! Invariants:
//! - A counter never goes back: no two threads write to one by load and store.
//! - A server in its program's runtime has many threads and one worker: there the blocks are several, a
//!   thread uses always the same, and adds atomically.
//! - No clock is looked at for a latency that was not looked at without one. It is the kernel's coarse
//!   clock: a latency is exact to a few milliseconds, their sum over many is right.
//!
//! Deliberately absent: labels by path or method (their number is the clients' to choose), and a
//! registry that programs register things in.

use crate::access_log::Queue;
use crate::control::{Latency as Quantiles, Requests};
use crate::hint::unlikely;
use crate::restart::{RestartHook, RestartStep};
use crate::shared::Shared;
use curtsy_lifecycle::{Ending, Moment, Snapshot};
use std::cell::Cell;
use std::hint::cold_path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The upper bounds of the latency histogram's buckets, in milliseconds. The clock is coarse: below five
/// of them nothing could be told apart.
pub(crate) const BOUNDS_MS: [u64; 13] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000,
];
/// And one for all that is longer.
const BUCKETS: usize = BOUNDS_MS.len() + 1;
/// 1xx to 5xx.
const CLASSES: usize = 5;
/// How many blocks a worker has whose runtime has many threads.
const BLOCKS: usize = 16;

/// What is written with every request.
#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    answers: [AtomicU64; CLASSES],
    latencies: [AtomicU64; BUCKETS],
    latency_ms: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// Counters on lines of memory of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Block(Counters);

/// What one worker has counted.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Written by the worker's own thread only, if it has one.
    own: Option<Block>,
    /// Written by any thread, atomically.
    open: Box<[Block]>,
    rare: Rare,
}

/// What happens at most a few times a connection: any thread may count it.
#[derive(Debug, Default)]
struct Rare {
    accepted: AtomicU64,
    adopted: AtomicU64,
    given: AtomicU64,
    returned: AtomicU64,
    parked: AtomicU64,
    malformed: AtomicU64,
    accept_errors: [AtomicU64; AcceptTrouble::ALL.len()],
    handshake_failures: [AtomicU64; HandshakeTrouble::ALL.len()],
}

/// Why a connection could not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptTrouble {
    /// Descriptors or memory ran out.
    Resources,
    /// The client was gone first.
    Gone,
    /// The listener is broken.
    Listener,
}

/// Why a connection got no further than its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeTrouble {
    /// The client closed.
    Closed,
    /// What it sent was no TLS, or no TLS of ours, or no PROXY header.
    Refused,
    /// It took too long.
    Timeout,
    /// It does not encrypt where it should.
    Unencrypted,
}

impl AcceptTrouble {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Resources, "resources"),
        (Self::Gone, "gone"),
        (Self::Listener, "listener"),
    ];
}

impl HandshakeTrouble {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Closed, "closed"),
        (Self::Refused, "refused"),
        (Self::Timeout, "timeout"),
        (Self::Unencrypted, "unencrypted"),
    ];
}

/// What happens to the server as a whole.
#[derive(Debug, Default)]
pub(crate) struct Life {
    drains: AtomicU64,
    recalls: AtomicU64,
    endings: [AtomicU64; ENDINGS.len()],
    handovers_succeeded: AtomicU64,
    handovers_failed: AtomicU64,
    switches: AtomicU64,
}

const ENDINGS: [(Ending, &str); 3] = [
    (Ending::Drained, "drained"),
    (Ending::DeadlinePassed, "deadline_passed"),
    (Ending::Closed, "closed"),
];

fn once(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

thread_local! {
    /// Which block this thread writes to where it does not have one for itself.
    static PLACE: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS)
    };
}

impl Tally {
    /// For a worker with a thread of its own, or for one whose runtime has many.
    pub(crate) fn new(has_own_thread: bool) -> Self {
        // An upgraded connection belongs to the program, which may take it to another thread.
        let open = if has_own_thread { 1 } else { BLOCKS };
        Self {
            own: has_own_thread.then(Block::default),
            open: (0..open).map(|_| Block::default()).collect(),
            rare: Rare::default(),
        }
    }

    /// Adds on the worker's own thread.
    #[inline]
    fn add(&self, which: impl Fn(&Counters) -> &AtomicU64, more: u64) {
        match &self.own {
            Some(own) => {
                let counter = which(&own.0);
                let before = counter.load(Ordering::Relaxed);
                counter.store(before + more, Ordering::Relaxed);
            }
            None => {
                cold_path();
                self.add_anywhere(which, more);
            }
        }
    }

    /// Adds on any thread.
    #[inline(never)]
    fn add_anywhere(&self, which: impl Fn(&Counters) -> &AtomicU64, more: u64) {
        let place = PLACE.get() % self.open.len();
        which(&self.open[place].0).fetch_add(more, Ordering::Relaxed);
    }

    // ---- with every request, on the worker's thread

    /// A request went to the service.
    #[inline]
    pub(crate) fn request(&self) {
        self.add(|block| &block.requests, 1);
    }

    /// An answer's head is made.
    #[inline]
    pub(crate) fn answer(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        self.add(|block| &block.answers[class], 1);
    }

    /// So many answers are sent, each so long after its request's last bytes were read.
    #[inline]
    pub(crate) fn took(&self, since: Option<Moment>, now: Moment, answers: u64) {
        let Some(since) = since else { return };
        let ms = now.as_millis().saturating_sub(since.as_millis());
        let bucket = match unlikely(ms > BOUNDS_MS[0]) {
            false => 0,
            true => BOUNDS_MS.partition_point(|bound| *bound < ms),
        };
        self.add(|block| &block.latencies[bucket], answers);
        if unlikely(ms > 0) {
            self.add(|block| &block.latency_ms, ms * answers);
        }
    }

    #[inline]
    pub(crate) fn received(&self, bytes: usize) {
        self.add(|block| &block.received, bytes as u64);
    }

    #[inline]
    pub(crate) fn sent(&self, bytes: usize) {
        self.add(|block| &block.sent, bytes as u64);
    }

    // ---- on any thread

    /// The same for a connection that belongs to the program.
    pub(crate) fn received_upgraded(&self, bytes: usize) {
        self.add_anywhere(|block| &block.received, bytes as u64);
    }

    pub(crate) fn sent_upgraded(&self, bytes: usize) {
        self.add_anywhere(|block| &block.sent, bytes as u64);
    }

    pub(crate) fn accepted(&self) {
        once(&self.rare.accepted);
    }

    /// A connection came from the process before this one.
    pub(crate) fn adopted(&self) {
        once(&self.rare.adopted);
    }

    /// The next process took a connection.
    pub(crate) fn given(&self) {
        once(&self.rare.given);
    }

    /// The next process did not take a connection.
    pub(crate) fn returned(&self) {
        once(&self.rare.returned);
    }

    /// How often a connection of this worker was parked.
    pub(crate) fn parkings(&self) -> u64 {
        self.rare.parked.load(Ordering::Relaxed)
    }

    pub(crate) fn parked(&self) {
        once(&self.rare.parked);
    }

    /// What came was no request; it was answered all the same.
    pub(crate) fn malformed(&self) {
        once(&self.rare.malformed);
    }

    pub(crate) fn accept_error(&self, trouble: AcceptTrouble) {
        once(&self.rare.accept_errors[trouble as usize]);
    }

    pub(crate) fn handshake_failed(&self, trouble: HandshakeTrouble) {
        once(&self.rare.handshake_failures[trouble as usize]);
    }
}

impl Life {
    pub(crate) fn drain(&self) {
        once(&self.drains);
    }

    pub(crate) fn recalled(&self) {
        once(&self.recalls);
    }

    pub(crate) fn switched(&self) {
        once(&self.switches);
    }

    pub(crate) fn ended(&self, how: Ending) {
        for (counter, (ending, _)) in self.endings.iter().zip(ENDINGS) {
            if ending == how {
                once(counter);
            }
        }
    }

    /// A step of a restart; two of them end it.
    pub(crate) fn restart(&self, step: &RestartStep<'_>) {
        match step {
            RestartStep::Serves { .. } => once(&self.handovers_succeeded),
            RestartStep::Kept(_) => once(&self.handovers_failed),
            RestartStep::Begun { .. } | RestartStep::Ready { .. } | RestartStep::Moved { .. } => {}
        }
    }
}

/// The program's hook, and ours before it.
pub(crate) fn counting(shared: Arc<Shared>, mut hook: Option<RestartHook>) -> RestartHook {
    Box::new(move |step| {
        shared.life.restart(step);
        if let Some(hook) = &mut hook {
            hook(step);
        }
    })
}

/// What a server has counted since it was built, and what it is doing.
///
/// ```
/// use curtsy_server::Server;
/// # use http::Response;
/// # use std::convert::Infallible;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let service = hyper::service::service_fn(async |_: http::Request<curtsy_server::Body>| {
/// #     Ok::<_, Infallible>(Response::new(String::new()))
/// # });
/// let server = Server::builder().listen("127.0.0.1:0").build(service)?;
/// let metrics = server.handle().metrics();
/// assert_eq!(metrics.requests, 0);
/// assert!(metrics.prometheus().contains("curtsy_http_requests_total 0\n"));
/// # Ok::<(), curtsy_server::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// Phase, generation, connections by state, stragglers.
    pub snapshot: Snapshot,
    /// Requests whose head was read and understood.
    pub requests: u64,
    /// Answers by the first digit of their status, 1 to 5.
    pub answers: [u64; CLASSES],
    /// How long answers took, from the last byte of the request's head that was read to the last byte of the answer
    /// that was handed to the kernel.
    pub latency: Latency,
    /// Bytes of HTTP that were read, without what TLS adds.
    pub received_bytes: u64,
    /// Bytes of HTTP that were written, without what TLS adds.
    pub sent_bytes: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections taken over from the process before this one.
    pub adopted: u64,
    /// Connections that the next process took.
    pub given: u64,
    /// Connections that the next process did not take, and that stayed.
    pub returned: u64,
    /// How often a connection was parked.
    pub parkings: u64,
    /// Heads that were no request.
    pub malformed: u64,
    /// Drains begun.
    pub drains: u64,
    /// Drains recalled while lame duck.
    pub recalls: u64,
    /// Listeners switched to another mode.
    pub switches: u64,
    /// Restarts that succeeded: the next process serves.
    pub handovers_succeeded: u64,
    /// Restarts that failed: this process went on.
    pub handovers_failed: u64,
    /// Lines of the access log that were not written.
    pub access_log_dropped: u64,
    /// Errors of accepting, by reason.
    pub(crate) accept_errors: Vec<(&'static str, u64)>,
    /// Handshakes that came to nothing, by reason.
    pub(crate) handshake_failures: Vec<(&'static str, u64)>,
    /// Drains ended, by how.
    pub(crate) endings: Vec<(&'static str, u64)>,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    sum_ms: u64,
}

impl Latency {
    /// Of each bucket its upper bound, without one for the last, and how many answers took at most that long and longer
    /// than the bucket before says.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = BOUNDS_MS.iter().map(|ms| Some(Duration::from_millis(*ms)));
        bounds.chain([None]).zip(self.buckets.iter().copied())
    }

    /// What so great a share of them (0 to 1) took at most, as well as the buckets can tell: between a bucket's bounds
    /// its answers are taken to be spread evenly. The last bucket has no end, and is said to be its beginning. `None` if
    /// nothing was measured.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (share.clamp(0.0, 1.0) * self.count() as f64).max(1.0);
        let (mut seen, mut lower) = (0.0, Duration::ZERO);
        for (upper, count) in self.buckets() {
            let count = count as f64;
            if count > 0.0 && seen + count >= wanted {
                let width = upper.map_or(Duration::ZERO, |upper| upper - lower);
                return Some(lower + width.mul_f64((wanted - seen) / count));
            }
            seen += count;
            lower = upper.unwrap_or(lower);
        }
        None
    }

    /// How many answers were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_millis(self.sum_ms)
    }
}

impl Metrics {
    /// As a status tells of requests.
    pub(crate) fn described(&self) -> Requests {
        let ms = |share| {
            let quantile = self.latency.quantile(share)?;
            Some(quantile.as_secs_f64() * 1_000.0)
        };
        let quantiles = || {
            Some(Quantiles {
                p50: ms(0.5)?,
                p90: ms(0.9)?,
                p99: ms(0.99)?,
                p999: ms(0.999)?,
            })
        };
        Requests {
            total: self.answers.iter().sum(),
            per_second: None,
            latency_ms: quantiles(),
            responses: self.answers,
            latency_counts: self.latency.buckets,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
        }
    }

    pub(crate) fn gather(shared: &Shared) -> Self {
        let mut sum = Counters::default();
        let mut rare = Rare::default();
        for worker in shared.workers() {
            for block in worker.tally.own.iter().chain(&worker.tally.open) {
                sum.add(&block.0);
            }
            rare.add(&worker.tally.rare);
        }
        let life = &shared.life;
        Self {
            snapshot: shared.snapshot(),
            requests: value(&sum.requests),
            answers: sum.answers.each_ref().map(value),
            latency: Latency {
                buckets: sum.latencies.each_ref().map(value),
                sum_ms: value(&sum.latency_ms),
            },
            received_bytes: value(&sum.received),
            sent_bytes: value(&sum.sent),
            accepted: value(&rare.accepted),
            adopted: value(&rare.adopted),
            given: value(&rare.given),
            returned: value(&rare.returned),
            parkings: value(&rare.parked),
            malformed: value(&rare.malformed),
            drains: value(&life.drains),
            recalls: value(&life.recalls),
            switches: value(&life.switches),
            handovers_succeeded: value(&life.handovers_succeeded),
            handovers_failed: value(&life.handovers_failed),
            access_log_dropped: shared.access_log.get().map_or(0, Queue::dropped),
            accept_errors: named(
                AcceptTrouble::ALL.map(|(_, name)| name),
                &rare.accept_errors,
            ),
            handshake_failures: named(
                HandshakeTrouble::ALL.map(|(_, name)| name),
                &rare.handshake_failures,
            ),
            endings: named(ENDINGS.map(|(_, name)| name), &life.endings),
        }
    }
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn named<const N: usize>(
    names: [&'static str; N],
    counters: &[AtomicU64; N],
) -> Vec<(&'static str, u64)> {
    names.into_iter().zip(counters.iter().map(value)).collect()
}

fn merge(into: &AtomicU64, from: &AtomicU64) {
    into.fetch_add(value(from), Ordering::Relaxed);
}

fn merge_all(into: &[AtomicU64], from: &[AtomicU64]) {
    for (into, from) in into.iter().zip(from) {
        merge(into, from);
    }
}

impl Counters {
    fn add(&mut self, other: &Self) {
        merge(&self.requests, &other.requests);
        merge_all(&self.answers, &other.answers);
        merge_all(&self.latencies, &other.latencies);
        merge(&self.latency_ms, &other.latency_ms);
        merge(&self.received, &other.received);
        merge(&self.sent, &other.sent);
    }
}

impl Rare {
    fn add(&mut self, other: &Self) {
        for (into, from) in [
            (&self.accepted, &other.accepted),
            (&self.adopted, &other.adopted),
            (&self.given, &other.given),
            (&self.returned, &other.returned),
            (&self.parked, &other.parked),
            (&self.malformed, &other.malformed),
        ] {
            merge(into, from);
        }
        merge_all(&self.accept_errors, &other.accept_errors);
        merge_all(&self.handshake_failures, &other.handshake_failures);
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS_MS, Counters, Latency, Tally, value};
    use curtsy_lifecycle::Moment;
    use std::sync::atomic::AtomicU64;

    fn summed(tally: &Tally) -> Counters {
        let mut sum = Counters::default();
        for block in tally.own.iter().chain(&tally.open) {
            sum.add(&block.0);
        }
        sum
    }

    #[test]
    fn a_latency_falls_into_the_bucket_that_it_just_does_not_exceed() {
        let tally = Tally::new(true);
        let begun = Moment::from_millis(1_000);
        let mut expected = [0; BOUNDS_MS.len() + 1];
        for (bucket, bound) in BOUNDS_MS.iter().enumerate() {
            for (late, extra) in [(bucket, 0), (bucket + 1, 1)] {
                let now = Moment::from_millis(1_000 + bound + extra);
                tally.took(Some(begun), now, 2);
                expected[late] += 2;
            }
        }
        tally.took(None, begun, 1);
        let sum = summed(&tally);
        assert_eq!(sum.latencies.each_ref().map(value), expected);
        let all: u64 = BOUNDS_MS.iter().map(|bound| (2 * bound + 1) * 2).sum();
        assert_eq!(value(&sum.latency_ms), all);
    }

    #[test]
    fn answers_are_counted_by_class() {
        let tally = Tally::new(true);
        for status in [101, 200, 204, 301, 404, 499, 500, 599, 999] {
            tally.answer(status);
        }
        let classes = summed(&tally).answers.each_ref().map(value);
        assert_eq!(classes, [1, 2, 1, 2, 3]);
    }

    #[test]
    fn nothing_is_missed_where_many_threads_share_a_worker() {
        const THREADS: u64 = 8;
        const EACH: u64 = 20_000;
        for tally in [Tally::new(false), Tally::new(true)] {
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for _ in 0..EACH {
                            match tally.own {
                                None => tally.sent(3),
                                Some(_) => tally.sent_upgraded(3),
                            }
                        }
                    });
                }
            });
            assert_eq!(value(&summed(&tally).sent), 3 * THREADS * EACH);
        }
    }

    #[test]
    fn a_thread_of_its_own_shares_no_line_of_memory() {
        let tally = Tally::new(true);
        tally.request();
        assert_eq!(value(&tally.own.as_ref().unwrap().0.requests), 1);
        assert_eq!(value(&tally.open[0].0.requests), 0);
        assert_eq!(std::mem::align_of_val(&tally.open[0]), 128);
        // So that a block is some lines, and not a page.
        assert!(std::mem::size_of::<Counters>() <= 23 * std::mem::size_of::<AtomicU64>());
    }

    #[test]
    fn an_empty_histogram_has_all_its_buckets() {
        let empty = Latency::default();
        assert_eq!(empty.buckets().count(), BOUNDS_MS.len() + 1);
        assert_eq!((empty.count(), empty.sum().as_millis()), (0, 0));
        assert_eq!(empty.buckets().last().unwrap().0, None);
        assert_eq!(empty.quantile(0.5), None);
    }

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_buckets() {
        let mut latency = Latency::default();
        latency.buckets[0] = 90;
        latency.buckets[5] = 9;
        latency.buckets[13] = 1;
        let ms = |share| latency.quantile(share).unwrap().as_millis();
        assert_eq!((ms(0.0), ms(0.5), ms(0.9)), (0, 2, 5));
        assert!(ms(0.95) > 100 && ms(0.95) < 250, "{}", ms(0.95));
        assert_eq!((ms(0.99), ms(1.0)), (250, 60_000));
    }
}
