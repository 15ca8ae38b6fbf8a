//! ntex on tokio, with its own workers and its own orderly stop on SIGTERM. Its timeouts for idle and silent
//! connections are lifted: what is measured are connections that stay.

use std::time::Duration;

use ntex::{SharedCfg, http::HttpServiceConfig, time::Seconds, util::Bytes, web};
use peer::{Args, HELLO, TEXT};
use serde::Deserialize;

const IDLE: Seconds = Seconds(3600);

#[derive(Deserialize)]
struct Big {
    bytes: Option<usize>,
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

#[ntex::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    web::HttpServer::new(async || {
        web::App::new()
            .state(web::types::PayloadConfig::new(2 << 20))
            .route("/", web::get().to(hello))
            .route("/big", web::get().to(big))
            .route("/slow", web::get().to(slow))
            .route("/user/{name}", web::get().to(user))
            .route("/echo", web::post().to(echo))
            .route("/upload", web::post().to(upload))
    })
    .config(
        SharedCfg::new("peer").add(
            HttpServiceConfig::new()
                .set_keepalive_timeout(IDLE)
                .set_client_timeout(Seconds::ZERO),
        ),
    )
    .workers(args.threads)
    .listen(args.listener()?)?
    .run()
    .await
}

async fn hello() -> web::HttpResponse {
    web::HttpResponse::Ok().content_type(TEXT).body(HELLO)
}

async fn big(query: web::types::Query<Big>) -> web::HttpResponse {
    web::HttpResponse::Ok()
        .content_type(TEXT)
        .body(Bytes::from_static(peer::big(query.bytes)))
}

async fn slow(query: web::types::Query<Slow>) -> web::HttpResponse {
    ntex::time::sleep(Duration::from_millis(query.ms)).await;
    hello().await
}

async fn user(name: web::types::Path<String>) -> web::HttpResponse {
    web::HttpResponse::Ok()
        .content_type(TEXT)
        .body(format!("Hello, {}!", name.as_str()))
}

async fn echo(body: Bytes) -> web::HttpResponse {
    web::HttpResponse::Ok().content_type(TEXT).body(body)
}

async fn upload(mut body: web::types::Payload) -> web::HttpResponse {
    let mut received = 0;
    while let Some(Ok(bytes)) = body.recv().await {
        received += bytes.len();
    }
    web::HttpResponse::Ok()
        .content_type(TEXT)
        .body(format!("received={received}"))
}
