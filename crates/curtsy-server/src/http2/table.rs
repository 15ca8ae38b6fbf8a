//! The header fields that a client may refer to by number: what its encoder has entered into the
//! dynamic table of HPACK (RFC 7541), as it wrote them.
//!
//! A decoder that is shown the same entries in the same order understands what comes next. Fields
//! count from the newest, so more old entries than the client's own table holds do no harm: no
//! string is decoded here, and the oldest are forgotten only once it is certain that they are out.

use std::collections::VecDeque;

/// The size of the table, in bytes: we never ask for another.
const SIZE: usize = 4096;
/// What an entry counts beside its strings, in bytes.
const OVERHEAD: usize = 32;
/// The fields that everybody knows, by the numbers 1 to 61.
const STATIC: usize = 61;
/// The least and most that the name of such a field counts, in bytes.
const STATIC_NAME: (usize, usize) = (3, 27);
/// The shortest and longest code of a character, in bits.
const CODE: (usize, usize) = (5, 30);

#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The entries as they were written, oldest first: "literal with incremental indexing".
    written: Vec<u8>,
    entries: VecDeque<Entry>,
    least: usize,
    most: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Bytes of what names it, and of all of it, as written.
    name: usize,
    whole: usize,
    /// The least and most that it counts in the table.
    least: usize,
    most: usize,
}

/// A string as written.
#[derive(Clone, Copy)]
struct Text<'a> {
    written: &'a [u8],
    least: usize,
    most: usize,
}

impl Table {
    /// Reads a whole header block; `None` if it is not coded as one.
    #[must_use]
    pub(crate) fn read(&mut self, mut block: &[u8]) -> Option<()> {
        let mut is_first = true;
        while let Some(&first) = block.first() {
            match first {
                // A field by a number of one byte: most are.
                0x81..0xff if usize::from(first & 0x7f) <= STATIC + self.entries.len() => {
                    block = &block[1..];
                }
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    if index == 0 || index > STATIC + self.entries.len() {
                        return None;
                    }
                }
                0x40.. => {
                    let index = integer(&mut block, 6)?;
                    self.enter(index, &mut block)?;
                }
                0x20.. => {
                    match integer(&mut block, 5)? {
                        _ if !is_first => return None,
                        0 => *self = Self::default(),
                        1..=SIZE => {}
                        _ => return None,
                    }
                    continue;
                }
                _ => {
                    match integer(&mut block, 4)? {
                        0 => drop(text(&mut block)?),
                        index if index > STATIC + self.entries.len() => return None,
                        _ => {}
                    }
                    text(&mut block)?;
                }
            }
            is_first = false;
        }
        Some(())
    }

    /// What has to be shown to a decoder that has seen nothing.
    pub(crate) fn written(&self) -> &[u8] {
        &self.written
    }

    /// The most that all of it counts as a list of header fields, in bytes.
    pub(crate) fn list_most(&self) -> usize {
        self.most
    }

    /// Keeps no more memory than is needed.
    pub(crate) fn shrink(&mut self) {
        self.written.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    fn enter(&mut self, index: usize, block: &mut &[u8]) -> Option<()> {
        let from = self.written.len();
        let (least, most) = match index {
            0 => {
                let name = text(block)?;
                self.written.push(0x40);
                self.written.extend_from_slice(name.written);
                (name.least, name.most)
            }
            1..=STATIC => {
                self.written.push(0x40 | u8::try_from(index).ok()?);
                STATIC_NAME
            }
            _ => {
                let back = index - STATIC;
                let which = self.entries.len().checked_sub(back)?;
                let after: usize = self.entries.range(which..).map(|entry| entry.whole).sum();
                let named = *self.entries.get(which)?;
                let start = from - after;
                self.written.extend_from_within(start..start + named.name);
                // Its value counts too, which only makes the bounds wider.
                (0, named.most)
            }
        };
        let name = self.written.len() - from;
        let Some(value) = text(block) else {
            self.written.truncate(from);
            return None;
        };
        self.written.extend_from_slice(value.written);
        let entry = Entry {
            name,
            whole: self.written.len() - from,
            least: OVERHEAD + least + value.least,
            most: OVERHEAD + most + value.most,
        };
        self.entries.push_back(entry);
        self.least += entry.least;
        self.most += entry.most;
        self.forget();
        Some(())
    }

    /// Forgets what must be out of the table: all that is older than enough to fill it.
    fn forget(&mut self) {
        let mut gone = 0;
        while let Some(oldest) = self.entries.front().copied()
            && self.least - oldest.least >= SIZE
        {
            self.entries.pop_front();
            self.least -= oldest.least;
            self.most -= oldest.most;
            gone += oldest.whole;
        }
        self.written.drain(..gone);
    }
}

