//! One client of a run over HTTP/1.1: connects, asks, reads, thinks, again, and enters everything into the book.
//!
//! Invariant: each request entered as sent is entered once more, as answered or as lost. Nothing is retried: a lost
//! request stays lost, and the next request is a new one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::answer::{Answer, Question};
use crate::book::{Book, Entry};
use crate::connection::{Connection, Exchange, IdleEnd, Request};
use crate::outcome::{Closed, Loss, Trouble};
use crate::plan::{Plan, excerpt};
use crate::stream::{OpenError, Stream};
use crate::tls::Tls;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) plan: Arc<Plan>,
    pub(crate) book: Arc<Book>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Bounds the first connects, so that a thousand clients do not overrun a backlog before the run has begun.
    pub(crate) starting: Arc<Semaphore>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) index: usize,
}

/// What a try to connect led to.
#[derive(Debug)]
pub(crate) enum Opening {
    Open(Stream),
    /// Worth another try after a pause.
    Later,
    /// The listener is closed: this client is done.
    Ended,
}

impl Client {
    pub(crate) async fn run(mut self) {
        let head = self.plan.head();
        let pause = self.plan.pause_of(self.index);
        let mut connection = None;
        let mut requests_left = self.plan.requests_each.unwrap_or(u64::MAX);
        let mut is_first = true;
        while requests_left > 0 && !self.is_stopped() {
            let mut begun = None;
            let mut open = match connection.take() {
                Some(open) => open,
                None => {
                    begun = Some(Instant::now());
                    match self.open(&mut is_first).await {
                        Opening::Open(stream) => Connection::new(stream),
                        Opening::Ended => return,
                        Opening::Later => {
                            self.pause_until_stopped(CONNECT_PAUSE).await;
                            continue;
                        }
                    }
                }
            };
            let begun = begun
                .filter(|_| self.plan.is_connection_per_request)
                .unwrap_or_else(Instant::now);
            requests_left -= 1;
            match self.ask(&mut open, &head, begun).await {
                Some(how) => {
                    drop(open);
                    self.book.closed(how);
                }
                None => connection = Some(open),
            }
            if requests_left > 0 {
                connection = self.think(connection, pause).await;
            }
        }
        if connection.is_some() {
            drop(connection);
            self.book.closed(Closed::ByClient);
        }
    }

    /// Connects, and enters what came of it. A try that the end of the run interrupts is not entered: it came to nothing.
    pub(crate) async fn open(&self, is_first: &mut bool) -> Opening {
        let mut stop = self.stop.clone();
        let connect = async {
            // The semaphore is never closed.
            let _permit = if *is_first {
                self.starting.acquire().await.ok()
            } else {
                None
            };
            let begun = Instant::now();
            let opening = Stream::open(&self.plan.target.endpoint, self.tls.as_deref());
            (begun, timeout(self.plan.timeout, opening).await)
        };
        let (begun, outcome) = tokio::select! {
            biased;
            connected = connect => connected,
            _ = stop.wait_for(|stopped| *stopped) => return Opening::Later,
        };
        *is_first = false;
        match outcome {
            Ok(Ok(connection)) => {
                self.book.opened(begun.elapsed());
                Opening::Open(connection)
            }
            Ok(Err(OpenError::Refused)) => {
                self.book.refused();
                if self.plan.is_refusal_a_loss {
                    Opening::Later
                } else {
                    Opening::Ended
                }
            }
            Ok(Err(OpenError::Other(why))) => {
                self.book.connect_failed(why);
                Opening::Later
            }
            Err(_) => {
                self.book.connect_failed("timed out".to_owned());
                Opening::Later
            }
        }
    }

    /// One request and its entries; `Some` if the connection is at its end.
    async fn ask(&self, open: &mut Connection, head: &str, begun: Instant) -> Option<Closed> {
        let entry = self.book.sent(self.index, begun.into_std());
        let head = format!("{head}{}\r\n\r\n", entry.number);
        let request = Request {
            head: head.as_bytes(),
            hold_head: self.plan.hold_head,
            upload: self.plan.upload,
            question: Question {
                is_head: self.plan.method == http::Method::HEAD,
                keep_bytes: self.plan.expect.keep_bytes(),
            },
        };
        let outcome = timeout(self.plan.timeout, open.exchange(&request)).await;
        match outcome {
            Ok(Ok(exchange)) => {
                self.conclude(entry, &exchange.answer);
                self.end_after(&exchange)
            }
            Ok(Err(trouble)) => {
                self.book.lost(entry, trouble);
                Some(Closed::ByLoss)
            }
            Err(_) => {
                self.book.lost(entry, self.out_of_time());
                Some(Closed::ByLoss)
            }
        }
    }

    /// Enters a whole answer: it is the right one, or a loss.
    pub(crate) fn conclude(&self, entry: Entry, answer: &Answer) {
        match self.plan.expect.judge(answer, entry.number) {
            Ok(()) => {
                let recording = self.plan.expect.is_recording;
                let text = recording.then(|| excerpt(&answer.body));
                self.book.answered(entry, answer.length, text);
            }
            Err(trouble) => self.book.lost(entry, trouble),
        }
    }

    pub(crate) fn out_of_time(&self) -> Trouble {
        let detail = format!("no whole answer within {:?}", self.plan.timeout);
        Trouble::new(Loss::Timeout, detail)
    }

    /// Whether a connection is at its end after an answer, and how.
    fn end_after(&self, exchange: &Exchange) -> Option<Closed> {
        if exchange.is_followed {
            self.book.unsolicited();
            Some(Closed::ByLoss)
        } else if self.plan.is_connection_per_request {
            Some(Closed::ByClient)
        } else if exchange.answer.last {
            Some(Closed::ByServerAnnounced)
        } else if exchange.is_request_whole {
            None
        } else {
            Some(Closed::ByClient)
        }
    }

    /// Lets the pause pass, with an ear on the connection.
    async fn think(
        &mut self,
        connection: Option<Connection>,
        pause: Duration,
    ) -> Option<Connection> {
        if pause.is_zero() {
            return connection;
        }
        let due = Instant::now() + pause;
        let Some(mut open) = connection else {
            self.pause_until_stopped(pause).await;
            return None;
        };
        let end = tokio::select! {
            biased;
            end = open.idle_end() => end,
            () = self.pause_until_stopped(pause) => return Some(open),
        };
        drop(open);
        self.book.closed(match end {
            IdleEnd::Closed => Closed::WhileIdle,
            IdleEnd::Unsolicited => {
                self.book.unsolicited();
                Closed::ByLoss
            }
        });
        self.pause_until_stopped(due.saturating_duration_since(Instant::now()))
            .await;
        None
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    pub(crate) async fn pause_until_stopped(&mut self, pause: Duration) {
        tokio::select! {
            // An error means that the run's handle is gone, which ends the run as well.
            _ = self.stop.wait_for(|stopped| *stopped) => {}
            () = sleep(pause) => {}
        }
    }
}

/// Between a failed connect and the next try.
pub(crate) const CONNECT_PAUSE: Duration = Duration::from_millis(10);
