//! Bytes that the kernel sends without a copy: the same to a client as any others.

mod support;

use bytes::Bytes;
use curtsy_server::{Body, resident};
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use std::convert::Infallible;
use support::{App, Running, ms, request, serve_this};

/// A number every four bytes: whatever is lost, doubled or moved is seen.
fn numbers() -> Vec<u8> {
    (0..40_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// Answers `/FROM-TO` with that part of the bytes.
async fn serve(bytes: Bytes) -> Running {
    let service = service_fn(move |request: Request<Body>| {
        let mut ends = request.uri().path()[1..].split('-').flat_map(str::parse);
        let (from, to) = (ends.next().unwrap_or(0), ends.next().unwrap_or(0));
        let answer = Response::new(Full::new(bytes.slice(from..to)));
        async move { Ok::<_, Infallible>(answer) }
    });
    serve_this(App::default(), service, |builder| builder).await
}

/// Of whole answers and larger ones, of small pieces and of what is not sent from there.
const PARTS: [(usize, usize); 7] = [
    (0, 65_536),
    (1, 16_385),
    (70_001, 135_000),
    (5, 10),
    (9, 9),
    (0, 160_000),
    (95_000, 160_000),
];

fn target((from, to): (usize, usize)) -> String {
    request("GET", &format!("/{from}-{to}"))
}

#[tokio::test]
async fn they_arrive_byte_for_byte_alone_and_behind_others() {
    let numbers = numbers();
    let server = serve(resident(&numbers).unwrap()).await;
    let mut client = server.client().await;
    for part in PARTS {
        client.send(target(part)).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == numbers[part.0..part.1], "{part:?}");
    }
    let all: String = PARTS.iter().map(|part| target(*part)).collect();
    for _ in 0..3 {
        client.send(&all).await;
        for part in PARTS {
            let answer = client.answer().await;
            assert!(answer.body == numbers[part.0..part.1], "{part:?}");
        }
    }
    server.drain().await;
}

/// The socket takes some of an answer, and the rest when the client has read.
#[tokio::test]
async fn a_client_who_does_not_read_gets_all_of_it_later() {
    let numbers = numbers();
    let server = serve(resident(&numbers).unwrap()).await;
    let mut client = server.client().await;
    // More than the buffers of both sides take.
    let part = (3, 65_000);
    let count = 200;
    let sending = target(part).repeat(count);
    client.send(sending).await;
    tokio::time::sleep(ms(200)).await;
    for index in 0..count {
        let answer = client.answer().await;
        assert!(answer.body == numbers[part.0..part.1], "{index}");
    }
    client.send(target((0, 5))).await;
    assert!(client.answer().await.body == numbers[..5]);
    server.drain().await;
}

#[tokio::test]
async fn a_client_who_goes_takes_nobody_along() {
    let numbers = numbers();
    let server = serve(resident(&numbers).unwrap()).await;
    for _ in 0..20 {
        let mut client = server.client().await;
        client.send(target((0, 65_536)).repeat(100)).await;
        drop(client);
    }
    let mut client = server.client().await;
    client
        .send("GET /0-65000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let answer = client.answer().await;
    answer.and_closes();
    assert!(answer.body == numbers[..65_000]);
    client.ends().await;
    server.drain().await;
}
