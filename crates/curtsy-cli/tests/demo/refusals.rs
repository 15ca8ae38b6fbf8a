//! Clients that behave badly, while others notice nothing.

use crate::server::{BOUND, Demo, demo};
use curtsy_prove::Plan;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_descriptors_passes_by_itself() {
    // A server with few descriptors, and more clients than that.
    let mut command = tokio::process::Command::new("bash");
    command.args([
        "-c",
        &format!(
            "ulimit -n 120; exec {} demo --listen 127.0.0.1:0 --workers 1",
            env!("CARGO_BIN_EXE_curtsy")
        ),
    ]);
    let demo = Demo::spawn(command).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(demo.address).await.unwrap());
    }
    // Those that are connected and speak are served.
    crowd[0]
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0u8; 1024];
    let read = tokio::time::timeout(BOUND, crowd[0].read(&mut buffer)).await;
    assert!(read.unwrap().is_ok());
    drop(crowd);
    let report = Plan::to_address(demo.address, "/")
        .connections(10)
        .requests_each(20)
        .start()
        .finish()
        .await;
    assert!(report.is_clean(), "{report}");
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
