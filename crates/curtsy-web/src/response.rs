//! The answer as a context keeps it, until it is sent.
//!
//! Invariants:
//! - The answer is kept until the last handler has returned; the first write decides its status and
//!   its type, later ones add to the body.
//! - Nothing of a request's header map comes back, though its memory does.

use crate::body::Body;
use crate::context::Context;
use crate::error::Error;
use crate::table::Target;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

impl Context {
    /// Sets the status. After the first write it has no effect.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.status(202); // with an empty body, unless something is written
    /// # }
    /// ```
    pub fn status(&mut self, status: impl IntoStatus) {
        let status = status.into_status();
        if self.written && status != self.status {
            crate::debug::warn(format_args!(
                "the answer is begun already: cannot change its status from {} to {status}",
                self.status
            ));
            return;
        }
        self.status = status;
    }

    /// Sets a header of the answer; an empty value removes it.
    ///
    /// A name or value that HTTP does not allow is not sent but noted in [`errors`](Self::errors).
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.header("Cache-Control", "no-store");
    /// c.header("X-Powered-By", ""); // takes it away
    /// # }
    /// ```
    pub fn header<N, V>(&mut self, name: N, value: V)
    where
        N: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        let (Ok(name), Ok(value)) = (name.try_into(), value.try_into()) else {
            let error = "a header's name or value has bytes that HTTP does not allow";
            self.error(Error::render(error));
            return;
        };
        if name == header::CONTENT_TYPE {
            self.content_type = None;
        }
        if value.is_empty() {
            self.headers.remove(name);
        } else {
            self.headers.insert(name, value);
        }
    }

    /// The headers of the answer.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.next().await;
    /// let has_type = c.response_headers().contains_key("content-type");
    /// # }
    /// ```
    pub fn response_headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers of the answer, to change.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// use curtsy_web::HeaderValue;
    ///
    /// // A second one of the same name, which `header` would replace.
    /// let link = HeaderValue::from_static("</a.css>; rel=preload");
    /// c.response_headers_mut().append("link", link);
    /// # }
    /// ```
    pub fn response_headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The status of the answer as it stands.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.next().await;
    /// if c.response_status().is_server_error() {
    ///     eprintln!("{} failed", c.path());
    /// }
    /// # }
    /// ```
    pub fn response_status(&self) -> StatusCode {
        self.status
    }

    /// How many bytes the body of the answer has, if it is known.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.string(200, "four");
    /// assert_eq!(c.response_size(), Some(4));
    /// # }
    /// ```
    pub fn response_size(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.answer).exact()
    }

    /// The body of the answer so far, unless it is a stream.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.string(200, "four");
    /// assert_eq!(c.response_bytes(), Some(&b"four"[..]));
    /// # }
    /// ```
    pub fn response_bytes(&self) -> Option<&[u8]> {
        self.answer.bytes()
    }

    /// Whether the answer has been begun.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.next().await;
    /// if !c.is_written() {
    ///     c.string(200, "nobody had anything to say");
    /// }
    /// # }
    /// ```
    pub fn is_written(&self) -> bool {
        self.written
    }

    /// Throws away what was written, to answer something else.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.string(200, "a secret");
    /// c.clear_answer();
    /// c.string(403, "not for you");
    /// # }
    /// ```
    pub fn clear_answer(&mut self) {
        self.written = false;
        self.content_type = None;
        self.headers.clear();
        self.answer = Body::empty();
        self.status = StatusCode::OK;
    }

    /// Writes: the first write decides status and type, later ones add to the body.
    pub(crate) fn write(
        &mut self,
        status: StatusCode,
        content_type: &'static str,
        body: impl Into<Body>,
    ) {
        self.write_typed(status, HeaderValue::from_static(content_type), body.into());
    }

    pub(crate) fn write_typed(&mut self, status: StatusCode, kind: HeaderValue, body: Body) {
        if !self.written {
            self.status = status;
            self.written = true;
        } else if status != self.status {
            self.status(status);
        }
        if self.content_type.is_none() && !self.headers.contains_key(header::CONTENT_TYPE) {
            self.content_type = Some(kind);
        }
        self.add(body);
    }

    /// Adds a body without a type.
    pub(crate) fn write_bare(&mut self, status: StatusCode, body: Body) {
        self.status(status);
        self.written = true;
        self.add(body);
    }

    /// Puts a body after what was written before.
    fn add(&mut self, body: Body) {
        if !allows_body(self.status) {
            return;
        }
        if self.answer.bytes().is_some_and(<[u8]>::is_empty) {
            self.answer = body;
        } else if let Some(bytes) = body.bytes() {
            let bytes = Bytes::copy_from_slice(bytes);
            if !bytes.is_empty() && !self.answer.append(bytes) {
                self.error(Error::render("nothing can be written after a stream"));
            }
        } else {
            self.error(Error::render("a stream cannot follow what was written"));
        }
    }

    /// Answers with a whole response, unless something was written before.
    pub(crate) fn take_response(&mut self, response: Response<Body>) {
        if self.written {
            crate::debug::warn(format_args!(
                "the answer is begun already: a handler's return value is dropped"
            ));
            return;
        }
        let (parts, body) = response.into_parts();
        self.written = true;
        self.status = parts.status;
        if parts.headers.contains_key(header::CONTENT_TYPE) {
            self.content_type = None;
        }
        if self.headers.is_empty() {
            self.headers = parts.headers;
        } else {
            for name in parts.headers.keys() {
                self.headers.remove(name);
            }
            self.headers.extend(parts.headers);
        }
        if !parts.extensions.is_empty() {
            self.cold().extensions = Some(parts.extensions);
        }
        self.answer = body;
    }

    /// The answer as it stands, taken out of the context.
    pub(crate) fn take_answer(&mut self) -> Response<Body> {
        if !self.written {
            self.write_default();
        }
        let mut headers = std::mem::take(&mut self.headers);
        if let Some(kind) = self.content_type.take() {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        let mut response = Response::new(std::mem::take(&mut self.answer));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        if let Some(extensions) = self.cold.as_mut().and_then(|cold| cold.extensions.take()) {
            *response.extensions_mut() = extensions;
        }
        response
    }

    /// The answer, at the end. The request's header map is used again for it: hyper keeps a
    /// connection's maps, and would otherwise have to allocate new ones.
    pub(crate) fn finish(&mut self) -> Response<Body> {
        if self.headers.is_empty() {
            self.headers = std::mem::take(&mut self.request.headers);
            self.headers.clear();
        }
        self.take_answer()
    }

    /// What is said where no route is, if no handler said anything.
    pub(crate) fn write_default(&mut self) {
        let body = match self.target {
            Target::Missing | Target::Absent if self.status == StatusCode::NOT_FOUND => {
                "404 page not found"
            }
            Target::Refused if self.status == StatusCode::METHOD_NOT_ALLOWED => {
                "405 method not allowed"
            }
            Target::Missing | Target::Absent | Target::Refused | Target::Route(_) => return,
        };
        self.write(self.status, "text/plain", body);
    }

    /// Forgets that something was written: the answer has been taken out.
    pub(crate) fn forget_answer(&mut self) {
        self.written = false;
        self.content_type = None;
    }
}

/// Whether HTTP allows an answer of that status to have a body.
fn allows_body(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

/// A status: a [`StatusCode`] or its number.
///
/// ```
/// # use curtsy_web::Context;
/// # async fn example(c: &mut Context) {
/// use curtsy_web::StatusCode;
///
/// c.string(404, "by number");
/// c.string(StatusCode::NOT_FOUND, "by name");
/// # }
/// ```
pub trait IntoStatus {
    /// The status. A number that is none is 500.
    fn into_status(self) -> StatusCode;
}

impl IntoStatus for StatusCode {
    fn into_status(self) -> StatusCode {
        self
    }
}

impl IntoStatus for u16 {
    fn into_status(self) -> StatusCode {
        StatusCode::from_u16(self).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoStatus for i32 {
    fn into_status(self) -> StatusCode {
        u16::try_from(self).map_or(StatusCode::INTERNAL_SERVER_ERROR, u16::into_status)
    }
}
