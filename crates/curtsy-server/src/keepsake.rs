//! What a process leaves to its heir besides sockets: bytes under names, in one frame of the handover.
//!
//! Invariant: what cannot be read is left out, and no reason not to serve.
//!
//! Deliberately absent: anything large. It is for keys and the like, which must not touch a disk.

/// The most that a program may leave, in bytes: with the keys of many listeners it still fits into a frame.
pub(crate) const MOST_BYTES: usize = 32 << 10;

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// A listener's ticket keys.
    Tickets,
    /// How much is logged, if somebody has said so since the start.
    LogLevel,
    /// The program's own.
    Program,
}

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keepsake {
    pub(crate) of: Of,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for Keepsake {
    /// Without the bytes: they are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.of, self.name)
    }
}

/// Each as a letter, the lengths of name and bytes (4 each), and those.
pub(crate) fn encode(keepsakes: &[Keepsake]) -> Vec<u8> {
    let mut all = Vec::new();
    for keepsake in keepsakes {
        all.push(match keepsake.of {
            Of::LogLevel => b'l',
            Of::Tickets => b't',
            Of::Program => b'p',
        });
        for part in [keepsake.name.as_bytes(), &keepsake.bytes] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            all.extend(length.to_be_bytes());
        }
        all.extend(keepsake.name.as_bytes());
        all.extend(&keepsake.bytes);
    }
    all
}

/// What another version wrote differently is left out.
pub(crate) fn decode(mut bytes: &[u8]) -> Vec<Keepsake> {
    let mut found = Vec::new();
    while let Some((keepsake, rest)) = next(bytes) {
        found.extend(keepsake);
        bytes = rest;
    }
    found
}

/// The first, if it is one that is known here, and what follows.
fn next(bytes: &[u8]) -> Option<(Option<Keepsake>, &[u8])> {
    let (of, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let size = |length: &[u8; 4]| usize::try_from(u32::from_be_bytes(*length)).ok();
    let (name, rest) = rest.split_at_checked(size(name)?)?;
    let (bytes, rest) = rest.split_at_checked(size(length)?)?;
    let of = match of {
        b'l' => Of::LogLevel,
        b't' => Of::Tickets,
        b'p' => Of::Program,
        _ => return Some((None, rest)),
    };
    let keepsake = std::str::from_utf8(name).ok().map(|name| Keepsake {
        of,
        name: name.to_owned(),
        bytes: bytes.to_vec(),
    });
    Some((keepsake, rest))
}

#[cfg(test)]
mod tests {
    use super::{Keepsake, Of, decode, encode};

    fn keepsake(of: Of, name: &str, bytes: &[u8]) -> Keepsake {
        Keepsake {
            of,
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn what_was_left_is_found() {
        let all = [
            keepsake(Of::Tickets, "main", &[0, 1, 2, 255]),
            keepsake(Of::Program, "", b""),
            keepsake(Of::Program, "öffentlich", b"x"),
            keepsake(Of::LogLevel, "", b"info"),
        ];
        assert_eq!(decode(&encode(&all)), all);
        // One of another kind in the middle.
        let mut bytes = encode(&all[..1]);
        let unknown = bytes.len();
        bytes.extend(encode(&all[1..]));
        bytes[unknown] = b'?';
        assert_eq!(decode(&bytes), [&all[..1], &all[2..]].concat());
    }

    #[test]
    fn half_of_it_is_none_of_it() {
        let bytes = encode(&[keepsake(Of::Program, "name", b"bytes")]);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_empty(), "{length}");
        }
        let mut long = bytes.clone();
        long[1] = 255;
        assert!(decode(&long).is_empty());
    }
}
