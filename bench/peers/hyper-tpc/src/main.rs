//! hyper's HTTP/1 connection and nothing around it: one current-thread runtime per thread, each with its own
//! `SO_REUSEPORT` socket. What is left of a server when only its engine is kept; it has no orderly stop.

use std::{convert::Infallible, net::TcpListener, thread};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use peer::{Args, HELLO, TEXT};

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let others: Vec<_> = (1..args.threads)
        .map(|_| {
            args.listener()
                .map(|listener| thread::spawn(move || serve(listener)))
        })
        .collect::<Result<_, _>>()?;
    serve(args.listener()?)?;
    others
        .into_iter()
        .try_for_each(|thread| thread.join().expect("a worker panicked"))
}

fn serve(listener: TcpListener) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            stream.set_nodelay(true)?;
            let mut http = http1::Builder::new();
            let connection = http
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(async move {
                // A client that goes away in the middle is none of the server's business.
                let _ = connection.await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
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
