//! New programs that are not what they should be: of another version, deaf, or dumb.

use crate::row::{BOUND, Row};
use curtsy_prove::Plan;
use curtsy_prove::child::ChildSignal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Greets in the handover's next version, and waits for what the old process does about it.
const NEXT_VERSION: &str = r#"#!/usr/bin/env python3
import os, socket, struct, time
fields = dict(field.split("=") for field in os.environ["CURTSY_HANDOVER"].split())
channel = socket.socket(fileno=int(fields["channel"]))
channel.send(b"CRTS" + struct.pack(">HHIIHH", 2, 1, int(fields["generation"]), 1, 0, 0))
time.sleep(600)
"#;

/// Says nothing at all.
const DUMB: &str = "#!/bin/sh\nexec sleep 600\n";

/// Holds its end of the channel and complains about something else.
const DEAF: &str = "#!/bin/sh\necho deaf and alive >&2\nexec sleep 600\n";

/// Puts a script into the place of the program at once, as a deployment does.
fn deploy(script: &str, to: &Path) {
    let new = to.with_extension("new");
    fs::write(&new, script).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, to).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_another_version_or_without_a_word_is_not_taken_over_by() {
    let python = std::process::Command::new("python3").arg("-V").output();
    if !python.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: python3 is not installed");
        return;
    }
    let good = Path::new(env!("CARGO_BIN_EXE_curtsy"));
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("server");
    fs::copy(good, &program).unwrap();
    // Long enough for an interpreter on a busy machine, too short to wait for.
    let mut row = Row::spawn(&program, &["--ready-timeout", "3s"]).await;
    let running = Plan::to_address(row.address, "/pid")
        .connections(20)
        .think([Duration::from_millis(2)])
        .refused_is_loss()
        .record_answers()
        .start();
    let mut failures = 0;
    for (script, why) in [
        (
            NEXT_VERSION,
            "speaks handover protocol version 2, and this one version 1",
        ),
        (DUMB, "was not ready within 3s"),
        (DEAF, "last words were: / deaf and alive"),
    ] {
        deploy(script, &program);
        row.signal(ChildSignal::HUP);
        failures += 1;
        let line = row.line_number("kept the old process: ", failures).await;
        assert!(line.contains(why), "{line}\ninstead of {why}");
        let before = running.counts().answered;
        running.wait_answered(before + 100, BOUND).await.unwrap();
        assert_eq!(row.children(), [0; 0], "a child is left");
    }
    let new = directory.path().join("new");
    fs::copy(good, &new).unwrap();
    fs::rename(&new, &program).unwrap();
    row.restart().await;
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.counts.opened, 20, "{report}");
    assert_eq!(report.answers.len(), 2, "{report}");
    row.alone().await;
    row.stop().await;
}
