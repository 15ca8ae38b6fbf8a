//! The new process's side of a handover, as a state machine.
//!
//! [`Heir::step`] takes what happened and says what to do. It does no I/O, knows no clock and holds no descriptor.
//!
//! Invariants
//! - Every phase names every event; nothing that a peer sends can make it panic.
//! - A connection is given to the server only after its TAKEN has gone into the channel, or after the donor's death.
//! - An heir that does not have everything never serves, and one that has everything serves without READY only when the
//!   donor is dead. A channel that ends while the donor lives means that the donor serves.
//!
//! Deliberately absent: what serving is, how frames are sent, how a death is seen.

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::wire::{Frame, Message, Refusal};

/// Where a handover is, seen by the heir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Our HELLO is out; the donor's is awaited.
    Greeting,
    /// Listeners and keys arrive.
    Receiving,
    /// Everything is here; the server starts.
    Complete,
    /// READY is out; the server accepts, and proves itself.
    Serving,
    /// BAKED is out; connections go on arriving.
    Baked,
    /// The channel ended before READY, everything being here: is the donor dead?
    Doubting,
    /// The channel ended after READY: is the donor dead? What it had offered last hangs on the answer.
    Parting,
    /// Over: the donor is gone, the server is ours.
    Alone,
    /// Over: this process must not serve.
    GivenUp,
}

/// What happened.
///
/// The driver must have read the channel to its end, and reported what it could not send, before it reports
/// [`Event::DonorDied`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// HELLO.
    Hello,
    /// LISTENER or TICKETS, whole, with its sequence number.
    Set {
        /// The frame's number.
        sequence: u32,
    },
    /// COMPLETE.
    Complete,
    /// OFFER.
    Offer {
        /// Those whose descriptors came.
        arrived: Vec<u64>,
        /// Those whose descriptors did not (this process is out of them).
        missing: Vec<u64>,
    },
    /// OFFER, and the server wants no connection any more.
    Unwanted(Vec<u64>),
    /// RESTART.
    Restart,
    /// BYE.
    Bye,
    /// ABORT, with its reason.
    Abort(String),
    /// A packet that is no frame, one that only an heir sends, or a set with descriptors missing.
    Alien(Failure),
    /// The channel was read to its end.
    End,
    /// The donor is dead, and the channel was read to its end.
    DonorDied,
    /// These TAKENs could not be sent: the donor's end is closed.
    Unsent(Vec<u64>),
    /// [`Heir::deadline`] may have passed.
    Timer,
    /// The server accepts. It proves itself after `bake_after`, or when it says so.
    Ready {
        /// How long it has to live to have proved itself; `None`: only [`Event::Bake`] counts.
        bake_after: Option<Duration>,
    },
    /// The server has proved itself.
    Bake,
}

impl Event {
    /// What a frame from the donor means, when `fds` of its descriptors have arrived.
    #[must_use]
    pub fn from_frame(frame: &Frame, fds: usize) -> Self {
        let sequence = frame.sequence;
        if let Message::Offer(offered) = &frame.message {
            // The kernel installs descriptors in order and stops at the first that does not fit.
            let (arrived, missing) = offered.split_at(fds.min(offered.len()));
            let ids = |of: &[crate::wire::Offered]| of.iter().map(|one| one.id).collect();
            return Self::Offer {
                arrived: ids(arrived),
                missing: ids(missing),
            };
        }
        if fds != frame.message.fds() {
            return Self::Alien(Failure::Protocol(format!(
                "{fds} of the {} descriptors of its {} arrived",
                frame.message.fds(),
                frame.message.name(),
            )));
        }
        match &frame.message {
            Message::Hello(_) => Self::Hello,
            Message::Listener(_) | Message::Tickets(_) => Self::Set { sequence },
            Message::Complete => Self::Complete,
            Message::Restart => Self::Restart,
            Message::Bye { .. } => Self::Bye,
            Message::Abort { reason } => Self::Abort(reason.clone()),
            Message::Offer(_)
            | Message::Got { .. }
            | Message::Ready
            | Message::Taken(_)
            | Message::Refuse { .. }
            | Message::Baked => Self::Alien(Failure::Protocol(format!(
                "a {} from the donor",
                frame.message.name()
            ))),
        }
    }
}

