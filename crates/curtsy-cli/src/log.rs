//! How much is logged: `CURTSY_LOG` at the start, `curtsy log-level` from then on.

use crate::voice::{Voice, say};
use curtsy::BoxError;
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

type Set = Box<dyn Fn(EnvFilter) -> Result<(), BoxError> + Send + Sync>;

static SET: OnceLock<Set> = OnceLock::new();

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const VARIABLE: &str = "CURTSY_LOG";
const DEFAULT: &str = "warn";

/// Begins to log to standard error.
pub(crate) fn begin() {
    let wish = std::env::var(VARIABLE).ok().filter(|wish| !wish.is_empty());
    let filter = parse(wish.as_deref().unwrap_or(DEFAULT)).unwrap_or_else(|error| {
        say(&format!(
            "curtsy: {VARIABLE}: {error}; it is {DEFAULT} now\n"
        ));
        EnvFilter::new(DEFAULT)
    });
    let builder = tracing_subscriber::fmt()
        .with_writer(|| Voice)
        .with_ansi(stderr().is_terminal())
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    // It is begun once.
    let _ = SET.set(Box::new(move |filter| Ok(handle.reload(filter)?)));
}

/// Logs as much as this says from now on: a level, or levels by module (`curtsy_server=debug,info`).
pub(crate) fn set(text: &str) -> Result<(), BoxError> {
    let filter = parse(text)?;
    match SET.get() {
        Some(set) => set(filter),
        None => Err("nothing is logged".into()),
    }
}

/// A word alone is a level here and nothing else: taken for a module, a slip of the pen would silence
/// everything.
fn parse(text: &str) -> Result<EnvFilter, BoxError> {
    for word in text.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        if !is_level && !word.contains('=') {
            let levels = LEVELS.join(", ");
            return Err(format!("{word:?} is neither of {levels}, nor MODULE=LEVEL").into());
        }
    }
    Ok(EnvFilter::try_new(text)?)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn levels_and_modules_are_understood_and_slips_are_not() {
        for good in [
            "info",
            "WARN",
            "off",
            "curtsy_server=debug",
            "info,curtsy=trace",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "debgu", "info,debgu", "curtsy_server=loud"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
