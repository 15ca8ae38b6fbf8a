//! What goes along with a connection's descriptor: enough for the next process to go on as if nothing had happened.

use std::time::Duration;

use crate::wire::WireError;
use crate::wire::tlv::{self, CRITICAL, Reader, Writer};

/// What the donor knows about an idle connection and the heir must know.
///
/// ```
/// use curtsy_handover::Record;
///
/// let record = Record { listener: "main".into(), served: 12, ..Record::default() };
/// assert!(record.unread.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The name of the listener it was accepted on. At most 255 bytes.
    pub listener: String,
    /// Requests answered on it so far.
    pub served: u64,
    /// How long it has been idle when it is offered. Crosses the channel in whole milliseconds.
    pub idle: Duration,
    /// Bytes that were read from it and not used: the heir reads them first. At most [`UNREAD_MAX`].
    pub unread: Vec<u8>,
    /// Whatever else the server wants to remember, in its own encoding: addresses a proxy told, deadlines. At most
    /// [`EXTRA_MAX`] bytes.
    pub extra: Vec<u8>,
}

/// The most unread bytes that can go along, bytes: a frame holds at least one record, whatever is in it.
pub const UNREAD_MAX: usize = 48 * 1024;

/// The most of the server's own bytes that can go along, bytes.
pub const EXTRA_MAX: usize = 4 * 1024;

impl Record {
    /// Whether the record fits into a frame. One that does not cannot be offered.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.listener.len() <= usize::from(u8::MAX)
            && self.unread.len() <= UNREAD_MAX
            && self.extra.len() <= EXTRA_MAX
    }

    /// About how many bytes of a frame it takes, never less than it does.
    pub(crate) fn size(&self) -> usize {
        FIXED_BYTES + self.listener.len() + self.unread.len() + self.extra.len()
    }

    pub(crate) fn encode(&self, id: u64) -> Result<Vec<u8>, WireError> {
        if !self.fits() {
            return Err(WireError::TooLong);
        }
        let mut body = Writer::default();
        body.u64(ID, id).bytes(LISTENER, self.listener.as_bytes());
        body.u64(SERVED, self.served).u64(
            IDLE_MS,
            u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX),
        );
        if !self.unread.is_empty() {
            body.bytes(UNREAD, &self.unread);
        }
        if !self.extra.is_empty() {
            body.bytes(EXTRA, &self.extra);
        }
        body.finish()
    }

    pub(crate) fn decode(body: &[u8]) -> Result<(u64, Self), WireError> {
        let (mut id, mut listener, mut served, mut idle, mut unread, mut extra) =
            (None, None, None, None, None, None);
        let mut reader = Reader::new(body);
        while let Some((tag, value)) = reader.next()? {
            match tag {
                ID => tlv::once(&mut id, tlv::u64(value)?)?,
                LISTENER => tlv::once(&mut listener, tlv::text(value)?)?,
                SERVED => tlv::once(&mut served, tlv::u64(value)?)?,
                IDLE_MS => tlv::once(&mut idle, tlv::u64(value)?)?,
                UNREAD => tlv::once(&mut unread, value.to_vec())?,
                EXTRA => tlv::once(&mut extra, value.to_vec())?,
                other => tlv::unknown(other)?,
            }
        }
        let record = Self {
            listener: tlv::needed(listener)?,
            served: served.unwrap_or(0),
            idle: Duration::from_millis(idle.unwrap_or(0)),
            unread: unread.unwrap_or_default(),
            extra: extra.unwrap_or_default(),
        };
        if record.fits() {
            Ok((tlv::needed(id)?, record))
        } else {
            Err(WireError::TooLong)
        }
    }
}

/// Seven headers of four bytes (the record's own and six within), and three numbers.
const FIXED_BYTES: usize = 7 * 4 + 3 * 8;

const ID: u16 = CRITICAL | 1;
const LISTENER: u16 = CRITICAL | 2;
const UNREAD: u16 = CRITICAL | 3;
const SERVED: u16 = 4;
const IDLE_MS: u16 = 5;
const EXTRA: u16 = 6;
