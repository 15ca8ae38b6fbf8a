//! The client against servers of every conduct, and the child processes; one topic a file.

mod accounting;
mod child;
mod http2;
mod modes;
mod servers;
mod tls;
mod websocket;
