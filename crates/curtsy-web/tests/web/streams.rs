//! Streams and events, and their end at the drain.

use crate::engine;
use curtsy_web::test::Client;
use curtsy_web::{Context, Event};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn events_are_written_one_by_one() {
    let mut r = engine();
    r.get("/", async |c: &mut Context| {
        c.sse_event("message", "hello");
        c.sse_event("n", &serde_json::json!({ "a": 1 }));
    });
    let answer = Client::new(r).get("/").send().await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(
        answer.text(),
        "event:message\ndata:hello\n\nevent:n\ndata:{\"a\":1}\n\n"
    );
}

#[test]
fn nothing_can_be_smuggled_into_an_event() {
    let event = Event::data("a\r\nid:7\rretry:1\nx")
        .event("e\nid:1")
        .id("1\0\r2");
    let text = event.to_string();
    assert_eq!(
        text,
        "event:eid:1\nid:12\ndata:a\ndata:id:7\ndata:retry:1\ndata:x\n\n"
    );
}

#[tokio::test]
async fn an_endless_stream_ends_at_the_drain() {
    let mut r = engine();
    r.get("/events", async |c: &mut Context| {
        c.sse(stream::once(async { Event::data("first") }).chain(stream::pending()));
    });
    r.get("/stream", async |c: &mut Context| {
        let first = stream::once(async { Ok::<_, Infallible>("first") });
        c.stream(200, first.chain(stream::pending()));
    });
    for path in ["/events", "/stream"] {
        let client = Client::new(r.clone());
        let mut body = client.get(path).send_open().await.into_body();
        let first = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        assert!(first.into_data().unwrap().ends_with(b"first") || path == "/events");
        client.drain();
        let end = timeout(SOON, body.frame())
            .await
            .expect("the stream must end");
        assert!(end.is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_handler_can_say_goodbye() {
    let mut r = engine();
    r.get("/", async |c: &mut Context| {
        let draining = c.draining();
        assert!(!draining.is_draining());
        let goodbye = stream::once(async move {
            draining.wait().await;
            Ok::<_, Infallible>("goodbye")
        });
        c.stream_to_end(200, goodbye);
    });
    r.get("/poll", async |c: &mut Context| {
        c.draining().wait().await;
        c.string(503, "later");
    });
    let client = Client::new(r);
    let mut body = client.get("/").send_open().await.into_body();
    let poll = tokio::spawn(client.get("/poll").send());
    client.drain();
    let last = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(last.into_data().unwrap(), "goodbye");
    assert_eq!(timeout(SOON, poll).await.unwrap().unwrap().text(), "later");
}

#[tokio::test]
async fn a_broken_stream_breaks_the_body() {
    let mut r = engine();
    r.get("/", async |c: &mut Context| {
        let error = std::io::Error::other("disk");
        c.stream(200, stream::iter([Ok("a"), Err(error)]));
    });
    let answer = Client::new(r).get("/").send().await;
    assert_eq!(answer.text(), "a");
    assert!(answer.is_broken());
}
