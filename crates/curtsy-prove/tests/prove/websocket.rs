//! WebSocket: every message accounted for, every Close told.

use std::time::Duration;

use curtsy_prove::{Loss, Plan, Report};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::servers::{Server, read_head, reset, send};

type Socket = WebSocketStream<TcpStream>;

fn plan(server: &Server, messages: u64) -> Plan {
    Plan::to_address(server.address, "/ws")
        .connections(1)
        .websocket(20)
        .requests_each(messages)
        .timeout(Duration::from_secs(10))
}

async fn run(plan: Plan) -> Report {
    let report = plan.start().finish().await;
    let c = &report.counts;
    assert_eq!(
        c.sent,
        c.answered + c.lost.total() + c.crossed_close,
        "{report}"
    );
    let closed = c.closed_by_server_announced + c.closed_while_idle;
    assert_eq!(
        c.opened,
        closed + c.closed_by_loss + c.closed_by_client,
        "{report}"
    );
    report
}

/// Echoes so many messages; false if the client was done before.
async fn echo(socket: &mut Socket, messages: usize) -> bool {
    let mut left = messages;
    while left > 0 {
        match socket.next().await {
            Some(Ok(message @ Message::Text(_))) => socket.send(message).await.expect("a reader"),
            Some(Ok(Message::Pong(_))) => continue,
            _ => return false,
        }
        left -= 1;
    }
    true
}

async fn close(mut socket: Socket, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "".into(),
    };
    socket.close(Some(frame)).await.expect("a reader");
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn an_echo_for_every_message() {
    let server = Server::start(|_, stream| async move {
        let mut socket = accept_async(stream).await.expect("an upgrade");
        socket
            .send(Message::Ping("x".into()))
            .await
            .expect("a reader");
        while echo(&mut socket, 1).await {}
        // The client has said Close; the answer to it goes out here.
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let report = run(plan(&server, 10).connections(5)).await;
    assert!(report.is_clean(), "{report}");
    let c = report.counts;
    assert_eq!((c.answered, c.opened, c.closed_by_client), (50, 5, 5));
    assert!(c.body_bytes >= 50 * 20);
    assert!(report.close_codes.is_empty());
}

#[tokio::test]
async fn a_close_while_idle_is_announced_and_told_by_its_code() {
    let server = Server::start(|_, stream| async move {
        let mut socket = accept_async(stream).await.expect("an upgrade");
        if echo(&mut socket, 1).await {
            close(socket, 1001).await;
        }
    })
    .await;
    let report = run(plan(&server, 3).think([Duration::from_millis(200)])).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.counts.answered, report.counts.opened), (3, 3));
    assert_eq!(report.counts.closed_by_server_announced, 2, "{report}");
    assert_eq!(report.close_codes.get(&1001), Some(&2));
}

#[tokio::test]
async fn a_message_that_crosses_a_close_is_no_loss() {
    for (code, is_orderly) in [(1001, true), (1011, false)] {
        let server = Server::start(move |_, stream| async move {
            let mut socket = accept_async(stream).await.expect("an upgrade");
            assert!(echo(&mut socket, 1).await);
            // The second message is there, and is not echoed.
            socket.get_ref().readable().await.expect("a message");
            close(socket, code).await;
        })
        .await;
        let report = run(plan(&server, 2)).await;
        assert_eq!(report.is_clean(), is_orderly, "{report}");
        assert_eq!(report.counts.answered, 1);
        assert_eq!(report.counts.crossed_close, u64::from(is_orderly));
        assert_eq!(report.counts.lost.eof_before, u64::from(!is_orderly));
        assert_eq!(report.close_codes.get(&code), Some(&1));
    }
}

#[tokio::test]
async fn an_end_without_close_loses_the_message_under_way() {
    for (is_reset, cause) in [(false, Loss::EofBefore), (true, Loss::Reset)] {
        let server = Server::start(move |_, stream| async move {
            let mut socket = accept_async(stream).await.expect("an upgrade");
            assert!(echo(&mut socket, 1).await);
            socket.next().await.expect("a message").expect("a message");
            if is_reset {
                reset(socket.into_inner());
            }
        })
        .await;
        let report = run(plan(&server, 2)).await;
        assert_eq!(
            (report.counts.answered, report.counts.lost.of(cause)),
            (1, 1),
            "{report}"
        );
        assert_eq!(report.counts.closed_by_loss, 1);
    }
}

#[tokio::test]
async fn an_idle_end_without_close_is_told() {
    let server = Server::start(|_, stream| async move {
        let mut socket = accept_async(stream).await.expect("an upgrade");
        echo(&mut socket, 1).await;
    })
    .await;
    let report = run(plan(&server, 2).think([Duration::from_millis(200)])).await;
    assert_eq!((report.counts.answered, report.lost()), (2, 0), "{report}");
    assert_eq!(report.counts.closed_while_idle, 1);
    assert_eq!(report.close_codes.get(&1006), Some(&1));
}

#[tokio::test]
async fn a_wrong_echo_is_a_loss() {
    let server = Server::start(|_, stream| async move {
        let mut socket = accept_async(stream).await.expect("an upgrade");
        while let Some(Ok(Message::Text(_))) = socket.next().await {
            socket
                .send(Message::text("something else"))
                .await
                .expect("a reader");
        }
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let report = run(plan(&server, 2)).await;
    assert_eq!(report.counts.lost.wrong_body, 2, "{report}");
    assert!(report.losses[0].detail.contains("something else"));
}

#[tokio::test]
async fn a_refused_upgrade_is_a_failed_connect() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let report = run(plan(&server, 1).duration(Duration::from_millis(100))).await;
    assert!(
        report.counts.connect_failed > 0 && report.counts.sent == 0,
        "{report}"
    );
    let (why, _) = report.connect_errors.first_key_value().expect("a reason");
    assert!(why.contains("503"), "{why}");
}
