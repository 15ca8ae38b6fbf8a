//! One client of a run over HTTP/2: as over HTTP/1.1, a request at a time, but several clients may share a connection.
//!
//! GOAWAY: no request begins on a connection that has said it; the next one opens a new connection, without loss. A request
//! that the server has left out (`unprocessed`) is lost, unless the first byte of it was written after GOAWAY had been read: that
//! one the `h2` crate should not have sent, the server cannot be blamed, and it does not count as sent at all.
//!
//! Deliberately absent: pings and any other sign of life that the plan does not ask for.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::answer::{Answer, NUMBER_FIELD};
use crate::client::{CONNECT_PAUSE, Client, Opening};
use crate::outcome::{Closed, Loss, Trouble};
use crate::plan::Plan;
use crate::tap::{Tap, Wire};
use crate::upload::{Pieces, Upload};

/// The place of a connection that several clients share.
#[derive(Debug)]
pub(crate) struct Slot {
    link: Mutex<Option<Arc<Link>>>,
    users: AtomicUsize,
}

/// One connection; it ends when its last user lets go of it.
#[derive(Debug)]
struct Link {
    sender: SendRequest<Bytes>,
    wire: Arc<Wire>,
    in_flight: AtomicUsize,
    is_lossy: AtomicBool,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What became of a request.
enum Outcome {
    Answered(Answer),
    Lost(Trouble),
    /// It was never the server's: not written, or written after GOAWAY was read.
    Withdrawn,
}

/// A link and leave to open one stream on it.
struct Leave {
    link: Arc<Link>,
    sender: SendRequest<Bytes>,
}

enum Finding {
    Found(Leave),
    Later,
    Ended,
}

impl Slot {
    pub(crate) fn new(users: usize) -> Self {
        Self {
            link: Mutex::new(None),
            users: AtomicUsize::new(users),
        }
    }

    /// A connection that takes another stream, made if there is none.
    async fn find(&self, client: &Client, is_first: &mut bool) -> Finding {
        let mut place = self.link.lock().await;
        loop {
            if place.is_none() {
                match Link::open(client, is_first).await {
                    Ok(link) => *place = Some(Arc::new(link)),
                    Err(finding) => return finding,
                }
            }
            let Some(link) = place.take() else { continue };
            match timeout(client.plan.timeout, link.sender.clone().ready()).await {
                Ok(Ok(sender)) => {
                    *place = Some(Arc::clone(&link));
                    return Finding::Found(Leave { link, sender });
                }
                Ok(Err(_)) => client.book.closed(link.how_closed()),
                Err(_) => {
                    client
                        .book
                        .connect_failed("no stream was granted in time".to_owned());
                    client.book.closed(Closed::ByLoss);
                    return Finding::Later;
                }
            }
        }
    }

    /// A client is done; the last one closes the connection.
    async fn leave(&self, client: &Client) {
        if self.users.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if let Some(link) = self.link.lock().await.take() {
            let is_alive = link.sender.clone().ready().await.is_ok();
            client.book.closed(if is_alive {
                Closed::ByClient
            } else {
                link.how_closed()
            });
        }
    }
}

impl Link {
    async fn open(client: &Client, is_first: &mut bool) -> Result<Self, Finding> {
        let stream = match client.open(is_first).await {
            Opening::Open(stream) => stream,
            Opening::Later => return Err(Finding::Later),
            Opening::Ended => return Err(Finding::Ended),
        };
        let wire = Arc::new(Wire::default());
        let tap = Tap::new(stream, Arc::clone(&wire));
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(tap);
        match handshake.await {
            Ok((sender, connection)) => Ok(Self {
                sender,
                wire,
                in_flight: AtomicUsize::new(0),
                is_lossy: AtomicBool::new(false),
                driver: tokio::spawn(async move {
                    // Each request learns of the connection's end by itself.
                    let _ = connection.await;
                }),
            }),
            Err(e) => {
                client.book.closed(Closed::ByLoss);
                client.book.connect_failed(format!("HTTP/2 preface: {e}"));
                Err(Finding::Later)
            }
        }
    }

    /// Of a connection that takes no more streams: how it came to that.
    fn how_closed(&self) -> Closed {
        if self.wire.is_going_away() {
            Closed::ByServerAnnounced
        } else if self.is_lossy.load(Ordering::Acquire)
            || self.in_flight.load(Ordering::Acquire) > 0
        {
            Closed::ByLoss
        } else {
            Closed::WhileIdle
        }
    }

