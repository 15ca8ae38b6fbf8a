//! What the tests share: a service with one route for each thing to observe, a server on a port
//! that the kernel chooses, and a client that sees bytes.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file uses its own part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a failed unwrap in a test is a failed test"
)]

mod app;
mod client;

pub use app::{App, Gate, Seen};
pub use client::{Answer, Client, request};

use curtsy_server::{
    Body, Builder, DrainPolicy, Error, Handle, IntoService, Outcome, Phase, Server, Snapshot,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long anything may take that should happen at once: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A drain that waits for nobody who is idle.
pub fn at_once() -> DrainPolicy {
    DrainPolicy {
        linger: Duration::ZERO,
        ..DrainPolicy::default()
    }
}

/// A running server and what it serves.
pub struct Running {
    pub address: SocketAddr,
    pub handle: Handle,
    pub app: App,
    pub running: JoinHandle<Result<Outcome, Error>>,
}

/// Serves [`App`] with default limits.
pub async fn serve() -> Running {
    serve_with(|builder| builder).await
}

/// Serves [`App`] as configured.
pub async fn serve_with(configure: impl FnOnce(Builder) -> Builder) -> Running {
    let app = App::default();
    serve_this(app.clone(), app.into_service(), configure).await
}

/// Serves any service.
pub async fn serve_this<S, Kind>(
    app: App,
    service: S,
    configure: impl FnOnce(Builder) -> Builder,
) -> Running
where
    S: IntoService<Kind>,
{
    let builder = Server::builder()
        .listen(("main", "127.0.0.1:0"))
        .signals(false)
        .drain(at_once());
    let server = configure(builder).build(service).unwrap();
    let address = server
        .listeners()
        .find_map(|(_, address)| address.tcp())
        .unwrap();
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    assert!(
        timeout(PATIENCE, handle.reached(Phase::Serving))
            .await
            .unwrap()
    );
    Running {
        address,
        handle,
        app,
        running,
    }
}

impl Running {
    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Another client is served as usual, whatever happened to others.
    pub async fn serves_others(&self) {
        let mut other = self.client().await;
        other.send(&request("GET", "/other")).await;
        other.answer().await.is(200, "hello from /other");
    }

    /// Each of these is refused with that status, a text and `Connection: close`, in an answer
    /// that is not reset; whatever follows is not looked at, and others are served as usual.
    pub async fn refuses<N, B>(&self, status: u16, cases: impl IntoIterator<Item = (N, B)>)
    where
        N: Into<String>,
        B: Into<Vec<u8>>,
    {
        let mut refusals = Vec::new();
        for (name, bytes) in cases {
            let (name, bytes) = (name.into(), bytes.into());
            let client = self.client().await;
            refusals.push((name, tokio::spawn(refused(client, bytes, status))));
        }
        let mut wrong = Vec::new();
        for (name, refusal) in refusals {
            if let Err(error) = refusal.await {
                let panic = error.into_panic();
                let text = panic.downcast_ref::<String>().cloned();
                wrong.push(format!("{name}: {}", text.unwrap_or_default()));
            }
            self.serves_others().await;
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    /// Waits until the server's snapshot shows what is wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let begun = Instant::now();
        loop {
            let snapshot = self.handle.snapshot();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {snapshot:?}");
            tokio::time::sleep(ms(1)).await;
        }
    }

    /// Waits for the end that somebody else has ordered.
    pub async fn ended(self) -> Outcome {
        timeout(PATIENCE, self.running)
            .await
            .expect("the server never stopped")
            .unwrap()
            .unwrap()
    }

    /// Drains; everything must finish.
    pub async fn drain(self) -> Outcome {
        self.handle.wish_shutdown();
        let outcome = self.ended().await;
        assert!(outcome.is_drained(), "{outcome:?}");
        outcome
    }
}

async fn refused(mut client: Client, bytes: Vec<u8>, status: u16) {
    client.send(bytes).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.closes(), "{answer:?}");
    assert!(answer.header("date").is_some(), "{answer:?}");
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("text/plain; charset=utf-8"), "{answer:?}");
    assert!(answer.body.len() > 5, "{answer:?}");
    client.ends().await;
}

/// Bounds any wait.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// Whether a future stays pending for a while: for what must *not* happen.
pub async fn not_within<F: Future>(wait: Duration, future: F) -> bool {
    timeout(wait, future).await.is_err()
}
