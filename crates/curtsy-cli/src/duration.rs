//! Durations as people write them on a command line: `30s`, `500ms`, `1m 30s`, `0`.

use std::time::Duration;

/// Reads one; for clap.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number with its unit: 500ms, 30s, 2m, or 0"))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn as_people_write_them() {
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        assert_eq!(parse("0s").unwrap(), Duration::ZERO);
        assert_eq!(parse("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse("1m 30s").unwrap(), Duration::from_secs(90));
        for wrong in ["", "5", "-1s", "soon"] {
            assert!(parse(wrong).unwrap_err().contains("30s"), "{wrong}");
        }
    }
}
