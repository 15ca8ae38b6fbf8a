//! TLS and what is at its edges: handshakes, plain clients, silent ones, draining.

use crate::support::*;
use curtsy_server::{
    Certificate, CertificateStore, ClientCertificates, Limits, ListenOn, PlainOnTls, ProxyPeers,
    TlsConfig,
};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn requests_are_served_over_tls_and_say_so() {
    let server = serve(any_port().tls(config()), |b| b).await;
    let mut client = secure(server.address, &["http/1.1"]).await;
    let local = client.get_ref().0.local_addr().unwrap();
    let (head, body) = ask(&mut client, "/who").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, format!("{local} {} tls=true", server.address));
    // Again, larger than one record, on the same connection.
    let (_, body) = ask(&mut client, "/big").await;
    assert_eq!(body.len(), 1 << 20);
    let (head, _) = ask(&mut client, "/panic").await;
    assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    assert!(server.stop().await.is_drained());
}

#[tokio::test]
async fn large_bodies_come_through_both_ways() {
    let server = serve(any_port().tls(config()), |b| b).await;
    let client = secure(server.address, &[]).await;
    let (mut read, mut write) = tokio::io::split(client);
    let body: Vec<u8> = (0..3_000_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        let head = format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            sent.len()
        );
        write.write_all(head.as_bytes()).await.unwrap();
        for part in sent.chunks(7_777) {
            write.write_all(part).await.unwrap();
        }
        write.flush().await.unwrap();
        write
    });
    let (_, echoed) = hear(&mut read).await;
    assert!(echoed.as_bytes() == body);
    drop(soon(sending).await);
    server.stop().await;
}

