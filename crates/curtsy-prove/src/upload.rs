//! The bodies of uploads: so many bytes, no faster than their rate.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A request body: `bytes` long, no faster than `rate_bytes` a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upload {
    pub(crate) bytes: u64,
    pub(crate) rate_bytes: Option<u64>,
}

/// The pieces of one body, each when it is due.
#[derive(Debug)]
pub(crate) struct Pieces {
    upload: Upload,
    begun: Instant,
    given: u64,
}

impl Pieces {
    pub(crate) fn of(upload: Upload) -> Self {
        Self {
            upload,
            begun: Instant::now(),
            given: 0,
        }
    }

    /// Waits until the next piece is due; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<&'static [u8]> {
        if self.is_over() {
            return None;
        }
        let mut step = PATTERN.len() as u64;
        if let Some(rate) = self.upload.rate_bytes {
            // Each piece has its due time from the beginning, so that a late timer does not lower the rate.
            let due = Duration::from_secs_f64(self.given as f64 / rate as f64);
            sleep_until(self.begun + due).await;
            step = (rate / PIECES_PER_SECOND).clamp(1, step);
        }
        step = step.min(self.upload.bytes - self.given);
        self.given += step;
        Some(usize::try_from(step).map_or(PATTERN, |step| &PATTERN[..step]))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.given >= self.upload.bytes
    }
}

/// What bodies consist of, repeated.
static PATTERN: &[u8] = &[b'x'; 64 * 1024];
/// A paced body is written in so many pieces a second.
const PIECES_PER_SECOND: u64 = 50;
