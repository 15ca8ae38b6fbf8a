//! What a server, or a supervisor, tells of itself: one shape for the socket, the page and people.
//!
//! Times are milliseconds, and counted from now: a reader needs no clock of the server's.
//!
//! Deliberately absent: anything that must be remembered from one look to the next.

use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::shared::Shared;
use curtsy_lifecycle::{Counts, Straggler};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many of the oldest stragglers a status names; the command `stragglers` tells of more.
pub const STRAGGLERS_NAMED: usize = 32;

/// What a server is doing, in the words of the control socket.
///
/// A field that says nothing is left out of the JSON. A reader passes over fields that it does not
/// know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// `server`, or `supervisor` for `curtsy run`.
    pub kind: String,
    /// The version of Curtsy.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// The process that started it.
    pub parent: u32,
    /// 0 for the first process, one more for every successor.
    pub generation: u64,
    /// `starting`, `serving`, `lame-duck`, `draining` or `stopped`; of a supervisor also `reloading`.
    pub phase: String,
    /// How long it has been running.
    pub up_ms: u64,
    /// Where it listens.
    pub listeners: Vec<ListenerStatus>,
    /// Where its admin listener is, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admin: Option<String>,
    /// Connections by state. A supervisor has none of its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connections: Option<Connections>,
    /// The drain, from the lame duck on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drain: Option<DrainStatus>,
    /// The restart under way, or the heir since one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restart: Option<RestartStatus>,
    /// The last restart, if it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restart_failed: Option<RestartFailed>,
    /// How many requests and upgraded connections are under way.
    #[serde(default)]
    pub stragglers_total: usize,
    /// The oldest of them, at most [`STRAGGLERS_NAMED`].
    #[serde(default)]
    pub stragglers: Vec<StragglerStatus>,
    /// A supervisor's processes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub processes: Vec<ProcessStatus>,
    /// Requests, as far as they are measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests: Option<Requests>,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its stable name.
    pub name: String,
    /// Its address: `127.0.0.1:9000`, `unix:/run/app.sock`.
    pub address: String,
    /// `plain`, `tls` or `both`; left out by a supervisor, which does not know.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
}

/// Connections by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// TLS or protocol detection under way.
    pub handshake: usize,
    /// Silent since they were accepted; the parked ones included.
    pub new: usize,
    /// A request is arriving or being answered.
    pub active: usize,
    /// Between requests; the parked ones included.
    pub idle: usize,
    /// WebSockets and tunnels.
    pub upgraded: usize,
    /// Those of `new` and `idle` that are bare descriptors; encrypted ones keep their session.
    pub parked: usize,
    /// All that are open.
    pub total: usize,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Since the wish to stop, the lame duck's time included.
    pub for_ms: u64,
    /// When the lame duck begins to drain; left out when it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lame_duck_in_ms: Option<u64>,
    /// When the linger of idle connections ends; 0 when it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub linger_in_ms: Option<u64>,
    /// When what is left is ended; left out before the drain has begun.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline_in_ms: Option<u64>,
    /// From the beginning of the drain to its deadline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline_ms: Option<u64>,
    /// Connections open when it began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub open_at_start: Option<usize>,
    /// Shutdown hooks that have not finished.
    pub hooks: usize,
}

/// How far a restart is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartStatus {
    /// `begun`: the new process was started. `ready`: it accepts. `serves`: it has proved itself.
    pub step: String,
    /// The new process's generation.
    pub generation: u64,
    /// The new process, as soon as it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
}

/// A restart that failed, with none since that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartFailed {
    /// How long ago.
    pub ago_ms: u64,
    /// Why, for people.
    pub text: String,
}

/// A request or an upgraded connection under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StragglerStatus {
    /// The connection's number.
    pub connection: u64,
    /// How long it has been active or upgraded.
    pub age_ms: u64,
    /// The client's address.
    pub peer: String,
    /// The listener that accepted it.
    pub listener: String,
    /// `active` or `upgraded`.
    pub state: String,
    /// The request's method; empty while its head is arriving.
    pub method: String,
    /// The request's path and query, cut with `…` if long.
    pub target: String,
    /// Bytes of the answer so far.
    pub bytes_sent: u64,
}

