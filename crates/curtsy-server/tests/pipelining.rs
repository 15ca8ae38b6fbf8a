//! Requests sent before their predecessors are answered: every one is answered, in order, and no
//! answer waits for what its client may never send.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use curtsy_server::{Limits, Outcome, Phase};
use proptest::prelude::{Strategy, prop};
use proptest::test_runner::{Config, TestRunner};
use support::{Client, Running, ms, not_within, request, serve, serve_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn sixteen_requests_in_one_write_get_sixteen_answers_in_order() {
    let server = serve().await;
    let mut client = server.client().await;
    for round in 0..5 {
        let target = |n| format!("/{round}-{n}");
        let all: String = (0..16).map(|n| request("GET", &target(n))).collect();
        client.send(all).await;
        for n in 0..16 {
            let expected = format!("hello from {}", target(n));
            client.answer().await.is(200, &expected).and_keeps_alive();
        }
    }
    server.until("idle", |now| now.counts.idle == 1).await;
    server.drain().await;
}

#[tokio::test]
async fn fast_and_slow_handlers_keep_their_order() {
    let server = serve().await;
    let mut client = server.client().await;
    let slow = [0, 30, 1, 0, 20, 0, 0, 5];
    let all: String = slow
        .iter()
        .map(|ms| match ms {
            0 => request("GET", "/fast"),
            ms => request("GET", &format!("/slow?ms={ms}")),
        })
        .collect();
    client.send(all).await;
    for ms in slow {
        match ms {
            0 => client
                .answer()
                .await
                .is(200, "hello from /fast")
                .and_keeps_alive(),
            ms => client
                .answer()
                .await
                .is(200, &format!("slept {ms}"))
                .and_keeps_alive(),
        };
    }
    server.drain().await;
}

/// A handler that takes longer than a connection may rest, behind an answer that was flushed: its
/// connection is not at rest, whoever asks.
#[tokio::test]
async fn a_slow_handler_behind_another_answer_is_neither_parked_nor_drained_away() {
    for before in [0, 1, 2] {
        let server = serve_with(|builder| {
            builder.limits(Limits {
                park_after: ms(5),
                ..Limits::default()
            })
        })
        .await;
        let mut client = server.client().await;
        let first = request("GET", "/before").repeat(before);
        let slow = request("GET", "/gate?slow");
        client
            .send(format!("{first}{slow}{}", request("GET", "/last")))
            .await;
        for _ in 0..before {
            client.answer().await.is(200, "hello from /before");
        }
        server.until("active", |now| now.counts.active == 1).await;
        let snapshot = server.handle.snapshot();
        let told = snapshot.stragglers.iter().map(|s| s.target.as_str());
        assert_eq!(told.collect::<Vec<_>>(), ["/gate?slow"]);
        // Many times as long as it may rest.
        tokio::time::sleep(ms(100)).await;
        assert_eq!(server.handle.snapshot().counts.active, 1);

        server.handle.wish_shutdown();
        server.handle.reached(Phase::Draining).await;
        tokio::time::sleep(ms(20)).await;
        assert_eq!(server.handle.snapshot().counts.active, 1);
        server.app.gate("slow").add_permits(1);
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        let (_, outcome) = (client, server.running.await.unwrap().unwrap());
        assert!(matches!(outcome, Outcome::Drained(_)), "{outcome:?}");
    }
}

/// So many answers that some leave before the last of what came with them is called. A Unix socket's buffer takes them
/// at once.
#[tokio::test]
async fn a_slow_handler_behind_answers_that_have_left_is_active() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = format!("unix:{}", path.display());
    let server = serve_with(|builder| {
        let builder = builder.listen(("local", listener.as_str()));
        builder.limits(Limits {
            park_after: ms(5),
            ..Limits::default()
        })
    })
    .await;
    let mut client = Client::connect_unix(&path).await;
    let large = request("GET", "/big?bytes=15000").repeat(6);
    client
        .send(format!("{large}{}", request("GET", "/gate?slow")))
        .await;
    for _ in 0..6 {
        assert_eq!(client.answer().await.body.len(), 15_000);
    }
    server
        .until("called", |now| now.stragglers.len() == 1)
        .await;
    // Many times as long as it may rest.
    tokio::time::sleep(ms(100)).await;
    assert_eq!(server.handle.snapshot().counts.active, 1);
    server.handle.wish_shutdown();
    server.handle.reached(Phase::Draining).await;
    server.app.gate("slow").add_permits(1);
    assert_eq!(client.answer().await.status, 200);
    let outcome = server.running.await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Drained(_)), "{outcome:?}");
}

