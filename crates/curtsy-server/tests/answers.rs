//! What the server sees to in answers: bodies that must not be there, `Date`, failures and panics
//! of the service, `OPTIONS *`.

mod support;

use std::time::{Duration, Instant};
use support::{ms, request, serve, serve_with};

#[tokio::test]
async fn head_204_and_304_carry_no_body() {
    let server = serve().await;
    let mut client = server.client().await;
    for _ in 0..2 {
        client.send(request("HEAD", "/big?bytes=1000")).await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!(answer.header("content-length"), Some("1000"), "{answer:?}");
        for status in [204, 304] {
            let answer = client.get(&format!("/{status}")).await;
            assert_eq!(answer.status, status);
            assert!(answer.header("date").is_some(), "{answer:?}");
        }
        // If a body had been there, this would not be the next answer.
        client.get("/next").await.is(200, "hello from /next");
    }
    // Refusals of HEAD have none either, or the connection could not be read on; it closes.
    client
        .send("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n")
        .await;
    let answer = client.answer_to("HEAD").await;
    assert_eq!(answer.status, 417);
    client.ends().await;
    server.drain().await;
}

#[tokio::test]
async fn date_is_always_there() {
    let server = serve().await;
    let mut client = server.client().await;
    for target in ["/", "/big?bytes=100000", "/204", "/304", "/error"] {
        let mut one = server.client().await;
        let answer = one.get(target).await;
        let date = answer.header("date").unwrap().to_owned();
        assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    }
    client.send("nonsense\r\n\r\n").await;
    assert!(client.answer().await.header("date").is_some());
    server.drain().await;
}

#[tokio::test]
async fn options_star_is_answered_by_the_server() {
    let server = serve().await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.send(request("OPTIONS", "*")).await;
        let answer = client.answer().await;
        answer.is(200, "").and_keeps_alive();
        assert_eq!(answer.header("content-length"), Some("0"));
        assert!(answer.header("date").is_some());
    }
    assert!(server.app.seen().is_empty());
    client.send(request("OPTIONS", "/here")).await;
    client.answer().await.is(200, "hello from /here");
    server.drain().await;

    let server = serve_with(|builder| builder.service_answers_options_star(true)).await;
    let mut client = server.client().await;
    client.send(request("OPTIONS", "*")).await;
    client.answer().await.is(200, "the service's options");
    server.drain().await;
}

#[tokio::test]
async fn a_panic_before_the_first_byte_is_500() {
    let server = serve().await;
    for fields in ["", "Content-Length: 3\r\n"] {
        let mut client = server.client().await;
        let body = if fields.is_empty() { "" } else { "abc" };
        client
            .send(format!(
                "POST /panic HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"
            ))
            .await;
        client
            .answer()
            .await
            .is(500, "internal server error\n")
            .and_closes();
        client.ends().await;
        server.serves_others().await;
    }
    server.drain().await;
}

#[tokio::test]
async fn a_panic_after_the_first_byte_cuts_the_connection() {
    let server = serve().await;
    let mut client = server.client().await;
    client.send(request("GET", "/panic-late?now")).await;
    let head = client.head().await;
    assert_eq!(
        (head.status, head.header("transfer-encoding")),
        (200, Some("chunked"))
    );
    assert_eq!(client.take(15).await, b"A\r\nsome of it\r\n");
    server.app.open("now");
    client.is_cut().await;
    server.serves_others().await;
    server.drain().await;
}

#[tokio::test]
async fn an_error_of_the_service_is_500() {
    let server = serve().await;
    let mut client = server.client().await;
    client.send(request("GET", "/error")).await;
    client
        .answer()
        .await
        .is(500, "internal server error\n")
        .and_closes();
    client.ends().await;
    server.serves_others().await;
    server.drain().await;
}

#[tokio::test]
async fn http_1_0_closes_unless_asked_to_stay() {
    let server = serve().await;
    let mut client = server.client().await;
    client
        .send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    client.answer().await.is(200, "hello from /old");
    client.send("GET /old HTTP/1.0\r\n\r\n").await;
    client.answer().await.is(200, "hello from /old");
    client.ends().await;

    let mut client = server.client().await;
    client
        .send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    client
        .answer()
        .await
        .is(200, "hello from /last")
        .and_closes();
    client.ends().await;
    server.drain().await;
}

/// The kernel holds a last answer back until the connection ends, for a fifth of a second at most: the end has to follow,
/// whatever else the client has sent, and no other answer is held back.
#[tokio::test]
async fn the_last_answer_waits_for_nothing() {
    const FIRST: &str = "GET /before HTTP/1.1\r\nHost: a\r\n\r\n";
    const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let server = serve().await;
    for (first, behind) in [("", ""), ("", "GET /no"), (FIRST, ""), (FIRST, FIRST)] {
        let mut fastest = Duration::MAX;
        // The machine may be busy; it is not, each time.
        for _ in 0..5 {
            let mut client = server.client().await;
            let asked = Instant::now();
            if !first.is_empty() {
                client.send(first).await;
                client.answer().await.is(200, "hello from /before");
            }
            client.send(format!("{LAST}{behind}")).await;
            let answer = client.answer().await;
            answer.is(200, "hello from /last").and_closes();
            fastest = fastest.min(asked.elapsed());
        }
        assert!(fastest < ms(100), "{first:?} {behind:?} {fastest:?}");
    }
    server.drain().await;
}

/// Bytes that come while the connection is being closed reset it; the answer is with the client before.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_comes_late_does_not_take_the_last_answer_along() {
    use std::io::{Read as _, Write as _};
    const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let server = serve().await;
    let address = server.address;
    let clients = tokio::task::spawn_blocking(move || {
        for index in 0..3_000_u32 {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(LAST).unwrap();
            let asked = Instant::now();
            // Somewhere between the request's arrival and the close.
            while asked.elapsed() < Duration::from_micros(u64::from(index % 300)) {
                std::hint::spin_loop();
            }
            let _ = client.write_all(b"\r\n");
            let mut answer = Vec::new();
            // It may end with a reset.
            let _ = client.read_to_end(&mut answer);
            assert!(answer.ends_with(b"hello from /last"), "{index}: {answer:?}");
        }
    });
    clients.await.unwrap();
    server.drain().await;
}

/// The first large answer of a connection is copied together, those after it are not: neither they
/// nor the small ones between them may differ from it by a byte.
#[tokio::test]
async fn large_and_small_answers_follow_each_other_byte_for_byte() {
    let server = serve().await;
    let mut client = server.client().await;
    // A number every four bytes: whatever is lost, doubled or moved is seen.
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let echo = |length: usize| {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), &body[..length]].concat()
    };
    for round in 0..4 {
        for length in [300_000, 5, 20_000, 0, 70_000] {
            client.send(echo(length)).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 200, "round {round}");
            assert!(answer.body == body[..length], "round {round}, {length}");
        }
        // At once, with half of another behind them.
        let behind = request("GET", "/behind");
        let (half, rest) = behind.as_bytes().split_at(9);
        let all = [echo(30_000), echo(3), echo(40_000), half.to_vec()].concat();
        client.send(all).await;
        for length in [30_000, 3, 40_000] {
            assert!(client.answer().await.body == body[..length], "{length}");
        }
        client.send(rest).await;
        client.answer().await.is(200, "hello from /behind");
        client.send(request("HEAD", "/big?bytes=50000")).await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!(answer.header("content-length"), Some("50000"));
    }
    // What hyper has to say of it is not sent there, either.
    client.send("nonsense\r\n\r\n").await;
    client.answer().await.is(400, "malformed request\n");
    client.ends().await;
    server.drain().await;
}
