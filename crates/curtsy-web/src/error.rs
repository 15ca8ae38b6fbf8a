//! The crate's error: a status, a public message, a private cause.
//!
//! The message may be shown to a client; the cause ([`std::error::Error::source`]) goes to logs
//! only. Errors of a request are collected in [`Context::errors`](crate::Context::errors).

use http::StatusCode;
use serde::Serialize;
use std::fmt;

/// Any error that can cross threads.
///
/// ```
/// fn load() -> Result<String, curtsy_web::BoxError> {
///     Ok(std::fs::read_to_string("motd")?)
/// }
/// ```
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a handler may return to use `?` on whatever fails.
///
/// ```
/// use curtsy_web::{Context, Result};
///
/// async fn age(c: &mut Context) -> Result {
///     let years: u32 = c.param("years").parse()?; // 500 with a private cause
///     c.string(200, format!("{years} years"));
///     Ok(())
/// }
/// # let mut r = curtsy_web::Engine::new();
/// # r.get("/age/:years", age);
/// ```
pub type Result<T = (), E = BoxError> = std::result::Result<T, E>;

/// What went wrong, with the status to answer, a message for the client and a cause for the logs.
///
/// ```
/// use curtsy_web::{Context, Error, StatusCode};
///
/// async fn find(c: &mut Context) -> Result<(), Error> {
///     Err(Error::new(StatusCode::NOT_FOUND, "no such user")
///         .with_cause(std::io::Error::other("row 7 is missing")))
/// }
/// # let mut r = curtsy_web::Engine::new();
/// # r.get("/", find);
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    status: StatusCode,
    message: String,
    fields: Vec<FieldError>,
    cause: Option<BoxError>,
    /// Whether a context has it in its list.
    recorded: bool,
}

/// A field that could not be accepted, and why.
///
/// ```
/// # use curtsy_web::{Error, FieldError};
/// # fn explain(error: &Error) {
/// for FieldError { field, message } in error.fields() {
///     println!("{field}: {message}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's path, for instance `user.addresses[0].city`.
    pub field: String,
    /// Why it was refused.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Bind,
    TooLarge,
    Render,
    Route,
}

