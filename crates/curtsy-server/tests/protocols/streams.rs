//! Where the streams of one connection run, and what one leaves to the next.

use crate::http2::{Client, hear};
use crate::support::*;
use bytes::Bytes;
use curtsy_server::control::{Control, Filter};
use curtsy_server::{Body, ConnectionInfo, Error, Handle, Outcome, Phase, Server};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinHandle};

/// What the handlers saw.
#[derive(Clone)]
struct Seen {
    infos: Arc<Mutex<Vec<ConnectionInfo>>>,
    /// The task in which each began, and where it ended.
    tasks: Arc<Mutex<Vec<(Id, Id)>>>,
    /// How long the bodies were that somebody read after the answer.
    lengths: Arc<Mutex<Vec<usize>>>,
    gate: Arc<Semaphore>,
}

struct Serving {
    address: SocketAddr,
    handle: Handle,
    seen: Seen,
    running: JoinHandle<Result<Outcome, Error>>,
}

impl Serving {
    async fn stop(self) {
        self.handle.wish_shutdown();
        soon(self.running).await.unwrap().unwrap();
    }
}

async fn answer(request: Request<Body>, seen: Seen) -> Result<Response<String>, Infallible> {
    let began = tokio::task::id();
    let (head, body) = request.into_parts();
    seen.infos.lock().unwrap().push(body.connection().unwrap());
    match head.uri.path() {
        "/gate" => drop(seen.gate.acquire().await),
        "/later" => {
            let lengths = seen.lengths.clone();
            tokio::spawn(async move {
                let length = body.collect().await.unwrap().to_bytes().len();
                lengths.lock().unwrap().push(length);
            });
        }
        "/blocks" => std::thread::sleep(Duration::from_millis(50)),
        _ => {}
    }
    let ended = tokio::task::id();
    seen.tasks.lock().unwrap().push((began, ended));
    Ok(Response::new(head.uri.path().to_owned()))
}

async fn serve() -> Serving {
    let seen = Seen {
        infos: Arc::default(),
        tasks: Arc::default(),
        lengths: Arc::default(),
        gate: Arc::new(Semaphore::new(0)),
    };
    let kept = seen.clone();
    let service = hyper::service::service_fn(move |request| answer(request, kept.clone()));
    let server = Server::builder().listen("127.0.0.1:0").signals(false);
    let server = server.build(service).unwrap();
    let address = server.listeners().find_map(|(_, at)| at.tcp()).unwrap();
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    handle.reached(Phase::Serving).await;
    Serving {
        address,
        handle,
        seen,
        running,
    }
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(waiting).await;
}

/// Asks for all of them before any answer is waited for; the answers.
async fn ask_all(client: &mut Client, paths: &[&str]) -> Vec<String> {
    let mut answers = Vec::new();
    for path in paths {
        answers.push(client.say(path).await);
    }
    let mut texts = Vec::new();
    for answer in answers {
        let (status, text) = hear(answer).await;
        assert_eq!(status, StatusCode::OK);
        texts.push(text);
    }
    texts
}

/// A handler that is ready at once needs no task of its own; one that waits has one from then on, and nobody waits for it.
#[tokio::test]
async fn a_quick_handler_runs_in_its_connections_task() {
    let server = serve().await;
    let mut client = Client::plain(server.address).await;
    // The clock may move on at any moment; then a task is made after all.
    let mut is_shared = false;
    for _ in 0..20 {
        assert_eq!(ask_all(&mut client, &["/a", "/b"]).await, ["/a", "/b"]);
        let tasks = std::mem::take(&mut *server.seen.tasks.lock().unwrap());
        is_shared |= tasks[0] == tasks[1];
    }
    assert!(is_shared);
    let waits = client.say("/gate").await;
    assert_eq!(client.ask("/c").await.1, "/c");
    server.seen.gate.add_permits(1);
    assert_eq!(hear(waits).await.1, "/gate");
    let tasks = std::mem::take(&mut *server.seen.tasks.lock().unwrap());
    let (_, waited_in) = tasks[1];
    assert_ne!(waited_in, tasks[0].0);
    server.stop().await;
}

/// Where a runtime has many threads, they share a connection's work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_many_threads_each_stream_has_a_task() {
    let server = serve().await;
    let mut client = Client::plain(server.address).await;
    for _ in 0..5 {
        ask_all(&mut client, &["/a", "/b"]).await;
    }
    let tasks = std::mem::take(&mut *server.seen.tasks.lock().unwrap());
    let mut all: Vec<_> = tasks.iter().flat_map(|(began, _)| [began]).collect();
    all.sort_by_key(ToString::to_string);
    all.dedup();
    assert_eq!(all.len(), 10);
    server.stop().await;
}

/// Those that come after one that took long are not answered in the same turn.
#[tokio::test]
async fn slow_handlers_take_turns_with_the_rest() {
    let server = serve().await;
    let mut client = Client::plain(server.address).await;
    ask_all(&mut client, &["/blocks", "/b", "/c"]).await;
    let tasks = std::mem::take(&mut *server.seen.tasks.lock().unwrap());
    assert!(tasks.len() == 3 && tasks[0].0 != tasks[2].0, "{tasks:?}");
    server.stop().await;
}

/// However many have come since.
#[tokio::test]
async fn what_a_handler_keeps_of_its_request_stays_its_own() {
    let server = serve().await;
    let mut client = Client::plain(server.address).await;
    let mut send = soon(client.send.clone().ready()).await.unwrap();
    let request = Request::post("http://localhost/later").version(Version::HTTP_2);
    let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), StatusCode::OK);
    for _ in 0..3 {
        client.ask("/").await;
    }
    let of = |infos: &[ConnectionInfo]| {
        infos
            .iter()
            .map(ConnectionInfo::requests)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&server.seen.infos.lock().unwrap()), [1, 2, 3, 4]);
    assert!(server.seen.lengths.lock().unwrap().is_empty());
    body.send_data(Bytes::from_static(b"later"), true).unwrap();
    until(|| *server.seen.lengths.lock().unwrap() == [5]).await;

    // Nobody keeps these.
    for number in 5..9 {
        server.seen.infos.lock().unwrap().clear();
        client.ask("/").await;
        assert_eq!(of(&server.seen.infos.lock().unwrap()), [number]);
    }
    assert_eq!(server.handle.snapshot().stragglers.len(), 0);
    server.stop().await;
}

/// What is kept for the next stream is none.
#[tokio::test]
async fn streams_that_are_over_are_not_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let server = crate::support::serve(any_port(), |b| b.control(&path)).await;
    let mut client = Client::plain(server.address).await;
    let waiting = [client.say("/gate").await, client.say("/gate").await];
    server.until(|now| now.stragglers.len() == 2).await;
    client.ask("/over").await;
    server.until(|now| now.stragglers.len() == 2).await;
    let mut control = Control::connect(&path).await.unwrap();
    let listed = control.connections(Filter::default()).await.unwrap();
    let listed = listed.connections.unwrap();
    assert_eq!((listed.len(), listed[0].streams), (1, Some(2)));
    server.gate.add_permits(2);
    for answer in waiting {
        assert_eq!(hear(answer).await.1, "through");
    }
    server.stop().await;
}
