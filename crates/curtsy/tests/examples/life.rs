//! Examples of a service's life: stop, restart, switch, activation.

use crate::program::{HERE, PATIENCE, Program, ask, built, send, signal_process};
use curtsy::{Control, ModeName};
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

#[test]
fn graceful() {
    let program = Program::start("graceful");
    let mut answer = send(program.address, "GET /");
    // However soon the signal comes: what has arrived is answered.
    program.signal(Signal::TERM);
    let mut text = String::new();
    answer.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("Welcome Curtsy Server"), "{text}");
    program.end();
}

#[test]
fn graceful_as_documented() {
    let program = Program::start("graceful");
    program.follow_its_documentation();
    program.stop();
}

#[test]
fn restart() {
    let mut program = Program::start("restart");
    program.follow_its_documentation();
    let first = program.ask("GET /");
    assert!(
        first.contains(&format!("generation 0, process {}", program.pid())),
        "{first}"
    );

    program.signal(Signal::HUP);
    // The new process says where it listens: the same port.
    assert_eq!(program.next_address(), program.address);
    let begun = Instant::now();
    let second = loop {
        // Not one of these may fail, whoever answers it.
        let answer = program.ask("GET /");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        if answer.contains("generation 1") {
            break answer;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "the old process answers for ever"
        );
    };
    assert!(program.wait().success());
    let (_, pid) = second.rsplit_once("process ").unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    assert_ne!(pid, program.pid());
    assert!(ask(program.address, "GET /").contains("generation 1"));
    signal_process(pid, Signal::TERM);
    // The new process is not our child; its end is that of its output.
    program.last_words();
    assert!(
        TcpListener::bind(program.address).is_ok(),
        "it still listens"
    );
}

#[tokio::test]
async fn tls_switch() {
    let program = Program::with("tls_switch", &["127.0.0.1:0"]);
    program.follow_its_documentation();
    // From outside, as `curtsy switch` does.
    let (_, path) = program.told.trim().rsplit_once("steered at ").unwrap();
    let mut control = Control::connect(path).await.unwrap();
    control.switch("main", ModeName::Tls).await.unwrap();
    assert!(
        !program.ask("GET /").contains("200 OK"),
        "it still speaks without encryption"
    );
    control.switch("main", ModeName::Plain).await.unwrap();
    assert!(program.ask("GET /").ends_with("Hello over http!"));
    drop(control);
    program.stop();
}

#[test]
fn systemd() {
    // Without systemd, on a socket of its own.
    let program = Program::start("systemd");
    assert!(program.ask("GET /").ends_with("Hello from its own socket!"));
    program.stop();

    // As systemd starts it: with a socket as descriptor 3, a process number that is its own, and
    // somebody to tell.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let len = systemd.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // A client that is earlier than the service.
    let mut early = send(address, "GET /");
    let mut command = Command::new("sh");
    let activate = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\"";
    command
        .args(["-c", activate])
        .arg(built("systemd"))
        .env("NOTIFY_SOCKET", &path)
        .current_dir(HERE)
        .stdin(std::os::fd::OwnedFd::from(socket));
    let program = Program::run("systemd", command);
    assert_eq!(program.address, address);
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("Hello from systemd's socket!"), "{answer}");
    assert_eq!(heard(), "READY=1");
    program.follow_its_documentation();
    program.signal(Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    program.end();
}
