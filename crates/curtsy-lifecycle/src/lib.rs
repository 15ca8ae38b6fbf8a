//! The life of a server as pure data.
//!
//! Phases, connection states, the drain and the ledger of who is connected, without a socket, a
//! runtime or a clock: whoever drives them says what happened and what time it is, and is told
//! what to do. That is what makes every step of a shutdown testable in a table.
//!
//! Invariants:
//! - A state machine is an enum and one transition function that names every state and event.
//! - Nothing here reads a clock: a time is a [`Moment`] handed in.
//! - The request path writes only to its own connection's [`Entry`]: no lock, no shared counter,
//!   no allocation. Whoever reads (a snapshot, a report) pays.
//!
//! Deliberately absent: I/O, tasks, timers, HTTP.

#![forbid(unsafe_code)]

mod drain;
mod draining;
mod entry;
mod ledger;
mod moment;
mod phase;
mod record;
mod report;
mod state;

pub use drain::{AtDeadline, Command, Drain, DrainEvent, DrainPolicy};
pub use draining::{Draining, Signal, Wait};
pub use entry::{Address, Arrival, ConnectionInfo, Entry, Origin};
pub use ledger::{Key, Ledger};
pub use moment::Moment;
pub use phase::Phase;
pub use record::Record;
pub use report::{Counts, Ending, Report, Snapshot, Straggler};
pub use state::{Event, State, Step};
