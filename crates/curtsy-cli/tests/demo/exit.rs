//! How the demo ends: codes, reports, progress.

use crate::server::{BOUND, Demo, demo};
use curtsy_prove::child::{Child, ChildSignal};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Opens a connection and sends `request`.
async fn send(demo: &Demo, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(demo.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Everything until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    tokio::time::timeout(BOUND, read).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn each_stop_signal_drains() {
    for signal in [ChildSignal::INT, ChildSignal::TERM, ChildSignal::QUIT] {
        let mut demo = Demo::start(&[]).await;
        demo.signal(signal);
        assert_eq!(demo.end().await.status.code(), Some(0));
        assert!(demo.child.stderr().contains("curtsy: drained in"));
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_named_meanwhile() {
    let mut demo = Demo::start(&[]).await;
    let client = send(&demo, "GET /slow?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let peer = client.local_addr().unwrap();
    // Answered on another connection: the first request is under way by now.
    let second = send(&demo, "GET /slow?ms=300 HTTP/1.0\r\n\r\n").await;
    assert!(rest(second).await.contains("slept 300"));
    demo.signal(ChildSignal::TERM);
    let waits = format!("GET /slow?ms=1500 from {peer}");
    demo.child
        .wait_for_line(|line| line.contains(&waits), BOUND)
        .await
        .unwrap();
    let answer = rest(client).await;
    assert!(answer.contains("connection: close") && answer.ends_with("slept 1500 ms\n"));
    assert_eq!(demo.end().await.status.code(), Some(0));
}

/// Stops a server while a request runs on and on; how long that took.
async fn is_cut_at_the_deadline() -> Duration {
    let mut demo = Demo::start(&["--deadline", "1s"]).await;
    let client = send(&demo, "GET /slow?ms=5000 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let peer = client.local_addr().unwrap();
    let other = send(&demo, "GET /slow?ms=200 HTTP/1.0\r\n\r\n").await;
    rest(other).await;
    let told = Instant::now();
    demo.signal(ChildSignal::TERM);
    let code = demo.end().await.status.code();
    let took = told.elapsed();
    assert_eq!(code, Some(3));
    let report = demo.child.stderr();
    let line = report
        .lines()
        .find(|line| line.contains("  active  "))
        .filter(|line| line.contains("GET /slow?ms=5000"))
        .unwrap_or_else(|| panic!("{report}"));
    assert!(
        line.contains(&peer.to_string()) && line.contains(" s  "),
        "{line}"
    );
    assert!(report.contains("deadline passed after 1.0"), "{report}");
    took
}

#[tokio::test]
async fn the_deadline_cuts_and_names_the_stragglers() {
    let within = Duration::from_millis(1_100);
    let mut took = Vec::new();
    // Where other programs take the processor, one of several tells.
    for _ in 0..5 {
        took.push(is_cut_at_the_deadline().await);
        if took.last().is_some_and(|took| *took <= within) {
            return;
        }
    }
    panic!("never within {within:?}: {took:?}");
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    let mut demo = Demo::start(&[]).await;
    let _client = send(&demo, "GET /slow?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    rest(send(&demo, "GET /slow?ms=200 HTTP/1.0\r\n\r\n").await).await;
    demo.signal(ChildSignal::TERM);
    demo.child
        .wait_for_line(|line| line.contains("waiting for"), BOUND)
        .await
        .unwrap();
    demo.signal(ChildSignal::TERM);
    assert_eq!(demo.end().await.status.code(), Some(3));
    assert!(demo.child.stderr().contains("curtsy: closed after"));
}

#[tokio::test]
async fn a_lame_duck_goes_on_serving() {
    let mut demo = Demo::start(&["--lame-duck", "2s"]).await;
    demo.signal(ChildSignal::TERM);
    demo.child
        .wait_for_line(|line| line.contains("lame-duck"), BOUND)
        .await
        .unwrap();
    let answer = rest(send(&demo, "GET / HTTP/1.0\r\n\r\n").await).await;
    assert!(answer.ends_with("Hello, World!"), "{answer}");
    assert_eq!(demo.end().await.status.code(), Some(0));
}

#[tokio::test]
async fn an_event_stream_is_told_and_ends() {
    let mut demo = Demo::start(&[]).await;
    let mut client = send(&demo, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("tick 1") {
        assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0);
    }
    demo.signal(ChildSignal::TERM);
    let text = rest(client).await;
    assert!(
        text.contains("event: draining") && text.ends_with("0\r\n\r\n"),
        "{text}"
    );
    assert_eq!(demo.end().await.status.code(), Some(0));
}

/// Runs the command to its end: its code and what it wrote to stderr.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = Child::start(env!("CARGO_BIN_EXE_curtsy"), arguments).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    (exit.status.code(), child.stderr())
}

#[tokio::test]
async fn bad_flags_are_usage() {
    for (arguments, says) in [
        (&["demo", "--linger", "soon"][..], "30s"),
        (&["demo", "--workers", "0"], "1 or more"),
        (&["demo", "--admin", "99999"], "65535"),
        (&["demo", "--proxied-by", "nobody"], "--proxied-by"),
        (&["demo", "--listen", "unix:/x?mode=rw"], "octal"),
        (&["kill", "twelve"], "curtsy connections"),
        (&["demo", "--listen", "localhost"], "HOST:PORT"),
        (&["demo", "--listen", "127.0.0.1:99999"], "65535"),
        (&["nonsense"], "nonsense"),
    ] {
        let (code, stderr) = run(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn what_cannot_be_bound_is_named_with_the_way_out() {
    let demo = Demo::start(&[]).await;
    let taken = demo.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let file = format!("unix:{}", file.display());
    for (address, says) in [
        (taken.as_str(), "in use"),
        ("192.0.2.1:9000", "does not have that address"),
        ("no-such-host.invalid:80", "does not resolve"),
        (file.as_str(), "not a socket"),
        ("unix:/nowhere/at/all.sock", "directory does not exist"),
    ] {
        let (code, stderr) = run(&["demo", "--listen", address]).await;
        assert_eq!(code, Some(1), "{address}: {stderr}");
        assert!(
            stderr.contains(says) && stderr.contains(address),
            "{address}: {stderr}"
        );
    }
    // Nor does one start that is alone and cannot have what it was told: only several of a supervisor's wait for it.
    let control = directory.path().join("control");
    let other = tokio::net::UnixListener::bind(&control).unwrap();
    let control = control.to_str().unwrap();
    for (flag, value, says) in [
        ("--admin", taken.as_str(), "in use"),
        ("--control", control, "another server listens there"),
    ] {
        let (code, stderr) = run(&["demo", "--listen", "127.0.0.1:0", flag, value]).await;
        assert_eq!(code, Some(1), "{flag}: {stderr}");
        assert!(stderr.contains(says) && stderr.contains(value), "{stderr}");
    }
    drop(other);
    demo.stop().await;
}

#[tokio::test]
async fn a_privileged_port_says_what_it_needs() {
    if !rustix::process::geteuid().is_root() {
        let (code, stderr) = run(&["demo", "--listen", "127.0.0.1:1"]).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("CAP_NET_BIND_SERVICE"), "{stderr}");
        return;
    }
    // As root, through somebody who is not.
    let mut command = tokio::process::Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([
            env!("CARGO_BIN_EXE_curtsy"),
            "demo",
            "--listen",
            "127.0.0.1:1",
        ]);
    let Ok(mut child) = Child::spawn(command) else {
        println!("SKIPPED: no setpriv to become another user with");
        return;
    };
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    let stderr = child.stderr();
    if stderr.contains("setpriv:") {
        println!("SKIPPED: {stderr}");
        return;
    }
    assert_eq!(exit.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("CAP_NET_BIND_SERVICE"), "{stderr}");
}

#[tokio::test]
async fn sockets_of_a_service_manager_are_taken() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The shell puts the listener at descriptor 3 and says so, as systemd does.
    use std::os::fd::AsRawFd;
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        "exec 3<&{0}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec {1} demo --inherit",
        listener.as_raw_fd(),
        env!("CARGO_BIN_EXE_curtsy")
    );
    let mut child = Child::start("bash", ["-c", &script]).unwrap();
    let says = format!("web listening on http://{address}");
    child
        .wait_for_line(|line| line.contains(&says), BOUND)
        .await
        .unwrap();
    let mut demo = Demo { child, address };
    let answer = rest(send(&demo, "GET / HTTP/1.0\r\n\r\n").await).await;
    assert!(answer.ends_with("Hello, World!"));
    demo.signal(ChildSignal::TERM);
    assert_eq!(demo.end().await.status.code(), Some(0));

    let (code, stderr) = run(&["demo", "--inherit"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("LISTEN_FDS"), "{stderr}");

    // Whoever passes them to one that does not ask for them is told.
    let script = script.replace("--inherit", "--listen 127.0.0.1:0");
    let mut child = Child::start("bash", ["-c", &script]).unwrap();
    let told = |line: &str| line.contains("LISTEN_FDS") && line.contains("--inherit");
    child.wait_for_line(told, BOUND).await.unwrap();
    child.signal(ChildSignal::TERM).unwrap();
    child.wait_exit(BOUND).await.unwrap();
}

#[tokio::test]
async fn without_a_command_it_is_the_demo() {
    // Port 9000 may be taken on this machine; either way it says that it is the demo that wants it.
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_curtsy"));
    command.env("RUST_BACKTRACE", "0");
    let mut child = Child::spawn(command).unwrap();
    child
        .wait_for_line(|line| line.contains("127.0.0.1:9000"), BOUND)
        .await
        .unwrap();
    // It may have exited already, if the port was taken.
    let _ = child.signal(ChildSignal::TERM);
    child.wait_exit(BOUND).await.unwrap();
}

#[tokio::test]
async fn idle_clients_do_not_hold_up_the_end() {
    let demo_command = demo(&["--linger", "0s", "--deadline", "20s"]);
    let mut demo = Demo::spawn(demo_command).await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(demo.address).await.unwrap());
    }
    let start = tokio::time::Instant::now();
    demo.signal(ChildSignal::TERM);
    assert_eq!(demo.end().await.status.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(15));
}
