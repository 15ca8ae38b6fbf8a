//! Forms with files, as `multipart/form-data`.
//!
//! Invariants:
//! - What is more than [`Settings::max_multipart_memory`](crate::Settings::max_multipart_memory)
//!   goes to temporary files without a name: they vanish with the form, whatever happens.
//! - A file's name is the client's word: [`FormFile::file_name`] is made harmless, it never has a
//!   directory in it.

use crate::body::Body;
use crate::context::Context;
use crate::error::Error;
use crate::form::Form;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyDataStream, BodyExt};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The most parts in one form, as in Go: each costs memory of its own.
const PARTS_MAX: usize = 1_000;

/// The most bytes of a form with all its files: 1 GiB. Beyond it the answer is 413.
///
/// ```
/// assert_eq!(curtsy_web::MULTIPART_BYTES_MAX, 1 << 30);
/// ```
pub const MULTIPART_BYTES_MAX: u64 = 1 << 30;

/// The longest name of a file that is kept, in bytes: what file systems allow.
const FILE_NAME_BYTES_MAX: usize = 255;

/// A file of a form.
///
/// ```
/// # use curtsy_web::{Context, Result};
/// # async fn example(c: &mut Context) -> Result {
/// let file = c.form_file("picture").await?;
/// let line = format!("{}: {} bytes of {}", file.file_name(), file.size(), file.content_type());
/// c.string(200, line);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct FormFile {
    field: String,
    raw_name: String,
    headers: HeaderMap,
    size: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    /// A temporary file without a name.
    Disk(File),
}

impl FormFile {
    /// The name of its field.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// assert_eq!(c.form_file("picture").await?.field(), "picture");
    /// # Ok(()) }
    /// ```
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Its name without directories and control characters; `file` if nothing is left. Still the
    /// client's choice: do not overwrite what you need.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// // `../../etc/passwd` is `passwd` here.
    /// let name = c.form_file("picture").await?.file_name();
    /// # Ok(()) }
    /// ```
    pub fn file_name(&self) -> String {
        safe_name(&self.raw_name)
    }

    /// Its name as the client sent it: not fit for a path.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let said = c.form_file("picture").await?.raw_file_name();
    /// println!("the client calls it {said:?}");
    /// # Ok(()) }
    /// ```
    pub fn raw_file_name(&self) -> &str {
        &self.raw_name
    }

    /// The headers of its part.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let language = c.form_file("text").await?.headers().get("content-language");
    /// # Ok(()) }
    /// ```
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The type that the client says it has.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let is_png = c.form_file("picture").await?.content_type() == "image/png";
    /// # Ok(()) }
    /// ```
    pub fn content_type(&self) -> &str {
        let value = self.headers.get(header::CONTENT_TYPE);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Its size in bytes.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let is_large = c.form_file("picture").await?.size() > 1 << 20;
    /// # Ok(()) }
    /// ```
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its bytes, all at once.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let bytes = c.form_file("picture").await?.bytes().await?;
    /// c.data(200, "image/png", bytes);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If they lie in a temporary file that cannot be read.
    pub async fn bytes(&self) -> io::Result<Bytes> {
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::Disk(file) => {
                let mut file = file.try_clone()?;
                blocking(move || {
                    let mut bytes = Vec::new();
                    file.seek(SeekFrom::Start(0))?;
                    file.read_to_end(&mut bytes)?;
                    Ok(bytes.into())
                })
                .await
            }
        }
    }

    /// Writes it to a path of your choice, replacing what is there.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, Result};
    /// async fn upload(c: &mut Context) -> Result {
    ///     let form = c.multipart_form().await?;
    ///     for file in form.files_of("photos") {
    ///         file.save(format!("./photos/{}", file.file_name())).await?;
    ///     }
    ///     Ok(())
    /// }
    /// # Engine::new().post("/", upload);
    /// ```
    ///
    /// # Errors
    /// If the path cannot be written to.
    ///
    /// Cancel safety: the file may be written in part.
    pub async fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        match &self.content {
            Content::Memory(bytes) => tokio::fs::write(path, bytes).await,
            Content::Disk(file) => {
                let mut file = file.try_clone()?;
                let path = path.to_owned();
                blocking(move || {
                    file.seek(SeekFrom::Start(0))?;
                    io::copy(&mut file, &mut File::create(path)?).map(drop)
                })
                .await
            }
        }
    }
}

impl Context {
    /// The form with its files, read once.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let form = c.multipart_form().await?;
    /// let (texts, files) = (form.values().len(), form.files().len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the body is no form with files, is malformed, or is larger than
    /// [`MULTIPART_BYTES_MAX`].
    ///
    /// Cancel safety: none; a body read in part is lost.
    pub async fn multipart_form(&mut self) -> Result<&Form, Error> {
        if !self
            .content_type()
            .eq_ignore_ascii_case("multipart/form-data")
        {
            return Err(Error::bind("the body is not multipart/form-data"));
        }
        self.form().await
    }

