//! An exchange that is whole is answered without hyper; its bytes are hyper's. Here hyper alone is the oracle: the
//! same requests go to it and to Curtsy, with the same service, and what comes back is the same byte for byte, and
//! so is where the connection closes. Only the value of `date` may differ.
//!
//! Curtsy is stricter or kinder on purpose in what other files test, and none of it is asked for here: refusals
//! (their text, and which there are), `OPTIONS *`, CONNECT, services that fail. Two things more are asked for only
//! where their outcome is certain: bodies that the service leaves unread, of which hyper reads what happens to be there
//! and Curtsy all that is little; and closing answers with requests behind them, over which hyper resets the connection,
//! so that a large one may be cut off anywhere.
//!
//! What is drawn at random is the same in every run; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` draw more, or others.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

#[path = "like_hyper/both.rs"]
mod both;
#[path = "like_hyper/requests.rs"]
mod requests;
#[path = "like_hyper/scripted.rs"]
mod scripted;
mod support;

use both::{Bare, Manner, difference, record};
use curtsy_server::{ConnectionInfo, Limits, State};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use requests::{Talk, conversations, pipelines};
use std::sync::{Arc, Mutex};
use support::{App, Client, Running, ms, serve_this};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Holds each talk with both servers.
fn compare(talks: impl Strategy<Value = Talk>) {
    let runtime = runtime();
    let bare = runtime.block_on(Bare::serve());
    let curtsy = runtime.block_on(both::curtsy());
    let config = Config::default();
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 2_000,
        rng_seed: match config.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            seed @ RngSeed::Fixed(_) => seed,
        },
        ..config
    });
    let ran = runner.run(&talks, |talk| {
        let requests = talk.requests.into_iter();
        let requests: Vec<_> = requests
            .map(|request| (request.bytes, request.is_head))
            .collect();
        let ask = |server| record(server, &requests, &talk.manner, talk.together);
        let (hyper, curtsy) =
            runtime.block_on(async { futures_util::join!(ask(bare.address), ask(curtsy.address)) });
        match difference(&hyper, &curtsy) {
            None => Ok(()),
            Some(difference) => Err(TestCaseError::fail(difference)),
        }
    });
    if let Err(error) = ran {
        panic!("{error}");
    }
    runtime.block_on(curtsy.drain());
}

#[test]
fn requests_one_after_another_are_answered_like_hyper() {
    compare(conversations(4));
}

#[test]
fn pipelined_requests_are_answered_like_hyper() {
    compare(pipelines(20));
}

/// What answers may be like: each a script of the service.
const SCRIPTS: [&str; 78] = [
    // What was seen of the request.
    "",
    "handler=yield",
    "handler=sleep",
    "handler=late",
    // Statuses.
    "status=200",
    "status=201 frames=13",
    "status=204 empty",
    "status=204 frames=13",
    "status=204 empty with=length",
    "status=204 empty size=unknown ends-late",
    "status=205 empty",
    "status=205 frames=13",
    "status=299 frames=13",
    "status=301 empty with=location",
    "status=301 frames=13 with=location",
    "status=304 empty",
    "status=304 frames=13 with=length",
    "status=304 empty with=length-13",
    "status=304 frames=13 size=unknown",
    "status=400 empty",
    "status=404 frames=13 with=type",
    "status=500 frames=13",
    "status=599 empty",
    // Bodies.
    "empty",
    "empty ends-late",
    "empty size=unknown",
    "empty size=unknown ends-late",
    "frames=0",
    "frames=0 ends-late",
    "frames=1",
    "frames=13",
    "frames=13 ends-late",
    "frames=1000",
    "frames=20000",
    "frames=100000",
    "frames=100000 ends-late",
    "frames=1,13,1000",
    "frames=13,0,13",
    "frames=0,13",
    "frames=13,0",
    "frames=16384,16384,20000",
    "frames=1,13,1000 size=unknown",
    "frames=13 size=unknown",
    "frames=13 size=unknown ends-late",
    "frames=20000,0,100000 size=unknown",
    "frames=p,13",
    "frames=l,13",
    "frames=p",
    "frames=13,p",
    "frames=13,p,20",
    "frames=13,l,1000",
    "frames=13,l,1000 size=unknown",
    "frames=l,100000,p,1 handler=sleep",
    "frames=13 trailers",
    "frames=13 size=unknown trailers with=trailer",
    "empty size=unknown trailers with=trailer",
    // Fields.
    "frames=13 with=length",
    "frames=13 size=unknown with=length",
    "frames=13 with=length,length",
    "empty with=length",
    "empty with=length-13",
    "frames=13 with=close",
    "frames=13 with=Close",
    "empty with=close-hops",
    "frames=13 with=keep-alive",
    "frames=13 with=hops",
    "frames=13 with=chunked",
    "empty with=chunked",
    "frames=13 with=gzip",
    "frames=13 with=date",
    "frames=13 with=cookies,nothing,obs-text,case",
    "frames=13 with=many,long",
    "frames=13 with=upgrade,extension",
    // Status lines.
    "frames=13 with=reason",
    "status=404 empty with=no-reason",
    "frames=13 version=1.0",
    "frames=13 version=1.0 with=keep-alive,chunked",
    "frames=13 version=1.0 size=unknown",
];

