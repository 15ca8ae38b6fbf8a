//! The admin listener: what it tells, to whom, and for how long.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a failed unwrap is a failed test, and what is skipped is said"
)]

mod support;

use curtsy_server::{DrainPolicy, Handle, Outcome, Phase, Server};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::{Answer, App, Client, PATIENCE, ms, request, soon};
use tokio::task::JoinHandle;

struct Watched {
    main: SocketAddr,
    admin: SocketAddr,
    handle: Handle,
    app: App,
    running: JoinHandle<Result<Outcome, curtsy_server::Error>>,
}

async fn serve(drain: DrainPolicy) -> Watched {
    let app = App::default();
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .admin("0")
        .signals(false)
        .drain(drain)
        .build(app.clone().into_service())
        .unwrap();
    let main = server.listeners().find_map(|(_, at)| at.tcp()).unwrap();
    let admin = server.admin().unwrap().tcp().unwrap();
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    assert!(soon("serving", handle.reached(Phase::Serving)).await);
    Watched {
        main,
        admin,
        handle,
        app,
        running,
    }
}

impl Watched {
    async fn ask(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.admin).await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
                self.admin
            ))
            .await;
        let answer = client.answer().await;
        client.ends().await;
        answer
    }

    async fn events(&self) -> Client {
        let mut client = Client::connect(self.admin).await;
        client
            .send(format!(
                "GET /events HTTP/1.1\r\nHost: {}\r\n\r\n",
                self.admin
            ))
            .await;
        let head = client.head().await;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        client
    }

    async fn status(&self) -> serde_json::Value {
        let answer = self.ask("/status").await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A request that is answered when its gate opens, and has arrived.
    async fn held(&self, gate: &str) -> Client {
        let mut client = Client::connect(self.main).await;
        client.send(request("GET", &format!("/gate?{gate}"))).await;
        self.app.noted(&format!("in /gate?{gate}")).await;
        client
    }
}

