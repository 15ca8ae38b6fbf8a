//! Under systemd: the socket is systemd's, so that not even the first connection is refused, and systemd
//! is told when the service is ready and when it stops.
//!
//! ```sh
//! cargo build -p curtsy --example systemd
//! systemd-socket-activate -l 127.0.0.1:8080 target/debug/examples/systemd
//! curl http://127.0.0.1:8080/                  # Hello from systemd's socket!
//! ```
//!
//! As units:
//!
//! ```ini
//! # app.socket
//! [Socket]
//! ListenStream=8080
//!
//! # app.service
//! [Service]
//! Type=notify
//! ExecStart=/usr/local/bin/app
//! TimeoutStopSec=40
//! ```
//!
//! Without systemd it listens on the environment's `PORT`, or on 8080.

use curtsy::web::{Context, Engine, Run, announce, listen_address};
use curtsy::{Handle, ListenOn, Phase, Server};
use curtsy_handover::{Start, notify::Notify};
use std::io;

struct From(&'static str);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let notify = Notify::new(&Start::capture());
    let is_activated = std::env::var_os("LISTEN_FDS").is_some();

    let from = if is_activated { "systemd's" } else { "its own" };
    let mut r = Engine::default().with_state(From(from));
    r.get("/", async |c: &mut Context| {
        let From(from) = *c.state();
        c.string(200, format!("Hello from {from} socket!"));
    });

    let on = match is_activated {
        true => ListenOn::inherited(),
        false => ListenOn::from(listen_address(None).as_str()),
    };
    let server = Server::builder()
        .listen(on)
        .connection_in_extensions(false)
        .build(r.clone().into_service())?;
    for (_, address) in server.listeners() {
        announce(&r, &address.to_string());
    }
    let telling = tokio::spawn(tell(server.handle(), notify));
    server.run().await?;
    telling.await??;
    Ok(())
}

/// Tells systemd what the server goes through. Without one, nobody is told.
async fn tell(server: Handle, systemd: Notify) -> io::Result<()> {
    if server.reached(Phase::Serving).await {
        systemd.ready()?;
    }
    if server.reached(Phase::Draining).await {
        systemd.stopping()?;
    }
    Ok(())
}
