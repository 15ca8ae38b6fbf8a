//! The public API, from the outside: one topic a module.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bind;
mod client_ip;
mod flow;
mod github;
mod logger;
mod multipart;
mod recovery;
mod redirect;
mod render;
mod router;
mod served;
mod static_files;
mod streams;
mod surface;
mod tower;
mod websocket;

use curtsy_web::{Context, Engine, Mode};

/// An engine that says nothing of itself.
fn engine() -> Engine {
    Mode::set(Mode::Test);
    Engine::new()
}

/// Answers with the route and its parameters: `/a/:b b=1`.
async fn echo(c: &mut Context) {
    let mut text = c.full_path().to_owned();
    for (name, value) in c.params() {
        text.push_str(&format!(" {name}={value}"));
    }
    c.string(200, text);
}
