//! actix-web with its own workers and its own orderly stop on SIGTERM. Its timeouts for idle and silent connections
//! are lifted: what is measured are connections that stay.

use std::{path::Path, sync::Arc, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, Responder, rt, web};
use futures_util::StreamExt as _;
use peer::{Args, HELLO, TEXT};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};
use validator::Validate;

const IDLE: Duration = Duration::from_secs(3600);

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
    rt::System::new().block_on(async move {
        let server = HttpServer::new(|| {
            App::new()
                .app_data(web::PayloadConfig::new(2 << 20))
                .route("/", web::get().to(hello))
                .route("/big", web::get().to(big))
                .route("/slow", web::get().to(slow))
                .route("/user/{name}", web::get().to(user))
                .route("/json/{name}", web::get().to(json))
                .route("/signup", web::post().to(signup))
                .route("/echo", web::post().to(echo))
                .route("/upload", web::post().to(upload))
        })
        .workers(args.threads)
        .max_connections(20_000)
        .keep_alive(IDLE)
        .client_request_timeout(Duration::ZERO);
        let server = match args.tls {
            None => server.listen(args.listener()?)?,
            Some(tls) => server.listen_rustls_0_23(args.listener()?, config(tls)?)?,
        };
        server.run().await
    })
}

/// The certificate in that directory; actix adds its protocols.
fn config(tls: &Path) -> std::io::Result<ServerConfig> {
    let broken = std::io::Error::other::<Box<dyn std::error::Error + Send + Sync>>;
    let certificates = CertificateDer::pem_file_iter(tls.join("cert.pem"))
        .and_then(Iterator::collect)
        .map_err(|error| broken(error.into()))?;
    let key = PrivateKeyDer::from_pem_file(tls.join("key.pem"));
    let key = key.map_err(|error| broken(error.into()))?;
    let provider = rustls::crypto::ring::default_provider();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(certificates, key)
        })
        .map_err(|error| broken(error.into()))?;
    // Sessions are resumed by tickets, as everywhere else.
    let ticketer = rustls::crypto::ring::Ticketer::new();
    config.ticketer = ticketer.map_err(|error| broken(error.into()))?;
    Ok(config)
}

async fn hello() -> impl Responder {
    HttpResponse::Ok().content_type(TEXT).body(HELLO)
}

async fn big(query: web::Query<Big>) -> impl Responder {
    HttpResponse::Ok()
        .content_type(TEXT)
        .body(web::Bytes::from_static(peer::big(query.bytes)))
}

async fn slow(query: web::Query<Slow>) -> impl Responder {
    rt::time::sleep(Duration::from_millis(query.ms)).await;
    hello().await
}

async fn user(name: web::Path<String>) -> impl Responder {
    HttpResponse::Ok()
        .content_type(TEXT)
        .body(format!("Hello, {name}!"))
}

async fn json(name: web::Path<String>) -> impl Responder {
    HttpResponse::Ok().json(User {
        name: name.into_inner(),
        admin: false,
    })
}

async fn signup(signup: web::Json<Signup>) -> impl Responder {
    let Signup { name, .. } = match signup.validate() {
        Ok(()) => signup.into_inner(),
        Err(error) => return HttpResponse::BadRequest().body(error.to_string()),
    };
    HttpResponse::Ok().json(User { name, admin: false })
}

async fn echo(body: web::Bytes) -> impl Responder {
    HttpResponse::Ok().content_type(TEXT).body(body)
}

async fn upload(mut body: web::Payload) -> impl Responder {
    let mut received = 0;
    while let Some(Ok(bytes)) = body.next().await {
        received += bytes.len();
    }
    HttpResponse::Ok()
        .content_type(TEXT)
        .body(format!("received={received}"))
}
