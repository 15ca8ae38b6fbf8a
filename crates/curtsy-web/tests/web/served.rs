//! The engine behind hyper, on a connection: what the test client cannot show.

use crate::engine;
use curtsy_web::{Body, Context, Engine, Error};
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::Notify;

/// One connection to an engine. The engine is cloned once, as a server does.
async fn connect(r: Engine) -> SendRequest<Body> {
    let (client, server) = tokio::io::duplex(16 << 10);
    tokio::spawn(async move {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), TowerToHyperService::new(r))
            .await
    });
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(sender: &mut SendRequest<Body>, request: Request<Body>) -> (u16, String, String) {
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let length = parts.headers.get("content-length");
    let length = length.map_or("none".into(), |value| value.to_str().unwrap().to_owned());
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (parts.status.as_u16(), length, text)
}

#[tokio::test]
async fn requests_one_after_the_other_on_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big"), "x".repeat(300_000)).unwrap();
    let mut r = engine();
    r.get("/hi", async |c: &mut Context| c.string(200, "hi"));
    r.head("/hi", async |c: &mut Context| c.string(200, "hi"));
    r.post("/sum", async |c: &mut Context| -> Result<(), Error> {
        let numbers: Vec<u32> = c.bind_json().await?;
        c.json(200, &numbers.iter().sum::<u32>());
        Ok(())
    });
    r.static_dir("/s", dir.path());
    let mut sender = connect(r).await;
    let chunks = ["[1,", "2,3", "]"].map(Ok::<_, Infallible>);
    let streamed = Body::from_stream(futures_util::stream::iter(chunks));
    for (request, status, length, body) in [
        (
            Request::get("/hi").body(Body::empty()),
            200,
            "2",
            "hi".to_owned(),
        ),
        (
            Request::head("/hi").body(Body::empty()),
            200,
            "2",
            String::new(),
        ),
        (
            Request::post("/sum").body("[1,2]".into()),
            200,
            "1",
            "3".to_owned(),
        ),
        (
            Request::post("/sum").body(streamed),
            200,
            "1",
            "6".to_owned(),
        ),
        (
            Request::get("/none").body(Body::empty()),
            404,
            "18",
            "404 page not found".to_owned(),
        ),
        (
            Request::get("/s/big").body(Body::empty()),
            200,
            "300000",
            "x".repeat(300_000),
        ),
        (
            Request::head("/s/big").body(Body::empty()),
            200,
            "300000",
            String::new(),
        ),
        (
            Request::get("/hi").body(Body::empty()),
            200,
            "2",
            "hi".to_owned(),
        ),
    ] {
        let got = send(&mut sender, request.unwrap()).await;
        assert_eq!(got, (status, length.to_owned(), body));
    }
}

#[tokio::test]
async fn a_request_that_was_given_up_stops_its_handler() {
    struct Stopped(Arc<Notify>);
    impl Drop for Stopped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (begun, stopped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut r = engine().with_state((Arc::clone(&begun), Arc::clone(&stopped)));
    r.get("/", async |c: &mut Context| {
        let state = c.state::<(Arc<Notify>, Arc<Notify>)>();
        let _stopped = Stopped(Arc::clone(&state.1));
        state.0.notify_one();
        std::future::pending::<()>().await;
    });
    let mut sender = connect(r).await;
    let request = Request::get("/").body(Body::empty()).unwrap();
    let sending = tokio::spawn(async move { sender.send_request(request).await });
    begun.notified().await;
    sending.abort();
    let bound = std::time::Duration::from_secs(10);
    tokio::time::timeout(bound, stopped.notified())
        .await
        .expect("the handler must be dropped");
}
