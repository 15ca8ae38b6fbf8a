//! The old process's side of a handover, as a state machine.
//!
//! [`Donor::step`] takes what happened and says what to do. It does no I/O, knows no clock (`now` is an argument) and
//! holds no descriptor: connections are known by their ids.
//!
//! Invariants
//! - Every phase names every event; nothing that a peer sends can make it panic.
//! - A connection that is under way (offered, unanswered) is neither read nor written by the donor. It comes back only
//!   when the heir has refused it, or cannot take it any more: it is dead and its last packet has been read, or it has
//!   closed the channel itself.
//! - Before BAKED an heir that fails is killed (one that has given up by itself, after a moment to say why), its death is
//!   waited for, and the donor serves on. After BAKED it is never killed: it is the service.
//! - Listeners are let go of at BAKED and not before.
//!
//! Deliberately absent: what a connection is, how frames are sent, what a kill is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use curtsy_sys::pidfd::Exit;

use crate::failure::Failure;
use crate::wire::{FDS_MAX, FRAME_MAX, HEADER_BYTES, Message, Refusal};

/// Where a handover is, seen by the donor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The heir was started; its HELLO is awaited.
    Greeting,
    /// Listeners and keys are sent; their GOTs are awaited.
    Giving,
    /// The heir has everything; its READY is awaited. The donor accepts.
    Waiting,
    /// The heir accepts; both hold the listeners.
    Baking,
    /// The heir has proved itself; the donor only has connections left.
    Baked,
    /// The handover failed before BAKED; the heir's death is awaited, and hurried if need be.
    Ending,
    /// Over: the donor has said BYE.
    Left,
    /// Over: the handover failed, the donor serves as before.
    Kept,
    /// Over: the heir is gone after BAKED. What it had not taken came back.
    Lost,
}

/// What happened.
///
/// The driver must have read the channel to its end before it reports [`Event::Exited`]: a dead heir's last words count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// HELLO, with the heir's credit.
    Hello {
        /// How many descriptors it can take in all.
        room: u32,
        /// How many offers may be under way.
        window: u32,
    },
    /// GOT.
    Got {
        /// The acknowledged frame's number.
        sequence: u32,
    },
    /// READY.
    Ready,
    /// TAKEN.
    Taken(Vec<u64>),
    /// REFUSE.
    Refuse(Vec<u64>, Refusal),
    /// BAKED.
    Baked,
    /// ABORT, with its reason.
    Abort(String),
    /// A packet that is no frame, or one that only a donor sends.
    Alien(Failure),
    /// The channel was read to its end.
    End,
    /// The heir is dead, and the channel was read to its end.
    Exited(Exit),
    /// [`Donor::deadline`] may have passed.
    Timer,
    /// The server offers a connection.
    Offer {
        /// Its id: larger than every one before.
        id: u64,
        /// How many bytes of a frame its record takes.
        size: usize,
    },
    /// There is room in the channel for one more OFFER.
    Flush,
    /// The server is drained: say BYE when nothing is under way any more.
    Finish,
    /// The server wants to stay after all.
    Cancel,
}

impl Event {
    /// What a message from the heir means.
    #[must_use]
    pub fn from_message(message: Message) -> Self {
        match message {
            Message::Hello(hello) => Self::Hello {
                room: hello.room,
                window: hello.window,
            },
            Message::Got { sequence } => Self::Got { sequence },
            Message::Ready => Self::Ready,
            Message::Taken(ids) => Self::Taken(ids),
            Message::Refuse { ids, reason } => Self::Refuse(ids, reason),
            Message::Baked => Self::Baked,
            Message::Abort { reason } => Self::Abort(reason),
            Message::Listener(_)
            | Message::Tickets(_)
            | Message::Complete
            | Message::Offer(_)
            | Message::Restart
            | Message::Bye { .. } => Self::Alien(Failure::Protocol(format!(
                "a {} from the heir",
                message.name()
            ))),
        }
    }
}