/// Who asks for them: a name, the request line's two ends, fields, and a body.
const ASKERS: [(&str, &str, &str, &str, &str); 8] = [
    ("GET", "GET", "1.1", "", ""),
    ("HEAD", "HEAD", "1.1", "", ""),
    ("POST", "POST", "1.1", "Content-Length: 5\r\n", "hello"),
    (
        "chunks",
        "PUT",
        "1.1",
        "Transfer-Encoding: chunked\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
    ),
    ("closing GET", "GET", "1.1", "Connection: close\r\n", ""),
    ("TE", "GET", "1.1", "TE: trailers\r\n", ""),
    ("old GET", "GET", "1.0", "", ""),
    ("old, alive", "GET", "1.0", "Connection: keep-alive\r\n", ""),
];

/// Heads and bodies of all kinds: each a name and a request.
const ODD: [(&str, &str); 31] = [
    ("no fields but Host", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("Host last", "GET / HTTP/1.1\r\nA: b\r\nhOST:a\r\n\r\n"),
    ("none, in 1.0", "GET / HTTP/1.0\r\n\r\n"),
    (
        "an empty line before",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "empty lines before",
        "\r\n\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("bare line feeds", "GET / HTTP/1.1\nHost: a\nB: c\n\n"),
    (
        "line ends of both kinds",
        "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\n",
    ),
    (
        "blanks around values",
        "GET / HTTP/1.1\r\nHost: a\r\nB:\t c \td\t \r\nC: \t \r\n\r\n",
    ),
    (
        "repeated fields",
        "GET / HTTP/1.1\r\nB: 1\r\nHost: a\r\nb: 2\r\nC: 3\r\nB: 1\r\n\r\n",
    ),
    (
        "bytes beyond ASCII",
        "GET / HTTP/1.1\r\nHost: a\r\nB: caf\u{e9} \u{7ff}\r\n\r\n",
    ),
    (
        "signs in a name",
        "GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~1A: b\r\n\r\n",
    ),
    (
        "absolute form",
        "GET http://other/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "absolute form, no path",
        "GET HTTP://other:8080 HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("a query alone", "GET /? HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a fragment", "GET /a#b?c HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "a method of one's own",
        "M-SEARCH /a HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a method in lower case",
        "get /a HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("TRACE", "TRACE /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "a body of nothing",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a GET with a body",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "leading zeros",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc",
    ),
    (
        "a length twice",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\ncontent-length: 3\r\n\r\nabc",
    ),
    (
        "a body like a request",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ),
    (
        "chunks, extended",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n03;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
    ),
    (
        "no chunks",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "100-continue",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "100-continue for nothing",
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    ),
    (
        "an unread body",
        "POST / HTTP/1.1\r\nHost: a\r\nScript: leave\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "an upgrade that is not granted",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    (
        "close, then alive",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
    ),
];

/// The table's cases: a name, a request, and whether it is a HEAD.
fn cases() -> Vec<(String, Vec<u8>, bool)> {
    let mut cases = Vec::new();
    for (asker, method, version, fields, body) in ASKERS {
        for script in SCRIPTS {
            let head = format!("{method} /asked HTTP/{version}\r\nHost: a\r\n{fields}");
            let request = format!("{head}Script: {script}\r\n\r\n{body}");
            cases.push((
                format!("{asker}, {script:?}"),
                request.into_bytes(),
                method == "HEAD",
            ));
        }
    }
    for (name, request) in ODD {
        cases.push((name.to_owned(), request.as_bytes().to_vec(), false));
    }
    cases
}

async fn compare_table(curtsy: Running) {
    let bare = Bare::serve().await;
    let mut wrong = Vec::new();
    for (name, request, is_head) in cases() {
        if wrong.len() > 9 {
            break;
        }
        let one = (request, is_head);
        let behind = (b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), false);
        let talks = [
            ("alone", vec![one.clone()], Manner::OneByOne),
            ("twice", vec![one.clone(), one.clone()], Manner::OneByOne),
            (
                "before another",
                vec![one.clone()],
                Manner::Pipelined(Vec::new()),
            ),
            (
                "between others",
                vec![behind.clone(), one, behind],
                Manner::Pipelined(Vec::new()),
            ),
        ];
        for (how, requests, manner) in talks {
            let ask = |server| record(server, &requests, &manner, true);
            let (hyper, curtsy) = futures_util::join!(ask(bare.address), ask(curtsy.address));
            if let Some(difference) = difference(&hyper, &curtsy) {
                wrong.push(format!("{name}, {how}: {difference}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ, and others may:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    curtsy.drain().await;
}

#[tokio::test]
async fn the_table_is_answered_like_hyper() {
    compare_table(both::curtsy().await).await;
}

#[tokio::test]
async fn the_table_is_answered_like_hyper_with_hypers_bodies() {
    compare_table(both::curtsy_with_hypers_bodies().await).await;
}

#[tokio::test]
async fn the_table_is_answered_like_hyper_with_other_settings() {
    compare_table(both::curtsy_otherwise().await).await;
}

/// hyper ends a connection that was once asked to upgrade without a last flush: nothing may be held back by then.
#[tokio::test]
async fn a_closing_answer_behind_an_upgrade_is_like_hypers() {
    let (bare, curtsy) = (Bare::serve().await, both::curtsy().await);
    let asked = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUpgrade: websocket\r\n\r\n";
    let requests = [(asked.to_vec(), false)];
    let manner = Manner::Pipelined(Vec::new());
    let ask = |server| record(server, &requests, &manner, true);
    let (hyper, curtsy) = futures_util::join!(ask(bare.address), ask(curtsy.address));
    assert_eq!(difference(&hyper, &curtsy), None);
}

/// States with how many requests the connection had had by then.
type States = Arc<Mutex<Vec<(State, u64)>>>;

async fn watched(park_after: std::time::Duration) -> (Running, States) {
    let states = States::default();
    let told = states.clone();
    let limits = Limits {
        park_after,
        ..Limits::default()
    };
    let service = hyper::service::service_fn(scripted::answer::<curtsy_server::Body>);
    let server = serve_this(App::default(), service, |builder| {
        builder
            .limits(limits)
            .on_connection_state(move |connection: &ConnectionInfo, state| {
                told.lock().unwrap().push((state, connection.requests()));
            })
    })
    .await;
    (server, states)
}

/// Waits until so many were told; they must be these.
async fn told(server: &Running, states: &States, expected: &[(State, u64)], name: &str) {
    let seen = || states.lock().unwrap().clone();
    let what = format!("{name}: {expected:?}");
    let enough = |_: &_| seen().len() >= expected.len();
    server.until(&what, enough).await;
    assert_eq!(seen(), expected, "{name}");
    states.lock().unwrap().clear();
}

/// What an exchange that is whole on both sides may be, and what it may be else. Sixteen of the largest fit what is held
/// back of pipelined answers: beyond that they leave apart, and the connection may be idle between.
const EXCHANGES: [(&str, &str, &str); 9] = [
    ("whole", "frames=13", ""),
    ("whole, no body", "status=204 empty", ""),
    ("whole, with a request's body", "", "hello"),
    ("handler waits", "frames=13 handler=yield", ""),
    ("handler sleeps", "frames=13 handler=sleep", "hello"),
    ("body waits", "frames=p,13", ""),
    ("body comes later", "frames=13,l,13", ""),
    ("length unknown", "frames=13 size=unknown", ""),
    ("larger", "frames=3000", ""),
];

fn exchange((_, script, body): (&str, &str, &str), more: &str) -> String {
    let length = body.len();
    let script = format!("Script: {script}\r\nContent-Length: {length}\r\n");
    format!("POST / HTTP/1.1\r\nHost: a\r\n{more}{script}\r\n{body}")
}

async fn answers(client: &mut Client, count: u64) {
    for _ in 0..count {
        let status = client.answer().await.status;
        assert!(matches!(status, 200 | 204), "{status}");
    }
}

#[tokio::test]
async fn states_and_counts_are_told_alike_for_whole_exchanges_and_others() {
    use State::{Active, Closed, Idle, New};
    for park_after in [ms(1), ms(60_000)] {
        let (server, states) = watched(park_after).await;
        let mut requests = 0;
        for kind in EXCHANGES {
            let name = kind.0;
            // One after another.
            let mut client = server.client().await;
            told(&server, &states, &[(New, 0)], name).await;
            for n in 0..3 {
                client.send(exchange(kind, "")).await;
                answers(&mut client, 1).await;
                told(&server, &states, &[(Active, n), (Idle, n + 1)], name).await;
                if park_after == ms(1) {
                    server.until("parked", |now| now.counts.parked == 1).await;
                }
            }
            drop(client);
            told(&server, &states, &[(Closed, 3)], name).await;

            // At once: active from the first to the last.
            for count in [1, 2, 16] {
                let mut client = server.client().await;
                told(&server, &states, &[(New, 0)], name).await;
                client.send(exchange(kind, "").repeat(count)).await;
                let count = count as u64;
                answers(&mut client, count).await;
                told(&server, &states, &[(Active, 0), (Idle, count)], name).await;
                drop(client);
                told(&server, &states, &[(Closed, count)], name).await;
                requests += count;
            }

            // Its first is its last.
            let mut client = server.client().await;
            told(&server, &states, &[(New, 0)], name).await;
            client.send(exchange(kind, "Connection: close\r\n")).await;
            answers(&mut client, 1).await;
            client.ends().await;
            told(&server, &states, &[(Active, 0), (Closed, 1)], name).await;

            // Half a head keeps it active.
            let mut client = server.client().await;
            told(&server, &states, &[(New, 0)], name).await;
            let one = exchange(kind, "");
            client.send(format!("{one}{}", &one[..20])).await;
            answers(&mut client, 1).await;
            client.send(&one[20..]).await;
            answers(&mut client, 1).await;
            server
                .until("idle", |now| now.counts.idle + now.counts.parked == 1)
                .await;
            drop(client);
            server
                .until("closed", |_| {
                    states.lock().unwrap().last() == Some(&(Closed, 2))
                })
                .await;
            states.lock().unwrap().clear();
            requests += 3 + 1 + 2;
            let metrics = server.handle.metrics();
            assert_eq!(metrics.requests, requests, "{name}");
            assert_eq!(metrics.answers[1], requests, "{name}");
        }
        server.drain().await;
    }
}
