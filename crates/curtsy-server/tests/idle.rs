//! What a connection that idles holds of the heap, to the byte: of our structures, of the session, of HTTP/2's engine,
//! of the runtime's task. What the kernel holds and what an allocator adds to each block is not in it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap in a test is a failed test"
)]

#[path = "support/gullible.rs"]
mod gullible;

use allocation_counter::measure;
use bytes::Bytes;
use curtsy_server::{Body, Certificate, Handle, Limits, ListenOn, Server, Snapshot, TlsConfig};
use gullible::gullible;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Connections counted, and those that are there before: what the first ones make stays for all.
const COUNTED: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

const GET: &[u8] = b"GET /some/where HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The preface, SETTINGS, and HEADERS of stream 1: `GET https://localhost/`, and an acknowledgement of settings.
const GET_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x0e\x01\x05\x00\x00\x00\x01\x82\x87\x84\x41\x09localhost\
    \x00\x00\x00\x04\x01\x00\x00\x00\x00";

/// A client's end of a connection that idles.
type Held = Box<dyn Send>;

trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

fn client_config(alpn: &[u8]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(gullible())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// Opens a connection and makes one request on it.
fn hold(address: SocketAddr, alpn: &[u8], tls: Option<&Arc<ClientConfig>>) -> Held {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut socket: Box<dyn Socket> = match tls {
        None => Box::new(socket),
        Some(config) => {
            let name = ServerName::try_from("localhost").unwrap();
            let session = ClientConnection::new(config.clone(), name).unwrap();
            Box::new(StreamOwned::new(session, socket))
        }
    };
    socket
        .write_all(if alpn == b"h2" { GET_2 } else { GET })
        .unwrap();
    socket.flush().unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while !answer.windows(6).any(|bytes| bytes == b"answer") {
        let count = socket.read(&mut part).unwrap();
        assert_ne!(count, 0, "the server closed");
        answer.extend_from_slice(&part[..count]);
    }
    Box::new(socket)
}

async fn answer(_: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("answer")))
}

async fn until(handle: &Handle, what: impl Fn(&Snapshot) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !what(&handle.snapshot()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    if waited.await.is_err() {
        panic!("not in time: {:?}", handle.snapshot());
    }
}

/// Bytes and blocks of the heap that an idle connection holds.
fn each(alpn: &'static [u8], encrypted: bool) -> (i64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = TlsConfig::new([Certificate::self_signed(["localhost"]).unwrap()]).unwrap();
    let on = ListenOn::from("127.0.0.1:0");
    let server = runtime.block_on(async {
        Server::builder()
            .listen(if encrypted { on.tls(config) } else { on })
            .signals(false)
            .limits(Limits {
                park_after: Duration::from_millis(1),
                ..Limits::default()
            })
            .build(service_fn(answer))
            .unwrap()
    });
    let address = server.listeners().find_map(|(_, at)| at.tcp()).unwrap();
    let handle = server.handle();
    runtime.spawn(server.run());
    let tls = encrypted.then(|| client_config(alpn));
    let mut held = Vec::new();
    let more = |held: &mut Vec<Held>| {
        let tls = tls.clone();
        let client = thread::spawn(move || -> Vec<Held> {
            (0..COUNTED)
                .map(|_| hold(address, alpn, tls.as_ref()))
                .collect()
        });
        runtime.block_on(async {
            let client = tokio::task::spawn_blocking(|| client.join().unwrap());
            held.extend(client.await.unwrap());
            let waiting = held.len();
            until(&handle, |seen| seen.counts.parked == waiting).await;
            // What they still write, acknowledgements of settings above all, comes before.
            tokio::time::sleep(Duration::from_millis(200)).await;
        });
    };
    more(&mut held);
    let counted = measure(|| more(&mut held));
    let count = i64::try_from(COUNTED).unwrap();
    let blocks = counted.count_current as f64 / COUNTED as f64;
    if std::env::var_os("STOP_THERE").is_some() {
        // For a heap profiler: what is there now is what leaked.
        std::process::exit(0);
    }
    (counted.bytes_current / count, blocks)
}

#[test]
fn an_idle_connection_is_small() {
    for (name, alpn, encrypted, most) in [
        ("TLS, HTTP/1.1", &b"http/1.1"[..], true, 4_450),
        ("HTTP/2", b"h2", false, 1_350),
        ("TLS, HTTP/2", b"h2", true, 4_800),
    ] {
        if std::env::var("ONLY").is_ok_and(|only| only != name) {
            continue;
        }
        let (bytes, blocks) = each(alpn, encrypted);
        println!("{name}: {bytes} bytes in {blocks:.1} blocks");
        assert!(bytes > 1_000, "{name}: counted nothing");
        assert!(bytes < most, "{name}: {bytes}");
    }
}
