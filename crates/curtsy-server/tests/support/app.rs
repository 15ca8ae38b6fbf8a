//! The service under test: a route for each thing to observe. It remembers whom it served.

use super::PATIENCE;
use bytes::Bytes;
use curtsy_server::{Body, BoxError, ConnectionInfo, Draining};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// A place where handlers wait until the test lets them go on.
pub type Gate = Arc<Semaphore>;

/// What the service saw of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub fields: usize,
}

#[derive(Clone, Default)]
pub struct App(Arc<Inner>);

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<Seen>>,
    gates: Mutex<HashMap<String, Gate>>,
    notes: Mutex<Vec<String>>,
    noted: tokio::sync::Notify,
}

type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;
type Answered = Result<Response<AnswerBody>, BoxError>;

impl App {
    /// Every request that reached the service, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    pub fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.target).collect()
    }

    pub fn gate(&self, name: &str) -> Gate {
        let mut gates = self.0.gates.lock().unwrap();
        let closed = || Arc::new(Semaphore::new(0));
        gates.entry(name.to_owned()).or_insert_with(closed).clone()
    }

    /// Lets one handler through the gate.
    pub fn open(&self, name: &str) {
        self.gate(name).add_permits(1);
    }

    pub fn note(&self, note: impl Into<String>) {
        self.0.notes.lock().unwrap().push(note.into());
        self.0.noted.notify_waiters();
    }

    pub fn notes(&self) -> Vec<String> {
        self.0.notes.lock().unwrap().clone()
    }

    /// Waits until a handler has noted this.
    pub async fn noted(&self, note: &str) {
        let waited = timeout(PATIENCE, async {
            loop {
                let mut next = std::pin::pin!(self.0.noted.notified());
                next.as_mut().enable();
                if self.notes().iter().any(|noted| noted == note) {
                    return;
                }
                next.await;
            }
        });
        if waited.await.is_err() {
            panic!("never noted {note:?}, only {:?}", self.notes());
        }
    }

    /// The service, for tower.
    pub fn into_service(self) -> Routes {
        Routes(self)
    }

    async fn route(self, request: Request<Body>) -> Answered {
        let target = request
            .uri()
            .path_and_query()
            .map_or_else(|| request.uri().to_string(), ToString::to_string);
        self.0.seen.lock().unwrap().push(Seen {
            method: request.method().to_string(),
            target: target.clone(),
            fields: request.headers().len(),
        });
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let number = || {
            let digits = query.rsplit_once('=').map_or("", |(_, digits)| digits);
            digits.parse::<usize>().unwrap_or(0)
        };
        match path.as_str() {
            "/echo" => self.echo(request).await,
            "/read" => self.read(request).await,
            "/first" => self.first(request).await,
            "/refuse-body" => status(StatusCode::FORBIDDEN, "no"),
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(number() as u64)).await;
                text(format!("slept {}", number()))
            }
            "/big" => Ok(Response::new(full(Bytes::from(vec![b'x'; number()])))),
            "/endless" => Ok(Response::new(endless())),
            "/gate" => {
                let _told = Told(self.clone(), format!("dropped {target}"));
                self.note(format!("in {target}"));
                let permit = soon(self.gate(&query).acquire_owned()).await;
                permit.unwrap().forget();
                self.note(format!("out {target}"));
                text(format!("through {query}"))
            }
            // Its head goes out at once, its end when the gate opens.
            "/stream" => self.stream(&query, None).await,
            "/until-drain" => {
                let draining = request.extensions().get::<Draining>().cloned().unwrap();
                self.stream(&query, Some(draining)).await
            }
            "/draining" => {
                let draining = request.extensions().get::<Draining>().cloned().unwrap();
                self.note(format!("in {target}"));
                soon(draining.wait()).await;
                text(format!("draining: {}", draining.is_draining()))
            }
            "/big-when-draining" => {
                let draining = request.extensions().get::<Draining>().cloned().unwrap();
                self.note(format!("in {target}"));
                soon(draining.wait()).await;
                Ok(Response::new(full(Bytes::from(vec![b'x'; number()]))))
            }
            "/who" => {
                let info = request.extensions().get::<ConnectionInfo>();
                let (info, body) = (info.cloned(), request.body().connection());
                let tag = request.extensions().get::<&'static str>().copied();
                let info = info.or(body).unwrap();
                text(format!(
                    "{} {} {} {} {}",
                    info.listener(),
                    info.peer(),
                    info.local(),
                    info.requests(),
                    tag.unwrap_or("-"),
                ))
            }
            "/204" => status(StatusCode::NO_CONTENT, ""),
            "/304" => status(StatusCode::NOT_MODIFIED, "not sent"),
            "/error" => Err("the service has failed".into()),
            "/panic" => panic!("before the first byte, on purpose"),
            "/panic-late" => Ok(Response::new(panics_late(self.gate(&query)))),
            "/upgrade" => self.upgrade(request),
            "*" => text("the service's options"),
            _ if request.method() == Method::CONNECT => text("no tunnel"),
            _ => text(format!("hello from {target}")),
        }
    }

    async fn echo(self, request: Request<Body>) -> Answered {
        match request.into_body().collect().await {
            Ok(body) => Ok(Response::new(full(body.to_bytes()))),
            Err(error) => {
                self.note(format!("echo: {error}"));
                status(StatusCode::IM_A_TEAPOT, "body failed")
            }
        }
    }

    /// Says what became of the body, in an answer.
    async fn read(self, request: Request<Body>) -> Answered {
        let mut body = request.into_body();
        let mut read = 0;
        loop {
            match body.frame().await {
                None => return text(format!("read {read}")),
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(error)) => {
                    let kind = match (error.is_timeout(), error.is_too_large(), error.is_broken()) {
                        (true, false, false) => "timeout",
                        (false, true, false) => "too large",
                        (false, false, true) => "broken",
                        _ => "several at once",
                    };
                    self.note(format!("{kind} after {read}"));
                    return text(format!("{kind} after {read}"));
                }
            }
        }
    }

    /// Reads only when told to: `/first?gate`.
    async fn first(self, request: Request<Body>) -> Answered {
        let gate = request.uri().query().unwrap_or_default().to_owned();
        self.note("waits before the body");
        soon(self.gate(&gate).acquire_owned())
            .await
            .unwrap()
            .forget();
        self.read(request).await
    }

    async fn stream(self, gate: &str, draining: Option<Draining>) -> Answered {
        let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(4);
        let gate = self.gate(gate);
        tokio::spawn(async move {
            let part = |part: &'static str| Ok(Frame::data(Bytes::from_static(part.as_bytes())));
            send.send(part("begun ")).await.unwrap();
            match draining {
                Some(draining) => soon(draining.wait()).await,
                None => soon(gate.acquire_owned()).await.unwrap().forget(),
            }
            // The client may be gone.
            let _ = send.send(part("ended")).await;
        });
        let frames = futures_util::stream::unfold(receive, async |mut receive| {
            receive.recv().await.map(|frame| (frame, receive))
        });
        Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
    }

    /// Speaks `echo` after the switch: until its peer closes, or with a farewell when draining.
    fn upgrade(self, mut request: Request<Body>) -> Answered {
        let draining = request.extensions().get::<Draining>().cloned().unwrap();
        let stubborn = request.uri().query() == Some("stubborn");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _told = Told(self.clone(), "upgraded ended".to_owned());
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            self.note("upgraded");
            let mut bytes = [0u8; 64];
            loop {
                tokio::select! {
                    read = io.read(&mut bytes) => match read {
                        Ok(0) | Err(_) => return,
                        Ok(n) => io.write_all(&bytes[..n]).await.unwrap(),
                    },
                    () = draining.wait(), if !stubborn => {
                        io.write_all(b"farewell").await.unwrap();
                        io.shutdown().await.unwrap();
                        return;
                    }
                }
            }
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(full(Bytes::new()))
            .unwrap();
        Ok(response)
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("a gate stayed shut")
}

/// Notes when it is dropped: how a handler's end is seen, whichever it is.
struct Told(App, String);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.note(std::mem::take(&mut self.1));
    }
}

fn full(bytes: Bytes) -> AnswerBody {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn text(text: impl Into<String>) -> Answered {
    Ok(Response::new(full(Bytes::from(text.into()))))
}

fn status(status: StatusCode, body: &'static str) -> Answered {
    let mut response = Response::new(full(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    Ok(response)
}

fn endless() -> AnswerBody {
    let frame = || Ok(Frame::data(Bytes::from_static(&[b'e'; 64 << 10])));
    StreamBody::new(futures_util::stream::repeat_with(frame)).boxed_unsync()
}

fn panics_late(gate: Gate) -> AnswerBody {
    let frames = futures_util::stream::unfold((0, gate), async |(n, gate)| {
        if n > 0 {
            soon(gate.acquire()).await.unwrap().forget();
            panic!("after the first byte, on purpose");
        }
        let part = Frame::data(Bytes::from_static(b"some of it"));
        Some((Ok(part), (n + 1, gate)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// [`App`] as a tower service.
#[derive(Clone)]
pub struct Routes(App);

impl tower_service::Service<Request<Body>> for Routes {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answered> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.clone().route(request))
    }
}
