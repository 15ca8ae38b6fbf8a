//! W3C trace context: where a request stands in a trace that goes through several services.
//!
//! Parsed strictly: what is not well formed is as if it were not there, for a trace that is continued wrongly is worse
//! than one that begins anew.
//!
//! A trace that begins here gets numbers from the standard library's keyed hash, whose keys are the kernel's random bytes: they are
//! unlikely to be had twice, and cost no system call. They are no secret.
//!
//! Deliberately absent: `tracestate`, which is for the vendors' libraries to read from the request's headers; and any
//! exporter.

use http::{HeaderMap, HeaderName};
use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

const NAME: HeaderName = HeaderName::from_static("traceparent");
/// What the first version is long, in bytes; later ones are at least that.
const LENGTH: usize = 55;
/// Of the flags: the caller may have recorded the trace.
const SAMPLED: u8 = 1;

/// The `traceparent` of a request: which trace it belongs to, and which step of it asked.
///
/// It is in the extensions of requests that have a span, if their client sent none as one that begins there; of requests
/// that only the access log tells of, if their client sent one. Elsewhere [`TraceParent::from_headers`] has it.
///
/// ```
/// use curtsy_server::TraceParent;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent: TraceParent = text.parse()?;
/// assert_eq!(parent.trace_id, 0x4bf92f3577b34da6a3ce929d0e0e4736);
/// assert!(parent.is_sampled());
/// assert_eq!(parent.to_string(), text);
/// // What this service sends on, where it is step 17.
/// let sent_on = parent.with_parent(17).to_string();
/// assert_eq!(sent_on, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000011-01");
/// # Ok::<(), curtsy_server::BadTraceParent>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace. Never 0.
    pub trace_id: u128,
    /// The step that asked; the first step itself, in a trace that begins here. Never 0 in one that was parsed or begun.
    pub parent_id: u64,
    /// Flags: bit 0 says that the caller may have recorded the trace.
    pub flags: u8,
}

impl TraceParent {
    /// The one in `headers`; `None` if there is none, several, or one that is not well formed.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(NAME).iter();
        let only = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(only.as_bytes())
    }

    /// A trace that begins here, with its first step.
    ///
    /// ```
    /// use curtsy_server::TraceParent;
    ///
    /// let (one, other) = (TraceParent::begin(), TraceParent::begin());
    /// assert_ne!(one.trace_id, other.trace_id);
    /// assert_eq!(one.to_string().parse(), Ok(one));
    /// ```
    #[must_use]
    pub fn begin() -> Self {
        let high = u128::from(random());
        Self {
            trace_id: high << 64 | u128::from(random()),
            parent_id: random(),
            flags: SAMPLED,
        }
    }

    /// The same trace, asked by another step.
    #[must_use]
    pub fn with_parent(self, parent_id: u64) -> Self {
        Self { parent_id, ..self }
    }

    /// Whether the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let version = hex(text.get(0..2)?)?;
        match text.get(LENGTH) {
            _ if version == 0xff => return None,
            Some(_) if version == 0 => return None,
            // A later version may say more, after another dash.
            Some(b'-') | None => {}
            Some(_) => return None,
        }
        if [2, 35, 52]
            .iter()
            .any(|dash| text.get(*dash) != Some(&b'-'))
        {
            return None;
        }
        let trace_id = hex(text.get(3..35)?)?;
        let parent_id = u64::try_from(hex(text.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(text.get(53..LENGTH)?)?).ok()?;
        (trace_id != 0 && parent_id != 0).then_some(Self {
            trace_id,
            parent_id,
            flags,
        })
    }
}

/// A number that nobody has had before, and not 0.
fn random() -> u64 {
    thread_local! {
        static NUMBERS: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
    }
    NUMBERS.with(|(keys, count)| {
        count.set(count.get().wrapping_add(1));
        keys.hash_one(count.get()).max(1)
    })
}

/// A number of hexadecimal digits, of which the large ones are not allowed.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// A `traceparent` that is not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTraceParent(());

impl fmt::Display for BadTraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a well-formed traceparent")
    }
}

impl std::error::Error for BadTraceParent {}

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    fn from_str(text: &str) -> Result<Self, BadTraceParent> {
        Self::parse(text.as_bytes()).ok_or(BadTraceParent(()))
    }
}

/// In the first version of the format.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.parent_id, self.flags
        )
    }
}

#[cfg(test)]
mod tests {
    use super::TraceParent;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;
    use std::collections::HashSet;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_the_well_formed_are_taken() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (text, is_good) in [
            (GOOD.to_owned(), true),
            (GOOD.replace("-01", "-ff"), true),
            // A version that does not exist yet, with and without more.
            (GOOD.replacen("00", "cc", 1), true),
            (format!("{}-what", GOOD.replacen("00", "cc", 1)), true),
            (format!("{}.what", GOOD.replacen("00", "cc", 1)), false),
            (format!("{GOOD}-what"), false),
            (GOOD.replacen("00", "ff", 1), false),
            (GOOD.to_uppercase(), false),
            (GOOD.replace(id, &"0".repeat(32)), false),
            (GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            (GOOD.replace(id, &id.replace('4', "g")), false),
            (GOOD.replace('-', "_"), false),
            (GOOD[1..].to_owned(), false),
            (GOOD[..54].to_owned(), false),
            (format!(" {GOOD}"), false),
            (format!("{GOOD} "), false),
            (String::new(), false),
            ("00".to_owned(), false),
        ] {
            assert_eq!(text.parse::<TraceParent>().is_ok(), is_good, "{text:?}");
        }
    }

    #[test]
    fn of_several_none_is_taken() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::from_headers(&headers), None);
        headers.insert("traceparent", HeaderValue::from_static(GOOD));
        assert!(TraceParent::from_headers(&headers).is_some());
        headers.append("traceparent", HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::from_headers(&headers), None);
    }

    #[test]
    fn no_two_that_begin_are_alike() {
        let begin = || (0..500).map(|_| TraceParent::begin()).collect::<Vec<_>>();
        let mut all = begin();
        all.extend(std::thread::spawn(begin).join().unwrap());
        let traces: HashSet<u128> = all.iter().map(|parent| parent.trace_id).collect();
        let steps: HashSet<u64> = all.iter().map(|parent| parent.parent_id).collect();
        assert_eq!((traces.len(), steps.len()), (1000, 1000));
        assert!(all.iter().all(TraceParent::is_sampled));
        // All of the bits are used.
        let ones = |of: fn(u128, u128) -> u128, from| {
            all.iter().fold(from, |sum, one| of(sum, one.trace_id))
        };
        assert_eq!(ones(|a, b| a | b, 0), u128::MAX);
        assert_eq!(ones(|a, b| a & b, u128::MAX), 0);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace_id in 1u128.., parent_id in 1u64.., flags: u8) {
            let parent = TraceParent { trace_id, parent_id, flags };
            prop_assert_eq!(parent.to_string().parse(), Ok(parent));
        }

        #[test]
        fn nothing_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            if let Some(parent) = TraceParent::parse(&bytes) {
                let written = parent.to_string();
                prop_assert_eq!(&written.as_bytes()[2..], &bytes[2..55]);
            }
        }
    }
}
