//! What happens to a server, told to whoever listens.
//!
//! Invariants:
//! - Whoever tells never waits, and tells nobody at no cost to speak of.
//! - A listener that falls behind is cut off, not waited for: the lines for it are bounded.
//!
//! Deliberately absent: events of single connections and requests. Those are for logs and traces.

use super::message::{VERSION, line};
use super::status::{Connections, DrainStatus, RestartFailed, RestartStatus, StragglerStatus};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, broadcast};

/// How many lines a listener may be behind.
const BEHIND_MOST: usize = 256;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The server is in another phase.
    Phase {
        /// `serving`, `lame-duck`, `draining`, `stopped`; of a supervisor also `reloading`.
        phase: String,
    },
    /// While it drains: connections have ended. At most ten times a second.
    Progress {
        /// What is left.
        connections: Connections,
        /// How far it is.
        drain: DrainStatus,
    },
    /// While it drains: others are still running than those told of before.
    Stragglers {
        /// How many there are now.
        stragglers_total: usize,
        /// The oldest of them.
        stragglers: Vec<StragglerStatus>,
    },
    /// A step of a restart.
    Restart {
        /// `begun`, `started` (a supervisor's process), `ready`, `moved` (the waiting connections
        /// are the new one's), `serves`, or `kept`: it failed, and the old generation goes on.
        step: String,
        /// The new generation; left out where no process came to be.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        generation: Option<u64>,
        /// Its process, if it is one and known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pid: Option<u32>,
        /// The same for people; of `kept`, why.
        text: String,
    },
    /// A listener speaks another mode.
    Switched {
        /// The listener.
        listener: String,
        /// `plain`, `tls` or `both`.
        mode: String,
    },
    /// The log tells as much as this says.
    LogLevel {
        /// As it was asked for.
        level: String,
    },
    /// A supervisor says something for people.
    Note {
        /// What.
        text: String,
    },
    /// It is over; no line comes after this.
    Ended {
        /// `drained`, `deadline-passed` or `closed`; of a supervisor `exited`.
        ending: String,
        /// From the wish to stop to the end.
        took_ms: u64,
        /// What was still running.
        stragglers_total: usize,
        /// The oldest of it.
        stragglers: Vec<StragglerStatus>,
        /// The report, for people.
        text: String,
    },
    /// One that a later version knows.
    #[serde(other)]
    Unknown,
}

/// A line with an event.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    #[serde(flatten)]
    event: &'a Event,
}

/// A line to listeners.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) line: Arc<str>,
    /// It is a step of a restart: for those who asked for one, too.
    pub(crate) is_restart: bool,
}

/// Where events are told.
///
/// A server has one of its own. This is for a program that keeps a control socket itself, as the
/// supervisor does.
#[derive(Clone, Debug)]
pub struct Crier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lines: broadcast::Sender<News>,
    /// Something may be worth telling of.
    changed: Notify,
    restart: Mutex<Option<RestartStatus>>,
    /// When the last restart failed, and why; none has succeeded since.
    failed: Mutex<Option<(Instant, String)>>,
}

impl Default for Crier {
    fn default() -> Self {
        Self(Arc::new(Inner {
            lines: broadcast::Sender::new(BEHIND_MOST),
            changed: Notify::new(),
            restart: Mutex::default(),
            failed: Mutex::default(),
        }))
    }
}

impl Crier {
    /// One that nobody listens to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells all who listen.
    pub fn tell(&self, event: &Event) {
        if let Event::Restart {
            step,
            generation,
            pid,
            text,
        } = event
        {
            self.remember(step, *generation, *pid);
            self.judge(step, text);
        }
        if !self.is_heard() {
            return;
        }
        let news = News {
            line: line(&Line { v: VERSION, event }).into(),
            is_restart: matches!(event, Event::Restart { .. }),
        };
        // It fails only if the last listener has just left.
        let _ = self.0.lines.send(news);
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.0.lines.receiver_count() > 0
    }

    /// The restart under way, or the last one that succeeded.
    pub fn restart(&self) -> Option<RestartStatus> {
        let restart = self.0.restart.lock();
        restart.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last restart, if it failed and none has succeeded since.
    pub fn restart_failed(&self) -> Option<RestartFailed> {
        let failed = self.0.failed.lock();
        let failed = failed.unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map(|(at, text)| RestartFailed {
            ago_ms: super::status::ms(at.elapsed()),
            text: text.clone(),
        })
    }

    fn judge(&self, step: &str, text: &str) {
        let failed = match step {
            "kept" => Some((Instant::now(), text.to_owned())),
            "serves" => None,
            _ => return,
        };
        let kept = self.0.failed.lock();
        *kept.unwrap_or_else(PoisonError::into_inner) = failed;
    }

    fn remember(&self, step: &str, generation: Option<u64>, pid: Option<u32>) {
        let mut restart = self
            .0
            .restart
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *restart = match (step, generation) {
            ("kept", _) => None,
            // A step on the way, which changes nothing of it.
            (_, None) => return,
            (step, Some(generation)) => Some(RestartStatus {
                step: step.to_owned(),
                generation,
                pid,
            }),
        };
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<News> {
        self.0.lines.subscribe()
    }

    /// Something may be worth telling of: whoever tells it looks when it has time.
    pub(crate) fn nudge(&self) {
        self.0.changed.notify_one();
    }

    pub(crate) async fn nudged(&self) {
        self.0.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::{BEHIND_MOST, Crier, Event};
    use tokio::sync::broadcast::error::TryRecvError;

    fn step(step: &str, generation: Option<u64>) -> Event {
        Event::Restart {
            step: step.to_owned(),
            generation,
            pid: None,
            text: String::new(),
        }
    }

    #[test]
    fn the_restart_under_way_is_remembered_and_a_failed_one_forgotten() {
        let crier = Crier::new();
        crier.tell(&step("begun", Some(3)));
        assert_eq!(crier.restart().unwrap().step, "begun");
        crier.tell(&step("moved", None));
        assert_eq!(crier.restart().unwrap().step, "begun");
        assert_eq!(crier.restart_failed(), None);
        crier.tell(&step("kept", Some(3)));
        assert_eq!(crier.restart(), None);
        // That it failed is known until one succeeds.
        crier.tell(&step("begun", Some(3)));
        assert!(crier.restart_failed().is_some());
        crier.tell(&step("serves", Some(3)));
        assert_eq!(crier.restart_failed(), None);
    }

    #[test]
    fn who_falls_behind_is_told_so_and_nobody_waits() {
        let crier = Crier::new();
        let (mut quick, mut slow) = (crier.listen(), crier.listen());
        for _ in 0..=BEHIND_MOST {
            crier.tell(&step("begun", Some(1)));
            quick.try_recv().unwrap();
        }
        assert!(matches!(slow.try_recv(), Err(TryRecvError::Lagged(1))));
    }

    #[test]
    fn an_event_of_a_later_version_is_passed_over() {
        let event = serde_json::from_str::<Event>(r#"{"v":1,"event":"eclipse","until":4}"#);
        assert_eq!(event.unwrap(), Event::Unknown);
    }
}