/// What may come behind whole requests and never go on.
const UNFINISHED: [&str; 7] = [
    "G",
    "GET /half HTTP/1.1",
    "GET /half HTTP/1.1\r\nHost: a\r\n",
    "GET /half HTTP/1.1\r\nHost: a\r\n\r",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
    "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
];

#[tokio::test]
async fn half_a_request_behind_others_does_not_hold_back_their_answers() {
    let server = serve().await;
    for half in UNFINISHED {
        for count in [1, 2, 3, 16] {
            let mut client = server.client().await;
            let whole = request("GET", "/whole").repeat(count);
            client.send(format!("{whole}{half}")).await;
            for _ in 0..count {
                client.answer().await.is(200, "hello from /whole");
            }
        }
    }
    server.until("gone", |now| now.counts.total() == 0).await;
    server.drain().await;
}

#[tokio::test]
async fn half_a_head_behind_others_is_finished_later() {
    let server = serve().await;
    let head = request("GET", "/late");
    for cut in 1..head.len() {
        let mut client = server.client().await;
        let (half, rest) = head.split_at(cut);
        client
            .send(format!("{0}{0}{half}", request("GET", "/whole")))
            .await;
        client.answer().await.is(200, "hello from /whole");
        client.answer().await.is(200, "hello from /whole");
        client
            .send(format!("{rest}{}", request("GET", "/last")))
            .await;
        client
            .answer()
            .await
            .is(200, "hello from /late")
            .and_keeps_alive();
        client
            .answer()
            .await
            .is(200, "hello from /last")
            .and_keeps_alive();
    }
    server.drain().await;
}

#[tokio::test]
async fn a_handler_that_waits_does_not_hold_back_earlier_answers() {
    let server = serve().await;
    let mut client = server.client().await;
    let all = [
        request("GET", "/a"),
        request("GET", "/b"),
        request("GET", "/gate?shut"),
        request("GET", "/c"),
    ];
    client.send(all.concat()).await;
    client.answer().await.is(200, "hello from /a");
    client.answer().await.is(200, "hello from /b");
    assert_eq!(server.app.targets().last().unwrap(), "/gate?shut");
    server.app.open("shut");
    client.answer().await.is(200, "through shut");
    client.answer().await.is(200, "hello from /c");
    server.drain().await;
}

#[tokio::test]
async fn a_streamed_answer_goes_out_while_requests_wait_behind_it() {
    let server = serve().await;
    let mut client = server.client().await;
    let all = [
        request("GET", "/a"),
        request("GET", "/stream?tap"),
        request("GET", "/b"),
    ];
    client.send(all.concat()).await;
    client.answer().await.is(200, "hello from /a");
    let head = client.head().await;
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.take(11).await, b"6\r\nbegun \r\n");
    server.app.open("tap");
    assert_eq!(client.take(15).await, b"5\r\nended\r\n0\r\n\r\n");
    client.answer().await.is(200, "hello from /b");
    server.drain().await;
}

#[tokio::test]
async fn large_answers_keep_their_order() {
    let server = serve().await;
    let mut client = server.client().await;
    let sizes = [10, 70_000, 1, 200_000, 40_000, 40_000, 0, 65_000];
    let all: String = sizes
        .iter()
        .map(|size| request("GET", &format!("/big?bytes={size}")))
        .collect();
    client.send(all).await;
    for size in sizes {
        let answer = client.answer().await;
        assert_eq!(answer.body, vec![b'x'; size]);
    }
    server.drain().await;
}

