//! What the parts of one connection tell each other: the wire below hyper, the service above it,
//! the bodies that pass through, and the task that drives them.
//!
//! They all run in one task, but a request's body may be read in another; so the fields are
//! atomics, and cost on the serving thread what plain ones would.
//!
//! Invariant: the connection is idle exactly when nothing of a request was read since the last
//! answer was wholly flushed and its request's body read to its end.

use crate::clock;
use crate::hint::unlikely;
use crate::hooks::StateHook;
use crate::http1::{BodyLength, Head};
use crate::shared::OnDisconnect;
use crate::worker::Worker;
use curtsy_lifecycle::{ConnectionInfo, Entry, Event, Moment, Origin, State};
use hyper::body::Incoming;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Where the request in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Stage {
    /// None is in flight.
    Waiting = 0,
    /// The service has it.
    Called = 1,
    /// The answer's head is made, its body is not at its end.
    Answering = 2,
    /// The answer is complete; not all of it may be flushed.
    Answered = 3,
}

/// What went wrong with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BodyFault {
    /// Its framing is broken.
    Framing = 1,
    /// It is larger than allowed.
    TooLarge = 2,
    /// It stood still, or took too long.
    TimedOut = 3,
}

/// What each request touches comes first, side by side: see [`Entry`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Link {
    pub(crate) entry: Arc<Entry>,
    pub(crate) worker: Arc<Worker>,
    /// Of the entry.
    origin: Arc<Origin>,
    stage: AtomicU8,
    /// The request has a body that was not read to its end.
    body_open: AtomicBool,
    /// The body went to a service that reads it behind our back.
    body_escaped: AtomicBool,
    body_fault: AtomicU8,
    has_leftover: AtomicBool,
    /// The connection will close after this answer.
    closing: AtomicBool,
    /// Input is expected that nobody will read: close slowly.
    close_gently: AtomicBool,
    switching: AtomicBool,
    /// A request asked for another protocol.
    asked_to_switch: AtomicBool,
    /// Of a stream: the next one cannot have it.
    worn: AtomicBool,
    head_too_large: AtomicBool,
    /// An answer was too large to be copied.
    large: AtomicBool,
    /// The state that the program's hook was told last.
    reported: AtomicU8,
    /// Times in milliseconds; 0 if it is not so.
    last_read: AtomicU64,
    head_since: AtomicU64,
    called_at: AtomicU64,
    write_blocked_since: AtomicU64,
    shutdown_since: AtomicU64,
    /// What the last head was like as it came over the wire, until the service has it.
    head: AtomicU32,
    /// Answers that are complete and not flushed, all to requests called at one moment.
    unflushed: AtomicU32,
    /// How long the body is, as hyper has it.
    body_length: AtomicU64,
    /// Since when the handler waits for more of the body, in milliseconds; 0 if it does not.
    body_waits_since: AtomicU64,
    body_waker: Mutex<Option<Waker>>,
    leftover: Mutex<Option<Box<Incoming>>>,
}

/// What a request touches is in the first two cache lines, behind what `Arc` counts.
const _: () = assert!(offset_of!(Link, body_waker) <= 2 * 64 - 2 * size_of::<usize>());

fn flag(value: &AtomicBool) -> bool {
    value.load(Ordering::Acquire)
}

fn moment(value: &AtomicU64) -> Option<Moment> {
    match value.load(Ordering::Relaxed) {
        0 => None,
        ms => Some(Moment::from_millis(ms)),
    }
}

impl Link {
    const HEAD_UNSEEN: u32 = 1 << 16;
    const HEAD_PLAIN: u32 = 2 << 16;
    const CHUNKED: u64 = u64::MAX;

    pub(crate) fn new(entry: Arc<Entry>, worker: Arc<Worker>) -> Self {
        let state = entry.state();
        Self {
            origin: entry.origin().clone(),
            entry,
            worker,
            stage: AtomicU8::new(Stage::Waiting as u8),
            body_open: AtomicBool::new(false),
            body_escaped: AtomicBool::new(false),
            body_fault: AtomicU8::new(0),
            body_waits_since: AtomicU64::new(0),
            body_waker: Mutex::new(None),
            has_leftover: AtomicBool::new(false),
            leftover: Mutex::new(None),
            closing: AtomicBool::new(false),
            close_gently: AtomicBool::new(false),
            switching: AtomicBool::new(false),
            asked_to_switch: AtomicBool::new(false),
            worn: AtomicBool::new(false),
            last_read: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            called_at: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
            shutdown_since: AtomicU64::new(0),
            head: AtomicU32::new(Self::HEAD_UNSEEN),
            body_length: AtomicU64::new(0),
            unflushed: AtomicU32::new(0),
            head_too_large: AtomicBool::new(false),
            large: AtomicBool::new(false),
            reported: AtomicU8::new(state as u8),
        }
    }