/// An integer whose first byte has so many bits of it.
fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, rest) = block.split_first()?;
    *block = rest;
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let (next, rest) = block.split_first()?;
        *block = rest;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn text<'a>(block: &mut &'a [u8]) -> Option<Text<'a>> {
    let whole = *block;
    let is_coded = whole.first()? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (_, rest) = block.split_at_checked(length)?;
    *block = rest;
    let (least, most) = match is_coded {
        false => (length, length),
        // Up to seven bits fill the last byte.
        true => ((length * 8).saturating_sub(7) / CODE.1, length * 8 / CODE.0),
    };
    Some(Text {
        written: &whole[..whole.len() - rest.len()],
        least,
        most,
    })
}

#[cfg(test)]
mod tests {
    use super::Table;
    use proptest::prelude::*;

    /// `custom-key: custom-header` and `:authority: www.example.com`, of RFC 7541's examples.
    const CUSTOM: &[u8] = b"\x40\x0acustom-key\x0dcustom-header";
    const AUTHORITY: &[u8] = b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";

    fn table(blocks: &[&[u8]]) -> Option<Table> {
        let mut table = Table::default();
        for block in blocks {
            table.read(block)?;
        }
        Some(table)
    }

    #[test]
    fn what_is_entered_is_kept_as_it_was_written() {
        // Indexed, without indexing, never indexed: none enters.
        let others =
            b"\x3f\xe1\x1f\x82\x86\x84\xbe\x04\x0c/sample/path\x10\x08password\x06secret\x00\x01a\x01b";
        let kept = table(&[CUSTOM, others, AUTHORITY]).unwrap();
        assert_eq!(kept.written(), [CUSTOM, AUTHORITY].concat());
        assert_eq!(kept.entries.len(), 2);
        assert!(
            kept.list_most() >= 55 + 57 && kept.least <= 55 + 57,
            "{kept:?}"
        );
    }

    #[test]
    fn a_name_by_number_is_the_name_that_it_stands_for() {
        // 63 is the older of two; its name is written out again, for 63 may be another by then.
        let kept = table(&[CUSTOM, AUTHORITY, b"\x7f\x00\x03new", b"\x7e\x01x"]).unwrap();
        let again = b"\x40\x0acustom-key\x03new\x40\x0acustom-key\x01x";
        assert_eq!(kept.written(), [CUSTOM, AUTHORITY, again].concat());
    }

    #[test]
    fn the_oldest_are_forgotten_once_they_are_out() {
        let mut kept = Table::default();
        let value = [b"\x40\x01a\x7f\x49".as_slice(), &[b'v'; 200]].concat();
        for _ in 0..100 {
            kept.read(&value).unwrap();
        }
        // 233 each: 17 fit, and so many are kept that without the oldest 4096 are filled.
        assert_eq!(kept.entries.len(), 18);
        assert_eq!(kept.written().len(), 18 * value.len());
        kept.read(b"\x20\x82").unwrap();
        assert!(kept.written().is_empty());
    }

    #[test]
    fn what_is_no_header_block_is_told() {
        for bad in [
            &b"\x40\x0acustom"[..],
            b"\x40\x01a",
            b"\xff\xff\xff\xff\xff\xff\x01",
            b"\xff",
            b"\x7e\x01x",
            b"\x04\xff",
            b"\x80",
            b"\xbe",
            b"\x82\x20",
            b"\x3f\xe2\x1f",
            b"\x0f\x2f\x01x",
        ] {
            assert!(table(&[bad]).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_the_entries_are_those_that_are_written(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..60),
        ) {
            let mut table = Table::default();
            for block in &blocks {
                let _ = table.read(block);
                let sums = table.entries.iter().fold((0, 0, 0), |sums, entry| {
                    (sums.0 + entry.whole, sums.1 + entry.least, sums.2 + entry.most)
                });
                prop_assert_eq!(sums, (table.written.len(), table.least, table.most));
                // Shown again, they are entered again.
                let mut again = Table::default();
                prop_assert!(again.read(table.written()).is_some());
                prop_assert_eq!(again.written(), table.written());
            }
        }
    }
}
