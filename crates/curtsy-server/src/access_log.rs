//! The access log: a line for each request, written off the worker's path.
//!
//! A worker hands what it knows of an exchange to a bounded queue and goes on; a thread of the log's own makes lines of
//! it and writes them, many at a time. When the queue is full, what comes is dropped and counted: a slow disk must not
//! slow down the service. How many were dropped is said in the log of the program and in the metrics.
//!
//! Invariants:
//! - A line is one line: whatever a client sends, it cannot begin another or end a field early.
//! - Lines are whole: they are written in one piece, and a file that was moved away is opened anew. What a full disk tore
//!   is ended before the next line.
//! - What was queued when the server stopped is written before `run` returns, within a bound.
//!
//! Deliberately absent: formats of one's own, and host names for addresses.

use crate::error::{Error, Kind};
use crate::trace::TraceParent;
use curtsy_lifecycle::{Address, Origin};
use http::{HeaderValue, Method, Uri, Version};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// How many lines may wait to be written: what a fast disk writes in some hundredths of a second, and a few MB.
const QUEUE_MOST: usize = 16_384;
/// How many bytes are written at a time, about.
const BATCH_BYTES: usize = 64 << 10;
/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is told that lines are dropped: a disk stays full for hours.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How long a server that has stopped waits for what is queued.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// The Common Log Format: `127.0.0.1 - - [21/Nov/2026:16:38:55 +0000] "GET / HTTP/1.1" 200 13`.
    Common,
    /// The same, with the referrer and the user agent.
    Combined,
    /// An object for each request, with its duration, connection and trace.
    Json,
}

impl FromStr for AccessLogFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "common" => Ok(Self::Common),
            "combined" => Ok(Self::Combined),
            "json" => Ok(Self::Json),
            _ => Err(Error::new(
                Kind::Config,
                format!(
                    "there is no access log format {text:?}; there are common, combined and json"
                ),
            )),
        }
    }
}

/// An access log: a format, and where it goes.
///
/// ```
/// use curtsy_server::{AccessLog, AccessLogFormat};
///
/// let to_stdout = AccessLog::new(AccessLogFormat::Json);
/// let to_file = AccessLog::to_file(AccessLogFormat::Combined, "/var/log/app/access.log");
/// // As the command line has it.
/// let the_same: AccessLog = "combined:/var/log/app/access.log".parse()?;
/// # Ok::<(), curtsy_server::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    format: AccessLogFormat,
    path: Option<PathBuf>,
}

impl AccessLog {
    /// To standard output.
    pub fn new(format: AccessLogFormat) -> Self {
        Self { format, path: None }
    }

    /// To the end of a file. One that is moved away or removed is opened anew within a second.
    pub fn to_file(format: AccessLogFormat, path: impl Into<PathBuf>) -> Self {
        Self {
            format,
            path: Some(path.into()),
        }
    }

    /// Opens it and starts its thread.
    pub(crate) fn open(self) -> Result<Queue, Error> {
        let failed = |error: io::Error| {
            let place = self
                .path
                .as_deref()
                .map_or("standard output".into(), Path::to_string_lossy);
            Error::because(
                Kind::Config,
                format!("cannot write the access log to {place}"),
                error,
            )
        };
        let sink = match &self.path {
            Some(path) => Sink::file(path.clone()).map_err(failed)?,
            None => Sink::to(Place::Stdout),
        };
        Queue::start(self.format, sink, QUEUE_MOST).map_err(failed)
    }
}

impl FromStr for AccessLog {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text.split_once(':') {
            Some((format, path)) => Self::to_file(format.parse()?, path),
            None => Self::new(text.parse()?),
        })
    }
}

/// What is known of a request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) at: SystemTime,
    pub(crate) peer: Address,
    pub(crate) connection: u64,
    pub(crate) listener: Arc<Origin>,
    /// `None` if what came was no request.
    pub(crate) asked: Option<(Method, Uri, Version)>,
    pub(crate) referer: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) trace: Option<TraceParent>,
    /// It begins here, and its parent is this request itself.
    pub(crate) begins_trace: bool,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// `None` if the client was gone before there was an answer.
    pub(crate) status: Option<u16>,
    pub(crate) body_bytes: u64,
    pub(crate) took: Duration,
}

