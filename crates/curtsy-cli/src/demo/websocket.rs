//! A WebSocket that echoes, and says goodbye when the server drains.

use crate::demo::routes::{DemoBody, text};
use curtsy::{Body, Draining};
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

/// Answers a request for a WebSocket, and serves it once the protocol has changed.
pub(crate) fn accept(mut request: Request<Body>) -> Response<DemoBody> {
    let headers = request.headers();
    let asked = has(headers, &CONNECTION, "upgrade")
        && has(headers, &UPGRADE, "websocket")
        && has(headers, &SEC_WEBSOCKET_VERSION, "13");
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|_| asked) else {
        let mut answer = text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n");
        answer
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
        return answer;
    };
    let accept = derive_accept_key(key.as_bytes());
    let draining = request
        .body()
        .connection()
        .map_or_else(Draining::never, |connection| connection.draining());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => echo(upgraded, draining).await,
            Err(error) => tracing::debug!(%error, "no WebSocket after all"),
        }
    });
    let mut answer = Response::new(DemoBody::Text(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

fn has(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

async fn echo(upgraded: Upgraded, draining: Draining) {
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let mut told = false;
    loop {
        let message = tokio::select! {
            () = draining.wait(), if !told => {
                told = true;
                let away = CloseFrame {
                    code: CloseCode::Away,
                    reason: "the server is stopping".into(),
                };
                if socket.close(Some(away)).await.is_err() {
                    return;
                }
                continue;
            }
            message = socket.next() => message,
        };
        let answered = match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) if !told => {
                socket.send(message).await
            }
            // Pings and the close handshake are answered by the library.
            Some(Ok(_)) => socket.flush().await,
            Some(Err(_)) | None => return,
        };
        if answered.is_err() {
            return;
        }
    }
}
