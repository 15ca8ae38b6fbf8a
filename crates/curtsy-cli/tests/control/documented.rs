//! The examples of `docs/control.md`, said to a server. Its answers must have the documented fields, no more and no
//! fewer, of the documented types; words that mean something must be the same.

use crate::server::{BOUND, Server};
use serde_json::Value;
use std::collections::BTreeSet;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const PAGE: &str = include_str!("../../../../docs/control.md");
/// What is shown elsewhere.
const ELSEWHERE: &str = "…";
/// The number of the straggler in the examples.
const STRAGGLER: u64 = 7;

/// The fenced blocks of examples: what kind of server they want, and their lines.
fn blocks() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```jsonl") {
            let block = lines.by_ref().take_while(|line| *line != "```");
            blocks.push((kind.trim(), block.collect()));
        }
    }
    blocks
}

#[test]
fn every_command_and_event_has_an_example() {
    let lines: Vec<&str> = blocks().into_iter().flat_map(|(_, lines)| lines).collect();
    let shown = |key: &str| -> BTreeSet<String> {
        lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(&line[2..]).ok())
            .filter_map(|line| Some(line.get(key)?.as_str()?.to_owned()))
            .collect()
    };
    // As the language has them; what is unknown to it, it names.
    let known = |text: String| -> BTreeSet<String> {
        text.split('`')
            .skip(3)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let unknown = r#"{"command":"?"}"#;
    let error = serde_json::from_str::<curtsy::control::Command>(unknown).unwrap_err();
    let commands = known(error.to_string());
    assert!(commands.len() >= 12, "{commands:?}");
    assert_eq!(shown("command"), commands);
    let events = [
        "phase",
        "progress",
        "stragglers",
        "restart",
        "switched",
        "log-level",
        "ended",
    ];
    assert_eq!(shown("event"), events.map(str::to_owned).into());
    for event in events {
        assert!(
            PAGE.contains(&format!("| `{event}` |")),
            "{event} is not explained"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_are_true() {
    for (kind, lines) in blocks() {
        tokio::time::timeout(2 * BOUND, try_out(kind, &lines))
            .await
            .unwrap_or_else(|_| panic!("not in time: {lines:?}"));
    }
}

async fn try_out(kind: &str, lines: &[&str]) {
    let both = ["--tls", "self-signed", "--mode", "plain"];
    let server = match kind {
        "" => Server::demo(&[&both[..], &["--deadline", "2s"]].concat()).await,
        "lame-duck" => Server::demo(&[&both[..], &["--lame-duck", "10m"]].concat()).await,
        "run" => Server::supervised(&[]).await,
        other => panic!("what is {other:?}?"),
    };
    let mut held = Vec::new();
    if kind != "run" {
        held.push(server.straggler().await);
        // The drain's progress is shown after the first idle connection has gone.
        held.push(server.parked().await);
    }
    let mut stream = BufReader::new(UnixStream::connect(server.control()).await.unwrap());
    let number = match kind {
        "run" => 0,
        _ => straggler(&mut stream).await,
    };
    for line in lines {
        match line.split_at(2) {
            ("> ", command) => {
                let old = format!("\"connection\":{STRAGGLER}}}");
                let command = command.replace(&old, &format!("\"connection\":{number}}}"));
                say(&mut stream, &command).await;
            }
            ("< ", expected) => {
                let expected: Value = serde_json::from_str(expected).unwrap();
                await_like(&mut stream, &expected).await;
            }
            _ => panic!("neither > nor <: {line}"),
        }
    }
}

async fn straggler(stream: &mut BufReader<UnixStream>) -> u64 {
    say(stream, r#"{"v":1,"command":"stragglers"}"#).await;
    hear(stream).await["stragglers"][0]["connection"]
        .as_u64()
        .unwrap()
}

async fn say(stream: &mut BufReader<UnixStream>, line: &str) {
    stream
        .write_all(format!("{line}\n").as_bytes())
        .await
        .unwrap();
}

async fn hear(stream: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    let reading = stream.read_line(&mut line);
    tokio::time::timeout(BOUND, reading).await.unwrap().unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// Answers come in order, and so do events; events of other kinds, and more of a kind, may come between.
async fn await_like(stream: &mut BufReader<UnixStream>, expected: &Value) {
    let mut passed_over = Vec::new();
    loop {
        let line = hear(stream).await;
        let why = match unlike(expected, &line, "") {
            None => return,
            Some(why) => why,
        };
        let may_be_passed_over = line.get("event").is_some();
        passed_over.push(format!("{line}\n  {why}"));
        assert!(
            may_be_passed_over,
            "no {expected} but\n{}",
            passed_over.join("\n")
        );
    }
}

/// How the two differ in shape, if they do.
fn unlike(expected: &Value, got: &Value, at: &str) -> Option<String> {
    // Words for programs, and numbers that are the same for everybody.
    const EXACT: [&str; 13] = [
        ".v",
        ".ok",
        ".error",
        ".event",
        ".phase",
        ".step",
        ".ending",
        ".state",
        ".kind",
        ".mode",
        ".level",
        ".generation",
        ".target",
    ];
    match (expected, got) {
        (Value::String(text), _) if text == ELSEWHERE => None,
        (Value::Object(a), Value::Object(b)) => {
            let keys = |object: &serde_json::Map<String, Value>| -> BTreeSet<String> {
                object.keys().cloned().collect()
            };
            if keys(a) != keys(b) {
                return Some(format!("{at}: {:?} is not {:?}", keys(b), keys(a)));
            }
            a.iter()
                .find_map(|(key, value)| unlike(value, &b[key], &format!("{at}.{key}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .find_map(|(a, b)| unlike(a, b, &format!("{at}[]"))),
        (a, b) if EXACT.iter().any(|name| at.ends_with(name)) => {
            (a != b).then(|| format!("{at}: {b} is not {a}"))
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => None,
        (a, b) => Some(format!("{at}: {b} is not like {a}")),
    }
}

#[test]
fn what_differs_is_found() {
    let like = |a: &str, b: &str| {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        unlike(&read(a), &read(b), "").is_none()
    };
    assert!(like(r#"{"v":1,"x":[{"y":1}]}"#, r#"{"v":1,"x":[{"y":2}]}"#));
    assert!(like(r#"{"status":"…"}"#, r#"{"status":{"a":1}}"#));
    assert!(!like(r#"{"v":1}"#, r#"{"v":2}"#));
    assert!(!like(r#"{"a":1}"#, r#"{"a":1,"b":2}"#));
    assert!(!like(r#"{"a":1}"#, r#"{"a":"1"}"#));
    assert!(!like(r#"{"phase":"serving"}"#, r#"{"phase":"draining"}"#));
}
