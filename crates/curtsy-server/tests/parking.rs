//! Parking under way: connections that rest about as long as it takes to be parked, and whatever
//! else their clients may do just then. Every byte of every answer is looked at.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use curtsy_server::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Client, Running, ms, not_within, request, serve_with, soon};
use tokio::task::JoinSet;

const PARK_AFTER: Duration = ms(5);

async fn parking() -> Running {
    serve_with(|builder| {
        builder.limits(Limits {
            park_after: PARK_AFTER,
            ..Limits::default()
        })
    })
    .await
}

#[tokio::test]
async fn a_snapshot_counts_parked_connections() {
    let server = parking().await;
    let mut clients = Vec::new();
    for n in 0..60 {
        let mut client = server.client().await;
        if n % 6 > 0 {
            client.get("/once").await.is(200, "hello from /once");
        }
        clients.push(client);
    }
    let now = server
        .until("all parked", |now| now.counts.parked == 60)
        .await;
    assert_eq!(
        (now.counts.new, now.counts.idle, now.counts.active),
        (10, 50, 0)
    );
    assert_eq!(now.counts.total(), 60);
    assert!(now.stragglers.is_empty());
    // One comes back, and is no longer parked while it is busy.
    clients[7].send(request("GET", "/gate?a")).await;
    server.app.noted("in /gate?a").await;
    let now = server.handle.snapshot().counts;
    assert_eq!((now.parked, now.active, now.total()), (59, 1, 60));
    server.app.open("a");
    clients[7]
        .answer()
        .await
        .is(200, "through a")
        .and_keeps_alive();
    server
        .until("all parked", |now| now.counts.parked == 60)
        .await;
    // Those that go are noticed.
    clients.truncate(20);
    server
        .until("some gone", |now| now.counts.total() == 20)
        .await;
    server.drain().await;
    for client in &mut clients {
        client.ends().await;
    }
}

#[tokio::test]
async fn a_parked_connection_goes_on_where_it_was() {
    let server = parking().await;
    let mut client = server.client().await;
    let (peer, local) = (client.local.unwrap(), server.address);
    for n in 1..6 {
        server.until("parked", |now| now.counts.parked == 1).await;
        client
            .get("/who")
            .await
            .is(200, &format!("main {peer} {local} {n} -"));
    }
    server.drain().await;
}

#[tokio::test]
async fn half_a_head_behind_a_request_is_kept_through_the_rest() {
    let server = parking().await;
    let next = request("GET", "/next");
    for cut in [1, 5, 12, next.len() - 3, next.len() - 1] {
        let mut client = server.client().await;
        client
            .send(format!("{}{}", request("GET", "/whole"), &next[..cut]))
            .await;
        client
            .answer()
            .await
            .is(200, "hello from /whole")
            .and_keeps_alive();
        // It rests longer than it takes to be parked; half a head is not parked.
        server
            .until("taken for active", |now| {
                now.counts.active == 1 && now.counts.parked == 0
            })
            .await;
        assert!(not_within(PARK_AFTER * 6, client.read_some()).await);
        client.send(&next[cut..]).await;
        client
            .answer()
            .await
            .is(200, "hello from /next")
            .and_keeps_alive();
        drop(client);
        server.until("gone", |now| now.counts.total() == 0).await;
    }
    server.drain().await;
}

/// A small generator, so that a failure can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// About as long as it takes to be parked.
    async fn pause(&mut self) {
        let pause = Duration::from_micros(self.below(12_000));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    async fn send_in_pieces(&mut self, client: &mut Client, bytes: &[u8]) {
        let cut = usize::try_from(self.below(bytes.len() as u64)).unwrap();
        client.send(&bytes[..cut]).await;
        self.pause().await;
        client.send(&bytes[cut..]).await;
    }
}

