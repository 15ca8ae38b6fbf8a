//! The frames of a handover: one packet is one frame, with the descriptors it speaks of attached.
//!
//! ```text
//! "CRTS" | version u16 | type u16 | generation u32 | sequence u32 | descriptors u16 | 0 u16 | tag, length, value ...
//! ```
//! All numbers are big-endian. A frame has at most [`FRAME_MAX`] bytes and [`FDS_MAX`] descriptors.
//!
//! Invariants: decoding never panics, whatever the bytes; `decode(encode(frame)) == frame`; a frame whose version is
//! not ours is refused before anything else in it is looked at; an unknown critical tag is refused, another skipped.
//!
//! Deliberately absent: descriptors (the channel carries them; a frame only says how many), compression, fragments.

pub(crate) mod tlv;

use std::fmt;

use crate::record::Record;
use tlv::{CRITICAL, Reader, Writer};

/// The version this code speaks. It changes when a peer that does not know the change would do harm.
pub const VERSION: u16 = 1;

/// The longest frame, bytes.
pub const FRAME_MAX: usize = 64 * 1024;

/// The most descriptors in one frame.
pub const FDS_MAX: usize = curtsy_sys::scm::FDS_MAX;

/// One packet's bytes, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The sender's generation.
    pub generation: u32,
    /// The sender's count of frames, from 1.
    pub sequence: u32,
    /// What it says.
    pub message: Message,
}

/// What one side says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Both: who I am. First in each direction, with a pidfd of the sender first, then those of the processes before it
    /// that are still draining.
    Hello(Hello),
    /// Donor: a listener, its descriptors attached (several, where several sockets share one address).
    Listener(Listener),
    /// Donor: the keys that TLS session tickets were made with.
    Tickets(Vec<u8>),
    /// Donor: that was all. Only now may the heir start.
    Complete,
    /// Heir: the frame with this sequence number has arrived whole.
    Got {
        /// The number of the frame that is acknowledged.
        sequence: u32,
    },
    /// Heir: I accept.
    Ready,
    /// Donor: idle connections, their descriptors attached in the same order. From here on the donor does not touch them.
    Offer(Vec<Offered>),
    /// Heir: these are mine. Sent before the heir's first read or write: this is the commit.
    Taken(Vec<u64>),
    /// Heir: these I do not take.
    Refuse {
        /// Which.
        ids: Vec<u64>,
        /// Why.
        reason: Refusal,
    },
    /// Heir: I have proved myself; let go of the listeners.
    Baked,
    /// Donor: a restart was asked of me while you were starting; it is for you to do.
    Restart,
    /// Donor: drained, with a report for the log.
    Bye {
        /// What the donor reports.
        report: String,
    },
    /// Both: it ends here, and why.
    Abort {
        /// Why.
        reason: String,
    },
}

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The sender's process number, for messages to people only.
    pub pid: u32,
    /// What the sender can do beyond the version: one bit each, unknown ones are ignored.
    pub features: u64,
    /// How many descriptors the sender can take in all. The donor's credit.
    pub room: u32,
    /// How many offers may be under way unanswered.
    pub window: u32,
    /// A hash of the sender's configuration, for messages to people only. At most 64 bytes.
    pub config: Vec<u8>,
    /// How many descriptors come with it.
    pub pidfds: u16,
}

/// A listener: the name is its identity, not the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name. At most 255 bytes.
    pub name: String,
    /// What kind of socket.
    pub kind: Kind,
    /// The mode it is in now, in the server's own words. At most 255 bytes.
    pub mode: String,
    /// How many sockets it has.
    pub sockets: u16,
}

/// The kind of a listener's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP, over IPv4 or IPv6.
    Tcp,
    /// A Unix socket, by path or abstract.
    Unix,
}

/// One connection in an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The donor's name for it, unique in one handover.
    pub id: u64,
    /// What goes along.
    pub record: Record,
}

