//! What to ask, how often, for how long, and what counts as an answer.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::answer::{Answer, NUMBER_FIELD};
use crate::error::Error;
use crate::outcome::{Loss, Trouble};
use crate::running::Running;
use crate::target::Target;
use crate::tls::{Tls, Trust};
use crate::upload::Upload;

/// A run to be: made by its builder methods, begun by [`start`](Self::start).
///
/// ```no_run
/// # async fn example() -> Result<(), curtsy_prove::Error> {
/// use std::time::Duration;
/// use curtsy_prove::Plan;
///
/// let report = Plan::to("http://127.0.0.1:9000/")?
///     .connections(200)
///     .think([0, 2, 50].map(Duration::from_millis))
///     .duration(Duration::from_secs(3))
///     .start()
///     .finish()
///     .await;
/// println!("{report}");
/// assert!(report.is_clean());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) target: Target,
    pub(crate) connections: usize,
    pub(crate) think: Vec<Duration>,
    pub(crate) duration: Option<Duration>,
    pub(crate) requests_each: Option<u64>,
    pub(crate) timeout: Duration,
    pub(crate) is_connection_per_request: bool,
    pub(crate) is_refusal_a_loss: bool,
    pub(crate) hold_head: Option<Duration>,
    pub(crate) method: Method,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) upload: Option<Upload>,
    pub(crate) expect: Expect,
    pub(crate) trust: Trust,
    pub(crate) protocol: Protocol,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// With so many clients to a connection.
    Http2 {
        streams: usize,
    },
    /// With messages of so many bytes.
    WebSocket {
        bytes: usize,
    },
}

type BodyCheck = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Expect {
    status: Option<u16>,
    length: Option<u64>,
    body: Option<BodyCheck>,
    pub(crate) is_recording: bool,
}

impl Plan {
    /// A plan for `http://HOST[:PORT]/PATH` or `https://...`. A host name is resolved here, once, and this may block.
    ///
    /// # Errors
    /// [`is_target`](Error::is_target): not such a URL, or a name without an address.
    pub fn to(url: &str) -> Result<Self, Error> {
        Target::parse(url).map(Self::new)
    }

    /// A plan for a TCP address, with the path (and query) to ask for.
    pub fn to_address(address: SocketAddr, path: &str) -> Self {
        Self::new(Target::at_address(address, path))
    }

    /// A plan for a Unix socket, with the path (and query) to ask for.
    pub fn to_unix(socket: impl AsRef<Path>, path: &str) -> Self {
        Self::new(Target::at_unix(socket.as_ref(), path))
    }

    fn new(target: Target) -> Self {
        Self {
            target,
            connections: CONNECTIONS_DEFAULT,
            think: vec![Duration::ZERO],
            duration: None,
            requests_each: None,
            timeout: TIMEOUT_DEFAULT,
            is_connection_per_request: false,
            is_refusal_a_loss: false,
            hold_head: None,
            method: Method::GET,
            fields: Vec::new(),
            upload: None,
            expect: Expect::default(),
            trust: Trust::default(),
            protocol: Protocol::Http1,
        }
    }

    /// How many connections at a time, each with one client (or [more](Self::http2)). Default 200.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Pauses between an answer and the next request: client `i` always takes the `i % n`th. Default: none.
    #[must_use]
    pub fn think(mut self, pauses: impl IntoIterator<Item = Duration>) -> Self {
        self.think = pauses.into_iter().collect();
        if self.think.is_empty() {
            self.think.push(Duration::ZERO);
        }
        self
    }

    /// Begin no request after this time. Default: go on until [`Running::stop`].
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// Each client ends after so many requests; one that cannot connect goes on trying until the run is stopped. Default: no
    /// such limit.
    #[must_use]
    pub fn requests_each(mut self, requests: u64) -> Self {
        self.requests_each = Some(requests);
        self
    }

    /// The time for a whole request, from its first byte written to its answer's last byte read; also for a connect.
    /// Default 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A new connection for each request, with `Connection: close`. The connect is part of the request's latency.
    #[must_use]
    pub fn connection_per_request(mut self) -> Self {
        self.is_connection_per_request = true;
        self
    }

    /// A refused connection is a loss, and the client tries again. By default it ends the client and is no loss: the
    /// listener was closed, which at the end of a server is as it should be, and during a restart never is.
    #[must_use]
    pub fn refused_is_loss(mut self) -> Self {
        self.is_refusal_a_loss = true;
        self
    }

    /// Writes one half of each head, waits so long, then writes the rest. HTTP/2 sends heads whole.
    #[must_use]
    pub fn hold_head(mut self, pause: Duration) -> Self {
        self.hold_head = Some(pause);
        self
    }

    /// Speaks HTTP/2, over TLS as agreed by ALPN, else without asking. Each connection has so many clients, each with one
    /// request at a time.
    ///
    /// # Panics
    /// If `streams` is 0.
    #[must_use]
    pub fn http2(mut self, streams: usize) -> Self {
        assert!(streams > 0, "a connection needs a client");
        self.protocol = Protocol::Http2 { streams };
        self
    }

    /// Speaks WebSocket to a server that echoes: each message, of at least so many bytes of text, is a request, its echo the
    /// answer. Method, upload and expectations have no meaning here.
    #[must_use]
    pub fn websocket(mut self, bytes: usize) -> Self {
        self.protocol = Protocol::WebSocket { bytes };
        self
    }

