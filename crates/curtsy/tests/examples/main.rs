//! Every example is started and used as its documentation says, and ends well when it is told to: none can rot.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test"
)]
#![allow(
    clippy::print_stdout,
    reason = "what is skipped is said on standard output"
)]

mod life;
mod program;
mod sayings;
mod streams;
mod website;

use program::{curl_lines, names};

/// The examples that have a test here.
const TESTED: [&str; 14] = [
    "axum_app",
    "chat",
    "graceful",
    "groups_middleware",
    "hello",
    "json_api",
    "mount_axum",
    "restart",
    "spa",
    "sse_clock",
    "systemd",
    "templates",
    "tls_switch",
    "upload",
];

#[test]
fn no_example_is_without_a_test_and_a_documentation() {
    assert_eq!(names(), TESTED);
    for name in TESTED {
        let source = std::fs::read_to_string(format!("{}/examples/{name}.rs", program::HERE));
        let source = source.unwrap();
        assert!(
            source.starts_with("//! "),
            "{name} does not say what it shows"
        );
        let run = source.contains(&format!("--example {name}"));
        assert!(run, "{name} does not say how it is run");
        assert!(!curl_lines(name).is_empty(), "{name} shows no use of curl");
    }
}
