//! What a program says of itself in debug mode, and that it says nothing otherwise.

use crate::program::{HERE, built};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The last line of what is said at the start.
const LAST: &str = "listening and serving on ";

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an example says at its start, up to a line with `last`.
fn said(name: &str, vars: &[(&str, &str)], last: &str) -> Vec<String> {
    let mut command = Command::new(built(name));
    for name in ["PORT", "GIN_MODE", "CURTSY_MODE"] {
        command.env_remove(name);
    }
    let child = command
        .envs(vars.iter().copied())
        .current_dir(HERE)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut lines = Vec::new();
    for line in BufReader::new(running.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let is_last = line.contains(last);
        lines.push(line);
        if is_last {
            break;
        }
    }
    lines
}

#[test]
fn debug_mode_says_what_there_is() {
    let lines = said("hello", &[("PORT", "0")], LAST);
    let (last, lines) = lines.split_last().unwrap();
    assert_eq!(
        lines,
        [
            "[CURTSY-debug] [WARNING] running in debug mode; set CURTSY_MODE=release, or \
             Mode::set(Mode::Release), in production",
            "[CURTSY-debug] [WARNING] an engine made by default() has the logger and recovery \
             attached already",
            "[CURTSY-debug] GET    /                         --> hello::main::{{closure}} (3 handlers)",
            "[CURTSY-debug] GET    /user/:name               --> hello::main::{{closure}} (3 handlers)",
            "[CURTSY-debug] PORT is \"0\"",
            "[CURTSY-debug] [WARNING] every peer is trusted as a proxy, which is not safe: call \
             set_trusted_proxies",
        ]
    );
    let (said, port) = last.rsplit_once(':').unwrap();
    assert!(port.parse::<u16>().unwrap() > 0, "{last}");
    // A machine may have no IPv6.
    let everywhere = ["[::]", "0.0.0.0"].map(|host| format!("[CURTSY-debug] {LAST}{host}"));
    assert!(everywhere.contains(&said.to_owned()), "{last}");
}

#[test]
fn without_a_port_it_is_8080() {
    // Whether it can be had or not, this is said before.
    let lines = said("templates", &[], "PORT is");
    let last = lines.last().unwrap();
    assert_eq!(last, "[CURTSY-debug] PORT is not set: listening on :8080");
}

#[test]
fn release_and_test_mode_say_nothing() {
    for mode in ["GIN_MODE", "CURTSY_MODE"] {
        for value in ["release", "test"] {
            // It ends by itself: there is no such port.
            let lines = said("hello", &[("PORT", "none"), (mode, value)], LAST);
            assert_eq!(lines, [""; 0], "{mode}={value}");
        }
    }
}
