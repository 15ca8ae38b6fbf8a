//! What `top` knows and shows, and what a key means. Pure: what was told and pressed in, what to draw and order out.

use curtsy::control::{Command, Connections, Event, RestartStatus, Status};
use std::collections::VecDeque;
use std::fmt;

/// How many looks back are kept: as many as a wide terminal has columns.
const HISTORY_MOST: usize = 512;
/// How many of the last happenings are kept.
const NOTES_MOST: usize = 32;

/// What is told to `top`.
#[derive(Debug)]
pub(super) enum Told {
    Status(Box<Status>),
    Event(Box<Event>),
    /// The server is gone, and what was last heard of it.
    Lost(String),
    /// What an order came to.
    Obeyed(String, Result<(), String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Before,
    After,
    Escape,
    Interrupt,
    Other,
}

/// An order to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Reload,
    Drain,
    Undrain,
    Switch {
        listener: String,
        mode: &'static str,
    },
}

/// What a key has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Order(Order),
    Quit,
}

/// What is asked of whoever sits there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Prompt {
    #[default]
    Nothing,
    /// Which listener, by its place in the list, to which mode?
    Switch(usize),
    /// Really?
    Really(Order),
}

/// A look at the server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) connections: Connections,
    pub(super) per_second: Option<f64>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) status: Status,
    pub(super) history: VecDeque<Look>,
    pub(super) notes: VecDeque<String>,
    pub(super) prompt: Prompt,
    /// Why nothing is heard, while that is so.
    pub(super) lost: Option<String>,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.write_str("reload"),
            Self::Drain => f.write_str("drain"),
            Self::Undrain => f.write_str("undrain"),
            Self::Switch { listener, mode } => write!(f, "switch {listener} to {mode}"),
        }
    }
}

impl Order {
    pub(super) fn command(&self) -> Command {
        match self {
            Self::Reload => Command::Reload {},
            Self::Drain => Command::Drain {},
            Self::Undrain => Command::Undrain {},
            Self::Switch { listener, mode } => Command::Switch {
                listener: listener.clone(),
                mode: (*mode).to_owned(),
            },
        }
    }
}

/// Answers a second from one look at a process to the next.
fn rate(before: &Status, now: &Status) -> Option<f64> {
    let (old, new) = (before.requests?, now.requests?);
    let ms = now.up_ms.checked_sub(before.up_ms).filter(|ms| *ms > 0)?;
    let answers = new.total.checked_sub(old.total)?;
    (before.pid == now.pid).then_some(answers as f64 * 1_000.0 / ms as f64)
}

impl Model {
    pub(super) fn new(status: Status) -> Self {
        let mut model = Self::default();
        model.see(status);
        model
    }

    pub(super) fn hear(&mut self, told: Told) {
        match told {
            Told::Status(status) => {
                self.lost = None;
                self.see(*status);
            }
            Told::Event(event) => self.happen(*event),
            Told::Lost(why) => {
                self.note(why.clone());
                self.lost = Some(why);
                self.prompt = Prompt::Nothing;
            }
            Told::Obeyed(order, Ok(())) => self.note(format!("{order}: done")),
            Told::Obeyed(order, Err(why)) => self.note(format!("{order}: {why}")),
        }
    }

