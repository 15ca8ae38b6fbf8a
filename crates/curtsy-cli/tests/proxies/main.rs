//! Behind real load balancers, with the configurations that are shipped: rolled under load, nothing is lost at their front.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod deployed;
mod fleet;
mod haproxy;
mod nginx;
