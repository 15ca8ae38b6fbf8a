//! The framework as its users run it, without the logger: `Engine::new()` and handlers.

use curtsy::web::{Context, Engine, Mode, Result, Run, Valid};
use peer::HELLO;
use web::{Signup, User};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    Mode::set(Mode::Release);
    let mut r = Engine::new();
    r.get("/", async |c: &mut Context| c.string(200, HELLO));
    r.get("/user/:name", async |c: &mut Context| {
        let text = format!("Hello, {}!", c.param("name"));
        c.string(200, text);
    });
    r.get("/json/:name", json);
    r.post("/signup", signup);
    web::serve(r.into_service())
}

async fn json(c: &mut Context) {
    let name = c.param("name").to_owned();
    c.json(
        200,
        &User {
            name: &name,
            admin: false,
        },
    );
}

async fn signup(c: &mut Context) -> Result {
    let Valid(signup) = c.bind_json::<Valid<Signup>>().await?;
    c.json(
        200,
        &User {
            name: &signup.name,
            admin: false,
        },
    );
    Ok(())
}
