//! Who else is told of a restart: the service manager, a file with the process number, and whoever gave the sockets.

use crate::row::{BOUND, Row};
use curtsy_prove::child::ChildSignal;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::process::Command;
use tokio::time::timeout;

const CURTSY: &str = env!("CARGO_BIN_EXE_curtsy");

/// What a service manager hears.
async fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = timeout(BOUND, manager.recv(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length.unwrap()].to_vec()).unwrap()
}

fn number_in(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_and_the_pid_file_follow_the_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let (path, pidfile) = (
        directory.path().join("notify"),
        directory.path().join("pid"),
    );
    let program = directory.path().join("server");
    std::fs::copy(CURTSY, &program).unwrap();
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut command = Command::new(&program);
    command
        .args([
            "demo",
            "--listen",
            "127.0.0.1:0",
            "--bake-after",
            "200ms",
            "--pidfile",
        ])
        .arg(&pidfile)
        .env("NOTIFY_SOCKET", &path);
    let mut row = Row::run(command, "http://").await;
    assert_eq!(heard(&manager).await, "READY=1");
    assert_eq!(number_in(&pidfile), format!("{}\n", row.pid()));

    let mut last = 0;
    for _ in 0..2 {
        let old = row.pid();
        row.restart().await;
        let reloading = heard(&manager).await;
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time: u64 = time.unwrap().parse().unwrap();
        assert!(time > last, "{time} after {last}");
        last = time;
        // The old process says who comes after it, and nobody says anything else.
        assert_eq!(
            heard(&manager).await,
            format!("MAINPID={}\nREADY=1", row.pid())
        );
        row.alone().await;
        assert_ne!(row.pid(), old);
        assert_eq!(number_in(&pidfile), format!("{}\n", row.pid()));
    }
    // A restart that fails is over, too.
    std::fs::remove_file(&program).unwrap();
    row.signal(ChildSignal::HUP);
    row.line("kept the old process: ").await;
    assert!(heard(&manager).await.starts_with("RELOADING=1\n"));
    assert_eq!(heard(&manager).await, "READY=1");
    assert_eq!(number_in(&pidfile), format!("{}\n", row.pid()));
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");

    row.stop().await;
    assert_eq!(heard(&manager).await, "STOPPING=1");
    assert!(!pidfile.exists());
}

/// A demo on a socket that it is given, as a socket unit gives it.
async fn activated(listener: &TcpListener) -> Row {
    let script = format!(
        "exec 3<&{}; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$; \
         exec {CURTSY} demo --inherit --bake-after 50ms",
        listener.as_raw_fd()
    );
    // Other shells know no numbers above 9.
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    Row::run(command, "http://").await
}

async fn ask(listener: &TcpListener) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await?;
        stream.write_all(b"GET /pid HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    timeout(BOUND, ask).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_the_service_manager_is_as_it_was_after_restarts_and_a_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    for round in 0..2 {
        let mut row = activated(&listener).await;
        for generation in 0..=2 {
            let answer = ask(&listener).await;
            assert!(
                answer.ends_with(&format!("generation={generation}")),
                "{round}: {answer}"
            );
            if generation < 2 {
                row.restart().await;
                row.alone().await;
            }
        }
        // Nobody serves then, but whoever comes waits in the queue for the next.
        row.stop().await;
    }
}
