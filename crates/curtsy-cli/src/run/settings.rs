//! What `curtsy run` is told, by flags and by a file.
//!
//! Invariants:
//! - A flag counts more than the file.
//! - Nothing of a file is applied before all of it was read and understood; what is wrong with it is told with its line.
//! - What the file says about the sockets and the supervisor itself is applied at its start and not in a reload: there it
//!   is an error, so that nobody takes it for applied.
//!
//! Deliberately absent: a place where a file is looked for, but the current directory.

use super::Failure;
use super::readiness::Readiness;
use crate::{duration, number};
use clap::Args;
use curtsy::ListenAddress;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that is read where neither a command nor a file is given.
const DEFAULT_FILE: &str = "curtsy.toml";
const DEFAULT_TIME: Duration = Duration::from_secs(30);

/// Run a program, in any language, whose sockets outlive it: it is restarted without a refused connection.
///
/// The program gets the sockets as a service manager would give them: from descriptor 3 on, with LISTEN_FDS,
/// LISTEN_FDNAMES and LISTEN_PID; and a NOTIFY_SOCKET to say READY=1 on.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Where to listen: HOST:PORT, :PORT, or unix:/PATH[?mode=660]. May be given again
    #[arg(long, value_name = "ADDRESS", conflicts_with = "inherit")]
    listen: Vec<ListenAddress>,
    /// Take the sockets of the service manager (LISTEN_FDS) instead of binding an address
    #[arg(long)]
    inherit: bool,
    /// The names of the sockets, in the order of --listen [default: main, listener-2, ...]
    #[arg(long, value_name = "NAME", value_parser = name, conflicts_with = "inherit")]
    name: Vec<String>,
    /// When a process is ready: auto, notify, tcp, http:/PATH or delay:TIME [default: auto]
    #[arg(long, value_name = "HOW")]
    ready: Option<Readiness>,
    /// How long it may take to be ready [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    ready_timeout: Option<Duration>,
    /// How long it may take to end after SIGTERM, before SIGKILL [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    grace: Option<Duration>,
    /// How many processes accept from the same sockets [default: 1]
    #[arg(long, value_name = "N", value_parser = number::at_least_one)]
    processes: Option<NonZeroUsize>,
    /// A file for the supervisor's own process number, which stays
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Where the control socket is, for `curtsy reload`, `curtsy status` and the others
    /// [default: $XDG_RUNTIME_DIR/curtsy-PID.sock, or /tmp/curtsy-UID-PID.sock without that directory]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// A file that says the same as the flags, and the command [default: curtsy.toml, without a COMMAND]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only look whether flags and file are in order
    #[arg(long)]
    pub(super) check: bool,
    /// The program and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Examples:
  curtsy run --listen :9000 -- ./app --its-own flags
  curtsy run --listen 'unix:/run/app.sock?mode=660' --ready notify -- node app.js
  curtsy reload                  the next generation; the old one goes on if it fails
A TIME has its unit: 500ms, 30s, 1m 30s; or it is 0.
Readiness:
  auto          READY=1, or as with tcp: whichever comes first.
                With Unix sockets only: READY=1, or one second of life
  notify        READY=1 on NOTIFY_SOCKET
  tcp           the process waits for connections (epoll), or has accepted a probe's
  http:/PATH    the process answered GET PATH with 200 to 299
  delay:2s      it has lived so long
File: listen = \":9000\" (or a list), name, inherit, ready = \"notify\", ready-timeout = \"30s\", grace,
processes = 2, pidfile, control, command = [\"./app\", \"--flag\"]. A reload reads it again.
Signals: HUP reloads. TERM, INT and QUIT are passed on and stop; USR1, USR2 and WINCH are passed on.
TTIN starts one process more, TTOU ends one.
Exit codes: the program's own (128 + N for signal N) · 1 it could not start · 2 usage ·
126 it cannot be executed · 127 it is not there";

/// What flags and file come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) fixed: Fixed,
    pub(super) ready: Readiness,
    pub(super) ready_timeout: Duration,
    pub(super) grace: Duration,
    pub(super) command: Vec<OsString>,
}

/// What stays as it was at the supervisor's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) listen: Vec<ListenAddress>,
    pub(super) inherit: bool,
    pub(super) name: Vec<String>,
    pub(super) processes: NonZeroUsize,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) control: Option<PathBuf>,
}

impl Fixed {
    /// What is different in `other`.
    pub(super) fn differs(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("listen", self.listen != other.listen),
            ("inherit", self.inherit != other.inherit),
            ("name", self.name != other.name),
            ("processes", self.processes != other.processes),
            ("pidfile", self.pidfile != other.pidfile),
            ("control", self.control != other.control),
        ];
        let found = parts.into_iter().find(|(_, differs)| *differs);
        found.map(|(name, _)| name)
    }
}

