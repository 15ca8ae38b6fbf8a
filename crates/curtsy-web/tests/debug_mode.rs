//! What is said in debug mode only. A program of its own: the mode is the process's.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use curtsy_web::test::Client;
use curtsy_web::{Context, Engine, Mode, Recovery};
use std::io::Write;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn templates_are_read_anew() {
    Mode::set(Mode::Debug);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.html");
    std::fs::write(&file, "one").unwrap();
    let mut r = Engine::new();
    r.load_html_files(&[&file]).unwrap();
    r.get("/", async |c: &mut Context| c.html(200, "page.html", &()));
    let client = Client::new(r);
    assert_eq!(client.get("/").send().await.text(), "one");
    std::fs::write(&file, "two").unwrap();
    assert_eq!(client.get("/").send().await.text(), "two");
}

#[tokio::test]
async fn a_panic_shows_the_head_without_its_secrets() {
    Mode::set(Mode::Debug);
    let log = Log::default();
    let mut r = Engine::new();
    r.use_middleware(Recovery::new().writer(log.clone()));
    r.get("/x", async |c: &mut Context| {
        assert!(c.path().is_empty(), "oh no")
    });
    let request = Client::new(r).get("/x?a=1").header("User-Agent", "me");
    let request = request.header("Authorization", "Bearer hunter2");
    let answer = request.header("Cookie", "id=hunter2").send().await;
    assert_eq!(answer.status(), 500);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for line in [
        "GET /x?a=1 HTTP/1.1\n",
        "User-Agent: me\n",
        "Authorization: *\n",
        "Cookie: *\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_refused_route_names_the_line_that_asked_for_it() {
    static SAID: Mutex<Vec<(std::thread::ThreadId, String, u32)>> = Mutex::new(Vec::new());
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(place) = info.location() {
            let place = (
                std::thread::current().id(),
                place.file().to_owned(),
                place.line(),
            );
            SAID.lock().unwrap().push(place);
        }
        before(info);
    }));
    async fn page(_: &mut Context) {}
    let mut r = Engine::new();
    r.get("/a/:x", page);
    let mut lines = Vec::new();
    let mut refused = |line: u32, register: &mut dyn FnMut()| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(register));
        assert!(caught.is_err());
        lines.push((std::thread::current().id(), file!().to_owned(), line));
    };
    refused(line!() + 1, &mut || {
        r.get("/a/:y", page);
    });
    refused(line!() + 1, &mut || {
        r.group("/a").post("x", page).post("x", page);
    });
    refused(line!() + 1, &mut || {
        r.any("/a/:y", page);
    });
    refused(line!() + 1, &mut || {
        r.handle("get", "/", page);
    });
    refused(line!() + 1, &mut || {
        r.static_dir("/:x", "/tmp");
    });
    let own = std::thread::current().id();
    let mut said = SAID.lock().unwrap().clone();
    said.retain(|(thread, ..)| *thread == own);
    assert_eq!(said, lines);
}
