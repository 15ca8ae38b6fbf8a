//! The account book of a run: every request and connection is entered here, once when it begins and once when it ends.
//!
//! Invariants: `sent == answered + lost + crossed + in flight` and `opened == closed + open` at any time. One lock, held for some tens of
//! nanoseconds per entry and never across an await: at the rates one process can drive it is free nearly always.
//! Its size is bounded whatever the length of the run: the timeline halves its resolution when it is full.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::Notify;

use crate::outcome::{Closed, Loss, Trouble};

/// The counts of a run so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Requests of which at least the first byte was to be written.
    pub sent: u64,
    /// Requests with a whole answer of the expected status, length and content.
    pub answered: u64,
    /// Requests lost, by cause.
    pub lost: Losses,
    /// WebSocket messages that crossed the server's Close, after which nobody may echo them: no loss.
    pub crossed_close: u64,
    /// Connections refused, or a Unix socket gone.
    pub refused: u64,
    /// Connects that failed otherwise: timed out, unreachable, no descriptor, no port.
    pub connect_failed: u64,
    /// Bytes that nobody had asked for, after an answer or on an idle connection.
    pub unsolicited: u64,
    /// Connections made.
    pub opened: u64,
    /// Connections whose last answer had said that it was the last one, or that said GOAWAY
    /// (HTTP/2) or Close in good order (WebSocket).
    pub closed_by_server_announced: u64,
    /// Connections ended by the peer while no request was in flight: no loss.
    pub closed_while_idle: u64,
    /// Connections given up with a lost request, or for unsolicited bytes.
    pub closed_by_loss: u64,
    /// Connections closed by the client: end of the run, or a plan with a connection per request.
    pub closed_by_client: u64,
    /// Body bytes of all answers that came whole.
    pub body_bytes: u64,
}

/// Lost requests by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Losses {
    /// See [`Loss::Reset`].
    pub reset: u64,
    /// See [`Loss::EofBefore`].
    pub eof_before: u64,
    /// See [`Loss::EofInside`].
    pub eof_inside: u64,
    /// See [`Loss::WrongStatus`].
    pub wrong_status: u64,
    /// See [`Loss::WrongBody`].
    pub wrong_body: u64,
    /// See [`Loss::Timeout`].
    pub timeout: u64,
    /// See [`Loss::Garbage`].
    pub garbage: u64,
    /// See [`Loss::Unprocessed`].
    pub unprocessed: u64,
}

impl Losses {
    /// The number of one cause.
    pub fn of(&self, loss: Loss) -> u64 {
        match loss {
            Loss::Reset => self.reset,
            Loss::EofBefore => self.eof_before,
            Loss::EofInside => self.eof_inside,
            Loss::WrongStatus => self.wrong_status,
            Loss::WrongBody => self.wrong_body,
            Loss::Timeout => self.timeout,
            Loss::Garbage => self.garbage,
            Loss::Unprocessed => self.unprocessed,
        }
    }

    /// All causes together.
    pub fn total(&self) -> u64 {
        Loss::ALL.iter().map(|loss| self.of(*loss)).sum()
    }

    fn add(&mut self, loss: Loss) {
        *match loss {
            Loss::Reset => &mut self.reset,
            Loss::EofBefore => &mut self.eof_before,
            Loss::EofInside => &mut self.eof_inside,
            Loss::WrongStatus => &mut self.wrong_status,
            Loss::WrongBody => &mut self.wrong_body,
            Loss::Timeout => &mut self.timeout,
            Loss::Garbage => &mut self.garbage,
            Loss::Unprocessed => &mut self.unprocessed,
        } += 1;
    }
}

/// One lost request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LostRequest {
    /// Its number: the first request of the run is 1. It went out in the field `Prove-Request`.
    pub number: u64,
    /// Which client had sent it.
    pub client: usize,
    /// When it was given up, in milliseconds since the run began.
    pub at_ms: u64,
    /// How long it had been under way, in microseconds.
    pub after_us: u64,
    /// The cause.
    pub cause: Loss,
    /// The cause in words.
    pub detail: String,
}