/// The same in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    listen: Many<ListenAddress>,
    #[serde(default)]
    inherit: bool,
    #[serde(default)]
    name: Many<Name>,
    ready: Option<Text<Readiness>>,
    ready_timeout: Option<Text<Time>>,
    grace: Option<Text<Time>>,
    processes: Option<NonZeroUsize>,
    pidfile: Option<PathBuf>,
    control: Option<PathBuf>,
    #[serde(default)]
    command: Vec<String>,
}

impl Arguments {
    /// Reads the file, if there is one to read, and puts the flags above it.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let path = match (&self.config, self.command.is_empty()) {
            (Some(path), _) => Some(path.as_path()),
            (None, true) => Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists()),
            (None, false) => None,
        };
        let file = path.map(read).transpose()?.unwrap_or_default();
        let settings = self.over(file);
        settings.check()?;
        Ok(settings)
    }

    fn over(&self, file: File) -> Settings {
        let inherit = self.inherit || (file.inherit && self.listen.is_empty());
        let listen = match (self.listen.is_empty(), self.inherit) {
            (false, _) => self.listen.clone(),
            (true, true) => Vec::new(),
            (true, false) => file.listen.0,
        };
        let names = || file.name.0.into_iter().map(|name| name.0).collect();
        let name = match self.name.is_empty() && !self.inherit {
            true => names(),
            false => self.name.clone(),
        };
        let time = |flag: Option<Duration>, file: Option<Text<Time>>| {
            flag.or(file.map(|time| time.0.0)).unwrap_or(DEFAULT_TIME)
        };
        let ready = self.ready.clone().or(file.ready.map(|ready| ready.0));
        let command = match self.command.is_empty() {
            true => file.command.into_iter().map(OsString::from).collect(),
            false => self.command.clone(),
        };
        Settings {
            fixed: Fixed {
                listen,
                inherit,
                name,
                processes: self
                    .processes
                    .or(file.processes)
                    .unwrap_or(NonZeroUsize::MIN),
                pidfile: self.pidfile.clone().or(file.pidfile),
                control: self.control.clone().or(file.control),
            },
            ready: ready.unwrap_or(Readiness::Auto),
            ready_timeout: time(self.ready_timeout, file.ready_timeout),
            grace: time(self.grace, file.grace),
            command,
        }
    }
}

impl Settings {
    /// Whether it makes sense as a whole.
    fn check(&self) -> Result<(), Failure> {
        let Fixed {
            listen,
            inherit,
            name,
            ..
        } = &self.fixed;
        let wrong = if self.command.is_empty() {
            "there is no program to run: give a COMMAND after --, or a file with `command` (--config)"
        } else if listen.is_empty() && !inherit {
            "there is nothing to listen on: give --listen ADDRESS or --inherit, or `listen` in the file"
        } else if !listen.is_empty() && *inherit {
            "it is either `listen` or `inherit`"
        } else if name.len() > listen.len() {
            "there are more names (--name) than addresses (--listen)"
        } else if self.ready.needs_tcp() && !inherit && listen.iter().all(is_unix) {
            "--ready tcp and http ask over TCP, and all sockets are Unix sockets; use notify or delay"
        } else {
            return Ok(());
        };
        Err(Failure::new(2, wrong))
    }
}

fn is_unix(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Unix { .. })
}

fn read(path: &Path) -> Result<File, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(2, format!("cannot read {name}: {error}")))?;
    // Its text has the line and shows it.
    toml::from_str(&text).map_err(|error| {
        Failure::new(
            2,
            format!("{name} is not in order: {}", error.to_string().trim_end()),
        )
    })
}

/// A name that fits into LISTEN_FDNAMES.
fn name(text: &str) -> Result<String, String> {
    let is_fit = !text.is_empty()
        && text.len() <= 255
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':');
    match is_fit {
        true => Ok(text.to_owned()),
        false => Err("1 to 255 visible characters without a colon".to_owned()),
    }
}

#[derive(Debug)]
struct Name(String);

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        name(text).map(Self)
    }
}

#[derive(Debug)]
struct Time(Duration);

impl std::str::FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration::parse(text).map(Self)
    }
}

/// A text that is read as its flag is.
#[derive(Debug)]
struct Text<T>(T);

