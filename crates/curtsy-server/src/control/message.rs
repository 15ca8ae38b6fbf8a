//! What is said over the control socket. Pure: lines in, values out.
//!
//! ```text
//! {"v":1,"command":"switch","listener":"main","mode":"tls"}
//! {"v":1,"ok":true}
//! ```

use super::listing::{ConnectionStatus, Filter};
use super::status::{Status, StragglerStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the language.
pub const VERSION: u32 = 1;
/// The longest line that a server takes, in bytes, its end not counted.
pub const LINE_MOST: usize = 4096;

/// A line to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Request<'a> {
    v: u32,
    #[serde(flatten)]
    command: &'a Command,
}

/// What a server, or a supervisor, is asked to do.
///
/// `docs/control.md` of the repository says what each does and what it is answered by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Command {
    /// Tell what it is doing.
    Status {},
    /// Tell of the requests and upgraded connections under way, oldest first.
    Stragglers {
        /// How many at most; [`Filter::LIMIT`] by default.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        limit: Option<usize>,
    },
    /// List connections, oldest in their state first.
    Connections(Filter),
    /// Begin to shut down, by way of the lame duck if there is to be one.
    Drain {},
    /// Take that back, while a lame duck.
    Undrain {},
    /// Restart: start the next generation.
    Reload {},
    /// Switch a listener to another mode.
    Switch {
        /// The listener's name.
        listener: String,
        /// `plain`, `tls` or `both`.
        mode: String,
    },
    /// Read the certificates' files again.
    ReloadCertificates {},
    /// Log as much as this says from now on.
    LogLevel {
        /// `warn`, `curtsy_server=debug,info`: as the program's hook has it.
        level: String,
    },
    /// Close everything at once.
    Stop {},
    /// Close one connection at once.
    Kill {
        /// Its number.
        connection: u64,
    },
    /// Tell of what happens, from now on.
    Events {},
}

/// What a command came to, beside having been obeyed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer {
    /// To `status` and `events`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<Box<Status>>,
    /// To `stragglers`, oldest first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stragglers: Option<Vec<StragglerStatus>>,
    /// To `connections`, oldest in their state first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connections: Option<Vec<ConnectionStatus>>,
    /// How many there are that the limit may have cut off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<usize>,
    /// To `drain` and `undrain`: the phase it is in now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<String>,
    /// To `reload`: the generation that serves now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<u64>,
    /// To `reload`: its process, if it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
}

/// A line from the server in answer to a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    v: u32,
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

impl Command {
    /// The line that asks for it, its end included.
    pub(crate) fn line(&self) -> String {
        line(&Request {
            v: VERSION,
            command: self,
        })
    }
}

impl Reply {
    pub(crate) fn done(answer: Answer) -> Self {
        Self {
            v: VERSION,
            ok: true,
            error: None,
            answer,
        }
    }

    pub(crate) fn failed(error: impl ToString) -> Self {
        Self {
            ok: false,
            error: Some(error.to_string()),
            ..Self::done(Answer::default())
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

/// Reads a line; or why it cannot be understood.
pub(crate) fn parse(line: &[u8]) -> Result<Command, String> {
    let not_understood = |error| format!("not understood: {error}");
    if line.len() > LINE_MOST {
        return Err(format!("a line is at most {LINE_MOST} bytes"));
    }
    let mut request: serde_json::Map<String, Value> =
        serde_json::from_slice(line).map_err(not_understood)?;
    match request.remove("v") {
        Some(version) if version == VERSION => {}
        Some(version) => {
            let text = format!("version {version} is not spoken here; version {VERSION} is");
            return Err(text);
        }
        None => return Err("not understood: missing field `v`".to_owned()),
    }
    serde_json::from_value(Value::Object(request)).map_err(not_understood)
}

#[cfg(test)]
mod tests {
    use super::{Answer, Command, LINE_MOST, Reply, parse};
    use crate::control::Filter;
    use proptest::prelude::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        for command in [
            Command::Status {},
            Command::Stragglers { limit: Some(3) },
            Command::Connections(Filter {
                state: Some("idle".to_owned()),
                min_age_ms: Some(1_000),
                peer: Some("127.0.0.1".to_owned()),
                limit: Some(5),
            }),
            Command::Drain {},
            Command::Undrain {},
            Command::Reload {},
            Command::Switch {
                listener: "main".to_owned(),
                mode: "tls".to_owned(),
            },
            Command::ReloadCertificates {},
            Command::LogLevel {
                level: "info".to_owned(),
            },
            Command::Stop {},
            Command::Kill { connection: 7 },
            Command::Events {},
        ] {
            let written = command.line();
            assert_eq!(parse(written.trim_end().as_bytes()), Ok(command));
        }
        let by_hand = br#"{"v":1,"command":"connections","min_age_ms":5}"#;
        let filter = Filter {
            min_age_ms: Some(5),
            ..Filter::default()
        };
        assert_eq!(parse(by_hand), Ok(Command::Connections(filter)));
        assert_eq!(
            Reply::done(Answer::default()).line(),
            "{\"v\":1,\"ok\":true}\n"
        );
    }

    #[test]
    fn what_is_not_understood_is_answered() {
        for (bad, expected) in [
            (&b"nonsense"[..], "not understood"),
            (b"{}", "not understood"),
            (
                br#"{"v":2,"command":"status"}"#,
                "version 2 is not spoken here",
            ),
            (br#"{"v":1,"command":"explode"}"#, "unknown variant"),
            (br#"{"v":1,"command":"switch"}"#, "not understood"),
            // A slip of the pen must not widen what is asked for.
            (
                br#"{"v":1,"command":"connections","sate":"idle"}"#,
                "unknown field `sate`",
            ),
            (
                br#"{"v":1,"command":"status","all":true}"#,
                "unknown field `all`",
            ),
            (&[b' '; LINE_MOST + 1], "at most"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Err(why) = parse(&bytes) {
                let reply = Reply::failed(why);
                prop_assert!(reply.line().ends_with('\n'));
                prop_assert_eq!(reply.line().lines().count(), 1);
            }
        }
    }
}
