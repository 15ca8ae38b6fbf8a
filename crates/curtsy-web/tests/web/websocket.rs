//! WebSockets over a real connection to hyper.

use crate::engine;
use curtsy_web::test::Client;
use curtsy_web::{ConnectionInfo, Context, Engine, WebSocket, WebSocketOptions};
use futures_util::{SinkExt, StreamExt};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Wire;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const SOON: Duration = Duration::from_secs(10);

fn app() -> Engine {
    let mut r = engine();
    r.get("/echo", async |c: &mut Context| {
        c.websocket(async |mut ws: WebSocket| {
            while let Some(Ok(message)) = ws.recv().await {
                if ws.send(message).await.is_err() {
                    break;
                }
            }
        });
    });
    r.get("/bye", async |c: &mut Context| {
        c.websocket(async |mut ws: WebSocket| {
            ws.text("hello").await.unwrap();
            ws.close(1000, "done").await;
        });
    });
    r.get("/proto", async |c: &mut Context| {
        let options = WebSocketOptions {
            protocols: vec!["v2".into(), "v1".into()],
            max_message: 100,
            any_origin: true,
        };
        c.websocket_with(&options, async |mut ws: WebSocket| {
            let text = ws.protocol().unwrap_or("none").to_owned();
            ws.text(text).await.unwrap();
            let refused = ws.recv().await;
            assert!(matches!(refused, Some(Err(_))), "{refused:?}");
        });
    });
    r
}

/// The drain of a test's connection.
fn connection() -> (Arc<curtsy_lifecycle::Signal>, ConnectionInfo) {
    use curtsy_lifecycle::{Address, Arrival, Entry, Moment, Origin, Signal, State};
    let signal = Arc::new(Signal::new());
    let arrival = Arrival {
        id: 1,
        origin: Arc::new(Origin::new("test", Arc::clone(&signal))),
        peer: Address::Unix(None),
        local: Address::Unix(None),
        tls: false,
        carried: false,
        accepted: Moment::from_millis(0),
    };
    let entry = Entry::new(arrival, State::Active, Moment::from_millis(0));
    (signal, ConnectionInfo::new(Arc::new(entry)))
}

/// Serves one connection by hyper and opens a WebSocket over it.
async fn open(
    path: &str,
    protocols: &str,
) -> (WebSocketStream<DuplexStream>, Arc<curtsy_lifecycle::Signal>) {
    let (client, server) = tokio::io::duplex(64 << 10);
    let (signal, info) = connection();
    let r = app();
    let service = service_fn(move |request| r.call_with(request, Some(info.clone())));
    tokio::spawn(async move {
        let http = hyper::server::conn::http1::Builder::new();
        let serving = http.serve_connection(TokioIo::new(server), service);
        serving.with_upgrades().await
    });
    let mut request = format!("ws://test{path}").into_client_request().unwrap();
    if !protocols.is_empty() {
        let value = protocols.parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", value);
    }
    let opening = tokio_tungstenite::client_async(request, client);
    let (stream, _) = timeout(SOON, opening).await.unwrap().unwrap();
    (stream, signal)
}

async fn next(ws: &mut WebSocketStream<DuplexStream>) -> Option<Wire> {
    let next = timeout(SOON, ws.next()).await.expect("no message in time");
    next.and_then(Result::ok)
}

#[tokio::test]
async fn messages_come_back() {
    let (mut ws, _signal) = open("/echo", "").await;
    for message in [
        Wire::text("häh"),
        Wire::binary(vec![1, 2, 3]),
        Wire::text(""),
    ] {
        ws.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut ws).await, Some(message));
    }
    ws.send(Wire::Ping("p".into())).await.unwrap();
    assert_eq!(next(&mut ws).await, Some(Wire::Pong("p".into())));
    ws.close(None).await.unwrap();
    assert!(matches!(next(&mut ws).await, Some(Wire::Close(_)) | None));
}

#[tokio::test]
async fn the_drain_says_1001_and_waits_for_the_peer() {
    let (mut ws, signal) = open("/echo", "").await;
    ws.send(Wire::text("a")).await.unwrap();
    assert_eq!(next(&mut ws).await, Some(Wire::text("a")));
    signal.raise();
    let Some(Wire::Close(Some(frame))) = next(&mut ws).await else {
        panic!("a Close was expected");
    };
    assert_eq!(u16::from(frame.code), 1001);
    assert_eq!(next(&mut ws).await, None, "the server ends after our Close");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_is_not_waited_for_forever() {
    let (ws, signal) = open("/echo", "").await;
    signal.raise();
    // Not polled: the Close is never answered. Time goes on by itself when all wait.
    let mut raw = ws.into_inner();
    let mut bytes = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut raw, &mut bytes);
    let limit = curtsy_web::CLOSE_WAIT + Duration::from_secs(1);
    timeout(limit, reading)
        .await
        .expect("the server must end")
        .unwrap();
    assert_eq!(&bytes[..4], [0x88, 12, 0x03, 0xE9], "a Close with 1001");
}

#[tokio::test]
async fn the_server_can_close() {
    let (mut ws, _signal) = open("/bye", "").await;
    assert_eq!(next(&mut ws).await, Some(Wire::text("hello")));
    let Some(Wire::Close(Some(frame))) = next(&mut ws).await else {
        panic!("a Close was expected");
    };
    assert_eq!(
        (u16::from(frame.code), frame.reason.as_str()),
        (1000, "done")
    );
}

#[tokio::test]
async fn protocols_are_agreed_on_and_messages_bounded() {
    let (mut ws, _signal) = open("/proto", "v0, v1").await;
    assert_eq!(next(&mut ws).await, Some(Wire::text("v1")));
    ws.send(Wire::text("x".repeat(101))).await.unwrap();
    assert_eq!(next(&mut ws).await, None);
}

#[tokio::test]
async fn what_is_no_request_for_one_is_refused() {
    let client = Client::new(app());
    let base = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Host", "a.example"),
    ];
    for (changed, value, status) in [
        ("Upgrade", "h2c", 400),
        ("Connection", "close", 400),
        ("Sec-WebSocket-Version", "8", 426),
        ("Sec-WebSocket-Key", "", 400),
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        // All is well, but there is no connection to take over.
        ("Origin", "https://a.example", 500),
        ("Host", "a.example", 500),
    ] {
        let mut request = client.get("/echo");
        for (name, value) in base.iter().filter(|(name, _)| *name != changed) {
            request = request.header(name, value);
        }
        let answer = request.header(changed, value).send().await;
        assert_eq!(answer.status(), status, "{changed}: {value}");
    }
}
