//! The web framework of Curtsy: router, context, middleware, binding, rendering.
//!
//! gin's product by Rust's habits. An [`Engine`] has routes; a route has handlers; a handler is an
//! `async fn(c: &mut Context)` that reads the request from its [`Context`] and writes the answer
//! into it. An engine is a tower service: Curtsy serves it, and so does everything that serves tower
//! services. This crate knows no sockets.
//!
//! ```
//! use curtsy_web::{Context, Engine, test::Client};
//! use serde_json::json;
//!
//! async fn ping(c: &mut Context) {
//!     c.json(200, &json!({ "message": "pong" }));
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let mut r = Engine::default(); // logger and recovery
//! r.get("/ping", ping);
//!
//! let answer = Client::new(r).get("/ping").send().await;
//! assert_eq!(answer.text(), r#"{"message":"pong"}"#);
//! # });
//! ```
//!
//! # Middleware
//!
//! [`Logger`], [`Recovery`], [`basic_auth`] and [`error_logger`] are here; what the field has already
//! comes as a tower layer: `r.layer(..)`.
//!
//! | wanted | layer of tower-http |
//! |---|---|
//! | CORS | `cors::CorsLayer` |
//! | gzip, br, zstd | `compression::CompressionLayer` |
//! | a request id | `request_id::SetRequestIdLayer`, `PropagateRequestIdLayer` |
//! | a time limit | `timeout::TimeoutLayer` |
//! | a limit for bodies | `limit::RequestBodyLimitLayer` |
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `html` | yes | templates: `c.html`, by minijinja |
//! | `multipart` | yes | forms with files, by multer |
//! | `validate` | yes | `Valid<T>`: rules checked after binding. Add `garde` with its `derive` feature to your own dependencies: the derive names it |
//! | `websocket` | yes | `c.websocket`, by tokio-tungstenite |
//! | `xml`, `yaml`, `toml`, `msgpack`, `protobuf` | no | one more format to bind and to render |
//! | `full` | no | all of these |

#![forbid(unsafe_code)]

mod answer;
mod basic_auth;
mod bind;
mod body;
mod compiled;
mod context;
mod debug;
mod dispatch;
mod engine;
mod error;
mod file;
mod form;
mod group;
mod handler;
#[cfg(feature = "html")]
mod html;
mod input;
mod json;
mod logger;
mod mode;
#[cfg(feature = "multipart")]
mod multipart;
mod negotiate;
mod path;
mod pattern;
mod proxy;
mod range;
mod reader;
mod recovery;
mod render;
mod response;
mod router;
mod settings;
mod sse;
mod static_files;
mod table;
pub mod test;
mod tower;
#[cfg(feature = "websocket")]
mod websocket;

pub use answer::{Answer, Json, Reply};
pub use basic_auth::{
    BasicAuth, ErrorLogger, basic_auth, basic_auth_for_proxy, basic_auth_for_realm, error_logger,
};
#[cfg(feature = "validate")]
pub use bind::Valid;
pub use bind::{Bind, Format};
pub use body::Body;
pub use context::Context;
pub use debug::announce;
pub use engine::{Engine, ResponseFuture, RouteInfo};
pub use error::{BoxError, Error, FieldError, Result};
pub use form::Form;
pub use group::RouterGroup;
pub use handler::{BoxFuture, Call, Chain, Handler, IntoHandlers, Many, One};
pub use logger::{LogParams, Logger};
pub use mode::{Mode, listen_address};
#[cfg(feature = "multipart")]
pub use multipart::{FormFile, MULTIPART_BYTES_MAX};
pub use negotiate::Offer;
pub use proxy::platform;
pub use recovery::{Panic, Recovery};
pub use response::IntoStatus;
pub use settings::{BODY_BYTES_MAX, SECURE_JSON_PREFIX, Settings};
pub use sse::Event;
pub use static_files::{Embedded, StaticDir};
pub use tower::{Layered, Rest};
#[cfg(feature = "websocket")]
pub use websocket::{CLOSE_WAIT, MESSAGE_BYTES_MAX, Message, WebSocket, WebSocketOptions};

pub use cookie;
pub use curtsy_lifecycle::{Address, ConnectionInfo, Draining};
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
#[cfg(feature = "html")]
pub use minijinja;
