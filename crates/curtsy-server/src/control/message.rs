//! What is said over the control socket. Pure: lines in, values out.
//!
//! ```text
//! {"v":1,"command":"switch","listener":"main","mode":"tls"}
//! {"v":1,"ok":true}
//! ```

use curtsy_lifecycle::Snapshot;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The version of the language.
pub(crate) const VERSION: u32 = 1;
/// The longest line that is taken, in bytes, its end not counted.
pub(crate) const LINE_MOST: usize = 4096;

/// A line to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    v: u32,
    #[serde(flatten)]
    pub(crate) command: Command,
}

/// What the server is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Switch a listener to the mode of that name.
    Switch { listener: String, mode: String },
    /// Read the certificates' files again.
    ReloadCertificates,
    /// Tell what it is doing.
    Snapshot,
}

/// A line from the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    v: u32,
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) snapshot: Option<Value>,
}

impl Request {
    pub(crate) fn new(command: Command) -> Self {
        Self {
            v: VERSION,
            command,
        }
    }
}

impl Reply {
    pub(crate) fn done() -> Self {
        Self {
            v: VERSION,
            ok: true,
            error: None,
            snapshot: None,
        }
    }

    pub(crate) fn failed(error: impl ToString) -> Self {
        Self {
            ok: false,
            error: Some(error.to_string()),
            ..Self::done()
        }
    }

    pub(crate) fn snapshot(snapshot: &Snapshot) -> Self {
        Self {
            snapshot: Some(describe(snapshot)),
            ..Self::done()
        }
    }

    /// The line, its end included.
    pub(crate) fn line(&self) -> String {
        line(self)
    }
}

/// A value as a line, its end included.
pub(crate) fn line(value: &impl Serialize) -> String {
    // Nothing of ours can fail to be written as JSON: no maps with odd keys, no bytes.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// Reads a line; if it cannot be understood, the reply that says so.
pub(crate) fn parse(line: &[u8]) -> Result<Command, Reply> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    if line.len() > LINE_MOST {
        return Err(Reply::failed(format!(
            "a line is at most {LINE_MOST} bytes"
        )));
    }
    match serde_json::from_slice::<Versioned>(line) {
        Ok(Versioned { v: VERSION }) => {}
        Ok(Versioned { v }) => {
            let text = format!("version {v} is not spoken here; version {VERSION} is");
            return Err(Reply::failed(text));
        }
        Err(error) => return Err(Reply::failed(format!("not understood: {error}"))),
    }
    serde_json::from_slice::<Request>(line)
        .map(|request| request.command)
        .map_err(|error| Reply::failed(format!("not understood: {error}")))
}

/// A snapshot for programs: times in milliseconds.
fn describe(snapshot: &Snapshot) -> Value {
    let counts = &snapshot.counts;
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).ok();
    let stragglers = snapshot.stragglers.iter().map(|straggler| {
        json!({
            "connection": straggler.id,
            "age_ms": ms(straggler.age),
            "peer": straggler.peer.to_string(),
            "listener": straggler.listener,
            "state": straggler.state.name(),
            "method": straggler.method,
            "target": straggler.target,
            "bytes_sent": straggler.bytes_sent,
        })
    });
    json!({
        "phase": snapshot.phase.to_string(),
        "generation": snapshot.generation,
        "draining_for_ms": ms(snapshot.draining_for),
        "deadline_in_ms": snapshot.deadline_in.and_then(ms),
        "connections": {
            "handshake": counts.handshake,
            "new": counts.new,
            "active": counts.active,
            "idle": counts.idle,
            "upgraded": counts.upgraded,
            "parked": counts.parked,
        },
        "stragglers": stragglers.collect::<Vec<_>>(),
        "hooks": snapshot.hooks,
    })
}

#[cfg(test)]
mod tests {
    use super::{Command, LINE_MOST, Reply, Request, line, parse};
    use proptest::prelude::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        for command in [
            Command::Switch {
                listener: "main".to_owned(),
                mode: "tls".to_owned(),
            },
            Command::ReloadCertificates,
            Command::Snapshot,
        ] {
            let written = line(&Request::new(command.clone()));
            assert_eq!(parse(written.trim_end().as_bytes()), Ok(command));
        }
        let by_hand = br#"{"v":1,"command":"switch","listener":"main","mode":"both"}"#;
        assert!(parse(by_hand).is_ok());
        assert_eq!(Reply::done().line(), "{\"v\":1,\"ok\":true}\n");
    }

    #[test]
    fn what_is_not_understood_is_answered() {
        for (bad, expected) in [
            (&b"nonsense"[..], "not understood"),
            (b"{}", "not understood"),
            (
                br#"{"v":2,"command":"snapshot"}"#,
                "version 2 is not spoken here",
            ),
            (br#"{"v":1,"command":"explode"}"#, "not understood"),
            (br#"{"v":1,"command":"switch"}"#, "not understood"),
            (&[b' '; LINE_MOST + 1], "at most"),
        ] {
            let reply = parse(bad).unwrap_err();
            let error = reply.error.unwrap();
            assert!(!reply.ok && error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Err(reply) = parse(&bytes) {
                prop_assert!(reply.line().ends_with('\n'));
                prop_assert_eq!(reply.line().lines().count(), 1);
            }
        }
    }
}
