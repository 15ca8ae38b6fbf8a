//! The contract's life cycle, row 3 and rows 13 to 19, and what a drain shows of itself: states, hooks,
//! extensions, upgrades, clients that go away, several listeners.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use curtsy_server::{DrainPolicy, Limits, OnDisconnect, Outcome, Phase, Server, State};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{App, Client, Running, at_once, ms, not_within, request, serve, serve_with, soon};

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: echo\r\n\r\n";

async fn upgraded(server: &Running, query: &str) -> Client {
    let mut client = server.client().await;
    let head = format!("GET /upgrade{query} HTTP/1.1\r\nHost: a\r\n{UPGRADE}");
    client.send(head).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 101, "{answer:?}");
    client.send("hello").await;
    assert_eq!(client.take(5).await, b"hello");
    client
}

#[tokio::test]
async fn row_13_upgraded_connections_are_told_and_waited_for() {
    let mut server = serve().await;
    let mut polite = upgraded(&server, "").await;
    let mut stubborn = upgraded(&server, "?stubborn").await;
    let now = server.handle.snapshot();
    assert_eq!(now.counts.upgraded, 2);
    server.handle.wish_shutdown();
    assert_eq!(polite.take(8).await, b"farewell");
    polite.ends().await;
    drop(polite);
    let now = server
        .until("one left", |now| now.counts.upgraded == 1)
        .await;
    assert_eq!(now.stragglers.len(), 1);
    assert_eq!(now.stragglers[0].state, State::Upgraded);
    assert_eq!(now.stragglers[0].target, "/upgrade?stubborn");
    assert!(
        not_within(ms(100), &mut server.running).await,
        "it was not waited for"
    );
    stubborn.send("still here").await;
    assert_eq!(stubborn.take(10).await, b"still here");
    drop(stubborn);
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn row_13_upgraded_connections_are_cut_at_the_deadline() {
    let policy = DrainPolicy {
        deadline: ms(200),
        ..at_once()
    };
    let server = serve_with(|builder| builder.drain(policy)).await;
    let mut client = upgraded(&server, "?stubborn").await;
    let app = server.app.clone();
    server.handle.wish_shutdown();
    let outcome = server.ended().await;
    assert!(matches!(outcome, Outcome::DeadlinePassed(_)), "{outcome:?}");
    assert_eq!(outcome.report().stragglers[0].state, State::Upgraded);
    client.is_cut().await;
    app.noted("upgraded ended").await;
}

type States = Arc<Mutex<Vec<(u64, State)>>>;

async fn watched(limits: Limits) -> (Running, States) {
    let states = States::default();
    let told = states.clone();
    let server = serve_with(|builder| {
        builder
            .limits(limits)
            .on_connection_state(move |connection, state| {
                told.lock().unwrap().push((connection.id(), state));
            })
    })
    .await;
    (server, states)
}

async fn told(server: &Running, states: &States, expected: &[State]) {
    let seen = || -> Vec<State> {
        states
            .lock()
            .unwrap()
            .iter()
            .map(|(_, state)| *state)
            .collect()
    };
    let want = seen;
    server
        .until(&format!("{expected:?}"), |_| want().len() >= expected.len())
        .await;
    assert_eq!(seen(), expected);
    states.lock().unwrap().clear();
}

#[tokio::test]
async fn row_14_states_are_told_in_their_order() {
    use State::{Active, Closed, Idle, New, Upgraded};
    for park_after in [ms(1), ms(60_000)] {
        let limits = Limits {
            park_after,
            ..Limits::default()
        };
        let (server, states) = watched(limits).await;
        let mut client = server.client().await;
        told(&server, &states, &[New]).await;
        // Active from the first byte of a head on.
        client.send("G").await;
        told(&server, &states, &[Active]).await;
        client.send(&request("GET", "/one")[1..]).await;
        client.answer().await.is(200, "hello from /one");
        told(&server, &states, &[Idle]).await;
        client.get("/two").await.is(200, "hello from /two");
        told(&server, &states, &[Active, Idle]).await;
        if park_after == ms(1) {
            server.until("parked", |now| now.counts.parked == 1).await;
        }
        drop(client);
        told(&server, &states, &[Closed]).await;

        let client = upgraded(&server, "").await;
        told(&server, &states, &[New, Active, Upgraded]).await;
        drop(client);
        told(&server, &states, &[Closed]).await;

        let mut client = server.client().await;
        client.send("nonsense\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 400);
        drop(client);
        told(&server, &states, &[New, Active, Closed]).await;

        let client = server.client().await;
        told(&server, &states, &[New]).await;
        drop(client);
        told(&server, &states, &[Closed]).await;
        server.drain().await;
    }
}

#[tokio::test]
async fn row_15_without_keep_alive_idle_connections_close_and_answers_do() {
    let server = serve_with(|builder| {
        builder.limits(Limits {
            park_after: ms(50),
            ..Limits::default()
        })
    })
    .await;
    let mut parked = server.client().await;
    parked
        .get("/a")
        .await
        .is(200, "hello from /a")
        .and_keeps_alive();
    server.until("parked", |now| now.counts.parked == 1).await;
    let mut idle = server.client().await;
    idle.get("/b")
        .await
        .is(200, "hello from /b")
        .and_keeps_alive();
    let mut busy = server.client().await;
    busy.send(request("GET", "/gate?c")).await;
    server.app.noted("in /gate?c").await;
    server.handle.set_keep_alives(false);
    parked.ends().await;
    idle.ends().await;
    server.app.open("c");
    busy.answer().await.is(200, "through c").and_closes();
    busy.ends().await;
    let mut later = server.client().await;
    later.get("/d").await.is(200, "hello from /d").and_closes();
    later.ends().await;
    server.handle.set_keep_alives(true);
    let mut again = server.client().await;
    again
        .get("/e")
        .await
        .is(200, "hello from /e")
        .and_keeps_alive();
    again
        .get("/f")
        .await
        .is(200, "hello from /f")
        .and_keeps_alive();
    server.drain().await;
}

#[tokio::test]
async fn row_03_a_port_alone_is_every_address_of_both_kinds() {
    let app = App::default();
    let builder = Server::builder().signals(false).drain(at_once());
    let server = builder.listen(":0").build(app.into_service()).unwrap();
    let port = server.listeners().next().unwrap().1.tcp().unwrap().port();
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    for host in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
        let mut client = Client::connect(address).await;
        let local = client.local.unwrap();
        let answer = client.get("/who").await;
        // An IPv4 client is one, whatever the socket is.
        answer.is(200, &format!("main {local} {address} 1 -"));
    }
    handle.wish_shutdown();
    assert!(running.await.unwrap().unwrap().is_drained());
}

/// What an error that does not pass looks like: somebody else has ended the listening socket.
#[tokio::test]
async fn row_16_other_errors_end_the_server_and_what_is_connected_is_served() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let same = listener.try_clone().unwrap();
    let server = serve_with(|builder| builder.listen(("other", listener))).await;
    let mut client = Client::connect(same.local_addr().unwrap()).await;
    client.send(request("GET", "/gate?a")).await;
    server.app.noted("in /gate?a").await;
    rustix::net::shutdown(&same, rustix::net::Shutdown::Both).unwrap();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    server.app.open("a");
    client.answer().await.is(200, "through a").and_closes();
    let ended = soon("the end", server.running).await.unwrap();
    let error = ended.unwrap_err();
    assert!(error.is_accept(), "{error}");
    assert!(error.to_string().contains("listener other"), "{error}");
}

