//! Which server is meant when none is named, and what becomes of dead ones' sockets.

use crate::server::{BOUND, CURTSY, Server, curtsy, run};
use curtsy_prove::child::{Child, ChildSignal};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory where control sockets are by default.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn demo(&self) -> Child {
        let mut command = curtsy(&["demo", "--listen", "127.0.0.1:0", "--workers", "1"]);
        command.env("XDG_RUNTIME_DIR", self.0.path());
        self.start(command).await
    }

    async fn supervisor(&self) -> Child {
        let mut command = curtsy(&["run", "--listen", "127.0.0.1:0", "--", CURTSY]);
        command.args(["demo", "--inherit", "--workers", "1"]);
        command.env("XDG_RUNTIME_DIR", self.0.path());
        let mut child = self.start(command).await;
        let serves = |line: &str| line.contains("generation 0 serves");
        child.wait_for_line(serves, BOUND).await.unwrap();
        // The program's own socket is there by the time that it serves.
        child
    }

    async fn start(&self, command: tokio::process::Command) -> Child {
        let mut child = Child::spawn(command).unwrap();
        let says = |line: &str| line.contains(" on http://");
        child.wait_for_line(says, BOUND).await.unwrap();
        child
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn of(&self, child: &Child) -> PathBuf {
        let name = format!("curtsy-{}.sock", child.pid().unwrap());
        self.0.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = curtsy(arguments);
        command.env("XDG_RUNTIME_DIR", self.0.path());
        run(command).await
    }

    /// The process that `curtsy status` speaks of.
    async fn meant(&self) -> u64 {
        let (code, out, err) = self.run(&["status", "--json"]).await;
        assert_eq!(code, Some(0), "{err}");
        let status: serde_json::Value = serde_json::from_str(&out).unwrap();
        status["pid"].as_u64().unwrap()
    }
}

async fn kill(mut child: Child, signal: ChildSignal) {
    child.signal(signal).unwrap();
    child.wait_exit(BOUND).await.unwrap();
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn the_only_server_is_found_and_of_several_all_are_named() {
    let place = Place::new();
    let (code, _, err) = place.run(&["status"]).await;
    assert!(
        code == Some(1) && err.contains("no server was found in"),
        "{err}"
    );
    let first = place.demo().await;
    assert_eq!(place.meant().await, u64::from(first.pid().unwrap()));
    let second = place.demo().await;
    let (code, _, err) = place.run(&["drain"]).await;
    assert_eq!(code, Some(1));
    for child in [&first, &second] {
        let expected = format!(
            "{}  server pid {}, generation 0, serving",
            name(&place.of(child)),
            child.pid().unwrap()
        );
        assert!(err.contains(&expected), "no {expected} in {err}");
    }
    let one = place.of(&second);
    let (code, out, _) = place.run(&["status", "--control", name(&one)]).await;
    assert!(
        code == Some(0) && out.contains(&format!("pid {},", second.pid().unwrap())),
        "{out}"
    );
    kill(second, ChildSignal::TERM).await;
    assert_eq!(place.meant().await, u64::from(first.pid().unwrap()));
    kill(first, ChildSignal::TERM).await;
    assert!(place.sockets().is_empty(), "{:?}", place.sockets());
}

#[tokio::test]
async fn dead_servers_are_passed_over_and_their_sockets_swept() {
    let place = Place::new();
    let mut dead = Vec::new();
    for _ in 0..2 {
        let child = place.demo().await;
        dead.push(place.of(&child));
        kill(child, ChildSignal::KILL).await;
    }
    // The second has swept what the first left.
    assert_eq!(place.sockets(), dead[1..]);
    let (code, _, err) = place.run(&["status"]).await;
    assert!(code == Some(1) && err.contains("no server"), "{err}");
    let living = place.demo().await;
    assert_eq!(place.sockets(), [place.of(&living)]);
    assert_eq!(place.meant().await, u64::from(living.pid().unwrap()));
    kill(living, ChildSignal::TERM).await;
}

#[tokio::test]
async fn a_path_that_was_chosen_is_bound_again_after_a_kill() {
    let server = Server::demo(&[]).await;
    let path = server.control();
    let kept = tempfile::tempdir().unwrap();
    let moved = kept.path().join("control");
    server.child.signal(ChildSignal::KILL).unwrap();
    let mut server = server;
    server.end().await;
    assert!(path.exists());
    std::fs::rename(&path, &moved).unwrap();
    let mut command = curtsy(&["demo", "--listen", "127.0.0.1:0", "--control"]);
    command.arg(&moved);
    let mut again = Server::start(command, kept, "listening on http://").await;
    let (code, _, err) = again.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    again.end().await;
    assert!(!moved.exists());
}

#[tokio::test]
async fn a_supervisor_is_meant_and_not_the_program_behind_it() {
    let place = Place::new();
    let supervisor = place.supervisor().await;
    assert_eq!(place.sockets().len(), 2, "{:?}", place.sockets());
    assert_eq!(place.meant().await, u64::from(supervisor.pid().unwrap()));
    let (code, out, err) = place.run(&["reload"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        err.contains("generation 1 started") && err.contains("generation 1 serves"),
        "{err}"
    );
    let (code, _, err) = place.run(&["connections"]).await;
    assert!(code == Some(1) && err.contains("ask its program"), "{err}");
    let (code, _, err) = place.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("exited with status 0"), "{err}");
    let mut supervisor = supervisor;
    supervisor.wait_exit(BOUND).await.unwrap();
}

#[tokio::test]
async fn stopping_a_supervisor_kills_what_it_runs() {
    let mut server = Server::supervised(&[]).await;
    let _client = server
        .send("GET /slow?ms=600000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let (code, _, err) = server.run(&["stop"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(server.end().await.status.code(), Some(128 + 9));
}

#[tokio::test]
async fn the_heir_is_meant_as_soon_as_it_serves() {
    let place = Place::new();
    let mut old = place.demo().await;
    let (code, _, err) = place.run(&["reload"]).await;
    assert_eq!(code, Some(0), "{err}");
    let heir = place.meant().await;
    assert_ne!(heir, u64::from(old.pid().unwrap()));
    assert!(err.contains(&format!("serves (pid {heir})")), "{err}");
    let (code, _, err) = place.run(&["drain", "--wait"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(old.wait_exit(BOUND).await.unwrap().status.code(), Some(0));
    assert!(place.sockets().is_empty(), "{:?}", place.sockets());
}
