//! Restart in place: on SIGHUP the program at the same path takes over the port, with every connection, and
//! no request is lost. Build a new version, send the signal, and the next request is answered by it.
//!
//! ```sh
//! cargo run -p curtsy --example restart
//! curl http://127.0.0.1:8080/                  # generation 0
//! kill -HUP "$(pidof restart)"                 # the next answer says generation 1
//! ```

use curtsy::web::{Context, Engine, Run, announce, listen_address};
use curtsy::{Server, SignalKind, Succession};

struct Generation(u64);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: what the process before this one hands over.
    let succession = Succession::begin().await?;

    let mut r = Engine::default().with_state(Generation(succession.generation()));
    r.get("/", async |c: &mut Context| {
        let Generation(generation) = *c.state();
        let pid = std::process::id();
        c.string(200, format!("generation {generation}, process {pid}"));
    });

    let server = Server::builder()
        .listen(("main", listen_address(None).as_str()))
        .succession(succession)
        .restart_on(SignalKind::hangup())
        .connection_in_extensions(false)
        .build(r.clone().into_service())?;
    for (_, address) in server.listeners() {
        announce(&r, &address.to_string());
    }
    server.run().await?;
    Ok(())
}
