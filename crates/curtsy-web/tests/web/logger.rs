//! The access log.

use crate::engine;
use curtsy_web::test::Client;
use curtsy_web::{Context, Logger};
use std::io::Write;
use std::sync::{Arc, Mutex};

/// A writer whose content can be looked at.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_line_for_each_request() {
    let log = Log::default();
    let mut r = engine();
    r.use_middleware(Logger::new().writer(log.clone()).skip_paths(["/health"]));
    r.get("/", async |c: &mut Context| c.string(200, "hi"));
    r.get("/health", async |c: &mut Context| c.string(200, "ok"));
    r.post("/fail", async |_: &mut Context| -> curtsy_web::Result {
        Err(std::io::Error::other("the disk is full"))?;
        Ok(())
    });
    let client = Client::new(r);
    client.get("/?q=1").send().await;
    client.get("/health").send().await;
    client.post("/fail").send().await;
    client.get("/none%0A").send().await;
    let text = log.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("[CURTSY] 20"), "{text}");
    assert!(lines[0].contains(" | 200 | "), "{text}");
    assert!(
        lines[0].ends_with("|       192.0.2.1 | GET      \"/?q=1\""),
        "{text}"
    );
    assert!(lines[1].contains(" | 500 | ") && lines[1].ends_with("| POST     \"/fail\""));
    assert_eq!(lines[2], "Error #01: the disk is full");
    assert!(lines[3].contains(" | 404 | ") && lines[3].ends_with("\"/none%0A\""));
}

#[tokio::test]
async fn the_line_can_be_ones_own() {
    let log = Log::default();
    let mut r = engine();
    let logger = Logger::new()
        .writer(log.clone())
        .skip(|c| c.response_status() == 304)
        .formatter(|p| format!("{} {} {:?}\n", p.method, p.status.as_u16(), p.body_size));
    r.use_middleware(logger);
    r.get("/", async |c: &mut Context| c.string(200, "hi"));
    r.get("/same", async |c: &mut Context| c.status(304));
    let client = Client::new(r);
    client.get("/").send().await;
    client.get("/same").send().await;
    assert_eq!(log.text(), "GET 200 Some(2)\n");
}
