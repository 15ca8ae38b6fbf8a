//! The same as over plain sockets: what an encrypted client does while its request is in flight.

use crate::support::{any_port, ask, config, hear, say, secure, serve, soon};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn an_encrypted_client_that_goes_is_noticed() {
    let server = serve(any_port().tls(config()), |builder| builder).await;
    // With a farewell and without one.
    for polite in [true, false] {
        for body in ["", "hello"] {
            let mut client = secure(server.address, &[]).await;
            ask(&mut client, "/").await;
            let request = format!(
                "POST /gate HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            soon(client.write_all(request.as_bytes())).await.unwrap();
            soon(client.flush()).await.unwrap();
            server.until(|now| now.counts.active == 1).await;
            if polite {
                soon(client.shutdown()).await.unwrap();
            }
            drop(client);
            server.until(|now| now.counts.total() == 0).await;
        }
    }
    assert!(server.stop().await.is_drained());
}

#[tokio::test]
async fn what_an_encrypted_client_sends_ahead_is_served_in_its_turn() {
    let server = serve(any_port().tls(config()), |builder| builder).await;
    let body = "0123456789".repeat(10_000);
    let ahead = format!(
        "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let ahead = format!("{ahead}GET /last HTTP/1.1\r\nhost: localhost\r\n\r\n");
    for cut in [1, 30, 2_048, 20_000, ahead.len()] {
        let mut client = secure(server.address, &[]).await;
        say(&mut client, "/gate").await;
        server.until(|now| now.counts.active == 1).await;
        let before = server.handle.metrics().received_bytes;
        for piece in [&ahead[..cut], &ahead[cut..]] {
            soon(client.write_all(piece.as_bytes())).await.unwrap();
            soon(client.flush()).await.unwrap();
            server
                .until(|_| server.handle.metrics().received_bytes > before)
                .await;
        }
        server.gate.add_permits(1);
        assert_eq!(hear(&mut client).await.1, "through");
        assert!(hear(&mut client).await.1 == body, "cut at {cut}");
        assert_eq!(hear(&mut client).await.1, "HTTP/1.1 /last");
        drop(client);
        server.until(|now| now.counts.total() == 0).await;
    }
    server.stop().await;
}
