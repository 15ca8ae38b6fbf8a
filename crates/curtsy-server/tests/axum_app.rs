//! Programs as they are: an axum application with extractors, SSE and WebSockets, and hyper
//! services, run unchanged, drain included.

mod support;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use curtsy_server::{Body, ConnectionInfo, Draining, OnDisconnect, Phase};
use futures_util::{SinkExt, Stream, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::collections::HashMap;
use std::convert::Infallible;
use support::{App, Client, Running, request, serve_this, soon};
use tokio_tungstenite::tungstenite;

#[derive(Clone)]
struct Shop {
    name: &'static str,
}

fn shop() -> Router {
    Router::new()
        .route("/hello/{name}", get(hello))
        .route("/sum", get(sum))
        .route("/reverse", post(reverse))
        .route("/double", post(double))
        .route("/peer", get(peer))
        .route("/events", get(events))
        .route("/ws", get(websocket))
        .with_state(Shop { name: "the shop" })
}

async fn hello(State(shop): State<Shop>, Path(name): Path<String>) -> String {
    format!("{} greets {name}", shop.name)
}

async fn sum(Query(query): Query<HashMap<String, i64>>) -> String {
    query.values().sum::<i64>().to_string()
}

async fn reverse(body: String) -> String {
    body.chars().rev().collect()
}

async fn double(Json(numbers): Json<Vec<i64>>) -> Json<Vec<i64>> {
    Json(numbers.into_iter().map(|n| n * 2).collect())
}

async fn peer(Extension(info): Extension<ConnectionInfo>) -> String {
    info.peer().to_string()
}

async fn events(
    Extension(draining): Extension<Draining>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let begun = futures_util::stream::once(async { Ok(Event::default().data("begun")) });
    let ended = futures_util::stream::once(async move {
        draining.wait().await;
        Ok(Event::default().data("the server drains"))
    });
    Sse::new(begun.chain(ended))
}

async fn websocket(
    Extension(draining): Extension<Draining>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .on_upgrade(|socket| echo(socket, draining))
        .into_response()
}

async fn echo(mut socket: WebSocket, draining: Draining) {
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    socket.send(message).await.expect("an echo goes out");
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            () = draining.wait() => {
                let away = CloseFrame { code: 1001, reason: "going away".into() };
                let told = socket.send(Message::Close(Some(away))).await;
                told.expect("the farewell goes out");
                // Until the client has answered it.
                while let Some(Ok(_)) = socket.recv().await {}
                return;
            }
        }
    }
}

async fn open_shop(on_disconnect: OnDisconnect) -> Running {
    serve_this(App::default(), shop(), |builder| {
        builder.on_disconnect(on_disconnect)
    })
    .await
}

