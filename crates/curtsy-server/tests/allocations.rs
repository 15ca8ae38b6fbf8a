//! The life cycle allocates nothing on the request path: a request costs exactly as many
//! allocations as on hyper's own connection with the same service.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use allocation_counter::measure;
use curtsy_server::{Body, DrainPolicy, IntoService, Limits, Server};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// What is sent, and whether the handler reads its body.
const GET: &[u8] = b"GET /some/where HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
const POST: &[u8] = b"POST /some/where HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

async fn answer<B: http_body::Body>(
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // An empty body is at its end and gives nothing.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::new(Bytes::from_static(b"answer"))))
}

/// Sends the request so often on one connection, each after the answer to the one before.
fn client(address: SocketAddr, request: &'static [u8], times: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut answer = [0; 1024];
        for _ in 0..times {
            stream.write_all(request).unwrap();
            let mut length = 0;
            while !answer[..length].ends_with(b"\r\n\r\nanswer") {
                let count = stream.read(&mut answer[length..]).unwrap();
                assert_ne!(count, 0, "the server closed");
                length += count;
            }
        }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// With hyper's own body, which only hyper can make, or with the server's.
fn ours<Kind>(service: impl IntoService<Kind>, request: &'static [u8], times: usize) -> u64 {
    let run = async {
        let server = Server::builder()
            .listen("127.0.0.1:0")
            .signals(false)
            .connection_in_extensions(false)
            .drain(DrainPolicy {
                linger: Duration::ZERO,
                ..DrainPolicy::default()
            })
            .limits(Limits {
                // A busy machine's pauses are not to count.
                park_after: Duration::from_secs(60),
                ..Limits::default()
            })
            .build(service)
            .unwrap();
        let (_, address) = server.listeners().next().unwrap();
        let client = client(address.tcp().unwrap(), request, times);
        let handle = server.handle();
        tokio::spawn(async move {
            tokio::task::spawn_blocking(|| client.join().unwrap())
                .await
                .unwrap();
            handle.wish_shutdown();
        });
        server.run().await.unwrap();
    };
    measure(|| runtime().block_on(run)).count_total
}

fn bare_hyper(request: &'static [u8], times: usize) -> u64 {
    let run = async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap(), request, times);
        let (stream, _) = listener.accept().await.unwrap();
        http1::Builder::new()
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), service_fn(answer::<Incoming>))
            .await
            .unwrap();
        client.join().unwrap();
    };
    measure(|| runtime().block_on(run)).count_total
}

/// Allocations of one request: the difference that a thousand of them make.
fn each(count: impl Fn(usize) -> u64) -> f64 {
    // What is made once, whenever it is made first.
    count(10);
    let (few, many) = (count(200), count(1_200));
    (many as f64 - few as f64) / 1_000.0
}

#[test]
fn a_request_costs_as_many_allocations_as_on_bare_hyper() {
    for (name, request) in [("GET", GET), ("POST", POST)] {
        let hyper = each(|times| bare_hyper(request, times));
        let whole = each(|times| ours(service_fn(answer::<Body>), request, times));
        let ours = each(|times| ours(service_fn(answer::<Incoming>), request, times));
        println!("{name}: hyper {hyper}, ours {ours}, ours without hyper {whole}");
        assert!(hyper >= 1.0, "{name}: counted nothing: {hyper}");
        // A hundredth of one: a timer set again now and then.
        assert!(
            ours < hyper + 0.02,
            "{name}: {ours}, and bare hyper {hyper}"
        );
        assert!(
            whole <= hyper - 1.0,
            "{name}: {whole} where the exchange is whole, and bare hyper {hyper}"
        );
    }
}
