//! Directories, files and embedded files under a path.
//!
//! Invariants:
//! - Nothing outside of the directory is ever opened, whatever the path and whatever symbolic links
//!   lie in it: the kernel resolves the path beneath the directory (`openat2`), and where it cannot,
//!   the resolved path is compared. A link that stays inside works.
//! - A directory is listed only if that was asked for.

use crate::context::Context;
use crate::engine::Engine;
use crate::error::Error;
use crate::file::{Content, Source, kind_of};
use crate::group::RouterGroup;
use crate::handler::{BoxFuture, Call, IntoHandlers};
use crate::path::{clean, location};
use crate::range::Meta;
use bytes::Bytes;
use http::{Method, StatusCode};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a directory is represented by.
const INDEX: &str = "index.html";

/// The most names in a listing.
const LISTING_NAMES_MAX: usize = 10_000;

/// A directory to be served.
///
/// ```
/// use curtsy_web::{Engine, StaticDir};
///
/// let mut r = Engine::new();
/// r.static_dir("/assets", "./assets");
/// r.static_dir("/files", StaticDir::new("./files").listing(true));
/// ```
#[derive(Clone, Debug)]
pub struct StaticDir {
    dir: Arc<PathBuf>,
    listing: bool,
    fallback: bool,
}

impl StaticDir {
    /// A directory without listings.
    ///
    /// ```
    /// let assets = curtsy_web::StaticDir::new("./assets");
    /// ```
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: Arc::new(dir.into()),
            listing: false,
            fallback: false,
        }
    }

    /// Lists directories that have no `index.html`. Default `false`.
    ///
    /// ```
    /// let files = curtsy_web::StaticDir::new("./files").listing(true);
    /// ```
    #[must_use]
    pub fn listing(mut self, listing: bool) -> Self {
        self.listing = listing;
        self
    }

    /// Answers what is not there with the directory's own `index.html`: for single-page
    /// applications that route by themselves. Default `false`.
    ///
    /// ```
    /// use curtsy_web::{Engine, StaticDir};
    ///
    /// let mut r = Engine::new();
    /// r.static_dir("/", StaticDir::new("./dist").single_page(true));
    /// ```
    #[must_use]
    pub fn single_page(mut self, single_page: bool) -> Self {
        self.fallback = single_page;
        self
    }
}

impl<P: Into<PathBuf>> From<P> for StaticDir {
    fn from(dir: P) -> Self {
        Self::new(dir)
    }
}

/// Files that are part of the program.
///
/// ```
/// use curtsy_web::{Embedded, Engine};
///
/// let files = Embedded::new([
///     ("index.html", &b"<h1>hi</h1>"[..]),
///     ("css/site.css", &b"h1 { color: teal }"[..]), // or include_bytes!(..)
/// ]);
/// let mut r = Engine::new();
/// r.static_embedded("/site", files);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Embedded(Arc<HashMap<String, Content>>);

impl Embedded {
    /// Files by their paths, without a slash at the beginning.
    ///
    /// ```
    /// let files = curtsy_web::Embedded::new([("index.html", &b"<h1>hi</h1>"[..])]);
    /// ```
    pub fn new<'p>(files: impl IntoIterator<Item = (&'p str, &'static [u8])>) -> Self {
        let content = |(path, bytes): (&str, &'static [u8])| {
            let meta = Meta {
                len: bytes.len() as u64,
                etag: Some(format!("\"{:x}-{:x}\"", fingerprint(bytes), bytes.len())),
                modified: None,
            };
            let content = Content {
                source: Source::Memory(Bytes::from_static(bytes)),
                meta,
                kind: kind_of(Path::new(path)),
            };
            (path.to_owned(), content)
        };
        Self(Arc::new(files.into_iter().map(content).collect()))
    }
}

