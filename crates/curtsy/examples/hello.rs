//! The framework's smallest program.
//!
//! ```sh
//! cargo run -p curtsy --example hello
//! ```

use curtsy::web::{Context, Engine, Run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut r = Engine::default();
    r.get("/", async |c: &mut Context| c.string(200, "Hello, World!"));
    r.get("/user/:name", async |c: &mut Context| {
        let greeting = format!("Hello, {}!", c.param("name"));
        c.string(200, greeting);
    });
    r.run(":8080")?;
    Ok(())
}
