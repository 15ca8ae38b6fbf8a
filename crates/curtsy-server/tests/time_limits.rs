//! The contract's time limits, small and waited for.

mod support;

use curtsy_server::Limits;
use std::time::{Duration, Instant};
use support::{Client, Running, ms, not_within, request, serve_with};

/// How coarse the server's clock is, and then some.
const COARSE: Duration = ms(20);

async fn limited(limits: Limits) -> Running {
    serve_with(|builder| builder.limits(limits)).await
}

/// What happens next does not happen before `limit`.
fn not_before(limit: Duration, begun: Instant) {
    let took = begun.elapsed();
    assert!(took + COARSE >= limit, "after {took:?} already");
}

const HEADER: Duration = ms(200);

async fn with_header_timeout(park_after: Duration) -> Running {
    limited(Limits {
        header_timeout: HEADER,
        park_after,
        ..Limits::default()
    })
    .await
}

#[tokio::test]
async fn header_timeout_silence_or_half_a_request_line_is_a_bare_close() {
    for park_after in [ms(5), ms(100)] {
        let server = with_header_timeout(park_after).await;
        for sent in ["", "G", "GET / HTTP/1.1", "GET / HTTP/1.1\r"] {
            let begun = Instant::now();
            let mut client = server.client().await;
            client.send(sent).await;
            client.ends().await;
            not_before(HEADER, begun);
        }
        server.serves_others().await;
        server.drain().await;
    }
}

#[tokio::test]
async fn header_timeout_slow_header_lines_are_408() {
    let server = with_header_timeout(ms(5)).await;
    for sent in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: half a li",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n",
    ] {
        let begun = Instant::now();
        let mut client = server.client().await;
        client.send(sent).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 408, "{answer:?}");
        assert!(answer.closes() && !answer.body.is_empty() && answer.header("date").is_some());
        client.ends().await;
        not_before(HEADER, begun);
    }
    server.serves_others().await;
    assert!(server.app.targets().iter().all(|target| target == "/other"));
    server.drain().await;
}

#[tokio::test]
async fn header_timeout_of_half_a_head_behind_a_request_counts_from_its_turn() {
    let server = with_header_timeout(ms(5)).await;
    let mut client = server.client().await;
    let first = request("GET", "/gate?a");
    client.send(format!("{first}GET /second HT")).await;
    server.app.noted("in /gate?a").await;
    // Longer than the half could have waited by itself.
    assert!(not_within(2 * HEADER, client.read_some()).await);
    server.app.open("a");
    assert_eq!(client.answer().await.status, 200);
    client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    server.drain().await;
}

#[tokio::test]
async fn header_timeout_counts_from_the_accept_for_the_first_request() {
    let server = with_header_timeout(ms(5)).await;
    let begun = Instant::now();
    let mut client = server.client().await;
    // Silent for most of it; then only the rest is left.
    tokio::time::sleep(ms(150)).await;
    client.send("GET / HTTP/1.1\r\n").await;
    let answered = client.answer().await;
    assert_eq!(answered.status, 408);
    not_before(HEADER, begun);
    server.drain().await;
}

#[tokio::test]
async fn header_timeout_counts_from_the_first_byte_for_later_requests() {
    for park_after in [ms(5), ms(10_000)] {
        let server = with_header_timeout(park_after).await;
        let mut client = server.client().await;
        for _ in 0..2 {
            client.get("/one").await.is(200, "hello from /one");
            // Rests longer than the limit, and is welcome.
            assert!(not_within(HEADER * 2, client.read_some()).await);
        }
        let begun = Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        assert_eq!(client.answer().await.status, 408);
        client.ends().await;
        not_before(HEADER, begun);

        let mut client = server.client().await;
        client.get("/one").await.is(200, "hello from /one");
        client.send("GET / HT").await;
        client.ends().await;
        server.drain().await;
    }
}

#[tokio::test]
async fn header_timeout_is_not_put_off_by_single_bytes() {
    let server = with_header_timeout(ms(5)).await;
    let mut client = server.client().await;
    let begun = Instant::now();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "y".repeat(500)
    );
    drip(&mut client, &head, ms(10)).await;
    assert_eq!(client.answer().await.status, 408);
    not_before(HEADER, begun);
    assert!(begun.elapsed() < ms(5_000), "as long as its client liked");
    server.drain().await;
}

/// Byte after byte until the server has had enough.
async fn drip(client: &mut Client, bytes: &str, pause: Duration) {
    for byte in bytes.as_bytes() {
        if client.try_send([*byte]).await.is_err() {
            return;
        }
        if !not_within(pause, client.read_some()).await {
            return;
        }
    }
    panic!("all of it was taken");
}

