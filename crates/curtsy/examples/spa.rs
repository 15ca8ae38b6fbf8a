//! A single-page application: its files, its own routes answered with its page, and an API beside.
//!
//! ```sh
//! cargo run -p curtsy --example spa
//! curl http://127.0.0.1:8080/                              # <title>Counter</title>
//! curl http://127.0.0.1:8080/some/route/of/the/app         # <title>Counter</title>
//! curl http://127.0.0.1:8080/app.js                        # fetch("/api/count"
//! curl -i -r 0-3 http://127.0.0.1:8080/app.js              # 206 Partial Content
//! curl -X POST http://127.0.0.1:8080/api/count             # {"count":1}
//! curl http://127.0.0.1:8080/api/typo                      # {"error":"no such thing"}
//! curl -i --path-as-is http://127.0.0.1:8080/../spa.rs     # <title>Counter</title>
//! ```

use curtsy::web::{Context, Engine, Run, StaticDir};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/app");

#[derive(Default)]
struct Count(AtomicU64);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::default().with_state(Count::default());
    let mut api = r.group("/api");
    api.post("/count", async |c: &mut Context| {
        let count = c.state::<Count>().0.fetch_add(1, Ordering::Relaxed) + 1;
        c.json(200, &json!({ "count": count }));
    });
    // What is wrong in the API is said to a program, not shown to a reader.
    api.any("/*rest", async |c: &mut Context| {
        c.json(404, &json!({ "error": "no such thing" }));
    });
    // What is no file is a route of the application's own: its page knows.
    r.static_dir("/", StaticDir::new(APP).single_page(true));
    r.run("")?;
    Ok(())
}