impl<'de, T: std::str::FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// One text or a list of them.
#[derive(Debug)]
struct Many<T>(Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: std::str::FromStr<Err: fmt::Display>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany<T>(std::marker::PhantomData<T>);
        impl<'de, T: std::str::FromStr<Err: fmt::Display>> Visitor<'de> for OneOrMany<T> {
            type Value = Many<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Many<T>, E> {
                let one = text.parse().map_err(E::custom)?;
                Ok(Many(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Many<T>, A::Error> {
                let mut many = Vec::new();
                while let Some(Text(one)) = all.next_element()? {
                    many.push(one);
                }
                Ok(Many(many))
            }
        }
        from.deserialize_any(OneOrMany(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Readiness, Settings};
    use clap::{Args, FromArgMatches};
    use std::num::NonZeroUsize;
    use std::time::Duration;

    /// What flags and the text of a file come to.
    fn settings(flags: &[&str], file: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service.toml");
        std::fs::write(&path, file).unwrap();
        let command = Arguments::augment_args(clap::Command::new("run"));
        let given = ["run", "--config", path.to_str().unwrap()];
        let matches = command
            .try_get_matches_from(given.iter().chain(flags))
            .unwrap();
        let arguments = Arguments::from_arg_matches(&matches).unwrap();
        arguments.settings().map_err(|failure| {
            assert_eq!(failure.status, 2);
            failure.why
        })
    }

    const WHOLE: &str = r#"
listen = [":9000", "unix:/run/app.sock?mode=660"]
name = ["web", "local"]
ready = "http:/healthz"
ready-timeout = "10s"
grace = "1m 30s"
processes = 3
pidfile = "/run/app.pid"
control = "/run/app.ctl"
command = ["./app", "--its-own", "flags"]
"#;

    #[test]
    fn a_file_says_what_the_flags_say_and_the_flags_count_more() {
        let flags = [
            "--listen",
            ":9000",
            "--listen",
            "unix:/run/app.sock?mode=660",
            "--name",
            "web",
            "--name",
            "local",
            "--ready",
            "http:/healthz",
            "--ready-timeout",
            "10s",
            "--grace",
            "1m 30s",
            "--processes",
            "3",
            "--pidfile",
            "/run/app.pid",
            "--control",
            "/run/app.ctl",
            "--",
            "./app",
            "--its-own",
            "flags",
        ];
        let by_file = settings(&[], WHOLE).unwrap();
        assert_eq!(by_file, settings(&flags, "").unwrap());
        let over = [
            "--grace",
            "0",
            "--ready",
            "tcp",
            "--processes",
            "1",
            "--listen",
            ":1",
            "--name",
            "a",
            "--",
            "other",
        ];
        let both = settings(&over, WHOLE).unwrap();
        assert_eq!(both.grace, Duration::ZERO);
        assert_eq!(both.ready_timeout, Duration::from_secs(10));
        assert_eq!(both.fixed.processes, NonZeroUsize::MIN);
        assert_eq!(both.fixed.listen.len(), 1);
        assert_eq!(both.command, ["other"]);
        let inherits = settings(&["--inherit"], WHOLE).unwrap();
        assert!(inherits.fixed.inherit && inherits.fixed.listen.is_empty());

        let least = settings(&[], "listen = \":1\"\ncommand = [\"x\"]").unwrap();
        assert_eq!(least.ready, Readiness::Auto);
        assert_eq!(
            (least.ready_timeout, least.grace),
            (super::DEFAULT_TIME, super::DEFAULT_TIME)
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (line, says) in [
            ("grace = \"soon\"", "30s"),
            ("grace = 30", "string"),
            ("ready = \"never\"", "delay:TIME"),
            ("listen = \"nonsense\"", "nonsense"),
            ("listen = [\":1\", 5]", "string"),
            ("name = \"a:b\"", "colon"),
            ("processes = 0", "nonzero"),
            ("graze = \"1s\"", "unknown field"),
            ("command = \"one text\"", "sequence"),
            ("inherit = ", "value"),
        ] {
            let text = format!("# a comment\n{line}\n");
            let why = settings(&[], &text).unwrap_err();
            assert!(why.contains("service.toml"), "{why}");
            assert!(why.contains("line 2"), "{line}: {why}");
            assert!(why.contains(says), "{line}: {why}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (file, says) in [
            ("listen = \":1\"", "no program"),
            ("command = [\"x\"]", "nothing to listen on"),
            (
                "command = [\"x\"]\nlisten = \":1\"\ninherit = true",
                "either",
            ),
            (
                "command = [\"x\"]\nlisten = \":1\"\nname = [\"a\", \"b\"]",
                "more names",
            ),
            (
                "command = [\"x\"]\nlisten = \"unix:/x\"\nready = \"tcp\"",
                "Unix",
            ),
        ] {
            let why = settings(&[], file).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
