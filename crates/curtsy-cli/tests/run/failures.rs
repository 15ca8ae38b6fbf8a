//! What goes wrong is said, and the old generation goes on.

use crate::admin::get;
use crate::supervisor::{BOUND, CURTSY, DEMO, Supervisor};
use curtsy_prove::child::{Child, ChildSignal, free_address};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A program whose first process is the demo, and whose next ones do what `then` says.
fn turning(then: &str) -> Vec<String> {
    let script = format!(
        "if [ -e \"$DIRECTORY/turned\" ]; then {then}; fi; touch \"$DIRECTORY/turned\"; exec {}",
        DEMO.join(" ")
    );
    ["sh", "-c", &script].map(str::to_owned).into()
}

/// `curtsy run` to its end: its code and what it wrote.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut all = vec!["run"];
    all.extend(arguments);
    let mut child = Child::start(CURTSY, all).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    (exit.status.code(), child.stderr())
}

#[tokio::test]
async fn a_program_that_cannot_start_is_named_and_its_status_kept() {
    let listen = ["--listen", "127.0.0.1:0"];
    for (rest, code, says) in [
        (
            &["--", "/no/such/program"][..],
            127,
            "/no/such/program: No such file",
        ),
        (
            &["--", "/etc/passwd"],
            126,
            "/etc/passwd: Permission denied",
        ),
        (&["--", "sh", "-c", "exit 7"], 7, "exited with status 7"),
        (
            &["--ready", "notify", "--", "sh", "-c", "exit 0"],
            1,
            "exited with status 0",
        ),
        (
            &["--ready-timeout", "300ms", "--", "sleep", "60"],
            1,
            "not ready within 300ms",
        ),
    ] {
        let arguments: Vec<&str> = listen.iter().chain(rest).copied().collect();
        let (status, stderr) = run(&arguments).await;
        assert_eq!(status, Some(code), "{rest:?}: {stderr}");
        assert!(stderr.contains(says), "{rest:?}: {stderr}");
    }
}