    fn see(&mut self, mut status: Status) {
        let rate = rate(&self.status, &status);
        if let Some(requests) = &mut status.requests {
            requests.per_second = requests.per_second.or(rate);
        }
        let per_second = status.requests.and_then(|requests| requests.per_second);
        self.history.push_front(Look {
            connections: status.connections.unwrap_or_default(),
            per_second,
        });
        self.history.truncate(HISTORY_MOST);
        self.status = status;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Phase { phase } => {
                self.note(format!("phase: {phase}"));
                self.status.phase = phase;
            }
            Event::Progress { connections, drain } => {
                self.status.connections = Some(connections);
                self.status.drain = Some(drain);
            }
            Event::Stragglers {
                stragglers_total,
                stragglers,
            } => {
                self.status.stragglers_total = stragglers_total;
                self.status.stragglers = stragglers;
            }
            Event::Restart {
                step,
                generation,
                pid,
                text,
            } => {
                self.note(text);
                match (step.as_str(), generation) {
                    ("kept", _) => self.status.restart = None,
                    // On the way from one step to the next.
                    (_, None) => {}
                    (_, Some(generation)) => {
                        self.status.restart = Some(RestartStatus {
                            step,
                            generation,
                            pid,
                        });
                    }
                }
            }
            Event::Note { text } => self.note(text),
            Event::Ended {
                stragglers_total,
                stragglers,
                text,
                ..
            } => {
                self.note(text);
                // What is left is what was cut.
                self.status.drain = None;
                self.status.connections = self.status.connections.map(|_| Connections::default());
                self.status.stragglers_total = stragglers_total;
                self.status.stragglers = stragglers;
                self.status.processes.clear();
            }
            Event::Switched { listener, mode } => {
                self.note(format!("{listener} speaks {mode}"));
                let mut listeners = self.status.listeners.iter_mut();
                if let Some(found) = listeners.find(|found| found.name == listener) {
                    found.mode = Some(mode);
                }
            }
            Event::LogLevel { level } => self.note(format!("log level: {level}")),
            Event::Unknown | _ => {}
        }
    }

    fn note(&mut self, text: String) {
        // The first line says what it is.
        let first = text.lines().next().unwrap_or_default();
        if self.notes.front().is_none_or(|last| last != first) {
            self.notes.push_front(first.to_owned());
        }
        self.notes.truncate(NOTES_MOST);
    }

    /// The most connections that were seen, of what `of` counts; 1 at least.
    pub(super) fn most(&self, of: impl Fn(&Look) -> u64) -> u64 {
        self.history.iter().map(of).max().unwrap_or(0).max(1)
    }

    pub(super) fn press(&mut self, key: Key) -> Next {
        if key == Key::Interrupt {
            return Next::Quit;
        }
        match (std::mem::take(&mut self.prompt), key) {
            (Prompt::Nothing, Key::Letter('q') | Key::Escape) => return Next::Quit,
            (Prompt::Nothing, Key::Letter(letter)) if self.lost.is_none() => {
                self.prompt = match letter {
                    'r' => Prompt::Really(Order::Reload),
                    'd' => Prompt::Really(Order::Drain),
                    'u' => Prompt::Really(Order::Undrain),
                    's' if !self.status.listeners.is_empty() => Prompt::Switch(0),
                    _ => Prompt::Nothing,
                };
            }
            (Prompt::Really(order), Key::Letter('y')) => return Next::Order(order),
            (Prompt::Switch(at), Key::Letter(letter @ ('p' | 't' | 'b'))) => {
                let mode = match letter {
                    'p' => "plain",
                    't' => "tls",
                    _ => "both",
                };
                if let Some(found) = self.status.listeners.get(at) {
                    let listener = found.name.clone();
                    self.prompt = Prompt::Really(Order::Switch { listener, mode });
                }
            }
            (Prompt::Switch(at), Key::After) => {
                self.prompt = Prompt::Switch((at + 1) % self.status.listeners.len().max(1));
            }
            (Prompt::Switch(at), Key::Before) => {
                let count = self.status.listeners.len().max(1);
                self.prompt = Prompt::Switch((at + count - 1) % count);
            }
            // Another size of the terminal is no answer.
            (prompt @ (Prompt::Switch(_) | Prompt::Really(_)), Key::Other) => self.prompt = prompt,
            // Any other key says no.
            (Prompt::Really(_) | Prompt::Switch(_) | Prompt::Nothing, _) => {}
        }
        Next::Stay
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Model, Next, Order, Prompt, Told};
    use curtsy::control::{Event, ListenerStatus, Requests, Status, StragglerStatus};

    fn model() -> Model {
        let mut status = Status::default();
        for name in ["main", "admin"] {
            status.listeners.push(ListenerStatus {
                name: name.to_owned(),
                ..ListenerStatus::default()
            });
        }
        Model::new(status)
    }

    fn press(model: &mut Model, keys: &str) -> Next {
        let last = keys.chars().map(|key| {
            model.press(match key {
                '>' => Key::After,
                '<' => Key::Before,
                '!' => Key::Escape,
                '.' => Key::Other,
                letter => Key::Letter(letter),
            })
        });
        last.last().unwrap()
    }

    #[test]
    fn a_rate_is_of_one_process() {
        let look = |pid, up_ms, total| {
            let mut status = Status::default();
            (status.pid, status.up_ms) = (pid, up_ms);
            status.requests = Some(Requests {
                total,
                ..Requests::default()
            });
            status
        };
        let mut model = Model::new(look(1, 1_000, 100));
        let mut seen = |status| {
            model.see(status);
            model.history[0].per_second
        };
        assert_eq!(seen(look(1, 3_000, 700)), Some(300.0));
        assert_eq!(seen(look(1, 3_000, 700)), None);
        assert_eq!(seen(look(2, 9_000, 900)), None);
        assert_eq!(seen(look(2, 9_500, 900)), Some(0.0));
    }

    #[test]
    fn every_order_asks_first() {
        let switch = |listener: &str, mode| {
            let listener = listener.to_owned();
            Next::Order(Order::Switch { listener, mode })
        };
        for (keys, expected) in [
            ("ry", Next::Order(Order::Reload)),
            ("dy", Next::Order(Order::Drain)),
            ("uy", Next::Order(Order::Undrain)),
            ("d.y", Next::Order(Order::Drain)),
            ("spy", switch("main", "plain")),
            ("s>ty", switch("admin", "tls")),
            ("s<by", switch("admin", "both")),
            ("s>>by", switch("main", "both")),
            ("y", Next::Stay),
            ("dn", Next::Stay),
            ("d!", Next::Stay),
            ("dd", Next::Stay),
            ("rny", Next::Stay),
            ("sy", Next::Stay),
            ("s!", Next::Stay),
            ("stn", Next::Stay),
            ("q", Next::Quit),
            ("!", Next::Quit),
            ("dn!", Next::Quit),
        ] {
            let mut model = model();
            assert_eq!(press(&mut model, keys), expected, "{keys}");
            assert_eq!(model.prompt, Prompt::Nothing, "{keys}");
        }
        let mut model = model();
        press(&mut model, "d");
        assert_eq!(model.press(Key::Interrupt), Next::Quit);
    }

    #[test]
    fn nothing_can_be_ordered_of_a_server_that_is_gone() {
        let mut model = model();
        press(&mut model, "d");
        model.hear(Told::Lost("gone".to_owned()));
        assert_eq!(press(&mut model, "y"), Next::Stay);
        assert_eq!(press(&mut model, "dy"), Next::Stay);
        model.hear(Told::Status(Box::default()));
        assert_eq!(press(&mut model, "dy"), Next::Order(Order::Drain));
    }

    #[test]
    fn what_happens_is_seen_before_the_next_look() {
        let mut model = model();
        let phase = "draining".to_owned();
        model.hear(Told::Event(Box::new(Event::Phase { phase })));
        assert_eq!(model.status.phase, "draining");
        model.hear(Told::Event(Box::new(Event::Switched {
            listener: "admin".to_owned(),
            mode: "tls".to_owned(),
        })));
        assert_eq!(model.status.listeners[1].mode.as_deref(), Some("tls"));
        let mut step = |step: &str, generation| {
            model.hear(Told::Event(Box::new(Event::Restart {
                step: step.to_owned(),
                generation,
                pid: None,
                text: step.to_owned(),
            })));
            let restart = model.status.restart.as_ref();
            restart.map(|restart| (restart.step.clone(), restart.generation))
        };
        assert_eq!(step("ready", Some(1)), Some(("ready".to_owned(), 1)));
        assert_eq!(step("moved", None), Some(("ready".to_owned(), 1)));
        assert_eq!(step("kept", None), None);
        model.status.stragglers_total = 1;
        model.status.stragglers.push(StragglerStatus::default());
        model.hear(Told::Event(Box::new(Event::Ended {
            ending: "drained".to_owned(),
            took_ms: 10,
            stragglers_total: 0,
            stragglers: Vec::new(),
            text: "drained in 0.010 s".to_owned(),
        })));
        assert!(model.status.stragglers.is_empty() && model.status.stragglers_total == 0);
        model.hear(Told::Obeyed("reload".to_owned(), Err("no".to_owned())));
        assert_eq!(model.notes[0], "reload: no");
        for _ in 0..2_000 {
            model.hear(Told::Status(Box::default()));
            model.hear(Told::Obeyed("drain".to_owned(), Ok(())));
        }
        assert!(model.history.len() <= 512 && model.notes.len() <= 32);
    }
}
