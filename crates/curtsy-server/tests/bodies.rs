//! The contract's table of requests, their bodies: `Expect`, chunks, bodies too large, bodies that
//! nobody reads.

mod support;

use curtsy_server::Limits;
use support::{App, Client, Running, ms, not_within, request, serve, serve_this, serve_with};

fn post(target: &str, fields: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

fn chunked(target: &str, body: &str) -> String {
    post(target, "Transfer-Encoding: chunked", body)
}

#[tokio::test]
async fn expect_100_continue_is_answered_at_the_first_read() {
    let server = serve().await;
    let mut client = server.client().await;
    let fields = "Content-Length: 5\r\nExpect: 100-continue";
    client.send(post("/first?go", fields, "")).await;
    server.app.noted("waits before the body").await;
    assert!(
        not_within(ms(100), client.read_some()).await,
        "something came before the handler read"
    );
    server.app.open("go");
    let interim = client.answer().await;
    assert_eq!(interim.status, 100, "{interim:?}");
    client.send("hello").await;
    client.answer().await.is(200, "read 5").and_keeps_alive();
    client.get("/next").await.is(200, "hello from /next");
    server.drain().await;
}

#[tokio::test]
async fn expect_100_continue_with_the_body_already_there() {
    let server = serve().await;
    let mut client = server.client().await;
    client
        .send(post(
            "/read",
            "Content-Length: 5\r\nExpect: 100-Continue",
            "hello",
        ))
        .await;
    let mut answer = client.answer().await;
    if answer.status == 100 {
        answer = client.answer().await;
    }
    answer.is(200, "read 5");
    // Without a body there is nothing to wait for.
    client
        .send("GET /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
        .await;
    client.answer().await.is(200, "hello from /none");
    client.get("/next").await.is(200, "hello from /next");
    server.drain().await;
}

#[tokio::test]
async fn expect_100_continue_and_the_body_left_unread_closes() {
    let server = serve().await;
    let mut client = server.client().await;
    let fields = "Content-Length: 5\r\nExpect: 100-continue";
    client.send(post("/refuse-body", fields, "")).await;
    client.answer().await.is(403, "no").and_closes();
    client.ends().await;
    server.serves_others().await;
    server.drain().await;
}

#[tokio::test]
async fn expect_other_than_100_continue_is_417() {
    let server = serve().await;
    let values = ["200-ok", "100-continue, more", "", "the moon"];
    let posts = values.map(|expect| {
        let fields = format!("Content-Length: 5\r\nExpect: {expect}");
        (expect, post("/smuggled", &fields, "hello"))
    });
    server.refuses(417, posts).await;
    let gets = values.map(|expect| {
        let get = format!("GET /smuggled HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\n\r\n");
        (expect, get)
    });
    server.refuses(417, gets).await;
    assert!(!server.app.targets().contains(&"/smuggled".to_owned()));
    server.drain().await;
}

#[tokio::test]
async fn bad_chunk_sizes_are_400_and_close() {
    let server = serve().await;
    let after = request("GET", "/smuggled");
    let bodies = [
        ("a letter", "x\r\nhello\r\n0\r\n\r\n"),
        ("minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("nothing", "\r\nhello\r\n0\r\n\r\n"),
        ("two words", "5 5\r\nhello\r\n0\r\n\r\n"),
        ("over 2^64", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("too long", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("too short", "5\r\nhell\r\n0\r\n\r\n"),
        ("second one bad", "5\r\nhello\r\n;\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("bare LF after the last size", "5\r\nhello\r\n0\n\r\n"),
        ("bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("bare CR after the size", "5\rhello\r\n0\r\n\r\n"),
        ("bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ];
    let posts = bodies.map(|(name, body)| (name, chunked("/read", &format!("{body}{after}"))));
    server.refuses(400, posts).await;
    let targets = server.app.targets();
    assert!(!targets.contains(&"/smuggled".to_owned()), "{targets:?}");
    server.drain().await;
}

#[tokio::test]
async fn chunks_that_are_unusual_but_right_are_read() {
    let server = serve().await;
    let mut client = server.client().await;
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n00\r\n\r\n",
        "5;name=value\r\nhello\r\n0;last\r\n\r\n",
        "5;name=\"quoted\"\r\nhello\r\n0\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n",
    ] {
        client.send(chunked("/echo", body)).await;
        client.answer().await.is(200, "hello").and_keeps_alive();
    }
    server.drain().await;
}

#[tokio::test]
async fn trailers_are_read_and_the_connection_goes_on() {
    let server = serve().await;
    let body = "5\r\nhello\r\n0\r\nX-Trailer: yes\r\nY: z\r\n\r\n";
    for (target, status, text) in [("/echo", 200, "hello"), ("/refuse-body", 403, "no")] {
        let mut client = server.client().await;
        client
            .send(format!(
                "{}{}",
                chunked(target, body),
                request("GET", "/after")
            ))
            .await;
        client.answer().await.is(status, text).and_keeps_alive();
        client.answer().await.is(200, "hello from /after");
    }
    server.drain().await;
}

#[tokio::test]
async fn a_bare_line_feed_in_a_trailer_is_400_and_hides_no_request() {
    let server = serve().await;
    let after = request("GET", "/smuggled");
    for trailers in [
        "X: y\n\r\n",
        "X: y\n\n",
        "\n",
        "X: y\r\n\n",
        "X: y\nZ: z\r\n\r\n",
    ] {
        for target in ["/echo", "/read", "/refuse-body"] {
            let whole = chunked(target, &format!("5\r\nhello\r\n0\r\n{trailers}{after}"));
            for cut in [0, whole.len() - after.len() - 1] {
                let mut client = server.client().await;
                client.send(&whole[..cut]).await;
                client.send(&whole[cut..]).await;
                let answer = client.answer().await;
                // The one that answers without a look at the body may do so before it is there.
                let unread = target == "/refuse-body" && answer.status == 403;
                assert!(unread || answer.status == 400, "{trailers:?} {answer:?}");
                client.ends().await;
            }
        }
    }
    let targets = server.app.targets();
    assert!(!targets.contains(&"/smuggled".to_owned()), "{targets:?}");
    server.drain().await;
}

#[tokio::test]
async fn chunk_extensions_and_trailers_beyond_the_limit_are_400() {
    let server = serve().await;
    let long = "e".repeat(100 << 10);
    let many_extensions = format!("1;{}\r\nx\r\n", &long[..1000]).repeat(60);
    let bodies = [
        ("an extension", format!("5;{long}\r\nhello\r\n0\r\n\r\n")),
        ("extensions", format!("{many_extensions}0\r\n\r\n")),
        ("a trailer", format!("1\r\nx\r\n0\r\nX: {long}\r\n\r\n")),
        (
            "trailers",
            format!("1\r\nx\r\n0\r\n{}\r\n", "X: y\r\n".repeat(5_000)),
        ),
    ];
    let posts = bodies.map(|(name, body)| (name, chunked("/read", &body)));
    server.refuses(400, posts).await;
    server.drain().await;
}

async fn limited(bytes: u64) -> Running {
    let limits = Limits {
        request_body_bytes: Some(bytes),
        ..Limits::default()
    };
    serve_with(|builder| builder.limits(limits)).await
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = limited(1_000).await;
    let body = |length| "b".repeat(length);
    let posts = [1_001, 5_000].map(|length| {
        let fields = format!("Content-Length: {length}");
        (fields.clone(), post("/read", &fields, &body(length)))
    });
    server.refuses(413, posts).await;
    // The service never saw them.
    assert!(server.app.targets().iter().all(|target| target == "/other"));
    let two = format!("258\r\n{}\r\n258\r\n{}\r\n0\r\n\r\n", body(600), body(600));
    server
        .refuses(413, [("chunks", chunked("/read", &two))])
        .await;
    server.app.noted("too large after 600").await;

    let mut client = server.client().await;
    client
        .send(post("/read", "Content-Length: 1000", &body(1_000)))
        .await;
    client.answer().await.is(200, "read 1000").and_keeps_alive();
    client
        .send(chunked(
            "/read",
            &format!("3e8\r\n{}\r\n0\r\n\r\n", body(1_000)),
        ))
        .await;
    client.answer().await.is(200, "read 1000").and_keeps_alive();
    server.drain().await;
}

#[tokio::test]
async fn a_small_unread_body_keeps_the_connection_alive() {
    let server = serve().await;
    let mut client = server.client().await;
    for length in [1, 1_000, 100_000, 256 << 10] {
        let body = "u".repeat(length);
        let sized = post("/refuse-body", &format!("Content-Length: {length}"), &body);
        let chunks = chunked(
            "/refuse-body",
            &format!("{length:x}\r\n{body}\r\n0\r\n\r\n"),
        );
        for bytes in [sized, chunks] {
            client.send(bytes).await;
            client.answer().await.is(403, "no").and_keeps_alive();
            // The answer is there before the rest of the body is; chunks that follow in one read
            // are served, but nothing after them.
            server.until("idle", |now| now.counts.idle == 1).await;
        }
    }
    // It may come after the answer, in pieces.
    let half = post("/refuse-body", "Content-Length: 10", "12345");
    client.send(half).await;
    client.answer().await.is(403, "no").and_keeps_alive();
    client.send("67890").await;
    client.get("/next").await.is(200, "hello from /next");
    server.drain().await;
}

#[tokio::test]
async fn a_large_unread_body_closes_and_does_not_reset_the_answer() {
    let limits = Limits {
        close_linger: support::PATIENCE,
        ..Limits::default()
    };
    let server = serve_with(|builder| builder.limits(limits)).await;
    let piece = "u".repeat(1 << 20);
    for fields in ["Content-Length: 10485760", "Content-Length: 262145"] {
        let mut client = server.client().await;
        client.send(post("/refuse-body", fields, "some")).await;
        client.answer().await.is(403, "no").and_closes();
        client.ends().await;
    }
    // Under way: more of it arrives while and after the answer goes out.
    let mut client = server.client().await;
    client
        .send(post("/refuse-body", "Content-Length: 10485760", ""))
        .await;
    client.send(&piece[..300_000]).await;
    client.answer().await.is(403, "no").and_closes();
    tokio::time::sleep(ms(50)).await;
    client.send(&piece).await;
    client.ends().await;
    drop(client);
    // Chunked, so that only reading tells: the answer says nothing, the connection ends.
    let mut client = server.client().await;
    client
        .send(chunked(
            "/refuse-body",
            &format!("100000\r\n{piece}\r\n100000\r\n"),
        ))
        .await;
    client.answer().await.is(403, "no");
    client.ends().await;
    drop(client);
    server.serves_others().await;
    server.drain().await;
}

#[tokio::test]
async fn a_broken_unread_body_ends_the_connection() {
    let server = serve().await;
    let mut client = server.client().await;
    let after = request("GET", "/smuggled");
    client
        .send(chunked(
            "/refuse-body",
            &format!("zzz\r\nhello\r\n0\r\n\r\n{after}"),
        ))
        .await;
    let answer = client.answer().await;
    assert!(matches!(answer.status, 400 | 403), "{answer:?}");
    client.ends().await;
    assert!(!server.app.targets().contains(&"/smuggled".to_owned()));
    server.drain().await;
}

#[tokio::test]
async fn bodies_may_come_byte_by_byte() {
    let server = serve().await;
    let mut client = server.client().await;
    let whole = chunked("/echo", "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n");
    byte_by_byte(&mut client, &whole).await;
    client
        .answer()
        .await
        .is(200, "hello world")
        .and_keeps_alive();
    byte_by_byte(&mut client, &post("/echo", "Content-Length: 3", "abc")).await;
    client.answer().await.is(200, "abc").and_keeps_alive();
    server.drain().await;
}

async fn byte_by_byte(client: &mut Client, bytes: &str) {
    for byte in bytes.as_bytes() {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_route_that_takes_less_than_the_server_answers_413() {
    use http::{Request, Response};
    use http_body_util::BodyExt;
    let echo = hyper::service::service_fn(async |request: Request<curtsy_server::Body>| {
        let is_small = request.uri().path() == "/small";
        let limit = if is_small { 5 } else { 100 };
        let read = request.into_body().limit(limit).collect().await;
        let text = read.map_or_else(
            |error| error.to_string(),
            |body| format!("{}", body.to_bytes().len()),
        );
        Ok::<_, std::convert::Infallible>(Response::new(text))
    });
    let server = serve_this(App::default(), echo, |builder| {
        builder.limits(Limits {
            request_body_bytes: Some(10),
            ..Limits::default()
        })
    })
    .await;
    let six = [
        "Content-Length: 6\r\n\r\n123456",
        "Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n3\r\n456\r\n0\r\n\r\n",
    ];
    for six in six {
        let request = |path| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{six}");
        let mut client = server.client().await;
        client.send(request("/large")).await;
        client.answer().await.is(200, "6").and_keeps_alive();
        client.send(request("/small")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 413, "{answer:?}");
        assert!(answer.closes());
    }
    // Told before any of it is sent.
    let mut client = server.client().await;
    client.send(post("/small", "Content-Length: 6", "")).await;
    assert_eq!(client.answer().await.status, 413);
    // A route cannot take more than the server.
    let mut client = server.client().await;
    client.send(post("/large", "Content-Length: 11", "")).await;
    assert_eq!(client.answer().await.status, 413);
    server.drain().await;
}
