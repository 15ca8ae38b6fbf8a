//! What the server tells of itself: counts, stragglers, the report of a drain.

use crate::entry::Address;
use crate::phase::Phase;
use crate::state::State;
use std::fmt;
use std::time::Duration;

/// How many connections are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
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
    /// Those of `new` and `idle` that are parked: bare descriptors, no buffers; an encrypted one
    /// keeps its session.
    pub parked: usize,
}

impl Counts {
    /// Counts one connection in `state`.
    pub fn add(&mut self, state: State) {
        match state {
            State::Handshake => self.handshake += 1,
            State::New => self.new += 1,
            State::Active => self.active += 1,
            State::Idle => self.idle += 1,
            State::Upgraded => self.upgraded += 1,
            State::Closed => {}
        }
    }

    /// Counts `connections` parked ones in `state`.
    pub fn add_parked(&mut self, state: State, connections: usize) {
        match state {
            State::New => self.new += connections,
            State::Handshake | State::Active | State::Idle | State::Upgraded | State::Closed => {
                self.idle += connections;
            }
        }
        self.parked += connections;
    }

    /// All open connections.
    pub fn total(&self) -> usize {
        self.handshake + self.new + self.active + self.idle + self.upgraded
    }
}

/// A request or an upgraded connection that is still running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// The connection's number.
    pub id: u64,
    /// How long it has been active or upgraded, to a few milliseconds.
    pub age: Duration,
    /// The client's address.
    pub peer: Address,
    /// The listener that accepted it.
    pub listener: String,
    /// [`State::Active`] or [`State::Upgraded`].
    pub state: State,
    /// The request's method; empty while its head is still arriving.
    pub method: String,
    /// The request's target, path and query as sent, cut with `…` if long; empty while its head is
    /// still arriving.
    pub target: String,
    /// Bytes of the answer that went out so far, head included.
    pub bytes_sent: u64,
}

impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = self.age.as_secs_f64();
        write!(f, "{age:.1} s  {}  {}", self.peer, self.state)?;
        if self.method.is_empty() {
            f.write_str("  (request head incomplete)")?;
        } else {
            write!(f, "  {} {}", self.method, self.target)?;
        }
        write!(f, "  {} B sent", self.bytes_sent)
    }
}

/// What a server is doing right now.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The phase it is in.
    pub phase: Phase,
    /// 0 for the first process, one more for every successor.
    pub generation: u64,
    /// How long the drain has been going on; zero before it.
    pub draining_for: Duration,
    /// How long it may still go on, once it has begun.
    pub deadline_in: Option<Duration>,
    /// Connections by state.
    pub counts: Counts,
    /// What would be cut if the server ended now, oldest first.
    pub stragglers: Vec<Straggler>,
    /// Shutdown hooks that have not finished.
    pub hooks: usize,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything finished.
    Drained,
    /// The deadline came first.
    DeadlinePassed,
    /// It was told to end at once.
    Closed,
}

/// What a drain came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// From the wish to stop to the end, lame duck included.
    pub took: Duration,
    /// Connections open when it began.
    pub open_at_start: usize,
    /// What was still running at the end, oldest first: cut, or left, as the policy says. Empty
    /// when everything finished.
    pub stragglers: Vec<Straggler>,
    /// Shutdown hooks that had not finished at the end.
    pub hooks_unfinished: usize,
    /// Shutdown hooks that panicked.
    pub hooks_panicked: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.took.as_secs_f64();
        match self.ending {
            Ending::Drained => write!(f, "drained in {took:.3} s")?,
            Ending::DeadlinePassed => write!(f, "deadline passed after {took:.3} s")?,
            Ending::Closed => write!(f, "closed after {took:.3} s")?,
        }
        if !self.stragglers.is_empty() {
            write!(f, ", {} still running:", self.stragglers.len())?;
            for straggler in &self.stragglers {
                write!(f, "\n  {straggler}")?;
            }
        }
        if self.hooks_unfinished > 0 {
            let hooks = self.hooks_unfinished;
            write!(f, "\n  {hooks} shutdown hook(s) unfinished")?;
        }
        if self.hooks_panicked > 0 {
            write!(f, "\n  {} shutdown hook(s) panicked", self.hooks_panicked)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, Report, Straggler};
    use crate::{Address, State};
    use std::time::Duration;

    #[test]
    fn a_report_names_each_straggler() {
        let report = Report {
            ending: Ending::DeadlinePassed,
            took: Duration::from_millis(1_002),
            open_at_start: 4,
            stragglers: vec![Straggler {
                id: 3,
                age: Duration::from_millis(1_200),
                peer: Address::Tcp("127.0.0.1:5555".parse().unwrap()),
                listener: "main".into(),
                state: State::Active,
                method: "GET".into(),
                target: "/slow?ms=5000".into(),
                bytes_sent: 0,
            }],
            hooks_unfinished: 1,
            hooks_panicked: 0,
        };
        assert_eq!(
            report.to_string(),
            "deadline passed after 1.002 s, 1 still running:\n  \
             1.2 s  127.0.0.1:5555  active  GET /slow?ms=5000  0 B sent\n  \
             1 shutdown hook(s) unfinished"
        );
    }
}
