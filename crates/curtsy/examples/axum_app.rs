//! An axum application on Curtsy: its own routes, WebSocket and event stream, unchanged but for
//! the line that serves it.
//!
//! ```sh
//! cargo run -p curtsy --example axum_app
//! curl http://127.0.0.1:3000/hello/ada         # Hello, ada from 127.0.0.1:
//! curl -N http://127.0.0.1:3000/clock          # then Ctrl-C the server: the stream says goodbye
//! ```

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, Path};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use curtsy::{ConnectionInfo, Draining};
use futures_util::{Stream, stream};
use std::convert::Infallible;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:3000");
    let app = Router::new()
        .route("/", get(async || "Hello, World!"))
        .route("/hello/{name}", get(hello))
        .route("/clock", get(clock))
        .route("/echo", get(echo));
    let listener = tokio::net::TcpListener::bind(address).await?;
    tell(listener.local_addr()?);
    // axum::serve(listener, app).await?;
    let outcome = curtsy::serve(listener, app).await?;
    std::process::exit(i32::from(!outcome.is_drained()) * 3);
}

#[allow(clippy::print_stdout, reason = "an example that says where it is")]
fn tell(address: std::net::SocketAddr) {
    println!("listening on {address}");
}

/// The client's address comes with the request.
async fn hello(Path(name): Path<String>, Extension(from): Extension<ConnectionInfo>) -> String {
    format!("Hello, {name} from {}!", from.peer())
}

/// A stream without end: it must be told of the drain.
async fn clock(
    Extension(draining): Extension<Draining>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = stream::unfold(Some(0), move |tick: Option<u64>| {
        let draining = draining.clone();
        async move {
            let tick = tick?;
            tokio::select! {
                () = draining.wait() => Some((Ok(Event::default().event("bye").data("")), None)),
                () = tokio::time::sleep(Duration::from_millis(200)) => {
                    Some((Ok(Event::default().data(tick.to_string())), Some(tick + 1)))
                }
            }
        }
    });
    Sse::new(ticks)
}

async fn echo(upgrade: WebSocketUpgrade, Extension(draining): Extension<Draining>) -> Response {
    upgrade
        .on_upgrade(move |socket| talk(socket, draining))
        .into_response()
}

async fn talk(mut socket: WebSocket, draining: Draining) {
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            () = draining.wait() => break,
        };
        let Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) = message else {
            return;
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
    let away = CloseFrame {
        code: close_code::AWAY,
        reason: "the server is stopping".into(),
    };
    if socket.send(Message::Close(Some(away))).await.is_ok() {
        // The peer answers with its own Close.
        while let Some(Ok(_)) = socket.recv().await {}
    }
}
