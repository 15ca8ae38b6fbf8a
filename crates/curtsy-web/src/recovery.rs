//! A panic in a handler becomes a 500, and the log says where it came from.
//!
//! Invariants:
//! - What was written before the panic is sent as it is: only an answer not yet begun becomes 500.
//! - A panic in a stream, which runs after the handlers, is logged as well and breaks the answer off.
//! - A panic because the client is gone is a short line and no 500: nobody would read it.
//! - Secrets in the request's head are not logged.
//!
//! The value of a panic alone says little: its place and backtrace are known to the panic hook only.
//! The first use of this middleware therefore puts a hook before the one that is there; panics
//! outside of handlers go on to that one.

use crate::body::Body;
use crate::context::Context;
use crate::error::BoxError;
use crate::handler::{BoxFuture, Call};
use crate::mode::Mode;
use bytes::Bytes;
use http::header;
use http_body::{Frame, SizeHint};
use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::future::{Future, poll_fn};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::Poll;

/// What a panic left behind.
///
/// ```
/// use curtsy_web::{Context, Panic, Recovery};
///
/// fn report(c: &mut Context, panic: &Panic) {
///     eprintln!("{} at {}", panic.message(), panic.location());
///     c.string(500, "sorry");
/// }
///
/// let recovery = Recovery::new().answer(report);
/// ```
#[derive(Debug)]
pub struct Panic {
    message: String,
    location: String,
    backtrace: String,
    payload: Box<dyn Any + Send>,
}

impl Panic {
    /// The panic's message; of a payload that is no text, a placeholder.
    ///
    /// ```
    /// use curtsy_web::Recovery;
    ///
    /// // For a page that developers see.
    /// let recovery = Recovery::new().answer(|c, panic| c.string(500, panic.message().to_owned()));
    /// ```
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The file, line and column where it happened.
    ///
    /// ```
    /// use curtsy_web::Recovery;
    ///
    /// // For a page that developers see.
    /// let recovery = Recovery::new().answer(|c, panic| c.string(500, panic.location().to_owned()));
    /// ```
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The calls that led there.
    ///
    /// ```
    /// use curtsy_web::Recovery;
    ///
    /// // For a page that developers see.
    /// let recovery = Recovery::new().answer(|c, panic| c.string(500, panic.backtrace().to_owned()));
    /// ```
    pub fn backtrace(&self) -> &str {
        &self.backtrace
    }

    /// The value that was thrown.
    ///
    /// ```
    /// use curtsy_web::Recovery;
    ///
    /// struct Maintenance; // thrown by `std::panic::panic_any`
    ///
    /// let recovery = Recovery::new().answer(|c, panic| {
    ///     let planned = panic.payload().is::<Maintenance>();
    ///     c.abort_with_status(if planned { 503 } else { 500 });
    /// });
    /// ```
    pub fn payload(&self) -> &(dyn Any + Send) {
        &*self.payload
    }

    fn of(payload: Box<dyn Any + Send>) -> Self {
        let (location, backtrace) = PLACE.take().unwrap_or_default();
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let text = text.or_else(|| {
            let error = payload.downcast_ref::<std::io::Error>()?;
            Some(error.to_string())
        });
        Self {
            message: text.unwrap_or_else(|| "a value that is no text".to_owned()),
            location,
            backtrace,
            payload,
        }
    }

    /// Whether it says that the client is gone.
    fn is_broken_pipe(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        if let Some(error) = self.payload.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), BrokenPipe | ConnectionReset);
        }
        let message = self.message.to_ascii_lowercase();
        message.contains("broken pipe") || message.contains("connection reset by peer")
    }
}

type Answer = dyn Fn(&mut Context, &Panic) + Send + Sync;

/// The middleware that turns panics into answers.
///
/// ```
/// use curtsy_web::{Engine, Recovery};
///
/// let mut r = Engine::new();
/// r.use_middleware(Recovery::new().answer(|c, panic| {
///     c.string(500, format!("sorry: {}", panic.message()));
/// }));
/// ```
#[derive(Clone)]
pub struct Recovery {
    answer: Option<Arc<Answer>>,
    writer: Arc<Mutex<dyn Write + Send>>,
}

impl Recovery {
    /// Answers 500 without a body and logs to standard error.
    ///
    /// ```
    /// curtsy_web::Engine::new().use_middleware(curtsy_web::Recovery::new());
    /// ```
    pub fn new() -> Self {
        install_hook();
        Self {
            answer: None,
            writer: Arc::new(Mutex::new(std::io::stderr())),
        }
    }

