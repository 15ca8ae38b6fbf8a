//! How a request learns that its server is draining.
//!
//! A [`Signal`] is raised once, by the server. A [`Draining`] is a request's view of it: a flag to
//! look at and a future to wait for. Clones of a request's own `Draining` count references on its
//! connection, never on anything that all connections share.

use crate::entry::Entry;
use slab::Slab;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A flag that is raised once and wakes whoever waits for it.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicBool,
    waiters: Mutex<Slab<Waker>>,
}

impl Signal {
    /// A signal that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the signal and wakes all who wait. Raising it again does nothing.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        let waiters = std::mem::take(&mut *self.waiters());
        for (_, waker) in waiters {
            waker.wake();
        }
    }

    /// Whether it has been raised.
    #[inline]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    fn waiters(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a request, an upgraded connection or a stream that it should come to an end: the server is
/// draining, or its listener was switched to a mode that takes no such connections.
///
/// A handler finds it in its request's extensions. Only what would otherwise go on without end
/// needs it: streams, long polls, WebSockets. An ordinary request is simply finished.
///
/// ```
/// use curtsy_lifecycle::Draining;
///
/// async fn clock(draining: Draining) {
///     loop {
///         // send a tick, then:
///         if draining.is_draining() {
///             break;
///         }
///         draining.wait().await; // in real life: select with the next tick
///     }
/// }
/// # let _ = clock(Draining::never());
/// ```
#[derive(Clone, Debug)]
pub struct Draining(Source);

#[derive(Clone, Debug)]
enum Source {
    Connection(Arc<Entry>),
    Server(Arc<Signal>),
    Never,
}

impl Draining {
    /// The view of one connection.
    pub fn of_connection(entry: Arc<Entry>) -> Self {
        Self(Source::Connection(entry))
    }

    /// The view of whoever holds the signal itself.
    pub fn of_server(signal: Arc<Signal>) -> Self {
        Self(Source::Server(signal))
    }

    /// A drain that never comes: for tests, and for requests that no server carries.
    pub fn never() -> Self {
        Self(Source::Never)
    }

    /// Whether the server is draining, or the mode that the connection speaks was switched off.
    pub fn is_draining(&self) -> bool {
        self.signals().into_iter().flatten().any(Signal::is_raised)
    }

    /// Waits until the server drains or the connection's mode is switched off; ready at once if
    /// that is so already, never if it is [`Draining::never`].
    ///
    /// Cancel safety: dropping the future forgets the wait and nothing else.
    pub fn wait(&self) -> Wait {
        Wait {
            draining: self.clone(),
            keys: [None; 2],
        }
    }

    /// Of these, any.
    fn signals(&self) -> [Option<&Signal>; 2] {
        match &self.0 {
            Source::Connection(entry) => entry.signals().map(Some),
            Source::Server(signal) => [Some(signal), None],
            Source::Never => [None, None],
        }
    }
}

impl IntoFuture for Draining {
    type Output = ();
    type IntoFuture = Wait;

    fn into_future(self) -> Wait {
        Wait {
            draining: self,
            keys: [None; 2],
        }
    }
}

/// The future of [`Draining::wait`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Wait {
    draining: Draining,
    /// Its places among the waiters of each signal.
    keys: [Option<usize>; 2],
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for (signal, key) in this.draining.signals().into_iter().zip(&mut this.keys) {
            let Some(signal) = signal else { continue };
            if signal.is_raised() {
                return Poll::Ready(());
            }
            let mut waiters = signal.waiters();
            // Raising takes the waiters under this lock: seen unraised here, we are woken by it.
            if signal.is_raised() {
                return Poll::Ready(());
            }
            match *key {
                Some(key) => waiters[key].clone_from(cx.waker()),
                None => *key = Some(waiters.insert(cx.waker().clone())),
            }
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        for (signal, key) in self.draining.signals().into_iter().zip(self.keys) {
            let (Some(key), Some(signal)) = (key, signal) else {
                continue;
            };
            // Once raised, the slab was taken and the key means nothing any more.
            let mut waiters = signal.waiters();
            if !signal.is_raised() {
                waiters.try_remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Draining, Signal};
    use crate::{Address, Arrival, Entry, Moment, Origin, State};
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_everybody_once_and_stays_raised() {
        let signal = Arc::new(Signal::new());
        let draining = Draining::of_server(signal.clone());
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);

        let mut first = pin!(draining.wait());
        let mut second = pin!(draining.wait());
        let mut gone = Box::pin(draining.wait());
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(second.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(gone.as_mut().poll(&mut cx), Poll::Pending);
        drop(gone);
        assert_eq!(signal.waiters().len(), 2);

        signal.raise();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        signal.raise();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(draining.is_draining());
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Ready(()));
        assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(()));
        assert_eq!(pin!(draining.wait()).poll(&mut cx), Poll::Ready(()));
    }

    #[test]
    fn never_is_never() {
        let draining = Draining::never();
        assert!(!draining.is_draining());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(pin!(draining.wait()).poll(&mut cx), Poll::Pending);
    }

    /// A connection is told by its server or by its own origin, and of no other's.
    #[test]
    fn a_connection_is_told_when_its_origin_is_retired() {
        let server = Arc::new(Signal::new());
        let origin = || Arc::new(Origin::new("main", server.clone()));
        let draining = |origin: &Arc<Origin>| {
            let (here, now) = (Address::Unix(None), Moment::default());
            let arrival = Arrival {
                id: 1,
                origin: origin.clone(),
                peer: here.clone(),
                local: here,
                tls: false,
                carried: false,
                accepted: now,
            };
            Draining::of_connection(Arc::new(Entry::new(arrival, State::Active, now)))
        };
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let (retired, stays) = (origin(), origin());
        let (first, second) = (draining(&retired), draining(&stays));
        let mut first_wait = pin!(first.wait());
        let mut second_wait = pin!(second.wait());
        assert_eq!(first_wait.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(second_wait.as_mut().poll(&mut cx), Poll::Pending);
        retired.retire();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(first.is_draining() && !second.is_draining());
        assert_eq!(first_wait.as_mut().poll(&mut cx), Poll::Ready(()));
        assert_eq!(second_wait.as_mut().poll(&mut cx), Poll::Pending);
        // Nobody waits any more who was told by the other signal.
        let mut gone = Box::pin(first.wait());
        assert_eq!(gone.as_mut().poll(&mut cx), Poll::Ready(()));
        drop(gone);
        server.raise();
        assert_eq!(second_wait.as_mut().poll(&mut cx), Poll::Ready(()));
    }
}