/// Why an heir does not take a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Its descriptor did not arrive: the heir has no room for it.
    NoRoom,
    /// The heir is draining by now, or has no use for this listener's connections.
    Unwanted,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// Not this protocol.
    Magic,
    /// Another version of it.
    Version {
        /// The peer's.
        theirs: u16,
    },
    /// A type this version does not have.
    Type {
        /// Which.
        found: u16,
    },
    /// A tag that must be understood and is not.
    Critical {
        /// Which.
        tag: u16,
    },
    /// Longer than a frame can be.
    TooLong,
    /// Anything else, in a few words.
    Malformed(&'static str),
}

impl Message {
    /// How many descriptors must come with it.
    #[must_use]
    pub fn fds(&self) -> usize {
        match self {
            Self::Hello(hello) => usize::from(hello.pidfds),
            Self::Listener(listener) => usize::from(listener.sockets),
            Self::Offer(offered) => offered.len(),
            Self::Tickets(_)
            | Self::Complete
            | Self::Got { .. }
            | Self::Ready
            | Self::Taken(_)
            | Self::Refuse { .. }
            | Self::Baked
            | Self::Restart
            | Self::Bye { .. }
            | Self::Abort { .. } => 0,
        }
    }

    /// Its name in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::Listener(_) => "LISTENER",
            Self::Tickets(_) => "TICKETS",
            Self::Complete => "COMPLETE",
            Self::Got { .. } => "GOT",
            Self::Ready => "READY",
            Self::Offer(_) => "OFFER",
            Self::Taken(_) => "TAKEN",
            Self::Refuse { .. } => "REFUSE",
            Self::Baked => "BAKED",
            Self::Restart => "RESTART",
            Self::Bye { .. } => "BYE",
            Self::Abort { .. } => "ABORT",
        }
    }

    fn number(&self) -> u16 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Listener(_) => LISTENER,
            Self::Tickets(_) => TICKETS,
            Self::Complete => COMPLETE,
            Self::Got { .. } => GOT,
            Self::Ready => READY,
            Self::Offer(_) => OFFER,
            Self::Taken(_) => TAKEN,
            Self::Refuse { .. } => REFUSE,
            Self::Baked => BAKED,
            Self::Restart => RESTART,
            Self::Bye { .. } => BYE,
            Self::Abort { .. } => ABORT,
        }
    }

    fn write(&self, body: &mut Writer) -> Result<(), WireError> {
        match self {
            Self::Hello(hello) => {
                body.u32(T_PID, hello.pid).u64(T_FEATURES, hello.features);
                body.u32(T_ROOM, hello.room)
                    .u32(T_WINDOW, hello.window)
                    .bytes(T_CONFIG, &hello.config);
            }
            Self::Listener(listener) => {
                let kind = match listener.kind {
                    Kind::Tcp => KIND_TCP,
                    Kind::Unix => KIND_UNIX,
                };
                if listener.name.len() > NAME_MAX || listener.mode.len() > NAME_MAX {
                    return Err(WireError::TooLong);
                }
                body.bytes(T_NAME, listener.name.as_bytes())
                    .bytes(T_KIND, &[kind]);
                body.bytes(T_MODE, listener.mode.as_bytes());
            }
            Self::Tickets(keys) => {
                body.bytes(T_KEYS, keys);
            }
            Self::Got { sequence } => {
                body.u32(T_SEQUENCE, *sequence);
            }
            Self::Offer(offered) => {
                for one in offered {
                    body.bytes(T_RECORD, &one.record.encode(one.id)?);
                }
            }
            Self::Taken(ids) => {
                body.ids(T_IDS, ids);
            }
            Self::Refuse { ids, reason } => {
                let reason = match reason {
                    Refusal::NoRoom => REFUSED_NO_ROOM,
                    Refusal::Unwanted => REFUSED_UNWANTED,
                };
                body.ids(T_IDS, ids).bytes(T_REFUSAL, &[reason]);
            }
            Self::Bye { report: text } | Self::Abort { reason: text } => {
                body.bytes(T_TEXT, clip(text).as_bytes());
            }
            Self::Complete | Self::Ready | Self::Baked | Self::Restart => {}
        }
        Ok(())
    }

    fn read(number: u16, pidfds: u16, body: &[u8]) -> Result<Self, WireError> {
        let parts = Parts::read(body)?;
        let message = match number {
            HELLO => Self::Hello(Hello {
                pid: tlv::needed(parts.pid)?,
                features: parts.features.unwrap_or(0),
                room: tlv::needed(parts.room)?,
                window: tlv::needed(parts.window)?,
                config: parts.config.unwrap_or_default(),
                pidfds,
            }),
            LISTENER => Self::Listener(Listener {
                name: tlv::needed(parts.name)?,
                kind: tlv::needed(parts.kind)?,
                mode: parts.mode.unwrap_or_default(),
                sockets: pidfds,
            }),
            TICKETS => Self::Tickets(tlv::needed(parts.keys)?),
            COMPLETE => Self::Complete,
            GOT => Self::Got {
                sequence: tlv::needed(parts.sequence)?,
            },
            READY => Self::Ready,
            OFFER => Self::Offer(parts.offered),
            TAKEN => Self::Taken(tlv::needed(parts.ids)?),
            REFUSE => Self::Refuse {
                ids: tlv::needed(parts.ids)?,
                reason: tlv::needed(parts.refusal)?,
            },
            BAKED => Self::Baked,
            RESTART => Self::Restart,
            BYE => Self::Bye {
                report: tlv::needed(parts.text)?,
            },
            ABORT => Self::Abort {
                reason: tlv::needed(parts.text)?,
            },
            found => return Err(WireError::Type { found }),
        };
        Ok(message)
    }
}

