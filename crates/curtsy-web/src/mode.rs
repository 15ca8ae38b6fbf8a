//! Debug, release or test: how much an engine says of itself. And where it listens by default.
//!
//! The mode is the process's, as in gin: `CURTSY_MODE`, else `GIN_MODE`, else debug.

use std::sync::atomic::{AtomicU8, Ordering};

/// How much an engine says of itself.
///
/// ```
/// use curtsy_web::Mode;
///
/// Mode::set(Mode::Test);
/// assert_eq!(Mode::current(), Mode::Test);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Prints routes and warnings, reads templates anew for each answer.
    Debug = 1,
    /// Says nothing.
    Release = 2,
    /// Says nothing, for tests.
    Test = 3,
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

impl Mode {
    /// The process's mode: the one that was set, else by `CURTSY_MODE` or `GIN_MODE` (`debug`,
    /// `release`, `test`), else debug.
    ///
    /// ```
    /// if curtsy_web::Mode::current() == curtsy_web::Mode::Debug {
    ///     println!("not for production");
    /// }
    /// ```
    pub fn current() -> Self {
        match CURRENT.load(Ordering::Relaxed) {
            1 => Self::Debug,
            2 => Self::Release,
            3 => Self::Test,
            _ => {
                let mode = Self::from_vars(|name| std::env::var(name).ok());
                Self::set(mode);
                mode
            }
        }
    }

    /// Sets the process's mode.
    ///
    /// ```
    /// curtsy_web::Mode::set(curtsy_web::Mode::Release);
    /// ```
    pub fn set(mode: Self) {
        CURRENT.store(mode as u8, Ordering::Relaxed);
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        match var("CURTSY_MODE").or_else(|| var("GIN_MODE")).as_deref() {
            Some("release") => Self::Release,
            Some("test") => Self::Test,
            Some(_) | None => Self::Debug,
        }
    }
}

/// Where to listen: what is given, else the environment's `PORT`, else port 8080. An address
/// without a host (`:8080`) means all of the machine's.
///
/// ```
/// use curtsy_web::listen_address;
///
/// assert_eq!(listen_address(Some("127.0.0.1:9000")), "127.0.0.1:9000");
/// assert_eq!(listen_address(Some(":9000")), "0.0.0.0:9000");
/// ```
pub fn listen_address(given: Option<&str>) -> String {
    address_from(given, std::env::var("PORT").ok().as_deref())
}

fn address_from(given: Option<&str>, port: Option<&str>) -> String {
    match (given, port) {
        (Some(address), _) if address.starts_with(':') => format!("0.0.0.0{address}"),
        (Some(address), _) if !address.is_empty() => address.to_owned(),
        (_, Some(port)) if !port.is_empty() => {
            crate::debug::print(format_args!("PORT is \"{port}\""));
            format!("0.0.0.0:{port}")
        }
        _ => {
            crate::debug::print(format_args!("PORT is not set: listening on :8080"));
            "0.0.0.0:8080".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, address_from};

    #[test]
    fn the_environment_names_the_mode() {
        let mode = |own: Option<&'static str>, gin: Option<&'static str>| {
            Mode::from_vars(|name| {
                let value = if name == "CURTSY_MODE" { own } else { gin };
                value.map(str::to_owned)
            })
        };
        assert_eq!(mode(None, None), Mode::Debug);
        assert_eq!(mode(None, Some("release")), Mode::Release);
        assert_eq!(mode(Some("test"), Some("release")), Mode::Test);
        assert_eq!(mode(Some("nonsense"), None), Mode::Debug);
    }

    #[test]
    fn addresses() {
        assert_eq!(address_from(Some("[::1]:1"), Some("9")), "[::1]:1");
        assert_eq!(address_from(Some(":1"), Some("9")), "0.0.0.0:1");
        assert_eq!(address_from(None, Some("9")), "0.0.0.0:9");
        assert_eq!(address_from(None, None), "0.0.0.0:8080");
        assert_eq!(address_from(Some(""), Some("")), "0.0.0.0:8080");
    }
}
