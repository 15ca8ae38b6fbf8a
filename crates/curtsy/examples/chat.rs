//! A chat: a WebSocket for everybody, each message to all, and a proper goodbye when the server drains.
//!
//! ```sh
//! cargo run -p curtsy --example chat
//! curl http://127.0.0.1:8080/                  # <title>Chat</title>: open it in two windows
//! kill -TERM "$(pidof chat)"                   # every client is told: Close, 1001
//! ```

use curtsy::web::{Context, Engine, Message, Run, WebSocket};
use std::sync::Arc;
use tokio::sync::broadcast;

const PAGE: &str = include_str!("assets/chat.html");

/// How many messages a slow reader may be behind before it misses some.
const BEHIND_MAX: usize = 100;

struct Room(broadcast::Sender<String>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (room, _) = broadcast::channel(BEHIND_MAX);
    let mut r = Engine::default().with_state(Room(room));
    r.get("/", async |c: &mut Context| {
        c.data(200, "text/html; charset=utf-8", PAGE);
    });
    r.get("/ws", async |c: &mut Context| {
        let room = c.state::<Room>();
        let name = c.default_query("name", "somebody").to_owned();
        c.websocket(move |ws| talk(ws, room, name));
    });
    r.run("")?;
    Ok(())
}

/// Until the client leaves or the server drains. `recv` is where both are noticed: it sends the
/// Close and waits for the client's, so the loop ends only when `recv` says that it is over.
async fn talk(mut ws: WebSocket, room: Arc<Room>, name: String) {
    let mut heard = room.0.subscribe();
    // With nobody else in the room there is nobody to tell.
    let _ = room.0.send(format!("{name} is here"));
    loop {
        tokio::select! {
            said = ws.recv() => match said {
                Some(Ok(Message::Text(text))) => {
                    let _ = room.0.send(format!("{name}: {text}"));
                }
                Some(Ok(Message::Binary(_))) => {}
                Some(Err(_)) | None => break,
            },
            line = heard.recv() => if let Ok(line) = line {
                let _ = ws.text(line).await;
            },
        }
    }
    let _ = room.0.send(format!("{name} left"));
}
