//! Encrypted clients after a restart: their tickets still count, and the certificate is the one they know.

use crate::row::{BOUND, Row};
use curtsy_prove::child::Child;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// One request by `openssl s_client`, with the session of an earlier one or saving its own; what it says. `None` without
/// openssl.
async fn ask(row: &Row, version: &str, session: &[&str], file: &Path) -> Option<String> {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &row.address.to_string(),
            "-ign_eof",
            version,
        ])
        .args(session)
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let request = b"GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stdin.write_all(request).await.unwrap();
    let output = tokio::time::timeout(BOUND, child.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_the_old_process_is_resumed_by_the_new_one() {
    if Child::start("openssl", ["version"]).is_err() {
        println!("SKIPPED: openssl is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_curtsy"));
    command
        .args(["demo", "--listen", "127.0.0.1:0", "--bake-after", "50ms"])
        .args(["--tls", "self-signed"]);
    let mut row = Row::run(command, "https://").await;
    let saved = |version: &str| directory.path().join(version);
    let versions = ["-tls1_3", "-tls1_2"];
    for version in versions {
        let said = ask(&row, version, &["-sess_out"], &saved(version))
            .await
            .unwrap();
        assert!(said.contains("generation=0"), "{said}");
        assert!(said.contains("New, TLSv1."), "{version}: {said}");
    }
    // Also by the heir of the heir.
    for generation in 1..=2 {
        row.restart().await;
        row.alone().await;
        for version in versions {
            let said = ask(&row, version, &["-sess_in"], &saved(version))
                .await
                .unwrap();
            assert!(said.contains(&format!("generation={generation}")), "{said}");
            assert!(said.contains("Reused, TLSv1."), "{version}: {said}");
        }
    }
    let lines = row.lines();
    let fingerprints: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.text.split("certificate sha-256 ").nth(1))
        .collect();
    assert_eq!(fingerprints.len(), 3, "{fingerprints:?}");
    assert!(
        fingerprints.iter().all(|print| *print == fingerprints[0]),
        "{fingerprints:?}"
    );
    row.stop().await;
}