/// How often and when an answer with one content came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Seen {
    /// How many answers.
    pub count: u64,
    /// The first, in milliseconds since the run began.
    pub first_ms: u64,
    /// The last, in milliseconds since the run began.
    pub last_ms: u64,
}

/// What happened in one stretch of the timeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cell {
    /// Requests answered.
    pub answered: u64,
    /// Requests lost (refused connections too, where the plan counts them).
    pub lost: u64,
    /// The sum of the latencies of the answered ones, in microseconds.
    pub latency_sum_us: u64,
    /// The greatest latency among the answered ones, in microseconds.
    pub latency_max_us: u64,
    /// Connections made.
    pub opened: u64,
}

impl Cell {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.latency_sum_us += other.latency_sum_us;
        self.latency_max_us = self.latency_max_us.max(other.latency_max_us);
        self.opened += other.opened;
    }
}

/// The time between two marks.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) label: String,
    pub(crate) group: Option<&'static str>,
    pub(crate) from: Duration,
    pub(crate) latency: Histogram<u64>,
    pub(crate) lost: u64,
}

impl Stretch {
    fn new(label: &str, group: Option<&'static str>, from: Duration) -> Self {
        Self {
            label: label.to_owned(),
            group,
            from,
            latency: histogram(),
            lost: 0,
        }
    }
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) client: usize,
    pub(crate) begun: Instant,
}

#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) started: Instant,
    is_refusal_a_loss: bool,
    pages: Mutex<Pages>,
    /// So many answers as somebody waits for are there.
    reached: Notify,
}

#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) counts: Counts,
    /// The least number of answers that somebody waits for.
    awaited: u64,
    /// The number of the youngest request.
    number: u64,
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) cell_width: Duration,
    pub(crate) cells: Vec<Cell>,
    pub(crate) connects: Histogram<u64>,
    pub(crate) last_answer_at: Option<Instant>,
    pub(crate) losses: Vec<LostRequest>,
    pub(crate) connect_errors: BTreeMap<String, u64>,
    pub(crate) answers: BTreeMap<String, Seen>,
    pub(crate) close_codes: BTreeMap<u16, u64>,
}

impl Book {
    pub(crate) fn new(is_refusal_a_loss: bool) -> Self {
        Self {
            started: Instant::now(),
            is_refusal_a_loss,
            reached: Notify::new(),
            pages: Mutex::new(Pages {
                counts: Counts::default(),
                awaited: u64::MAX,
                number: 0,
                stretches: vec![Stretch::new("start", Some("before"), Duration::ZERO)],
                cell_width: CELL_WIDTH,
                cells: Vec::new(),
                connects: histogram(),
                last_answer_at: None,
                losses: Vec::new(),
                connect_errors: BTreeMap::new(),
                answers: BTreeMap::new(),
                close_codes: BTreeMap::new(),
            }),
        }
    }

    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        // No entry is made in steps that a panic could tear apart.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many requests were answered.
    pub(crate) async fn wait_answered(&self, answered: u64) {
        loop {
            let mut reached = pin!(self.reached.notified());
            // From here on no notice is missed.
            reached.as_mut().enable();
            {
                let mut pages = self.pages();
                if pages.counts.answered >= answered {
                    return;
                }
                pages.awaited = pages.awaited.min(answered);
            }
            reached.await;
        }
    }

    pub(crate) fn mark(&self, label: &str, group: Option<&'static str>) {
        let mut pages = self.pages();
        if pages.stretches.len() < MARKS_MAX {
            let stretch = Stretch::new(label, group, self.started.elapsed());
            pages.stretches.push(stretch);
        }
    }

    /// Enters a request; its latency counts from `begun`.
    pub(crate) fn sent(&self, client: usize, begun: Instant) -> Entry {
        let mut pages = self.pages();
        pages.counts.sent += 1;
        pages.number += 1;
        Entry {
            number: pages.number,
            client,
            begun,
        }
    }