fn post(target: &str, length: usize, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn read_timeout_fails_the_body_and_the_handler_may_still_answer() {
    let server = limited(Limits {
        read_timeout: Some(ms(250)),
        ..Limits::default()
    })
    .await;
    let mut client = server.client().await;
    let begun = Instant::now();
    client.send(post("/read", 1_000, "")).await;
    drip(&mut client, &"z".repeat(1_000), ms(10)).await;
    let answer = client.answer().await;
    assert!(answer.text().starts_with("timeout after "), "{answer:?}");
    answer.and_closes();
    not_before(ms(250), begun);
    // A request that is over in time is not touched, nor is a slow handler.
    let mut client = server.client().await;
    client.send(post("/read", 5, "hello")).await;
    client.answer().await.is(200, "read 5").and_keeps_alive();
    client
        .get("/slow?ms=400")
        .await
        .is(200, "slept 400")
        .and_keeps_alive();
    server.drain().await;
}

#[tokio::test]
async fn body_stall_is_seen_by_the_handler_which_may_answer_then_close() {
    let stall = ms(200);
    let server = limited(Limits {
        body_stall: stall,
        ..Limits::default()
    })
    .await;
    let begun = Instant::now();
    let mut client = server.client().await;
    client.send(post("/read", 10, "hello")).await;
    client
        .answer()
        .await
        .is(200, "timeout after 5")
        .and_closes();
    client.ends().await;
    not_before(stall, begun);
    // A chunk that never ends.
    let mut client = server.client().await;
    let head = "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nhel")).await;
    client
        .answer()
        .await
        .is(200, "timeout after 3")
        .and_closes();
    client.ends().await;
    server.serves_others().await;

    // An upload may take much longer than that, as long as it moves.
    let mut client = server.client().await;
    let begun = Instant::now();
    client.send(post("/read", 10, "")).await;
    for _ in 0..10 {
        assert!(
            not_within(ms(40), client.read_some()).await,
            "cut off early"
        );
        client.send("z").await;
    }
    client.answer().await.is(200, "read 10").and_keeps_alive();
    assert!(begun.elapsed() > stall);
    // Nor does it matter while the handler does not ask for more.
    client.send(post("/first?go", 5, "")).await;
    assert!(
        not_within(stall * 2, client.read_some()).await,
        "nobody waited for it"
    );
    client.send("hello").await;
    server.app.open("go");
    client.answer().await.is(200, "read 5").and_keeps_alive();
    server.drain().await;
}

#[tokio::test]
async fn body_stall_ends_a_connection_whose_body_nobody_wants() {
    let server = limited(Limits {
        body_stall: ms(200),
        ..Limits::default()
    })
    .await;
    let mut client = server.client().await;
    client.send(post("/refuse-body", 10, "hello")).await;
    client.answer().await.is(403, "no");
    client.is_cut().await;
    server.until("gone", |now| now.counts.total() == 0).await;
    server.drain().await;
}

#[tokio::test]
async fn write_stall_cuts_a_client_that_takes_nothing() {
    let stall = ms(300);
    let server = limited(Limits {
        write_stall: stall,
        ..Limits::default()
    })
    .await;
    let begun = Instant::now();
    let mut client = server.client().await;
    client.send(request("GET", "/big?bytes=100000000")).await;
    server.until("stalled", |now| now.counts.active == 1).await;
    server.until("cut", |now| now.counts.total() == 0).await;
    not_before(stall, begun);
    server.serves_others().await;

    // A slow reader is not one that takes nothing.
    let mut slow = server.client().await;
    slow.send(request("GET", "/big?bytes=100000000")).await;
    let begun = Instant::now();
    while begun.elapsed() < stall * 4 {
        slow.take(1 << 20).await;
        tokio::time::sleep(ms(20)).await;
    }
    assert_eq!(server.handle.snapshot().counts.active, 1);
    drop((client, slow));
    server.until("gone", |now| now.counts.total() == 0).await;
    server.drain().await;
}

#[tokio::test]
async fn write_timeout_cuts_a_late_answer() {
    let limit = ms(250);
    let server = limited(Limits {
        write_timeout: Some(limit),
        ..Limits::default()
    })
    .await;
    let begun = Instant::now();
    let mut client = server.client().await;
    client.send(request("GET", "/gate?never")).await;
    client.is_cut().await;
    not_before(limit, begun);
    server.app.noted("dropped /gate?never").await;
    // Half of it is out: the client can tell that it is not whole.
    let mut client = server.client().await;
    client.send(request("GET", "/stream?never")).await;
    client.head().await;
    assert_eq!(client.take(11).await, b"6\r\nbegun \r\n");
    client.is_cut().await;
    let mut client = server.client().await;
    client
        .get("/slow?ms=50")
        .await
        .is(200, "slept 50")
        .and_keeps_alive();
    server.drain().await;
}

#[tokio::test]
async fn idle_timeout_is_a_silent_close_parked_or_not() {
    let limit = ms(250);
    for park_after in [ms(5), ms(200)] {
        let server = limited(Limits {
            idle_timeout: limit,
            park_after,
            ..Limits::default()
        })
        .await;
        let mut client = server.client().await;
        client.get("/one").await.is(200, "hello from /one");
        assert!(not_within(ms(100), client.read_some()).await);
        client
            .get("/two")
            .await
            .is(200, "hello from /two")
            .and_keeps_alive();
        let begun = Instant::now();
        server.until("parked", |now| now.counts.parked == 1).await;
        client.ends().await;
        not_before(limit, begun);
        server.until("gone", |now| now.counts.total() == 0).await;
        server.drain().await;
    }
}

#[tokio::test]
async fn idle_timeout_holds_for_connections_too_fresh_to_be_parked() {
    let server = limited(Limits {
        idle_timeout: ms(200),
        header_timeout: ms(200),
        park_after: Duration::from_secs(3_600),
        ..Limits::default()
    })
    .await;
    let mut silent = server.client().await;
    let mut client = server.client().await;
    client.get("/one").await.is(200, "hello from /one");
    client.ends().await;
    silent.ends().await;
    server.drain().await;
}
