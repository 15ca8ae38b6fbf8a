//! axum as its users run it: a router, `axum::serve`, a graceful shutdown on SIGTERM. One thread means tokio's
//! current-thread runtime, which favours it; more mean the multi-thread runtime.

use std::{path::Path, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path as Segment, Query},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt as _,
};
use peer::{Args, HELLO, TEXT};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};
use validator::Validate;

#[derive(Deserialize)]
struct Big {
    bytes: Option<usize>,
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

#[derive(Serialize)]
struct User {
    name: String,
    admin: bool,
}

#[derive(Deserialize, Validate)]
struct Signup {
    #[validate(length(min = 3, max = 20))]
    name: String,
    #[validate(email)]
    email: String,
    #[validate(range(min = 18, max = 130))]
    age: u32,
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let mut builder = match args.threads {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    builder
        .worker_threads(args.threads)
        .enable_all()
        .build()?
        .block_on(serve(args))
}

async fn serve(args: Args) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(async || HELLO))
        .route("/big", get(big))
        .route("/slow", get(slow))
        .route(
            "/user/{name}",
            get(async |Segment(name): Segment<String>| format!("Hello, {name}!")),
        )
        .route("/json/{name}", get(json))
        .route("/signup", post(signup))
        .route("/echo", post(async |body: Bytes| text(body)))
        .route("/upload", post(upload));
    if let Some(tls) = args.tls {
        return serve_tls(args, tls, router).await;
    }
    let listener = tokio::net::TcpListener::from_std(args.listener()?)?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
}

/// As axum's own examples do it: by axum-server, with rustls.
async fn serve_tls(args: Args, tls: &Path, router: Router) -> std::io::Result<()> {
    use axum_server::tls_rustls::RustlsConfig;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = RustlsConfig::from_pem_file(tls.join("cert.pem"), tls.join("key.pem")).await?;
    let handle = axum_server::Handle::new();
    let stopping = handle.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        stopping.graceful_shutdown(None);
    });
    axum_server::from_tcp_rustls(args.listener()?, config)?
        .handle(handle)
        .serve(router.into_make_service())
        .await
}

async fn big(Query(Big { bytes }): Query<Big>) -> impl IntoResponse {
    text(Bytes::from_static(peer::big(bytes)))
}

async fn slow(Query(Slow { ms }): Query<Slow>) -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    HELLO
}

async fn json(Segment(name): Segment<String>) -> Json<User> {
    Json(User { name, admin: false })
}

async fn signup(Json(signup): Json<Signup>) -> Result<Json<User>, (StatusCode, String)> {
    let refused = signup.validate();
    refused.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(User {
        name: signup.name,
        admin: false,
    }))
}

async fn upload(body: Body) -> impl IntoResponse {
    use axum::body::HttpBody as _;
    let (mut body, mut received) = (std::pin::pin!(body), 0);
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        received += frame.data_ref().map_or(0, Bytes::len);
    }
    format!("received={received}")
}

fn text(body: Bytes) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT)], body)
}