#[tokio::test]
async fn a_rested_connection_serves_again() {
    let server = serve(any_port().tls(config()), |builder| {
        builder.limits(Limits {
            park_after: Duration::from_millis(10),
            ..Limits::default()
        })
    })
    .await;
    let mut client = secure(server.address, &[]).await;
    for _ in 0..3 {
        ask(&mut client, "/").await;
        server
            .until(|now| now.counts.idle == 1 && now.counts.parked == 1)
            .await;
    }
    assert_eq!(server.handle.snapshot().counts.total(), 1);
    assert!(server.handle.metrics().parkings >= 3);
    client.shutdown().await.unwrap();
    server.until(|now| now.counts.total() == 0).await;
    assert!(rest(&mut client).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn resting_connections_end_with_their_patience() {
    let server = serve(any_port().tls(config()), |builder| {
        builder.limits(Limits {
            park_after: Duration::from_millis(10),
            idle_timeout: Duration::from_millis(100),
            header_timeout: Duration::from_millis(150),
            ..Limits::default()
        })
    })
    .await;
    let mut idle = secure(server.address, &[]).await;
    ask(&mut idle, "/").await;
    let mut silent = secure(server.address, &[]).await;
    // Closed by the server, with an alert that says so: the reads end without an error.
    assert!(rest(&mut idle).await.is_empty());
    assert!(rest(&mut silent).await.is_empty());
    server.until(|now| now.counts.total() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_plain_client_gets_what_the_listener_says() {
    for (what, expected) in [
        (PlainOnTls::Refuse400, "HTTP/1.1 400 "),
        (PlainOnTls::Redirect308, "HTTP/1.1 308 "),
        (PlainOnTls::Serve, "HTTP/1.1 200 "),
    ] {
        let listener = any_port().tls(config()).plain_on_tls(what);
        let server = serve(listener, |b| b).await;
        let mut client = connect(server.address).await;
        let (head, _) = ask(&mut client, "/a?b=c").await;
        assert!(head.starts_with(expected), "{head}");
        if what == PlainOnTls::Redirect308 {
            assert!(
                head.contains("\r\nlocation: https://localhost/a?b=c\r\n"),
                "{head}"
            );
        }
        if what != PlainOnTls::Serve {
            assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
            assert!(rest(&mut client).await.is_empty());
        }
        drop(client);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_tls_client_on_a_plain_listener_gets_an_alert() {
    let server = serve(any_port(), |b| b).await;
    let mut raw = connect(server.address).await;
    raw.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])
        .await
        .unwrap();
    assert_eq!(rest(&mut raw).await, [0x15, 3, 1, 0, 2, 2, 40]);
    let socket = connect(server.address).await;
    let error = secure_over(socket, "localhost", client_config(&[]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("HandshakeFailure"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn both_serves_either() {
    let server = serve(any_port().both(config()), |b| b).await;
    let mut plain = connect(server.address).await;
    let mut encrypted = secure(server.address, &[]).await;
    for _ in 0..2 {
        assert!(ask(&mut plain, "/who").await.1.ends_with("tls=false"));
        assert!(ask(&mut encrypted, "/who").await.1.ends_with("tls=true"));
    }
    server.stop().await;
}

#[tokio::test]
async fn one_byte_at_a_time_is_detected_too() {
    let server = serve(any_port().both(config()), |b| b).await;
    let mut client = connect(server.address).await;
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(hear(&mut client).await.0.starts_with("HTTP/1.1 200 "));
    server.stop().await;
}

/// Also: broken handshakes end by an alert.
#[tokio::test]
async fn handshakes_are_bounded() {
    let server = serve(any_port().tls(config()), |builder| {
        builder.limits(Limits {
            handshake_timeout: Duration::from_millis(200),
            ..Limits::default()
        })
    })
    .await;
    let mut silent = connect(server.address).await;
    let mut half = connect(server.address).await;
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await.unwrap();
    server.until(|now| now.counts.handshake == 2).await;
    let begun = Instant::now();
    let mut byte = [0];
    assert_eq!(soon(silent.read(&mut byte)).await.unwrap_or(0), 0);
    assert_eq!(soon(half.read(&mut byte)).await.unwrap_or(0), 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let mut nonsense = connect(server.address).await;
    nonsense
        .write_all(&[0x16, 3, 1, 0, 4, 2, 0, 0, 0])
        .await
        .unwrap();
    assert_eq!(rest(&mut nonsense).await[0], 0x15);
    server.until(|now| now.counts.total() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn many_silent_handshakes_slow_nobody_down() {
    const SILENT: usize = 1_500;
    let server = serve(any_port().tls(config()), |b| b).await;
    let mut silent = Vec::new();
    for n in 0..SILENT {
        let mut socket = connect(server.address).await;
        if n % 2 == 0 {
            socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await.unwrap();
        }
        silent.push(socket);
    }
    server.until(|now| now.counts.handshake == SILENT).await;
    let begun = Instant::now();
    for _ in 0..20 {
        let mut client = secure(server.address, &[]).await;
        ask(&mut client, "/").await;
    }
    let each = begun.elapsed() / 20;
    assert!(
        each < Duration::from_millis(500),
        "a handshake took {each:?}"
    );
    server.handle.wish_shutdown();
    // Those that said nothing go after the linger, those that began after a grace.
    let outcome = server.stopped().await;
    assert!(outcome.is_drained(), "{}", outcome.report());
    assert!(
        outcome.report().took < Duration::from_secs(8),
        "{}",
        outcome.report()
    );
}

#[tokio::test]
async fn names_choose_certificates() {
    let named = |name: &str| Certificate::self_signed([name]).unwrap();
    let certificates = [named("first.test"), named("*.wild.test")];
    let tls = TlsConfig::new(certificates.clone()).unwrap();
    let server = serve(any_port().tls(tls.clone()), |b| b).await;
    let shown = async |name: &str| {
        let socket = connect(server.address).await;
        let client = secure_over(socket, name, client_config(&[])).await.unwrap();
        client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown("first.test").await;
    assert_eq!(shown("other.test").await, first);
    let wild = shown("a.wild.test").await;
    assert_ne!(wild, first);
    assert_eq!(shown("b.wild.test").await, wild);
    // Replaced while in use: old connections go on, new ones see the new.
    let mut old = secure(server.address, &[]).await;
    ask(&mut old, "/").await;
    tls.certificates().replace([named("first.test")]).unwrap();
    assert_ne!(shown("first.test").await, first);
    assert!(ask(&mut old, "/").await.0.starts_with("HTTP/1.1 200 "));
    server.stop().await;
}

#[tokio::test]
async fn files_are_reloaded_through_the_handle() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("c"), directory.path().join("k"));
    let write = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    };
    let first = write();
    let tls = TlsConfig::new([Certificate::from_pem_files(&chain, &key).unwrap()]).unwrap();
    let server = serve(any_port().tls(tls), |b| b).await;
    let shown = async || {
        let client = secure(server.address, &[]).await;
        client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    assert_eq!(shown().await, first);
    let second = write();
    server.handle.reload_certificates().unwrap();
    assert_eq!(shown().await, second);
    // What cannot be used is refused, and says why; the old one stays.
    let good = |path| std::fs::read_to_string(path).unwrap();
    let (good_chain, good_key) = (good(&chain), good(&key));
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let expired = {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        params.self_signed(&other.signing_key).unwrap().pem()
    };
    let other_key = other.signing_key.serialize_pem();
    for (bad_chain, bad_key, why) in [
        ("nothing", good_key.as_str(), "no certificate"),
        (&*good_chain, "nothing", "no private key"),
        (&*good_chain, &*other_key, "does not belong"),
        (&*expired, &*other_key, "has expired"),
    ] {
        std::fs::write(&chain, bad_chain).unwrap();
        std::fs::write(&key, bad_key).unwrap();
        let error = server.handle.reload_certificates().unwrap_err();
        assert!(
            error.is_certificate() && error.to_string().contains(why),
            "{error}, where {why:?} was expected"
        );
        assert_eq!(shown().await, second, "{why}");
    }
    std::fs::write(&chain, other.cert.pem()).unwrap();
    std::fs::write(&key, &other_key).unwrap();
    server.handle.reload_certificates().unwrap();
    assert_eq!(shown().await, other.cert.der().to_vec());
    server.stop().await;
}

#[tokio::test]
async fn changed_files_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("c"), directory.path().join("k"));
    let write = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&chain, made.cert.pem()).unwrap();
        made.cert.der().to_vec()
    };
    write();
    let tls = TlsConfig::new([Certificate::from_pem_files(&chain, &key).unwrap()]).unwrap();
    let every = Duration::from_millis(10);
    let server = serve(any_port().tls(tls), |b| b.watch_certificates(every)).await;
    // In two steps, the first of which leaves a key that does not fit.
    let second = write();
    soon(async {
        loop {
            let client = secure(server.address, &[]).await;
            if client.get_ref().1.peer_certificates().unwrap()[0].to_vec() == second {
                return;
            }
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn sessions_are_resumed_with_tickets() {
    let server = serve(any_port().tls(config()), |b| b).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = client_config(&[]);
        let provider = client.crypto_provider().clone();
        let resumption = client.resumption.clone();
        client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(gullible())
            .with_no_client_auth();
        client.resumption = resumption;
        let kind = async || {
            let socket = connect(server.address).await;
            let mut stream = secure_over(socket, "localhost", client.clone())
                .await
                .unwrap();
            ask(&mut stream, "/").await;
            stream.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(kind().await, rustls::HandshakeKind::Full, "{version:?}");
        assert_eq!(kind().await, rustls::HandshakeKind::Resumed, "{version:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_comes_to_those_who_ask_nothing_too() {
    let server = serve(any_port().tls(config()), |builder| {
        builder.limits(Limits {
            park_after: Duration::from_millis(10),
            ..Limits::default()
        })
    })
    .await;
    let mut client = secure(server.address, &[]).await;
    let begun = Instant::now();
    while client.get_ref().1.tls13_tickets_received() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "no ticket");
        let read = tokio::time::timeout(Duration::from_millis(20), client.read_u8());
        assert!(read.await.is_err(), "nothing to read");
    }
    server.until(|now| now.counts.parked == 1).await;
    ask(&mut client, "/").await;
    server.stop().await;
}

#[tokio::test]
async fn keys_are_replaced_between_requests_and_rests() {
    let server = serve(any_port().tls(config()), |builder| {
        builder.limits(Limits {
            park_after: Duration::from_millis(10),
            ..Limits::default()
        })
    })
    .await;
    let mut client = secure(server.address, &[]).await;
    for round in 0..10 {
        for _ in 0..round {
            let (_, body) = ask(&mut client, "/big").await;
            assert_eq!(body.len(), 1 << 20);
            client.get_mut().1.refresh_traffic_keys().unwrap();
        }
        server.until(|now| now.counts.parked == 1).await;
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.flush().await.unwrap();
        ask(&mut client, "/").await;
    }
    let (outcome, last) = tokio::join!(server.stop(), rest(&mut client));
    assert!(outcome.is_drained());
    assert!(last.is_empty());
}

#[tokio::test]
async fn client_certificates_are_optional_or_required() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["client.test".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let with_certificate = || {
        let provider = client_config(&[]).crypto_provider().clone();
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(gullible())
            .with_client_auth_cert(
                vec![own.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap()
    };
    let pem = authority.pem().into_bytes();
    for (clients, without_is_served) in [
        (ClientCertificates::Optional(pem.clone()), true),
        (ClientCertificates::Required(pem.clone()), false),
    ] {
        let store = CertificateStore::new([certificate()]).unwrap();
        let tls = TlsConfig::builder(store)
            .client_certificates(clients)
            .build()
            .unwrap();
        let server = serve(any_port().tls(tls), |b| b).await;
        let serves = async |config: rustls::ClientConfig| {
            let socket = connect(server.address).await;
            let Ok(mut stream) = secure_over(socket, "localhost", config).await else {
                return false;
            };
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut head = [0; 12];
            soon(stream.read_exact(&mut head)).await.is_ok() && &head == b"HTTP/1.1 200"
        };
        assert!(serves(with_certificate()).await);
        assert_eq!(serves(client_config(&[])).await, without_is_served);
        server.stop().await;
    }
    let store = CertificateStore::new([certificate()]).unwrap();
    let nobody = ClientCertificates::Required(b"nothing".to_vec());
    let error = TlsConfig::builder(store)
        .client_certificates(nobody)
        .build()
        .unwrap_err();
    assert!(error.is_certificate(), "{error}");
}

/// A drain over TLS: work in flight is finished, an idle connection is still served within the
/// linger, and told to close.
#[tokio::test]
async fn a_drain_serves_what_has_begun_and_what_still_comes() {
    let server = serve(any_port().tls(config()), |builder| {
        builder
            .drain(linger(Duration::from_secs(2)))
            .limits(Limits {
                park_after: Duration::from_millis(10),
                ..Limits::default()
            })
    })
    .await;
    let mut busy = secure(server.address, &[]).await;
    say(&mut busy, "/gate").await;
    let mut idle = secure(server.address, &[]).await;
    ask(&mut idle, "/").await;
    let mut silent = secure(server.address, &[]).await;
    server
        .until(|now| now.counts.active == 1 && now.counts.idle == 1)
        .await;
    server.handle.wish_shutdown();
    server.handle.reached(curtsy_server::Phase::Draining).await;
    let (head, _) = ask(&mut idle, "/late").await;
    assert!(head.contains("connection: close"), "{head}");
    assert!(rest(&mut idle).await.is_empty());
    server.gate.add_permits(1);
    let (head, body) = hear(&mut busy).await;
    assert!(
        head.contains("connection: close") && body == "through",
        "{head}"
    );
    // The linger's end closes the silent one.
    assert!(rest(&mut silent).await.is_empty());
    assert!(server.stopped().await.is_drained());
}

/// A request whose record has half arrived when the linger ends has begun.
#[tokio::test]
async fn half_a_record_is_waited_for_at_the_last_look() {
    let server = serve(any_port().tls(config()), |builder| {
        builder.drain(linger(Duration::ZERO)).limits(Limits {
            park_after: Duration::from_millis(10),
            ..Limits::default()
        })
    })
    .await;
    // The client's records pass through this pipe, to be sent in pieces.
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut socket = connect(server.address).await;
    let (cut, mut cuts) = tokio::sync::mpsc::unbounded_channel::<()>();
    let pump = tokio::spawn(async move {
        let (mut up, mut down) = ([0; 20_000], [0; 20_000]);
        let mut held: Option<Vec<u8>> = None;
        let mut hold = false;
        loop {
            tokio::select! {
                biased;
                Some(()) = cuts.recv() => {
                    match held.take() {
                        Some(rest) => { hold = false; socket.write_all(&rest).await.unwrap(); }
                        None => hold = true,
                    }
                }
                read = far.read(&mut up) => {
                    let bytes = &up[..read.unwrap()];
                    if bytes.is_empty() { return; }
                    let now = if hold { bytes.len() / 2 } else { bytes.len() };
                    socket.write_all(&bytes[..now]).await.unwrap();
                    if hold { held = Some(bytes[now..].to_vec()); }
                }
                read = socket.read(&mut down) => {
                    let read = read.unwrap();
                    if read == 0 { let _ = far.shutdown().await; return; }
                    far.write_all(&down[..read]).await.unwrap();
                }
            }
        }
    });
    let mut client = secure_over(near, "localhost", client_config(&[]))
        .await
        .unwrap();
    ask(&mut client, "/").await;
    server.until(|now| now.counts.idle == 1).await;
    cut.send(()).unwrap();
    say(&mut client, "/half").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.handle.wish_shutdown();
    server.handle.reached(curtsy_server::Phase::Draining).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    cut.send(()).unwrap();
    let (head, body) = hear(&mut client).await;
    assert!(
        head.contains("connection: close") && body.ends_with("/half"),
        "{head}{body}"
    );
    drop(client);
    assert!(server.stopped().await.is_drained());
    soon(pump).await.unwrap();
}

#[tokio::test]
async fn proxies_tell_their_clients_addresses() {
    let peers = || ProxyPeers::new(["127.0.0.0/8"]).unwrap();
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 443\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 1, 187]);
    let limits = Limits {
        park_after: Duration::from_millis(10),
        ..Limits::default()
    };
    for listener in [
        any_port(),
        any_port().tls(config()),
        any_port().both(config()),
    ] {
        let server = serve(listener.proxied_by(peers()), |b| b.limits(limits.clone())).await;
        let is_plain = server.handle.mode("main") == Some(curtsy_server::ModeName::Plain);
        for header in [&v1, &v2] {
            let mut socket = connect(server.address).await;
            // In two pieces, as the network may.
            socket.write_all(&header[..9]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            socket.write_all(&header[9..]).await.unwrap();
            if is_plain {
                ask(&mut socket, "/who").await;
                // Parked and called back, it is still known.
                server.until(|now| now.counts.parked == 1).await;
                let (_, who) = ask(&mut socket, "/who").await;
                assert_eq!(who, "192.0.2.1:1111 192.0.2.2:443 tls=false");
                drop(socket);
            } else {
                let mut client = secure_over(socket, "localhost", client_config(&[]))
                    .await
                    .unwrap();
                let (_, who) = ask(&mut client, "/who").await;
                assert_eq!(who, "192.0.2.1:1111 192.0.2.2:443 tls=true");
            }
            server.until(|now| now.counts.total() == 0).await;
        }
        let mut bad = connect(server.address).await;
        bad.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut byte = [0];
        assert_eq!(soon(bad.read(&mut byte)).await.unwrap_or(0), 0);
        server.stop().await;
    }
    // Whoever was not named is not believed.
    let others = ProxyPeers::new(["192.0.2.0/24"]).unwrap();
    let server = serve(ListenOn::from("127.0.0.1:0").proxied_by(others), |b| b).await;
    let mut client = connect(server.address).await;
    let (_, who) = ask(&mut client, "/who").await;
    assert!(who.starts_with("127.0.0.1:"), "{who}");
    let mut liar = connect(server.address).await;
    liar.write_all(&v1).await.unwrap();
    assert!(rest(&mut liar).await.starts_with(b"HTTP/1.1 400 "));
    server.stop().await;
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_by_why() {
    let server = serve(any_port().tls(config()), |builder| {
        builder.limits(Limits {
            handshake_timeout: Duration::from_millis(300),
            ..Limits::default()
        })
    })
    .await;
    // Gone, no TLS, a record that is none of ours, silent.
    drop(connect(server.address).await);
    let mut plain = connect(server.address).await;
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut broken = connect(server.address).await;
    broken
        .write_all(&[0x16, 3, 1, 0, 4, 9, 9, 9, 9])
        .await
        .unwrap();
    broken.shutdown().await.unwrap();
    let silent = connect(server.address).await;
    let expected = ["closed", "refused", "timeout", "unencrypted"];
    let lines =
        expected.map(|why| format!("curtsy_handshake_failures_total{{reason=\"{why}\"}} 1\n"));
    let counted = async {
        while !lines
            .iter()
            .all(|line| server.handle.metrics().prometheus().contains(line))
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, counted).await.is_err() {
        panic!("{}", server.handle.metrics().prometheus());
    }
    drop((plain, broken, silent));
    server.stop().await;
}

/// The contract's row 14, with a handshake first.
#[tokio::test]
async fn states_of_encrypted_connections_are_told_in_their_order() {
    use curtsy_server::State::{Active, Closed, Handshake, Idle, New};
    let states = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = states.clone();
    let server = serve(any_port().tls(config()), |builder| {
        builder.on_connection_state(move |_, state| told.lock().unwrap().push(state))
    })
    .await;
    let until = async |expected: &[curtsy_server::State]| {
        server
            .until(|_| states.lock().unwrap().len() >= expected.len())
            .await;
        assert_eq!(*states.lock().unwrap(), expected);
    };
    let mut client = secure(server.address, &[]).await;
    until(&[Handshake, New]).await;
    say(&mut client, "/gate").await;
    until(&[Handshake, New, Active]).await;
    server.gate.add_permits(1);
    hear(&mut client).await;
    until(&[Handshake, New, Active, Idle]).await;
    drop(client);
    until(&[Handshake, New, Active, Idle, Closed]).await;
    server.stop().await;
}
