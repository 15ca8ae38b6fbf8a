//! Whoever reads standard error stops reading, or goes: what serves goes on, and stops when it is told to.

use crate::server::BOUND;
use rustix::io::{Errno, ioctl_fionbio, write};
use std::io::{PipeReader, PipeWriter, pipe};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How many requests panic: each is a line at least.
const PANICS: usize = 20;

/// A pipe that takes nothing more, as long as its reader is there.
fn full() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    // Whole pages, and then what is left of the last.
    for chunk in [&[b'\n'; 4096][..], b"\n"] {
        while write(&writer, chunk).is_ok() {}
    }
    assert_eq!(write(&writer, b"\n"), Err(Errno::AGAIN));
    ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// `curtsy` with those arguments, which says what it says there.
fn start(arguments: &[&str], directory: &TempDir, says: PipeWriter) -> Child {
    Command::new(env!("CARGO_BIN_EXE_curtsy"))
        .args(arguments)
        .current_dir(directory)
        .env("RUST_BACKTRACE", "0")
        .env("CURTSY_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(says)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The answer to a request on a connection of its own, as soon as somebody listens there.
async fn get(socket: &Path, path: &str) -> String {
    let answered = async {
        let mut stream = loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => break stream,
                // It is about to.
                Err(_) => sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        let head = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(BOUND, answered).await.unwrap()
}

/// `curtsy COMMAND` at its control socket, which must succeed: what it found out.
async fn steer(command: &str, directory: &TempDir) -> String {
    let steered = Command::new(env!("CARGO_BIN_EXE_curtsy"))
        .args([command, "--control", "control"])
        .current_dir(directory)
        .kill_on_drop(true)
        .output();
    let output = timeout(BOUND, steered).await.unwrap().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn ends(child: &mut Child) -> ExitStatus {
    timeout(BOUND, child.wait()).await.unwrap().unwrap()
}

const DEMO: [&str; 7] = [
    "demo",
    "--workers",
    "1",
    "--listen",
    "unix:socket",
    "--control",
    "control",
];

/// It answers, also requests whose handlers panic, and drains.
async fn lives(says: PipeWriter) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let mut demo = start(&DEMO, &directory, says);
    for _ in 0..PANICS {
        let answer = get(&socket, "/panic").await;
        assert!(answer.starts_with("HTTP/1.0 500"), "{answer}");
    }
    assert!(get(&socket, "/").await.ends_with("Hello, World!"));
    steer("drain", &directory).await;
    assert_eq!(ends(&mut demo).await.code(), Some(0));
}

#[tokio::test]
async fn a_server_whose_words_nobody_reads() {
    let (_reader, writer) = full();
    lives(writer).await;
}

#[tokio::test]
async fn a_server_whose_reader_is_gone() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    lives(writer).await;
}

/// It reloads and stops.
async fn supervises(says: PipeWriter) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let run = [
        "run",
        "--listen",
        "unix:socket",
        "--control",
        "control",
        "--",
    ];
    let curtsy = env!("CARGO_BIN_EXE_curtsy");
    let program = [curtsy, "demo", "--inherit", "--workers", "1"];
    let mut supervisor = start(&[&run[..], &program].concat(), &directory, says);
    let first = get(&socket, "/pid").await;
    // Somebody answers before the supervisor has seen it.
    let serves = async { while !steer("status", &directory).await.starts_with("serving") {} };
    timeout(BOUND, serves).await.unwrap();
    steer("reload", &directory).await;
    let second = get(&socket, "/pid").await;
    assert_ne!(second.lines().last(), first.lines().last());
    steer("drain", &directory).await;
    assert_eq!(ends(&mut supervisor).await.code(), Some(0));
}

#[tokio::test]
async fn a_supervisor_whose_words_nobody_reads() {
    let (_reader, writer) = full();
    supervises(writer).await;
}

#[tokio::test]
async fn a_supervisor_whose_reader_is_gone() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    supervises(writer).await;
}
