//! Reading a request into a type: JSON, forms, queries, parameters, headers and more.
//!
//! `should_bind_*` returns what went wrong; `bind_*` also answers with 400, or 413 for a body that
//! is too large, and aborts. Wrap the type in `Valid` to have it checked by its rules. Errors name
//! the field.
//!
//! Invariants:
//! - A body is read once and kept: binding it a second time works.
//! - No more of a body than [`Settings::max_body`](crate::Settings::max_body) is ever in memory.

use crate::body::{Body, Lost};
use crate::context::Context;
use crate::error::{Error, FieldError};
use bytes::{Bytes, BytesMut};
use http::{Method, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::collections::HashSet;

/// How deep a body of MessagePack may go: as deep as one of JSON or XML.
#[cfg(feature = "msgpack")]
const DEPTH_MAX: usize = 128;

/// What a request can be read into: any type that serde can make, and `Valid` of such a type.
///
/// You never implement this: derive `serde::Deserialize`.
///
/// ```
/// use curtsy_web::{Bind, Context, Error};
///
/// /// A page of anything, by `?page=`.
/// async fn page<T: Bind>(c: &mut Context) -> Result<T, Error> {
///     c.should_bind_query().await
/// }
/// ```
pub trait Bind: Sized {
    /// What is made first.
    type Raw: DeserializeOwned;

    /// Checks what was made.
    ///
    /// # Errors
    /// If it breaks its rules: the error names the fields.
    fn accept(raw: Self::Raw) -> Result<Self, Error>;
}

impl<T: DeserializeOwned> Bind for T {
    type Raw = T;

    fn accept(raw: T) -> Result<T, Error> {
        Ok(raw)
    }
}

/// A value that keeps its rules: `#[derive(garde::Validate)]` says which. The derive names the crate
/// `garde`, so that it must be among your own dependencies, as `serde` is.
///
/// ```
/// use curtsy_web::{Context, Engine, Error, Valid, test::Client};
/// use serde::Deserialize;
///
/// #[derive(Deserialize, garde::Validate)]
/// struct Login {
///     #[garde(length(min = 1))]
///     user: String,
///     #[garde(length(min = 8))]
///     password: String,
/// }
///
/// async fn login(c: &mut Context) -> Result<(), Error> {
///     let Valid(login) = c.bind_json::<Valid<Login>>().await?;
///     c.string(200, login.user);
///     Ok(())
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut r = Engine::new();
/// r.post("/login", login);
/// let client = Client::new(r);
/// let answer = client.post("/login").body(r#"{"user":"ann","password":"x"}"#).send().await;
/// assert_eq!(answer.status(), 400);
/// assert_eq!(answer.json()["fields"][0]["field"], "password");
/// # });
/// ```
#[cfg(feature = "validate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Valid<T>(pub T);

#[cfg(feature = "validate")]
impl<T> Bind for Valid<T>
where
    T: DeserializeOwned + garde::Validate<Context = ()>,
{
    type Raw = T;

    fn accept(raw: T) -> Result<Self, Error> {
        let Err(report) = raw.validate() else {
            return Ok(Self(raw));
        };
        let field = |(path, error): &(garde::Path, garde::Error)| FieldError {
            field: path.to_string(),
            message: error.message().to_owned(),
        };
        let fields = report.iter().map(field).collect();
        Err(Error::bind("the request is not valid").with_fields(fields))
    }
}

#[cfg(feature = "validate")]
impl<T> std::ops::Deref for Valid<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a request is read as.
///
/// ```
/// # use curtsy_web::{Context, Result};
/// # async fn example(c: &mut Context) -> Result {
/// # #[derive(serde::Deserialize)] struct User {}
/// use curtsy_web::Format;
///
/// let user: User = c.should_bind_with(Format::Json).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The body as JSON.
    Json,
    /// The body as XML.
    #[cfg(feature = "xml")]
    Xml,
    /// The body as YAML.
    #[cfg(feature = "yaml")]
    Yaml,
    /// The body as TOML.
    #[cfg(feature = "toml")]
    Toml,
    /// The body as MessagePack.
    #[cfg(feature = "msgpack")]
    MsgPack,
    /// The body's form and the query; the form's values come first.
    Form,
    /// The body's form only.
    FormPost,
    /// The texts of a form with files.
    #[cfg(feature = "multipart")]
    Multipart,
    /// The query.
    Query,
    /// The parameters of the path.
    Uri,
    /// The headers: `x_request_id` or `x-request-id` for `X-Request-Id`.
    Header,
}

