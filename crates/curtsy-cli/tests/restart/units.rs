//! The unit files of `deploy/systemd`, as systemd's own tools see them.

use crate::row::{BOUND, Row};
use curtsy_prove::Plan;
use curtsy_prove::child::{Child, free_address};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

const CURTSY: &str = env!("CARGO_BIN_EXE_curtsy");

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd")
}

#[tokio::test]
async fn systemd_understands_the_unit_files() {
    let directory = tempfile::tempdir().unwrap();
    // A newer one than the system's, if there is one.
    let analyze = std::env::var_os("CURTSY_SYSTEMD_ANALYZE");
    let analyze = analyze.unwrap_or_else(|| "systemd-analyze".into());
    let version = std::process::Command::new(&analyze)
        .arg("--version")
        .output();
    let Ok(version) = version else {
        println!("SKIPPED: systemd-analyze is not installed");
        return;
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(units()).unwrap().flatten() {
        // The program is where it was built and not where it would be installed.
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let text = text.replace("/usr/local/bin/curtsy", CURTSY);
        let text = match version {
            // What it stands for, and as the files say.
            ..253 => text.replace(
                "Type=notify-reload",
                "Type=notify\nExecReload=kill -HUP $MAINPID",
            ),
            _ => text,
        };
        let path = directory.path().join(entry.file_name());
        std::fs::write(&path, text).unwrap();
        files.push(path);
    }
    assert_eq!(files.len(), 3, "{files:?}");
    let verify = async |files: &[PathBuf]| {
        let mut command = Command::new(&analyze);
        command
            .args(["verify", "--recursive-errors=no"])
            .args(files);
        command.env(
            "SYSTEMD_UNIT_PATH",
            format!("{}:", directory.path().display()),
        );
        let mut child = Child::spawn(command).unwrap();
        let exit = child.wait_exit(BOUND).await.unwrap();
        child.wait_output_end(BOUND).await.unwrap();
        (exit.status.success(), child.stderr())
    };
    let (ok, said) = verify(&files).await;
    // What it says of a machine without a running systemd is not about these files.
    let names = ["curtsy-demo", "curtsy-run"];
    let about: Vec<&str> = said
        .lines()
        .filter(|line| names.iter().any(|name| line.contains(name)))
        .collect();
    assert!(ok && about.is_empty(), "{said}");
    // And it does look: a file with a mistake is not in order.
    let wrong = directory.path().join("curtsy-demo.service");
    let text = std::fs::read_to_string(&wrong).unwrap();
    std::fs::write(&wrong, text.replace("KillMode=", "KilMode=")).unwrap();
    let (_, said) = verify(&[wrong]).await;
    assert!(said.contains("KilMode"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_activated_server_restarts_as_others_do() {
    let address = free_address().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command
        .args(["--listen", &address.to_string(), "--fdname", "main", CURTSY])
        .args(["demo", "--inherit", "--bake-after", "100ms"]);
    let mut probe = command.as_std().get_program().to_owned();
    probe.push(" --version");
    let found = std::process::Command::new("sh")
        .arg("-c")
        .arg(probe)
        .output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: systemd-socket-activate is not installed");
        return;
    }
    // It starts the server when somebody comes, and there is no line before that.
    let first = tokio::spawn(async move {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut row = Row::run(command, "http://").await;
    first.await.unwrap();
    let running = Plan::to_address(address, "/pid")
        .connections(20)
        .think([Duration::from_millis(5)])
        .refused_is_loss()
        .record_answers()
        .start();
    running.wait_answered(100, BOUND).await.unwrap();
    let before = running.counts();
    row.restart().await;
    row.alone().await;
    running
        .wait_answered(before.answered + 100, BOUND)
        .await
        .unwrap();
    running.stop();
    let report = running.finish().await;
    assert_eq!(report.lost(), 0, "{report}\n{}", row.child.stderr());
    assert_eq!(report.answers.len(), 2, "{report}");
    row.stop().await;
}
