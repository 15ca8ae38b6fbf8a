//! The contract's row 16: a process out of descriptors. By itself in its binary, because the limit
//! holds for the whole process.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use curtsy_server::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use support::{Client, PATIENCE, ms, request, serve_with, soon};

/// Lets the process have no descriptor beyond those it has and `more`.
fn limit_descriptors(more: u64) {
    let next = std::fs::File::open("/dev/null").unwrap();
    let next = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(next + more),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Connected by the kernel: the server, on this same thread, has not accepted it yet.
fn queued(address: std::net::SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request("GET", target).as_bytes()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> (String, TcpStream) {
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        while !bytes.windows(10).any(|window| window == b"hello from") {
            let mut some = [0u8; 512];
            let read = stream.read(&mut some).unwrap();
            assert!(read > 0, "closed without an answer");
            bytes.extend_from_slice(&some[..read]);
        }
        (String::from_utf8(bytes).unwrap(), stream)
    });
    soon("an answer", reading).await.unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn row_16_out_of_descriptors_parked_ones_are_given_up_and_accepting_resumes() {
    let server = serve_with(|builder| {
        builder.limits(Limits {
            park_after: ms(5),
            ..Limits::default()
        })
    })
    .await;
    // Room for what the runtime's blocking threads may open later.
    let mut idle = Vec::new();
    for n in 0..40 {
        let mut client = Client::connect(server.address).await;
        client.get(&format!("/{n}")).await;
        idle.push(client);
    }
    server.until("parked", |now| now.counts.parked == 40).await;
    let streams: Vec<TcpStream> = (0..10).map(|_| queued(server.address, "/new")).collect();
    limit_descriptors(0);
    let mut served = Vec::new();
    for stream in streams {
        let (text, stream) = answer(stream).await;
        assert!(text.ends_with("hello from /new"), "{text}");
        served.push(stream);
    }
    // The oldest were given up, in an orderly way; the others go on.
    idle[0].ends().await;
    let last = idle.len() - 1;
    idle[last]
        .get("/still")
        .await
        .is(200, "hello from /still")
        .and_keeps_alive();

    // With none to give up, it waits until some are there, and resumes by itself.
    drop(idle);
    drop(served);
    server.until("gone", |now| now.counts.total() == 0).await;
    let unlimited = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: unlimited,
        maximum: unlimited,
    };
    setrlimit(Resource::Nofile, all).unwrap();
    let streams: Vec<TcpStream> = (0..6).map(|_| queued(server.address, "/late")).collect();
    limit_descriptors(0);
    // Long enough for it to run into the limit more than once.
    tokio::time::sleep(ms(50)).await;
    assert_eq!(server.handle.snapshot().counts.total(), 0);
    setrlimit(Resource::Nofile, all).unwrap();
    for stream in streams {
        let (text, _) = answer(stream).await;
        assert!(text.ends_with("hello from /late"), "{text}");
    }
    server.serves_others().await;
    server.drain().await;
}
