//! WebSockets that know the drain: they say goodbye (1001) and wait for the peer to say it too.
//!
//! Invariants:
//! - A socket is told about the drain whenever it is asked for a message: `recv` sends the Close,
//!   reads on to the peer's Close for at most [`CLOSE_WAIT`], then gives `None`.
//! - A browser on another site cannot open one, unless [`WebSocketOptions::any_origin`] allows it.

use crate::context::Context;
use crate::error::{BoxError, Error};
use bytes::Bytes;
use curtsy_lifecycle::Draining;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Wire};

/// How long the peer may take to answer a Close: long enough for a slow network, short enough for
/// any drain.
///
/// ```
/// assert!(curtsy_web::CLOSE_WAIT.as_secs() < 30); // the drain's deadline
/// ```
pub const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// The largest message that is received, in bytes: 16 MiB.
///
/// ```
/// let options = curtsy_web::WebSocketOptions::default();
/// assert_eq!(options.max_message, curtsy_web::MESSAGE_BYTES_MAX);
/// ```
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A message.
///
/// ```
/// # use curtsy_web::{Message, WebSocket};
/// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
/// if let Some(Ok(Message::Text(text))) = ws.recv().await {
///     ws.send(Message::Text(text.to_uppercase())).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

/// How a WebSocket is opened.
///
/// ```
/// use curtsy_web::WebSocketOptions;
///
/// let options = WebSocketOptions {
///     protocols: vec!["chat.v2".into(), "chat.v1".into()],
///     ..WebSocketOptions::default()
/// };
/// ```
#[derive(Clone, Debug)]
pub struct WebSocketOptions {
    /// The subprotocols that the server speaks, the preferred one first. Default none.
    pub protocols: Vec<String>,
    /// The largest message that is received, in bytes. Default [`MESSAGE_BYTES_MAX`].
    pub max_message: usize,
    /// Whether browsers may open it from pages of other hosts. Default `false`: a request whose
    /// `Origin` is not its `Host` is refused with 403.
    pub any_origin: bool,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            protocols: Vec::new(),
            max_message: MESSAGE_BYTES_MAX,
            any_origin: false,
        }
    }
}

/// An open WebSocket.
///
/// ```
/// # use curtsy_web::{Message, WebSocket};
/// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
/// ws.text("hello").await?;
/// while let Some(Ok(message)) = ws.recv().await {
///     ws.send(message).await?;
/// }
/// # Ok(()) }
/// ```
pub struct WebSocket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    draining: Draining,
    state: State,
    protocol: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Our Close is sent; until then the peer's is waited for.
    Closing(Instant),
    Closed,
}

