//! Tag, length, value: how a frame's body and a connection's record are written.
//!
//! A tag with the top bit set is *critical*: a reader that does not know it must refuse the whole frame. One without it
//! is skipped, so that a later version can add what an earlier one may ignore.
//!
//! Invariants: reading never panics and never allocates more than the input is long; a known tag comes at most once where
//! the reader says so; nothing is left over.

use super::WireError;

/// Set in the tags that a reader must know.
pub(crate) const CRITICAL: u16 = 0x8000;

/// Appends values to a body.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Writer {
    pub(crate) fn bytes(&mut self, tag: u16, value: &[u8]) -> &mut Self {
        let Ok(len) = u16::try_from(value.len()) else {
            self.too_long = true;
            return self;
        };
        self.bytes.extend_from_slice(&tag.to_be_bytes());
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    pub(crate) fn u32(&mut self, tag: u16, value: u32) -> &mut Self {
        self.bytes(tag, &value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, tag: u16, value: u64) -> &mut Self {
        self.bytes(tag, &value.to_be_bytes())
    }

    pub(crate) fn ids(&mut self, tag: u16, ids: &[u64]) -> &mut Self {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
        self.bytes(tag, &bytes)
    }

    /// The body, or the news that some value was longer than a length can say.
    pub(crate) fn finish(self) -> Result<Vec<u8>, WireError> {
        if self.too_long {
            Err(WireError::TooLong)
        } else {
            Ok(self.bytes)
        }
    }
}

/// Walks over a body.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(crate) fn new(body: &'b [u8]) -> Self {
        Self { rest: body }
    }

    /// The next tag and its value; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u16, &'b [u8])>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, rest) = self
            .rest
            .split_first_chunk::<2>()
            .ok_or(WireError::Malformed("a cut tag"))?;
        let (len, rest) = rest
            .split_first_chunk::<2>()
            .ok_or(WireError::Malformed("a cut length"))?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (value, rest) = rest
            .split_at_checked(len)
            .ok_or(WireError::Malformed("a cut value"))?;
        self.rest = rest;
        Ok(Some((u16::from_be_bytes(*tag), value)))
    }
}

/// What to do with a tag that the reader has no name for.
pub(crate) fn unknown(tag: u16) -> Result<(), WireError> {
    if tag & CRITICAL == 0 {
        Ok(())
    } else {
        Err(WireError::Critical { tag })
    }
}

/// Fills a place that may be filled once.
pub(crate) fn once<T>(place: &mut Option<T>, value: T) -> Result<(), WireError> {
    if place.replace(value).is_some() {
        Err(WireError::Malformed("a value twice"))
    } else {
        Ok(())
    }
}

/// What must be there.
pub(crate) fn needed<T>(place: Option<T>) -> Result<T, WireError> {
    place.ok_or(WireError::Malformed("a value is missing"))
}

pub(crate) fn u8(value: &[u8]) -> Result<u8, WireError> {
    <[u8; 1]>::try_from(value)
        .map(|[byte]| byte)
        .map_err(|_| WireError::Malformed("a number's length"))
}

pub(crate) fn u32(value: &[u8]) -> Result<u32, WireError> {
    value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| WireError::Malformed("a number's length"))
}

pub(crate) fn u64(value: &[u8]) -> Result<u64, WireError> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| WireError::Malformed("a number's length"))
}

pub(crate) fn text(value: &[u8]) -> Result<String, WireError> {
    String::from_utf8(value.to_vec()).map_err(|_| WireError::Malformed("text that is not UTF-8"))
}

pub(crate) fn ids(value: &[u8]) -> Result<Vec<u64>, WireError> {
    let (ids, []) = value.as_chunks::<8>() else {
        return Err(WireError::Malformed("a list's length"));
    };
    Ok(ids.iter().map(|id| u64::from_be_bytes(*id)).collect())
}