/// A process of a supervisor's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its number; left out while it waits to be started again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Its generation.
    pub generation: u64,
    /// `starting`, `ready`, `waiting` or `ending`.
    pub state: String,
    /// Since it was started.
    pub age_ms: u64,
}

/// Requests since the server began, and lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Answered since the server began.
    pub total: u64,
    /// Lately, if somebody keeps count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub per_second: Option<f64>,
    /// How long answers took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<Latency>,
    /// Answers by the first digit of their status, 1 to 5.
    #[serde(default)]
    pub responses: [u64; 5],
    /// How many answers took at most 5, 10, 25, 50, 100, 250, 500 ms, 1, 2.5, 5, 10, 30, 60 s, or longer, each counted
    /// once.
    #[serde(default)]
    pub latency_counts: [u64; 14],
    /// Bytes of HTTP read.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes of HTTP written.
    #[serde(default)]
    pub sent_bytes: u64,
}

/// Quantiles of a latency, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// 999 of 1000 took no longer.
    pub p999: f64,
}

impl Status {
    /// What is known of a process of that kind without looking further, for a program that is no
    /// server and keeps a [`ControlSocket`](super::ControlSocket).
    pub fn of_this_process(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            parent: parent(),
            ..Self::default()
        }
    }
}

/// What the server of that handle is doing. It looks at every connection and disturbs none.
pub(crate) fn status(handle: &Handle) -> Status {
    of(handle.shared())
}

pub(crate) fn of(shared: &Shared) -> Status {
    let metrics = Metrics::gather(shared);
    let snapshot = &metrics.snapshot;
    let (now, times) = (crate::clock::now(), shared.times());
    let until = |at: curtsy_lifecycle::Moment| ms(at.since(now));
    let stragglers = snapshot.stragglers.iter().take(STRAGGLERS_NAMED);
    Status {
        generation: snapshot.generation,
        phase: snapshot.phase.to_string(),
        up_ms: ms(now.since(shared.began)),
        listeners: listeners(shared),
        admin: shared.admin.get().cloned(),
        connections: Some(snapshot.counts.into()),
        drain: times.wished_at.map(|_| DrainStatus {
            for_ms: ms(snapshot.draining_for),
            lame_duck_in_ms: times.lame_duck_ends.map(until),
            linger_in_ms: times.linger_ends.map(until),
            deadline_in_ms: times.deadline.map(until),
            deadline_ms: times.deadline.and(times.patience).map(ms),
            open_at_start: times.open_at_start,
            hooks: snapshot.hooks,
        }),
        restart: shared.crier.restart(),
        restart_failed: shared.crier.restart_failed(),
        stragglers_total: snapshot.stragglers.len(),
        stragglers: stragglers.map(StragglerStatus::from).collect(),
        requests: Some(metrics.described()),
        ..Status::of_this_process("server")
    }
}

/// The process that started this one.
fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

fn listeners(shared: &Shared) -> Vec<ListenerStatus> {
    let boards = shared.boards().iter();
    let addresses = shared.addresses.get().into_iter().flatten();
    boards
        .zip(addresses)
        .map(|(board, address)| ListenerStatus {
            name: board.name.clone(),
            address: address.clone(),
            mode: Some(board.epoch().mode.name().to_string()),
        })
        .collect()
}

/// Whole milliseconds.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<Counts> for Connections {
    fn from(counts: Counts) -> Self {
        Self {
            handshake: counts.handshake,
            new: counts.new,
            active: counts.active,
            idle: counts.idle,
            upgraded: counts.upgraded,
            parked: counts.parked,
            total: counts.total(),
        }
    }
}

impl From<&Straggler> for StragglerStatus {
    fn from(straggler: &Straggler) -> Self {
        Self {
            connection: straggler.id,
            age_ms: ms(straggler.age),
            peer: straggler.peer.to_string(),
            listener: straggler.listener.clone(),
            state: straggler.state.name().to_owned(),
            method: straggler.method.clone(),
            target: straggler.target.clone(),
            bytes_sent: straggler.bytes_sent,
        }
    }
}
