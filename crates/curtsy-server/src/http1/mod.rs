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

pub(crate) use connection::serve;
