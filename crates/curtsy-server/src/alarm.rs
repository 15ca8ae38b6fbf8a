//! Timers that are set by the server's clock: a task's one, and those of a worker.
//!
//! The clock ticks coarsely and lags behind the runtime's by up to a tick, so a timer may go off
//! before its moment has come by the clock. It is set a little late, and again if that was not
//! enough: whoever asks and is told to wait is always woken.

use crate::clock;
use curtsy_lifecycle::Moment;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A tick of the coarse clock, on most kernels.
const TICK: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<(Moment, Pin<Box<Sleep>>)>);

impl Alarm {
    /// Ready once `at` has come. Until then the task is woken at `at` or earlier: a timer that is
    /// set for an earlier moment is left alone, and the task asks again.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Moment, now: Moment) -> Poll<()> {
        if now >= at {
            return Poll::Ready(());
        }
        let wanted = || Instant::now() + at.since(now) + TICK;
        let (set, sleep) = self
            .0
            .get_or_insert_with(|| (at, Box::pin(sleep_until(wanted()))));
        if at < *set || sleep.is_elapsed() {
            *set = at;
            sleep.as_mut().reset(wanted());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            sleep.as_mut().reset(Instant::now() + TICK);
        }
        Poll::Pending
    }
}

/// A timer of a worker's, for what is to be looked at some time while requests come and go. It is the kernel's: with one of
/// the runtime's own, each wait for the next request would be a timer that is set and taken back.
#[derive(Debug)]
pub(crate) struct Timer {
    /// None if the kernel has none to give.
    kernels: Option<curtsy_sys::timer::Timer>,
    /// What it is set for.
    set: Option<Moment>,
}

impl Timer {
    /// A timer that the current runtime watches.
    pub(crate) fn new() -> Self {
        let kernels = curtsy_sys::timer::Timer::new();
        if let Err(error) = &kernels {
            tracing::warn!(%error, "no timer of the kernel's for a worker; the runtime's own is used");
        }
        Self {
            kernels: kernels.ok(),
            set: None,
        }
    }

    /// Waits until `at`, or for ever. It may be over before that, if the timer had been set for an earlier moment: whoever
    /// waits looks, and waits again.
    ///
    /// Cancel safety: cancel safe.
    pub(crate) async fn until(&mut self, at: Option<Moment>) {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        let pause = || at.since(clock::now()) + TICK;
        if let Some(timer) = &self.kernels {
            if self.set.is_none_or(|set| at < set) && timer.set(pause()).is_ok() {
                self.set = Some(at);
            }
            if self.set.is_some() && timer.elapsed().await.is_ok() {
                self.set = None;
                return;
            }
        }
        sleep(pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Alarm, Timer};
    use crate::clock;
    use curtsy_lifecycle::Moment;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    /// The clock lags behind the timer again and again.
    #[tokio::test(start_paused = true)]
    async fn a_lagging_clock_loses_no_alarm() {
        let mut alarm = Alarm::default();
        let at = Moment::from_millis(100);
        let mut now = Moment::from_millis(0);
        let mut wakes = 0;
        poll_fn(|cx| {
            if alarm.poll(cx, at, now).is_ready() {
                return Poll::Ready(());
            }
            wakes += 1;
            now = if wakes < 4 {
                Moment::from_millis(99)
            } else {
                at
            };
            Poll::Pending
        })
        .await;
        assert_eq!(wakes, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_moment_comes_first() {
        let mut alarm = Alarm::default();
        let begun = tokio::time::Instant::now();
        let clock = || Moment::from_millis(u64::try_from(begun.elapsed().as_millis()).unwrap());
        let mut first = true;
        poll_fn(|cx| {
            let at = if first { 60_000 } else { 50 };
            let polled = alarm.poll(cx, Moment::from_millis(at), clock());
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
            }
            polled
        })
        .await;
        assert!(begun.elapsed() < Duration::from_millis(200));
    }

    #[tokio::test]
    async fn a_workers_timer_is_over_at_the_earliest_moment_that_it_was_set_for() {
        let mut timer = Timer::new();
        let (begun, now) = (std::time::Instant::now(), clock::now());
        let early = now + Duration::from_millis(400);
        let late = now + Duration::from_secs(600);
        for at in [Some(late), Some(early), Some(late), None] {
            let waits = tokio::time::timeout(Duration::ZERO, timer.until(at));
            assert!(waits.await.is_err());
        }
        assert_eq!(timer.set, Some(early));
        let bound = Duration::from_secs(60);
        let waited = tokio::time::timeout(bound, timer.until(Some(late))).await;
        waited.expect("it was set for the earlier moment");
        // But for a tick, by which the server's clock may lag.
        assert!(begun.elapsed() >= Duration::from_millis(380));
        assert_eq!(timer.set, None);
        let waits = tokio::time::timeout(Duration::from_millis(20), timer.until(Some(late)));
        assert!(waits.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timer_of_the_kernels_it_is_the_runtimes() {
        let mut timer = Timer {
            kernels: None,
            set: None,
        };
        let begun = tokio::time::Instant::now();
        timer
            .until(Some(clock::now() + Duration::from_secs(60)))
            .await;
        // The clock may have gone on before it was asked for the pause.
        assert!(begun.elapsed() >= Duration::from_secs(50));
    }
}
