//! The contract's table of requests, its heads: what is answered with what, and what becomes of
//! the connection. After every refusal another client is served as usual.

mod support;

use curtsy_server::Limits;
use support::{Running, request, serve, serve_with};

/// Sends `bytes` and expects an answer of the service, after which the connection goes on.
async fn served(server: &Running, name: &str, bytes: impl AsRef<[u8]>, body: &str) {
    let mut client = server.client().await;
    client.send(bytes).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, body),
        "{name}: {answer:?}"
    );
    client.get("/again").await.is(200, "hello from /again");
}

#[tokio::test]
async fn malformed_request_line_or_header_is_400() {
    let server = serve().await;
    let heads = [
        ("no target", &b"GET\r\nHost: a\r\n\r\n"[..]),
        ("no version", b"GET /\r\nHost: a\r\n\r\n"),
        (
            "two spaces before the target",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "two spaces before the version",
            b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("space at the end", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (
            "space at the beginning",
            b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("a fourth word", b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a version of letters", b"GET / HTTP/x.y\r\nHost: a\r\n\r\n"),
        (
            "a version in small letters",
            b"GET / http/1.1\r\nHost: a\r\n\r\n",
        ),
        ("another protocol", b"GET / FTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "a method that is no token",
            b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("a tab for a space", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bare CR after the line", b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
        (
            "space before the colon",
            b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        ),
        (
            "tab before the colon",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n",
        ),
        ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
        (
            "space in the name",
            b"GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
        ),
        (
            "bare CR in a value",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        ),
        (
            "NUL in a value",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n",
        ),
        (
            "NUL in a name",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
        ),
        (
            "a folded line",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        ),
        (
            "a folded first line",
            b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
        ),
    ];
    server.refuses(400, heads).await;
    assert!(server.app.targets().iter().all(|target| target == "/other"));
    server.drain().await;
}

#[tokio::test]
async fn missing_repeated_or_invalid_host_is_400() {
    let server = serve().await;
    let fields = [
        ("missing", ""),
        ("twice", "Host: a\r\nHost: b\r\n"),
        ("twice the same", "Host: a\r\nhost: a\r\n"),
        ("two words", "Host: a b\r\n"),
        ("a path", "Host: a/b\r\n"),
        ("a user", "Host: me@a\r\n"),
        ("a fragment", "Host: a#b\r\n"),
        ("a query", "Host: a?b\r\n"),
        ("beyond ASCII", "Host: b\u{fc}cher\r\n"),
        ("a backslash", "Host: a\\b\r\n"),
    ];
    let heads = fields.map(|(name, fields)| (name, format!("GET / HTTP/1.1\r\n{fields}\r\n")));
    server.refuses(400, heads).await;
    for (name, head) in [
        ("empty", "GET /h HTTP/1.1\r\nHost:\r\n\r\n"),
        ("IPv6", "GET /h HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
        (
            "a name and a port",
            "GET /h HTTP/1.1\r\nHost: example.org:8080\r\n\r\n",
        ),
        (
            "absolute form",
            "GET http://a/h HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ] {
        let mut client = server.client().await;
        client.send(head).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    // HTTP/1.0 had none.
    let mut client = server.client().await;
    client.send("GET /old HTTP/1.0\r\n\r\n").await;
    client.answer().await.is(200, "hello from /old");
    client.ends().await;
    server.drain().await;
}

#[tokio::test]
async fn versions_other_than_1_0_and_1_1_are_505() {
    let server = serve().await;
    let versions = ["0.9", "1.2", "1.9", "2.0", "3.0", "2", "3", "0.0"];
    let head = |version| format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
    let heads = versions.map(|version| (version, head(version)));
    server.refuses(505, heads).await;
    server.drain().await;
}

#[tokio::test]
async fn transfer_encoding_other_than_one_chunked_is_501() {
    let server = serve().await;
    let values = [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        "",
    ];
    let head = |value| {
        format!("POST /smuggled HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n")
    };
    let heads = values.map(|value| (value, head(value)));
    server.refuses(501, heads).await;
    for value in ["chunked", "Chunked", "CHUNKED", " chunked\t"] {
        let head = format!(
            "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{value}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        served(&server, value, head, "read 3").await;
    }
    assert!(!server.app.targets().contains(&"/smuggled".to_owned()));
    server.drain().await;
}

#[tokio::test]
async fn several_transfer_encoding_lines_are_400() {
    let server = serve().await;
    let fields = [
        (
            "twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        (
            "gzip first",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        ),
        (
            "gzip last",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        ),
        (
            "identity last",
            "transfer-encoding: chunked\r\nX: y\r\ntransfer-encoding: identity",
        ),
    ];
    let head = |fields| format!("POST /smuggled HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
    let heads = fields.map(|(name, fields)| (name, head(fields)));
    server.refuses(400, heads).await;
    assert!(!server.app.targets().contains(&"/smuggled".to_owned()));
    server.drain().await;
}

#[tokio::test]
async fn transfer_encoding_with_content_length_is_400_and_closes() {
    let server = serve().await;
    let te = "Transfer-Encoding: chunked";
    let fields = [
        ("TE.CL", format!("{te}\r\nContent-Length: 5")),
        ("CL.TE", format!("Content-Length: 5\r\n{te}")),
        (
            "apart",
            "content-length: 5\r\nX: y\r\ntransfer-encoding: CHUNKED".to_owned(),
        ),
        ("zero", format!("Content-Length: 0\r\n{te}")),
        ("no number", format!("{te}\r\nContent-Length: x")),
        ("empty", format!("{te}\r\nContent-Length:")),
        (
            "thrice",
            format!("Content-Length: 5\r\n{te}\r\nContent-Length: 6"),
        ),
    ];
    let next = request("GET", "/smuggled");
    let head =
        |fields| format!("POST /smuggled HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n{next}");
    let heads = fields.map(|(name, fields)| (name, head(fields)));
    server.refuses(400, heads).await;
    // In HTTP/1.0 there is no such field: whoever sends it may mean anything.
    let head = |fields: &str| {
        format!("POST /smuggled HTTP/1.0\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n{next}")
    };
    let both = format!("{te}\r\nContent-Length: 5");
    server.refuses(400, [("1.0, both", head(&both))]).await;
    server.refuses(501, [("1.0", head(te))]).await;
    assert!(!server.app.targets().contains(&"/smuggled".to_owned()));
    // Names that only begin like those two frame nothing.
    let fields = "Content-Length-Hint: 3\r\nTransfer-Encodings: many\r\nTransfer-Encoding: chunked";
    let head = format!("POST /read HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    served(&server, "lookalikes", head, "read 3").await;
    server.drain().await;
}

#[tokio::test]
async fn content_length_that_is_no_length_is_400_and_closes() {
    let server = serve().await;
    let fields = [
        ("two differing", "Content-Length: 5\r\nContent-Length: 6"),
        ("one in doubt", "Content-Length: 5\r\nContent-Length: x"),
        ("plus", "Content-Length: +5"),
        ("minus", "Content-Length: -1"),
        ("a list", "Content-Length: 5,5"),
        ("a differing list", "Content-Length: 5, 6"),
        ("hex", "Content-Length: 0x5"),
        ("letters", "Content-Length: five"),
        ("empty", "Content-Length:"),
        ("a fraction", "Content-Length: 5.0"),
        ("two words", "Content-Length: 5 5"),
        ("over 2^63", "Content-Length: 9223372036854775809"),
        ("2^64 - 2", "Content-Length: 18446744073709551614"),
        ("2^64 - 1", "Content-Length: 18446744073709551615"),
        ("2^64", "Content-Length: 18446744073709551616"),
        ("over 2^64", "Content-Length: 99999999999999999999999999"),
    ];
    let head = |fields| format!("POST /smuggled HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nhello");
    let heads = fields.map(|(name, fields)| (name, head(fields)));
    server.refuses(400, heads).await;
    assert!(!server.app.targets().contains(&"/smuggled".to_owned()));
    for (name, fields) in [
        ("one", "Content-Length: 5"),
        ("leading zeros", "Content-Length: 00005"),
        ("two that agree", "Content-Length: 5\r\nContent-Length: 5"),
    ] {
        let head = format!("POST /read HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nhello");
        served(&server, name, head, "read 5").await;
    }
    server.drain().await;
}

/// A head of exactly so many bytes.
fn head_of(length: usize) -> String {
    let frame = "GET /sized HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
    let padding = "y".repeat(length - frame.len());
    let head = frame.replace("X: ", &format!("X: {padding}"));
    assert_eq!(head.len(), length);
    head
}

#[tokio::test]
async fn a_head_over_the_size_limit_is_431() {
    let server = serve().await;
    served(&server, "64 KiB", head_of(64 << 10), "hello from /sized").await;
    let lengths = [(64 << 10) + 1, 65 << 10, 100_000];
    server
        .refuses(
            431,
            lengths.map(|length| (length.to_string(), head_of(length))),
        )
        .await;
    server.drain().await;

    let limits = Limits {
        header_bytes: 300,
        ..Limits::default()
    };
    let server = serve_with(|builder| builder.limits(limits)).await;
    served(&server, "300", head_of(300), "hello from /sized").await;
    let lengths = [301, 302, 1_000, 5_000, 60_000];
    server
        .refuses(
            431,
            lengths.map(|length| (length.to_string(), head_of(length))),
        )
        .await;
    // A body is not part of the head.
    let body = "z".repeat(5_000);
    let post = format!("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{body}");
    served(&server, "body", post, "read 5000").await;
    // Byte for byte, too.
    let mut client = server.client().await;
    for byte in head_of(301).as_bytes() {
        if client.try_send([*byte]).await.is_err() {
            break;
        }
    }
    assert_eq!(client.answer().await.status, 431);
    server.drain().await;
}

#[tokio::test]
async fn a_head_of_1_mib_is_431_and_the_answer_is_not_reset() {
    let limits = Limits {
        close_linger: support::PATIENCE,
        ..Limits::default()
    };
    let server = serve_with(|builder| builder.limits(limits)).await;
    let mut client = server.client().await;
    let padding = "y".repeat(1 << 20);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {padding}\r\n\r\n");
    let (first, rest) = head.split_at(300_000);
    client.send(first).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 431, "{answer:?}");
    assert!(answer.closes() && !answer.body.is_empty());
    // It is still listened to, so that no reset overtakes the answer.
    tokio::time::sleep(support::ms(50)).await;
    client.send(rest).await;
    client.ends().await;
    drop(client);
    server.serves_others().await;
    server.drain().await;
}

fn fields(count: usize) -> String {
    let mut head = "GET /fields HTTP/1.1\r\nHost: a\r\n".to_owned();
    for n in 1..count {
        head += &format!("X-{n}: {n}\r\n");
    }
    head + "\r\n"
}

#[tokio::test]
async fn more_than_500_fields_are_431() {
    let server = serve().await;
    let counts = [501, 502, 600, 2_000];
    server
        .refuses(431, counts.map(|count| (count.to_string(), fields(count))))
        .await;
    for count in [2, 99, 100, 101, 102, 250, 499, 500] {
        served(
            &server,
            &count.to_string(),
            fields(count),
            "hello from /fields",
        )
        .await;
        let seen = server.app.seen();
        let seen = seen.iter().rfind(|seen| seen.target == "/fields").unwrap();
        assert_eq!(seen.fields, count);
    }
    // Many fields in the second request, and the third; a body after many fields.
    let mut client = server.client().await;
    client
        .get("/first-one")
        .await
        .is(200, "hello from /first-one");
    for count in [300, 3, 500] {
        client.send(fields(count)).await;
        client.answer().await.is(200, "hello from /fields");
    }
    let post = fields(200).replace("GET /fields", "POST /read");
    let post = post.trim_end().to_owned() + "\r\nContent-Length: 4\r\n\r\nbody";
    client.send(post).await;
    client.answer().await.is(200, "read 4");
    client.send(fields(501)).await;
    assert_eq!(client.answer().await.status, 431);
    client.ends().await;
    server.drain().await;
}

/// Empty lines may come before a request (RFC 9112, section 2.2); they hide nothing of it.
#[tokio::test]
async fn framing_in_doubt_behind_empty_lines_is_refused() {
    let server = serve().await;
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
    let heads = ["\r\n", "\n", "\r\n\r\n"].map(|lines| (lines, format!("{lines}{head}0\r\n\r\n")));
    server.refuses(400, heads).await;
    server.drain().await;
}