#[tokio::test]
async fn row_17_listeners_and_connections_put_values_into_requests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let second = other.local_addr().unwrap();
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let server = serve_with(|builder| {
        builder
            .listen(("other", other))
            .listen((
                "local",
                format!("unix:{}?mode=600", path.display()).as_str(),
            ))
            .on_connection(move |connection, extensions| {
                *counted.lock().unwrap() += 1;
                extensions.insert(match connection.listener() {
                    "main" => "for main",
                    "other" => "for other",
                    _ => "for the rest",
                });
            })
    })
    .await;
    for (name, address) in [("main", server.address), ("other", second)] {
        let mut client = Client::connect(address).await;
        let local = client.local.unwrap();
        for n in 1..4 {
            let expected = format!("{name} {local} {address} {n} for {name}");
            client.get("/who").await.is(200, &expected);
        }
    }
    let mut client = Client::connect_unix(&path).await;
    let expected = format!("local unix: unix:{} 1 for the rest", path.display());
    client.get("/who").await.is(200, &expected);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(*calls.lock().unwrap(), 3);
    client.send(request("GET", "/gate?last")).await;
    server.app.noted("in /gate?last").await;
    server.handle.wish_shutdown();
    server.app.open("last");
    client.answer().await.is(200, "through last").and_closes();
    assert!(server.ended().await.is_drained());
    assert!(!path.exists(), "the path outlives its server");
    assert!(tokio::net::TcpStream::connect(second).await.is_err());
}

