//! An axum router under a prefix, and a tower layer around everything: a service moves route by route.
//!
//! ```sh
//! cargo run -p curtsy --example mount_axum
//! curl http://127.0.0.1:8080/                                  # new
//! curl http://127.0.0.1:8080/old/users/7                       # axum has user 7
//! curl http://127.0.0.1:8080/old/path                          # axum sees /path
//! curl -i --compressed http://127.0.0.1:8080/long              # content-encoding: gzip
//! curl -i http://127.0.0.1:8080/old/none                       # 404 Not Found
//! ```

use axum::{extract::Path, http::Uri, routing::get};
use curtsy::web::{Context, Engine, Run};
use tower_http::compression::CompressionLayer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let old = axum::Router::new()
        .route("/users/{id}", get(user))
        .route("/path", get(async |uri: Uri| format!("axum sees {uri}")));

    let mut r = Engine::default();
    r.layer(CompressionLayer::new());
    r.get("/", async |c: &mut Context| c.string(200, "new"));
    r.get("/long", async |c: &mut Context| {
        c.string(200, "tea ".repeat(1000))
    });
    r.mount("/old", old);
    r.run("")?;
    Ok(())
}

async fn user(Path(id): Path<u32>) -> String {
    format!("axum has user {id}")
}