impl Format {
    /// The format that a request asks for: a form for GET, else by the content type.
    ///
    /// ```
    /// use curtsy_web::{Format, Method};
    ///
    /// assert_eq!(Format::of(&Method::POST, "application/json"), Format::Json);
    /// assert_eq!(Format::of(&Method::GET, "application/json"), Format::Form);
    /// ```
    pub fn of(method: &Method, content_type: &str) -> Self {
        if *method == Method::GET {
            return Self::Form;
        }
        match content_type.to_ascii_lowercase().as_str() {
            "application/json" => Self::Json,
            #[cfg(feature = "xml")]
            "application/xml" | "text/xml" => Self::Xml,
            #[cfg(feature = "yaml")]
            "application/x-yaml" | "application/yaml" => Self::Yaml,
            #[cfg(feature = "toml")]
            "application/toml" => Self::Toml,
            #[cfg(feature = "msgpack")]
            "application/x-msgpack" | "application/msgpack" => Self::MsgPack,
            #[cfg(feature = "multipart")]
            "multipart/form-data" => Self::Multipart,
            _ => Self::Form,
        }
    }
}

/// The `should_bind_*` and `bind_*` pairs.
macro_rules! binds {
    ($($(#[$gate:meta])* $should:ident $must:ident $format:ident $what:literal;)+) => {
        $(
            $(#[$gate])*
            #[doc = concat!("Reads ", $what, ".")]
            ///
            /// ```
            /// # #[derive(serde::Deserialize)] struct Tea { name: String }
            /// # async fn example(c: &mut curtsy_web::Context) -> curtsy_web::Result {
            #[doc = concat!("let tea: Tea = c.", stringify!($should), "().await?;")]
            /// # Ok(()) }
            /// ```
            ///
            /// # Errors
            /// If it cannot be read into `T`, with the field's name; [`Error::is_bind`] holds.
            pub async fn $should<T: Bind>(&mut self) -> Result<T, Error> {
                self.should_bind_with(Format::$format).await
            }

            $(#[$gate])*
            #[doc = concat!("Reads ", $what, ", or answers 400 (413 if the body is too large) and aborts.")]
            ///
            /// ```
            /// # #[derive(serde::Deserialize)] struct Tea { name: String }
            /// # async fn example(c: &mut curtsy_web::Context) -> curtsy_web::Result {
            #[doc = concat!("let tea: Tea = c.", stringify!($must), "().await?;")]
            /// # Ok(()) }
            /// ```
            ///
            /// # Errors
            /// As the `should_` form. Returning the error from the handler explains it to the client.
            pub async fn $must<T: Bind>(&mut self) -> Result<T, Error> {
                self.bind_with(Format::$format).await
            }
        )+
    };
}

impl Context {
    binds! {
        should_bind_json bind_json Json "the body as JSON";
        #[cfg(feature = "xml")]
        should_bind_xml bind_xml Xml "the body as XML";
        #[cfg(feature = "yaml")]
        should_bind_yaml bind_yaml Yaml "the body as YAML";
        #[cfg(feature = "toml")]
        should_bind_toml bind_toml Toml "the body as TOML";
        #[cfg(feature = "msgpack")]
        should_bind_msgpack bind_msgpack MsgPack "the body as MessagePack";
        should_bind_form bind_form Form "the body's form and the query";
        should_bind_form_post bind_form_post FormPost "the body's form";
        #[cfg(feature = "multipart")]
        should_bind_multipart bind_multipart Multipart "the texts of a form with files";
        should_bind_query bind_query Query "the query";
        should_bind_uri bind_uri Uri "the parameters of the path";
        should_bind_header bind_header Header "the headers";
    }

    /// Reads the request by its method and content type: see [`Format::of`].
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// # #[derive(serde::Deserialize)] struct User {}
    /// let user: User = c.should_bind().await?; // JSON, XML, a form ..: as the client sent it
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it cannot be read into `T`.
    pub async fn should_bind<T: Bind>(&mut self) -> Result<T, Error> {
        let format = Format::of(self.method(), self.content_type());
        self.should_bind_with(format).await
    }

    /// Reads the request by its method and content type, or answers 400 (413 if the body is too
    /// large) and aborts.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// # #[derive(serde::Deserialize)] struct User {}
    /// let user: User = c.bind().await?; // or 400, and nothing after this handler
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it cannot be read into `T`.
    pub async fn bind<T: Bind>(&mut self) -> Result<T, Error> {
        let format = Format::of(self.method(), self.content_type());
        self.bind_with(format).await
    }

    /// Reads the request in one format.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// # #[derive(serde::Deserialize)] struct User {}
    /// use curtsy_web::Format;
    ///
    /// let user: User = c.should_bind_with(Format::FormPost).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it cannot be read into `T`.
    pub async fn should_bind_with<T: Bind>(&mut self, format: Format) -> Result<T, Error> {
        let raw: T::Raw = match format {
            Format::Json => from_json(&self.raw_data().await?)?,
            #[cfg(feature = "xml")]
            Format::Xml => {
                let text = self.text_data().await?;
                quick_xml::de::from_str(&text).map_err(malformed)?
            }
            #[cfg(feature = "yaml")]
            Format::Yaml => {
                let text = self.text_data().await?;
                serde_saphyr::from_str(&text).map_err(malformed)?
            }
            #[cfg(feature = "toml")]
            Format::Toml => {
                let text = self.text_data().await?;
                toml::from_str(&text).map_err(malformed)?
            }
            #[cfg(feature = "msgpack")]
            Format::MsgPack => from_msgpack(&self.raw_data().await?)?,
            Format::Query => from_pairs(self.request.uri.query().unwrap_or("").as_bytes())?,
            Format::Form | Format::FormPost => {
                let merged = format == Format::Form;
                from_pairs(self.form_pairs(merged).await?.as_bytes())?
            }
            #[cfg(feature = "multipart")]
            Format::Multipart => from_pairs(self.form_pairs(false).await?.as_bytes())?,
            Format::Uri => from_pairs(encode(self.params()).as_bytes())?,
            Format::Header => from_pairs(self.header_pairs().as_bytes())?,
        };
        T::accept(raw)
    }

    /// Reads the request in one format, or answers 400 (413 if the body is too large) and aborts.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// # #[derive(serde::Deserialize)] struct User {}
    /// use curtsy_web::Format;
    ///
    /// let user: User = c.bind_with(Format::FormPost).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it cannot be read into `T`.
    pub async fn bind_with<T: Bind>(&mut self, format: Format) -> Result<T, Error> {
        let mut result = self.should_bind_with(format).await;
        if let Err(error) = &mut result {
            self.refuse(error);
        }
        result
    }

    /// The same as [`should_bind_with`](Self::should_bind_with): a body is always kept. Here for
    /// those who look for gin's `ShouldBindBodyWith`.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// # #[derive(serde::Deserialize)] struct User {}
    /// use curtsy_web::Format;
    ///
    /// let user: User = c.should_bind_body_with(Format::FormPost).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it cannot be read into `T`.
    pub async fn should_bind_body_with<T: Bind>(&mut self, format: Format) -> Result<T, Error> {
        self.should_bind_with(format).await
    }

    /// Reads the body as text.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let text: String = c.should_bind_plain().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it is not UTF-8 or larger than allowed.
    pub async fn should_bind_plain(&mut self) -> Result<String, Error> {
        self.text_data().await
    }

    /// Reads the body as text, or answers 400 (413 if it is too large) and aborts.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let text: String = c.bind_plain().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it is not UTF-8 or larger than allowed.
    pub async fn bind_plain(&mut self) -> Result<String, Error> {
        let mut result = self.text_data().await;
        if let Err(error) = &mut result {
            self.refuse(error);
        }
        result
    }

    /// Reads the body as a message of Protocol Buffers.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let count: u32 = c.should_bind_protobuf().await?; // any `prost::Message`
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it is no such message, or larger than allowed.
    #[cfg(feature = "protobuf")]
    pub async fn should_bind_protobuf<M: prost::Message + Default>(&mut self) -> Result<M, Error> {
        M::decode(self.raw_data().await?).map_err(malformed)
    }

    /// Reads the body as a message of Protocol Buffers, or answers 400 (413) and aborts.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let count: u32 = c.bind_protobuf().await?; // any `prost::Message`
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it is no such message, or larger than allowed.
    #[cfg(feature = "protobuf")]
    pub async fn bind_protobuf<M: prost::Message + Default>(&mut self) -> Result<M, Error> {
        let mut result = self.should_bind_protobuf().await;
        if let Err(error) = &mut result {
            self.refuse(error);
        }
        result
    }

    /// The whole body. It is kept: asking again is free.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let bytes = c.raw_data().await?;
    /// let again = c.raw_data().await?;
    /// assert_eq!(bytes, again);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If it is larger than [`Settings::max_body`](crate::Settings::max_body)
    /// ([`Error::is_too_large`]), or the client went away. What is too large is not kept, and not
    /// read further than the limit.
    ///
    /// Cancel safety: none; a body read in part is lost, and asking for it again is an error.
    pub async fn raw_data(&mut self) -> Result<Bytes, Error> {
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.clone());
        }
        let limit = self.engine.settings.max_body;
        let announced = self.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(Error::too_large(limit));
        }
        // Until it is read whole, nobody after this may take what is left of it for the body.
        let mut body = std::mem::replace(&mut self.body, Body::lost(Lost::Unread));
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.lose_body(error, limit))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if first.len().max(all.len()) + data.len() > limit {
                self.body = Body::lost(Lost::TooLarge(limit));
                return Err(Error::too_large(limit));
            }
            // Most bodies come in one piece and need not be copied.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&data);
            }
        }
        let bytes = if all.is_empty() { first } else { all.freeze() };
        self.body = Body::empty();
        self.bytes = Some(bytes.clone());
        Ok(bytes)
    }

    /// What a body that broke is refused with, now and whenever it is asked for again.
    fn lose_body(&mut self, error: crate::BoxError, limit: usize) -> Error {
        let error = broken_body(error, limit);
        if error.is_too_large() {
            self.body = Body::lost(Lost::TooLarge(limit));
        }
        error
    }

    /// The body as a stream, taken out of the context: for what is too large to be kept. No limit
    /// applies to it.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// // As it comes, whatever its size.
    /// let body = c.take_body();
    /// c.body(200, body); // an echo
    /// # }
    /// ```
    pub fn take_body(&mut self) -> crate::Body {
        match self.bytes.take() {
            Some(bytes) => bytes.into(),
            None => std::mem::take(&mut self.body),
        }
    }

    async fn text_data(&mut self) -> Result<String, Error> {
        let bytes = self.raw_data().await?;
        String::from_utf8(bytes.into()).map_err(malformed)
    }

    /// Answers for a `bind_*` that failed.
    fn refuse(&mut self, error: &mut Error) {
        self.abort_with_status(error.status());
        self.record(error);
    }

    /// The form, encoded; with the query's values for keys that it has not, if `merged`.
    async fn form_pairs(&mut self, merged: bool) -> Result<String, Error> {
        self.form().await?;
        let form = self.cold.as_ref().and_then(|cold| cold.form.as_deref());
        let values = form.map_or(&[][..], |form| form.values());
        let queries = if merged { self.queries() } else { &[] };
        // A set: both lists are as long as the client likes.
        let known: HashSet<&str> = match queries {
            [] => HashSet::new(),
            [..] => values.iter().map(|(key, _)| key.as_str()).collect(),
        };
        let more = queries.iter().filter(|(key, _)| !known.contains(&**key));
        Ok(encode(values.iter().chain(more).map(|(k, v)| (&**k, &**v))))
    }

    fn header_pairs(&self) -> String {
        let mut pairs = Vec::new();
        for (name, value) in self.headers() {
            let Ok(value) = value.to_str() else {
                continue;
            };
            if name.as_str().contains('-') {
                pairs.push((name.as_str().replace('-', "_"), value));
            }
            pairs.push((name.as_str().to_owned(), value));
        }
        encode(pairs.iter().map(|(name, value)| (&**name, *value)))
    }
}

