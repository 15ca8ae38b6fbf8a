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

#[tokio::test]
async fn a_panic_in_a_stream_is_logged_and_breaks_the_answer_off() {
    use futures_util::{StreamExt, stream};

    let log = Log::default();
    let mut r = recovering(&log);
    r.get("/stream", async |c: &mut Context| {
        let chunks = stream::iter(0..3).then(async |n| {
            tokio::task::yield_now().await;
            assert!(n < 2, "after the head has gone out");
            Ok::<_, std::io::Error>(n.to_string())
        });
        c.stream(200, chunks);
    });
    let answer = Client::new(r.clone()).get("/stream").send().await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "01"));
    assert!(answer.is_broken(), "half an answer must not look whole");
    let text = log.text();
    assert!(text.starts_with("[Recovery] 20"), "{text}");
    assert!(text.contains("after the head has gone out"), "{text}");
    assert!(text.contains("recovery.rs:"), "the place: {text}");

    r.get("/whole", async |c: &mut Context| {
        c.stream(200, stream::iter(["a", "b"].map(Ok::<_, std::io::Error>)));
    });
    let whole = Client::new(r).get("/whole").send().await;
    assert_eq!((whole.text().as_str(), whole.is_broken()), ("ab", false));
}

/// Set for the process that panics in the test below.
const PANICKING: &str = "CURTSY_TEST_PANICKING";

/// What it shows is looked at from outside: who asks for no backtraces is asked by a variable of the
/// process.
#[test]
fn a_panic_is_logged_with_its_backtrace() {
    if std::env::var_os(PANICKING).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let mut r = engine();
        r.use_middleware(Recovery::new());
        r.get("/", handler_with_a_name);
        let answer = Client::new(r).get("/").send();
        assert_eq!(runtime.unwrap().block_on(answer).status(), 500);
        return;
    }
    for (asked, is_shown) in [("1", true), ("0", false)] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recovery::a_panic_is_logged_with_its_backtrace"])
            .arg("--nocapture")
            .envs([(PANICKING, "1"), ("RUST_BACKTRACE", asked)])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{text}");
        assert!(text.contains("oh no (crates/"), "{text}");
        assert_eq!(text.contains("handler_with_a_name"), is_shown, "{text}");
    }
}

async fn handler_with_a_name(c: &mut Context) {
    assert!(c.path().is_empty(), "oh no");
}
