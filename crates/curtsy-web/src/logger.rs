//! The access log: one line for each request, after it was answered.
//!
//! Of an answer that is a stream the line tells its beginning: it is written when the handlers are
//! done, and the stream goes on after them.

use crate::context::Context;
use crate::handler::{BoxFuture, Call};
use http::{HeaderMap, Method, StatusCode, Version};
use std::collections::HashSet;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a log line is made of.
///
/// ```
/// use curtsy_web::{LogParams, Logger};
///
/// fn line(p: &LogParams<'_>) -> String {
///     format!("{} {} {} {:?}\n", p.method, p.path, p.status.as_u16(), p.latency)
/// }
///
/// let logger = Logger::new().formatter(line);
/// ```
#[derive(Clone, Debug)]
pub struct LogParams<'c> {
    /// When the answer was ready.
    pub time: jiff::Zoned,
    /// The answer's status.
    pub status: StatusCode,
    /// How long the handlers took.
    pub latency: Duration,
    /// Whom the answer is for; see [`Context::client_ip`].
    pub client_ip: Option<IpAddr>,
    /// The request's method.
    pub method: &'c Method,
    /// The request's path with its query.
    pub path: &'c str,
    /// The version of HTTP that the client speaks.
    pub version: Version,
    /// The request's headers.
    pub headers: &'c HeaderMap,
    /// The private errors, one in a line.
    pub errors: String,
    /// The answer's body in bytes, if it is known.
    pub body_size: Option<u64>,
    /// Whether to use colours.
    pub colors: bool,
}

type Formatter = dyn Fn(&LogParams<'_>) -> String + Send + Sync;
type Skip = dyn Fn(&Context) -> bool + Send + Sync;

/// The middleware that writes the access log.
///
/// ```
/// use curtsy_web::{Engine, Logger};
///
/// let mut r = Engine::new();
/// r.use_middleware(Logger::new().skip_paths(["/health"]));
/// ```
#[derive(Clone)]
pub struct Logger(Arc<Config>);

#[derive(Clone)]
struct Config {
    formatter: Arc<Formatter>,
    writer: Arc<Mutex<dyn Write + Send>>,
    colors: bool,
    skip_paths: HashSet<String>,
    skip: Option<Arc<Skip>>,
}

impl Logger {
    /// A logger to standard output in gin's format, with colours on a terminal.
    ///
    /// ```
    /// curtsy_web::Engine::new().use_middleware(curtsy_web::Logger::new());
    /// ```
    pub fn new() -> Self {
        Self(Arc::new(Config {
            formatter: Arc::new(default_line),
            writer: Arc::new(Mutex::new(std::io::stdout())),
            colors: std::io::stdout().is_terminal(),
            skip_paths: HashSet::new(),
            skip: None,
        }))
    }

    /// Writes elsewhere, without colours.
    ///
    /// ```
    /// use curtsy_web::Logger;
    ///
    /// let logger = Logger::new().writer(std::io::sink());
    /// ```
    #[must_use]
    pub fn writer(self, writer: impl Write + Send + 'static) -> Self {
        self.with(|config| {
            config.writer = Arc::new(Mutex::new(writer));
            config.colors = false;
        })
    }

    /// Turns colours on or off.
    ///
    /// ```
    /// let logger = curtsy_web::Logger::new().colors(false);
    /// ```
    #[must_use]
    pub fn colors(self, colors: bool) -> Self {
        self.with(|config| config.colors = colors)
    }

    /// Writes what `formatter` makes of a request; the line's end is its own affair.
    ///
    /// ```
    /// use curtsy_web::Logger;
    ///
    /// let logger = Logger::new().formatter(|p| format!("{} {} {}\n", p.method, p.path, p.status));
    /// ```
    #[must_use]
    pub fn formatter(
        self,
        formatter: impl Fn(&LogParams<'_>) -> String + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.formatter = Arc::new(formatter))
    }

    /// Writes nothing of requests for these paths.
    ///
    /// ```
    /// let logger = curtsy_web::Logger::new().skip_paths(["/health", "/metrics"]);
    /// ```
    #[must_use]
    pub fn skip_paths<P: Into<String>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(Into::into);
        self.with(|config| config.skip_paths.extend(paths))
    }

    /// Writes nothing of requests of which `skip` says so after they were answered.
    ///
    /// ```
    /// let logger = curtsy_web::Logger::new().skip(|c| c.response_status().is_success());
    /// ```
    #[must_use]
    pub fn skip(self, skip: impl Fn(&Context) -> bool + Send + Sync + 'static) -> Self {
        self.with(|config| config.skip = Some(Arc::new(skip)))
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl Default for Logger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger")
            .field("colors", &self.0.colors)
            .field("skip_paths", &self.0.skip_paths)
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> for Logger {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        Box::pin(async move {
            let began = Instant::now();
            c.next().await;
            self.0.log(c, began.elapsed());
        })
    }
}

impl Config {
    fn log(&self, c: &Context, latency: Duration) {
        let skipped = !self.skip_paths.is_empty() && self.skip_paths.contains(c.path());
        if skipped || self.skip.as_ref().is_some_and(|skip| skip(c)) {
            return;
        }
        let path = c.uri().path_and_query().map_or("", |path| path.as_str());
        let params = LogParams {
            time: jiff::Zoned::now(),
            status: c.response_status(),
            latency,
            client_ip: c.client_ip(),
            method: c.method(),
            path,
            version: c.version(),
            headers: c.headers(),
            errors: error_lines(c),
            body_size: c.response_size(),
            colors: self.colors,
        };
        let line = (self.formatter)(&params);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not take the answer with it.
        let _ = writer.write_all(line.as_bytes());
        let _ = writer.flush();
    }
}

fn error_lines(c: &Context) -> String {
    let private = c.errors().iter().filter(|error| error.is_private());
    let mut lines = String::new();
    for (index, error) in private.enumerate() {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let text = cause.unwrap_or_else(|| error.to_string());
        lines.push_str(&format!("Error #{:02}: {text}\n", index + 1));
    }
    lines
}

/// A line in gin's format.
fn default_line(p: &LogParams<'_>) -> String {
    let time = p.time.strftime("%Y/%m/%d - %H:%M:%S");
    let (status_color, method_color, reset) = if p.colors {
        (status_color(p.status), method_color(p.method), RESET)
    } else {
        ("", "", "")
    };
    let status = p.status.as_u16();
    let latency = go_duration(rounded(p.latency));
    let client = p.client_ip.map_or_else(String::new, |ip| ip.to_string());
    let (method, path, errors) = (p.method.as_str(), p.path, &p.errors);
    format!(
        "[CURTSY] {time} |{status_color} {status:>3} {reset}| {latency:>8} | {client:>15} |{method_color} {method:<7} {reset} {path:?}\n{errors}"
    )
}

const RESET: &str = "\x1b[0m";
const GREEN: &str = "\x1b[97;42m";
const WHITE: &str = "\x1b[90;47m";
const YELLOW: &str = "\x1b[90;43m";
const RED: &str = "\x1b[97;41m";
const BLUE: &str = "\x1b[97;44m";
const MAGENTA: &str = "\x1b[97;45m";
const CYAN: &str = "\x1b[97;46m";

fn status_color(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => GREEN,
        100..=199 | 300..=399 => WHITE,
        400..=499 => YELLOW,
        _ => RED,
    }
}

fn method_color(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => BLUE,
        "POST" => CYAN,
        "PUT" => YELLOW,
        "DELETE" => RED,
        "PATCH" => GREEN,
        "HEAD" => MAGENTA,
        "OPTIONS" => WHITE,
        _ => RESET,
    }
}