#[tokio::test]
async fn a_hook_for_connections_that_panics_ends_that_connection_alone() {
    let calls = AtomicUsize::new(0);
    let server = serve_with(|builder| {
        builder.on_connection(move |_, _| {
            let earlier = calls.fetch_add(1, Ordering::Relaxed);
            assert_ne!(earlier, 1, "as it should");
        })
    })
    .await;
    let mut before = server.client().await;
    assert_eq!(before.get("/hello").await.status, 200);
    // It never gets as far as a request.
    server.client().await.is_cut().await;
    server.serves_others().await;
    assert_eq!(before.get("/hello").await.status, 200);
    server
        .until("the others are left", |now| now.counts.total() == 1)
        .await;
    assert!(server.drain().await.is_drained());
}

#[tokio::test]
async fn a_hook_for_states_that_panics_changes_nothing() {
    let server = serve_with(|builder| {
        builder.on_connection_state(|_, state| panic!("as it should, at {state}"))
    })
    .await;
    let mut client = server.client().await;
    assert_eq!(client.get("/hello").await.status, 200);
    server.serves_others().await;
    assert_eq!(client.get("/hello").await.status, 200);
    drop(client);
    server.until("gone", |now| now.counts.total() == 0).await;
    assert!(server.drain().await.is_drained());
}

#[tokio::test]
async fn row_18_cancel_drops_the_handler_of_a_client_that_goes() {
    let server = serve().await;
    let mut client = server.client().await;
    client.send(request("GET", "/gate?a")).await;
    server.app.noted("in /gate?a").await;
    drop(client);
    server.app.noted("dropped /gate?a").await;
    assert!(!server.app.notes().contains(&"out /gate?a".to_owned()));
    server.until("gone", |now| now.counts.total() == 0).await;
    server.drain().await;
}