    /// Of a stream that is over, and that left nothing behind which its next one would find.
    pub(crate) fn is_like_new(&self) -> bool {
        !self.worn.load(Ordering::Relaxed) && self.entry.state() == State::Closed
    }

    /// A stream that is over becomes the connection's next one, which arrived at `now`. Not to be called on one that
    /// is not like new, or that somebody else has.
    pub(crate) fn begin_again(&self, now: Moment) {
        self.set_stage(Stage::Waiting);
        for flag in [
            &self.body_open,
            &self.body_escaped,
            &self.closing,
            &self.close_gently,
            &self.head_too_large,
        ] {
            flag.store(false, Ordering::Relaxed);
        }
        self.body_fault.store(0, Ordering::Relaxed);
        self.forget_head();
        self.unflushed.store(0, Ordering::Relaxed);
        for time in [
            &self.called_at,
            &self.write_blocked_since,
            &self.shutdown_since,
            &self.body_waits_since,
        ] {
            time.store(0, Ordering::Relaxed);
        }
        self.entry.begin_again(now);
    }

    /// The standing orders: to all of the server's connections, and to those of its origin.
    #[inline(always)]
    pub(crate) fn orders(&self) -> u32 {
        self.worker.orders(&self.entry, &self.origin)
    }

    /// Handlers run to their end whatever becomes of their client.
    pub(crate) fn outlives(&self) -> bool {
        self.worker.shared.manners.on_disconnect == OnDisconnect::Finish
    }

    pub(crate) fn info(&self) -> ConnectionInfo {
        ConnectionInfo::new(self.entry.clone())
    }