/// What to do about it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send the listeners and keys, one frame each, numbered from [`FIRST_SET`].
    Give,
    /// Send COMPLETE.
    Complete,
    /// Take the listeners out of the epoll sets, and keep them.
    StopAccepting,
    /// Put them back.
    ResumeAccepting,
    /// Close them.
    CloseListeners,
    /// Send these in one OFFER.
    Offer(Vec<u64>),
    /// These are the heir's now: close our duplicates.
    Taken(Vec<u64>),
    /// These are ours again (or still).
    Return(Vec<u64>, Returned),
    /// Nobody can say whose these are: close our duplicates, so that they are not served twice.
    Forget(Vec<u64>),
    /// End the heir, and report [`Event::Exited`] when it is dead.
    Kill,
    /// Send BYE.
    Bye,
}

/// Why a connection is not the heir's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Returned {
    /// The heir answered so.
    Refused(Refusal),
    /// The heir has no descriptors left by its own account; nothing was sent.
    NoRoom,
    /// Its record does not fit into a frame.
    TooLarge,
    /// The heir is not ready yet.
    TooEarly,
    /// The heir is gone without having taken it.
    HeirGone,
    /// The handover is over.
    Over,
}

/// The donor's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the start to READY.
    pub ready_timeout: Duration,
    /// From READY to BAKED.
    pub bake_timeout: Duration,
    /// From an OFFER to its answer, before BAKED.
    pub answer_timeout: Duration,
}