#[tokio::test]
async fn who_has_sent_a_request_and_says_no_more_is_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = serve().await;
    for _ in 0..50 {
        let client = tokio::net::TcpSocket::new_v4().unwrap();
        let mut client = client.connect(server.address).await.unwrap();
        client
            .write_all(request("GET", "/").as_bytes())
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        soon("the answer", client.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    server.drain().await;
}

async fn finishing() -> Running {
    serve_with(|builder| builder.on_disconnect(OnDisconnect::Finish)).await
}

#[tokio::test]
async fn row_18_finish_lets_the_handler_run_on_and_the_drain_waits_for_it() {
    use tokio::io::AsyncWriteExt;
    let mut server = finishing().await;
    let mut client = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    client
        .write_all(request("GET", "/gate?a").as_bytes())
        .await
        .unwrap();
    server.app.noted("in /gate?a").await;
    // It goes for good, with a reset: to close one's sending side is not to go.
    client.set_zero_linger().unwrap();
    drop(client);
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    assert!(
        not_within(ms(150), &mut server.running).await,
        "it did not wait"
    );
    let app = server.app.clone();
    app.open("a");
    assert!(server.ended().await.is_drained());
    assert!(
        app.notes().contains(&"out /gate?a".to_owned()),
        "{:?}",
        app.notes()
    );
}

#[tokio::test]
async fn row_18_finish_counts_a_handler_whose_connection_is_gone() {
    let mut server = finishing().await;
    let mut client = server.client().await;
    client.send(request("GET", "/gate?a")).await;
    server.app.noted("in /gate?a").await;
    assert!(
        server
            .handle
            .kill(server.handle.snapshot().stragglers[0].id)
    );
    client.is_cut().await;
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    assert!(
        not_within(ms(150), &mut server.running).await,
        "it did not wait"
    );
    server.app.open("a");
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn row_18_finish_answers_a_client_that_closed_its_sending_side() {
    let server = finishing().await;
    let mut client = server.client().await;
    client.send(request("GET", "/gate?a")).await;
    client.finish_sending().await;
    server.app.noted("in /gate?a").await;
    server.app.open("a");
    client.answer().await.is(200, "through a");
    client.ends().await;
    // Panics and errors are answered from there as well.
    for (target, text) in [
        ("/panic", "internal server error\n"),
        ("/error", "internal server error\n"),
    ] {
        let mut client = server.client().await;
        client.get(target).await.is(500, text).and_closes();
    }
    server.drain().await;
}

#[tokio::test]
async fn row_19_an_upgrade_hands_over_the_bytes_that_are_there() {
    let server = serve().await;
    let mut client = server.client().await;
    let head = format!("GET /upgrade HTTP/1.1\r\nHost: a\r\n{UPGRADE}early bytes");
    client.send(head).await;
    assert_eq!(client.answer().await.status, 101);
    assert_eq!(client.take(11).await, b"early bytes");
    // No time limit of requests holds any more.
    let server_limits = Limits {
        header_timeout: ms(100),
        idle_timeout: ms(100),
        body_stall: ms(100),
        write_timeout: Some(ms(100)),
        read_timeout: Some(ms(100)),
        park_after: ms(5),
        ..Limits::default()
    };
    let limited = serve_with(|builder| builder.limits(server_limits)).await;
    let mut long = upgraded(&limited, "").await;
    assert!(not_within(ms(400), long.read_some()).await, "cut");
    long.send("alive").await;
    assert_eq!(long.take(5).await, b"alive");
    drop((client, long));
    limited.drain().await;
    server.drain().await;
}

#[tokio::test]
async fn a_snapshot_of_a_drain_shows_stragglers_oldest_first() {
    let server = serve_with(|builder| {
        builder
            .generation(7)
            .on_shutdown(async || std::future::pending().await)
    })
    .await;
    let mut clients = Vec::new();
    for name in ["one", "two", "three"] {
        let mut client = server.client().await;
        client.send(request("GET", &format!("/gate?{name}"))).await;
        server.app.noted(&format!("in /gate?{name}")).await;
        clients.push(client);
        tokio::time::sleep(ms(30)).await;
    }
    let now = server.handle.snapshot();
    assert_eq!((now.phase, now.generation), (Phase::Serving, 7));
    assert_eq!((now.draining_for, now.deadline_in), (Duration::ZERO, None));
    server.handle.wish_shutdown();
    let now = server
        .until("a while", |now| {
            now.draining_for >= ms(50) && now.hooks == 1
        })
        .await;
    assert_eq!(now.phase, Phase::Draining);
    assert!(
        now.deadline_in
            .is_some_and(|left| left <= DrainPolicy::DEADLINE)
    );
    assert_eq!(now.counts.active, 3);
    let targets: Vec<&str> = now.stragglers.iter().map(|s| s.target.as_str()).collect();
    assert_eq!(targets, ["/gate?one", "/gate?two", "/gate?three"]);
    let ages: Vec<Duration> = now.stragglers.iter().map(|s| s.age).collect();
    assert!(
        ages.is_sorted_by(|a, b| a >= b) && ages[2] >= ms(20),
        "{ages:?}"
    );
    // One of them can be cut alone.
    assert!(server.handle.kill(now.stragglers[1].id));
    clients[1].is_cut().await;
    server
        .until("two left", |now| now.stragglers.len() == 2)
        .await;
    server.app.open("one");
    clients[0]
        .answer()
        .await
        .is(200, "through one")
        .and_closes();
    server.handle.close();
    assert!(matches!(server.ended().await, Outcome::Closed(_)));
}
