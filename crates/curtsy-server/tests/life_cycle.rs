//! The contract's life cycle, rows 1 to 12 (but 3, which is about listeners): from the wish to stop to the end.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use curtsy_server::{AtDeadline, DrainPolicy, Outcome, Phase, Server, State};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::{App, Client, Running, at_once, ms, not_within, request, serve, serve_with, soon};

fn lingering(linger: Duration) -> DrainPolicy {
    DrainPolicy {
        linger,
        ..DrainPolicy::default()
    }
}

fn until_deadline(deadline: Duration) -> DrainPolicy {
    DrainPolicy {
        deadline,
        ..at_once()
    }
}

/// A client in the middle of `/gate?NAME`.
async fn busy(server: &Running, name: &str) -> Client {
    let mut client = server.client().await;
    client.send(request("GET", &format!("/gate?{name}"))).await;
    server.app.noted(&format!("in /gate?{name}")).await;
    client
}

/// A client between two requests.
async fn idle(server: &Running) -> Client {
    let mut client = server.client().await;
    client
        .get("/once")
        .await
        .is(200, "hello from /once")
        .and_keeps_alive();
    client
}

async fn refused(address: SocketAddr) -> bool {
    soon("connecting", tokio::net::TcpStream::connect(address))
        .await
        .is_err()
}

#[tokio::test]
async fn row_01_run_returns_when_the_drain_is_over() {
    let mut server = serve().await;
    let mut client = busy(&server, "a").await;
    server.handle.wish_shutdown();
    assert!(soon("draining", server.handle.reached(Phase::Draining)).await);
    assert!(
        not_within(ms(100), &mut server.running).await,
        "it returned early"
    );
    server.app.open("a");
    client.answer().await.is(200, "through a").and_closes();
    client.ends().await;
    let handle = server.handle.clone();
    let outcome = server.ended().await;
    assert!(outcome.is_drained(), "{outcome:?}");
    let report = outcome.report();
    assert_eq!((report.open_at_start, report.stragglers.len()), (1, 0));
    assert!(report.took >= ms(80), "{report}");
    assert_eq!(handle.phase(), Phase::Stopped);
    assert!(handle.stopped().await.unwrap().is_drained());
}

#[tokio::test]
async fn row_02_a_server_stopped_before_it_ran_is_closed_and_accepts_nothing() {
    for close in [false, true] {
        let server = Server::builder()
            .listen("127.0.0.1:0")
            .signals(false)
            .build(App::default().into_service())
            .unwrap();
        let address = server.listeners().next().unwrap().1.tcp().unwrap();
        let handle = server.handle();
        if close {
            handle.close();
        } else {
            handle.wish_shutdown();
        }
        let error = soon("run", server.run()).await.unwrap_err();
        assert!(error.is_server_closed(), "{error}");
        assert!(refused(address).await);
        assert!(handle.stopped().await.is_none());
        assert!(handle.shutdown().await.is_none());
    }
}

