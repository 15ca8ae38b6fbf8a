//! A task's one timer, set by the server's clock.
//!
//! The clock ticks coarsely and lags behind the runtime's by up to a tick, so a timer may go off
//! before its moment has come by the clock. It is set a little late, and again if that was not
//! enough: whoever asks and is told to wait is always woken.

use curtsy_lifecycle::Moment;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

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

#[cfg(test)]
mod tests {
    use super::Alarm;
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
}
