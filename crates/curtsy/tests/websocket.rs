//! WebSockets over HTTP/2, opened by services that only know them from HTTP/1.1.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test"
)]

use axum::extract::ws::{WebSocket as AxumSocket, WebSocketUpgrade};
use bytes::Bytes;
use curtsy::web::{Context, Engine, WebSocket};
use curtsy::{Handle, Server};
use http::{Method, Request, Version};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Reads until there are `length` bytes.
async fn read(body: &mut h2::RecvStream, length: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < length {
        let part = timeout(PATIENCE, body.data()).await.unwrap();
        read.extend_from_slice(&part.unwrap().unwrap());
    }
    read
}

/// Opens one, has "hello" echoed, and stops the server; what it is told then.
async fn echo_and_stop(address: SocketAddr, handle: Handle) -> Vec<u8> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    // The server's settings come with the first answer at the latest.
    let request = Request::get(format!("http://{address}/none")).version(Version::HTTP_2);
    let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    timeout(PATIENCE, answer).await.unwrap().unwrap();
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://{address}/ws"))
        .version(Version::HTTP_2)
        .header("origin", format!("http://{address}"))
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"));
    let (answer, mut out) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let response = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(response.status(), 200, "{response:?}");
    let mut body = response.into_body();
    let hello = Bytes::from_static(b"\x81\x85\0\0\0\0hello");
    out.send_data(hello, false).unwrap();
    assert_eq!(read(&mut body, 7).await, b"\x81\x05hello");
    handle.wish_shutdown();
    let told = read(&mut body, 4).await;
    let bye = Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe9");
    out.send_data(bye, true).unwrap();
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_opens_them_on_streams() {
    let mut r = Engine::new();
    r.get("/ws", async |c: &mut Context| {
        c.websocket(async |mut ws: WebSocket| {
            while let Some(Ok(message)) = ws.recv().await {
                ws.send(message).await.unwrap();
            }
        });
    });
    let server = curtsy::web::Run::into_server(r, "127.0.0.1:0").unwrap();
    let (_, address) = server.listeners().next().unwrap();
    let (address, handle) = (address.tcp().unwrap(), server.handle());
    let running = tokio::spawn(server.run());
    let told = echo_and_stop(address, handle).await;
    assert_eq!((told[0], &told[2..4]), (0x88, &[0x03, 0xe9][..]), "1001");
    let outcome = timeout(PATIENCE, running).await.unwrap();
    assert!(outcome.unwrap().unwrap().is_drained());
}

async fn axum_echo(mut socket: AxumSocket, draining: curtsy::Draining) {
    loop {
        let message = tokio::select! {
            () = draining.wait() => break,
            message = socket.recv() => message,
        };
        let Some(Ok(message)) = message else { return };
        socket.send(message).await.unwrap();
    }
    let away = axum::extract::ws::CloseFrame {
        code: 1001,
        reason: "".into(),
    };
    let close = axum::extract::ws::Message::Close(Some(away));
    socket.send(close).await.unwrap();
    while let Some(Ok(_)) = socket.recv().await {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_opens_them_on_streams() {
    let websocket = async |upgrade: WebSocketUpgrade,
                           draining: axum::Extension<curtsy::Draining>| {
        upgrade.on_upgrade(|socket| axum_echo(socket, draining.0))
    };
    let router = axum::Router::new().route("/ws", axum::routing::get(websocket));
    let builder = Server::builder().listen("127.0.0.1:0").signals(false);
    let server = builder.build(router).unwrap();
    let (_, address) = server.listeners().next().unwrap();
    let (address, handle) = (address.tcp().unwrap(), server.handle());
    let running = tokio::spawn(server.run());
    let told = echo_and_stop(address, handle).await;
    assert_eq!((told[0], &told[2..4]), (0x88, &[0x03, 0xe9][..]), "1001");
    let outcome = timeout(PATIENCE, running).await.unwrap();
    assert!(outcome.unwrap().unwrap().is_drained());
}
