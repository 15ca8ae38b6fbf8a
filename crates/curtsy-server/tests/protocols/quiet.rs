//! The hook for quiet moments, on a worker that never sees a deadline of HTTP/1.

use crate::http2::{Client, hear};
use crate::support::{any_port, config, connect, secure, serve, soon};
use http::StatusCode;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than it has to be quiet for the hook to be called.
const LONGER: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn handshakes_http2_and_websockets_are_followed_by_quiet_moments() {
    let (count, mut told) = watch::channel(0);
    let server = serve(any_port().tls(config()), |builder| {
        builder.on_quiet(move || count.send_modify(|n| *n += 1))
    })
    .await;
    // A handshake that comes to nothing.
    let socket = connect(server.address).await;
    drop(socket);
    soon(told.changed()).await.unwrap();
    assert_eq!(*told.borrow_and_update(), 1);

    let mut client = Client::over(secure(server.address, &["h2"]).await).await;
    // A stream is open for longer than it has to be quiet.
    let answer = client.say("/gate").await;
    assert!(timeout(LONGER, told.changed()).await.is_err(), "it waits");
    server.gate.add_permits(1);
    assert_eq!(soon(hear(answer)).await.0, StatusCode::OK);
    soon(told.changed()).await.unwrap();
    assert_eq!(*told.borrow_and_update(), 2);
    assert!(timeout(LONGER, told.changed()).await.is_err(), "once");
    // One that rests is closed without more ado.
    drop(client);

    let stream = secure(server.address, &["http/1.1"]).await;
    let client = tokio_tungstenite::client_async("wss://localhost/ws", stream);
    let (websocket, _) = soon(client).await.unwrap();
    // Nothing is asked of the worker while it is open and silent.
    soon(told.changed()).await.unwrap();
    assert_eq!(*told.borrow_and_update(), 3);
    drop(websocket);
    soon(told.changed()).await.unwrap();
    assert_eq!(*told.borrow_and_update(), 4);
    server.stop().await;
}