    fn trouble(&self, error: &h2::Error, is_begun: bool) -> Trouble {
        let is_left_out = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
        let loss = if is_left_out && error.is_remote() {
            Loss::Unprocessed
        } else if error.is_reset() && error.is_remote() {
            Loss::Reset
        } else if self.wire.is_ended() {
            if is_begun {
                Loss::EofInside
            } else {
                Loss::EofBefore
            }
        } else if error.is_io() {
            Loss::Reset
        } else {
            Loss::Garbage
        };
        Trouble::new(loss, error.to_string())
    }
}

/// Runs a client to its end.
pub(crate) async fn run(mut client: Client, slot: Arc<Slot>) {
    let pause = client.plan.pause_of(client.index);
    let mut requests_left = client.plan.requests_each.unwrap_or(u64::MAX);
    let mut is_first = true;
    while requests_left > 0 && !client.is_stopped() {
        let begun = Instant::now();
        let leave = match slot.find(&client, &mut is_first).await {
            Finding::Found(leave) => leave,
            Finding::Later => {
                client.pause_until_stopped(CONNECT_PAUSE).await;
                continue;
            }
            Finding::Ended => break,
        };
        let begun = if client.plan.is_connection_per_request {
            begun
        } else {
            Instant::now()
        };
        if !ask(&client, leave, begun).await {
            continue;
        }
        requests_left -= 1;
        if client.plan.is_connection_per_request
            && let Some(link) = slot.link.lock().await.take()
        {
            drop(link);
            client.book.closed(Closed::ByClient);
        }
        if requests_left > 0 && !pause.is_zero() {
            client.pause_until_stopped(pause).await;
        }
    }
    slot.leave(&client).await;
}

/// One request and its entries; false if it was withdrawn.
async fn ask(client: &Client, leave: Leave, begun: Instant) -> bool {
    let Leave { link, sender } = leave;
    let entry = client.book.sent(client.index, begun.into_std());
    link.in_flight.fetch_add(1, Ordering::AcqRel);
    let exchange = exchange(&client.plan, &link, sender, entry.number);
    let outcome = timeout(client.plan.timeout, exchange).await;
    let outcome = outcome.unwrap_or_else(|_| Outcome::Lost(client.out_of_time()));
    match outcome {
        Outcome::Answered(answer) => client.conclude(entry, &answer),
        Outcome::Lost(trouble) => {
            client.book.lost(entry, trouble);
        }
        Outcome::Withdrawn => {
            client.book.withdrawn();
            link.in_flight.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
    }
    link.in_flight.fetch_sub(1, Ordering::AcqRel);
    true
}

async fn exchange(
    plan: &Plan,
    link: &Link,
    mut sender: SendRequest<Bytes>,
    number: u64,
) -> Outcome {
    let request = match head(plan, number) {
        Ok(request) => request,
        Err(e) => return Outcome::Lost(Trouble::new(Loss::Garbage, format!("the plan: {e}"))),
    };
    let (response, body) = match sender.send_request(request, plan.upload.is_none()) {
        Ok(halves) => halves,
        // The connection failed just before anything was written.
        Err(e) if e.is_io() || e.is_go_away() || e.is_library() => return Outcome::Withdrawn,
        Err(e) => return Outcome::Lost(Trouble::new(Loss::Garbage, format!("the plan: {e}"))),
    };
    let id = response.stream_id().as_u32();
    let mut is_begun = false;
    let sending = send_body(body, plan.upload);
    let receiving = receive(response, plan.expect.keep_bytes(), &mut is_begun);
    let outcome = {
        let mut sending = std::pin::pin!(sending);
        let mut receiving = std::pin::pin!(receiving);
        let mut is_sending = true;
        loop {
            tokio::select! {
                biased;
                // A failure to send shows in the answer, or in its absence.
                _ = &mut sending, if is_sending => is_sending = false,
                outcome = &mut receiving => break outcome,
            }
        }
    };
    match outcome {
        Ok(answer) => Outcome::Answered(answer),
        Err(error) => {
            let trouble = link.trouble(&error, is_begun);
            let is_only_stream = error.is_reset() || error.is_go_away();
            link.is_lossy.fetch_or(!is_only_stream, Ordering::AcqRel);
            if trouble.loss == Loss::Unprocessed && link.wire.is_late(id) {
                Outcome::Withdrawn
            } else {
                Outcome::Lost(trouble)
            }
        }
    }
}

fn head(plan: &Plan, number: u64) -> http::Result<Request<()>> {
    let scheme = if plan.target.tls_name.is_some() {
        "https"
    } else {
        "http"
    };
    let uri = format!("{scheme}://{}{}", plan.target.authority, plan.target.path);
    let mut request = Request::builder()
        .method(plan.method.clone())
        .version(http::Version::HTTP_2)
        .uri(uri)
        .header("user-agent", "curtsy-prove")
        .header(NUMBER_FIELD, number);
    if let Some(upload) = plan.upload {
        request = request.header("content-length", upload.bytes);
    }
    for (name, value) in &plan.fields {
        request = request.header(name, value);
    }
    request.body(())
}

async fn receive(
    response: ResponseFuture,
    keep_bytes: usize,
    is_begun: &mut bool,
) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    *is_begun = true;
    let mut answer = Answer {
        status: head.status.as_u16(),
        length: 0,
        body: Vec::new(),
        last: false,
        number: echoed(&head.headers),
    };
    while let Some(piece) = stream.data().await {
        take(&mut stream, &mut answer, &piece?, keep_bytes)?;
    }
    stream.trailers().await?;
    Ok(answer)
}

fn take(
    stream: &mut RecvStream,
    answer: &mut Answer,
    piece: &Bytes,
    keep_bytes: usize,
) -> Result<(), h2::Error> {
    let keep = piece.len().min(keep_bytes - answer.body.len());
    answer.body.extend_from_slice(&piece[..keep]);
    answer.length += piece.len() as u64;
    stream.flow_control().release_capacity(piece.len())
}

fn echoed(fields: &HeaderMap) -> Option<u64> {
    fields.get(NUMBER_FIELD)?.to_str().ok()?.parse().ok()
}

async fn send_body(mut stream: SendStream<Bytes>, upload: Option<Upload>) -> Result<(), h2::Error> {
    let Some(upload) = upload else { return Ok(()) };
    let mut pieces = Pieces::of(upload);
    if pieces.is_over() {
        return stream.send_data(Bytes::new(), true);
    }
    while let Some(piece) = pieces.next().await {
        let mut left = Bytes::from_static(piece);
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let Some(granted) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return Ok(());
            };
            let part = left.split_to(granted?.min(left.len()));
            stream.send_data(part, left.is_empty() && pieces.is_over())?;
        }
    }
    Ok(())
}

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 22;
