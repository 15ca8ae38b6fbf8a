//! The control socket.

use crate::support::*;
use curtsy_server::{Certificate, Control, ModeName, TlsConfig};
use std::os::unix::fs::PermissionsExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

#[tokio::test]
async fn a_server_is_steered_over_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (directory.path().join("c"), directory.path().join("k"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = TlsConfig::new([Certificate::from_pem_files(&chain, &key).unwrap()]).unwrap();
    let listener = any_port().tls_in_reserve(tls);
    let server = serve(listener, |b| b.control(&path)).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut control = Control::connect(&path).await.unwrap();
    control.switch("main", ModeName::Tls).await.unwrap();
    assert_eq!(server.handle.mode("main"), Some(ModeName::Tls));
    let mut client = secure(server.address, &[]).await;
    assert!(ask(&mut client, "/who").await.1.ends_with("tls=true"));
    let error = control.switch("other", ModeName::Plain).await.unwrap_err();
    assert!(
        error.is_control() && error.to_string().contains("no listener"),
        "{error}"
    );
    control.reload_certificates().await.unwrap();
    std::fs::write(&chain, "nothing").unwrap();
    let error = control.reload_certificates().await.unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
    say(&mut client, "/gate").await;
    server.until(|now| now.stragglers.len() == 1).await;
    let snapshot = control.snapshot().await.unwrap();
    assert!(
        snapshot.contains("\"/gate\"") && snapshot.contains("\"serving\""),
        "{snapshot}"
    );
    control.switch("main", ModeName::Plain).await.unwrap();
    server.gate.add_permits(1);
    assert!(hear(&mut client).await.0.contains("connection: close"));

    // Others may speak at the same time, by hand, and wrongly.
    let mut raw = BufReader::new(UnixStream::connect(&path).await.unwrap());
    raw.write_all(b"nonsense\n\n{\"v\":9}\n{\"v\":1,\"command\":\"snapshot\"}\n")
        .await
        .unwrap();
    for expected in ["not understood", "version 9", "\"ok\":true"] {
        let mut line = String::new();
        soon(raw.read_line(&mut line)).await.unwrap();
        assert!(line.contains(expected), "{line}");
    }
    // An endless line is answered and ended.
    raw.write_all(&[b'x'; 5000]).await.unwrap();
    let mut rest = String::new();
    let _ = soon(raw.read_to_string(&mut rest)).await;
    assert!(rest.contains("at most"), "{rest}");

    // Many clients that say nothing keep nobody out for ever: those who leave make room.
    let silent: Vec<_> = (0..20)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    drop(silent);
    Control::connect(&path)
        .await
        .unwrap()
        .snapshot()
        .await
        .unwrap();
    server.stop().await;
    assert!(!path.exists(), "the path goes with the server");
    assert!(Control::connect(&path).await.unwrap_err().is_control());
}