impl Error {
    /// An error to answer with `status` and to explain with `message`.
    ///
    /// ```
    /// use curtsy_web::{Error, StatusCode};
    ///
    /// let error = Error::new(StatusCode::CONFLICT, "the name is taken");
    /// assert_eq!(error.to_string(), "the name is taken");
    /// ```
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self::of(Kind::Public, status, message)
    }

    /// An error that is nobody's business: 500, and the cause only in the logs.
    ///
    /// ```
    /// use curtsy_web::Error;
    ///
    /// let error = Error::private("the password of the database is wrong");
    /// assert_eq!(error.status(), 500);
    /// assert_eq!(error.message(), "internal server error"); // what the client sees
    /// ```
    pub fn private(cause: impl Into<BoxError>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::of(Kind::Private, status, "internal server error").with_cause(cause)
    }

    /// The same error with a cause.
    ///
    /// ```
    /// use curtsy_web::{Error, StatusCode};
    /// use std::error::Error as _;
    ///
    /// let error = Error::new(StatusCode::BAD_GATEWAY, "the shop does not answer").with_cause("timeout");
    /// assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("timeout"));
    /// ```
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<BoxError>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The same error with another status.
    ///
    /// ```
    /// use curtsy_web::{Error, StatusCode};
    ///
    /// let error = Error::private("no disk").with_status(StatusCode::INSUFFICIENT_STORAGE);
    /// assert_eq!(error.status(), 507);
    /// ```
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    pub(crate) fn bind(message: impl Into<String>) -> Self {
        Self::of(Kind::Bind, StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        let message = format!("the body is larger than {limit_bytes} bytes");
        Self::of(Kind::TooLarge, StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn render(cause: impl Into<BoxError>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::of(Kind::Render, status, "internal server error").with_cause(cause)
    }

    pub(crate) fn route(message: impl Into<String>) -> Self {
        Self::of(Kind::Route, StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn with_fields(mut self, fields: Vec<FieldError>) -> Self {
        self.0.fields = fields;
        self
    }

    fn of(kind: Kind, status: StatusCode, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            status,
            message: message.into(),
            fields: Vec::new(),
            cause: None,
            recorded: false,
        }))
    }

    /// The error inside `error` if it is one of ours, else a private one with `error` as its cause.
    pub(crate) fn from_box(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(cause) => Self::private(cause),
        }
    }

    /// The status to answer with.
    ///
    /// ```
    /// use curtsy_web::{Error, StatusCode};
    ///
    /// assert_eq!(Error::new(StatusCode::GONE, "no more").status(), StatusCode::GONE);
    /// ```
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The message that a client may see.
    ///
    /// ```
    /// use curtsy_web::{Error, StatusCode};
    ///
    /// assert_eq!(Error::new(StatusCode::GONE, "no more").message(), "no more");
    /// ```
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The fields that were refused, if this is about fields.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// # #[derive(serde::Deserialize)] struct User { age: u8 }
    /// if let Err(error) = c.should_bind_json::<User>().await {
    ///     let fields: Vec<&str> = error.fields().iter().map(|field| field.field.as_str()).collect();
    ///     println!("wrong: {fields:?}"); // ["age"]
    /// }
    /// # }
    /// ```
    pub fn fields(&self) -> &[FieldError] {
        &self.0.fields
    }

    /// Whether the request could not be read into the wanted type.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// # #[derive(serde::Deserialize)] struct User {}
    /// match c.should_bind_json::<User>().await {
    ///     Err(error) if error.is_bind() => c.string(422, error.to_string()),
    ///     Err(_) => c.string(500, "sorry"),
    ///     Ok(_) => c.string(200, "welcome"),
    /// }
    /// # }
    /// ```
    pub fn is_bind(&self) -> bool {
        matches!(self.0.kind, Kind::Bind | Kind::TooLarge)
    }

    /// Whether the body is larger than allowed.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// match c.raw_data().await {
    ///     Err(error) if error.is_too_large() => c.string(413, "a megabyte will do"),
    ///     Err(_) => c.string(400, "say it again"),
    ///     Ok(bytes) => c.data(200, "application/octet-stream", bytes),
    /// }
    /// # }
    /// ```
    pub fn is_too_large(&self) -> bool {
        self.0.kind == Kind::TooLarge
    }

    /// Whether an answer could not be made.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.json(200, &std::collections::BTreeMap::from([((1, 2), 3)])); // JSON's keys are texts
    /// assert!(c.errors()[0].is_render());
    /// # }
    /// ```
    pub fn is_render(&self) -> bool {
        self.0.kind == Kind::Render
    }

    /// Whether a route was refused at its registration.
    ///
    /// ```
    /// use curtsy_web::{Context, Engine};
    ///
    /// let mut r = Engine::new();
    /// let refused = r.try_handle("GET", "/*a/b", async |c: &mut Context| c.string(200, "no"));
    /// assert!(refused.unwrap_err().is_route());
    /// ```
    pub fn is_route(&self) -> bool {
        self.0.kind == Kind::Route
    }

    /// Whether its cause is for the logs only.
    ///
    /// ```
    /// use curtsy_web::{Error, StatusCode};
    ///
    /// assert!(Error::private("no disk").is_private());
    /// assert!(!Error::new(StatusCode::GONE, "no more").is_private());
    /// ```
    pub fn is_private(&self) -> bool {
        matches!(self.0.kind, Kind::Private | Kind::Render)
    }

    /// What a client gets to see of it: `{"error": message, "fields": [..]}`.
    ///
    /// ```
    /// use curtsy_web::{Error, StatusCode};
    ///
    /// let error = Error::new(StatusCode::GONE, "no more");
    /// assert_eq!(error.to_json().to_string(), r#"{"error":"no more"}"#);
    /// ```
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({ "error": self.message() });
        if !self.0.fields.is_empty() {
            json["fields"] = serde_json::json!(self.0.fields);
        }
        json
    }

    pub(crate) fn is_recorded(&self) -> bool {
        self.0.recorded
    }

    /// A copy for the context's list. The cause is not copied but told in words: it stays with the
    /// error that the handler holds.
    pub(crate) fn record(&mut self) -> Self {
        self.0.recorded = true;
        let cause = self.0.cause.as_ref().map(|cause| cause.to_string().into());
        Self(Box::new(Inner {
            kind: self.0.kind,
            status: self.0.status,
            message: self.0.message.clone(),
            fields: self.0.fields.clone(),
            cause,
            recorded: true,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (index, field) in self.0.fields.iter().enumerate() {
            let between = if index == 0 { ": " } else { "; " };
            write!(f, "{between}{}: {}", field.field, field.message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("status", &self.0.status)
            .field("message", &self.0.message)
            .field("fields", &self.0.fields)
            .field("cause", &self.0.cause)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.cause {
            Some(cause) => Some(&**cause),
            None => None,
        }
    }
}