    /// The request was answered; `text` is its body if contents are to be told apart.
    pub(crate) fn answered(&self, entry: Entry, length: u64, text: Option<String>) {
        let at = Instant::now();
        let latency_us = micros(at - entry.begun);
        let now = at - self.started;
        let mut pages = self.pages();
        pages.counts.answered += 1;
        if pages.counts.answered >= pages.awaited {
            pages.awaited = u64::MAX;
            self.reached.notify_waiters();
        }
        pages.last_answer_at = pages.last_answer_at.max(Some(at));
        pages.counts.body_bytes += length;
        let cell = pages.cell(now);
        cell.answered += 1;
        cell.latency_sum_us += latency_us;
        cell.latency_max_us = cell.latency_max_us.max(latency_us);
        if let Some(stretch) = pages.stretches.last_mut() {
            record(&mut stretch.latency, latency_us);
        }
        if let Some(text) = text {
            pages.seen(text, millis(now));
        }
    }

    /// A request that was entered as sent turned out not to be: its number is not used again.
    pub(crate) fn withdrawn(&self) {
        self.pages().counts.sent -= 1;
    }

    pub(crate) fn lost(&self, entry: Entry, trouble: Trouble) {
        let now = self.started.elapsed();
        let mut pages = self.pages();
        pages.counts.lost.add(trouble.loss);
        pages.cell(now).lost += 1;
        if let Some(stretch) = pages.stretches.last_mut() {
            stretch.lost += 1;
        }
        if pages.losses.len() < LOSSES_LISTED_MAX {
            pages.losses.push(LostRequest {
                number: entry.number,
                client: entry.client,
                at_ms: millis(now),
                after_us: micros(entry.begun.elapsed()),
                cause: trouble.loss,
                detail: trouble.detail,
            });
        }
    }

    pub(crate) fn opened(&self, connect: Duration) {
        let now = self.started.elapsed();
        let mut pages = self.pages();
        pages.counts.opened += 1;
        record(&mut pages.connects, micros(connect));
        pages.cell(now).opened += 1;
    }

    pub(crate) fn closed(&self, how: Closed) {
        let counts = &mut self.pages().counts;
        *match how {
            Closed::ByServerAnnounced => &mut counts.closed_by_server_announced,
            Closed::WhileIdle => &mut counts.closed_while_idle,
            Closed::ByLoss => &mut counts.closed_by_loss,
            Closed::ByClient => &mut counts.closed_by_client,
        } += 1;
    }

    pub(crate) fn crossed_close(&self) {
        self.pages().counts.crossed_close += 1;
    }

    /// A WebSocket was closed by the server with this code.
    pub(crate) fn close_frame(&self, code: u16) {
        *self.pages().close_codes.entry(code).or_default() += 1;
    }

    pub(crate) fn unsolicited(&self) {
        self.pages().counts.unsolicited += 1;
    }

    pub(crate) fn refused(&self) {
        self.pages().counts.refused += 1;
        if self.is_refusal_a_loss {
            self.no_connection();
        }
    }

    pub(crate) fn connect_failed(&self, why: String) {
        let mut pages = self.pages();
        pages.counts.connect_failed += 1;
        let is_known = pages.connect_errors.contains_key(&why);
        if is_known || pages.connect_errors.len() < KINDS_MAX {
            *pages.connect_errors.entry(why).or_default() += 1;
        }
        drop(pages);
        self.no_connection();
    }

    /// A connection that should have been made and was not shows on the timeline like a lost request.
    fn no_connection(&self) {
        let now = self.started.elapsed();
        let mut pages = self.pages();
        pages.cell(now).lost += 1;
        if let Some(stretch) = pages.stretches.last_mut() {
            stretch.lost += 1;
        }
    }
}

impl Pages {
    fn cell(&mut self, now: Duration) -> &mut Cell {
        let mut index = self.index(now);
        while index >= CELLS_MAX {
            self.cells = self
                .cells
                .chunks(2)
                .map(|pair| {
                    let mut cell = pair[0];
                    pair.get(1).into_iter().for_each(|other| cell.merge(other));
                    cell
                })
                .collect();
            self.cell_width *= 2;
            index = self.index(now);
        }
        if self.cells.len() <= index {
            self.cells.resize(index + 1, Cell::default());
        }
        &mut self.cells[index]
    }