/// Connected by the kernel; the server, on this same thread, has not run since.
fn connect_and_send(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

async fn everything(mut stream: TcpStream) -> String {
    let reading = tokio::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    });
    soon("reading", reading).await.unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn row_04_what_is_queued_is_accepted_before_the_listeners_close() {
    let server = serve().await;
    let queued: Vec<TcpStream> = (0..50)
        .map(|n| connect_and_send(server.address, &request("GET", &format!("/{n}"))))
        .collect();
    let address = server.address;
    server.handle.wish_shutdown();
    for (n, stream) in queued.into_iter().enumerate() {
        let answer = everything(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{n}: {answer:?}");
        assert!(answer.contains("connection: close\r\n"), "{n}: {answer:?}");
        assert!(
            answer.ends_with(&format!("hello from /{n}")),
            "{n}: {answer:?}"
        );
    }
    assert!(server.ended().await.is_drained());
    assert!(refused(address).await);
}

#[tokio::test]
async fn row_05_idle_connections_linger_and_a_request_within_it_is_served() {
    let linger = ms(600);
    for park_after in [ms(1), ms(60_000)] {
        let server = serve_with(|builder| {
            builder
                .drain(lingering(linger))
                .limits(curtsy_server::Limits {
                    park_after,
                    ..Default::default()
                })
        })
        .await;
        let (mut asks, mut silent) = (idle(&server).await, idle(&server).await);
        let begun = Instant::now();
        server.handle.wish_shutdown();
        assert!(soon("draining", server.handle.reached(Phase::Draining)).await);
        assert!(
            not_within(ms(100), silent.read_some()).await,
            "closed at once"
        );
        asks.get("/within")
            .await
            .is(200, "hello from /within")
            .and_closes();
        asks.ends().await;
        silent.ends().await;
        assert!(begun.elapsed() + ms(20) >= linger, "the linger was short");
        assert!(server.ended().await.is_drained());
    }
}

#[tokio::test(flavor = "current_thread")]
async fn row_05_a_request_that_has_arrived_is_served_at_the_last_look() {
    for park_after in [ms(1), ms(60_000)] {
        let limits = curtsy_server::Limits {
            park_after,
            ..Default::default()
        };
        let server = serve_with(|builder| builder.limits(limits)).await;
        let mut idle = Vec::new();
        for _ in 0..20 {
            let mut stream = connect_and_send(server.address, &request("GET", "/once"));
            // Reads as much as the answer without waiting for its end.
            let first = tokio::task::spawn_blocking(move || {
                let mut bytes = [0u8; 1024];
                let read = stream.read(&mut bytes).unwrap();
                assert!(bytes[..read].ends_with(b"hello from /once"));
                stream
            });
            idle.push(first.await.unwrap());
        }
        let wanted = if park_after == ms(1) { 20 } else { 0 };
        server
            .until("at rest", |now| {
                now.counts.idle == 20 && now.counts.parked == wanted
            })
            .await;
        // Whole requests and halves, unread by the server when it is told to stop at once.
        for (n, stream) in idle.iter_mut().enumerate() {
            let bytes = request("GET", "/second");
            let sent = if n % 2 == 0 { bytes.len() } else { 9 };
            stream.write_all(&bytes.as_bytes()[..sent]).unwrap();
        }
        server.handle.wish_shutdown();
        tokio::task::yield_now().await;
        soon("draining", server.handle.reached(Phase::Draining)).await;
        for (n, mut stream) in idle.into_iter().enumerate() {
            if n % 2 == 1 {
                stream
                    .write_all(&request("GET", "/second").as_bytes()[9..])
                    .unwrap();
            }
            let answer = everything(stream).await;
            assert!(answer.contains("connection: close\r\n"), "{n}: {answer:?}");
            assert!(answer.ends_with("hello from /second"), "{n}: {answer:?}");
        }
        assert!(server.ended().await.is_drained());
    }
}

#[tokio::test]
async fn row_06_an_answer_in_flight_closes_its_connection() {
    let server = serve().await;
    let mut waits = busy(&server, "a").await;
    let mut streams = server.client().await;
    streams.send(request("GET", "/stream?b")).await;
    let head = streams.head().await;
    head.and_keeps_alive();
    // An upload that is arriving goes on arriving.
    let mut uploads = server.client().await;
    let post = "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello";
    uploads.send(post).await;
    server.until("all busy", |now| now.counts.active == 3).await;
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;

    uploads.send("world").await;
    uploads.answer().await.is(200, "read 10").and_closes();
    uploads.ends().await;
    server.app.open("a");
    waits.answer().await.is(200, "through a").and_closes();
    waits.ends().await;
    // Its head was out before: it says nothing, and is closed all the same.
    server.app.open("b");
    assert_eq!(
        streams.take(26).await,
        b"6\r\nbegun \r\n5\r\nended\r\n0\r\n\r\n"
    );
    streams.ends().await;
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn row_07_a_new_connection_is_like_an_idle_one() {
    let server = serve().await;
    let mut silent = server.client().await;
    server.until("new", |now| now.counts.new == 1).await;
    server.handle.wish_shutdown();
    silent.ends().await;
    assert!(server.ended().await.is_drained());

    let server = serve_with(|builder| builder.drain(lingering(ms(20_000)))).await;
    let mut client = server.client().await;
    server.until("new", |now| now.counts.new == 1).await;
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    client
        .get("/within")
        .await
        .is(200, "hello from /within")
        .and_closes();
    client.ends().await;
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn row_07_a_head_that_has_begun_is_waited_for_and_served() {
    let server = serve().await;
    let mut client = server.client().await;
    let (begun, rest) = ("GET /begun HT", "TP/1.1\r\nHost: a\r\n\r\n");
    client.send(begun).await;
    server.until("active", |now| now.counts.active == 1).await;
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    assert!(
        not_within(ms(100), client.read_some()).await,
        "closed at once"
    );
    client.send(rest).await;
    client
        .answer()
        .await
        .is(200, "hello from /begun")
        .and_closes();
    client.ends().await;
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn row_08_at_the_deadline_stragglers_are_named_and_cut() {
    let deadline = ms(300);
    let server = serve_with(|builder| builder.drain(until_deadline(deadline))).await;
    let mut first = busy(&server, "first").await;
    tokio::time::sleep(ms(50)).await;
    let mut second = server.client().await;
    second.send("GET /half HTT").await;
    server.until("both", |now| now.counts.active == 2).await;
    let begun = Instant::now();
    let (app, peer) = (server.app.clone(), first.local.unwrap());
    server.handle.wish_shutdown();
    let outcome = server.ended().await;
    assert!(begun.elapsed() + ms(20) >= deadline);
    assert!(matches!(outcome, Outcome::DeadlinePassed(_)), "{outcome:?}");
    let stragglers = &outcome.report().stragglers;
    assert_eq!(stragglers.len(), 2, "{stragglers:?}");
    let oldest = &stragglers[0];
    assert_eq!(
        (oldest.method.as_str(), oldest.target.as_str()),
        ("GET", "/gate?first")
    );
    assert_eq!(oldest.peer.tcp(), Some(peer));
    assert_eq!(
        (oldest.state, oldest.listener.as_str()),
        (State::Active, "main")
    );
    assert!(oldest.age >= deadline, "{oldest}");
    assert_eq!(stragglers[1].method, "", "{stragglers:?}");
    first.is_cut().await;
    second.is_cut().await;
    app.noted("dropped /gate?first").await;
    assert!(!app.notes().contains(&"out /gate?first".to_owned()));
}

#[tokio::test]
async fn row_08_the_report_says_how_much_of_an_answer_was_sent() {
    let server = serve_with(|builder| builder.drain(until_deadline(ms(200)))).await;
    let mut client = server.client().await;
    client.send(request("GET", "/stream?never")).await;
    let head = client.head().await.head;
    assert_eq!(client.take(11).await, b"6\r\nbegun \r\n");
    server.handle.wish_shutdown();
    let outcome = server.ended().await;
    let [straggler] = outcome.report().stragglers.as_slice() else {
        panic!("{outcome:?}");
    };
    let sent = u64::try_from(head.len() + 11).unwrap();
    assert_eq!(straggler.bytes_sent, sent, "{straggler}");
    assert_eq!(straggler.state, State::Active);
    client.is_cut().await;
}

#[tokio::test]
async fn row_08_or_left_running() {
    let policy = DrainPolicy {
        at_deadline: AtDeadline::Leave,
        ..until_deadline(ms(200))
    };
    let server = serve_with(|builder| builder.drain(policy)).await;
    let mut client = busy(&server, "a").await;
    let app = server.app.clone();
    server.handle.wish_shutdown();
    let outcome = server.ended().await;
    assert!(matches!(outcome, Outcome::DeadlinePassed(_)), "{outcome:?}");
    assert_eq!(outcome.report().stragglers[0].target, "/gate?a");
    app.open("a");
    client.answer().await.is(200, "through a").and_closes();
    client.ends().await;
}

#[tokio::test]
async fn row_09_a_request_sees_the_drain_and_is_not_cancelled() {
    let server = serve().await;
    let mut client = server.client().await;
    client.send(request("GET", "/draining")).await;
    server.app.noted("in /draining").await;
    let mut stream = server.client().await;
    stream.send(request("GET", "/until-drain")).await;
    stream.head().await;
    assert_eq!(stream.take(11).await, b"6\r\nbegun \r\n");
    let draining = server.handle.draining();
    assert!(!draining.is_draining());
    server.handle.wish_shutdown();
    client.answer().await.is(200, "draining: true").and_closes();
    assert_eq!(stream.take(15).await, b"5\r\nended\r\n0\r\n\r\n");
    stream.ends().await;
    soon("told", draining.wait()).await;
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn row_10_a_second_shutdown_joins_the_first_and_hooks_run_once() {
    let app = App::default();
    let (first, second) = (app.clone(), app.clone());
    let server = support::serve_this(app.clone(), app.clone().into_service(), |builder| {
        builder
            .on_shutdown(async move || first.note("hook 1"))
            .on_shutdown(async move || second.note("hook 2"))
    })
    .await;
    let _client = busy(&server, "a").await;
    let (one, two) = (server.handle.clone(), server.handle.clone());
    let one = tokio::spawn(async move { one.shutdown().await });
    soon("draining", server.handle.reached(Phase::Draining)).await;
    let two = tokio::spawn(async move { two.shutdown().await });
    app.noted("hook 1").await;
    app.open("a");
    let outcome = server.ended().await;
    let took = outcome.report().took;
    for joined in [one, two] {
        let joined = soon("joined", joined).await.unwrap().unwrap();
        assert!(joined.is_drained());
        assert_eq!(joined.report().took, took);
    }
    let hooks = app.notes();
    let hooks = hooks.iter().filter(|note| note.starts_with("hook"));
    assert_eq!(hooks.count(), 2);
}

#[tokio::test]
async fn row_11_hooks_are_awaited_and_a_panic_in_one_stops_nothing() {
    let app = App::default();
    let (slow, quick) = (app.clone(), app.clone());
    let mut server = support::serve_this(app.clone(), app.clone().into_service(), |builder| {
        builder
            .on_shutdown(async || panic!("a hook, on purpose"))
            .on_shutdown(async move || quick.note("quick"))
            .on_shutdown(async move || {
                slow.gate("hook").acquire_owned().await.unwrap().forget();
                slow.note("slow");
            })
    })
    .await;
    server.handle.wish_shutdown();
    app.noted("quick").await;
    assert!(
        not_within(ms(100), &mut server.running).await,
        "it did not wait"
    );
    server.until("one hook left", |now| now.hooks == 1).await;
    app.open("hook");
    let outcome = server.ended().await;
    assert!(outcome.is_drained());
    assert_eq!(outcome.report().hooks_panicked, 1);
    assert_eq!(outcome.report().hooks_unfinished, 0);
    assert!(app.notes().contains(&"slow".to_owned()));
}

#[tokio::test]
async fn row_11_hooks_are_awaited_up_to_the_deadline_only() {
    let server = serve_with(|builder| {
        builder
            .drain(until_deadline(ms(150)))
            .on_shutdown(async || std::future::pending().await)
    })
    .await;
    server.handle.wish_shutdown();
    let outcome = server.ended().await;
    assert!(matches!(outcome, Outcome::DeadlinePassed(_)), "{outcome:?}");
    assert_eq!(outcome.report().hooks_unfinished, 1);
}

#[tokio::test]
async fn row_12_close_drops_everything_at_once_and_runs_no_hooks() {
    let app = App::default();
    let hook = app.clone();
    let server = support::serve_this(app.clone(), app.clone().into_service(), |builder| {
        builder.on_shutdown(async move || hook.note("hook"))
    })
    .await;
    let mut clients = [
        server.client().await,
        idle(&server).await,
        busy(&server, "a").await,
    ];
    let expected = |now: &curtsy_server::Snapshot| {
        (now.counts.new, now.counts.idle, now.counts.active) == (1, 1, 1)
    };
    server.until("one of each", expected).await;
    let address = server.address;
    server.handle.close();
    let outcome = server.ended().await;
    assert!(matches!(outcome, Outcome::Closed(_)), "{outcome:?}");
    assert_eq!(outcome.report().stragglers.len(), 1);
    for client in &mut clients {
        client.is_cut().await;
    }
    app.noted("dropped /gate?a").await;
    assert!(!app.notes().contains(&"hook".to_owned()));
    assert!(refused(address).await);
}

#[tokio::test]
async fn row_12_close_during_a_drain_cuts_at_once() {
    let server = serve_with(|builder| builder.drain(lingering(ms(60_000)))).await;
    let (mut busy, mut idle) = (busy(&server, "a").await, idle(&server).await);
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    server.handle.close();
    let outcome = server.ended().await;
    assert!(matches!(outcome, Outcome::Closed(_)), "{outcome:?}");
    assert_eq!(outcome.report().stragglers[0].target, "/gate?a");
    busy.is_cut().await;
    idle.is_cut().await;
}
