//! A WebSocket that echoes and says goodbye to a drain, as a service makes it for HTTP/1.1; and
//! the same over HTTP/2.

use bytes::Bytes;
use curtsy_server::{Body, Draining};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
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
