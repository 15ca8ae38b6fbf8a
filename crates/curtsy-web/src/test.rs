//! A client without a socket: requests go straight into the engine.
//!
//! For tests of your handlers. What only a server does (framing, `Content-Length`, `Date`) is not
//! there; a HEAD's answer loses its body as on the wire.

use crate::body::Body;
use crate::engine::Engine;
use bytes::Bytes;
use curtsy_lifecycle::{Address, Arrival, ConnectionInfo, Entry, Moment, Origin, Signal, State};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;

/// Sends requests into an engine.
///
/// ```
/// use curtsy_web::{Context, Engine, test::Client};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut r = Engine::new();
/// r.get("/hello/:name", async |c: &mut Context| {
///     let text = format!("Hello {}", c.param("name"));
///     c.string(200, text);
/// });
///
/// let client = Client::new(r);
/// let answer = client.get("/hello/ann").header("Accept", "text/plain").send().await;
/// assert_eq!(answer.status(), 200);
/// assert_eq!(answer.text(), "Hello ann");
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    engine: Engine,
    peer: Address,
    tls: bool,
    drain: Arc<Signal>,
}

/// A request to be sent.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    request: Request<Body>,
}

/// An answer, body included.
#[derive(Clone, Debug)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    broken: bool,
}

impl Client {
    /// A client of `engine`, as if connected from `192.0.2.1:1234` without TLS.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            peer: Address::Tcp(SocketAddr::from(([192, 0, 2, 1], 1234))),
            tls: false,
            drain: Arc::new(Signal::new()),
        }
    }

    /// The same client, connected from another address.
    #[must_use]
    pub fn with_peer(mut self, peer: Address) -> Self {
        self.peer = peer;
        self
    }

    /// The same client, connected by TLS.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Tells the engine's requests that the server drains.
    pub fn drain(&self) {
        self.drain.raise();
    }

    /// A request.
    ///
    /// # Panics
    /// If the method or the URI is malformed.
    pub fn request(&self, method: &str, uri: &str) -> RequestBuilder {
        let Ok(method) = Method::from_bytes(method.as_bytes()) else {
            panic!("{method:?} is no method");
        };
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        match uri.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => panic!("{uri:?} is no URI: {error}"),
        }
        RequestBuilder {
            client: self.clone(),
            request,
        }
    }

    /// A GET.
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn get(&self, uri: &str) -> RequestBuilder {
        self.request("GET", uri)
    }

    /// A HEAD.
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn head(&self, uri: &str) -> RequestBuilder {
        self.request("HEAD", uri)
    }

    /// A POST.
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn post(&self, uri: &str) -> RequestBuilder {
        self.request("POST", uri)
    }

    /// A PUT.
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn put(&self, uri: &str) -> RequestBuilder {
        self.request("PUT", uri)
    }

    /// A PATCH.
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn patch(&self, uri: &str) -> RequestBuilder {
        self.request("PATCH", uri)
    }

    /// A DELETE.
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn delete(&self, uri: &str) -> RequestBuilder {
        self.request("DELETE", uri)
    }

    fn info(&self) -> ConnectionInfo {
        let arrival = Arrival {
            id: 1,
            origin: Arc::new(Origin {
                listener: "test".into(),
                signal: Arc::clone(&self.drain),
            }),
            peer: self.peer.clone(),
            local: Address::Tcp(SocketAddr::from(([192, 0, 2, 2], 80))),
            tls: self.tls,
            accepted: Moment::from_millis(0),
        };
        let entry = Entry::new(arrival, State::Active, Moment::from_millis(0));
        ConnectionInfo::new(Arc::new(entry))
    }
}

impl RequestBuilder {
    /// Adds a header.
    ///
    /// # Panics
    /// If the name or the value is malformed.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let name = HeaderName::from_bytes(name.as_bytes());
        match (name, HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => self.request.headers_mut().append(name, value),
            (name, value) => panic!("no header: {name:?} {value:?}"),
        };
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Sets the body to a value as JSON, and its type.
    ///
    /// # Panics
    /// If the value cannot be JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => self.kind("application/json").body(json),
            Err(error) => panic!("no JSON: {error}"),
        }
    }

    /// Sets the body to a form, and its type.
    pub fn form(self, pairs: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.kind("application/x-www-form-urlencoded").body(body)
    }

    /// Puts a value into the request's extensions.
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.request.extensions_mut().insert(value);
        self
    }

    /// Sends the request and reads the whole answer. A stream is read to its end.
    pub async fn send(self) -> Answer {
        let head = self.request.method() == Method::HEAD;
        let response = self.send_open().await;
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut broken = false;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if head {
            bytes.clear();
        }
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: bytes.into(),
            broken,
        }
    }

    /// Sends the request and returns the answer with its body unread.
    pub async fn send_open(self) -> http::Response<Body> {
        let info = self.client.info();
        match self.client.engine.call_with(self.request, Some(info)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn kind(mut self, content_type: &'static str) -> Self {
        let value = HeaderValue::from_static(content_type);
        self.request
            .headers_mut()
            .insert(header::CONTENT_TYPE, value);
        self
    }
}

impl Answer {
    /// The status as a number.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header as text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The body.
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text, with replacements where it is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON: {error}: {}", self.text()),
        }
    }

    /// Whether the body ended with an error.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}
