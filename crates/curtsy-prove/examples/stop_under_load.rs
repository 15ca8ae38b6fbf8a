//! Stops a server in the middle of a load, and tells what became of every request.
//!
//! ```sh
//! cargo run --release -p curtsy-prove --example stop_under_load -- [--svg FILE] COMMAND ARGUMENTS...
//! ```
//!
//! Every `{address}` in the arguments becomes a free address on 127.0.0.1, on which the command is to serve `/`. 200
//! connections, with pauses of 0, 2 and 50 ms between their requests; SIGTERM after 1.5 s. Exits with 1 if a request was lost.

#![allow(clippy::print_stdout, reason = "an example that reports to a terminal")]

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use curtsy_prove::child::{Child, ChildSignal, free_address};
use curtsy_prove::{Plan, Report};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let svg = arguments
        .next_if(|first| first == "--svg")
        .and_then(|_| arguments.next());
    let program = arguments.next().ok_or("which command?")?;
    let address = free_address()?;
    let arguments = arguments.map(|a| a.replace("{address}", &address.to_string()));
    let mut child = Child::start(&program, arguments)?;
    let report = stop_under_load(&mut child, address).await?;
    println!("{report}");
    if let Some(path) = svg {
        std::fs::write(&path, report.svg())?;
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn stop_under_load(child: &mut Child, address: SocketAddr) -> Result<Report, Box<dyn Error>> {
    wait_until_it_serves(address).await?;
    let run = Plan::to_address(address, "/")
        .connections(200)
        .think([0, 2, 50].map(Duration::from_millis))
        .start();
    tokio::time::sleep(LOAD).await;
    run.mark("SIGTERM");
    child.signal(ChildSignal::TERM)?;
    let exit = child.wait_exit(EXIT_BOUND).await?;
    run.mark("exited");
    // Every client ends by itself: nobody listens any more.
    let report = run.finish().await;
    let idle = report
        .last_answer_at
        .map(|last| exit.at.saturating_duration_since(last));
    println!("{}, after the last answer by {idle:?}", exit.status);
    Ok(report)
}

/// Whatever the server prints or not: it is ready when it has answered.
async fn wait_until_it_serves(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    for _ in 0..READY_TRIES {
        let probe = Plan::to_address(address, "/")
            .connections(1)
            .requests_each(1);
        if probe.start().finish().await.is_clean() {
            return Ok(());
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
    Err("the server does not answer".into())
}

const LOAD: Duration = Duration::from_millis(1500);
const EXIT_BOUND: Duration = Duration::from_secs(60);
const READY_TRIES: usize = 500;
const READY_PAUSE: Duration = Duration::from_millis(10);
