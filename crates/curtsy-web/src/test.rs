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
///
/// ```
/// # use curtsy_web::{Context, Engine, test::Client};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let mut r = Engine::new();
/// r.any("/echo", async |c: &mut Context| {
///     let body = c.take_body();
///     c.body(200, body);
/// });
/// let client = Client::new(r);
/// let request = client.post("/echo").header("X-Key", "tea").body("hello");
/// assert_eq!(request.send().await.text(), "hello");
/// # });
/// ```
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    request: Request<Body>,
}

/// An answer, body included.
///
/// ```
/// # use curtsy_web::{Context, Engine, test::Client};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let mut r = Engine::new();
/// r.any("/echo", async |c: &mut Context| {
///     let body = c.take_body();
///     c.body(200, body);
/// });
/// let client = Client::new(r);
/// let answer = client.post("/echo").body("hello").send().await;
/// assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    broken: bool,
}

impl Client {
    /// A client of `engine`, as if connected from `192.0.2.1:1234` without TLS.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.get("/ip", async |c: &mut Context| {
    ///     let ip = c.client_ip().map(|ip| ip.to_string()).unwrap_or_default();
    ///     c.string(200, ip);
    /// });
    /// assert_eq!(Client::new(r).get("/ip").send().await.text(), "192.0.2.1");
    /// # });
    /// ```
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            peer: Address::Tcp(SocketAddr::from(([192, 0, 2, 1], 1234))),
            tls: false,
            drain: Arc::new(Signal::new()),
        }
    }

    /// The same client, connected from another address.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.get("/ip", async |c: &mut Context| {
    ///     let ip = c.client_ip().map(|ip| ip.to_string()).unwrap_or_default();
    ///     c.string(200, ip);
    /// });
    /// let peer: std::net::SocketAddr = "198.51.100.7:1".parse().unwrap();
    /// let client = Client::new(r).with_peer(peer.into());
    /// assert_eq!(client.get("/ip").send().await.text(), "198.51.100.7");
    /// # });
    /// ```
    #[must_use]
    pub fn with_peer(mut self, peer: Address) -> Self {
        self.peer = peer;
        self
    }

    /// The same client, connected by TLS.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| c.string(200, c.scheme()));
    /// assert_eq!(Client::new(r).with_tls().get("/").send().await.text(), "https");
    /// # });
    /// ```
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Tells the engine's requests that the server drains.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.get("/poll", async |c: &mut Context| {
    ///     c.draining().wait().await;
    ///     c.string(200, "ask again");
    /// });
    /// let client = Client::new(r);
    /// client.drain();
    /// assert_eq!(client.get("/poll").send().await.text(), "ask again");
    /// # });
    /// ```
    pub fn drain(&self) {
        self.drain.raise();
    }

    /// A request.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.handle("PURGE", "/cache", async |c: &mut Context| c.status(204));
    /// assert_eq!(Client::new(r).request("PURGE", "/cache").send().await.status(), 204);
    /// # });
    /// ```
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
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/", async |c: &mut Context| {
    ///     let method = c.method().to_string();
    ///     c.string(200, method);
    /// });
    /// assert_eq!(Client::new(r).get("/").send().await.text(), "GET");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn get(&self, uri: &str) -> RequestBuilder {
        self.request("GET", uri)
    }

    /// A HEAD.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.head("/", async |c: &mut Context| c.header("X-Here", "yes"));
    /// assert_eq!(Client::new(r).head("/").send().await.header("x-here"), "yes");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn head(&self, uri: &str) -> RequestBuilder {
        self.request("HEAD", uri)
    }

    /// A POST.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/", async |c: &mut Context| {
    ///     let method = c.method().to_string();
    ///     c.string(200, method);
    /// });
    /// assert_eq!(Client::new(r).post("/").send().await.text(), "POST");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn post(&self, uri: &str) -> RequestBuilder {
        self.request("POST", uri)
    }

    /// A PUT.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/", async |c: &mut Context| {
    ///     let method = c.method().to_string();
    ///     c.string(200, method);
    /// });
    /// assert_eq!(Client::new(r).put("/").send().await.text(), "PUT");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn put(&self, uri: &str) -> RequestBuilder {
        self.request("PUT", uri)
    }

    /// A PATCH.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/", async |c: &mut Context| {
    ///     let method = c.method().to_string();
    ///     c.string(200, method);
    /// });
    /// assert_eq!(Client::new(r).patch("/").send().await.text(), "PATCH");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn patch(&self, uri: &str) -> RequestBuilder {
        self.request("PATCH", uri)
    }

    /// A DELETE.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/", async |c: &mut Context| {
    ///     let method = c.method().to_string();
    ///     c.string(200, method);
    /// });
    /// assert_eq!(Client::new(r).delete("/").send().await.text(), "DELETE");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the URI is malformed.
    pub fn delete(&self, uri: &str) -> RequestBuilder {
        self.request("DELETE", uri)
    }

    fn info(&self) -> ConnectionInfo {
        let arrival = Arrival {
            id: 1,
            origin: Arc::new(Origin::new("test", Arc::clone(&self.drain))),
            peer: self.peer.clone(),
            local: Address::Tcp(SocketAddr::from(([192, 0, 2, 2], 80))),
            tls: self.tls,
            carried: false,
            accepted: Moment::from_millis(0),
        };
        let entry = Entry::new(arrival, State::Active, Moment::from_millis(0));
        ConnectionInfo::new(Arc::new(entry))
    }
}

