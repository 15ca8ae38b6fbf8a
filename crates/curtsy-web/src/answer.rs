//! What a handler may return, and what becomes of it.
//!
//! Most handlers return nothing: they have answered through the context. What is returned is
//! written only if nothing was written before it.

use crate::body::Body;
use crate::error::{BoxError, Error};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// What a handler may return.
///
/// `()` leaves the answer as the context has it. A text, bytes, [`Json`], a [`StatusCode`], an
/// `http::Response` and a pair of status and any of these answer with it. `Err(e)` answers with the
/// error's status and its public message as JSON, and adds it to
/// [`Context::errors`](crate::Context::errors); what is not an [`Error`] is a private 500.
///
/// ```
/// use curtsy_web::{Context, Engine, Error, Json, StatusCode};
///
/// async fn word(_: &mut Context) -> &'static str {
///     "word"
/// }
/// async fn made(_: &mut Context) -> (StatusCode, Json<[u8; 2]>) {
///     (StatusCode::CREATED, Json([1, 2]))
/// }
/// async fn never(_: &mut Context) -> Result<(), Error> {
///     Err(Error::new(StatusCode::GONE, "no more"))
/// }
///
/// let mut r = Engine::new();
/// r.get("/word", word).post("/made", made).get("/never", never);
/// ```
pub trait Answer {
    /// Turns the value into what is to be written.
    fn answer(self) -> Reply;
}

/// What is to be written after a handler returned.
///
/// ```
/// use curtsy_web::{Answer, Reply};
///
/// struct Teapot;
///
/// impl Answer for Teapot {
///     fn answer(self) -> Reply {
///         (curtsy_web::StatusCode::IM_A_TEAPOT, "short and stout").answer()
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Reply(pub(crate) Option<Box<Written>>);

#[derive(Debug)]
pub(crate) enum Written {
    Error(Error),
    Response(Box<Response<Body>>),
}

impl Reply {
    /// Nothing: the context has the answer.
    ///
    /// ```
    /// use curtsy_web::{Answer, Reply};
    ///
    /// /// For handlers that may or may not have answered by themselves.
    /// struct AsItIs;
    ///
    /// impl Answer for AsItIs {
    ///     fn answer(self) -> Reply {
    ///         Reply::nothing()
    ///     }
    /// }
    /// ```
    pub const fn nothing() -> Self {
        Self(None)
    }

    /// A whole response.
    ///
    /// ```
    /// use curtsy_web::{Context, Reply};
    ///
    /// async fn made(_: &mut Context) -> Reply {
    ///     Reply::response(http::Response::new(String::from("made elsewhere")))
    /// }
    /// ```
    pub fn response<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let response = Box::new(response.map(Body::new));
        Self(Some(Box::new(Written::Response(response))))
    }

    /// An error.
    ///
    /// ```
    /// use curtsy_web::{Context, Reply};
    ///
    /// async fn broken(_: &mut Context) -> Reply {
    ///     Reply::error(std::io::Error::other("the disk is full")) // a 500 that does not say why
    /// }
    /// ```
    pub fn error(error: impl Into<BoxError>) -> Self {
        let error = Error::from_box(error.into());
        Self(Some(Box::new(Written::Error(error))))
    }

    fn with_type(content_type: Option<&'static str>, body: Body) -> Self {
        let mut response = Response::new(body);
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_static(content_type);
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        Self::response(response)
    }
}

/// A value to answer as JSON.
///
/// ```
/// use curtsy_web::{Context, Json};
///
/// async fn numbers(_: &mut Context) -> Json<[u8; 3]> {
///     Json([1, 2, 3])
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl Answer for () {
    fn answer(self) -> Reply {
        Reply::nothing()
    }
}

impl Answer for Reply {
    fn answer(self) -> Reply {
        self
    }
}

impl<T: Answer, E: Into<BoxError>> Answer for std::result::Result<T, E> {
    fn answer(self) -> Reply {
        match self {
            Ok(value) => value.answer(),
            Err(error) => Reply::error(error),
        }
    }
}

impl Answer for Error {
    fn answer(self) -> Reply {
        Reply::error(self)
    }
}

impl Answer for StatusCode {
    fn answer(self) -> Reply {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self;
        Reply::response(response)
    }
}

impl<T: Answer> Answer for (StatusCode, T) {
    fn answer(self) -> Reply {
        let mut reply = self.1.answer();
        match reply.0.as_deref_mut() {
            None => return self.0.answer(),
            Some(Written::Response(response)) => *response.status_mut() = self.0,
            Some(Written::Error(_)) => {}
        }
        reply
    }
}

impl<T: Answer> Answer for (StatusCode, HeaderMap, T) {
    fn answer(self) -> Reply {
        let mut reply = (self.0, self.2).answer();
        if let Some(Written::Response(response)) = reply.0.as_deref_mut() {
            response.headers_mut().extend(self.1);
        }
        reply
    }
}

impl Answer for &'static str {
    fn answer(self) -> Reply {
        Reply::with_type(Some(crate::render::TEXT), self.into())
    }
}

impl Answer for String {
    fn answer(self) -> Reply {
        Reply::with_type(Some(crate::render::TEXT), self.into())
    }
}

impl Answer for Bytes {
    fn answer(self) -> Reply {
        Reply::with_type(Some(crate::render::BYTES), self.into())
    }
}

impl Answer for Vec<u8> {
    fn answer(self) -> Reply {
        Bytes::from(self).answer()
    }
}

impl<T: Serialize> Answer for Json<T> {
    fn answer(self) -> Reply {
        match crate::json::escaped(&self.0) {
            Ok(bytes) => Reply::with_type(Some(crate::render::JSON), bytes.into()),
            Err(error) => Reply::error(Error::render(error)),
        }
    }
}

impl<B> Answer for Response<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn answer(self) -> Reply {
        Reply::response(self)
    }
}
