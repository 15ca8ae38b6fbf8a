//! Panics.

use crate::engine;
use crate::logger::Log;
use curtsy_web::test::Client;
use curtsy_web::{Context, Engine, Recovery};

fn recovering(log: &Log) -> Engine {
    let mut r = engine();
    r.use_middleware(Recovery::new().writer(log.clone()));
    r.get("/before", async |c: &mut Context| {
        c.status(202);
        assert!(c.path().is_empty(), "before the first byte");
    });
    r.get("/later", async |c: &mut Context| {
        tokio::task::yield_now().await;
        assert!(c.path().is_empty(), "after a wait");
    });
    r.get("/after", async |c: &mut Context| {
        c.string(201, "half");
        assert!(c.path().is_empty(), "after the first byte");
    });
    r.get("/pipe", async |c: &mut Context| {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        if c.path() == "/pipe" {
            std::panic::panic_any(gone);
        }
    });
    r
}

#[tokio::test]
async fn a_panic_is_a_500_without_a_body() {
    for (path, message) in [
        ("/before", "before the first byte"),
        ("/later", "after a wait"),
    ] {
        let log = Log::default();
        let answer = Client::new(recovering(&log)).get(path).send().await;
        assert_eq!((answer.status(), answer.text().as_str()), (500, ""));
        let text = log.text();
        assert!(text.starts_with("[Recovery] 20"), "{text}");
        assert!(text.contains(" panic recovered:\n"), "{text}");
        assert!(text.contains(message), "{text}");
        assert!(text.contains("recovery.rs:"), "the place: {text}");
    }
}

#[tokio::test]
async fn what_was_written_before_a_panic_is_sent() {
    let log = Log::default();
    let answer = Client::new(recovering(&log)).get("/after").send().await;
    assert_eq!((answer.status(), answer.text().as_str()), (201, "half"));
    assert!(log.text().contains("after the first byte"));
}

#[tokio::test]
async fn a_gone_client_is_a_short_line_and_no_500() {
    let log = Log::default();
    let answer = Client::new(recovering(&log)).get("/pipe").send().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(log.text(), "[Recovery] the client is gone: broken pipe\n");
}

#[tokio::test]
async fn the_answer_can_be_ones_own() {
    let mut r = engine();
    let log = Log::default();
    let recovery = Recovery::new().writer(log.clone()).answer(|c, panic| {
        c.string(503, format!("sorry: {}", panic.message()));
    });
    r.use_middleware(recovery);
    r.get("/", async |c: &mut Context| {
        assert!(c.path().is_empty(), "oh no")
    });
    let answer = Client::new(r).get("/").send().await;
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (503, "sorry: oh no")
    );
}
