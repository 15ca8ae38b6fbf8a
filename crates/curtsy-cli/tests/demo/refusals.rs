//! Clients that behave badly, while others notice nothing.

use crate::server::{BOUND, Demo, demo};
use curtsy_prove::Plan;
use curtsy_prove::child::{Child, ChildSignal};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Connects as often as it is told to and keeps every connection; the last one asks, and is answered.
const CROWD: &str = r#"
import resource, signal, socket, sys
count = int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
if hard != resource.RLIM_INFINITY and hard < count + 50:
    print("SKIPPED: this process may have only", hard, "descriptors", flush=True)
    sys.exit(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
host, port = sys.argv[1].rsplit(":", 1)
held = [socket.create_connection((host, int(port)), timeout=60) for n in range(count)]
held[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
answer = b""
while not answer.endswith(b"Hello, World!"):
    more = held[-1].recv(1000)
    assert more, answer
    answer += more
print("all connected, and the last was served", flush=True)
signal.pause()
"#;

/// Twenty thousand clients, and a server that may have a tenth of that: those who came last are
/// served, those who came first and said nothing make room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_descriptors_passes_by_itself() {
    let mut command = tokio::process::Command::new("bash");
    command.args([
        "-c",
        &format!(
            "ulimit -n 2000; exec {} demo --listen 127.0.0.1:0 --workers 2 --linger 0s",
            env!("CARGO_BIN_EXE_curtsy")
        ),
    ]);
    let demo = Demo::spawn(command).await;
    let address = demo.address.to_string();
    let mut crowds = Vec::new();
    for _ in 0..2 {
        let Ok(crowd) = Child::start("python3", ["-c", CROWD, &address, "10000"]) else {
            println!("SKIPPED: python3 is not installed");
            return demo.stop().await;
        };
        crowds.push(crowd);
    }
    for crowd in &mut crowds {
        let said = crowd
            .wait_for_line(
                |line| line.contains("served") || line.contains("SKIPPED"),
                BOUND,
            )
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", demo.child.stderr()));
        if said.contains("SKIPPED") {
            println!("{said}");
            return demo.stop().await;
        }
    }
    // With all of them there, somebody else is served, and no request is lost.
    let others = || {
        Plan::to_address(demo.address, "/")
            .connections(10)
            .requests_each(20)
            .expect_text("Hello, World!")
            .start()
            .finish()
    };
    let report = others().await;
    assert!(report.is_clean(), "{report}");
    for crowd in &mut crowds {
        crowd.signal(ChildSignal::TERM).unwrap();
        crowd.wait_exit(BOUND).await.unwrap();
    }
    let report = others().await;
    assert!(report.is_clean(), "{report}");
    let log = demo.child.stderr();
    assert!(log.contains("cannot accept; clients wait"), "{log}");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rude_clients_disturb_nobody() {
    let demo = Demo::spawn(demo(&["--linger", "0s"])).await;
    let address = demo.address;
    let rude = tokio::spawn(async move {
        let garbage: [&[u8]; 8] = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/1.1\r\nHost",
            b"\0\0\0\0\0\0\0\0",
            b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhalf",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /big?bytes=100000000 HTTP/1.1\r\nHost: x\r\n\r\n",
        ];
        let mut open = Vec::new();
        for round in 0..40 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(garbage[round % garbage.len()])
                .await
                .unwrap();
            // Every other one vanishes at once.
            if round % 2 == 0 {
                open.push(stream);
            }
        }
        open
    });
    let report = Plan::to_address(address, "/")
        .connections(20)
        .think([Duration::from_millis(2)])
        .requests_each(100)
        .expect_text("Hello, World!")
        .start()
        .finish()
        .await;
    assert!(report.is_clean(), "{report}");
    drop(rude.await.unwrap());
    demo.stop().await;
}
