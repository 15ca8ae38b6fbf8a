//! A run under way: stopped, marked and watched through its handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::book::{Book, Counts};
use crate::bound::within;
use crate::client::Client;
use crate::error::{Error, Kind};
use crate::http2::{self, Slot};
use crate::plan::{Plan, Protocol};
use crate::report::Report;
use crate::websocket;

/// A run under way. Dropped before its end, it ends at once and its account is lost.
///
/// ```no_run
/// # async fn example(plan: curtsy_prove::Plan) {
/// let run = plan.start();
/// run.mark("restart begins");
/// // ... restart the server ...
/// run.mark("restart ends");
/// run.stop();
/// let report = run.finish().await;
/// # }
/// ```
#[derive(Debug)]
pub struct Running {
    plan: Arc<Plan>,
    book: Arc<Book>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    timer: JoinSet<()>,
}

impl Running {
    pub(crate) fn begin(plan: Plan) -> Self {
        let plan = Arc::new(plan);
        let book = Arc::new(Book::new(plan.is_refusal_a_loss));
        let (stop, stopped) = watch::channel(false);
        let starting = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut clients = JoinSet::new();
        let tls = plan.tls().map(Arc::new);
        let client = |index| Client {
            plan: Arc::clone(&plan),
            book: Arc::clone(&book),
            stop: stopped.clone(),
            starting: Arc::clone(&starting),
            tls: tls.clone(),
            index,
        };
        for index in 0..plan.connections {
            match plan.protocol {
                Protocol::Http1 => {
                    clients.spawn(client(index).run());
                }
                Protocol::WebSocket { bytes } => {
                    clients.spawn(websocket::run(client(index), bytes));
                }
                Protocol::Http2 { streams } => {
                    let users = if plan.is_connection_per_request {
                        1
                    } else {
                        streams
                    };
                    let mut slot = Arc::new(Slot::new(users));
                    for stream in 0..streams {
                        let client = client(index * streams + stream);
                        clients.spawn(http2::run(client, Arc::clone(&slot)));
                        if users == 1 {
                            slot = Arc::new(Slot::new(users));
                        }
                    }
                }
            }
        }
        let mut timer = JoinSet::new();
        if let Some(duration) = plan.duration {
            let stop = stop.clone();
            timer.spawn(async move {
                sleep(duration).await;
                stop.send_replace(true);
            });
        }
        Self {
            plan,
            book,
            stop,
            clients,
            timer,
        }
    }

    /// No client begins another request; those under way are finished.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Something happens now: the report tells latencies and losses before and after apart. At most 1,000 marks are kept.
    pub fn mark(&self, label: &str) {
        self.book.mark(label, None);
    }

    /// As [`mark`](Self::mark); and the report tells all segments of one `group` together as well, with what came before the
    /// first mark as the group `before`. For something that happens again and again.
    pub fn mark_in(&self, group: &'static str, label: &str) {
        self.book.mark(label, Some(group));
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.book.pages().counts
    }

    /// Waits until so many requests of the run were answered.
    ///
    /// # Errors
    /// [`is_timed_out`](Error::is_timed_out), with the counts so far.
    ///
    /// # Cancel safety
    /// A cancelled wait loses nothing.
    pub async fn wait_answered(&self, answered: u64, bound: Duration) -> Result<(), Error> {
        within(bound, self.book.wait_answered(answered))
            .await
            .map_err(|_| {
                let message = format!("no {answered} answers in {bound:?}: {:?}", self.counts());
                Error::new(Kind::TimedOut, message)
            })
    }

    /// The time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.book.started.elapsed()
    }

    /// Waits until every client is done: the duration is over, [`stop`](Self::stop) was called, each has sent its number of
    /// requests, or the listener is gone. Requests under way are waited for, each up to the plan's timeout.
    ///
    /// # Panics
    /// If a client panicked, as by a body check of the plan that does.
    ///
    /// # Cancel safety
    /// Cancelling drops the run.
    pub async fn finish(mut self) -> Report {
        self.wait_clients().await;
        self.timer.shutdown().await;
        Report::of(&self.plan, &self.book)
    }

    /// Waits, as [`finish`](Self::finish) does, until every client is done, for a caller that has more to wait for.
    ///
    /// # Panics
    /// If a client panicked, as by a body check of the plan that does.
    ///
    /// # Cancel safety
    /// A cancelled wait loses nothing.
    pub async fn wait_clients(&mut self) {
        while let Some(outcome) = self.clients.join_next().await {
            if let Err(error) = outcome
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// So many first connects at once: below any backlog in use.
const CONNECTING_MAX: usize = 64;
