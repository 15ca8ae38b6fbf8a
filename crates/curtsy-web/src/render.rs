//! What a handler writes: JSON and its kin, texts, bytes, streams, redirects, cookies.
//!
//! The first write decides the answer's status and type, later ones add to its body. A value that
//! cannot be written is answered with 500 and noted in [`Context::errors`].

use crate::body::Body;
use crate::context::Context;
use crate::error::{BoxError, Error};
use crate::json;
use crate::response::IntoStatus;
use bytes::Bytes;
use cookie::{Cookie, SameSite};
use futures_core::Stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::borrow::Cow;

pub(crate) const JSON: &str = "application/json; charset=utf-8";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const BYTES: &str = "application/octet-stream";
const SCRIPT: &str = "application/javascript; charset=utf-8";
const ASCII_JSON: &str = "application/json";
#[cfg(feature = "xml")]
const XML: &str = "application/xml; charset=utf-8";
#[cfg(feature = "yaml")]
const YAML: &str = "application/yaml; charset=utf-8";
#[cfg(feature = "toml")]
const TOML: &str = "application/toml; charset=utf-8";
#[cfg(feature = "msgpack")]
const MSGPACK: &str = "application/msgpack; charset=utf-8";
#[cfg(feature = "protobuf")]
const PROTOBUF: &str = "application/x-protobuf";

