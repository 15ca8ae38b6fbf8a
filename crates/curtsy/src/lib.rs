//! An HTTP server for the whole life of a service: start, serve, reload, restart, switch, stop, without losing one request

#![forbid(unsafe_code)]
