//! A strict HTTP client: it accounts for every request and retries nothing.
//!
//! A server that says it loses no request while it stops, restarts or reloads needs somebody who counts. Ordinary
//! clients hide losses (they retry, they pool, they look whether a connection is still alive); this one writes
//! what [`Plan`] says, reads what comes, and enters both into an account that must balance: each request sent was either answered
//! whole or lost, and a lost one has a cause ([`Loss`]). The account is a [`Report`].
//!
//! What counts as lost, and what does not:
//!
//! | seen | account |
//! |---|---|
//! | reset, or end of stream, after the first byte of a request was to be written | lost: `reset`, `eof_before`, `eof_inside` |
//! | a status or a body other than expected | lost: `wrong_status`, `wrong_body` |
//! | no whole answer in time, or something that is not HTTP | lost: `timeout`, `garbage` |
//! | end of stream noticed between two requests, before the next is written | `closed_while_idle`, no loss |
//! | `Connection: close` in an answer | `closed_by_server_announced`, no loss |
//! | connection refused | `refused`: ends the client, no loss; with [`Plan::refused_is_loss`], a loss |
//! | GOAWAY, and the next request on a new connection | `closed_by_server_announced`, no loss |
//! | a WebSocket message that met a Close in good order | `crossed_close`, no loss |
//! | a request that the server left out, by GOAWAY or `REFUSED_STREAM` | lost: `unprocessed` |
//! | any other failure to connect | `connect_failed`, a loss |
//!
//! [`child`] starts and ends the server processes that a run is made against.

#![forbid(unsafe_code)]

mod answer;
mod book;
mod bound;
mod chart;
pub mod child;
mod client;
mod connection;
mod error;
mod http2;
mod outcome;
mod plan;
mod report;
mod running;
mod stream;
mod tap;
mod target;
mod tls;
mod upload;
mod websocket;

pub use book::{Cell, Counts, Losses, LostRequest, Seen};
pub use error::Error;
pub use outcome::Loss;
pub use plan::Plan;
pub use report::{Group, Quantiles, Report, Segment};
pub use running::Running;