    /// The first file of a field.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, Error};
    /// async fn upload(c: &mut Context) -> Result<(), Error> {
    ///     let file = c.form_file("avatar").await?;
    ///     let text = format!("{} has {} bytes", file.file_name(), file.size());
    ///     c.string(200, text);
    ///     Ok(())
    /// }
    /// # Engine::new().post("/", upload);
    /// ```
    ///
    /// # Errors
    /// If the form cannot be read, or has no such file.
    pub async fn form_file(&mut self, field: &str) -> Result<&FormFile, Error> {
        let form = self.multipart_form().await?;
        form.file(field)
            .ok_or_else(|| Error::bind(format!("the form has no file \"{field}\"")))
    }

    /// Writes a field's first file to a path of your choice, replacing what is there.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let name = c.form_file("picture").await?.file_name();
    /// c.save_uploaded_file("picture", format!("./pictures/{name}")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the form cannot be read or has no such file, or the file cannot be written.
    pub async fn save_uploaded_file(
        &mut self,
        field: &str,
        path: impl AsRef<Path>,
    ) -> Result<(), Error> {
        let file = self.form_file(field).await?;
        file.save(path).await.map_err(Error::private)
    }

    pub(crate) async fn read_multipart(&mut self) -> Result<Form, Error> {
        let boundary = multer::parse_boundary(self.get_header("content-type")).map_err(refused)?;
        let limit = self.engine.settings.max_multipart_memory;
        let mut memory = Memory { left: limit, limit };
        let body: Body = self.take_body();
        let stream = BodyDataStream::new(body.map_err(io::Error::other));
        let whole = multer::SizeLimit::new().whole_stream(MULTIPART_BYTES_MAX);
        let limits = multer::Constraints::new().size_limit(whole);
        let mut parts = multer::Multipart::with_constraints(stream, boundary, limits);
        let mut form = Form::default();
        let mut count = 0;
        while let Some(part) = parts.next_field().await.map_err(refused)? {
            count += 1;
            if count > PARTS_MAX {
                return Err(Error::bind("the form has more than 1000 parts"));
            }
            read_part(part, &mut form, &mut memory).await?;
        }
        Ok(form)
    }
}

/// How many bytes of a form may still be kept in memory, and how many there were.
struct Memory {
    left: usize,
    limit: usize,
}

/// Reads one part.
async fn read_part(
    mut part: multer::Field<'_>,
    form: &mut Form,
    memory: &mut Memory,
) -> Result<(), Error> {
    let field = part.name().unwrap_or_default().to_owned();
    let raw_name = part.file_name().map(ToOwned::to_owned);
    let headers = part.headers().clone();
    let mut kept = Vec::new();
    let mut spilled: Option<File> = None;
    let mut size = 0;
    while let Some(chunk) = part.chunk().await.map_err(refused)? {
        size += chunk.len() as u64;
        if spilled.is_none() && chunk.len() <= memory.left {
            memory.left -= chunk.len();
            kept.extend_from_slice(&chunk);
            continue;
        }
        if raw_name.is_none() {
            return Err(Error::too_large(memory.limit));
        }
        let before = std::mem::take(&mut kept);
        spilled = Some(
            spill(spilled, before, chunk)
                .await
                .map_err(Error::private)?,
        );
    }
    let Some(raw_name) = raw_name else {
        let text = String::from_utf8_lossy(&kept).into_owned();
        form.values.push((field, text));
        return Ok(());
    };
    form.files.push(FormFile {
        field,
        raw_name,
        headers,
        size,
        content: spilled.map_or_else(|| Content::Memory(kept.into()), Content::Disk),
    });
    Ok(())
}

/// Writes bytes to a temporary file, made if there is none yet.
async fn spill(file: Option<File>, before: Vec<u8>, chunk: Bytes) -> io::Result<File> {
    blocking(move || {
        let mut file = file.map_or_else(tempfile::tempfile, Ok)?;
        file.write_all(&before)?;
        file.write_all(&chunk)?;
        Ok(file)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.unwrap_or_else(|error| Err(error.into()))
}

fn refused(error: multer::Error) -> Error {
    if matches!(error, multer::Error::StreamSizeExceeded { .. }) {
        let message = format!("the form is larger than {MULTIPART_BYTES_MAX} bytes");
        return Error::bind(message).with_status(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Error::bind("the form is malformed").with_cause(error)
}

/// The last part of a name, without what file systems or terminals could take amiss.
fn safe_name(raw: &str) -> String {
    let last = raw.rsplit(['/', '\\', ':']).next().unwrap_or("");
    let mut name: String = last.chars().filter(|c| !c.is_control()).collect();
    while name.len() > FILE_NAME_BYTES_MAX {
        name.pop();
    }
    let name = name.trim_matches(' ');
    if name.trim_matches('.').is_empty() {
        return "file".to_owned();
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::safe_name;

    #[test]
    fn hostile_names_become_harmless() {
        for (raw, safe) in [
            ("a.txt", "a.txt"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\windows\\system.ini", "system.ini"),
            ("C:evil.exe", "evil.exe"),
            ("a\0b\r\nc\x1b.txt", "abc.txt"),
            ("..", "file"),
            ("...", "file"),
            ("", "file"),
            ("dir/", "file"),
            (" . ", "file"),
            (".profile", ".profile"),
            ("größe.png", "größe.png"),
        ] {
            assert_eq!(safe_name(raw), safe, "{raw:?}");
        }
        assert_eq!(safe_name(&"é".repeat(500)).len(), 254);
    }
}
