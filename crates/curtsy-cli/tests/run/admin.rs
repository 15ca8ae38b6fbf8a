//! A program with an admin port of its own, under a supervisor: each generation has it in turn.

use crate::supervisor::{BOUND, CURTSY, Supervisor};
use curtsy_prove::child::free_address;
use std::io::Result;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Asks on a connection of its own.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    timeout(BOUND, exchange).await?
}

/// Whom `/status` tells of.
async fn generation(admin: SocketAddr) -> u64 {
    let answer = get(admin, "/status").await.unwrap();
    let rest = answer.split("\"generation\":").nth(1).unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_admin_port_goes_from_generation_to_generation() {
    let admin = free_address().unwrap();
    let flag = format!("--admin={admin}");
    let program = [CURTSY, "demo", "--inherit", "--workers", "1", &flag];
    let mut supervisor = Supervisor::start(&[], &program).await;
    assert_eq!(generation(admin).await, 0);
    // Somebody asks all the time, and is told each time that there is a process that is ready.
    let (stop, mut stopped) = tokio::sync::watch::channel(());
    let asking = tokio::spawn(async move {
        let mut asked = 0;
        while !stopped.has_changed().unwrap() {
            let answer = get(admin, "/readyz").await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            asked += 1;
        }
        stopped.mark_unchanged();
        asked
    });
    for next in 1..=3 {
        supervisor.reloads().await;
        assert_eq!(generation(admin).await, next);
    }
    stop.send(()).unwrap();
    assert!(asking.await.unwrap() > 10);
    assert_eq!(supervisor.stop().await, Some(0));
}