    /// Answers in another way. Called only if nothing was written before the panic.
    ///
    /// ```
    /// let recovery = curtsy_web::Recovery::new().answer(|c, _| c.string(500, "sorry"));
    /// ```
    #[must_use]
    pub fn answer(mut self, answer: impl Fn(&mut Context, &Panic) + Send + Sync + 'static) -> Self {
        self.answer = Some(Arc::new(answer));
        self
    }

    /// Logs elsewhere.
    ///
    /// ```
    /// let recovery = curtsy_web::Recovery::new().writer(std::io::sink());
    /// ```
    #[must_use]
    pub fn writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.writer = Arc::new(Mutex::new(writer));
        self
    }

    fn log(&self, head: &str, panic: &Panic) {
        let text = if panic.is_broken_pipe() {
            format!("[Recovery] the client is gone: {}\n", panic.message)
        } else {
            let time = jiff::Zoned::now()
                .strftime("%Y/%m/%d - %H:%M:%S")
                .to_string();
            format!(
                "[Recovery] {time} panic recovered:\n{head}{} ({})\n{}\n",
                panic.message, panic.location, panic.backtrace
            )
        };
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not take the answer with it.
        let _ = writer.write_all(text.as_bytes());
        let _ = writer.flush();
    }

    fn recover(&self, c: &mut Context, panic: &Panic) {
        self.log(&head(c), panic);
        c.abort();
        if panic.is_broken_pipe() {
            c.error(crate::Error::private(panic.message.clone()));
        } else if !c.is_written() {
            match &self.answer {
                Some(answer) => answer(c, panic),
                None => c.abort_with_status(500),
            }
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery")
            .field("custom", &self.answer.is_some())
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> for Recovery {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        Box::pin(async move {
            let caught = {
                let mut next = pin!(c.next());
                poll_fn(|cx| poll_catching(next.as_mut(), cx)).await
            };
            if let Err(panic) = caught {
                self.recover(c, &panic);
            }
            if c.answer.is_stream() {
                let body = Some(std::mem::take(&mut c.answer));
                let (recovery, head) = (self.clone(), head(c));
                c.answer = Body::new(Guarded {
                    body,
                    recovery,
                    head,
                });
            }
        })
    }
}

/// An answer that is made while it is sent, after the handlers: a panic in it is logged, and the
/// answer ends broken. Its head has gone out, and its end must not look like one.
struct Guarded {
    /// Gone after a panic.
    body: Option<Body>,
    recovery: Recovery,
    head: String,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let next = pin!(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
        match poll_catching(next, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(frame)) => Poll::Ready(frame),
            Poll::Ready(Err(panic)) => {
                this.body = None;
                this.recovery.log(&this.head, &panic);
                Poll::Ready(Some(Err("the answer's stream panicked".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// Polls `future` once; a panic becomes an error.
fn poll_catching<F: Future + ?Sized>(
    future: Pin<&mut F>,
    cx: &mut std::task::Context<'_>,
) -> Poll<Result<F::Output, Panic>> {
    DEPTH.set(DEPTH.get() + 1);
    let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
    DEPTH.set(DEPTH.get() - 1);
    match polled {
        Ok(poll) => poll.map(Ok),
        Err(payload) => Poll::Ready(Err(Panic::of(payload))),
    }
}

/// The request's head as it came, without its secrets; nothing if this is not debug mode.
fn head(c: &Context) -> String {
    if Mode::current() != Mode::Debug {
        return String::new();
    }
    let secret = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
    ];
    let mut head = format!("{} {} {:?}\n", c.method(), c.uri(), c.version());
    for (name, value) in c.headers() {
        let name_text = capitalized(name.as_str());
        let _ = if secret.contains(name) {
            writeln!(head, "{name_text}: *")
        } else {
            writeln!(head, "{name_text}: {}", value.to_str().unwrap_or("?"))
        };
    }
    head
}

/// A header's name as it is usually written: `User-Agent`.
fn capitalized(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    parts.collect::<Vec<_>>().join("-")
}

thread_local! {
    /// How many recovering polls are on this thread's stack.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic within them happened.
    static PLACE: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                return before(info);
            }
            let location = info.location().map(ToString::to_string);
            // To find the names costs milliseconds: who must not pay sets RUST_BACKTRACE=0.
            let backtrace = match std::env::var_os("RUST_BACKTRACE") {
                Some(off) if off == "0" => String::new(),
                Some(_) | None => Backtrace::force_capture().to_string(),
            };
            PLACE.set(Some((location.unwrap_or_default(), backtrace)));
        }));
    });
}
