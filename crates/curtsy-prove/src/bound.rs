//! Waits with a bound that counts the time in which this process could look.
//!
//! A bound by the clock runs out while a process is stopped (SIGSTOP, a frozen container, a machine that is suspended), together
//! with the process that it waits for: continued, the one that waits finds its time over before the other has had any. So the
//! bound is waited for in slices, and a stop costs one of them however long it was.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

/// How much of a bound a stop takes, at most.
const SLICE: Duration = Duration::from_secs(1);

/// The bound has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed;

/// Waits for `event`, so long at most.
///
/// Cancel safe if `event` is.
pub(crate) async fn within<F: Future>(bound: Duration, event: F) -> Result<F::Output, Passed> {
    let mut event = pin!(event);
    let mut left = bound;
    loop {
        let slice = left.min(SLICE);
        left -= slice;
        match timeout(slice, event.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(_) if left.is_zero() => return Err(Passed),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Passed, within};
    use std::time::Duration;
    use tokio::time::{Instant, advance, sleep};

    const BOUND: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_event_is_waited_for_up_to_the_bound_and_not_longer() {
        for (bound, event, expected) in [
            (60_000, 59_990, Ok(())),
            (60_000, 60_010, Err(Passed)),
            (300, 290, Ok(())),
            (300, 310, Err(Passed)),
            (2_500, 2_510, Err(Passed)),
        ] {
            let begun = Instant::now();
            let bound = Duration::from_millis(bound);
            let event = Duration::from_millis(event);
            assert_eq!(within(bound, sleep(event)).await, expected, "{event:?}");
            let took = begun.elapsed();
            assert!(
                took.abs_diff(bound.min(event)) < Duration::from_millis(70),
                "{took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_use_the_bound_up() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(async move { within(BOUND, told).await });
        sleep(Duration::from_millis(500)).await;
        // The clock went on while nobody could look; who is waited for needs a moment more.
        advance(2 * BOUND).await;
        sleep(Duration::from_secs(3)).await;
        tell.send("here").unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(Ok("here")));
    }
}
