//! Where hyper's tasks run: a stream's first turn is in the task of its connection, on the spot.
//!
//! Most handlers are ready at once, and to make a task of each costs more than they do. One that is not goes on in a task
//! of its own.
//!
//! Invariants:
//! - A turn is given only where it is asked for, by the service, for the stream that was called last.
//! - While one is taken, whatever wakes the connection need not: hyper looks at all of it again before its poll ends.

use crate::http2::carrier::Carrier;
use crate::http2::websocket::take_opened;
use hyper::rt::Executor;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

thread_local! {
    /// The carrier whose stream, the next that hyper makes a task of, gets its first turn on the spot; 0 if none.
    static NEXT: Cell<usize> = const { Cell::new(0) };
    /// The carrier whose stream has its turn; 0 if none.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

fn number(carrier: &Arc<Carrier>) -> usize {
    Arc::as_ptr(carrier).addr()
}

/// The stream that is called is to have its first turn on the spot.
#[inline]
pub(crate) fn give(carrier: &Arc<Carrier>) {
    NEXT.set(number(carrier));
}

/// Runs hyper's tasks, and lets a socket's hold what its stream held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    #[inline]
    fn execute(&self, task: F) {
        let carrier = NEXT.take();
        if carrier != 0 {
            return run(task, carrier);
        }
        drop(match take_opened() {
            None => tokio::spawn(task),
            Some(kept) => tokio::spawn(async move {
                let ended = task.await;
                drop(kept);
                ended
            }),
        });
    }
}

#[inline]
fn run<F>(task: F, carrier: usize)
where
    F: Future<Output: Send> + Send + 'static,
{
    let task = Box::pin(task);
    RUNNING.set(carrier);
    // A panic ends the stream, as it does in a task of its own.
    let left = catch_unwind(AssertUnwindSafe(move || {
        let mut task = task;
        let polled = task
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .map(drop);
        polled.is_pending().then_some(task)
    }));
    RUNNING.set(0);
    if let Ok(Some(task)) = left {
        // It is asked again at once, with a waker that wakes.
        drop(tokio::spawn(task));
    }
}

/// Wakes a connection, but not for what its own streams do in their turns.
struct Quiet {
    carrier: usize,
    task: Waker,
}

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if RUNNING.get() != self.carrier {
            self.task.wake_by_ref();
        }
    }
}

/// The waker that hyper's connection gets.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Of the task, and what was made of it.
    wakers: Option<(Waker, Waker)>,
}

impl Turns {
    pub(crate) fn waker<'a>(
        &'a mut self,
        cx: &'a Context<'_>,
        carrier: &Arc<Carrier>,
    ) -> &'a Waker {
        let task = cx.waker();
        if !carrier.answers_at_once() {
            return task;
        }
        let wakers = self.wakers.take().filter(|(of, _)| of.will_wake(task));
        let (_, quiet) = self.wakers.insert(wakers.unwrap_or_else(|| {
            let quiet = Quiet {
                carrier: number(carrier),
                task: task.clone(),
            };
            (task.clone(), Arc::new(quiet).into())
        }));
        quiet
    }
}
