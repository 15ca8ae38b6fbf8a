//! Numbers and names as people read them.

/// A time: `12.3 s`, `4 min 5 s`, `3 h 12 min`, `2 d 3 h`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A number of bytes: `0 B`, `1.5 kB`, `12 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, "B", &["kB", "MB", "GB", "TB"])
}

/// A number of things: `999`, `1.2 k`, `3.4 M`.
pub(crate) fn count(count: u64) -> String {
    scaled(count, "", &["k", "M", "G", "T"])
}

#[allow(
    clippy::cast_precision_loss,
    reason = "two digits are shown of what may be many"
)]
fn scaled(number: u64, one: &str, more: &[&str]) -> String {
    if number < 1000 {
        return format!("{number} {one}").trim_end().to_owned();
    }
    let mut value = number as f64;
    let mut unit = one;
    for next in more {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    match value < 9.95 {
        true => format!("{value:.1} {unit}"),
        false => format!("{value:.0} {unit}"),
    }
}

/// Without what a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

/// A bar of so many cells, filled to that share.
pub(crate) fn bar(share: f64, cells: usize) -> String {
    #[allow(
        clippy::cast_precision_loss,
        reason = "nobody has a terminal of 2^52 columns"
    )]
    let full = (0..cells)
        .filter(|cell| (*cell as f64) < share * cells as f64)
        .count();
    format!("{}{}", "█".repeat(full), "░".repeat(cells - full))
}

#[cfg(test)]
mod tests {
    use super::{age, bar, bytes, clean, count};

    #[test]
    fn times_as_people_say_them() {
        for (ms, expected) in [
            (0, "0.0 s"),
            (12_349, "12.3 s"),
            (59_999, "59.9 s"),
            (61_000, "1 min 1 s"),
            (11_520_000, "3 h 12 min"),
            (183_600_000, "2 d 3 h"),
        ] {
            assert_eq!(age(ms), expected);
        }
    }

    #[test]
    fn numbers_keep_two_digits_or_three() {
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_500, "1.5 kB"),
            (12_345_678, "12 MB"),
            (999_600, "1.0 MB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        assert_eq!(
            (count(999), count(1_234_567)),
            ("999".into(), "1.2 M".into())
        );
    }

    #[test]
    fn what_a_terminal_obeys_is_not_passed_on() {
        assert_eq!(clean("/a\u{1b}[2J\n"), "/a\u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn a_bar_is_as_full_as_its_share() {
        assert_eq!(bar(0.0, 4), "░░░░");
        assert_eq!(bar(0.5, 4), "██░░");
        assert_eq!(bar(7.0, 4), "████");
    }
}
