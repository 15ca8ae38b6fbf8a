//! Around the drain: the lame duck before it, and workers with threads of their own.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use curtsy_server::{DrainPolicy, Outcome, Phase};
use std::time::Duration;
use support::{App, at_once, ms, request, serve_with, soon};

#[tokio::test]
async fn a_lame_duck_serves_as_before_and_can_be_recalled() {
    let policy = DrainPolicy {
        lame_duck: Duration::from_secs(3_600),
        ..at_once()
    };
    let server = serve_with(|builder| builder.drain(policy)).await;
    let mut old = server.client().await;
    old.get("/a")
        .await
        .is(200, "hello from /a")
        .and_keeps_alive();
    for _ in 0..2 {
        server.handle.wish_shutdown();
        server
            .until("lame", |now| now.phase == Phase::LameDuck)
            .await;
        assert!(!server.handle.phase().is_ready());
        old.get("/b")
            .await
            .is(200, "hello from /b")
            .and_keeps_alive();
        let mut new = server.client().await;
        new.get("/c")
            .await
            .is(200, "hello from /c")
            .and_keeps_alive();
        server.handle.recall();
        server
            .until("ready", |now| now.phase == Phase::Serving)
            .await;
    }
    old.get("/d")
        .await
        .is(200, "hello from /d")
        .and_keeps_alive();
    server.handle.close();
    assert!(matches!(server.ended().await, Outcome::Closed(_)));

    let policy = DrainPolicy {
        lame_duck: ms(200),
        ..at_once()
    };
    let server = serve_with(|builder| builder.drain(policy)).await;
    server.handle.wish_shutdown();
    let outcome = server.ended().await;
    assert!(outcome.is_drained());
    assert!(outcome.report().took + ms(20) >= ms(200), "{outcome:?}");
}

#[tokio::test]
async fn workers_with_threads_of_their_own_drain_alike() {
    let server = serve_with(|builder| builder.workers(2.try_into().unwrap())).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = server.client().await;
        client
            .get("/once")
            .await
            .is(200, "hello from /once")
            .and_keeps_alive();
        client.send(request("GET", &format!("/gate?{n}"))).await;
        server.app.noted(&format!("in /gate?{n}")).await;
        clients.push(client);
    }
    let app: App = server.app.clone();
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    for (n, client) in clients.iter_mut().enumerate() {
        app.open(&n.to_string());
        client
            .answer()
            .await
            .is(200, &format!("through {n}"))
            .and_closes();
        client.ends().await;
    }
    assert!(server.ended().await.is_drained());
}
