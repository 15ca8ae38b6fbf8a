//! Bodies that look like requests, behind heads whose framing is in doubt: alone, pipelined behind
//! honest requests, in one write and cut in two at every byte. No byte of a body may ever reach
//! the service as a request.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use support::{Client, Running, ms, request, serve};

/// Heads that two parties may frame differently.
const DOUBTFUL: [(&str, &str); 14] = [
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4"),
    ("CL.TE", "Content-Length: 4\r\nTransfer-Encoding: chunked"),
    (
        "CL.TE long",
        "Content-Length: 60\r\nTransfer-Encoding: chunked",
    ),
    (
        "TE.CL apart",
        "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 60",
    ),
    (
        "TE.CL bare LF",
        "X: y\nTransfer-Encoding: chunked\nContent-Length: 4",
    ),
    (
        "TE twice",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 4",
    ),
    ("TE gzip", "Transfer-Encoding: gzip\r\nContent-Length: 4"),
    (
        "TE folded",
        "Content-Length: 4\r\nTransfer-Encoding:\r\n chunked",
    ),
    (
        "TE with a space",
        "Content-Length: 4\r\nTransfer-Encoding : chunked",
    ),
    (
        "TE with a tab",
        "Content-Length: 4\r\nTransfer-Encoding: \x0bchunked",
    ),
    ("CL twice", "Content-Length: 4\r\nContent-Length: 60"),
    ("CL plus", "Content-Length: +4"),
    ("CL 2^64 - 1", "Content-Length: 18446744073709551615"),
    ("CL 2^64", "Content-Length: 18446744073709551616"),
];

const HONEST: [(&str, &str); 5] = [
    ("nothing", ""),
    ("GET", "GET /honest HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "POST",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    ),
    (
        "unread POST",
        "POST /refuse-body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    ),
    (
        "chunked POST",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ),
];

/// One body per view: what follows the chunks, what is in a chunk, and neither.
fn bodies() -> [String; 3] {
    let hidden = request("GET", "/smuggled");
    let many: String = (0..150).map(|n| format!("X-{n}: y\r\n")).collect();
    let wide = format!("GET /smuggled HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    [
        format!("0\r\n\r\n{hidden}"),
        format!("{:x}\r\n{hidden}\r\n0\r\n\r\n{hidden}", hidden.len()),
        wide,
    ]
}

fn attacks() -> Vec<(String, String)> {
    let mut attacks = Vec::new();
    for (before, honest) in HONEST {
        for (name, fields) in DOUBTFUL {
            for (n, body) in bodies().iter().enumerate() {
                attacks.push((
                    format!("{name} behind {before}, body {n}"),
                    format!("{honest}POST /read HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}"),
                ));
            }
        }
    }
    attacks
}

/// Sends the pieces and reads to the end, which must come.
async fn attack(mut client: Client, pieces: Vec<Vec<u8>>) -> String {
    for piece in pieces {
        // The server may have refused by now.
        if client.try_send(piece).await.is_err() {
            break;
        }
        tokio::time::sleep(ms(1)).await;
    }
    let answers = client.read_to_end().await.unwrap_or_default();
    String::from_utf8_lossy(&answers).into_owned()
}

fn assert_none_smuggled(server: &Running, name: &str) {
    let targets = server.app.targets();
    let smuggled = targets.iter().filter(|target| *target == "/smuggled");
    assert_eq!(smuggled.count(), 0, "{name}");
}

/// What the last answer says, whatever stands before it.
fn last_status(answers: &str) -> &str {
    let heads = answers.rmatch_indices("HTTP/1.1 ").next();
    heads.map_or("none", |(at, _)| &answers[at + 9..at + 12])
}

#[tokio::test]
async fn doubtful_framing_hides_no_request_in_one_write() {
    let server = serve().await;
    for (name, bytes) in attacks() {
        let answers = attack(server.client().await, vec![bytes.into_bytes()]).await;
        assert_none_smuggled(&server, &name);
        let refused = matches!(last_status(&answers), "400" | "501");
        assert!(refused, "{name}: {answers}");
        assert!(!answers.contains("/smuggled"), "{name}: {answers}");
        assert!(!answers.is_empty(), "{name}: no answer at all");
    }
    server.serves_others().await;
    server.drain().await;
}

async fn cut_everywhere(bytes: &str) {
    let server = serve().await;
    let mut running = tokio::task::JoinSet::new();
    for cut in 1..bytes.len() {
        let (first, second) = bytes.as_bytes().split_at(cut);
        let pieces = vec![first.to_vec(), second.to_vec()];
        running.spawn(attack(server.client().await, pieces));
        if running.len() > 30 {
            running.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert_none_smuggled(&server, bytes);
    server.serves_others().await;
    server.drain().await;
}

fn second_behind(honest: usize, doubtful: usize, body: usize) -> String {
    let (honest, fields) = (HONEST[honest].1, DOUBTFUL[doubtful].1);
    let body = &bodies()[body];
    format!("{honest}POST /read HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

#[tokio::test]
async fn te_cl_alone_hides_no_request_wherever_it_is_cut() {
    cut_everywhere(&second_behind(0, 0, 0)).await;
    cut_everywhere(&second_behind(0, 0, 1)).await;
}

#[tokio::test]
async fn te_cl_behind_a_get_hides_no_request_wherever_it_is_cut() {
    cut_everywhere(&second_behind(1, 0, 0)).await;
    cut_everywhere(&second_behind(1, 2, 1)).await;
}

#[tokio::test]
async fn cl_te_behind_posts_hides_no_request_wherever_it_is_cut() {
    cut_everywhere(&second_behind(2, 1, 0)).await;
    cut_everywhere(&second_behind(4, 1, 1)).await;
}

#[tokio::test]
async fn a_length_out_of_range_hides_no_request_wherever_it_is_cut() {
    cut_everywhere(&second_behind(0, 12, 0)).await;
    cut_everywhere(&second_behind(1, 12, 1)).await;
}

#[tokio::test]
async fn honest_bodies_that_look_like_requests_stay_bodies() {
    let server = serve().await;
    let hidden = request("GET", "/smuggled");
    let sized = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let chunks = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
        hidden.len()
    );
    let stream = format!("{sized}{}{sized}{chunks}", request("GET", "/between"));
    for cut in (1..stream.len()).step_by(3) {
        let mut client = server.client().await;
        client.send(&stream[..cut]).await;
        tokio::time::sleep(ms(1)).await;
        client.send(&stream[cut..]).await;
        client.answer().await.is(200, &hidden);
        client.answer().await.is(200, "hello from /between");
        client.answer().await.is(200, &hidden);
        client.answer().await.is(200, &hidden);
    }
    assert_none_smuggled(&server, "honest");
    server.drain().await;
}
