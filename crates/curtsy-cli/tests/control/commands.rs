//! The commands, against a server that has something to tell.

use crate::server::{BOUND, CURTSY, Server, curtsy, run};
use curtsy_prove::child::Child;
use serde_json::Value;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn status_is_a_screenful_for_people_and_json_for_programs() {
    let server = Server::demo(&[]).await;
    let _parked = server.parked().await;
    let _active = server.straggler().await;
    let (code, out, err) = server.run(&["status"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let address = server.address.to_string();
    for part in [
        "serving: server pid ",
        address.as_str(),
        "2 open: 1 active, 1 idle; 1 parked",
        "GET /slow?ms=600000",
    ] {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    assert!(out.lines().count() <= 24, "{out}");
    let (_, out, _) = server.run(&["status", "--json"]).await;
    let status = json(&out);
    assert_eq!(status["pid"], server.child.pid().unwrap());
    assert_eq!(status["connections"]["total"], 2);
    assert_eq!(out.lines().count(), 1);
}

#[tokio::test]
async fn connections_and_stragglers_are_listed_and_one_is_cut() {
    let server = Server::demo(&[]).await;
    let parked = server.parked().await;
    let mut active = server.straggler().await;
    let peer = parked.local_addr().unwrap().to_string();
    for (flags, expected) in [
        (&[][..], 2),
        (&["--state", "parked"], 1),
        (&["--state", "upgraded"], 0),
        (&["--age", "1h"], 0),
        (&["--age", "0"], 2),
        (&["--peer", "127.0.0.0/8"], 2),
        (&["--peer", &peer], 1),
        (&["--peer", &peer, "--state", "active"], 0),
        (&["--limit", "1"], 1),
    ] {
        let arguments = [&["connections"], flags].concat();
        let (code, out, err) = server.run(&arguments).await;
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(out.lines().count(), expected, "{flags:?}: {out}");
        let says = match (flags.first(), expected) {
            (Some(&"--limit"), _) => "1 of 2 are shown",
            (_, 0) => "there are none",
            _ => "",
        };
        assert!(err.contains(says), "{flags:?}: {err}");
        let (_, out, _) = server.run(&[&arguments[..], &["--json"]].concat()).await;
        assert_eq!(json(&out).as_array().unwrap().len(), expected, "{flags:?}");
    }
    let (_, out, _) = server.run(&["stragglers"]).await;
    let own = active.local_addr().unwrap().to_string();
    assert!(
        out.contains(&own) && out.contains("GET /slow?ms=600000"),
        "{out}"
    );
    let (_, out, _) = server.run(&["stragglers", "--json"]).await;
    let number = json(&out)[0]["connection"].to_string();
    let (code, _, err) = server.run(&["kill", &number]).await;
    assert_eq!(code, Some(0), "{err}");
    let mut rest = [0; 64];
    let cut = tokio::time::timeout(BOUND, active.read(&mut rest));
    assert_eq!(cut.await.unwrap().unwrap_or(0), 0);
    let (code, _, err) = server.run(&["kill", &number]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("no connection {number}")), "{err}");
    server.drains().await;
}

#[tokio::test]
async fn drain_waits_and_says_for_what() {
    let mut server = Server::demo(&[]).await;
    let client = server
        .send("GET /slow?ms=2000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    server.until(|status| status["stragglers_total"] == 1).await;
    let (code, _, err) = server.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    let peer = client.local_addr().unwrap();
    let waited = format!("waiting for 1 active; oldest: GET /slow?ms=2000 from {peer}");
    assert!(
        err.contains(&waited) && err.contains("curtsy: drained in "),
        "{err}"
    );
    assert!(!err.contains("stopped"), "{err}");
    assert_eq!(server.end().await.status.code(), Some(0));
    let (code, _, err) = server.run(&["status"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot reach a server"), "{err}");
}

#[tokio::test]
async fn drain_ends_with_3_when_stragglers_were_cut() {
    let mut server = Server::demo(&["--deadline", "1s"]).await;
    let _client = server.straggler().await;
    let (code, _, err) = server.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("deadline passed after 1.0") && err.contains("/slow"),
        "{err}"
    );
    assert_eq!(server.end().await.status.code(), Some(3));
}

#[tokio::test]
async fn a_drain_can_be_taken_back_and_who_waits_hears_of_it() {
    let server = Server::demo(&["--lame-duck", "10m"]).await;
    let (code, _, err) = server.run(&["undrain"]).await;
    assert!(code == Some(1) && err.contains("is not draining"), "{err}");
    let mut wait = curtsy(&["drain", "--wait", "--control"]);
    wait.arg(server.control());
    let mut waiting = Child::spawn(wait).unwrap();
    let told = waiting.wait_for_line(|line| line.contains("it is a lame duck"), BOUND);
    told.await.unwrap();
    server.until(|status| status["phase"] == "lame-duck").await;
    let (code, _, err) = server.run(&["undrain"]).await;
    assert_eq!(code, Some(0), "{err}");
    let exit = waiting.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(1));
    waiting.wait_output_end(BOUND).await.unwrap();
    assert!(
        waiting.stderr().contains("taken back"),
        "{}",
        waiting.stderr()
    );
    server.until(|status| status["phase"] == "serving").await;
}

#[tokio::test]
async fn stop_cuts_at_once() {
    let mut server = Server::demo(&["--lame-duck", "10m"]).await;
    let _client = server.straggler().await;
    let (code, _, err) = server.run(&["stop"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(server.end().await.status.code(), Some(3));
    assert!(server.child.stderr().contains("closed after"));
    assert!(!server.control().exists(), "the path goes with the server");
}

#[tokio::test]
async fn the_log_says_more_from_then_on() {
    let mut server = Server::demo(&["--tls", "self-signed", "--mode", "plain"]).await;
    server.run(&["switch", "main", "both"]).await;
    let (code, _, err) = server.run(&["log-level", "debgu"]).await;
    assert!(code == Some(1) && err.contains("neither of off"), "{err}");
    let (code, _, err) = server.run(&["log-level", "info"]).await;
    assert_eq!(code, Some(0), "{err}");
    server.run(&["switch", "main", "plain"]).await;
    let line = server.line("switched").await;
    assert!(
        line.contains("plain"),
        "the first switch was logged, too: {line}"
    );
    server.drains().await;
}

#[tokio::test]
async fn an_heir_and_its_heir_log_as_much() {
    let mut server = Server::demo(&["--tls", "self-signed", "--mode", "plain"]).await;
    let (code, _, err) = server.run(&["log-level", "info"]).await;
    assert_eq!(code, Some(0), "{err}");
    for (generation, mode) in [(1, "both"), (2, "tls")] {
        let (code, _, err) = server.run(&["reload"]).await;
        assert_eq!(code, Some(0), "{err}");
        server
            .until(|status| status["generation"] == generation)
            .await;
        let (code, _, err) = server.run(&["switch", "main", mode]).await;
        assert_eq!(code, Some(0), "{err}");
        // On the standard error that they share.
        let found = |line: &str| line.contains("switched") && line.contains(mode);
        let line = server.child.wait_for_line(found, BOUND).await;
        line.unwrap_or_else(|error| panic!("{generation}: {error}\n{}", server.child.stderr()));
    }
    let (code, _, err) = server.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(0), "{err}");
}

#[tokio::test]
async fn a_supervisors_end_says_how_long_it_took() {
    let mut server = Server::supervised(&[]).await;
    // Its program listens to an idle connection for another second.
    let mut client = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_ne!(client.read(&mut [0; 1024]).await.unwrap(), 0);
    let (code, _, err) = server.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    let took = err.split("exited with status 0 after ").nth(1);
    let took = took.and_then(|rest| rest.split(' ').next());
    let seconds: f64 = took.unwrap_or_else(|| panic!("{err}")).parse().unwrap();
    assert!((0.9..60.0).contains(&seconds), "{err}");
    assert_eq!(server.end().await.status.code(), Some(0));
}

#[tokio::test]
async fn reload_tells_the_steps_and_ends_when_the_new_generation_serves() {
    let mut server = Server::demo(&[]).await;
    let old = server.child.pid().unwrap();
    let (code, _, err) = server.run(&["reload"]).await;
    assert_eq!(code, Some(0), "{err}");
    let mut steps = err.lines();
    for part in [
        "starting generation 1",
        "generation 1 accepts (pid ",
        "moved 0 waiting connections",
        "generation 1 serves (pid ",
    ] {
        assert!(steps.any(|line| line.contains(part)), "no {part} in {err}");
    }
    // Whoever asks at the same place asks the new one, at once.
    let (_, out, _) = server.run(&["status", "--json"]).await;
    let status = json(&out);
    assert!(
        status["generation"] == 1 && status["pid"] != old,
        "{status}"
    );
    // Its heir writes to the same standard error.
    let exit = server.child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(0));
    let (code, _, err) = server.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(!server.control().exists());
    let left: Vec<_> = std::fs::read_dir(server.directory.path())
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn reload_fails_when_the_old_process_was_kept() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("server");
    std::fs::copy(CURTSY, &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["demo", "--listen", "127.0.0.1:0", "--control"]);
    command.arg(directory.path().join("control"));
    let server = Server::start(command, directory, "listening on http://").await;
    std::fs::remove_file(&program).unwrap();
    let (code, _, err) = server.run(&["reload"]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("not reloaded: ") && err.contains("could not be started"),
        "{err}"
    );
    let (_, out, _) = server.run(&["status", "--json"]).await;
    assert!(
        json(&out)["generation"] == 0 && json(&out)["restart"].is_null(),
        "{out}"
    );
    // Whoever looks later is told, too.
    let why = json(&out)["restart_failed"]["text"].to_string();
    assert!(why.contains("could not be started"), "{out}");
    let (_, out, _) = server.run(&["status"]).await;
    assert!(out.contains("reload       failed "), "{out}");
    server.drains().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_command_line_is_usage() {
    for arguments in [
        &["connections", "--state", "asleep"][..],
        &["connections", "--age", "long"],
        &["kill"],
        &["kill", "it"],
        &["log-level"],
        &["status", "--json", "--json"],
    ] {
        let (code, _, err) = run(curtsy(arguments)).await;
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn others_are_not_heard_even_where_the_file_lets_them_in() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can become somebody else");
        return;
    }
    let server = Server::demo(&[]).await;
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let mode = std::fs::metadata(server.control())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    open(server.directory.path(), 0o755);
    // The program, where somebody else can execute it.
    let copy = server.directory.path().join("curtsy");
    std::fs::copy(CURTSY, &copy).unwrap();
    open(&copy, 0o755);
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(&copy)
            .args(["status", "--control"])
            .arg(server.control());
        command
    };
    let Ok(mut child) = Child::spawn(as_nobody()) else {
        println!("SKIPPED: no setpriv to become another user with");
        return;
    };
    child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    if child.stderr().contains("setpriv:") {
        println!("SKIPPED: {}", child.stderr());
        return;
    }
    assert!(
        child.stderr().contains("Permission denied"),
        "{}",
        child.stderr()
    );
    open(&server.control(), 0o666);
    let (code, out, err) = run(as_nobody()).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(err.contains("only the server's own user and root"), "{err}");
    server.drains().await;
}