    /// Takes any certificate: for servers with one of their own making.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.trust = Trust::Anybody;
        self
    }

    /// Trusts these authorities (PEM) and no others. By default those of the system are trusted.
    ///
    /// # Errors
    /// [`is_target`](Error::is_target): not PEM, or no certificate in it.
    pub fn trust_only(mut self, pem: &[u8]) -> Result<Self, Error> {
        self.trust = Trust::from_pem(pem)?;
        Ok(self)
    }

    /// The method. Default GET, or POST with an upload.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Adds a field to each request's head.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// POSTs a body of so many bytes, written as fast as the server takes it.
    #[must_use]
    pub fn upload(mut self, bytes: u64) -> Self {
        self.method = Method::POST;
        self.upload = Some(Upload {
            bytes,
            rate_bytes: None,
        });
        self
    }

    /// POSTs a body of so many bytes, written at `bytes_per_second`.
    ///
    /// # Panics
    /// If the rate is 0: such a body would never end.
    #[must_use]
    pub fn upload_paced(mut self, bytes: u64, bytes_per_second: u64) -> Self {
        assert!(bytes_per_second > 0, "an upload needs a rate above 0");
        self = self.upload(bytes);
        if let Some(upload) = &mut self.upload {
            upload.rate_bytes = Some(bytes_per_second);
        }
        self
    }

    /// The one status that is right. Default: any of 200 to 399.
    #[must_use]
    pub fn expect_status(mut self, status: u16) -> Self {
        self.expect.status = Some(status);
        self
    }

    /// The length in bytes that every body must have.
    #[must_use]
    pub fn expect_length(mut self, bytes: u64) -> Self {
        self.expect.length = Some(bytes);
        self
    }

    /// A check of every body (its first 64 KiB); the error says what is wrong with it.
    #[must_use]
    pub fn expect_body<F>(mut self, check: F) -> Self
    where
        F: Fn(&[u8]) -> Result<(), String> + Send + Sync + 'static,
    {
        self.expect.body = Some(Arc::new(check));
        self
    }

    /// Every body must be exactly this.
    #[must_use]
    pub fn expect_text(self, text: &str) -> Self {
        let expected = text.as_bytes().to_vec();
        self.expect_length(expected.len() as u64)
            .expect_body(move |body| {
                if body == expected {
                    Ok(())
                } else {
                    Err(format!("the body is {:?}", excerpt(body)))
                }
            })
    }

    /// Counts the different bodies, as `pid=7 generation=1`, in [`Report::answers`](crate::Report::answers).
    #[must_use]
    pub fn record_answers(mut self) -> Self {
        self.expect.is_recording = true;
        self
    }

    /// Begins the run on the tokio runtime of the caller.
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one without I/O and time.
    pub fn start(self) -> Running {
        Running::begin(self)
    }

    pub(crate) fn tls(&self) -> Option<Tls> {
        let name = self.target.tls_name.clone()?;
        let wants_http2 = matches!(self.protocol, Protocol::Http2 { .. });
        Some(Tls::new(name, &self.trust, wants_http2))
    }

    pub(crate) fn pause_of(&self, client: usize) -> Duration {
        self.think[client % self.think.len()]
    }

    /// The request's head up to the value of its number field.
    pub(crate) fn head(&self) -> String {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: curtsy-prove\r\n",
            self.method, self.target.path, self.target.authority
        );
        if let Some(upload) = self.upload {
            head += &format!("Content-Length: {}\r\n", upload.bytes);
        }
        if self.is_connection_per_request {
            head += "Connection: close\r\n";
        }
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        head + NUMBER_FIELD + ": "
    }
}

impl Expect {
    /// How much of a body is needed to judge it.
    pub(crate) fn keep_bytes(&self) -> usize {
        if self.body.is_some() {
            BODY_KEPT_BYTES
        } else if self.is_recording {
            RECORDED_BYTES
        } else {
            0
        }
    }

    /// Whether a whole answer to request `number` is the right one.
    pub(crate) fn judge(&self, answer: &Answer, number: u64) -> Result<(), Trouble> {
        let right = match self.status {
            Some(status) => answer.status == status,
            None => (200..400).contains(&answer.status),
        };
        if !right {
            let detail = format!("status {}", answer.status);
            return Err(Trouble::new(Loss::WrongStatus, detail));
        }
        if answer.number.is_some_and(|echoed| echoed != number) {
            let detail = format!("the answer to request {}", answer.number.unwrap_or(0));
            return Err(Trouble::new(Loss::WrongBody, detail));
        }
        if let Some(length) = self.length
            && answer.length != length
        {
            let detail = format!("{} bytes instead of {length}", answer.length);
            return Err(Trouble::new(Loss::WrongBody, detail));
        }
        match &self.body {
            Some(check) => check(&answer.body).map_err(|why| Trouble::new(Loss::WrongBody, why)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expect")
            .field("status", &self.status)
            .field("length", &self.length)
            .field("body", &self.body.is_some())
            .field("is_recording", &self.is_recording)
            .finish()
    }
}

/// The beginning of a body as text, for reports.
pub(crate) fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(RECORDED_BYTES)])
        .trim_end()
        .to_owned()
}

const CONNECTIONS_DEFAULT: usize = 200;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// What a body check is shown at most: enough for any answer that is told apart by its content.
const BODY_KEPT_BYTES: usize = 64 * 1024;
const RECORDED_BYTES: usize = 200;
