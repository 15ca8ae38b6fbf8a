//! What an engine says of itself in debug mode, on standard output.

use crate::mode::Mode;
use http::Method;
use std::fmt::Arguments;
use std::io::Write;
use std::sync::Once;

/// Prints a line in debug mode.
pub(crate) fn print(line: Arguments<'_>) {
    if Mode::current() == Mode::Debug {
        // Nobody can be told that standard output is closed.
        let _ = writeln!(std::io::stdout().lock(), "[CURTSY-debug] {line}");
    }
}

/// Prints a warning in debug mode.
pub(crate) fn warn(line: Arguments<'_>) {
    print(format_args!("[WARNING] {line}"));
}

/// Prints a route in debug mode.
pub(crate) fn route(method: &Method, path: &str, handler: &str, handlers: usize) {
    let method = method.as_str();
    print(format_args!(
        "{method:<6} {path:<25} --> {handler} ({handlers} handlers)"
    ));
}

/// Prints once that this is debug mode.
pub(crate) fn welcome() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        warn(format_args!(
            "running in debug mode; set CURTSY_MODE=release, or Mode::set(Mode::Release), in production"
        ));
    });
}

/// Says where the engine is served, and warns if every peer is believed. For whoever serves it.
///
/// ```
/// let r = curtsy_web::Engine::new();
/// curtsy_web::announce(&r, "http://127.0.0.1:8080");
/// ```
pub fn announce(engine: &crate::Engine, address: &str) {
    if engine.0.proxies.unset {
        warn(format_args!(
            "every peer is trusted as a proxy, which is not safe: call set_trusted_proxies"
        ));
    }
    print(format_args!("listening and serving on {address}"));
}