fn post_to(target: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn an_axum_application_runs_unchanged() {
    for on_disconnect in [OnDisconnect::Cancel, OnDisconnect::Finish] {
        let server = open_shop(on_disconnect).await;
        let mut client = server.client().await;
        client
            .get("/hello/you")
            .await
            .is(200, "the shop greets you")
            .and_keeps_alive();
        client.get("/sum?a=1&b=20&c=300").await.is(200, "321");
        client.get("/sum?a=x").await.and_keeps_alive();
        client.send(post_to("/reverse", "text/plain", "abc")).await;
        client.answer().await.is(200, "cba").and_keeps_alive();
        client
            .send(post_to("/double", "application/json", "[1, 2, 3]"))
            .await;
        client.answer().await.is(200, "[2,4,6]").and_keeps_alive();
        // Refused by the extractor, its body unread.
        client
            .send(post_to("/double", "text/plain", "[1, 2, 3]"))
            .await;
        assert_eq!(client.answer().await.status, 415);
        assert_eq!(client.get("/nowhere").await.status, 404);
        let peer = client.local.unwrap().to_string();
        client.get("/peer").await.is(200, &peer).and_keeps_alive();
        server.drain().await;
        client.ends().await;
    }
}

#[tokio::test]
async fn server_sent_events_end_with_the_drain() {
    let server = open_shop(OnDisconnect::Cancel).await;
    let mut client = server.client().await;
    client.send(request("GET", "/events")).await;
    let head = client.head().await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let first = b"D\r\ndata: begun\n\n\r\n";
    assert_eq!(client.take(first.len()).await, first);
    server.handle.wish_shutdown();
    let last = b"19\r\ndata: the server drains\n\n\r\n0\r\n\r\n";
    assert_eq!(client.take(last.len()).await, last);
    client.ends().await;
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn websockets_are_told_of_the_drain_and_may_answer() {
    let server = open_shop(OnDisconnect::Cancel).await;
    let url = format!("ws://{}/ws", server.address);
    let (mut socket, answer) = soon("connecting", tokio_tungstenite::connect_async(&url))
        .await
        .unwrap();
    assert_eq!(answer.status(), 101);
    for text in ["one", "two", &"long ".repeat(20_000)] {
        socket.send(tungstenite::Message::text(text)).await.unwrap();
        let echoed = soon("an echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(echoed.to_text().unwrap(), text);
    }
    let now = server.handle.snapshot();
    assert_eq!((now.counts.upgraded, now.counts.total()), (1, 1));
    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    let farewell = soon("a farewell", socket.next()).await.unwrap().unwrap();
    let tungstenite::Message::Close(Some(frame)) = farewell else {
        panic!("not a close: {farewell:?}");
    };
    assert_eq!(u16::from(frame.code), 1001);
    // The client's own close goes out as it reads on.
    assert!(!matches!(soon("the end", socket.next()).await, Some(Ok(_))));
    drop(socket);
    assert!(server.ended().await.is_drained());
}

type Echoed = Result<http::Response<Full<Bytes>>, Infallible>;

async fn collect<B>(request: Request<B>) -> Echoed
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let target = request.uri().path().to_owned();
    if target == "/ignore" {
        return Ok(http::Response::new(Full::from("ignored")));
    }
    let body = request
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let text = format!("{target}: {}", String::from_utf8_lossy(&body));
    Ok(http::Response::new(Full::from(text)))
}

async fn exercise(server: Running) {
    let mut client = server.client().await;
    for n in 0..3 {
        client.get("/get").await.is(200, "/get: ").and_keeps_alive();
        client.send(post_to("/post", "text/plain", "body")).await;
        client
            .answer()
            .await
            .is(200, "/post: body")
            .and_keeps_alive();
        let chunked = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client
            .send(format!("{chunked}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
            .await;
        client.answer().await.is(200, "/chunks: abcde");
        // In pieces, with a pause that may park the connection.
        let post = post_to("/late", "text/plain", &"z".repeat(50_000));
        client.send(&post[..200]).await;
        tokio::time::sleep(support::ms(n * 120)).await;
        client.send(&post[200..]).await;
        client
            .answer()
            .await
            .is(200, &format!("/late: {}", "z".repeat(50_000)));
        tokio::time::sleep(support::ms(n * 120)).await;
    }
    let many = [
        request("GET", "/a"),
        post_to("/b", "text/plain", "bb"),
        request("GET", "/c"),
    ];
    client.send(many.concat()).await;
    for expected in ["/a: ", "/b: bb", "/c: "] {
        client.answer().await.is(200, expected);
    }
    // Idle ones close; one whose upload is under way finishes it.
    let mut uploads = Client::connect(server.address).await;
    let post = post_to("/upload", "text/plain", "0123456789");
    uploads.send(&post[..post.len() - 5]).await;
    server.until("active", |now| now.counts.active == 1).await;
    server.handle.wish_shutdown();
    client.ends().await;
    uploads.send(&post[post.len() - 5..]).await;
    uploads
        .answer()
        .await
        .is(200, "/upload: 0123456789")
        .and_closes();
    uploads.ends().await;
    assert!(server.ended().await.is_drained());
}

#[tokio::test]
async fn a_hyper_service_of_our_body_runs_unchanged() {
    let service = service_fn(|request: Request<Body>| collect(request));
    exercise(serve_this(App::default(), service, |builder| builder).await).await;
}

#[tokio::test]
async fn a_hyper_service_of_incoming_runs_unchanged() {
    let service = service_fn(|request: Request<Incoming>| collect(request));
    exercise(serve_this(App::default(), service, |builder| builder).await).await;
}

#[tokio::test]
async fn a_hyper_service_of_incoming_may_leave_its_body_unread() {
    let service = service_fn(|request: Request<Incoming>| collect(request));
    let server = serve_this(App::default(), service, |builder| builder).await;
    let mut client = server.client().await;
    client
        .send(post_to("/ignore", "text/plain", "unread"))
        .await;
    client.answer().await.is(200, "ignored");
    server.client().await.get("/x").await.is(200, "/x: ");
    server.drain().await;
}
