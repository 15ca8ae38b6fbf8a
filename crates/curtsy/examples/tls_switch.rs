//! A service that goes from HTTP to HTTPS and back on one port, while it is in use: by a route of its
//! own, or from outside by its control socket.
//!
//! ```sh
//! cargo run -p curtsy --example tls_switch                      # listens on :9000
//! curl http://127.0.0.1:9000/                                   # Hello over http!
//! curl -X POST http://127.0.0.1:9000/speak/tls                  # main speaks tls
//! curl -k https://127.0.0.1:9000/                               # Hello over https!
//! curl -k -X POST https://127.0.0.1:9000/speak/both             # main speaks both
//! curl http://127.0.0.1:9000/                                   # Hello over http!
//! curl -k -X POST https://127.0.0.1:9000/speak/plain            # main speaks plain
//! curl http://127.0.0.1:9000/                                   # Hello over http!
//! ```
//!
//! From outside, with the path that it prints: `curtsy switch main tls --control PATH`, or
//! `curtsy::Control` from a program.
//!
//! A real service would keep such a route for itself. Its certificate is made at the start; for one
//! from files, `Certificate::from_pem_files`.

use curtsy::web::{Context, Engine, Error, Result, Run, StatusCode, announce};
use curtsy::{Certificate, Handle, ListenOn, ModeName, Server, TlsConfig, control_path};
use std::sync::OnceLock;

/// The server's handle, for a handler; it is there as soon as the server is.
#[derive(Default)]
struct Steering(OnceLock<Handle>);

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or(":9000");

    let mut r = Engine::default().with_state(Steering::default());
    r.get("/", async |c: &mut Context| {
        let greeting = format!("Hello over {}!", c.scheme());
        c.string(200, greeting);
    });
    r.post("/speak/:mode", speak);

    let tls = TlsConfig::new([Certificate::self_signed(["localhost", "127.0.0.1"])?])?;
    let control = control_path(std::process::id());
    let server = Server::builder()
        .listen(ListenOn::from(address).tls_in_reserve(tls))
        .control(&control)
        .connection_in_extensions(false)
        .build(r.clone().into_service())?;
    let steering = r.state::<Steering>();
    if let Some(steering) = steering {
        let _ = steering.0.set(server.handle());
    }
    for (_, address) in server.listeners() {
        announce(&r, &format!("{address}, steered at {}", control.display()));
    }
    server.run().await?;
    Ok(())
}

/// Answers in the old mode; new connections get the new one, and those of the old one finish.
async fn speak(c: &mut Context) -> Result<String> {
    let mode = match c.param("mode") {
        "plain" => ModeName::Plain,
        "tls" => ModeName::Tls,
        "both" => ModeName::Both,
        other => {
            let message = format!("no mode is named {other:?}");
            return Err(Error::new(StatusCode::NOT_FOUND, message).into());
        }
    };
    let steering = c.state::<Steering>();
    if let Some(handle) = steering.0.get() {
        handle.switch_to("main", mode)?;
    }
    Ok(format!("main speaks {mode}"))
}
