//! A timer of the kernel's (`timerfd_create(2)`), of which a tokio runtime sees only that its descriptor is readable.
//!
//! A runtime waits for events no longer than until its own next timer is due, and so has the kernel set a timer before each
//! wait and take it back behind it: where waits are short and many, many times for each time that it goes off. In a
//! virtual machine that is an exit as often as it comes before the next tick. This one is set once.

use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::watched::{Interest, Watched};

/// A timer.
#[derive(Debug)]
pub struct Timer(Watched);

impl Timer {
    /// A timer that the current runtime watches.
    ///
    /// # Errors
    /// What `timerfd_create(2)` says: there are too many descriptors; and as [`Watched::new`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Watched::new(timer, Interest::READABLE).map(Self)
    }

    /// Sets it to go off after so long, by the monotonic clock, and not as it was set before.
    ///
    /// # Errors
    /// What the kernel says, which does not happen to a timer that was made.
    pub fn set(&self, pause: Duration) -> io::Result<()> {
        // Nothing at all would mean never.
        let pause = pause.max(Duration::from_nanos(1));
        let value = Timespec::try_from(pause).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        });
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Waits until it goes off: never before, and as a rule some 50 microseconds after that. Once for each time that it
    /// was set.
    ///
    /// # Errors
    /// As [`Watched::readable`].
    ///
    /// # Cancel safety
    /// Cancel safe: if it has gone off meanwhile, whoever waits next does not wait.
    ///
    /// ```
    /// use curtsy_sys::timer::Timer;
    /// use std::time::{Duration, Instant};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    /// # runtime.block_on(async {
    /// let timer = Timer::new()?;
    /// let begun = Instant::now();
    /// timer.set(Duration::from_millis(5))?;
    /// timer.elapsed().await?;
    /// assert!(begun.elapsed() >= Duration::from_millis(5));
    /// # Ok::<(), std::io::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn elapsed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            // If it was set anew since it last went off, there is nothing to read.
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?));
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::runtime::Builder;

    #[test]
    fn it_goes_off_as_it_was_set_last_and_once() {
        // No timers of the runtime's own.
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap();
            timer.set(Duration::ZERO).unwrap();
            timer.elapsed().await.unwrap();
            // One that went off, and that nobody waited for, is not taken for the next.
            timer.set(Duration::ZERO).unwrap();
            let _ = timer.0.readable().await.unwrap();
            let long = Duration::from_millis(40);
            let begun = Instant::now();
            timer.set(long).unwrap();
            timer.elapsed().await.unwrap();
            assert!(begun.elapsed() >= long, "{:?}", begun.elapsed());
            // And it does not go off again.
            let mut again = std::pin::pin!(timer.elapsed());
            let pending = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(again.as_mut().poll(cx).is_pending())
            });
            assert!(pending.await);
        });
    }
}
