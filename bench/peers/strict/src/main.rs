//! The strict client as a program of the benchmark: asks `/` on keep-alive connections while somebody else stops the
//! server, and says in one line of JSON what became of every request.
//!
//! A refused connection ends its client and is no loss: the listener was closed in order. Whatever was sent and not
//! answered whole is one.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use curtsy_prove::Plan;
use serde_json::json;

#[derive(Debug, Parser)]
struct Cli {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    conns: usize,
    /// Between an answer and the next request of a connection.
    #[arg(long)]
    think_ms: u64,
    #[arg(long)]
    seconds: f64,
    /// The server is restarted and not stopped: a refused client tries again.
    #[arg(long)]
    restarts: bool,
}

fn main() -> std::io::Result<()> {
    let cli = Cli::parse();
    let mut plan = Plan::to_address(cli.target, "/")
        .connections(cli.conns)
        .think([Duration::from_millis(cli.think_ms)])
        .duration(Duration::from_secs_f64(cli.seconds))
        .expect_text("Hello, World!");
    if cli.restarts {
        plan = plan.refused_is_loss();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async { plan.start().finish().await });
    let counts = &report.counts;
    // Refused connects are told apart from what was sent and is lost.
    let refused = if cli.restarts { counts.refused } else { 0 };
    println!(
        "{}",
        json!({
            "sent": counts.sent,
            "answered": counts.answered,
            "lost": report.lost().saturating_sub(refused),
            "refused": counts.refused,
            "opened": counts.opened,
            "max_us": report.latency.max_us,
        })
    );
    Ok(())
}
