//! The server: it writes each request's number down before it answers.

use curtsy::{Body, ListenAddress, ListenOn, Phase, Server, SignalKind, Succession};
use http::{Request, Response};
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Where the numbers go.
pub(crate) const LOG: &str = "CHAOS_LOG";

/// Serves on an address, or on the supervisor's sockets.
pub(crate) fn serve(address: Option<&str>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let on = match address {
        Some(address) => ListenOn::from(address.parse::<ListenAddress>().unwrap()),
        None => ListenOn::inherited(),
    };
    if let Err(error) = runtime.block_on(run(on)) {
        eprintln!("cannot serve: {error}");
        std::process::exit(1);
    }
}

async fn run(on: ListenOn) -> Result<(), curtsy::Error> {
    let succession = Succession::begin().await?;
    let succession = succession.bake_after(Duration::from_millis(40));
    let generation = succession.generation();
    let log = std::env::var_os(LOG).unwrap();
    let log = OpenOptions::new().append(true).create(true).open(log);
    let log = Arc::new(log.unwrap());
    let service = hyper::service::service_fn(move |request: Request<Body>| {
        answer(request, log.clone(), generation)
    });
    let server = Server::builder()
        .workers(NonZeroUsize::MIN)
        .listen(on)
        .succession(succession)
        .restart_on(SignalKind::hangup())
        .on_restart(|step| say(&format!("step: {step}").replace('\n', " / ")))
        .build(service)?;
    let (_, address) = server.listeners().next().unwrap();
    let address = address.tcp().unwrap();
    let (handle, pid) = (server.handle(), std::process::id());
    tokio::spawn(async move {
        if handle.reached(Phase::Serving).await {
            say(&format!("generation {generation} at {address} (pid {pid})"));
        }
    });
    server.run().await.map(drop)
}

/// A line in one write: two processes write to one pipe.
fn say(line: &str) {
    let line = format!("{line}\n");
    // Nobody listens once the test is over.
    let _ = std::io::stderr().write(line.as_bytes());
}

async fn answer(
    request: Request<Body>,
    log: Arc<File>,
    generation: u64,
) -> Result<Response<String>, Infallible> {
    let path = request.uri().path();
    let mut words = path.trim_start_matches('/').split('/');
    let number: u64 = words.next().unwrap().parse().unwrap();
    // One write of eight bytes to the end of the file: whole, whatever happens next.
    (&*log).write_all(&number.to_be_bytes()).unwrap();
    if let Some(ms) = words.next() {
        tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await;
    }
    Ok(Response::new(format!("generation={generation};")))
}
