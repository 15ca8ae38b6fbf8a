//! Numbers on a command line, with what is wrong with others said in words.

use std::num::NonZeroUsize;

/// How many; for clap.
pub(crate) fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "write a whole number, 1 or more".to_owned())
}

/// A connection's number, as it is shown: `12` or `#12`; for clap.
pub(crate) fn connection(text: &str) -> Result<u64, String> {
    text.strip_prefix('#')
        .unwrap_or(text)
        .parse()
        .map_err(|_| "write its number, as `curtsy connections` shows it: 12".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{at_least_one, connection};

    #[test]
    fn numbers_and_what_is_none() {
        assert_eq!(at_least_one("2").unwrap().get(), 2);
        for wrong in ["0", "-1", "two", "1.5", ""] {
            assert!(at_least_one(wrong).unwrap_err().contains("1 or more"));
        }
        assert_eq!((connection("12"), connection("#12")), (Ok(12), Ok(12)));
        assert!(connection("##1").is_err() && connection("").is_err());
    }
}
