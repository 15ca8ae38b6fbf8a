//! Restarts whose old or new process is killed: at each step of the protocol, and at random moments.
//!
//! What must hold: a request is never served twice; none is lost while the process that its connection belongs to lives;
//! nothing leaks, no zombie stays; and the service answers again within a second, by the process that survives or by what
//! the supervisor starts. Whose a connection was when a process died, the other one writes down: it has heard everything
//! that the dead had said. A second is what it takes at most beside a plain start of the same program in the same round, and
//! what the machine kept from everybody in that time.
//!
//! Called with `serve` this is the server that the tests kill. `CURTSY_CHAOS=500` asks for that many random moments.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a failed unwrap is a failed test, and what was measured is said"
)]

mod clients;
mod moments;
mod processes;
mod server;
mod steps;

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("serve") => return server::serve(arguments.next().as_deref()),
        // What a test runner may ask of any test.
        Some("--list") => return println!("steps: test\nbrokered: test\nmoments: test"),
        Some(_) | None => {}
    }
    processes::adopt_orphans();
    let lateness = clients::Lateness::watch();
    steps::every_step(&lateness);
    steps::brokered_steps(&lateness);
    moments::random_moments(&lateness);
}