/// FNV-1a with 64 bits: the same in every build, and enough to tell versions apart.
fn fingerprint(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What a path within a directory turned out to be.
enum Found {
    File(Content),
    /// A directory asked for without a slash at its end.
    Open,
    /// `index.html` asked for by its name.
    Index,
    Listing(Vec<String>),
    Nothing,
}

impl StaticDir {
    /// Looks a path up. Blocks.
    fn find(&self, path: &str) -> io::Result<Found> {
        let cleaned = clean(path);
        let relative = cleaned.trim_start_matches('/');
        if path.ends_with("/index.html") {
            return Ok(Found::Index);
        }
        let name = relative.trim_end_matches('/');
        let file = open_beneath(&self.dir, if name.is_empty() { "." } else { name })?;
        let is_dir = file.metadata()?.is_dir();
        if !is_dir {
            // A file is no directory, whatever its path says.
            let content = Content::of_file(file, Path::new(name))?;
            let content = content.filter(|_| !relative.ends_with('/'));
            return Ok(content.map_or(Found::Nothing, Found::File));
        }
        if !relative.is_empty() && !relative.ends_with('/') {
            return Ok(Found::Open);
        }
        let index = format!("{relative}{INDEX}");
        if let Ok(file) = open_beneath(&self.dir, &index)
            && let Some(content) = Content::of_file(file, Path::new(INDEX))?
        {
            return Ok(Found::File(content));
        }
        if !self.listing {
            return Ok(Found::Nothing);
        }
        list(&file).map(Found::Listing)
    }

    fn find_or_fallback(&self, path: &str) -> io::Result<Found> {
        let found = self.find(path);
        if !self.fallback || !matches!(found, Ok(Found::Nothing) | Err(_)) {
            return found;
        }
        let file = open_beneath(&self.dir, INDEX)?;
        let content = Content::of_file(file, Path::new(INDEX))?;
        Ok(content.map_or(Found::Nothing, Found::File))
    }
}

/// Opens what lies under `dir`, never anything else. `relative` is clean.
fn open_beneath(dir: &Path, relative: &str) -> io::Result<File> {
    // Without blocking: a pipe in the place of a file must not hold a thread.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = File::open(dir)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, relative, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(File::from(file)),
        // An old kernel, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_compared(dir, relative, flags),
        Err(error) => Err(error.into()),
    }
}

/// The same without the kernel's help: whoever may change the directory meanwhile can outrun it.
fn open_compared(dir: &Path, relative: &str, flags: OFlags) -> io::Result<File> {
    let root = dir.canonicalize()?;
    let path = root.join(relative).canonicalize()?;
    if !path.starts_with(&root) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let file = rustix::fs::open(&path, flags | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(File::from(file))
}

/// The names in a directory, sorted; directories end with a slash.
fn list(dir: &File) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)?.take(LISTING_NAMES_MAX) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            "." | ".." => {}
            _ if entry.file_type().is_dir() => names.push(name + "/"),
            _ => names.push(name),
        }
    }
    names.sort();
    Ok(names)
}

impl<'a> Call<'a> for StaticDir {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let path = c.param("filepath").to_owned();
            let asked = path.clone();
            let found = tokio::task::spawn_blocking(move || this.find_or_fallback(&asked)).await;
            match found {
                Ok(Ok(Found::File(content))) => c.send_content(content),
                Ok(Ok(Found::Index)) => redirect(c, "./".to_owned()),
                Ok(Ok(Found::Open)) => {
                    let name = path.rsplit('/').next().unwrap_or("");
                    redirect(c, format!(".{}/", location(name)));
                }
                Ok(Ok(Found::Listing(names))) => {
                    c.write(StatusCode::OK, crate::render::HTML, listing_page(&names));
                }
                Ok(Ok(Found::Nothing) | Err(_)) => c.not_found().await,
                Err(error) => c.fail(Error::private(error)),
            }
        })
    }
}

fn redirect(c: &mut Context, mut target: String) {
    if let Some(query) = c.uri().query() {
        target.push('?');
        target.push_str(query);
    }
    c.redirect(StatusCode::MOVED_PERMANENTLY, &target);
}

fn listing_page(names: &[String]) -> String {
    let mut page = String::from("<!doctype html>\n<meta charset=\"utf-8\">\n<pre>\n");
    for name in names {
        let text = name
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let href = location(name);
        page.push_str(&format!("<a href=\".{href}\">{text}</a>\n"));
    }
    page.push_str("</pre>\n");
    page
}

#[derive(Clone)]
struct OneFile(Arc<PathBuf>);

impl<'a> Call<'a> for OneFile {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        Box::pin(async move { c.file(&**self.0).await })
    }
}

impl<'a> Call<'a> for Embedded {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        Box::pin(async move {
            let mut name = clean(c.param("filepath"));
            if name.ends_with('/') {
                name.push_str(INDEX);
            }
            match self.0.get(name.trim_start_matches('/')) {
                Some(content) => c.send_content(content.clone()),
                None => c.not_found().await,
            }
        })
    }
}

