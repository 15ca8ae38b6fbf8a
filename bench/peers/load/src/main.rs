//! The load that wrk cannot make: a new connection for every request, thousands of connections that stay, one request
//! at a time on connections that have been idle, and requests at an even pace.
//!
//! One thread, no runtime, every subcommand bounded in count and time. What was measured goes to standard output as
//! one line of JSON. An answer that is not the expected one is counted as an error, never as a request.

use std::{net::SocketAddr, time::Duration};

use clap::{Parser, Subcommand};

mod answer;
mod churn;
mod events;
mod hold;
mod kept;
mod pace;
mod pipeline;
mod socket;
mod summary;
mod wake;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A new connection for every request.
    Churn {
        #[arg(long)]
        target: SocketAddr,
        /// How many at a time.
        #[arg(long)]
        conns: usize,
        #[arg(long)]
        seconds: f64,
    },
    /// Batches of requests, the next when all of one are answered.
    Pipeline {
        #[arg(long)]
        target: SocketAddr,
        #[arg(long)]
        conns: usize,
        /// Requests in a batch.
        #[arg(long)]
        depth: usize,
        #[arg(long)]
        seconds: f64,
    },
    /// The same number of requests every second, whether they are answered or not.
    Pace {
        #[arg(long)]
        target: SocketAddr,
        /// How many connections take turns; for `new`, how many are open at a time.
        #[arg(long)]
        conns: usize,
        /// Requests, batches or new connections per second, all connections together.
        #[arg(long)]
        rate: f64,
        #[arg(long)]
        seconds: f64,
        #[arg(long, value_enum)]
        ask: pace::Ask,
    },
    /// Many connections that stay; answers `count` on standard input, ends with it.
    Hold {
        #[arg(long)]
        target: SocketAddr,
        #[arg(long)]
        conns: usize,
        #[arg(long, value_enum)]
        how: hold::How,
        /// When it ends by itself.
        #[arg(long, default_value_t = 240.0)]
        seconds: f64,
    },
    /// One request at a time, in turn on a connection that has been idle and on one that is in use.
    Wake {
        #[arg(long)]
        target: SocketAddr,
        /// How many connections take turns being idle.
        #[arg(long)]
        conns: usize,
        /// How long each is idle between its requests.
        #[arg(long, default_value_t = 1.0)]
        idle_seconds: f64,
        /// How often each is asked.
        #[arg(long)]
        turns: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let line = match Cli::parse().kind {
        Kind::Churn {
            target,
            conns,
            seconds,
        } => churn::run(target, conns, Duration::from_secs_f64(seconds))?,
        Kind::Pipeline {
            target,
            conns,
            depth,
            seconds,
        } => pipeline::run(target, conns, depth, Duration::from_secs_f64(seconds))?,
        Kind::Pace {
            target,
            conns,
            rate,
            seconds,
            ask,
        } => pace::run(target, conns, rate, Duration::from_secs_f64(seconds), ask)?,
        Kind::Hold {
            target,
            conns,
            how,
            seconds,
        } => hold::run(target, conns, how, Duration::from_secs_f64(seconds))?,
        Kind::Wake {
            target,
            conns,
            idle_seconds,
            turns,
        } => wake::run(target, conns, Duration::from_secs_f64(idle_seconds), turns)?,
    };
    println!("{line}");
    Ok(())
}