impl Frame {
    /// The packet's bytes.
    ///
    /// # Errors
    /// [`WireError::TooLong`] when it does not fit into [`FRAME_MAX`] bytes and [`FDS_MAX`] descriptors.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let fds = u16::try_from(self.message.fds()).map_err(|_| WireError::TooLong)?;
        let mut body = Writer::default();
        self.message.write(&mut body)?;
        let body = body.finish()?;
        if HEADER_BYTES + body.len() > FRAME_MAX || usize::from(fds) > FDS_MAX {
            return Err(WireError::TooLong);
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.message.number().to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&fds.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Understands a packet's bytes.
    ///
    /// # Errors
    /// A [`WireError`] that says why it cannot.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > FRAME_MAX {
            return Err(WireError::TooLong);
        }
        let (header, body) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(WireError::Malformed("a cut header"))?;
        let [
            a,
            b,
            c,
            d,
            v0,
            v1,
            t0,
            t1,
            g0,
            g1,
            g2,
            g3,
            s0,
            s1,
            s2,
            s3,
            f0,
            f1,
            _,
            _,
        ] = *header;
        if [a, b, c, d] != MAGIC {
            return Err(WireError::Magic);
        }
        let theirs = u16::from_be_bytes([v0, v1]);
        if theirs != VERSION {
            return Err(WireError::Version { theirs });
        }
        let fds = u16::from_be_bytes([f0, f1]);
        let message = Message::read(u16::from_be_bytes([t0, t1]), fds, body)?;
        if message.fds() != usize::from(fds) || message.fds() > FDS_MAX {
            return Err(WireError::Malformed("the number of descriptors"));
        }
        Ok(Self {
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            message,
        })
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a handover frame"),
            Self::Version { theirs } => write!(
                f,
                "protocol version {theirs}, and this is version {VERSION}"
            ),
            Self::Type { found } => write!(f, "a frame of unknown type {found}"),
            Self::Critical { tag } => write!(f, "an unknown critical value, tag {tag:#06x}"),
            Self::TooLong => f.write_str("a frame that is too long"),
            Self::Malformed(what) => write!(f, "a malformed frame ({what})"),
        }
    }
}

impl std::error::Error for WireError {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "the heir has no room for its descriptor",
            Self::Unwanted => "the heir does not want it",
        })
    }
}

/// Every value any frame may have; which of them a type needs is for the type to say.
#[derive(Default)]
struct Parts {
    pid: Option<u32>,
    features: Option<u64>,
    room: Option<u32>,
    window: Option<u32>,
    config: Option<Vec<u8>>,
    name: Option<String>,
    kind: Option<Kind>,
    mode: Option<String>,
    keys: Option<Vec<u8>>,
    sequence: Option<u32>,
    offered: Vec<Offered>,
    ids: Option<Vec<u64>>,
    refusal: Option<Refusal>,
    text: Option<String>,
}