impl Default for Limits {
    /// 30 s to be ready (the deadline of a drain), 30 s to bake, 5 s for an answer that takes microseconds.
    fn default() -> Self {
        Self {
            ready_timeout: Duration::from_secs(30),
            bake_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(5),
        }
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Donor {
    phase: Phase,
    limits: Limits,
    /// The current phase's time limit, where it has one.
    until: Option<Instant>,
    /// Sets that are not GOT yet, by sequence number.
    awaited: BTreeSet<u32>,
    /// Offered by the server, not sent: id and size.
    pending: VecDeque<(u64, usize)>,
    /// Sent and unanswered, with the time of sending. Ids grow, so the first is the oldest.
    under_way: BTreeMap<u64, Instant>,
    room: u32,
    window: u32,
    /// READY has come, so the server does not accept.
    stopped: bool,
    /// The server is drained.
    finished: bool,
    failure: Option<Failure>,
}

impl Donor {
    /// A handover of `sets` frames of listeners and keys, whose heir has just been started.
    #[must_use]
    pub fn new(now: Instant, sets: u32, limits: Limits) -> Self {
        Self {
            phase: Phase::Greeting,
            limits,
            until: Some(now + limits.ready_timeout),
            awaited: (FIRST_SET..FIRST_SET + sets).collect(),
            pending: VecDeque::new(),
            under_way: BTreeMap::new(),
            room: 0,
            window: 0,
            stopped: false,
            finished: false,
            failure: None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why it failed, once it is [`Phase::Ending`], [`Phase::Kept`] or [`Phase::Lost`].
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// When to send [`Event::Timer`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let answer = match self.phase {
            Phase::Baking => self
                .under_way
                .first_key_value()
                .map(|(_, since)| *since + self.limits.answer_timeout),
            Phase::Greeting
            | Phase::Giving
            | Phase::Waiting
            | Phase::Baked
            | Phase::Ending
            | Phase::Left
            | Phase::Kept
            | Phase::Lost => None,
        };
        match (self.until, answer) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether a [`Event::Flush`] would send something.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        matches!(self.phase, Phase::Baking | Phase::Baked)
            && !self.pending.is_empty()
            && self.free() > 0
    }

    /// How many connections have been sent and not answered.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// What happens next.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        use Event as E;
        use Phase as P;
        match (self.phase, event) {
            (P::Greeting, E::Hello { room, window }) => self.greeted(room, window),
            (P::Giving, E::Got { sequence }) => self.got(sequence),
            (P::Waiting, E::Ready) => {
                self.phase = P::Baking;
                self.until = Some(now + self.limits.bake_timeout);
                self.stopped = true;
                vec![Action::StopAccepting]
            }
            (P::Baking, E::Baked) => {
                self.phase = P::Baked;
                self.until = None;
                let mut actions = vec![Action::CloseListeners];
                actions.extend(self.leave());
                actions
            }
            (P::Baking | P::Baked, E::Taken(ids)) => self.taken(now, ids),
            (P::Baking | P::Baked, E::Refuse(ids, reason)) => self.refused(now, ids, reason),
            (P::Ending, E::Taken(ids)) => {
                vec![Action::Taken(
                    ids.into_iter()
                        .filter(|id| self.under_way.remove(id).is_some())
                        .collect(),
                )]
            }
            (P::Ending, E::Refuse(ids, reason)) => {
                let ids = ids
                    .into_iter()
                    .filter(|id| self.under_way.remove(id).is_some())
                    .collect();
                vec![Action::Return(ids, Returned::Refused(reason))]
            }

            (P::Greeting, E::Got { .. } | E::Ready | E::Taken(_) | E::Refuse(..) | E::Baked)
            | (P::Giving, E::Hello { .. } | E::Ready | E::Taken(_) | E::Refuse(..) | E::Baked)
            | (
                P::Waiting,
                E::Hello { .. } | E::Got { .. } | E::Taken(_) | E::Refuse(..) | E::Baked,
            )
            | (P::Baking, E::Hello { .. } | E::Got { .. } | E::Ready)
            | (P::Baked, E::Hello { .. } | E::Got { .. } | E::Ready | E::Baked) => {
                self.fail(now, Failure::Protocol("a message out of turn".into()))
            }
            (P::Greeting | P::Giving | P::Waiting | P::Baking | P::Baked, E::Alien(failure)) => {
                self.fail(now, failure)
            }

            (P::Greeting | P::Giving | P::Waiting | P::Baking, E::Abort(reason)) => {
                self.give_time(now, Failure::Refused(reason))
            }
            (P::Greeting | P::Giving | P::Waiting | P::Baking, E::End) => {
                self.give_time(now, Failure::Crashed(None))
            }
            (P::Greeting | P::Giving | P::Waiting | P::Baking, E::Cancel)
            | (P::Greeting | P::Giving | P::Waiting, E::Finish) => {
                self.fail(now, Failure::Cancelled)
            }
            (P::Greeting | P::Giving | P::Waiting | P::Baking | P::Ending, E::Exited(exit)) => {
                self.kept(exit)
            }
            (P::Greeting | P::Giving | P::Waiting, E::Timer) => {
                if self.is_due(now) {
                    self.fail(now, Failure::NotReady(self.limits.ready_timeout))
                } else {
                    vec![]
                }
            }
            (P::Baking, E::Timer) => self.baking_timer(now),
            (P::Ending, E::Timer) => {
                if !self.is_due(now) {
                    return vec![];
                }
                self.until = Some(now + KILL_AGAIN);
                vec![Action::Kill]
            }

            // The heir's TAKENs come before its ABORT or the end, so what is still under way was not taken and, the
            // channel being closed, cannot be.
            (P::Baked, E::Abort(reason)) => self.lost(Failure::Refused(reason)),
            (P::Baked, E::End) => self.lost(Failure::Crashed(None)),
            (P::Baked, E::Exited(exit)) => self.lost(Failure::Crashed(Some(exit))),

            (P::Baking | P::Baked, E::Offer { id, size }) => self.offer(id, size),
            (P::Greeting | P::Giving | P::Waiting, E::Offer { id, .. }) => {
                vec![Action::Return(vec![id], Returned::TooEarly)]
            }
            (P::Ending | P::Kept | P::Lost, E::Offer { id, .. }) => {
                vec![Action::Return(vec![id], Returned::HeirGone)]
            }
            (P::Left, E::Offer { id, .. }) => vec![Action::Return(vec![id], Returned::Over)],
            (P::Baking | P::Baked, E::Flush) => self.batch(now),
            (P::Baking, E::Finish) => {
                self.finished = true;
                vec![]
            }
            (P::Baked, E::Finish) => {
                self.finished = true;
                self.leave()
            }

            // After BAKED nothing is hurried: an heir that is stuck is still the only one that accepts.
            (P::Baked, E::Timer | E::Cancel)
            | (P::Greeting | P::Giving | P::Waiting, E::Flush)
            | (
                P::Ending,
                E::Hello { .. }
                | E::Got { .. }
                | E::Ready
                | E::Baked
                | E::Abort(_)
                | E::Alien(_)
                | E::End
                | E::Flush
                | E::Finish
                | E::Cancel,
            )
            | (
                P::Left | P::Kept | P::Lost,
                E::Hello { .. }
                | E::Got { .. }
                | E::Ready
                | E::Taken(_)
                | E::Refuse(..)
                | E::Baked
                | E::Abort(_)
                | E::Alien(_)
                | E::End
                | E::Exited(_)
                | E::Timer
                | E::Flush
                | E::Finish
                | E::Cancel,
            ) => vec![],
        }
    }

    fn greeted(&mut self, room: u32, window: u32) -> Vec<Action> {
        (self.room, self.window) = (room, window.max(1));
        if self.awaited.is_empty() {
            self.phase = Phase::Waiting;
            return vec![Action::Complete];
        }
        self.phase = Phase::Giving;
        vec![Action::Give]
    }

    fn got(&mut self, sequence: u32) -> Vec<Action> {
        // One that is not awaited is an old one twice: harmless.
        self.awaited.remove(&sequence);
        if !self.awaited.is_empty() {
            return vec![];
        }
        self.phase = Phase::Waiting;
        vec![Action::Complete]
    }

    fn taken(&mut self, now: Instant, ids: Vec<u64>) -> Vec<Action> {
        if !self.answered(&ids) {
            return self.fail(
                now,
                Failure::Protocol("a TAKEN of what was not offered".into()),
            );
        }
        let mut actions = vec![Action::Taken(ids)];
        actions.extend(self.leave());
        actions
    }

    fn refused(&mut self, now: Instant, ids: Vec<u64>, reason: Refusal) -> Vec<Action> {
        if !self.answered(&ids) {
            return self.fail(
                now,
                Failure::Protocol("a REFUSE of what was not offered".into()),
            );
        }
        let mut actions = vec![];
        match reason {
            // The heir's own account was too good: what waits would fare no better.
            Refusal::NoRoom => {
                self.room = 0;
                actions.extend(self.unsend(Returned::NoRoom));
            }
            Refusal::Unwanted => {
                self.room = self
                    .room
                    .saturating_add(u32::try_from(ids.len()).unwrap_or(0))
            }
        }
        actions.insert(0, Action::Return(ids, Returned::Refused(reason)));
        actions.extend(self.leave());
        actions
    }

    /// Removes the ids from those under way, or touches nothing when one of them is not there.
    fn answered(&mut self, ids: &[u64]) -> bool {
        let distinct: BTreeSet<u64> = ids.iter().copied().collect();
        if distinct.len() != ids.len() || !distinct.iter().all(|id| self.under_way.contains_key(id))
        {
            return false;
        }
        for id in ids {
            self.under_way.remove(id);
        }
        true
    }

    fn offer(&mut self, id: u64, size: usize) -> Vec<Action> {
        if size > BATCH_BYTES {
            return vec![Action::Return(vec![id], Returned::TooLarge)];
        }
        if usize::try_from(self.room).unwrap_or(usize::MAX) <= self.pending.len() {
            return vec![Action::Return(vec![id], Returned::NoRoom)];
        }
        self.pending.push_back((id, size));
        vec![]
    }

    fn batch(&mut self, now: Instant) -> Vec<Action> {
        let most = FDS_MAX.min(self.free());
        let (mut bytes, mut ids) = (0, vec![]);
        while ids.len() < most
            && let Some((id, size)) = self.pending.front().copied()
            && bytes + size <= BATCH_BYTES
        {
            bytes += size;
            ids.push(id);
            self.pending.pop_front();
        }
        if ids.is_empty() {
            return vec![];
        }
        self.room = self
            .room
            .saturating_sub(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        self.under_way.extend(ids.iter().map(|id| (*id, now)));
        vec![Action::Offer(ids)]
    }

    fn free(&self) -> usize {
        usize::try_from(self.window)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.under_way.len())
    }

    /// BYE, if the server is drained, the heir has proved itself and every connection has found its owner.
    fn leave(&mut self) -> Vec<Action> {
        let settled = self.pending.is_empty() && self.under_way.is_empty();
        if self.phase != Phase::Baked || !self.finished || !settled {
            return vec![];
        }
        self.phase = Phase::Left;
        vec![Action::Bye]
    }

    fn baking_timer(&mut self, now: Instant) -> Vec<Action> {
        let oldest = self
            .under_way
            .first_key_value()
            .map(|(_, since)| *since + self.limits.answer_timeout);
        if oldest.is_some_and(|by| by <= now) {
            return self.fail(now, Failure::Hung(self.limits.answer_timeout));
        }
        if self.is_due(now) {
            self.fail(now, Failure::NotBaked(self.limits.bake_timeout))
        } else {
            vec![]
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// A failure that the heir may not know of. Before BAKED it is killed. After, it is the service and lives, but what
    /// it makes of the connections under way cannot be known.
    fn fail(&mut self, now: Instant, failure: Failure) -> Vec<Action> {
        self.failure = Some(failure);
        if self.phase != Phase::Baked {
            self.phase = Phase::Ending;
            self.until = Some(now + KILL_AGAIN);
            let mut actions = vec![Action::Kill];
            actions.extend(self.unsend(Returned::HeirGone));
            return actions;
        }
        self.phase = Phase::Lost;
        let mut actions = self.unsend(Returned::HeirGone);
        if !self.under_way.is_empty() {
            actions.push(Action::Forget(
                std::mem::take(&mut self.under_way).into_keys().collect(),
            ));
        }
        actions
    }

    /// A failure that the heir knows of: it is about to end, and may still be saying why on its standard error.
    fn give_time(&mut self, now: Instant, failure: Failure) -> Vec<Action> {
        self.failure = Some(failure);
        self.phase = Phase::Ending;
        self.until = Some(now + LAST_WORDS_TIME);
        self.unsend(Returned::HeirGone)
    }

    fn kept(&mut self, exit: Exit) -> Vec<Action> {
        let crashed = matches!(self.failure, None | Some(Failure::Crashed(_)));
        if crashed {
            self.failure = Some(Failure::Crashed(Some(exit)));
        }
        self.phase = Phase::Kept;
        self.until = None;
        let mut actions = vec![];
        if self.stopped {
            actions.push(Action::ResumeAccepting);
        }
        actions.extend(self.take_back());
        actions
    }

    fn lost(&mut self, failure: Failure) -> Vec<Action> {
        self.failure = Some(failure);
        self.phase = Phase::Lost;
        self.take_back()
    }

    /// Everything that is not the heir's.
    fn take_back(&mut self) -> Vec<Action> {
        let mut actions = vec![];
        if !self.under_way.is_empty() {
            let ids = std::mem::take(&mut self.under_way).into_keys().collect();
            actions.push(Action::Return(ids, Returned::HeirGone));
        }
        actions.extend(self.unsend(Returned::HeirGone));
        actions
    }

    /// What was not sent.
    fn unsend(&mut self, why: Returned) -> Vec<Action> {
        if self.pending.is_empty() {
            return vec![];
        }
        vec![Action::Return(
            self.pending.drain(..).map(|(id, _)| id).collect(),
            why,
        )]
    }
}

/// The sequence number of the first frame of listeners: the donor's HELLO is the first frame.
pub const FIRST_SET: u32 = 2;

/// How long to wait for a killed process before it is killed again. Only one that the kernel holds takes longer.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How long an heir that has given up may take to end by itself before it is killed. Short, because between READY and its
/// end nobody accepts.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);

/// What an OFFER's records may take of a frame, bytes.
pub(crate) const BATCH_BYTES: usize = FRAME_MAX - HEADER_BYTES;