enum Message {
    Line(Box<Exchange>),
    /// Everything before this is to be written now.
    Flush(oneshot::Sender<()>),
}

/// The way to the log's thread.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn start(format: AccessLogFormat, sink: Sink, most: usize) -> io::Result<Self> {
        let (sender, messages) = sync_channel(most);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            format,
            sink,
            messages,
            dropped: dropped.clone(),
            trouble: None,
            told: 0,
            told_at: None,
            clock: Clock::default(),
        };
        let thread = std::thread::Builder::new().name("curtsy-access-log".to_owned());
        // It ends when the last queue is gone.
        drop(thread.spawn(move || writer.run())?);
        Ok(Self { sender, dropped })
    }

    /// Hands an exchange over, or drops it.
    pub(crate) fn write(&self, exchange: Box<Exchange>) {
        match self.sender.try_send(Message::Line(exchange)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lines that were not written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits, a bounded while, until what is queued is written.
    pub(crate) async fn finish(&self) {
        let (done, written) = oneshot::channel();
        let sender = self.sender.clone();
        let asking = tokio::task::spawn_blocking(move || sender.send(Message::Flush(done)));
        let finish = async {
            drop(asking.await);
            drop(written.await);
        };
        // A disk that takes nothing must not keep the server.
        drop(tokio::time::timeout(LAST_LINES, finish).await);
    }
}

/// Where lines go.
struct Sink {
    place: Place,
    /// The last line that was written is not whole.
    is_torn: bool,
}

enum Place {
    Stdout,
    File {
        path: PathBuf,
        file: File,
        looked: Instant,
        /// It was moved away, and could not be opened anew.
        is_astray: bool,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    fn to(place: Place) -> Self {
        Self {
            place,
            is_torn: false,
        }
    }

    fn file(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self::to(Place::File {
            path,
            file,
            looked: Instant::now(),
            is_astray: false,
        }))
    }

    /// Writes whole lines; or why not, and how many are lost.
    fn write(&mut self, lines: &mut String) -> Result<(), (io::Error, u64)> {
        self.place.look();
        if self.is_torn {
            // What was lost of it has been counted.
            lines.insert(0, '\n');
        }
        let all = lines.as_bytes();
        let mut written = 0;
        while written < all.len() {
            match self.place.write(&all[written..]) {
                Ok(count @ 1..) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    let error = failed.err();
                    if let Some(last) = written.checked_sub(1) {
                        self.is_torn = all[last] != b'\n';
                    }
                    // The end of the torn one that came before is none of these.
                    let rest = &all[written.max(usize::from(all[0] == b'\n'))..];
                    let lost = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
                    return Err((
                        error.unwrap_or_else(|| io::ErrorKind::WriteZero.into()),
                        lost,
                    ));
                }
            }
        }
        self.is_torn = false;
        Ok(())
    }
}