async fn restless(address: std::net::SocketAddr, seed: u64) -> usize {
    let mut chance = Chance(seed * 2_654_435_761 + 1);
    let mut client = Client::connect(address).await;
    let mut answered = 0;
    for step in 0..25 {
        chance.pause().await;
        let target = format!("/{seed}-{step}");
        let expected = format!("hello from {target}");
        match chance.below(6) {
            0 => {
                client
                    .get(&target)
                    .await
                    .is(200, &expected)
                    .and_keeps_alive();
                answered += 1;
            }
            1 => {
                let count = usize::try_from(chance.below(4)).unwrap() + 2;
                client.send(request("GET", &target).repeat(count)).await;
                for _ in 0..count {
                    client.answer().await.is(200, &expected).and_keeps_alive();
                }
                answered += count;
            }
            2 => {
                let head = request("GET", &target);
                chance.send_in_pieces(&mut client, head.as_bytes()).await;
                client.answer().await.is(200, &expected).and_keeps_alive();
                answered += 1;
            }
            3 => {
                let length = usize::try_from(chance.below(30_000)).unwrap() + 1;
                let body = target.repeat(length / target.len() + 1);
                let body = &body[..length];
                let head =
                    format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
                chance
                    .send_in_pieces(&mut client, format!("{head}{body}").as_bytes())
                    .await;
                client.answer().await.is(200, body).and_keeps_alive();
                answered += 1;
            }
            4 => {
                // Half of the next one behind a whole one.
                let (whole, next) = (request("GET", &target), request("GET", "/next"));
                let both = whole + &next;
                let cut = both.len() - usize::try_from(chance.below(30)).unwrap() - 1;
                client.send(&both[..cut]).await;
                client.answer().await.is(200, &expected).and_keeps_alive();
                chance.pause().await;
                client.send(&both[cut..]).await;
                client
                    .answer()
                    .await
                    .is(200, "hello from /next")
                    .and_keeps_alive();
                answered += 2;
            }
            _ => {
                // Vanishes, in the middle of something or not.
                let head = request("GET", &target);
                let cut = usize::try_from(chance.below(head.len() as u64)).unwrap();
                client.send(&head[..cut]).await;
                client = Client::connect(address).await;
            }
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restless_clients_get_every_byte() {
    let server = parking().await;
    let mut clients = JoinSet::new();
    for seed in 1..=60 {
        clients.spawn(restless(server.address, seed));
    }
    let mut answered = 0;
    while let Some(client) = soon("clients", clients.join_next()).await {
        answered += client.unwrap();
    }
    assert!(answered > 1_000, "{answered}");
    server.until("gone", |now| now.counts.total() == 0).await;
    server.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_are_parked_and_come_back() {
    const COUNT: usize = 2_000;
    let server = parking().await;
    let mut clients = Vec::with_capacity(COUNT);
    for n in 0..COUNT {
        let mut client = server.client().await;
        client
            .get(&format!("/n{n}"))
            .await
            .is(200, &format!("hello from /n{n}"));
        clients.push(client);
    }
    server
        .until("all parked", |now| now.counts.parked == COUNT)
        .await;
    // All at once.
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/again-{n}"))).await;
    }
    for (n, client) in clients.iter_mut().enumerate() {
        client
            .answer()
            .await
            .is(200, &format!("hello from /again-{n}"))
            .and_keeps_alive();
    }
    // A connection on its way into the lot may be seen here and there.
    server
        .until("all parked, none twice", |now| {
            (now.counts.parked, now.counts.idle, now.counts.total()) == (COUNT, COUNT, COUNT)
        })
        .await;
    let outcome = server.drain().await;
    assert_eq!(outcome.report().open_at_start, COUNT);
    for client in &mut clients {
        client.ends().await;
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_and_are_not_refused() {
    let server = serve_with(|builder| {
        builder.limits(Limits {
            connections: Some(3),
            park_after: PARK_AFTER,
            ..Limits::default()
        })
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        client.get("/in").await.is(200, "hello from /in");
        clients.push(client);
    }
    let mut waits = server.client().await;
    waits.send(request("GET", "/waits")).await;
    assert!(
        not_within(ms(100), waits.read_some()).await,
        "there was no room"
    );
    assert_eq!(server.handle.snapshot().counts.total(), 3);
    drop(clients.pop());
    waits.answer().await.is(200, "hello from /waits");
    server.drain().await;
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_told_of_once() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let server = serve_with(|builder| {
        builder.on_quiet(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    })
    .await;
    let mut client = server.client().await;
    for turn in 1..=2 {
        client.get("/one").await.is(200, "hello from /one");
        let begun = Instant::now();
        while told.load(Ordering::Relaxed) < turn {
            assert!(begun.elapsed() < support::PATIENCE, "not told");
            tokio::time::sleep(ms(10)).await;
        }
        // Longer than it has to be quiet.
        tokio::time::sleep(ms(1_500)).await;
        assert_eq!(told.load(Ordering::Relaxed), turn);
    }
    server.drain().await;
}
