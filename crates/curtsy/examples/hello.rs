//! The framework's smallest program: a route, and a route with a parameter.
//!
//! ```sh
//! cargo run -p curtsy --example hello
//! curl http://127.0.0.1:8080/                  # Hello, World!
//! curl http://127.0.0.1:8080/user/ada          # Hello, ada!
//! ```

use curtsy::web::{Context, Engine, Run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::default();
    r.get("/", async |c: &mut Context| c.string(200, "Hello, World!"));
    r.get("/user/:name", async |c: &mut Context| {
        let greeting = format!("Hello, {}!", c.param("name"));
        c.string(200, greeting);
    });
    r.run("")?; // the environment's PORT, or :8080
    Ok(())
}
