//! gin's graceful-shutdown example, where there is nothing to write but the slow handler.
//!
//! ```sh
//! cargo run -p curtsy --example graceful
//! curl http://127.0.0.1:8080/                  # Welcome Curtsy Server, five seconds later
//! kill -TERM "$(pidof graceful)"               # meanwhile: it is answered all the same
//! ```

use curtsy::web::{Context, Engine, Run};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::default();
    r.get("/", async |c: &mut Context| {
        tokio::time::sleep(Duration::from_secs(5)).await;
        c.string(200, "Welcome Curtsy Server");
    });
    let outcome = r.run("")?;
    tell(outcome.report());
    Ok(())
}

/// The report of the drain: how long it took, and what had to be cut.
#[allow(clippy::print_stderr, reason = "an example that tells what happened")]
fn tell(report: &curtsy::Report) {
    eprintln!("{report}");
}