impl RequestBuilder {
    /// Adds a header.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| {
    ///     let key = c.get_header("x-key").to_owned();
    ///     c.string(200, key);
    /// });
    /// let answer = Client::new(r).get("/").header("X-Key", "tea").send().await;
    /// assert_eq!(answer.text(), "tea");
    /// # });
    /// ```
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
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// assert_eq!(client.post("/echo").body("hello").send().await.text(), "hello");
    /// # });
    /// ```
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Sets the body to a value as JSON, and its type.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// assert_eq!(client.post("/echo").json(&[1, 2]).send().await.text(), "[1,2]");
    /// # });
    /// ```
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
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// let answer = client.post("/echo").form(&[("name", "ada l")]).send().await;
    /// assert_eq!(answer.text(), "name=ada+l");
    /// # });
    /// ```
    pub fn form(self, pairs: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.kind("application/x-www-form-urlencoded").body(body)
    }

    /// Puts a value into the request's extensions.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// #[derive(Clone)]
    /// struct Tenant(&'static str); // what a layer outside would have put there
    ///
    /// r.get("/", async |c: &mut Context| {
    ///     let tenant = c.of_type::<Tenant>().map_or("nobody", |tenant| tenant.0);
    ///     c.string(200, tenant);
    /// });
    /// let answer = Client::new(r).get("/").extension(Tenant("ann")).send().await;
    /// assert_eq!(answer.text(), "ann");
    /// # });
    /// ```
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.request.extensions_mut().insert(value);
        self
    }

    /// Sends the request and reads the whole answer. A stream is read to its end.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// assert_eq!(client.get("/echo").send().await.status(), 200);
    /// # });
    /// ```
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
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// let response = client.get("/echo").send_open().await;
    /// assert_eq!(response.status(), 200); // and its body has not been read
    /// # });
    /// ```
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
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// assert_eq!(client.get("/none").send().await.status(), 404);
    /// # });
    /// ```
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The headers.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// let answer = client.get("/none").send().await;
    /// assert!(answer.headers().contains_key("content-type"));
    /// # });
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header as text; empty if it is not there.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// let answer = client.get("/none").send().await;
    /// assert_eq!(answer.header("content-type"), "text/plain");
    /// assert_eq!(answer.header("x-other"), "");
    /// # });
    /// ```
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The body.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// let answer = client.post("/echo").body("hello").send().await;
    /// assert_eq!(answer.bytes(), "hello");
    /// # });
    /// ```
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text, with replacements where it is not UTF-8.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.any("/echo", async |c: &mut Context| {
    ///     let body = c.take_body();
    ///     c.body(200, body);
    /// });
    /// let client = Client::new(r);
    /// assert_eq!(client.get("/none").send().await.text(), "404 page not found");
    /// # });
    /// ```
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| c.json(200, &[1, 2]));
    /// assert_eq!(Client::new(r).get("/").send().await.json()[1], 2);
    /// # });
    /// ```
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
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| {
    ///     let chunks = [Ok("half "), Err(std::io::Error::other("no more"))];
    ///     c.stream(200, futures_util::stream::iter(chunks));
    /// });
    /// let answer = Client::new(r).get("/").send().await;
    /// assert!(answer.is_broken() && answer.text() == "half ");
    /// # });
    /// ```
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}
