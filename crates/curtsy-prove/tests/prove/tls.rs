//! TLS: whom the client trusts, and ends of stream that TLS does not announce.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curtsy_prove::{Loss, Plan, Report};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::servers::{HELLO, Server};

/// A server for `localhost` and its certificate as PEM.
async fn start<F, Fut>(protocols: &[&str], serve: F) -> (Server, String)
where
    F: Fn(TlsStream<TcpStream>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let names = vec!["127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(names).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()),
        )
        .expect("a pair");
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::start(move |_, stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            // A client that does not trust this server ends the handshake.
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream).await;
            }
        }
    })
    .await;
    (server, cert.pem())
}

fn plan(server: &Server, requests: u64) -> Plan {
    Plan::to(&format!("https://{}/", server.address))
        .expect("a URL")
        .connections(1)
        .requests_each(requests)
        .timeout(Duration::from_secs(10))
        .expect_text("hello")
}

async fn run(plan: Plan) -> Report {
    plan.start().finish().await
}

/// Reads one request; false at the end.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 1];
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

async fn serve_hello(mut stream: TlsStream<TcpStream>) {
    while read_head(&mut stream).await {
        stream.write_all(HELLO.as_bytes()).await.expect("a reader");
        stream.flush().await.expect("a reader");
    }
}

#[tokio::test]
async fn a_server_is_trusted_as_the_plan_says() {
    let (server, pem) = start(&["http/1.1"], serve_hello).await;
    let trusting = plan(&server, 3).trust_only(pem.as_bytes()).unwrap();
    let report = run(trusting.connections(3)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.counts.answered, report.counts.opened), (9, 3));

    let report = run(plan(&server, 3)
        .think([Duration::from_millis(2)])
        .insecure())
    .await;
    assert!(report.is_clean(), "{report}");

    let (_, other_pem) = start(&[], serve_hello).await;
    let strangers = plan(&server, 1).trust_only(other_pem.as_bytes()).unwrap();
    let report = run(strangers.duration(Duration::from_millis(100))).await;
    assert_eq!((report.counts.sent, report.counts.opened), (0, 0));
    assert!(
        report.counts.connect_failed > 0 && !report.is_clean(),
        "{report}"
    );
    let (why, _) = report.connect_errors.first_key_value().expect("a reason");
    assert!(why.contains("certificate"), "{why}");

    assert!(
        plan(&server, 1)
            .trust_only(b"nothing")
            .unwrap_err()
            .is_target()
    );
}

#[tokio::test]
async fn http2_is_agreed_by_alpn() {
    let serve = |stream| async move {
        let mut connection = h2::server::handshake(stream).await.expect("a preface");
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond
                .send_response(http::Response::new(()), false)
                .expect("open");
            body.send_data(Bytes::from_static(b"hello"), true)
                .expect("open");
        }
    };
    let (server, pem) = start(&["h2"], serve).await;
    let plan_h2 = plan(&server, 4)
        .http2(3)
        .trust_only(pem.as_bytes())
        .unwrap();
    let report = run(plan_h2).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.counts.answered, report.counts.opened), (12, 1));

    let (server, _) = start(&[], serve_hello).await;
    let plan_h2 = plan(&server, 1).http2(1).insecure();
    let report = run(plan_h2.duration(Duration::from_millis(100))).await;
    let (why, _) = report.connect_errors.first_key_value().expect("a reason");
    assert!(why.contains("HTTP/2"), "{why}");
}

#[tokio::test]
async fn a_stream_cut_without_close_notify_is_inside_or_before() {
    // A body that ends with its stream is whole only if TLS says that the stream ends.
    for (part, is_said, cause) in [
        ("", false, Some(Loss::EofBefore)),
        ("HTTP/1.1 200 OK\r\n\r\nhello", false, Some(Loss::EofInside)),
        ("HTTP/1.1 200 OK\r\n\r\nhello", true, None),
    ] {
        let (server, _) = start(&[], move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(part.as_bytes()).await.expect("a reader");
            stream.flush().await.expect("a reader");
            if is_said {
                stream.shutdown().await.expect("a reader");
            }
        })
        .await;
        let report = run(plan(&server, 1).insecure()).await;
        match cause {
            Some(cause) => assert_eq!(report.counts.lost.of(cause), 1, "{report}"),
            None => assert!(report.is_clean(), "{report}"),
        }
    }
}