impl Place {
    /// Opens a file anew that was moved away. Where that cannot be, it goes on in the old one: better there than nowhere.
    fn look(&mut self) {
        let Self::File {
            path,
            file,
            looked,
            is_astray,
        } = self
        else {
            return;
        };
        if looked.elapsed() < LOOK {
            return;
        }
        *looked = Instant::now();
        if is_at(path, file) {
            return;
        }
        match open(path) {
            Ok(new) => (*file, *is_astray) = (new, false),
            Err(error) => {
                if !std::mem::replace(is_astray, true) {
                    let path = path.display();
                    tracing::warn!(%path, %error, "the access log was moved away and cannot be opened anew; \
                        its lines go on where it is");
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => Ok(rustix::io::write(io::stdout(), bytes)?),
            Self::File { file, .. } => file.write(bytes),
            #[cfg(test)]
            Self::Test(out) => out.write(bytes),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Whether `path` still leads to `file`.
fn is_at(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
        _ => false,
    }
}

struct Writer {
    format: AccessLogFormat,
    sink: Sink,
    messages: Receiver<Message>,
    dropped: Arc<AtomicU64>,
    /// Why the last lines could not be written.
    trouble: Option<io::Error>,
    told: u64,
    told_at: Option<Instant>,
    clock: Clock,
}

impl Writer {
    fn run(mut self) {
        let mut lines = String::with_capacity(2 * BATCH_BYTES);
        let mut waiting = Vec::new();
        // Until nobody is left to write for.
        while let Ok(first) = self.messages.recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Line(exchange) => {
                        self.clock.line(&mut lines, self.format, &exchange);
                    }
                    Message::Flush(done) => waiting.push(done),
                }
                let has_room = lines.len() < BATCH_BYTES;
                next = has_room.then(|| self.messages.try_recv().ok()).flatten();
            }
            if !lines.is_empty() {
                let written = self.sink.write(&mut lines);
                self.trouble = written.err().map(|(error, lost)| {
                    self.dropped.fetch_add(lost, Ordering::Relaxed);
                    error
                });
            }
            lines.clear();
            self.tell(waiting.is_empty());
            for done in waiting.drain(..) {
                // Who does not wait any more need not know.
                let _ = done.send(());
            }
        }
    }

    /// Says how many lines were dropped since it was last said, not too often unless it is the last time.
    fn tell(&mut self, may_wait: bool) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let is_early = self.told_at.is_some_and(|at| at.elapsed() < TOLD_EVERY);
        if dropped == self.told || (may_wait && is_early) {
            return;
        }
        let lines = dropped - self.told;
        match &self.trouble {
            Some(error) => {
                tracing::warn!(lines, %error, "the access log cannot be written; lines were dropped");
            }
            None => tracing::warn!(lines, "the access log cannot keep up; lines were dropped"),
        }
        self.told = dropped;
        self.told_at = Some(Instant::now());
    }
}

/// The text of the second that lines are being written of.
#[derive(Debug, Default)]
struct Clock {
    second: Option<u64>,
    common: String,
    rfc3339: String,
}