/// As many digits as matter at that size, so that the column keeps its width.
fn rounded(latency: Duration) -> Duration {
    let step = match latency.as_nanos() {
        60_000_000_001.. => 10_000_000_000,
        1_000_000_001.. => 10_000_000,
        1_000_001.. => 10_000,
        _ => 1,
    };
    let nanos = latency.as_nanos() / step * step;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A duration as Go writes it: `5s`, `1m3.5s`, `1.25ms`, `800ns`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..=999 => format!("{nanos}ns"),
        1_000..=999_999 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..=999_999_999 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` with as many decimals as are not zero.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let rest = format!("{rest:0width$}");
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::{LogParams, default_line, go_duration, rounded};
    use http::{HeaderMap, Method, StatusCode, Version};
    use std::time::Duration;

    fn params(headers: &HeaderMap) -> LogParams<'_> {
        let time = jiff::civil::date(2018, 12, 7).at(9, 11, 42, 0);
        LogParams {
            time: time.to_zoned(jiff::tz::TimeZone::UTC).unwrap(),
            status: StatusCode::OK,
            latency: Duration::from_secs(5),
            client_ip: Some([20, 20, 20, 20].into()),
            method: &Method::GET,
            path: "/",
            version: Version::HTTP_11,
            headers,
            errors: String::new(),
            body_size: None,
            colors: false,
        }
    }

    #[test]
    fn the_line_is_gins() {
        assert_eq!(
            default_line(&params(&HeaderMap::new())),
            "[CURTSY] 2018/12/07 - 09:11:42 | 200 |       5s |     20.20.20.20 | GET      \"/\"\n"
        );
        let headers = HeaderMap::new();
        let colored = LogParams {
            colors: true,
            status: StatusCode::NOT_FOUND,
            path: "/a\"\x1b[0m",
            errors: "Error #01: disk\n".into(),
            ..params(&headers)
        };
        assert_eq!(
            default_line(&colored),
            "[CURTSY] 2018/12/07 - 09:11:42 |\x1b[90;43m 404 \x1b[0m|       5s |     20.20.20.20 \
             |\x1b[97;44m GET     \x1b[0m \"/a\\\"\\u{1b}[0m\"\nError #01: disk\n"
        );
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (800, "800ns"),
            (1_500, "1.5µs"),
            (20_050_000, "20.05ms"),
            (1_000_000_000, "1s"),
            (63_500_000_000, "1m3.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(
            go_duration(rounded(Duration::from_nanos(1_234_567))),
            "1.23ms"
        );
        assert_eq!(go_duration(rounded(Duration::from_millis(63_456))), "1m0s");
    }
}