#[tokio::test]
async fn readiness_follows_the_phase_and_liveness_does_not() {
    let server = serve(DrainPolicy {
        lame_duck: Duration::from_secs(600),
        ..support::at_once()
    })
    .await;
    server.ask("/livez").await.is(200, "alive\n");
    server.ask("/readyz").await.is(200, "ready\n");

    server.handle.wish_shutdown();
    soon("lame duck", server.handle.reached(Phase::LameDuck)).await;
    server
        .ask("/readyz")
        .await
        .is(503, "not ready: lame-duck\n");
    server.ask("/livez").await.is(200, "alive\n");
    // And it still serves.
    let mut late = Client::connect(server.main).await;
    late.get("/late").await.is(200, "hello from /late");

    server.handle.recall();
    let recalled = async {
        while server.handle.phase() != Phase::Serving {
            tokio::time::sleep(ms(1)).await;
        }
    };
    soon("recalled", recalled).await;
    server.ask("/readyz").await.is(200, "ready\n");
    drop(late);
    server.handle.close();
    soon("closed", server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_answers_to_the_end_of_the_drain_and_does_not_delay_it() {
    let server = serve(support::at_once()).await;
    let mut held = server.held("a").await;
    let mut events = server.events().await;
    // One that says nothing, one that is half way.
    let silent = Client::connect(server.admin).await;
    let mut half = Client::connect(server.admin).await;
    half.send("GET /livez HT").await;

    server.handle.wish_shutdown();
    soon("draining", server.handle.reached(Phase::Draining)).await;
    server.ask("/readyz").await.is(503, "not ready: draining\n");
    let status = server.status().await;
    assert_eq!(status["phase"], "draining");
    assert_eq!(status["stragglers"][0]["target"], "/gate?a");
    // The three that look on are not among them.
    assert_eq!(status["connections"]["total"], 1);
    assert_eq!(status["drain"]["open_at_start"], 1);

    server.app.open("a");
    held.answer().await.is(200, "through a");
    let begun = Instant::now();
    let outcome = soon("stopped", server.running).await.unwrap().unwrap();
    assert!(outcome.is_drained(), "{outcome:?}");
    assert_eq!(outcome.report().open_at_start, 1);
    // Neither of the two is waited for: their own time limit is ten seconds.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );

    let rest = events.read_to_end().await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    let phases: Vec<&str> = (rest.split("\"phase\":\"").skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(phases.contains(&"draining"), "{rest}");
    assert_eq!(phases.last(), Some(&"stopped"), "{rest}");
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
    drop((silent, half));
}

#[tokio::test]
async fn a_change_of_phase_is_told_at_once() {
    let server = serve(DrainPolicy {
        lame_duck: Duration::from_secs(600),
        ..support::at_once()
    })
    .await;
    let mut events = server.events().await;
    let mut heard = String::new();
    let mut hear = async |what: &str| {
        while !heard.contains(what) {
            assert!(events.read_some().await.unwrap() > 0, "{heard}");
            heard = events.seen();
        }
    };
    hear("\"phase\":\"serving\"").await;
    let begun = Instant::now();
    server.handle.wish_shutdown();
    hear("\"phase\":\"lame-duck\"").await;
    assert!(begun.elapsed() < PATIENCE);
    server.handle.close();
    hear("\"phase\":\"stopped\"").await;
    soon("closed", server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_are_told_with_the_rest() {
    let server = serve(support::at_once()).await;
    let mut client = Client::connect(server.main).await;
    for _ in 0..3 {
        client.get("/").await;
    }
    let status = server.status().await;
    assert_eq!(status["requests"]["total"], 3);
    assert_eq!(status["requests"]["responses"][1], 3);
    let metrics = server.ask("/metrics").await;
    let kind = metrics.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(
        text.contains("curtsy_http_responses_total{class=\"2xx\"} 3\n"),
        "{text}"
    );
    // Who asks for OpenMetrics gets it.
    let mut scraper = Client::connect(server.admin).await;
    scraper
        .send(format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n",
            server.admin
        ))
        .await;
    let answer = scraper.answer().await;
    assert!(answer.body.ends_with(b"# EOF\n"), "{answer:?}");
    drop(client);
    server.handle.close();
    soon("closed", server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn strangers_cannot_read_it_and_nobody_can_change_anything() {
    let server = serve(support::at_once()).await;
    for (head, status) in [
        ("GET /status HTTP/1.1\r\nHost: evil.test", 421),
        ("GET / HTTP/1.1\r\nHost: evil.test:80", 421),
        ("GET /status HTTP/1.1\r\nHost: localhost", 200),
        (
            "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0",
            405,
        ),
        ("DELETE /readyz HTTP/1.1\r\nHost: localhost", 405),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: localhost", 404),
        ("GET /nothing HTTP/1.1\r\nHost: localhost", 404),
    ] {
        let mut client = Client::connect(server.admin).await;
        client.send(format!("{head}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{head}");
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{head}"
        );
        client.ends().await;
    }
    let page = server.ask("/").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut head = Client::connect(server.admin).await;
    head.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let answer = head.answer_to("HEAD").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    head.ends().await;
    server.handle.close();
    soon("closed", server.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn only_so_many_watch_at_a_time() {
    let server = serve(support::at_once()).await;
    let mut watchers = Vec::new();
    for _ in 0..16 {
        watchers.push(server.events().await);
    }
    let answer = server.ask("/events").await;
    assert_eq!(answer.status, 503);
    // Probes get through.
    server.ask("/readyz").await.is(200, "ready\n");
    watchers.pop();
    let begun = Instant::now();
    while server.ask("/readyz").await.status != 200 || !is_stream(&server).await {
        assert!(begun.elapsed() < PATIENCE, "the place was not given free");
        tokio::time::sleep(ms(20)).await;
    }
    server.handle.close();
    soon("closed", server.running).await.unwrap().unwrap();
}

async fn is_stream(server: &Watched) -> bool {
    let mut client = Client::connect(server.admin).await;
    client
        .send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    client.head().await.status == 200
}

#[tokio::test]
async fn what_cannot_be_understood_or_bound_is_said() {
    let build = |address: &str, main: &str| {
        let app = App::default();
        let builder = Server::builder().listen(main).admin(address);
        builder.build(app.into_service()).map(drop)
    };
    assert!(build("nowhere", "127.0.0.1:0").unwrap_err().is_address());
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let error = build(&taken, "127.0.0.1:0").unwrap_err();
    assert!(
        error.is_bind() && error.to_string().contains("the admin listener"),
        "{error}"
    );
}
