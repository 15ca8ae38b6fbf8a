//! The server without the framework: the same answers by a function that compares paths. What `curtsy-web` costs more
//! is the framework.

use std::convert::Infallible;

use bytes::Bytes;
use garde::Validate as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use peer::{HELLO, TEXT};
use web::{Signup, User};

const JSON: &str = "application/json; charset=utf-8";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    web::serve(service_fn(answer))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    Ok(match (request.method(), path) {
        (&Method::GET, "/") => respond(StatusCode::OK, TEXT, HELLO),
        (&Method::POST, "/signup") => signup(request.into_body()).await,
        (&Method::GET, path) => {
            if let Some(name) = path.strip_prefix("/user/") {
                respond(StatusCode::OK, TEXT, format!("Hello, {name}!"))
            } else if let Some(name) = path.strip_prefix("/json/") {
                user(StatusCode::OK, name)
            } else {
                respond(StatusCode::NOT_FOUND, TEXT, "")
            }
        }
        _ => respond(StatusCode::NOT_FOUND, TEXT, ""),
    })
}

fn user(status: StatusCode, name: &str) -> Response<Full<Bytes>> {
    let user = User { name, admin: false };
    match serde_json::to_vec(&user) {
        Ok(json) => respond(status, JSON, json),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, ""),
    }
}

async fn signup(body: Incoming) -> Response<Full<Bytes>> {
    let Ok(body) = body.collect().await else {
        return respond(StatusCode::BAD_REQUEST, TEXT, "");
    };
    match serde_json::from_slice::<Signup>(&body.to_bytes()) {
        Ok(signup) if signup.validate().is_ok() => user(StatusCode::OK, &signup.name),
        _ => respond(StatusCode::BAD_REQUEST, TEXT, ""),
    }
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
