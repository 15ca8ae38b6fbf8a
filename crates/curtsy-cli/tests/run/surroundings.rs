//! What the program finds around it, and the signals that reach it.

use crate::supervisor::{BOUND, CURTSY, DEMO, Supervisor};
use curtsy_prove::child::ChildSignal;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn a_program_finds_its_sockets_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let unix = directory.path().join("web.sock");
    let pidfile = directory.path().join("pid");
    let address = format!("unix:{}?mode=660", unix.display());
    let script = "echo fds=$LISTEN_FDS names=$LISTEN_FDNAMES $([ $LISTEN_PID = $$ ] && echo mine); \
                  echo open=$(ls /proc/$$/fd | tr '\\n' ' '); exec sleep 60";
    let flags = [
        "--listen",
        &address,
        "--name",
        "web",
        "--name",
        "local",
        "--ready",
        "delay:10ms",
        "--pidfile",
        pidfile.to_str().unwrap(),
    ];
    let mut supervisor = Supervisor::start(&flags, &["sh", "-c", script]).await;
    supervisor.line("fds=2 names=web:local mine").await;
    let open = supervisor.line("open=").await;
    // The pipe of the listing is the shell's own, above the sockets.
    assert!(open.starts_with("open=0 1 2 3 4"), "{open}");
    let pid = supervisor.child.pid().unwrap();
    assert_eq!(
        std::fs::read_to_string(&pidfile).unwrap(),
        format!("{pid}\n")
    );
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&unix), 0o660);
    assert_eq!(mode(&supervisor.control()), 0o600);
    // `sleep` has no handler: it ends by the signal, and the supervisor as a shell would.
    assert_eq!(supervisor.stop().await, Some(143));
    assert!(!unix.exists() && !pidfile.exists() && !supervisor.control().exists());
}

#[tokio::test]
async fn signals_are_passed_on_and_the_status_is_the_programs() {
    let script = "trap 'echo got-usr1' USR1; trap 'echo got-usr2' USR2; trap 'echo got-winch' WINCH; \
                  trap 'exit 5' INT; trap 'exit 6' QUIT; trap 'exit 7' TERM; echo trapped; \
                  while :; do sleep 0.05; done";
    for (stop, status) in [
        (ChildSignal::INT, 5),
        (ChildSignal::QUIT, 6),
        (ChildSignal::TERM, 7),
    ] {
        let flags = ["--ready", "delay:10ms"];
        let mut supervisor = Supervisor::start(&flags, &["sh", "-c", script]).await;
        supervisor.line("trapped").await;
        for (signal, says) in [
            (ChildSignal::USR1, "got-usr1"),
            (ChildSignal::USR2, "got-usr2"),
            (ChildSignal::WINCH, "got-winch"),
        ] {
            supervisor.child.signal(signal).unwrap();
            supervisor.line(says).await;
        }
        supervisor.child.signal(stop).unwrap();
        assert_eq!(supervisor.end().await, Some(status));
    }
}

#[tokio::test]
async fn processes_are_added_and_taken_away() {
    let mut supervisor = Supervisor::start(&["--processes", "2"], &DEMO).await;
    assert_eq!(supervisor.count("generation 0 started"), 2);
    supervisor.child.signal(ChildSignal::TTIN).unwrap();
    // Listening, and not only started: a signal finds its handler then.
    supervisor.lines("main listening on", 3).await;
    supervisor.child.signal(ChildSignal::TTOU).unwrap();
    supervisor.line("curtsy: drained").await;
    // A reload has as many as there are now.
    supervisor.reloads().await;
    assert_eq!(supervisor.count("generation 1 started"), 2);
    assert_eq!(supervisor.stop().await, Some(0));
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manager");
    let manager = tokio::net::UnixDatagram::bind(&path).unwrap();
    let mut command = tokio::process::Command::new(CURTSY);
    command
        .args(["run", "--listen", "127.0.0.1:0", "--"])
        .args(DEMO)
        .env("NOTIFY_SOCKET", &path);
    let mut child = curtsy_prove::child::Child::spawn(command).unwrap();
    let heard = async |expected: &str| {
        let mut buffer = [0; 256];
        let length = tokio::time::timeout(BOUND, manager.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(said.starts_with(expected), "{said} instead of {expected}");
    };
    heard("READY=1").await;
    child.signal(ChildSignal::HUP).unwrap();
    heard("RELOADING=1\nMONOTONIC_USEC=").await;
    heard("READY=1").await;
    child.signal(ChildSignal::TERM).unwrap();
    heard("STOPPING=1").await;
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(0), "{}", child.stderr());
}
