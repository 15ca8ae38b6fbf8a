//! A WebSocket that echoes and says goodbye to a drain, as a service makes it for HTTP/1.1; and
//! the same over HTTP/2.

use crate::http2::Client;
use crate::support::{any_port, config, secure, serve, soon};
use bytes::Bytes;
use curtsy_server::{Body, Draining, Http2Limits, Limits, State};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

/// Answers a request for a WebSocket as RFC 6455 says.
pub(crate) fn accept(request: &mut Request<Body>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).unwrap();
    let draining = request.extensions().get::<Draining>().cloned();
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            echo(TokioIo::new(upgraded), draining.unwrap()).await;
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(io: TokioIo<hyper::upgrade::Upgraded>, draining: Draining) {
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    loop {
        let message = tokio::select! {
            () = draining.wait() => break,
            message = socket.next() => message,
        };
        match message {
            Some(Ok(message)) if message.is_text() || message.is_binary() => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
    let away = CloseFrame {
        code: CloseCode::Away,
        reason: "".into(),
    };
    if socket.close(Some(away)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

/// A request for a WebSocket on a stream (RFC 8441).
fn socket_request(path: &str) -> Request<()> {
    Request::builder()
        .method(http::Method::CONNECT)
        .uri(format!("http://localhost{path}"))
        .version(Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap()
}

/// A WebSocket on a stream, its frames by hand.
pub(crate) struct Socket {
    response: Response<()>,
    body: h2::RecvStream,
    out: h2::SendStream<Bytes>,
}

impl Client {
    /// Opens one.
    pub(crate) async fn open_socket(&mut self, path: &str) -> Socket {
        // The server's settings come with the first answer at the latest.
        self.ask("/a").await;
        let mut send = soon(self.send.clone().ready()).await.unwrap();
        assert!(send.is_extended_connect_protocol_enabled());
        let (answer, out) = send.send_request(socket_request(path), false).unwrap();
        let (head, body) = soon(answer).await.unwrap().into_parts();
        Socket {
            response: Response::from_parts(head, ()),
            body,
            out,
        }
    }
}

impl Socket {
    /// Sends a frame without its mask.
    fn send(&mut self, kind: u8, payload: &[u8], end: bool) {
        let length = u8::try_from(payload.len()).unwrap();
        let frame = [&[0x80 | kind, 0x80 | length, 0, 0, 0, 0], payload].concat();
        self.out.send_data(frame.into(), end).unwrap();
    }

    /// Answers a Close, or begins it.
    pub(crate) fn close(&mut self) {
        self.send(8, &1000u16.to_be_bytes(), true);
    }

    /// Reads what the peer sends until it is as long as `length`.
    pub(crate) async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < length {
            let part = soon(self.body.data()).await.unwrap().unwrap();
            let window = self.body.flow_control();
            window.release_capacity(part.len()).unwrap();
            read.extend_from_slice(&part);
        }
        read
    }

    /// Nothing more comes.
    async fn ends(&mut self) {
        while let Some(part) = soon(self.body.data()).await {
            assert!(part.unwrap().is_empty());
        }
    }
}

/// Beside other streams, listed by itself, told of the drain, and waited for.
#[tokio::test]
async fn a_websocket_on_a_stream_is_told_of_the_drain() {
    let server = serve(any_port().both(config()), |b| b).await;
    for encrypted in [false, true] {
        let mut client = match encrypted {
            false => Client::plain(server.address).await,
            true => Client::over(secure(server.address, &["h2"]).await).await,
        };
        let mut socket = client.open_socket("/ws").await;
        let response = &socket.response;
        assert_eq!(response.status(), 200);
        for name in ["connection", "upgrade", "sec-websocket-accept"] {
            assert!(!response.headers().contains_key(name), "{response:?}");
        }
        socket.send(1, b"hello", false);
        assert_eq!(socket.read(7).await, b"\x81\x05hello");
        client.ask("/a").await;
        let now = server.handle.snapshot();
        let listed: Vec<_> = (now.stragglers.iter())
            .map(|s| (s.method.as_str(), s.target.as_str(), s.state))
            .collect();
        assert_eq!(listed, [("GET", "/ws", State::Upgraded)]);
        if !encrypted {
            // Closed by the client: the connection goes on, and nothing is left of the socket.
            socket.close();
            assert_eq!(socket.read(4).await, b"\x88\x02\x03\xe8");
            socket.ends().await;
            server.until(|now| now.stragglers.is_empty()).await;
            client.ask("/a").await;
            continue;
        }
        server.handle.wish_shutdown();
        assert_eq!(socket.read(4).await, b"\x88\x02\x03\xe9", "1001");
        // It is not cut off: the client answers in its own time.
        server.handle.reached(curtsy_server::Phase::Draining).await;
        socket.close();
        socket.ends().await;
        soon(client.driver).await.unwrap().unwrap();
    }
    assert!(server.stopped().await.is_drained());
}

/// What opens no socket: an answer that is not for one, an error, a cancelled stream.
#[tokio::test]
async fn what_is_no_websocket_is_refused_and_a_reset_ends_one() {
    let server = serve(any_port(), |b| b).await;
    let mut client = Client::plain(server.address).await;
    client.ask("/a").await;
    for (path, status) in [("/a", StatusCode::NOT_IMPLEMENTED), ("/ws", StatusCode::OK)] {
        let mut send = soon(client.send.clone().ready()).await.unwrap();
        let (answer, mut out) = send.send_request(socket_request(path), false).unwrap();
        let response = soon(answer).await.unwrap();
        assert_eq!(response.status(), status);
        out.send_reset(h2::Reason::CANCEL);
    }
    server.until(|now| now.stragglers.is_empty()).await;
    client.ask("/a").await;
    server.stop().await;
}

#[tokio::test]
async fn websockets_on_streams_can_be_switched_off() {
    let limits = Limits {
        http2: Http2Limits {
            websockets: false,
            ..Http2Limits::default()
        },
        ..Limits::default()
    };
    let server = serve(any_port(), |b| b.limits(limits)).await;
    let mut client = Client::plain(server.address).await;
    client.ask("/a").await;
    assert!(!client.send.is_extended_connect_protocol_enabled());
    server.stop().await;
}