impl Clock {
    fn set(&mut self, at: SystemTime) -> u32 {
        let since = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            // `Sat, 21 Nov 2026 16:38:55 GMT`, always as long.
            let date = httpdate::fmt_http_date(at);
            let part = |range| date.get(range).unwrap_or_default();
            let (day, month, year, time) = (part(5..7), part(8..11), part(12..16), part(17..25));
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let number = MONTHS.find(month).map_or(0, |at| at / 3 + 1);
            self.common = format!("{day}/{month}/{year}:{time} +0000");
            self.rfc3339 = format!("{year}-{number:02}-{day}T{time}");
        }
        since.subsec_millis()
    }

    /// Adds the line, its end included.
    fn line(&mut self, out: &mut String, format: AccessLogFormat, exchange: &Exchange) {
        let ms = self.set(exchange.at);
        match format {
            AccessLogFormat::Common => self.common(out, exchange),
            AccessLogFormat::Combined => {
                self.common(out, exchange);
                for value in [&exchange.referer, &exchange.user_agent] {
                    out.push(' ');
                    quoted(out, value.as_ref().map_or(b"-", HeaderValue::as_bytes));
                }
            }
            AccessLogFormat::Json => self.json(out, ms, exchange),
        }
        out.push('\n');
    }

    fn common(&self, out: &mut String, exchange: &Exchange) {
        match &exchange.peer {
            // Writing to a string does not fail.
            Address::Tcp(address) => drop(write!(out, "{}", address.ip())),
            Address::Unix(_) => out.push_str("unix:"),
        }
        let _ = write!(out, " - - [{}] ", self.common);
        match &exchange.asked {
            Some((method, uri, version)) => {
                let asked = format!("{method} {} {version:?}", target(uri));
                quoted(out, asked.as_bytes());
            }
            None => out.push_str("\"-\""),
        }
        let Outcome {
            status, body_bytes, ..
        } = exchange.outcome;
        match status {
            Some(status) => drop(write!(out, " {status} ")),
            None => out.push_str(" - "),
        }
        match body_bytes {
            0 => out.push('-'),
            bytes => drop(write!(out, "{bytes}")),
        }
    }

    fn json(&self, out: &mut String, ms: u32, exchange: &Exchange) {
        let text = |value: &Option<HeaderValue>| {
            let value = value.as_ref()?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let asked = exchange.asked.as_ref();
        let step = (exchange.trace).map(|trace| format!("{:016x}", trace.parent_id));
        let line = Line {
            time: format!("{}.{ms:03}Z", self.rfc3339),
            peer: exchange.peer.to_string(),
            listener: &exchange.listener.listener,
            connection: exchange.connection,
            method: asked.map(|(method, ..)| method.as_str()),
            target: asked.map(|(_, uri, _)| target(uri)),
            version: asked.map(|(.., version)| format!("{version:?}")),
            status: exchange.outcome.status,
            body_bytes: exchange.outcome.body_bytes,
            duration_ms: exchange.outcome.took.as_micros() as f64 / 1_000.0,
            referer: text(&exchange.referer),
            user_agent: text(&exchange.user_agent),
            trace_id: exchange
                .trace
                .map(|trace| format!("{:032x}", trace.trace_id)),
            parent_id: step.clone().filter(|_| !exchange.begins_trace),
            span_id: step.filter(|_| exchange.begins_trace),
        };
        out.push_str(&serde_json::to_string(&line).unwrap_or_default());
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    peer: String,
    listener: &'a str,
    connection: u64,
    method: Option<&'a str>,
    target: Option<&'a str>,
    version: Option<String>,
    status: Option<u16>,
    body_bytes: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
}

fn target(uri: &Uri) -> &str {
    match uri.path_and_query() {
        Some(target) => target.as_str(),
        None => uri.authority().map_or("", |authority| authority.as_str()),
    }
}

/// In quotes, with whatever could end them, or the line, escaped.
fn quoted(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use curtsy_lifecycle::Signal;
    use proptest::prelude::*;
    use std::sync::{Condvar, Mutex};

    fn exchange() -> Exchange {
        Exchange {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_279_135_042),
            peer: Address::Tcp("192.0.2.7:4711".parse().unwrap()),
            connection: 3,
            listener: Arc::new(Origin::new("main", Arc::new(Signal::new()))),
            asked: Some((Method::GET, Uri::from_static("/a?b=c"), Version::HTTP_11)),
            referer: None,
            user_agent: Some(HeaderValue::from_static("curl/8 \"x\"")),
            trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
                .parse()
                .ok(),
            begins_trace: false,
            outcome: Outcome {
                status: Some(200),
                body_bytes: 13,
                took: Duration::from_micros(1_234),
            },
        }
    }

    fn line(format: AccessLogFormat, exchange: &Exchange) -> String {
        let mut out = String::new();
        Clock::default().line(&mut out, format, exchange);
        out
    }

    #[test]
    fn lines_are_as_everybody_reads_them() {
        let common = r#"192.0.2.7 - - [21/Nov/2026:16:38:55 +0000] "GET /a?b=c HTTP/1.1" 200 13"#;
        assert_eq!(
            line(AccessLogFormat::Common, &exchange()),
            format!("{common}\n")
        );
        let combined = format!("{common} \"-\" \"curl/8 \\\"x\\\"\"\n");
        assert_eq!(line(AccessLogFormat::Combined, &exchange()), combined);
        let json = line(AccessLogFormat::Json, &exchange());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["time"], "2026-11-21T16:38:55.042Z");
        assert_eq!(json["peer"], "192.0.2.7:4711");
        assert_eq!(json["duration_ms"], 1.234);
        assert_eq!(json["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(json["parent_id"], "00f067aa0ba902b7");
        assert_eq!((json.get("referer"), json.get("span_id")), (None, None));
        let first = Exchange {
            begins_trace: true,
            ..exchange()
        };
        let json = line(AccessLogFormat::Json, &first);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["span_id"], "00f067aa0ba902b7");
        assert_eq!(json.get("parent_id"), None);
    }

    #[test]
    fn what_never_came_is_a_dash() {
        let gone = Exchange {
            asked: None,
            outcome: Outcome::default(),
            ..exchange()
        };
        let line = line(AccessLogFormat::Common, &gone);
        assert!(line.ends_with("] \"-\" - -\n"), "{line}");
    }

    proptest! {
        #[test]
        fn a_line_is_one_line(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let odd = Exchange {
                referer: Some(value.clone()),
                user_agent: Some(value),
                ..exchange()
            };
            let combined = line(AccessLogFormat::Combined, &odd);
            prop_assert_eq!(combined.matches('\n').count(), 1);
            prop_assert!(combined.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            // Three fields in quotes, whatever is in them.
            let bare = combined.replace("\\\\", "").replace("\\\"", "");
            prop_assert_eq!(bare.matches('"').count(), 6);
            let json = line(AccessLogFormat::Json, &odd);
            prop_assert_eq!(json.matches('\n').count(), 1);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        }
    }

    /// A disk that takes nothing until it is let.
    #[derive(Clone, Default)]
    struct Stuck {
        /// Whether it takes something, and what it took.
        state: Arc<Mutex<(bool, Vec<u8>)>>,
        changed: Arc<Condvar>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.state.lock().unwrap();
            while !state.0 {
                state = self.changed.wait(state).unwrap();
            }
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_finds_the_queue_full_is_dropped_and_counted() {
        const MOST: usize = 8;
        const WRITTEN: u64 = 20_000;
        /// What the writer may have taken out and gathered for one write.
        const TAKEN: u64 = 5_000;
        let disk = Stuck::default();
        let sink = Sink::to(Place::Test(Box::new(disk.clone())));
        let queue = Queue::start(AccessLogFormat::Common, sink, MOST).unwrap();
        for _ in 0..WRITTEN {
            // It returns, though nothing is written.
            queue.write(Box::new(exchange()));
        }
        // The queue is full, and so is what the writer has taken out.
        assert!(queue.dropped() >= WRITTEN - TAKEN, "{}", queue.dropped());
        disk.state.lock().unwrap().0 = true;
        disk.changed.notify_all();
        queue.finish().await;
        let lines = String::from_utf8(disk.state.lock().unwrap().1.clone()).unwrap();
        let written = lines.lines().count() as u64;
        assert_eq!(written + queue.dropped(), WRITTEN);
        assert!(written >= MOST as u64, "{written}");
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let moved = directory.path().join("access.log.1");
        let mut sink = Sink::file(path.clone()).unwrap();
        let write = |sink: &mut Sink, text: &str| {
            if let Place::File { looked, .. } = &mut sink.place {
                *looked -= LOOK;
            }
            sink.write(&mut text.to_owned()).unwrap();
        };
        write(&mut sink, "one\n");
        std::fs::rename(&path, &moved).unwrap();
        // It cannot be opened while there is something else.
        std::fs::create_dir(&path).unwrap();
        write(&mut sink, "two\n");
        std::fs::remove_dir(&path).unwrap();
        write(&mut sink, "three\n");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    /// A disk that has so much room.
    #[derive(Clone, Default)]
    struct Tight(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Tight {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let count = bytes.len().min(disk.0);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.0 -= count;
            disk.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_is_full_tears_one_line_and_not_the_next() {
        let disk = Tight::default();
        let mut sink = Sink::to(Place::Test(Box::new(disk.clone())));
        let mut write = |room, text: &str| {
            disk.0.lock().unwrap().0 = room;
            sink.write(&mut text.to_owned()).map_err(|(_, lost)| lost)
        };
        assert_eq!(write(9, "one\ntwo\n"), Ok(()));
        assert_eq!(write(6, "three\nfour\nfive\n"), Err(2));
        assert_eq!(write(2, "six\nseven\n"), Err(2));
        assert_eq!(write(0, "eight\n"), Err(1));
        assert_eq!(write(1, "nine\n"), Err(1));
        assert_eq!(write(9, "ten\n"), Ok(()));
        let text = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert_eq!(text, "one\ntwo\nthree\nsi\nten\n");
    }

    #[test]
    fn logs_are_read_from_the_command_line() {
        for (text, expected) in [
            ("common", AccessLog::new(AccessLogFormat::Common)),
            (
                "json:/a:b",
                AccessLog::to_file(AccessLogFormat::Json, "/a:b"),
            ),
        ] {
            assert_eq!(text.parse::<AccessLog>().unwrap(), expected);
        }
        let wrong = "fancy".parse::<AccessLog>().unwrap_err();
        assert!(
            wrong.is_config() && wrong.to_string().contains("combined"),
            "{wrong}"
        );
    }
}