/// Requests of several kinds; each is answered with the same bytes wherever it stands.
const KINDS: [&str; 9] = [
    "GET /get HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /big?bytes=9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /204 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /slow?ms=2 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /big?bytes=30000 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello\r\n\r\nyou",
    "POST /refuse-body HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nignored",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /nine HTTP/1.1\r\nHost: a\r\nX-Long: 0123456789012345678901234567890123456789\r\n\r\n",
];

const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn without_dates(answers: &[u8]) -> String {
    let text = String::from_utf8_lossy(answers);
    let lines = text.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("date: ")).collect()
}

async fn exchange(server: &Running, bytes: &str, cuts: &[usize], pause: bool) -> String {
    let mut client = server.client().await;
    let mut at = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        client.send(&bytes[at..cut]).await;
        at = cut;
        if pause {
            tokio::time::sleep(ms(1)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    without_dates(&client.read_to_end().await.unwrap())
}

#[test]
fn however_a_stream_of_requests_is_cut_its_answers_are_the_same_bytes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(serve());
    let alone = |kind: &str| {
        let both = runtime.block_on(exchange(&server, &format!("{kind}{LAST}"), &[], true));
        let last = runtime.block_on(exchange(&server, LAST, &[], true));
        both.strip_suffix(&last).unwrap().to_owned()
    };
    let alone: Vec<String> = KINDS.iter().map(|kind| alone(kind)).collect();
    let last = runtime.block_on(exchange(&server, LAST, &[], true));

    let streams = (
        prop::collection::vec(0..KINDS.len(), 1..20),
        prop::collection::vec(proptest::prelude::any::<prop::sample::Index>(), 0..12),
        proptest::prelude::any::<bool>(),
    );
    let streams = streams.prop_map(|(kinds, cuts, pause)| {
        let bytes: String = kinds.iter().map(|kind| KINDS[*kind]).collect();
        let bytes = bytes + LAST;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        (kinds, bytes, cuts, pause)
    });
    let mut runner = TestRunner::new(Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&streams, |(kinds, bytes, cuts, pause)| {
            let expected: String = kinds.iter().map(|kind| alone[*kind].as_str()).collect();
            let answers = runtime.block_on(exchange(&server, &bytes, &cuts, pause));
            proptest::prop_assert_eq!(answers, expected + &last);
            Ok(())
        })
        .unwrap();
    runtime.block_on(server.drain());
}

/// A client may send requests while it reads its last answer: had the socket been closed by then, they would make that a
/// reset, which takes along what the kernel has still to send. As long as it sends some, the client is only slow.
#[tokio::test]
async fn what_comes_behind_the_last_answer_does_not_take_it_along() {
    const BYTES: usize = 500_000;
    let target = format!("/big-when-draining?bytes={BYTES}");
    for ahead in [String::new(), request("GET", "/ahead")] {
        let mut server = serve_with(|builder| {
            builder.limits(Limits {
                close_linger: ms(400),
                ..Limits::default()
            })
        })
        .await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut client = socket.connect(server.address).await.unwrap();
        let first = request("GET", &target) + &ahead;
        client.write_all(first.as_bytes()).await.unwrap();
        server.app.noted(&format!("in {target}")).await;
        server.handle.wish_shutdown();
        let mut answer = vec![0; 5 * 40_000];
        for part in answer.chunks_mut(40_000) {
            // All of it is written by the second.
            let waits = not_within(ms(150), &mut server.running).await;
            assert!(waits, "it has ended over what was not received");
            client.read_exact(part).await.unwrap();
            let late = request("GET", "/late");
            client.write_all(late.as_bytes()).await.unwrap();
        }
        client.read_to_end(&mut answer).await.unwrap();
        let body = answer.iter().rev().take_while(|byte| **byte == b'x');
        assert_eq!(body.count(), BYTES);
        drop(client);
        assert!(server.ended().await.is_drained());
    }
}
