//! HTTP/1: hyper's connection between a wire that knows its bytes and a service that knows its
//! requests.

mod answer;
mod connection;
mod deadlines;
mod refusal;
mod rules;
mod scan;
mod service;
mod wire;

pub(crate) use answer::Answer;
pub(crate) use connection::serve;
pub(crate) use deadlines::{Due, Situation, next as next_deadline};
pub(crate) use rules::is_host;
pub(crate) use service::{Answering, Judge};
pub(crate) use wire::{Wire, poll_discard};