/// Pairs as a query: one deserializer for all sources of texts.
fn encode<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// JSON into a value. Only if that fails it is read once more, slower, to find out where.
fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        let mut slow = serde_json::Deserializer::from_slice(bytes);
        match serde_path_to_error::deserialize::<_, T>(&mut slow) {
            Err(located) => misfit(&located),
            // The value itself was fine: something follows it.
            Ok(_) => malformed(error),
        }
    })
}

#[cfg(feature = "msgpack")]
fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    // Its own bound is deeper than the stack of a worker's thread.
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader).map_err(malformed)
}

fn from_pairs<T: DeserializeOwned>(pairs: &[u8]) -> Result<T, Error> {
    serde_html_form::from_bytes(pairs).map_err(|error| {
        let slow = serde_html_form::Deserializer::from_bytes(pairs);
        match serde_path_to_error::deserialize::<_, T>(slow) {
            Err(located) => misfit(&located),
            Ok(_) => malformed(error),
        }
    })
}

/// An error at a place: it names the field, if it is about one.
fn misfit<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> Error {
    let message = error.inner().to_string();
    let at = error.path().to_string();
    // What is missing or unknown is named in serde's message, not in the path.
    let named = message.split('`').nth(1).filter(|_| {
        ["missing field", "unknown field", "duplicate field"]
            .iter()
            .any(|kind| message.starts_with(kind))
    });
    let field = match (at.as_str(), named) {
        ("." | "", None) => return Error::bind(message),
        ("." | "", Some(name)) => name.to_owned(),
        (at, Some(name)) if at.rsplit(['.', ']']).next() != Some(name) => format!("{at}.{name}"),
        (at, _) => at.to_owned(),
    };
    Error::bind("the request does not fit").with_fields(vec![FieldError { field, message }])
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::bind(error.to_string()).with_cause(error)
}

/// A body that could not be read: too large for a limit outside of us, or gone with the client.
pub(crate) fn broken_body(error: crate::BoxError, limit: usize) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(own) => return *own,
        Err(other) => other,
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(inner) = cause {
        if inner.is::<http_body_util::LengthLimitError>() {
            return Error::too_large(limit);
        }
        cause = inner.source();
    }
    Error::bind("the body could not be read").with_cause(error)
}
