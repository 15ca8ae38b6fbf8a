//! When a process is ready, as people write it, and the waiting for it.

use super::probe::{self, Question};
use super::words::Words;
use crate::duration;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// How long a program that says nothing, on Unix sockets only, has to live to be taken for ready.
const ALIVE: Duration = Duration::from_secs(1);

/// When a process is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It says so, or accepts: whichever comes first.
    Auto,
    /// It says `READY=1`.
    Notify,
    /// It answers, or accepts.
    Probe(Question),
    /// It has lived so long.
    Delay(Duration),
}

impl FromStr for Readiness {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "notify" => Ok(Self::Notify),
            None if text == "tcp" => Ok(Self::Probe(Question::Accept)),
            Some(("http", path)) if is_path(path) => {
                Ok(Self::Probe(Question::Get(path.to_owned())))
            }
            Some(("delay", time)) => duration::parse(time).map(Self::Delay),
            _ => Err("write auto, notify, tcp, http:/PATH or delay:TIME (delay:2s)".to_owned()),
        }
    }
}

/// What can stand in a request line.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Readiness {
    /// Whether it can be found out without a TCP listener.
    pub(crate) fn needs_tcp(&self) -> bool {
        matches!(self, Self::Probe(_))
    }

    /// Waits until the process is.
    pub(crate) async fn wait(&self, process: u32, words: &Words, listener: Option<SocketAddr>) {
        match (self, listener) {
            (Self::Notify, _) => words.ready(process).await,
            (Self::Delay(time), _) => tokio::time::sleep(*time).await,
            (Self::Probe(question), Some(listener)) => {
                probe::answered(process, listener, question).await;
            }
            // Refused when the flags were read.
            (Self::Probe(_), None) => std::future::pending().await,
            (Self::Auto, Some(listener)) => tokio::select! {
                () = words.ready(process) => {}
                () = probe::answered(process, listener, &Question::Accept) => {}
            },
            (Self::Auto, None) => tokio::select! {
                () = words.ready(process) => {}
                () = tokio::time::sleep(ALIVE) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Question, Readiness};
    use std::time::Duration;

    #[test]
    fn as_people_write_it() {
        let read = |text: &str| text.parse::<Readiness>();
        assert_eq!(read("auto"), Ok(Readiness::Auto));
        assert_eq!(read("notify"), Ok(Readiness::Notify));
        assert_eq!(read("tcp"), Ok(Readiness::Probe(Question::Accept)));
        assert_eq!(
            read("http:/healthz?full=1"),
            Ok(Readiness::Probe(Question::Get("/healthz?full=1".into())))
        );
        assert_eq!(
            read("delay:2s"),
            Ok(Readiness::Delay(Duration::from_secs(2)))
        );
        for wrong in [
            "",
            "http",
            "http:",
            "http:x",
            "http:/a b",
            "delay",
            "delay:",
            "delay:2",
            "never",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