impl Parts {
    fn read(body: &[u8]) -> Result<Self, WireError> {
        let mut parts = Self::default();
        let mut reader = Reader::new(body);
        while let Some((tag, value)) = reader.next()? {
            match tag {
                T_PID => tlv::once(&mut parts.pid, tlv::u32(value)?)?,
                T_FEATURES => tlv::once(&mut parts.features, tlv::u64(value)?)?,
                T_ROOM => tlv::once(&mut parts.room, tlv::u32(value)?)?,
                T_WINDOW => tlv::once(&mut parts.window, tlv::u32(value)?)?,
                T_CONFIG => tlv::once(&mut parts.config, value.to_vec())?,
                T_NAME => tlv::once(&mut parts.name, name(value)?)?,
                T_KIND => tlv::once(&mut parts.kind, kind(value)?)?,
                T_MODE => tlv::once(&mut parts.mode, name(value)?)?,
                T_KEYS => tlv::once(&mut parts.keys, value.to_vec())?,
                T_SEQUENCE => tlv::once(&mut parts.sequence, tlv::u32(value)?)?,
                T_IDS => tlv::once(&mut parts.ids, tlv::ids(value)?)?,
                T_REFUSAL => tlv::once(&mut parts.refusal, refusal(value)?)?,
                T_TEXT => tlv::once(&mut parts.text, tlv::text(value)?)?,
                T_RECORD => {
                    let (id, record) = Record::decode(value)?;
                    parts.offered.push(Offered { id, record });
                }
                other => tlv::unknown(other)?,
            }
        }
        Ok(parts)
    }
}

fn name(value: &[u8]) -> Result<String, WireError> {
    if value.len() > NAME_MAX {
        Err(WireError::TooLong)
    } else {
        tlv::text(value)
    }
}

fn kind(value: &[u8]) -> Result<Kind, WireError> {
    match tlv::u8(value)? {
        KIND_TCP => Ok(Kind::Tcp),
        KIND_UNIX => Ok(Kind::Unix),
        _ => Err(WireError::Malformed("a listener's kind")),
    }
}

fn refusal(value: &[u8]) -> Result<Refusal, WireError> {
    match tlv::u8(value)? {
        REFUSED_NO_ROOM => Ok(Refusal::NoRoom),
        REFUSED_UNWANTED => Ok(Refusal::Unwanted),
        _ => Err(WireError::Malformed("a refusal's reason")),
    }
}

/// The start of a text, cut between two characters where it would be too long to send.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX.min(text.len()))]
}

pub(crate) const HEADER_BYTES: usize = 20;
const MAGIC: [u8; 4] = *b"CRTS";
const NAME_MAX: usize = u8::MAX as usize;

/// The longest report or reason, bytes; a longer one is cut.
const TEXT_MAX: usize = 16 * 1024;

const HELLO: u16 = 1;
const LISTENER: u16 = 2;
const TICKETS: u16 = 3;
const COMPLETE: u16 = 4;
const GOT: u16 = 5;
const READY: u16 = 6;
const OFFER: u16 = 7;
const TAKEN: u16 = 8;
const REFUSE: u16 = 9;
const BAKED: u16 = 10;
const RESTART: u16 = 11;
const BYE: u16 = 12;
const ABORT: u16 = 13;

const T_PID: u16 = 1;
const T_FEATURES: u16 = 2;
const T_ROOM: u16 = CRITICAL | 3;
const T_WINDOW: u16 = CRITICAL | 4;
const T_CONFIG: u16 = 5;
const T_NAME: u16 = CRITICAL | 6;
const T_KIND: u16 = CRITICAL | 7;
const T_MODE: u16 = CRITICAL | 8;
const T_KEYS: u16 = CRITICAL | 9;
const T_SEQUENCE: u16 = CRITICAL | 10;
const T_RECORD: u16 = CRITICAL | 11;
const T_IDS: u16 = CRITICAL | 12;
const T_REFUSAL: u16 = CRITICAL | 13;
const T_TEXT: u16 = 14;

const KIND_TCP: u8 = 1;
const KIND_UNIX: u8 = 2;
const REFUSED_NO_ROOM: u8 = 1;
const REFUSED_UNWANTED: u8 = 2;