    #[inline]
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Waiting,
            1 => Stage::Called,
            2 => Stage::Answering,
            _ => Stage::Answered,
        }
    }

    #[inline]
    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    // ---- what the wire says

    /// Bytes arrived.
    #[inline]
    pub(crate) fn bytes_read(&self, now: Moment) {
        self.last_read.store(now.as_millis(), Ordering::Relaxed);
    }

    /// The bytes that arrived last are of a head.
    #[inline(always)]
    pub(crate) fn head_arrives(&self) {
        if self.stage() == Stage::Waiting && self.entry.state().is_waiting() {
            let read = self.last_read.load(Ordering::Relaxed);
            self.report();
            self.entry.begin_head();
            self.entry.tell(Event::Bytes, Moment::from_millis(read));
            self.head_since.store(read, Ordering::Relaxed);
            self.report();
        }
    }

    /// So many bytes came from the socket.
    #[inline]
    pub(crate) fn wire_received(&self, bytes: usize) {
        match unlikely(self.is_switching()) {
            false => self.worker.tally.received(bytes),
            true => self.worker.tally.received_upgraded(bytes),
        }
    }

    /// So many bytes went to the socket.
    #[inline]
    pub(crate) fn wire_sent(&self, bytes: usize) {
        match unlikely(self.is_switching()) {
            false => self.worker.tally.sent(bytes),
            true => self.worker.tally.sent_upgraded(bytes),
        }
    }

    /// How long the body of the request in flight is, as hyper has it.
    pub(crate) fn body_length(&self) -> BodyLength {
        match self.body_length.load(Ordering::Relaxed) {
            Self::CHUNKED => BodyLength::Chunked,
            length => BodyLength::Known(length),
        }
    }

    /// Everything written so far has gone to the kernel.
    #[inline(always)]
    pub(crate) fn flushed(&self, now: Option<Moment>) {
        if self.stage() == Stage::Answered && !self.is_body_open() && !self.is_switching() {
            self.set_stage(Stage::Waiting);
            let now = now.unwrap_or_else(clock::now);
            self.entry.tell(Event::Answered, now);
            self.count_answers(now);
        }
    }

    /// What the head that was just read is like.
    #[inline]
    pub(crate) fn head_seen(&self, head: Head) {
        let packed = match head {
            Head::Unseen => Self::HEAD_UNSEEN,
            Head::Plain => Self::HEAD_PLAIN,
            Head::Lines {
                transfer_encodings,
                content_lengths,
            } => u32::from(transfer_encodings) << 8 | u32::from(content_lengths),
        };
        self.head.store(packed, Ordering::Relaxed);
    }

    /// A whole head went to hyper, and the service has not got it.
    #[inline]
    pub(crate) fn is_head_due(&self) -> bool {
        self.head.load(Ordering::Relaxed) != Self::HEAD_UNSEEN
    }

    /// The head that was seen last comes once more.
    pub(crate) fn forget_head(&self) {
        self.head.store(Self::HEAD_UNSEEN, Ordering::Relaxed);
    }

    /// What the head that was just parsed is like.
    #[inline]
    pub(crate) fn take_head_seen(&self) -> Head {
        let packed = self.head.load(Ordering::Relaxed);
        self.head.store(Self::HEAD_UNSEEN, Ordering::Relaxed);
        match packed {
            Self::HEAD_UNSEEN => Head::Unseen,
            Self::HEAD_PLAIN => Head::Plain,
            lines => {
                let [content_lengths, transfer_encodings, ..] = lines.to_le_bytes();
                Head::Lines {
                    transfer_encodings,
                    content_lengths,
                }
            }
        }
    }

    pub(crate) fn set_head_too_large(&self) {
        self.head_too_large.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_head_too_large(&self) -> bool {
        self.head_too_large.load(Ordering::Relaxed)
    }

    pub(crate) fn set_large(&self) {
        self.large.store(true, Ordering::Relaxed);
    }

    /// Whether an answer was too large to be copied: the next may be, too.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.large.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn write_blocked(&self, blocked: bool) {
        if unlikely(blocked != self.write_blocked_since().is_some()) {
            self.write_blocked_at(blocked.then(clock::now));
        }
    }

    /// Since when it is the client who is waited for; `None` if it is not.
    #[inline(never)]
    pub(crate) fn write_blocked_at(&self, since: Option<Moment>) {
        let since = since.map_or(0, Moment::as_millis);
        self.write_blocked_since.store(since, Ordering::Relaxed);
    }

    /// The output ends, and the client has done something: it has so long again to do more.
    pub(crate) fn shutting_down(&self) {
        let now = clock::now().as_millis();
        self.shutdown_since.store(now, Ordering::Relaxed);
    }

    // ---- what the service says

    /// A request was parsed and goes to the service.
    #[inline(always)]
    pub(crate) fn called(&self, method: &str, target: &[u8], body: BodyLength) {
        let length = match body {
            BodyLength::Known(length) => length,
            BodyLength::Chunked => Self::CHUNKED,
        };
        self.entry.begin_request(method, target);
        self.body_length.store(length, Ordering::Relaxed);
        // The clock was read with the head's bytes.
        let read = self.last_read.load(Ordering::Relaxed);
        if self.called_at.load(Ordering::Relaxed) != read {
            self.count_answers(Moment::from_millis(read));
        }
        self.worker.tally.request();
        self.called_at.store(read, Ordering::Relaxed);
        self.set_stage(Stage::Called);
    }

    /// An answer is complete: all of it is with hyper.
    #[inline]
    pub(crate) fn answered(&self) {
        self.set_stage(Stage::Answered);
        let unflushed = self.unflushed.load(Ordering::Relaxed);
        self.unflushed.store(unflushed + 1, Ordering::Relaxed);
        if unlikely(self.entry.is_stream()) {
            // Nobody tells when one of many is flushed.
            self.count_answers(clock::now());
        }
    }

    /// Notes how long the answers took that are complete.
    #[inline(always)]
    fn count_answers(&self, now: Moment) {
        let answers = self.unflushed.load(Ordering::Relaxed);
        if answers > 0 {
            self.unflushed.store(0, Ordering::Relaxed);
            self.worker
                .tally
                .took(self.called_at(), now, answers.into());
        }
    }

    /// The answer changes the protocol.
    pub(crate) fn switching(&self) {
        self.switching.store(true, Ordering::Relaxed);
        self.worn.store(true, Ordering::Relaxed);
        self.report();
        self.entry.tell(Event::Switched, clock::now());
        self.report();
    }

    #[inline]
    pub(crate) fn is_switching(&self) -> bool {
        self.switching.load(Ordering::Relaxed)
    }

    pub(crate) fn asked_to_switch(&self) {
        self.asked_to_switch.store(true, Ordering::Relaxed);
    }

    /// Whether hyper may end the connection without a last flush: it does where it was ever asked for another protocol.
    pub(crate) fn was_asked_to_switch(&self) -> bool {
        self.asked_to_switch.load(Ordering::Relaxed)
    }

    pub(crate) fn close_after_answer(&self, gently: bool) {
        self.closing.store(true, Ordering::Relaxed);
        if gently {
            self.close_gently.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// It sends requests ahead of their answers, and may do so behind the last.
    #[inline]
    pub(crate) fn sends_ahead(&self) {
        self.close_gently.store(true, Ordering::Relaxed);
    }

    /// Whether more may come when the last answer is written: to close then would take it along.
    pub(crate) fn closes_gently(&self) -> bool {
        self.close_gently.load(Ordering::Relaxed)
    }

    // ---- what the body says

    pub(crate) fn body_opened(&self) {
        self.body_fault.store(0, Ordering::Relaxed);
        self.body_open.store(true, Ordering::Release);
    }

    pub(crate) fn body_ended(&self) {
        self.body_waits_since.store(0, Ordering::Relaxed);
        self.body_open.store(false, Ordering::Release);
        // If it is read elsewhere, whoever serves the connection must look again.
        if self.stage() == Stage::Answered {
            self.entry.wake();
        }
    }

    #[inline]
    pub(crate) fn is_body_open(&self) -> bool {
        flag(&self.body_open)
    }

    /// The body is read by somebody who does not say when it ends: hyper knows, we do not.
    pub(crate) fn body_escaped(&self) {
        self.body_escaped.store(true, Ordering::Relaxed);
        self.body_open.store(false, Ordering::Release);
    }

    pub(crate) fn has_body_escaped(&self) -> bool {
        self.body_escaped.load(Ordering::Relaxed)
    }

    pub(crate) fn body_waits(&self, waker: &Waker) {
        if self.body_waits_since.load(Ordering::Relaxed) == 0 {
            self.body_waits_since
                .store(clock::now().as_millis(), Ordering::Relaxed);
        }
        self.worn.store(true, Ordering::Relaxed);
        let mut kept = self
            .body_waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match kept.as_mut() {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    pub(crate) fn body_moved(&self) {
        self.body_waits_since.store(0, Ordering::Relaxed);
    }

    /// The body cannot be read on; whoever waits for it is told.
    pub(crate) fn body_failed(&self, fault: BodyFault) {
        self.body_fault.store(fault as u8, Ordering::Release);
        self.close_after_answer(true);
        self.body_waits_since.store(0, Ordering::Relaxed);
        let waker = self
            .body_waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn body_fault(&self) -> Option<BodyFault> {
        match self.body_fault.load(Ordering::Acquire) {
            1 => Some(BodyFault::Framing),
            2 => Some(BodyFault::TooLarge),
            3 => Some(BodyFault::TimedOut),
            _ => None,
        }
    }

    /// The handler let go of the body before its end.
    pub(crate) fn leave_body(&self, rest: Incoming) {
        if self.entry.is_stream() {
            // Dropped, it gives its share of the connection's window back.
            self.body_ended();
            return;
        }
        *self.leftover.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(rest));
        self.has_leftover.store(true, Ordering::Release);
        self.body_waits_since.store(0, Ordering::Relaxed);
        self.entry.wake();
    }

    #[inline]
    pub(crate) fn has_leftover(&self) -> bool {
        flag(&self.has_leftover)
    }

    pub(crate) fn take_leftover(&self) -> Option<Incoming> {
        self.has_leftover.store(false, Ordering::Release);
        self.leftover
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map(|rest| *rest)
    }

    // ---- times

    pub(crate) fn last_read(&self) -> Option<Moment> {
        moment(&self.last_read)
    }

    pub(crate) fn head_since(&self) -> Option<Moment> {
        moment(&self.head_since)
    }

    pub(crate) fn called_at(&self) -> Option<Moment> {
        moment(&self.called_at)
    }

    pub(crate) fn body_waits_since(&self) -> Option<Moment> {
        moment(&self.body_waits_since)
    }

    pub(crate) fn write_blocked_since(&self) -> Option<Moment> {
        moment(&self.write_blocked_since)
    }

    pub(crate) fn shutdown_since(&self) -> Option<Moment> {
        moment(&self.shutdown_since)
    }

    /// Tells the program's hook the current state, if it was not told yet.
    #[inline(always)]
    pub(crate) fn report(&self) {
        if let Some(hook) = &self.worker.shared.hooks.state {
            self.report_to(hook);
        }
    }

    #[cold]
    fn report_to(&self, hook: &StateHook) {
        if self.entry.is_stream() {
            return;
        }
        let state = self.entry.state();
        if self.reported.swap(state as u8, Ordering::Relaxed) != state as u8 {
            hook(&self.info(), state);
        }
    }
}
