//! What a connection is doing, in a few words that anybody may read while it goes on.
//!
//! One thread writes (the one that serves the connection), any thread reads, and neither ever
//! waits: a sequence lock over relaxed atomics. The writer pays a handful of plain stores a
//! request; a reader who meets a write tries again, and gives up after a bounded number of tries
//! rather than slow the writer down.
//!
//! Deliberately absent: growth. A request line longer than [`Record::CAPACITY`] is cut; a report
//! needs to recognise a request, not to replay it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
const WORDS: usize = 15;
#[cfg(loom)]
const WORDS: usize = 2;

/// How often a reader tries before it says that the text is being rewritten.
const TRIES: usize = 64;

/// A short text with one writer and any number of readers.
///
/// What says how to read it comes first: most texts are in the same cache line, or in the next.
#[derive(Debug)]
#[repr(C)]
pub struct Record {
    /// Odd while a write is under way.
    sequence: AtomicU32,
    /// Bytes of the text; the high bit says that it was cut.
    length: AtomicU32,
    words: [AtomicU64; WORDS],
}

const CUT: u32 = 1 << 31;

impl Record {
    /// What comes before the text, in bytes.
    #[cfg(not(loom))]
    pub(crate) const BEFORE_TEXT: usize = std::mem::offset_of!(Self, words);

    /// The longest text kept whole, in bytes.
    pub const CAPACITY: usize = WORDS * 8;

    /// An empty record.
    pub fn new() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            length: AtomicU32::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Writes `method`, a space and `target`. Only one thread may write at a time; two writers do
    /// no harm to memory, but a reader may then see a mixture.
    #[inline]
    pub fn write(&self, method: &[u8], target: &[u8]) {
        let mut bytes = [0u8; Self::CAPACITY];
        let head = method.len().min(Self::CAPACITY);
        bytes[..head].copy_from_slice(&method[..head]);
        let mut end = head;
        if end < Self::CAPACITY {
            bytes[end] = b' ';
            end += 1;
        }
        let tail = target.len().min(Self::CAPACITY - end);
        bytes[end..end + tail].copy_from_slice(&target[..tail]);
        end += tail;
        let whole = method.len() + 1 + target.len() <= Self::CAPACITY;

        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, chunk) in self
            .words
            .iter()
            .zip(bytes.chunks_exact(8))
            .take(end.div_ceil(8))
        {
            let mut raw = [0u8; 8];
            raw.copy_from_slice(chunk);
            word.store(u64::from_le_bytes(raw), Ordering::Relaxed);
        }
        let length = u32::try_from(end).unwrap_or(0) | if whole { 0 } else { CUT };
        self.length.store(length, Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Empties it. For the writer's thread, as [`Record::write`].
    #[inline]
    pub fn clear(&self) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.length.store(0, Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The text as it stands, with `…` at its end if it was cut; `None` if it was being rewritten
    /// at every try.
    pub fn read(&self) -> Option<String> {
        for _ in 0..TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            if before % 2 == 1 {
                #[cfg(loom)]
                loom::thread::yield_now();
                std::hint::spin_loop();
                continue;
            }
            let mut bytes = [0u8; Self::CAPACITY];
            for (word, chunk) in self.words.iter().zip(bytes.chunks_exact_mut(8)) {
                chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
            let length = self.length.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed) == before {
                let end = ((length & !CUT) as usize).min(Self::CAPACITY);
                let mut text = String::from_utf8_lossy(&bytes[..end]).into_owned();
                if length & CUT != 0 {
                    text.push('…');
                }
                return Some(text);
            }
        }
        None
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Record;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn holds_what_was_written_last() {
        let record = Record::new();
        assert_eq!(record.read().as_deref(), Some(""));
        record.write(b"GET", b"/slow?ms=5000");
        assert_eq!(record.read().as_deref(), Some("GET /slow?ms=5000"));
        record.write(b"POST", b"/");
        assert_eq!(record.read().as_deref(), Some("POST /"));
        record.clear();
        assert_eq!(record.read().as_deref(), Some(""));
    }

    #[test]
    fn cuts_what_is_too_long_and_says_so() {
        let record = Record::new();
        let long = "x".repeat(500);
        record.write(b"GET", long.as_bytes());
        let text = record.read().unwrap();
        assert!(text.starts_with("GET xxx") && text.ends_with('…'), "{text}");
        assert_eq!(text.chars().count(), Record::CAPACITY + 1);
        record.write(long.as_bytes(), b"/");
        assert!(record.read().unwrap().ends_with('…'));
        let fits = "y".repeat(Record::CAPACITY - 4);
        record.write(b"GET", fits.as_bytes());
        assert_eq!(record.read().unwrap(), format!("GET {fits}"));
    }

    #[test]
    fn a_reader_never_sees_a_mixture() {
        let record = Arc::new(Record::new());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (record, stop) = (record.clone(), stop.clone());
            move || {
                for letter in (b'a'..=b'z').cycle() {
                    record.write(&[letter; 7], &[letter; 80]);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
        });
        for _ in 0..20_000 {
            if let Some(text) = record.read()
                && let Some(first) = text.chars().next()
            {
                assert!(text.chars().all(|c| c == first || c == ' '), "{text}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}
