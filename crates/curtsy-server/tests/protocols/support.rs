//! A service with a route for each thing to observe, a server on a port the kernel chooses, and
//! clients.

pub(crate) use crate::gullible::gullible;
use crate::websocket;
use bytes::Bytes;
use curtsy_server::{
    Body, Builder, Certificate, ConnectionInfo, DrainPolicy, Error, Handle, ListenOn, Outcome,
    Server, TlsConfig,
};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// How long anything may take that should happen at once: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Handlers of `/gate` wait there until the test lets them go.
pub(crate) type Gate = Arc<Semaphore>;

/// What clients of `/told` say in their query.
pub(crate) type Told = Arc<watch::Sender<String>>;

/// A page that says how it came, how a request of its own did, and what a WebSocket echoes.
const PAGE: &str = r#"<!doctype html><title>t</title><script>
(async () => {
    const page = performance.getEntriesByType("navigation")[0].nextHopProtocol;
    const text = await (await fetch("/x")).text();
    const body = "y".repeat(300000);
    const echo = await (await fetch("/echo", { method: "POST", body })).text() === body;
    const socket = await new Promise(done => {
        const socket = new WebSocket("wss://" + location.host + "/ws");
        socket.onopen = () => socket.send("hello");
        socket.onmessage = event => done(event.data);
        socket.onclose = event => done("closed " + event.code);
    });
    const said = "page=" + page + "&fetch=" + text + "&echo=" + echo + "&socket=" + socket;
    await fetch("/told?" + said.replaceAll(" ", "_"));
})().catch(error => fetch("/told?failed=" + encodeURIComponent(error)));
</script>"#;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) gate: Gate,
    pub(crate) told: Told,
    /// How many requests came to the service.
    pub(crate) called: Arc<AtomicU64>,
    running: JoinHandle<Result<Outcome, Error>>,
}

pub(crate) fn certificate() -> Certificate {
    Certificate::self_signed(["localhost"]).unwrap()
}

pub(crate) fn config() -> TlsConfig {
    TlsConfig::new([certificate()]).unwrap()
}

pub(crate) fn any_port() -> ListenOn {
    ListenOn::from("127.0.0.1:0")
}

pub(crate) fn linger(linger: Duration) -> DrainPolicy {
    DrainPolicy {
        linger,
        ..DrainPolicy::default()
    }
}

async fn answer(
    mut request: Request<Body>,
    gate: Gate,
    told: Told,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match request.uri().path() {
        "/gate" => {
            gate.acquire().await.unwrap().forget();
            "through".to_owned()
        }
        "/panic" => panic!("asked for"),
        "/ws" => return Ok(websocket::accept(&mut request)),
        "/page" => {
            let mut response = Response::new(Full::from(PAGE));
            let html = HeaderValue::from_static("text/html");
            response.headers_mut().insert(CONTENT_TYPE, html);
            return Ok(response);
        }
        "/told" => {
            told.send_replace(request.uri().query().unwrap_or_default().to_owned());
            "thanks".to_owned()
        }
        "/who" => {
            let info = request.extensions().get::<ConnectionInfo>().unwrap();
            let peer = info.peer();
            let local = info.local();
            format!("{peer} {local} tls={}", info.is_tls())
        }
        "/big" => "x".repeat(1 << 20),
        path if path.starts_with("/echo-said/") => {
            let said = request.headers().get("x-said").cloned();
            if let Err(error) = request.into_body().collect().await {
                panic!("{error}");
            }
            let said = said.map(|said| said.to_str().unwrap().to_owned());
            said.unwrap_or_default()
        }
        "/echo" => match request.into_body().collect().await {
            Ok(body) => return Ok(Response::new(Full::new(body.to_bytes()))),
            Err(error) => {
                let mut response = Response::new(Full::from(error.to_string()));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(response);
            }
        },
        path => format!("{:?} {path}", request.version()),
    };
    Ok(Response::new(Full::from(text)))
}

/// Serves on `listener` as configured.
pub(crate) async fn serve(
    listener: ListenOn,
    configure: impl FnOnce(Builder) -> Builder,
) -> Running {
    let gate = Gate::new(Semaphore::new(0));
    let kept = gate.clone();
    let told = Arc::new(watch::channel(String::new()).0);
    let (teller, called) = (told.clone(), Arc::new(AtomicU64::new(0)));
    let counter = called.clone();
    let service = hyper::service::service_fn(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        answer(request, gate.clone(), teller.clone())
    });
    let builder = Server::builder().listen(listener).signals(false);
    let server = configure(builder).build(service).unwrap();
    let address = server.listeners().find_map(|(_, at)| at.tcp()).unwrap();
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    handle.reached(curtsy_server::Phase::Serving).await;
    Running {
        address,
        handle,
        gate: kept,
        told,
        called,
        running,
    }
}

impl Running {
    pub(crate) async fn stopped(self) -> Outcome {
        soon(self.running).await.unwrap().unwrap()
    }

    pub(crate) async fn stop(self) -> Outcome {
        self.handle.wish_shutdown();
        self.stopped().await
    }

    /// Waits until a look at the server shows what is expected.
    pub(crate) async fn until(&self, what: impl Fn(&curtsy_server::Snapshot) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !what(&self.handle.snapshot()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        if waited.await.is_err() {
            panic!("not in time: {:?}", self.handle.snapshot());
        }
    }
}

/// Awaits what should happen soon.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("not in time")
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let socket = soon(TcpStream::connect(address)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

pub(crate) fn client_config(alpn: &[&str]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(gullible())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

pub(crate) async fn secure_over<S>(
    socket: S,
    name: &str,
    config: rustls::ClientConfig,
) -> std::io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(connector.connect(name, socket)).await
}

pub(crate) async fn secure(address: SocketAddr, alpn: &[&str]) -> TlsStream<TcpStream> {
    let socket = connect(address).await;
    secure_over(socket, "localhost", client_config(alpn))
        .await
        .unwrap()
}

/// Sends a request of HTTP/1.1 and reads its answer: head and body.
pub(crate) async fn ask<S>(socket: &mut S, target: &str) -> (String, String)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    say(socket, target).await;
    hear(socket).await
}

pub(crate) async fn say<S: AsyncWrite + Unpin>(socket: &mut S, target: &str) {
    let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    soon(socket.write_all(request.as_bytes())).await.unwrap();
    soon(socket.flush()).await.unwrap();
}

pub(crate) async fn hear<S: AsyncRead + Unpin>(socket: &mut S) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = soon(socket.read_u8()).await;
        head.push(
            byte.unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&head))
            }),
        );
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")
                .map(str::to_owned)
        })
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    soon(socket.read_exact(&mut body)).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// Reads until the peer closes.
pub(crate) async fn rest<S: AsyncRead + Unpin>(socket: &mut S) -> Vec<u8> {
    let mut rest = Vec::new();
    soon(socket.read_to_end(&mut rest)).await.unwrap();
    rest
}
