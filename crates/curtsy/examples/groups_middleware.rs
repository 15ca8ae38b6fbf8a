//! Groups of routes and middleware: for everything, for a group, for one route, and one of your own.
//!
//! ```sh
//! cargo run -p curtsy --example groups_middleware
//! curl http://127.0.0.1:8080/v1/tea                             # green
//! curl http://127.0.0.1:8080/v2/tea                             # {"tea":"green"}
//! curl -i http://127.0.0.1:8080/v1/tea                          # server-timing: app;dur=
//! curl -i http://127.0.0.1:8080/members                         # 401 Unauthorized
//! curl -H 'X-Key: tea' http://127.0.0.1:8080/members            # Welcome, ada!
//! curl -i http://127.0.0.1:8080/admin/stats                     # Basic realm=
//! curl -u ann:s3cret http://127.0.0.1:8080/admin/stats          # Hello, ann!
//! ```

use curtsy::web::{Context, Engine, Logger, Recovery, Run, basic_auth};
use serde_json::json;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::new();
    // For every route after this line, in this order. The logger need not know of health checks.
    r.use_middleware((
        Logger::new().skip_paths(["/health"]),
        Recovery::new(),
        timing,
    ));
    r.get("/health", async |c: &mut Context| c.status(204));

    let mut v1 = r.group("/v1");
    v1.get("/tea", async |c: &mut Context| c.string(200, "green"));
    let mut v2 = r.group("/v2");
    v2.get("/tea", async |c: &mut Context| {
        c.json(200, &json!({ "tea": "green" }));
    });

    // For one route: middleware first, the handler last.
    r.get("/members", (members_only, welcome));

    // For a group, and a group within it.
    let mut admin = r.group_with("/admin", basic_auth([("ann", "s3cret")]));
    let mut stats = admin.group("/stats");
    stats.get("", async |c: &mut Context| {
        let user = c.get::<String>("user").cloned().unwrap_or_default();
        c.string(200, format!("Hello, {user}!"));
    });

    r.run("")?;
    Ok(())
}

/// Before and after the rest of the chain. The answer is kept until the last handler returns, so
/// that a header can still be set after it.
async fn timing(c: &mut Context) {
    let began = Instant::now();
    c.next().await;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    c.header("Server-Timing", format!("app;dur={ms:.3}"));
}

/// Lets the next handler run, or aborts; what it finds out it leaves in the context.
async fn members_only(c: &mut Context) {
    if c.get_header("x-key") != "tea" {
        return c.abort_with_status_json(401, &json!({ "error": "members only" }));
    }
    c.set("member", "ada");
}

async fn welcome(c: &mut Context) {
    let member = *c.must_get::<&str>("member");
    c.string(200, format!("Welcome, {member}!"));
}
