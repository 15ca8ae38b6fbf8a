//! A budget for frames that cost the client nothing and bring no request.
//!
//! hyper's engine bounds the memory such floods take (CONTINUATION, queued SETTINGS and PING
//! acknowledgements, resets before acceptance), not the time. Requests, answers and time earn;
//! floods spend.

use crate::http2::frames::{self, Frame};
use curtsy_lifecycle::Moment;

/// What each second earns.
const A_SECOND: u64 = 500;
/// What a request earns: some clients acknowledge each answer by window updates.
const A_REQUEST: u64 = 8;
/// How many bytes of answers earn one.
const BYTES_SENT: u64 = 256;
/// What a reset costs: more than its request has earned, as the request cost us work.
const A_RESET: u64 = 20;
/// What a change of settings costs: each is acknowledged.
const SETTINGS: u64 = 10;

/// What everything else that brings nothing costs.
const A_FRAME: u64 = 1;

#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    left: u64,
    sent: u64,
    paid_at: Moment,
}

impl Budget {
    pub(crate) fn new(most: u32, now: Moment) -> Self {
        let most = u64::from(most);
        Self {
            most,
            left: most,
            sent: 0,
            paid_at: now,
        }
    }

    /// Bytes of answers were written.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.earn(self.sent / BYTES_SENT);
        self.sent %= BYTES_SENT;
    }

    /// A frame came; whether the budget allows for it.
    #[must_use]
    pub(crate) fn allows(&mut self, frame: Frame, now: Moment) -> bool {
        let seconds = now.since(self.paid_at).as_secs();
        if seconds > 0 {
            self.earn(seconds.saturating_mul(A_SECOND));
            self.paid_at = now;
        }
        let cost = match frame.kind {
            frames::HEADERS => {
                self.earn(A_REQUEST);
                0
            }
            frames::RST_STREAM => A_RESET,
            frames::SETTINGS => SETTINGS,
            frames::DATA if frame.length > 0 => 0,
            // The rest of a header block is bounded by its size, empty frames in it are not.
            frames::CONTINUATION if frame.length > 0 => 0,
            frames::PRIORITY | frames::PING | frames::WINDOW_UPDATE => A_FRAME,
            // Unknown kinds are passed over, at the same price.
            _ => A_FRAME,
        };
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    fn earn(&mut self, earned: u64) {
        self.left = self.left.saturating_add(earned).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use crate::http2::frames::{DATA, Frame, Frames, HEADERS, PING, RST_STREAM};
    use curtsy_lifecycle::Moment;

    fn frame(kind: u8, length: u8) -> Frame {
        let mut found = None;
        Frames::after(0).feed(&[0, 0, length, kind, 0, 0, 0, 0, 1, 0, 0, 0, 0], |frame| {
            found = Some(frame);
        });
        found.unwrap()
    }

    fn allowed(budget: &mut Budget, kind: u8, length: u8, at: Moment) -> usize {
        (0..100_000)
            .take_while(|_| budget.allows(frame(kind, length), at))
            .count()
    }

    #[test]
    fn floods_end_and_work_earns() {
        let at = Moment::from_millis(1_000);
        let mut budget = Budget::new(1_000, at);
        assert_eq!(allowed(&mut budget, PING, 8, at), 1_000);
        assert_eq!(allowed(&mut budget, DATA, 0, at), 0);
        assert!(budget.allows(frame(DATA, 1), at));
        assert!(budget.allows(frame(HEADERS, 1), at));
        assert_eq!(allowed(&mut budget, PING, 8, at), 8);
        budget.sent(255);
        assert_eq!(allowed(&mut budget, PING, 8, at), 0);
        budget.sent(257);
        assert_eq!(allowed(&mut budget, PING, 8, at), 2);
        let later = Moment::from_millis(2_100);
        assert_eq!(allowed(&mut budget, PING, 8, later), 500);
        let much_later = Moment::from_millis(1_000_000);
        assert_eq!(allowed(&mut budget, PING, 8, much_later), 1_000);
    }

    #[test]
    fn a_request_and_its_reset_cost_more_than_they_earn() {
        let at = Moment::from_millis(0);
        let mut budget = Budget::new(1_000, at);
        let pairs = (0..100_000).take_while(|_| {
            budget.allows(frame(HEADERS, 9), at) && budget.allows(frame(RST_STREAM, 4), at)
        });
        assert!(pairs.count() < 100);
    }
}
