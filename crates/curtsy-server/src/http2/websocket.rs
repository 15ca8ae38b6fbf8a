//! WebSockets over HTTP/2: the extended CONNECT of RFC 8441.
//!
//! To the service a request for one looks as it does in HTTP/1.1, where it is a GET with an
//! upgrade, and the service's 101 becomes the 200 that the client waits for. So whatever opens
//! WebSockets over HTTP/1.1 opens them over HTTP/2, and needs not know.
//!
//! Invariants:
//! - An answer other than 101 opens nothing: a 2xx that was meant for a page would.
//! - What a stream holds, its entry in the ledger above all, it holds until its socket is closed.
//!
//! Deliberately absent: plain CONNECT, and protocols other than `websocket`.

use crate::http1::Answer;
use crate::http2::service::Kept;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::ext::Protocol;
use std::cell::RefCell;
use std::sync::{Arc, Weak};

/// What a client sends in its place in HTTP/1.1. Nobody sees the answer to it.
const KEY: HeaderValue = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");

thread_local! {
    /// The stream whose answer opened a socket just now. hyper takes up the socket before anything
    /// else runs on the thread; if it does not, the stream is gone, and so is what this points to.
    static OPENED: RefCell<Weak<Kept>> = const { RefCell::new(Weak::new()) };
}

/// Whether it asks for a WebSocket.
pub(crate) fn is_asked<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|p| p.as_str() == "websocket")
}

/// The same request in terms of HTTP/1.1.
pub(crate) fn as_upgrade<B>(request: Request<B>) -> Request<B> {
    let (mut parts, body) = request.into_parts();
    parts.extensions.remove::<Protocol>();
    parts.method = Method::GET;
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    if let Some(authority) = parts.uri.authority()
        && !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, KEY);
    let target = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Request::from_parts(parts, body)
}

/// The service's answer in terms of HTTP/2; whether it opens the socket.
pub(crate) fn answer<B: http_body::Body>(
    response: Response<Answer<B>>,
    kept: &Arc<Kept>,
) -> Response<Answer<B>> {
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let mut response = response;
            *response.status_mut() = StatusCode::OK;
            for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH] {
                response.headers_mut().remove(name);
            }
            OPENED.replace(Arc::downgrade(kept));
            response
        }
        status if status.is_success() => {
            let text = "there is no WebSocket here\n";
            let mut response = Response::new(Answer::text(text, kept.link().clone()));
            *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
            response
        }
        _ => response,
    }
}

/// What the stream held whose answer opened a socket just now, if one did.
pub(crate) fn take_opened() -> Option<Arc<Kept>> {
    OPENED.take().upgrade()
}