/// What to do about it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send GOT.
    Got {
        /// The acknowledged frame's number.
        sequence: u32,
    },
    /// Send READY.
    Ready,
    /// Send TAKEN, and only when it is in the channel give these to the server.
    Take(Vec<u64>),
    /// Give these to the server: the donor is dead.
    Keep(Vec<u64>),
    /// Close these: they are the donor's.
    Drop(Vec<u64>),
    /// Send REFUSE, and close these.
    Refuse(Vec<u64>, Refusal),
    /// Send BAKED.
    Baked,
    /// Send ABORT.
    Abort(Failure),
    /// Tell the server that a restart was asked of the donor.
    Restart,
    /// Watch for the donor's death and report it.
    WatchDonor,
}

/// The heir's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the start until everything is here.
    pub receive_timeout: Duration,
    /// From the channel's end to the donor's death.
    pub death_timeout: Duration,
}

impl Default for Limits {
    /// 30 s to receive (the donor's patience), 5 s for a process whose end of the channel is closed to be dead.
    fn default() -> Self {
        Self {
            receive_timeout: Duration::from_secs(30),
            death_timeout: Duration::from_secs(5),
        }
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Heir {
    phase: Phase,
    limits: Limits,
    until: Option<Instant>,
    /// Offered, and the donor could not be told: whose they are depends on whether it lives.
    held: Vec<u64>,
    failure: Option<Failure>,
}

impl Heir {
    /// An heir that has just sent its HELLO.
    #[must_use]
    pub fn new(now: Instant, limits: Limits) -> Self {
        Self {
            phase: Phase::Greeting,
            limits,
            until: Some(now + limits.receive_timeout),
            held: vec![],
            failure: None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why it gave up, or what the donor did last.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Connections whose owner depends on whether the donor lives.
    #[must_use]
    pub fn held(&self) -> &[u64] {
        &self.held
    }

    /// When to send [`Event::Timer`]. A death that can be seen by then comes first.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// What happens next.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        use Event as E;
        use Phase as P;
        match (self.phase, event) {
            (P::Greeting, E::Hello) => {
                self.phase = P::Receiving;
                vec![]
            }
            (P::Receiving, E::Set { sequence }) => vec![Action::Got { sequence }],
            (P::Receiving, E::Complete) => {
                self.phase = P::Complete;
                self.until = None;
                vec![]
            }
            (P::Complete, E::Ready { bake_after }) => {
                self.phase = P::Serving;
                self.until = bake_after.map(|after| now + after);
                vec![Action::Ready]
            }
            (P::Serving, E::Bake) => self.bake(),
            (P::Serving, E::Timer) => {
                if self.is_due(now) {
                    self.bake()
                } else {
                    vec![]
                }
            }
            (P::Serving | P::Baked, E::Offer { arrived, missing }) => {
                let mut actions = vec![];
                if !arrived.is_empty() {
                    actions.push(Action::Take(arrived));
                }
                if !missing.is_empty() {
                    actions.push(Action::Refuse(missing, Refusal::NoRoom));
                }
                actions
            }
            (P::Serving | P::Baked, E::Unwanted(ids)) => {
                vec![Action::Refuse(ids, Refusal::Unwanted)]
            }
            (P::Serving | P::Baked, E::Restart) => vec![Action::Restart],
            (P::Baked, E::Bye) => {
                self.phase = P::Alone;
                vec![]
            }

            // Before everything is here, whatever goes wrong ends this process and not the donor.
            (P::Greeting | P::Receiving, E::End | E::DonorDied) => self.give_up(Failure::Refused(
                "it ended before everything had been handed over".into(),
            )),
            (P::Greeting | P::Receiving, E::Timer) => {
                if self.is_due(now) {
                    self.give_up(Failure::Hung(self.limits.receive_timeout))
                } else {
                    vec![]
                }
            }
            (P::Greeting | P::Receiving | P::Complete | P::Doubting, E::Abort(reason)) => {
                self.give_up(Failure::Refused(reason))
            }
            (P::Greeting | P::Receiving | P::Complete, E::Alien(failure)) => self.refuse(failure),
            (
                P::Greeting,
                E::Set { .. }
                | E::Complete
                | E::Offer { .. }
                | E::Unwanted(_)
                | E::Restart
                | E::Bye,
            )
            | (P::Receiving, E::Hello | E::Offer { .. } | E::Unwanted(_) | E::Restart | E::Bye)
            | (
                P::Complete,
                E::Hello
                | E::Set { .. }
                | E::Complete
                | E::Offer { .. }
                | E::Unwanted(_)
                | E::Restart
                | E::Bye,
            ) => self.refuse(out_of_turn()),

            (P::Complete, E::End) => self.part(now, P::Doubting),
            (P::Complete | P::Doubting, E::DonorDied) => self.alone(),
            (P::Doubting, E::Timer) => {
                if !self.is_due(now) {
                    return vec![];
                }
                self.give_up(Failure::Refused(
                    "the donor closed the handover and serves on".into(),
                ))
            }

            // After READY this process serves, so a donor that talks nonsense is told and left.
            (P::Serving | P::Baked, E::Alien(failure)) => {
                let mut actions = vec![Action::Abort(failure)];
                actions.extend(self.part(now, P::Parting));
                actions
            }
            (P::Serving, E::Hello | E::Set { .. } | E::Complete | E::Bye)
            | (P::Baked, E::Hello | E::Set { .. } | E::Complete) => {
                let mut actions = vec![Action::Abort(out_of_turn())];
                actions.extend(self.part(now, P::Parting));
                actions
            }
            (P::Serving | P::Baked, E::End | E::Abort(_)) => self.part(now, P::Parting),
            (P::Serving | P::Baked, E::DonorDied) => self.alone(),
            (P::Serving | P::Baked, E::Unsent(ids)) => {
                self.held.extend(ids);
                self.part(now, P::Parting)
            }
            (P::Parting, E::Unsent(ids) | E::Unwanted(ids)) => {
                self.held.extend(ids);
                vec![]
            }
            (
                P::Parting,
                E::Offer {
                    arrived,
                    missing: _,
                },
            ) => {
                self.held.extend(arrived);
                vec![]
            }
            (P::Parting, E::DonorDied) => {
                let held = std::mem::take(&mut self.held);
                self.alone();
                if held.is_empty() {
                    vec![]
                } else {
                    vec![Action::Keep(held)]
                }
            }
            (P::Parting, E::Timer) => {
                if !self.is_due(now) {
                    return vec![];
                }
                self.alone();
                let held = std::mem::take(&mut self.held);
                if held.is_empty() {
                    vec![]
                } else {
                    vec![Action::Drop(held)]
                }
            }

            // Too late to be told to anybody who lives.
            (
                P::Doubting | P::Alone | P::GivenUp,
                E::Offer { arrived: ids, .. } | E::Unsent(ids) | E::Unwanted(ids),
            )
            | (P::Greeting | P::Receiving | P::Complete, E::Unsent(ids)) => vec![Action::Drop(ids)],

            (P::Greeting | P::Receiving | P::Serving | P::Baked, E::Ready { .. })
            | (P::Greeting | P::Receiving | P::Complete | P::Baked, E::Bake)
            | (P::Complete | P::Baked, E::Timer)
            | (
                P::Doubting,
                E::Hello
                | E::Set { .. }
                | E::Complete
                | E::Restart
                | E::Bye
                | E::Alien(_)
                | E::End
                | E::Ready { .. }
                | E::Bake,
            )
            | (
                P::Parting,
                E::Hello
                | E::Set { .. }
                | E::Complete
                | E::Restart
                | E::Bye
                | E::Abort(_)
                | E::Alien(_)
                | E::End
                | E::Ready { .. }
                | E::Bake,
            )
            | (
                P::Alone | P::GivenUp,
                E::Hello
                | E::Set { .. }
                | E::Complete
                | E::Restart
                | E::Bye
                | E::Abort(_)
                | E::Alien(_)
                | E::End
                | E::DonorDied
                | E::Timer
                | E::Ready { .. }
                | E::Bake,
            ) => vec![],
        }
    }

    fn bake(&mut self) -> Vec<Action> {
        self.phase = Phase::Baked;
        self.until = None;
        vec![Action::Baked]
    }

    fn part(&mut self, now: Instant, phase: Phase) -> Vec<Action> {
        self.phase = phase;
        self.until = Some(now + self.limits.death_timeout);
        vec![Action::WatchDonor]
    }

    fn alone(&mut self) -> Vec<Action> {
        self.phase = Phase::Alone;
        self.until = None;
        vec![]
    }

    fn give_up(&mut self, failure: Failure) -> Vec<Action> {
        self.phase = Phase::GivenUp;
        self.until = None;
        self.failure = Some(failure);
        vec![]
    }

    /// Gives up, and says why to a donor that may still listen.
    fn refuse(&mut self, failure: Failure) -> Vec<Action> {
        self.give_up(failure.clone());
        vec![Action::Abort(failure)]
    }

    fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

fn out_of_turn() -> Failure {
    Failure::Protocol("a message out of turn".into())
}
