//! The demo speaks TLS, and is switched from outside while it runs.

use crate::server::{BOUND, Demo, demo};
use curtsy_prove::child::Child;

async fn run(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let mut child = Child::start(program, arguments).ok()?;
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    let output = format!("{}{}", child.stdout(), child.stderr());
    Some((exit.status.success(), output))
}

#[tokio::test]
async fn curtsy_switch_changes_what_a_port_speaks() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    let control = control.to_str().unwrap();
    let flags = [
        "--tls",
        "self-signed",
        "--mode",
        "plain",
        "--control",
        control,
    ];
    let server = Demo::spawn(demo(&flags)).await;
    assert!(server.child.stderr().contains("certificate sha-256 "));
    let curtsy = env!("CARGO_BIN_EXE_curtsy");
    let plain = server.url("/");
    let secure = plain.replace("http://", "https://");
    for (mode, plain_ok, secure_ok) in [
        ("plain", true, false),
        ("both", true, true),
        ("tls", false, true),
        ("plain", true, false),
    ] {
        let switched = run(curtsy, &["switch", "main", mode, "--control", control]).await;
        let (ok, output) = switched.unwrap();
        assert!(ok && output.contains(mode), "{output}");
        for (url, expected) in [(&plain, plain_ok), (&secure, secure_ok)] {
            let Some((ok, output)) = run("curl", &["-sSkf", "--max-time", "10", url]).await else {
                continue;
            };
            let served = ok && output.contains("Hello, World!");
            assert_eq!(served, expected, "{url} in mode {mode}: {output}");
        }
    }
    let (ok, output) = run(curtsy, &["switch", "other", "tls", "--control", control])
        .await
        .unwrap();
    assert!(!ok && output.contains("no listener"), "{output}");
    let reloaded = run(curtsy, &["reload-certificates", "--control", control]).await;
    assert!(reloaded.unwrap().0);
    server.stop().await;
    let (ok, output) = run(curtsy, &["switch", "main", "tls", "--control", control])
        .await
        .unwrap();
    assert!(!ok && output.contains("cannot reach a server"), "{output}");
}

#[tokio::test]
async fn a_mode_without_a_certificate_is_refused() {
    let command = demo(&["--mode", "tls"]);
    let mut child = Child::spawn(command).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(1));
    assert!(
        child.stderr().contains("no certificate"),
        "{}",
        child.stderr()
    );
}
