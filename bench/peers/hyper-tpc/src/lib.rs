//! The service of `hyper-tpc`, for whoever wants to put the same one on another server.

#![forbid(unsafe_code)]

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use peer::{HELLO, TEXT};

/// Answers a request.
///
/// # Errors
/// None.
pub async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let body = match (request.method(), path) {
        (&Method::GET, "/") => Bytes::from_static(HELLO.as_bytes()),
        (&Method::GET, "/big") => {
            Bytes::from_static(peer::big(peer::number(request.uri().query(), "bytes")))
        }
        (&Method::POST, "/echo") => match request.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Ok(status(StatusCode::BAD_REQUEST)),
        },
        (&Method::POST, "/upload") => {
            let (mut body, mut received) = (request.into_body(), 0);
            while let Some(Ok(frame)) = body.frame().await {
                received += frame.data_ref().map_or(0, Bytes::len);
            }
            format!("received={received}").into()
        }
        (&Method::GET, path) => match path.strip_prefix("/user/") {
            Some(name) => format!("Hello, {name}!").into(),
            None => return Ok(status(StatusCode::NOT_FOUND)),
        },
        _ => return Ok(status(StatusCode::NOT_FOUND)),
    };
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    Ok(response)
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