impl WebSocket {
    /// The next message; `None` when the socket is closed, be it by the peer, by
    /// [`close`](Self::close) or by the drain. Pings are answered on the way.
    ///
    /// ```
    /// # use curtsy_web::{Message, WebSocket};
    /// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
    /// while let Some(message) = ws.recv().await {
    ///     println!("{:?}", message?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// Cancel safety: a message is never lost by dropping the future.
    pub async fn recv(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match self.state {
                State::Closed => return None,
                State::Closing(until) => {
                    let next = tokio::time::timeout_at(until, self.stream.next());
                    match next.await {
                        Ok(Some(Ok(_))) => {}
                        Ok(None | Some(Err(_))) | Err(_) => self.state = State::Closed,
                    }
                }
                State::Open => {
                    let draining = self.draining.wait();
                    tokio::select! {
                        next = self.stream.next() => match next {
                            Some(Ok(Wire::Text(text))) => {
                                return Some(Ok(Message::Text(text.as_str().to_owned())));
                            }
                            Some(Ok(Wire::Binary(bytes))) => {
                                return Some(Ok(Message::Binary(bytes)));
                            }
                            // The answer to a Close goes out with the next read.
                            Some(Ok(_)) => {}
                            None => self.state = State::Closed,
                            Some(Err(error)) => {
                                self.state = State::Closed;
                                return is_unexpected(&error).then(|| Err(Error::private(error)));
                            }
                        },
                        () = draining => self.begin_close(CloseCode::Away, "going away").await,
                    }
                }
            }
        }
    }

    /// Sends a message.
    ///
    /// ```
    /// # use curtsy_web::{Message, WebSocket};
    /// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
    /// ws.send(Message::Binary(vec![1, 2, 3].into())).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the socket is closed, or closing because of the drain.
    ///
    /// Cancel safety: the message may or may not be sent.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        if self.state != State::Open {
            return Err(Error::private("the WebSocket is closing"));
        }
        let message = match message {
            Message::Text(text) => Wire::text(text),
            Message::Binary(bytes) => Wire::binary(bytes),
        };
        self.stream.send(message).await.map_err(Error::private)
    }

    /// Sends text.
    ///
    /// ```
    /// # use curtsy_web::{Message, WebSocket};
    /// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
    /// ws.text("hello").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn text(&mut self, text: impl Into<String>) -> Result<(), Error> {
        self.send(Message::Text(text.into())).await
    }

    /// Closes: sends a Close with a code (1000 is an ordinary end) and a reason, and waits for the
    /// peer's, at most [`CLOSE_WAIT`]. Messages that still arrive are dropped.
    ///
    /// ```
    /// # use curtsy_web::{Message, WebSocket};
    /// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
    /// ws.close(1000, "that is all").await;
    /// # Ok(()) }
    /// ```
    pub async fn close(mut self, code: u16, reason: &str) {
        if self.state == State::Open {
            self.begin_close(CloseCode::from(code), reason).await;
        }
        while self.recv().await.is_some() {}
    }

    /// The subprotocol that was agreed on.
    ///
    /// ```
    /// # use curtsy_web::{Message, WebSocket};
    /// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
    /// let is_v2 = ws.protocol() == Some("chat.v2");
    /// # Ok(()) }
    /// ```
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Says that the server wants to end: for those who only send.
    ///
    /// ```
    /// # use curtsy_web::{Message, WebSocket};
    /// # async fn example(mut ws: WebSocket) -> Result<(), curtsy_web::Error> {
    /// let draining = ws.draining();
    /// while !draining.is_draining() {
    ///     ws.text("tick").await?;
    ///     tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    /// }
    /// ws.close(1001, "going away").await;
    /// # Ok(()) }
    /// ```
    pub fn draining(&self) -> Draining {
        self.draining.clone()
    }

    async fn begin_close(&mut self, code: CloseCode, reason: &str) {
        let until = Instant::now() + CLOSE_WAIT;
        self.state = State::Closing(until);
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        let sent = tokio::time::timeout_at(until, self.stream.send(Wire::Close(Some(frame))));
        if !matches!(sent.await, Ok(Ok(()))) {
            self.state = State::Closed;
        }
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("state", &self.state)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// Whether an error is more than the peer's going away.
fn is_unexpected(error: &tungstenite::Error) -> bool {
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    !matches!(
        error,
        tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(ResetWithoutClosingHandshake)
    )
}

impl Context {
    /// Opens a WebSocket and serves it in a task of its own, which goes on after the handler. What
    /// is no proper request for one is answered with 400, 403 or 426.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine, WebSocket};
    ///
    /// let mut r = Engine::new();
    /// r.get("/echo", async |c: &mut Context| {
    ///     c.websocket(async |mut ws: WebSocket| {
    ///         while let Some(Ok(message)) = ws.recv().await {
    ///             if ws.send(message).await.is_err() {
    ///                 break;
    ///             }
    ///         }
    ///     });
    /// });
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn websocket<F, Fut>(&mut self, serve: F)
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.websocket_with(&WebSocketOptions::default(), serve);
    }

    /// Opens a WebSocket with options.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// use curtsy_web::{WebSocket, WebSocketOptions};
    ///
    /// // For pages of any host.
    /// let options = WebSocketOptions { any_origin: true, ..WebSocketOptions::default() };
    /// c.websocket_with(&options, async |mut ws: WebSocket| {
    ///     let _ = ws.text("hello").await;
    /// });
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn websocket_with<F, Fut>(&mut self, options: &WebSocketOptions, serve: F)
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (key, upgrade) = match self.check_upgrade(options) {
            Ok(checked) => checked,
            Err(error) => return self.fail(error),
        };
        let offered = self.get_header("sec-websocket-protocol");
        let offered: Vec<&str> = offered.split(',').map(str::trim).collect();
        let wanted = options.protocols.iter();
        let protocol = wanted.clone().find(|own| offered.contains(&own.as_str()));
        let protocol = protocol.cloned();
        if let Some(protocol) = &protocol {
            self.header(header::SEC_WEBSOCKET_PROTOCOL, protocol.as_str());
        }
        self.header(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        self.header(header::UPGRADE, HeaderValue::from_static("websocket"));
        self.header(header::SEC_WEBSOCKET_ACCEPT, key);
        self.write_bare(StatusCode::SWITCHING_PROTOCOLS, crate::Body::empty());
        let draining = self.draining();
        let config = WebSocketConfig::default()
            .max_message_size(Some(options.max_message))
            .max_frame_size(Some(options.max_message));
        tokio::spawn(async move {
            // The client may be gone before the switch: then there is nobody to serve.
            let Ok(upgraded) = upgrade.await else {
                return;
            };
            let io = TokioIo::new(upgraded);
            let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
            serve(WebSocket {
                stream,
                draining,
                state: State::Open,
                protocol,
            })
            .await;
        });
    }

    /// Checks a request for a WebSocket; the key to answer and the upgrade to come.
    fn check_upgrade(&mut self, options: &WebSocketOptions) -> Result<(String, OnUpgrade), Error> {
        let refuse = |status: StatusCode, why: &str| Err(Error::new(status, why));
        if *self.method() != Method::GET || !self.is_websocket() {
            return refuse(
                StatusCode::BAD_REQUEST,
                "this is no request for a WebSocket",
            );
        }
        if self.get_header("sec-websocket-version") != "13" {
            self.header(header::SEC_WEBSOCKET_VERSION, "13");
            return refuse(StatusCode::UPGRADE_REQUIRED, "only version 13 is spoken");
        }
        let key = self.get_header("sec-websocket-key");
        if key.is_empty() {
            return refuse(StatusCode::BAD_REQUEST, "the key is missing");
        }
        let key = derive_accept_key(key.as_bytes());
        if !options.any_origin && !self.is_same_origin() {
            return refuse(StatusCode::FORBIDDEN, "the page is of another origin");
        }
        match self.request.extensions.remove::<OnUpgrade>() {
            Some(upgrade) => Ok((key, upgrade)),
            None => {
                let cause: BoxError = "the server does not allow upgrades".into();
                Err(Error::private(cause))
            }
        }
    }

    /// Whether the page that asks is of this host. Without an `Origin` it is no browser that asks.
    fn is_same_origin(&self) -> bool {
        let origin = self.get_header("origin");
        if origin.is_empty() {
            return true;
        }
        let host = self.uri().authority().map(|authority| authority.as_str());
        let host = host.unwrap_or_else(|| self.get_header("host"));
        let of = origin.split_once("://").map_or("", |(_, host)| host);
        !of.is_empty() && of.eq_ignore_ascii_case(host)
    }
}
