//! The state of one connection, and the one function that changes it.

use std::fmt;

/// What a connection is doing.
///
/// The names and their order are those of Go's `http.ConnState`, plus [`State::Handshake`];
/// unlike there, a connection is active from the *first byte* of a request's head on, because a
/// report of what is still running must see a head that stopped half way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// TLS or protocol detection is under way.
    Handshake = 0,
    /// Nothing of a first request has been read yet.
    New = 1,
    /// Some of a request has been read and its answer is not yet wholly sent.
    Active = 2,
    /// Between requests.
    Idle = 3,
    /// No longer HTTP/1: a WebSocket, a tunnel.
    Upgraded = 4,
    /// Gone.
    Closed = 5,
}

/// What can happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The handshake is done and the protocol known.
    Secured,
    /// A byte arrived while no request was in flight, or more of a request did.
    Bytes,
    /// The answer is wholly sent and flushed, and the request's body was read to its end.
    Answered,
    /// The answer was a change of protocol.
    Switched,
    /// The connection is closed, by whichever side.
    Ended,
}

/// What an event makes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The connection is now in this state.
    To(State),
    /// Nothing changes.
    Stay,
    /// This cannot happen here: whoever reported it is mistaken. The state stays.
    Refused,
}

impl State {
    /// Every state, in order.
    pub const ALL: [Self; 6] = [
        Self::Handshake,
        Self::New,
        Self::Active,
        Self::Idle,
        Self::Upgraded,
        Self::Closed,
    ];

    /// The state whose number (`state as u8`) this is.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Handshake),
            1 => Some(Self::New),
            2 => Some(Self::Active),
            3 => Some(Self::Idle),
            4 => Some(Self::Upgraded),
            5 => Some(Self::Closed),
            _ => None,
        }
    }

    /// What `event` makes of this state.
    ///
    /// ```
    /// use curtsy_lifecycle::{Event, State, Step};
    ///
    /// assert_eq!(State::New.after(Event::Bytes), Step::To(State::Active));
    /// assert_eq!(State::Active.after(Event::Answered), Step::To(State::Idle));
    /// assert_eq!(State::Idle.after(Event::Answered), Step::Refused);
    /// ```
    pub const fn after(self, event: Event) -> Step {
        match (self, event) {
            (Self::Handshake, Event::Secured) => Step::To(Self::New),
            (Self::Handshake, Event::Bytes) => Step::Stay,
            (Self::Handshake, Event::Answered | Event::Switched) => Step::Refused,

            (Self::New | Self::Idle, Event::Bytes) => Step::To(Self::Active),
            (Self::New | Self::Idle, Event::Secured | Event::Answered | Event::Switched) => {
                Step::Refused
            }

            (Self::Active, Event::Bytes) => Step::Stay,
            (Self::Active, Event::Answered) => Step::To(Self::Idle),
            (Self::Active, Event::Switched) => Step::To(Self::Upgraded),
            (Self::Active, Event::Secured) => Step::Refused,

            (Self::Upgraded, Event::Bytes) => Step::Stay,
            (Self::Upgraded, Event::Secured | Event::Answered | Event::Switched) => Step::Refused,

            (
                Self::Handshake | Self::New | Self::Active | Self::Idle | Self::Upgraded,
                Event::Ended,
            ) => Step::To(Self::Closed),

            (Self::Closed, Event::Ended) => Step::Stay,
            (Self::Closed, Event::Secured | Event::Bytes | Event::Answered | Event::Switched) => {
                Step::Refused
            }
        }
    }

    /// Whether the connection waits for its client: it may be parked, handed over, or closed
    /// after a linger without cutting anything off.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::New | Self::Idle)
    }

    /// Whether somebody would miss something if the connection were cut now.
    pub const fn is_straggler(self) -> bool {
        matches!(self, Self::Active | Self::Upgraded)
    }

    /// The word for people: `handshake`, `new`, `active`, `idle`, `upgraded`, `closed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::New => "new",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Upgraded => "upgraded",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Event::{Answered, Bytes, Ended, Secured, Switched};
    use super::State::{Active, Closed, Handshake, Idle, New, Upgraded};
    use super::Step::{Refused, Stay, To};
    use super::{Event, State, Step};

    const EVENTS: [Event; 5] = [Secured, Bytes, Answered, Switched, Ended];

    #[rustfmt::skip]
    const TABLE: [(State, [Step; 5]); 6] = [
        //           Secured    Bytes        Answered    Switched       Ended
        (Handshake, [To(New),   Stay,        Refused,    Refused,       To(Closed)]),
        (New,       [Refused,   To(Active),  Refused,    Refused,       To(Closed)]),
        (Active,    [Refused,   Stay,        To(Idle),   To(Upgraded),  To(Closed)]),
        (Idle,      [Refused,   To(Active),  Refused,    Refused,       To(Closed)]),
        (Upgraded,  [Refused,   Stay,        Refused,    Refused,       To(Closed)]),
        (Closed,    [Refused,   Refused,     Refused,    Refused,       Stay]),
    ];

    #[test]
    fn every_state_and_event() {
        assert_eq!(TABLE.map(|(state, _)| state), State::ALL);
        for (state, row) in TABLE {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.after(event), expected, "{state} after {event:?}");
            }
        }
    }

    #[test]
    fn numbers_and_states_are_one_to_one() {
        for state in State::ALL {
            assert_eq!(State::from_u8(state as u8), Some(state));
        }
        assert_eq!(State::from_u8(6), None);
    }
}