    fn index(&self, now: Duration) -> usize {
        usize::try_from(now.as_nanos() / self.cell_width.as_nanos()).unwrap_or(usize::MAX)
    }

    fn seen(&mut self, text: String, now_ms: u64) {
        let is_known = self.answers.contains_key(&text);
        let key = if is_known || self.answers.len() < KINDS_MAX {
            text
        } else {
            "(others)".to_owned()
        };
        let seen = self.answers.entry(key).or_insert(Seen {
            count: 0,
            first_ms: now_ms,
            last_ms: now_ms,
        });
        seen.count += 1;
        seen.last_ms = now_ms;
    }
}

fn histogram() -> Histogram<u64> {
    // Three digits is in the range the library allows, so this cannot fail.
    Histogram::new(3).expect("a histogram of three digits")
}

/// Records a value of any size: the histogram grows to it.
fn record(histogram: &mut Histogram<u64>, us: u64) {
    // It only fails for values that a growing histogram's index cannot hold, and a 64-bit index holds them all.
    histogram.record(us).expect("a growing histogram");
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const CELL_WIDTH: Duration = Duration::from_millis(100);
/// Ten minutes at full resolution; longer runs are told in coarser cells.
const CELLS_MAX: usize = 6000;
const MARKS_MAX: usize = 1000;
/// Lost requests that are listed one by one; the counts go on.
const LOSSES_LISTED_MAX: usize = 100;
/// Different contents, and different connect errors, that are told apart.
const KINDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_timeline_halves_its_resolution_and_keeps_its_sums() {
        let book = Book::new(false);
        let mut pages = book.pages();
        for tick in 0..=CELLS_MAX {
            let now = CELL_WIDTH * u32::try_from(tick).unwrap();
            let cell = pages.cell(now);
            cell.answered += 1;
            cell.latency_max_us = cell.latency_max_us.max(tick as u64);
        }
        assert_eq!(pages.cell_width, CELL_WIDTH * 2);
        assert_eq!(pages.cells.len(), CELLS_MAX / 2 + 1);
        assert_eq!(
            pages.cells.iter().map(|c| c.answered).sum::<u64>(),
            CELLS_MAX as u64 + 1
        );
        assert_eq!(pages.cells[1].latency_max_us, 3);
    }

    #[test]
    fn every_cause_has_its_own_count() {
        let book = Book::new(false);
        for loss in Loss::ALL {
            let entry = book.sent(0, Instant::now());
            book.lost(entry, Trouble::new(loss, "for the test"));
        }
        let counts = book.pages().counts;
        assert_eq!(counts.sent, 8);
        assert_eq!(counts.lost.total(), 8);
        for loss in Loss::ALL {
            assert_eq!(counts.lost.of(loss), 1, "{loss}");
        }
    }

    #[test]
    fn a_request_belongs_to_the_stretch_in_which_it_ended() {
        let book = Book::new(false);
        let before = book.sent(0, Instant::now());
        let across = book.sent(0, Instant::now());
        book.answered(before, 1, None);
        book.mark("SIGTERM", None);
        book.answered(across, 1, None);
        let pages = book.pages();
        let told: Vec<_> = pages
            .stretches
            .iter()
            .map(|s| (s.label.as_str(), s.latency.len()))
            .collect();
        assert_eq!(told, [("start", 1), ("SIGTERM", 1)]);
    }

    #[test]
    fn contents_beyond_the_limit_are_counted_together() {
        let book = Book::new(false);
        for n in 0..KINDS_MAX + 5 {
            let entry = book.sent(0, Instant::now());
            book.answered(entry, 1, Some(format!("body {n}")));
        }
        let pages = book.pages();
        assert_eq!(pages.answers.len(), KINDS_MAX + 1);
        assert_eq!(pages.answers["(others)"].count, 5);
    }
}
