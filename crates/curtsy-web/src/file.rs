//! Files as answers: conditional requests, ranges, HEAD, and content in memory the same way.
//!
//! Invariant: a file is opened once; what is announced and what is sent come from that descriptor.

use crate::body::Body;
use crate::context::Context;
use crate::error::Error;
use crate::range::{Meta, Plan, plan};
use crate::reader::CHUNK_BYTES;
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderValue, Method, StatusCode, header};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// What stands between the parts of an answer with several ranges. Whoever asks for ranges is told
/// lengths as well, so that it may even occur in the file.
const BOUNDARY: &str = "curtsy-byteranges-3d6b6a416f9b5";

/// Content to be sent, with what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) source: Source,
    pub(crate) meta: Meta,
    pub(crate) kind: HeaderValue,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(Arc<File>),
    /// The whole content.
    Memory(Bytes),
}

/// A piece of a body.
enum Segment {
    Bytes(Bytes),
    File(Range<u64>),
}

impl Context {
    /// Answers with a file: whole, in the ranges that were asked for, or not at all if the client
    /// has it. A path of your choice, not of the client's: for that there is
    /// [`RouterGroup::static_dir`](crate::RouterGroup::static_dir). What is no file is a 404.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine};
    /// let mut r = Engine::new();
    /// r.get("/readme", async |c: &mut Context| c.file("README.md").await);
    /// ```
    pub async fn file(&mut self, path: impl AsRef<Path>) {
        let path = path.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            // Without blocking: a pipe in the place of a file must not hold a thread.
            let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
            let file = File::options().read(true).custom_flags(flags).open(&path)?;
            Content::of_file(file, &path)
        });
        match opened.await {
            Ok(Ok(Some(content))) => self.send_content(content),
            Ok(Ok(None) | Err(_)) => self.not_found().await,
            Err(error) => self.fail(Error::private(error)),
        }
    }

    /// Answers with a file to be saved under a name.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.file_attachment("/var/lib/app/0f3a.pdf", "Invoice 7.pdf").await;
    /// # }
    /// ```
    pub async fn file_attachment(&mut self, path: impl AsRef<Path>, name: &str) {
        let plain: String = name.chars().filter(|c| !c.is_control()).collect();
        let value = if plain.is_ascii() {
            let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
            format!("attachment; filename=\"{quoted}\"")
        } else {
            let encoded =
                percent_encoding::utf8_percent_encode(&plain, percent_encoding::NON_ALPHANUMERIC);
            format!("attachment; filename*=UTF-8''{encoded}")
        };
        self.header(header::CONTENT_DISPOSITION, value);
        self.file(path).await;
    }

    /// Answers with content, as the request wants it.
    pub(crate) fn send_content(&mut self, content: Content) {
        let Content { source, meta, kind } = content;
        if let Some(etag) = meta.etag.as_deref() {
            self.header(header::ETAG, etag);
        }
        if let Some(modified) = meta.modified {
            self.header(header::LAST_MODIFIED, httpdate::fmt_http_date(modified));
        }
        self.header(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let len = meta.len;
        match plan(self.method(), self.headers(), &meta) {
            Plan::NotModified => self.write_bare(StatusCode::NOT_MODIFIED, Body::empty()),
            Plan::PreconditionFailed => {
                self.write_bare(StatusCode::PRECONDITION_FAILED, Body::empty());
            }
            Plan::Unsatisfiable => {
                self.header(header::CONTENT_RANGE, format!("bytes */{len}"));
                let text = "the range is not satisfiable\n";
                self.write(StatusCode::RANGE_NOT_SATISFIABLE, crate::render::TEXT, text);
            }
            Plan::Whole => {
                let segments = [Segment::File(0..len)].into();
                self.send_segments(StatusCode::OK, source, segments, kind);
            }
            Plan::Part(part) => {
                self.header(header::CONTENT_RANGE, content_range(&part, len));
                let segments = [Segment::File(part)].into();
                self.send_segments(StatusCode::PARTIAL_CONTENT, source, segments, kind);
            }
            Plan::Parts(parts) => {
                let segments = multipart(parts, len, &kind);
                let kind = format!("multipart/byteranges; boundary={BOUNDARY}");
                if let Ok(kind) = HeaderValue::from_str(&kind) {
                    self.send_segments(StatusCode::PARTIAL_CONTENT, source, segments, kind);
                }
            }
        }
    }

    fn send_segments(
        &mut self,
        status: StatusCode,
        source: Source,
        segments: VecDeque<Segment>,
        kind: HeaderValue,
    ) {
        let total: u64 = segments.iter().map(Segment::len).sum();
        let body = if *self.method() == Method::HEAD {
            self.header(header::CONTENT_LENGTH, total);
            Body::empty()
        } else {
            match source {
                Source::Memory(bytes) => memory_body(&bytes, segments),
                Source::File(file) => {
                    self.header(header::CONTENT_LENGTH, total);
                    Body::from_stream(file_chunks(file, segments))
                }
            }
        };
        self.write_typed(status, kind, body);
    }
}