/// Registers a handler of static content for GET and HEAD; `pattern` is what follows the path.
#[track_caller]
fn register<K>(
    group: &mut RouterGroup<'_>,
    (path, pattern): (&str, &str),
    handlers: impl IntoHandlers<K>,
) {
    assert!(
        !path.contains([':', '*']),
        "static content cannot lie under a path with parameters: \"{path}\""
    );
    let methods = [Method::GET, Method::HEAD];
    group.match_methods(&methods, &format!("{path}{pattern}"), handlers);
}

impl RouterGroup<'_> {
    /// Serves a directory under a path, for GET and HEAD. What is not there goes to the engine's
    /// `no_route`.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// r.group("/v1").static_dir("/assets", "./assets");
    /// ```
    ///
    /// # Panics
    /// If the path has parameters or collides with a route that is there.
    #[track_caller]
    pub fn static_dir(&mut self, path: &str, dir: impl Into<StaticDir>) -> &mut Self {
        register(self, (path, "/*filepath"), dir.into());
        self
    }

    /// Serves one file under a path, for GET and HEAD.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// r.group("/v1").static_file("/favicon.ico", "./favicon.ico");
    /// ```
    ///
    /// # Panics
    /// If the path has parameters or collides with a route that is there.
    #[track_caller]
    pub fn static_file(&mut self, path: &str, file: impl Into<PathBuf>) -> &mut Self {
        register(self, (path, ""), OneFile(Arc::new(file.into())));
        self
    }

    /// Serves files that are part of the program under a path, for GET and HEAD.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// let files = curtsy_web::Embedded::new([("hello.txt", &b"hello"[..])]);
    /// r.group("/v1").static_embedded("/files", files);
    /// ```
    ///
    /// # Panics
    /// If the path has parameters or collides with a route that is there.
    #[track_caller]
    pub fn static_embedded(&mut self, path: &str, files: Embedded) -> &mut Self {
        register(self, (path, "/*filepath"), files);
        self
    }
}

impl Engine {
    /// Serves a directory under a path, for GET and HEAD. What is not there goes to `no_route`.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// r.static_dir("/assets", "./assets");
    /// ```
    ///
    /// # Panics
    /// If the path has parameters or collides with a route that is there.
    #[track_caller]
    pub fn static_dir(&mut self, path: &str, dir: impl Into<StaticDir>) -> &mut Self {
        self.root().static_dir(path, dir);
        self
    }

    /// Serves one file under a path, for GET and HEAD.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// r.static_file("/favicon.ico", "./favicon.ico");
    /// ```
    ///
    /// # Panics
    /// If the path has parameters or collides with a route that is there.
    #[track_caller]
    pub fn static_file(&mut self, path: &str, file: impl Into<PathBuf>) -> &mut Self {
        self.root().static_file(path, file);
        self
    }

    /// Serves files that are part of the program under a path, for GET and HEAD.
    ///
    /// ```
    /// let mut r = curtsy_web::Engine::new();
    /// let files = curtsy_web::Embedded::new([("hello.txt", &b"hello"[..])]);
    /// r.static_embedded("/files", files);
    /// ```
    ///
    /// # Panics
    /// If the path has parameters or collides with a route that is there.
    #[track_caller]
    pub fn static_embedded(&mut self, path: &str, files: Embedded) -> &mut Self {
        self.root().static_embedded(path, files);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{open_beneath, open_compared};
    use rustix::fs::OFlags;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn with_and_without_the_kernels_help_nothing_outside_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir(dir.path().join("root-but-not")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(dir.path().join("root-but-not/secret"), "secret").unwrap();
        fs::write(root.join("sub/a"), "inside").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("sub/a", root.join("inside")).unwrap();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        for (path, is_inside) in [
            ("sub/a", true),
            ("inside", true),
            ("sub/../sub/a", true),
            ("../secret", false),
            ("sub/../../secret", false),
            ("../root-but-not/secret", false),
            ("out", false),
            ("absolute", false),
            ("/etc/passwd", false),
            ("up/secret", false),
            ("loop", false),
            ("sub/a\0", false),
            ("none", false),
        ] {
            for opened in [open_beneath(&root, path), open_compared(&root, path, flags)] {
                assert_eq!(opened.is_ok(), is_inside, "{path}: {opened:?}");
                if let Ok(mut file) = opened {
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    assert_eq!(text, "inside", "{path}");
                }
            }
        }
    }
}
