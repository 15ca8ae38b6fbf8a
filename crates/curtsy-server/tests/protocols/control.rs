//! The control socket.

use crate::support::*;
use curtsy_server::control::{Command, Control, Event, Filter};
use curtsy_server::{
    Body, Builder, Certificate, DrainPolicy, Limits, ModeName, Outcome, Phase, Server, TlsConfig,
};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

#[tokio::test]
async fn a_server_is_steered_over_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (directory.path().join("c"), directory.path().join("k"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = TlsConfig::new([Certificate::from_pem_files(&chain, &key).unwrap()]).unwrap();
    let listener = any_port().tls_in_reserve(tls);
    let server = serve(listener, |b| b.control(&path)).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut control = Control::connect(&path).await.unwrap();
    control.switch("main", ModeName::Tls).await.unwrap();
    assert_eq!(server.handle.mode("main"), Some(ModeName::Tls));
    let mut client = secure(server.address, &[]).await;
    assert!(ask(&mut client, "/who").await.1.ends_with("tls=true"));
    let error = control.switch("other", ModeName::Plain).await.unwrap_err();
    assert!(
        error.is_control() && error.to_string().contains("no listener"),
        "{error}"
    );
    control.reload_certificates().await.unwrap();
    std::fs::write(&chain, "nothing").unwrap();
    let error = control.reload_certificates().await.unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
    say(&mut client, "/gate").await;
    server.until(|now| now.stragglers.len() == 1).await;
    let status = control.status().await.unwrap();
    assert_eq!(status.phase, "serving");
    assert_eq!(status.stragglers[0].target, "/gate");
    assert_eq!(status.listeners[0].mode.as_deref(), Some("tls"));
    control.switch("main", ModeName::Plain).await.unwrap();
    server.gate.add_permits(1);
    assert!(hear(&mut client).await.0.contains("connection: close"));

    // Others may speak at the same time, by hand, and wrongly.
    let mut raw = BufReader::new(UnixStream::connect(&path).await.unwrap());
    raw.write_all(b"nonsense\n\n{\"v\":9}\n{\"v\":1,\"command\":\"status\"}\n")
        .await
        .unwrap();
    for expected in ["not understood", "version 9", "\"ok\":true"] {
        let mut line = String::new();
        soon(raw.read_line(&mut line)).await.unwrap();
        assert!(line.contains(expected), "{line}");
    }
    // An endless line is answered and ended.
    raw.write_all(&[b'x'; 5000]).await.unwrap();
    let mut rest = String::new();
    let _ = soon(raw.read_to_string(&mut rest)).await;
    assert!(rest.contains("at most"), "{rest}");

    // Many clients that say nothing keep nobody out for ever: those who leave make room.
    let silent: Vec<_> = (0..20)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    drop(silent);
    Control::connect(&path)
        .await
        .unwrap()
        .status()
        .await
        .unwrap();
    server.stop().await;
    assert!(!path.exists(), "the path goes with the server");
    assert!(Control::connect(&path).await.unwrap_err().is_control());
}

/// A server with a control socket in a directory of its own.
async fn steered(configure: impl FnOnce(Builder) -> Builder) -> (Running, PathBuf, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let server = serve(any_port(), |b| configure(b.control(&path))).await;
    (server, path, directory)
}

/// The next event that is wanted.
async fn event<T>(control: &mut Control, wanted: impl Fn(Event) -> Option<T>) -> T {
    soon(async {
        loop {
            let (event, _) = control
                .event()
                .await
                .unwrap()
                .expect("the events end early");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    })
    .await
}

fn phase(event: Event) -> Option<String> {
    if let Event::Phase { phase } = event {
        return Some(phase);
    }
    None
}

#[tokio::test]
async fn a_drain_is_told_of_step_by_step_to_its_end() {
    let (server, path, _directory) = steered(|b| b.drain(linger(Duration::ZERO))).await;
    let mut clients = Vec::new();
    for target in ["/gate", "/gate?second"] {
        let mut client = connect(server.address).await;
        say(&mut client, target).await;
        clients.push(client);
    }
    server.until(|now| now.stragglers.len() == 2).await;

    let mut listener = Control::connect(&path).await.unwrap();
    let status = listener.listen().await.unwrap();
    assert_eq!(
        (status.phase.as_str(), status.stragglers_total),
        ("serving", 2)
    );
    assert_eq!(status.drain, None);
    let mut control = Control::connect(&path).await.unwrap();
    let answer = control.ask(Command::Drain {}).await.unwrap();
    assert_eq!(answer.phase.as_deref(), Some("draining"));
    assert_eq!(event(&mut listener, phase).await, "draining");
    let left = |event| {
        if let Event::Stragglers {
            stragglers_total, ..
        } = event
        {
            return Some(stragglers_total);
        }
        None
    };
    assert_eq!(event(&mut listener, left).await, 2);
    server.gate.add_permits(1);
    assert_eq!(event(&mut listener, left).await, 1);
    let status = control.status().await.unwrap();
    let drain = status.drain.unwrap();
    assert_eq!(
        (drain.open_at_start, drain.deadline_ms),
        (Some(2), Some(30_000))
    );
    assert!(drain.deadline_in_ms.is_some_and(|left| left <= 30_000));
    server.gate.add_permits(1);
    assert_eq!(event(&mut listener, phase).await, "stopped");
    let ended = event(&mut listener, |event| {
        if let Event::Ended { ending, text, .. } = event {
            return Some((ending, text));
        }
        None
    });
    let (ending, text) = ended.await;
    assert!(
        ending == "drained" && text.starts_with("drained in"),
        "{text}"
    );
    assert_eq!(listener.event().await.unwrap(), None, "it was the last");
    assert!(server.stopped().await.is_drained());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_lame_duck_can_be_undrained_and_nothing_else_can() {
    let lame = DrainPolicy {
        lame_duck: Duration::from_secs(600),
        ..DrainPolicy::default()
    };
    let (server, path, _directory) = steered(|b| b.drain(lame)).await;
    let mut control = Control::connect(&path).await.unwrap();
    let error = control.ask(Command::Undrain {}).await.unwrap_err();
    assert!(error.to_string().contains("is not draining"), "{error}");
    for _ in 0..2 {
        let answer = control.ask(Command::Drain {}).await.unwrap();
        assert_eq!(answer.phase.as_deref(), Some("lame-duck"));
        let drain = control.status().await.unwrap().drain.unwrap();
        assert!(drain.lame_duck_in_ms > Some(500_000) && drain.deadline_in_ms.is_none());
        let answer = control.ask(Command::Undrain {}).await.unwrap();
        assert_eq!(answer.phase.as_deref(), Some("serving"));
        assert_eq!(control.status().await.unwrap().drain, None);
    }
    assert_eq!(server.handle.phase(), Phase::Serving);
    // `stop` does not wait for the lame duck.
    control.ask(Command::Stop {}).await.unwrap();
    assert!(matches!(server.stopped().await, Outcome::Closed(_)));

    let (server, path, _directory) = steered(|b| b).await;
    let mut client = connect(server.address).await;
    say(&mut client, "/gate").await;
    server.until(|now| now.stragglers.len() == 1).await;
    let mut control = Control::connect(&path).await.unwrap();
    control.ask(Command::Drain {}).await.unwrap();
    let error = control.ask(Command::Undrain {}).await.unwrap_err();
    assert!(error.to_string().contains("too late"), "{error}");
    server.gate.add_permits(1);
    server.stopped().await;
}

#[tokio::test]
async fn connections_are_listed_by_what_is_asked_and_killed_by_number() {
    let limits = Limits {
        park_after: Duration::from_millis(1),
        ..Limits::default()
    };
    let (server, path, _directory) = steered(|b| b.limits(limits)).await;
    let mut idle = connect(server.address).await;
    ask(&mut idle, "/").await;
    let silent = connect(server.address).await;
    let mut active = connect(server.address).await;
    say(&mut active, "/gate").await;
    server
        .until(|now| now.stragglers.len() == 1 && now.counts.parked == 2)
        .await;
    let mut control = Control::connect(&path).await.unwrap();
    let mut list = async |filter: Filter| {
        let answer = control.connections(filter).await.unwrap();
        (answer.connections.unwrap(), answer.total.unwrap())
    };
    let state = |state: &str| Filter {
        state: Some(state.to_owned()),
        ..Filter::default()
    };
    let (all, total) = list(Filter::default()).await;
    assert_eq!((all.len(), total), (3, 3), "{all:?}");
    assert!(all.is_sorted_by_key(|c| std::cmp::Reverse(c.age_ms)));
    let (found, _) = list(state("active")).await;
    assert_eq!(found[0].request.as_deref(), Some("GET /gate"));
    assert_eq!(found[0].peer, active.local_addr().unwrap().to_string());
    let active_one = found[0].connection;
    let (found, _) = list(state("idle")).await;
    assert!(
        found[0].parked && found[0].requests == 1 && found.len() == 1,
        "{found:?}"
    );
    let idle_one = found[0].connection;
    assert_eq!(list(state("parked")).await.1, 2);
    let mut filter = Filter {
        peer: Some(silent.local_addr().unwrap().to_string()),
        ..Filter::default()
    };
    let (found, total) = list(filter.clone()).await;
    assert_eq!((found[0].state.as_str(), total), ("new", 1));
    filter.peer = Some("10.0.0.0/8".to_owned());
    assert_eq!(list(filter.clone()).await.1, 0);
    filter.peer = Some("127.0.0.1".to_owned());
    filter.limit = Some(1);
    let (found, total) = list(filter).await;
    assert_eq!((found.len(), total), (1, 3));
    let old = Filter {
        min_age_ms: Some(3_600_000),
        ..Filter::default()
    };
    assert_eq!(list(old).await.1, 0);
    let error = control.connections(state("busy")).await.unwrap_err();
    assert!(error.to_string().contains("no state"), "{error}");

    for (number, mut client) in [(idle_one, idle), (active_one, active)] {
        let kill = Command::Kill { connection: number };
        control.ask(kill).await.unwrap();
        assert_eq!(soon(client.read(&mut [0; 64])).await.unwrap_or(0), 0);
    }
    server.until(|now| now.counts.total() == 1).await;
    let kill = Command::Kill { connection: 999 };
    let error = control.ask(kill).await.unwrap_err();
    assert!(error.to_string().contains("no connection 999"), "{error}");
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn the_log_level_is_the_programs_to_change() {
    let (server, path, _directory) = steered(|b| b).await;
    let level = |level: &str| Command::LogLevel {
        level: level.to_owned(),
    };
    let mut control = Control::connect(&path).await.unwrap();
    let error = control.ask(level("debug")).await.unwrap_err();
    assert!(error.to_string().contains("no way"), "{error}");
    let error = control.ask(Command::Reload {}).await.unwrap_err();
    assert!(
        error.to_string().contains("without a succession"),
        "{error}"
    );
    server.stop().await;

    let set = Arc::new(Mutex::new(String::new()));
    let kept = set.clone();
    let hook = move |level: &str| match level {
        "shout" => Err("there is no such level".into()),
        level => {
            *set.lock().unwrap() = level.to_owned();
            Ok(())
        }
    };
    let (server, path, _directory) = steered(|b| b.on_log_level(hook)).await;
    let mut control = Control::connect(&path).await.unwrap();
    control.ask(level("curtsy_server=debug")).await.unwrap();
    assert_eq!(*kept.lock().unwrap(), "curtsy_server=debug");
    let error = control.ask(level("shout")).await.unwrap_err();
    assert!(error.to_string().contains("no such level"), "{error}");
    assert_eq!(*kept.lock().unwrap(), "curtsy_server=debug");
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_listen_is_cut_and_operators_find_room() {
    let tls = config();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = any_port().tls_in_reserve(tls);
    let server = serve(listener, |b| b.control(&path)).await;
    // As many listeners as there may be; they never read.
    let mut deaf = Vec::new();
    for _ in 0..16 {
        let mut control = Control::connect(&path).await.unwrap();
        control.listen().await.unwrap();
        deaf.push(control);
    }
    let mut control = Control::connect(&path).await.unwrap();
    let error = control.listen().await.unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
    // Enough lines to fill any socket's buffer, and then what is queued.
    soon(async {
        for _ in 0..20_000 {
            for mode in [ModeName::Both, ModeName::Plain] {
                server.handle.switch_to("main", mode).unwrap();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Room again: they were cut.
    soon(async {
        while control.listen().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let rest = soon(async {
        loop {
            match deaf[0].event().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    });
    assert!(!matches!(rest.await, Ok(Some(_))));
    server.stop().await;
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = serve(any_port(), |b| b.control(&path)).await;
    Control::connect(&path)
        .await
        .unwrap()
        .status()
        .await
        .unwrap();
    let service = hyper::service::service_fn(async |_: http::Request<Body>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    });
    let other = || Server::builder().listen("127.0.0.1:0");
    let error = other().control(&path).build(service).unwrap_err();
    assert!(
        error.is_control() && error.to_string().contains("another server"),
        "{error}"
    );
    // A path that nobody chose is done without.
    drop(other().control_if_possible(&path).build(service).unwrap());
    Control::connect(&path)
        .await
        .unwrap()
        .status()
        .await
        .unwrap();
    server.stop().await;
    assert!(!path.exists());
}
