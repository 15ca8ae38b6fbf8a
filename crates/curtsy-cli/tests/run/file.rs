//! A file in place of flags: checked before anything starts, and read again by a reload.

use crate::supervisor::{BOUND, CURTSY, Supervisor};
use curtsy_prove::child::Child;
use std::path::Path;
use tokio::process::Command;

/// `curtsy run` with a file; its code and what it said.
async fn check(file: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(CURTSY);
    command.args(["run", "--config"]).arg(file).args(flags);
    let mut child = Child::spawn(command).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    (exit.status.code(), child.stderr())
}

#[tokio::test]
async fn a_file_is_checked_before_anything_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let (file, trace) = (
        directory.path().join("curtsy.toml"),
        directory.path().join("trace"),
    );
    let command = format!("command = [\"touch\", {trace:?}]");
    for (text, says) in [
        (
            format!("listen = \":0\"\ngrace = \"soon\"\n{command}"),
            "line 2",
        ),
        (
            format!("lisen = \":0\"\n{command}"),
            "unknown field `lisen`",
        ),
        (command.clone(), "nothing to listen on"),
        ("listen = \":0\"".to_owned(), "no program"),
    ] {
        std::fs::write(&file, &text).unwrap();
        for flags in [&[][..], &["--check"]] {
            let (code, said) = check(&file, flags).await;
            assert_eq!(code, Some(2), "{text}: {said}");
            assert!(said.contains(says), "{text}: {said}");
        }
    }
    std::fs::write(&file, format!("listen = \":0\"\n{command}")).unwrap();
    let (code, said) = check(&file, &["--check"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check(&directory.path().join("missing"), &["--check"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(!trace.exists(), "something was started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_reads_the_file_again_or_keeps_the_old_generation() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("service.toml");
    let write = |more: &str, workers: u32| {
        let text = format!(
            "{more}\ncommand = [{CURTSY:?}, \"demo\", \"--inherit\", \"--workers\", \"{workers}\"]\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write("", 1);
    let file_flag = file.to_str().unwrap();
    let mut supervisor = Supervisor::start::<&str>(&["--config", file_flag], &[]).await;
    supervisor.line("generation 0, 1 workers").await;
    for (bad, says) in [
        ("grace = \"soon\"", "line 1"),
        (
            "processes = 2",
            "processes can only be changed by a new start",
        ),
    ] {
        write(bad, 2);
        let (code, said) = supervisor.reload().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(says) && said.contains("the old one was kept"),
            "{said}"
        );
        let answer = supervisor.get("/pid").await;
        assert!(answer.contains("generation=0"), "{answer}");
    }
    write("ready = \"notify\"\nready-timeout = \"20s\"", 2);
    supervisor.reloads().await;
    supervisor.line(", 2 workers").await;
    assert_eq!(supervisor.stop().await, Some(0));
}
