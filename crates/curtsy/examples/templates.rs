//! Templates: a page from a file, with a layout, a loop, and values that are escaped.
//!
//! ```sh
//! cargo run -p curtsy --example templates
//! curl http://127.0.0.1:8080/                              # <h1>Teas</h1>
//! curl 'http://127.0.0.1:8080/?name=%3Cscript%3E'          # Hello, &lt;script&gt;!
//! ```
//!
//! In debug mode a template is read anew for each answer: change it and reload the page.

use curtsy::web::{Context, Engine, Run};
use serde_json::json;

const TEMPLATES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/assets/templates/*.html"
);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::default();
    r.load_html_glob(TEMPLATES)?;
    r.get("/", async |c: &mut Context| {
        let page = json!({
            "title": "Teas",
            "name": c.default_query("name", "stranger"),
            "teas": ["green", "black", "white"],
        });
        c.html(200, "teas.html", &page);
    });
    r.run("")?;
    Ok(())
}