#[tokio::test]
async fn bad_flags_are_usage() {
    for (arguments, says) in [
        (&["--listen", ":0"][..], "COMMAND"),
        (&["--", "true"], "--listen"),
        (
            &["--listen", ":0", "--ready", "soon", "--", "true"],
            "delay:TIME",
        ),
        (&["--listen", ":0", "--name", "a:b", "--", "true"], "colon"),
        (
            &["--listen", ":0", "--name", "a", "--name", "b", "--", "true"],
            "more names",
        ),
        (
            &[
                "--listen",
                "unix:/nowhere",
                "--processes",
                "0",
                "--",
                "true",
            ],
            "--processes",
        ),
    ] {
        let (code, stderr) = run(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

/// The reload fails with that reason, and the same process goes on serving.
async fn keeps_the_old(flags: &[&str], then: &str, says: &str) {
    let mut supervisor = Supervisor::start(flags, &turning(then)).await;
    let before = supervisor.get("/pid").await;
    let (code, said) = supervisor.reload().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(says) && said.contains("the old one was kept"),
        "{said}"
    );
    let body = |answer: &str| answer.split("\r\n\r\n").nth(1).unwrap().to_owned();
    assert_eq!(body(&supervisor.get("/pid").await), body(&before));
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test]
async fn a_new_generation_that_ends_at_once_is_refused() {
    keeps_the_old(&[], "exit 3", "exited with status 3").await;
}

#[tokio::test]
async fn a_new_generation_that_is_killed_is_refused() {
    keeps_the_old(&[], "kill -9 $$", "ended by signal 9").await;
}

#[tokio::test]
async fn a_new_generation_that_is_not_ready_in_time_is_refused() {
    // The old one accepts every probe meanwhile, which proves nothing of the new one.
    for ready in ["auto", "http:/"] {
        let flags = ["--ready-timeout", "5s", "--ready", ready];
        keeps_the_old(&flags, "exec sleep 60", "not ready within 5s").await;
    }
}

#[tokio::test]
async fn a_program_that_vanished_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    std::os::unix::fs::symlink(CURTSY, &program).unwrap();
    let command = [program.to_str().unwrap(), "demo", "--inherit"];
    let mut supervisor = Supervisor::start(&[], &command).await;
    std::fs::remove_file(&program).unwrap();
    let (code, said) = supervisor.reload().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("No such file"), "{said}");
    assert!(supervisor.get("/").await.ends_with("Hello, World!"));
    // Once it is there again, all is well.
    std::os::unix::fs::symlink(CURTSY, &program).unwrap();
    supervisor.reloads().await;
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test]
async fn what_outlives_its_grace_is_killed_with_its_children() {
    let script = "trap '' TERM; echo trapped; while :; do sleep 1; done";
    let flags = ["--ready", "delay:50ms", "--grace", "500ms"];
    let mut supervisor = Supervisor::start(&flags, &["sh", "-c", script]).await;
    supervisor.line("trapped").await;
    supervisor.reloads().await;
    supervisor
        .line("generation 0 did not end within 500ms")
        .await;
    let began = Instant::now();
    // The output ends only when nobody holds it: the children are gone as well.
    assert_eq!(supervisor.stop().await, Some(137));
    assert!(began.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_reload_without_a_supervisor_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nobody");
    let path = path.to_str().unwrap();
    let mut child = Child::start(CURTSY, ["reload", "--control", path]).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(1));
    assert!(
        child.stderr().contains("not reloaded"),
        "{}",
        child.stderr()
    );
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_its_program_along() {
    let mut supervisor = Supervisor::start(&[], &DEMO).await;
    supervisor.child.signal(ChildSignal::KILL).unwrap();
    supervisor.end().await;
    // The demo held the output open until it had drained.
    assert_eq!(supervisor.count("curtsy: drained"), 1);
}

#[tokio::test]
async fn a_generation_that_failed_leaves_its_number_to_the_next() {
    let admin = free_address().unwrap();
    // The second and the third process fail, in two ways; all others are the demo.
    let script = format!(
        "echo >> $DIRECTORY/count; case $(wc -l < $DIRECTORY/count) in \
         2) exit 3;; 3) exec sleep 60;; *) exec {} --admin {admin};; esac",
        DEMO.join(" ")
    );
    let flags = ["--ready-timeout", "5s"];
    let mut supervisor = Supervisor::start(&flags, &["sh", "-c", &script]).await;
    for why in ["exited with status 3", "not ready within 5s"] {
        let (code, said) = supervisor.reload().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("reloading: generation 1 is to come"),
            "{said}"
        );
        assert!(said.contains("not reloaded: generation 1 "), "{said}");
        assert!(said.contains(why), "{said}");
        let status = supervisor.status().await;
        assert_eq!(status["generation"], 0, "{status}");
        assert!(
            status["restart_failed"]["text"]
                .as_str()
                .unwrap()
                .contains(why)
        );
    }
    // Everybody counts alike: who reloads, who looks, the program, what it is measured by, the log.
    let (code, said) = supervisor.reload().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("generation 1 serves"), "{said}");
    let status = supervisor.status().await;
    assert_eq!(status["generation"], 1, "{status}");
    assert_eq!(status["restart_failed"], Value::Null, "{status}");
    let serving = status["processes"].as_array().unwrap().iter();
    let serving: Vec<_> = serving.filter(|one| one["state"] == "ready").collect();
    assert!(
        serving.len() == 1 && serving[0]["generation"] == 1,
        "{status}"
    );
    assert!(supervisor.get("/pid").await.ends_with("generation=1"));
    let metrics = get(admin, "/metrics").await.unwrap();
    assert!(metrics.contains("\ncurtsy_generation 1\n"), "{metrics}");
    supervisor.line("generation 1 serves").await;
    supervisor.reloads().await;
    supervisor.line("generation 2 serves").await;
    assert!(supervisor.get("/pid").await.ends_with("generation=2"));
    assert_eq!(supervisor.stop().await, Some(0));
    assert_eq!(supervisor.count("generation 3"), 0);
}
