//! Server-sent events: a stream of small texts that ends when the server drains.

use crate::body::Body;
use crate::context::Context;
use crate::error::Error;
use crate::response::IntoStatus;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;

const EVENT_STREAM: &str = "text/event-stream";

/// One event.
///
/// ```
/// use curtsy_web::Event;
/// use std::time::Duration;
///
/// let event = Event::data("two\nlines").event("tick").id("7").retry(Duration::from_secs(2));
/// assert_eq!(event.to_string(), "event:tick\nid:7\nretry:2000\ndata:two\ndata:lines\n\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    event: String,
    id: String,
    retry: Option<Duration>,
    data: String,
}

impl Event {
    /// An event with a text. Lines are kept apart as the format wants it.
    ///
    /// ```
    /// use curtsy_web::Event;
    ///
    /// assert_eq!(Event::data("tick").to_string(), "data:tick\n\n");
    /// ```
    pub fn data(text: impl Into<String>) -> Self {
        Self {
            data: text.into(),
            ..Self::default()
        }
    }

    /// An event with a value as JSON.
    ///
    /// ```
    /// use curtsy_web::Event;
    ///
    /// let event = Event::json(&[1, 2]).unwrap();
    /// assert_eq!(event.to_string(), "data:[1,2]\n\n");
    /// ```
    ///
    /// # Errors
    /// If the value cannot be JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let json = serde_json::to_string(value).map_err(Error::render)?;
        Ok(Self::data(json))
    }

    /// The same event with a name. Line breaks in it are dropped.
    ///
    /// ```
    /// use curtsy_web::Event;
    ///
    /// let event = Event::data("12:00").event("tick");
    /// assert_eq!(event.to_string(), "event:tick\ndata:12:00\n\n");
    /// ```
    #[must_use]
    pub fn event(mut self, name: &str) -> Self {
        self.event = one_line(name);
        self
    }

    /// The same event with an id. Line breaks in it are dropped.
    ///
    /// ```
    /// use curtsy_web::Event;
    ///
    /// // Sent back as `Last-Event-ID` by a client that connects again.
    /// assert_eq!(Event::data("x").id("7").to_string(), "id:7\ndata:x\n\n");
    /// ```
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = one_line(id);
        self
    }

    /// The same event, telling the client how long to wait before it connects again.
    ///
    /// ```
    /// use curtsy_web::Event;
    /// use std::time::Duration;
    ///
    /// let event = Event::data("x").retry(Duration::from_secs(1));
    /// assert_eq!(event.to_string(), "retry:1000\ndata:x\n\n");
    /// ```
    #[must_use]
    pub fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.event.is_empty() {
            writeln!(f, "event:{}", self.event)?;
        }
        if !self.id.is_empty() {
            writeln!(f, "id:{}", self.id)?;
        }
        if let Some(retry) = self.retry {
            writeln!(f, "retry:{}", retry.as_millis())?;
        }
        // All three line ends end a line for the client: none may smuggle in a field.
        for line in self.data.replace("\r\n", "\n").split(['\n', '\r']) {
            writeln!(f, "data:{line}")?;
        }
        writeln!(f)
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n', '\0'], "")
}

impl Context {
    /// Adds one event to the answer. A text is sent as it is, any other value as JSON.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.sse_event("message", "hello");
    /// c.sse_event("numbers", &[1, 2]);
    /// # }
    /// ```
    pub fn sse_event<T: Serialize + ?Sized>(&mut self, event: &str, data: &T) {
        let text = match serde_json::to_value(data) {
            Ok(serde_json::Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(error) => return self.fail(Error::render(error)),
        };
        let event = Event::data(text).event(event).to_string();
        self.header(header::CACHE_CONTROL, "no-cache");
        self.write(self.response_status(), EVENT_STREAM, event);
    }

    /// Answers with a stream of events. It ends when the stream ends or the server drains: clients
    /// connect again, to whoever serves then.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, Event, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use futures_util::stream;
    ///
    /// let mut r = Engine::new();
    /// r.get("/clock", async |c: &mut Context| {
    ///     c.sse(stream::iter([Event::data("tick"), Event::data("tock")]));
    /// });
    /// let answer = Client::new(r).get("/clock").send().await;
    /// assert_eq!(answer.text(), "data:tick\n\ndata:tock\n\n");
    /// # });
    /// ```
    pub fn sse<S>(&mut self, events: S)
    where
        S: Stream<Item = Event> + Send + 'static,
    {
        let draining = self.draining();
        let chunks = events
            .map(|event| Ok::<_, Infallible>(Bytes::from(event.to_string())))
            .take_until(draining.wait());
        self.header(header::CACHE_CONTROL, "no-cache");
        let kind = HeaderValue::from_static(EVENT_STREAM);
        self.write_typed(
            StatusCode::OK.into_status(),
            kind,
            Body::from_stream(chunks),
        );
    }
}