impl Context {
    /// Answers with JSON in which `<`, `>` and `&` are escaped, so that it is harmless in HTML.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use serde_json::json;
    ///
    /// let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| c.json(200, &json!({ "message": "hey" })));
    /// let answer = Client::new(r).get("/").send().await;
    /// assert_eq!(answer.text(), r#"{"message":"hey"}"#);
    /// # });
    /// ```
    pub fn json<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, JSON, json::escaped(value));
    }

    /// Answers with JSON for human eyes: four spaces for each level.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.indented_json(200, &serde_json::json!({ "tea": "green" }));
    /// # }
    /// ```
    pub fn indented_json<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, JSON, json::indented(value));
    }

    /// Answers with JSON whose arrays are no script: they follow a `while(1);` (see
    /// [`Settings::secure_json_prefix`](crate::Settings::secure_json_prefix)).
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.secure_json(200, &["a", "b"]); // while(1);["a","b"]
    /// # }
    /// ```
    pub fn secure_json<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        let bytes = json::escaped(value).map(|bytes| {
            if !(bytes.starts_with(b"[") && bytes.ends_with(b"]")) {
                return bytes;
            }
            let prefix = self.engine.settings.secure_json_prefix.as_bytes();
            [prefix, &bytes].concat().into()
        });
        self.write_result(status, JSON, bytes);
    }

    /// Answers with a call of the function that the query's `callback` names; without one, with
    /// JSON.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// // /?callback=show
    /// c.jsonp(200, &["a"]); // show(["a"]);
    /// # }
    /// ```
    pub fn jsonp<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        let callback = json::escape_script(self.query("callback"));
        if callback.is_empty() {
            return self.json(status, value);
        }
        let bytes = json::escaped(value).map(|bytes| {
            let json = String::from_utf8_lossy(&bytes);
            format!("{callback}({json});").into_bytes()
        });
        self.write_result(status, SCRIPT, bytes);
    }

    /// Answers with JSON in which everything beyond ASCII is escaped.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.ascii_json(200, "größe"); // "gr\u00f6\u00dfe"
    /// # }
    /// ```
    pub fn ascii_json<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, ASCII_JSON, json::ascii(value));
    }

    /// Answers with JSON as it is.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.pure_json(200, "<b>"); // "<b>", where `json` writes \u003cb\u003e
    /// # }
    /// ```
    pub fn pure_json<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, JSON, json::pure(value));
    }

    /// Answers with XML. The root's name is the type's.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// #[derive(serde::Serialize)]
    /// struct Tea {
    ///     name: &'static str,
    /// }
    ///
    /// c.xml(200, &Tea { name: "green" }); // <Tea><name>green</name></Tea>
    /// # }
    /// ```
    #[cfg(feature = "xml")]
    pub fn xml<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, XML, quick_xml::se::to_string(value));
    }

    /// Answers with YAML.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.yaml(200, &serde_json::json!({ "tea": "green" }));
    /// # }
    /// ```
    #[cfg(feature = "yaml")]
    pub fn yaml<T: Serialize>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, YAML, serde_saphyr::to_string(value));
    }

    /// Answers with TOML.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.toml(200, &serde_json::json!({ "tea": "green" }));
    /// # }
    /// ```
    #[cfg(feature = "toml")]
    pub fn toml<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, TOML, toml::to_string(value));
    }

    /// Answers with MessagePack, structs as maps.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.msgpack(200, &serde_json::json!({ "tea": "green" }));
    /// # }
    /// ```
    #[cfg(feature = "msgpack")]
    pub fn msgpack<T: Serialize + ?Sized>(&mut self, status: impl IntoStatus, value: &T) {
        self.write_result(status, MSGPACK, rmp_serde::to_vec_named(value));
    }

    /// Answers with a message of Protocol Buffers.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.protobuf(200, &7_u32); // any `prost::Message`
    /// # }
    /// ```
    #[cfg(feature = "protobuf")]
    pub fn protobuf(&mut self, status: impl IntoStatus, message: &impl prost::Message) {
        let body = message.encode_to_vec();
        self.write(status.into_status(), PROTOBUF, body);
    }

    /// Answers with text.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.string(200, "as it is");
    /// let name = c.query("name");
    /// let made = format!("and {name}");
    /// c.string(200, made);
    /// # }
    /// ```
    pub fn string(&mut self, status: impl IntoStatus, text: impl Into<Cow<'static, str>>) {
        let body = match text.into() {
            Cow::Borrowed(text) => Body::from(text),
            Cow::Owned(text) => Body::from(text),
        };
        self.write(status.into_status(), TEXT, body);
    }

    /// Answers with bytes of some type.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.data(200, "image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>");
    /// # }
    /// ```
    pub fn data(&mut self, status: impl IntoStatus, content_type: &str, data: impl Into<Bytes>) {
        match HeaderValue::from_str(content_type) {
            Ok(kind) => {
                self.write_typed(status.into_status(), kind, Body::from(data.into()));
            }
            Err(error) => self.fail(Error::render(error)),
        }
    }

    /// Answers with what a reader gives, in chunks as they come. `length` in bytes, if it is known,
    /// is announced to the client.
    ///
    /// ```
    /// # use curtsy_web::{Context, Result};
    /// # async fn example(c: &mut Context) -> Result {
    /// let file = tokio::fs::File::open("report.pdf").await?;
    /// let length = file.metadata().await?.len();
    /// c.data_from_reader(200, Some(length), "application/pdf", file);
    /// # Ok(()) }
    /// ```
    pub fn data_from_reader<R>(
        &mut self,
        status: impl IntoStatus,
        length: Option<u64>,
        content_type: &str,
        reader: R,
    ) where
        R: tokio::io::AsyncRead + Send + 'static,
    {
        if let Some(length) = length {
            self.header(header::CONTENT_LENGTH, length);
        }
        match HeaderValue::from_str(content_type) {
            Ok(kind) => {
                let body = Body::from_stream(crate::reader::chunks(reader));
                self.write_typed(status.into_status(), kind, body);
            }
            Err(error) => self.fail(Error::render(error)),
        }
    }

    /// Answers with a stream of chunks. It ends when the stream ends or the server drains; to say
    /// goodbye at a drain, watch [`draining`](Self::draining) in the stream itself and use
    /// [`stream_to_end`](Self::stream_to_end).
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use futures_util::stream;
    ///
    /// let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| {
    ///     c.header("Content-Type", "text/plain");
    ///     c.stream(200, stream::iter(["a", "b"].map(Ok::<_, std::io::Error>)));
    /// });
    /// assert_eq!(Client::new(r).get("/").send().await.text(), "ab");
    /// # });
    /// ```
    pub fn stream<S, T, E>(&mut self, status: impl IntoStatus, stream: S)
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Into<Bytes> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        use futures_util::StreamExt;
        let draining = self.draining();
        self.stream_to_end(status, stream.take_until(draining.wait()));
    }

    /// Answers with a stream of chunks that the drain does not cut: it must end by itself, or it
    /// will be a straggler at the drain's deadline.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// use futures_util::{StreamExt, stream};
    ///
    /// let draining = c.draining();
    /// let ticks = stream::repeat("tick\n").take_until(draining.wait());
    /// let chunks = ticks.chain(stream::iter(["bye\n"])).map(Ok::<_, std::io::Error>);
    /// c.stream_to_end(200, chunks);
    /// # }
    /// ```
    pub fn stream_to_end<S, T, E>(&mut self, status: impl IntoStatus, stream: S)
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        self.write_bare(status.into_status(), Body::from_stream(stream));
    }

    /// Answers with any body.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.header("Content-Type", "text/plain");
    /// c.body(200, "anything that is a body");
    /// # }
    /// ```
    pub fn body(&mut self, status: impl IntoStatus, body: impl Into<Body>) {
        self.write_bare(status.into_status(), body.into());
    }

    /// Redirects: a status from 300 to 308, or 201, and where to. What is not ASCII is escaped.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// c.redirect(302, "/login");
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the status is another one: a mistake in the program.
    pub fn redirect(&mut self, status: impl IntoStatus, location: &str) {
        let status = status.into_status();
        assert!(
            (300..=308).contains(&status.as_u16()) || status == StatusCode::CREATED,
            "cannot redirect with status {status}"
        );
        let location = &*crate::path::ascii(location);
        let Ok(value) = HeaderValue::from_str(location) else {
            return self.fail(Error::render(
                "a location with bytes that HTTP does not allow",
            ));
        };
        self.header(header::LOCATION, value);
        match crate::dispatch::redirect_body(self.method(), status, location) {
            Some(page) => self.write(status, HTML, page),
            None => self.write_bare(status, Body::empty()),
        }
    }

    /// Sets a cookie. Path `/` and the context's same-site rule are added where it has none.
    ///
    /// ```
    /// # use curtsy_web::{Context, Engine, test::Client};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use curtsy_web::cookie::{Cookie, SameSite};
    ///
    /// let mut r = Engine::new();
    /// r.get("/", async |c: &mut Context| {
    ///     c.set_same_site(SameSite::Lax);
    ///     c.set_cookie(Cookie::build(("session", "a b")).http_only(true));
    /// });
    /// let answer = Client::new(r).get("/").send().await;
    /// assert_eq!(answer.header("set-cookie"), "session=a%20b; HttpOnly; SameSite=Lax; Path=/");
    /// # });
    /// ```
    pub fn set_cookie<'k>(&mut self, cookie: impl Into<Cookie<'k>>) {
        let mut cookie = cookie.into();
        if cookie.path().is_none() {
            cookie.set_path("/");
        }
        if cookie.same_site().is_none()
            && let Some(rule) = self.cold.as_ref().and_then(|cold| cold.same_site)
        {
            cookie.set_same_site(rule);
        }
        match HeaderValue::from_str(&cookie.encoded().to_string()) {
            Ok(value) => {
                self.response_headers_mut()
                    .append(header::SET_COOKIE, value);
            }
            Err(error) => self.error(Error::render(error)),
        }
    }

    /// The same-site rule of the cookies set from now on.
    ///
    /// ```
    /// # use curtsy_web::Context;
    /// # async fn example(c: &mut Context) {
    /// use curtsy_web::cookie::SameSite;
    ///
    /// c.set_same_site(SameSite::Strict);
    /// c.set_cookie(("session", "0f3a"));
    /// # }
    /// ```
    pub fn set_same_site(&mut self, rule: SameSite) {
        self.cold().same_site = Some(rule);
    }

    fn write_result<E: Into<BoxError>>(
        &mut self,
        status: impl IntoStatus,
        content_type: &'static str,
        written: Result<impl Into<Body>, E>,
    ) {
        match written {
            Ok(body) => self.write(status.into_status(), content_type, body),
            Err(error) => self.fail(Error::render(error)),
        }
    }
}