impl Content {
    /// An open file's content; `None` if it is no regular file.
    pub(crate) fn of_file(file: File, path: &Path) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let len = metadata.len();
        let modified = metadata.modified().ok();
        let etag = modified.and_then(|time| {
            let since = time.duration_since(UNIX_EPOCH).ok()?;
            Some(format!("\"{:x}-{len:x}\"", since.as_nanos()))
        });
        let meta = Meta {
            len,
            etag,
            modified,
        };
        Ok(Some(Self {
            source: Source::File(Arc::new(file)),
            meta,
            kind: kind_of(path),
        }))
    }
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

/// The media type by the name's extension.
pub(crate) fn kind_of(path: &Path) -> HeaderValue {
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let text = kind.type_() == "text"
        || matches!(kind.subtype().as_str(), "javascript" | "json")
        || kind.suffix().is_some_and(|suffix| suffix == "xml");
    let value = if text {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    };
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(crate::render::BYTES))
}

fn content_range(range: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", range.start, range.end - 1)
}

/// Several ranges with a head before each.
fn multipart(parts: Vec<Range<u64>>, len: u64, kind: &HeaderValue) -> VecDeque<Segment> {
    let kind = kind.to_str().unwrap_or(crate::render::BYTES);
    let mut segments = VecDeque::new();
    for (index, part) in parts.into_iter().enumerate() {
        let before = if index == 0 { "" } else { "\r\n" };
        let range = content_range(&part, len);
        let head = format!(
            "{before}--{BOUNDARY}\r\nContent-Range: {range}\r\nContent-Type: {kind}\r\n\r\n"
        );
        segments.push_back(Segment::Bytes(head.into()));
        segments.push_back(Segment::File(part));
    }
    segments.push_back(Segment::Bytes(format!("\r\n--{BOUNDARY}--\r\n").into()));
    segments
}

fn memory_body(content: &Bytes, segments: VecDeque<Segment>) -> Body {
    let mut body = Body::empty();
    for segment in segments {
        let bytes = match segment {
            Segment::Bytes(bytes) => bytes,
            Segment::File(range) => {
                let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
                match (start, end) {
                    (Ok(start), Ok(end)) => content.slice(start..end),
                    _ => Bytes::new(),
                }
            }
        };
        body.append(bytes);
    }
    body
}

/// A file's segments, read piece by piece. A file that has become shorter breaks the body: the
/// length that was announced cannot be kept.
fn file_chunks(
    file: Arc<File>,
    segments: VecDeque<Segment>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::try_unfold((file, segments), async |(file, mut segments)| {
        let range = loop {
            match segments.pop_front() {
                None => return Ok(None),
                Some(Segment::Bytes(bytes)) => return Ok(Some((bytes, (file, segments)))),
                Some(Segment::File(range)) if range.is_empty() => {}
                Some(Segment::File(range)) => break range,
            }
        };
        let reading = Arc::clone(&file);
        let start = range.start;
        let want = (range.end - start).min(CHUNK_BYTES as u64);
        let chunk = tokio::task::spawn_blocking(move || read_at(&reading, start, want)).await??;
        let read = start + chunk.len() as u64;
        if read < range.end {
            segments.push_front(Segment::File(read..range.end));
        }
        Ok(Some((chunk, (file, segments))))
    })
}

fn read_at(file: &File, at: u64, want: u64) -> io::Result<Bytes> {
    let mut chunk = vec![0; usize::try_from(want).unwrap_or(CHUNK_BYTES)];
    let read = file.read_at(&mut chunk, at)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    chunk.truncate(read);
    Ok(chunk.into())
}
