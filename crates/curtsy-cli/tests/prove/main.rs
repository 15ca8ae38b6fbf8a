//! `curtsy prove` as its users meet it: a process, its report, its exit code.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test"
)]

mod account;
mod command;
mod faulty;
#[path = "../demo/server.rs"]
#[allow(dead_code, reason = "shared with the demo's own tests")]
mod server;
mod session;
mod usage;

use curtsy_prove::child::{Child, Exit};
use serde_json::Value;
use server::BOUND;

/// `curtsy prove` with those arguments, to its end.
async fn prove(arguments: &[&str]) -> Proved {
    start(arguments).end().await
}

/// `curtsy prove` with those arguments, under way.
fn start(arguments: &[&str]) -> Proving {
    let arguments = ["prove"].iter().chain(arguments);
    Proving(Child::start(env!("CARGO_BIN_EXE_curtsy"), arguments).unwrap())
}

struct Proving(Child);

impl Proving {
    async fn end(mut self) -> Proved {
        let Exit { status, .. } = self.0.wait_exit(BOUND).await.unwrap();
        self.0.wait_output_end(BOUND).await.unwrap();
        Proved {
            code: status.code(),
            stdout: self.0.stdout(),
            stderr: self.0.stderr(),
        }
    }
}

/// What came out.
#[derive(Debug)]
struct Proved {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Proved {
    /// The report of `--json`, in which the account must balance.
    fn json(&self) -> Value {
        let report: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {self:?}"));
        let counts = &report["counts"];
        let number = |name: &str| counts[name].as_u64().unwrap();
        let lost: u64 = counts["lost"]
            .as_object()
            .unwrap()
            .values()
            .map(|n| n.as_u64().unwrap())
            .sum();
        assert_eq!(number("sent"), number("answered") + lost, "{report}");
        let closed = number("closed_by_server_announced")
            + number("closed_while_idle")
            + number("closed_by_loss")
            + number("closed_by_client");
        assert_eq!(number("opened"), closed, "{report}");
        report
    }
}
