//! The restart, seen by the process that is to be replaced: who asked, how far it is, who is told.
//!
//! What is done to connections and listeners is the driver's (`shutdown`); this keeps the order.

use crate::control::Crier;
use crate::error::{Error, Kind};
use crate::herald::Herald;
use crate::succession::Heir;
use curtsy_handover::broker::{Broker, Word};
use curtsy_handover::env::{Process, hold};
use curtsy_handover::{Gift, Successor, Upgrader};
use std::fmt;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How long a drained server waits for its heir to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// As good as no limit of time.
const NO_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What became of a restart that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restarted {
    /// The new process serves; this one drains.
    Serves {
        /// Its process number.
        pid: u32,
        /// Its generation.
        generation: u64,
    },
    /// Another restart succeeded meanwhile, and the new process was asked to restart in this one's place; or a supervisor
    /// was asked, and brought a new generation that took nothing over from this process.
    PassedOn,
}

/// A step of a restart, for whoever wants to tell of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum RestartStep<'a> {
    /// The new process is being started.
    Begun {
        /// What its generation will be.
        generation: u64,
    },
    /// The new process accepts; this one does not, and gives its connections away.
    Ready {
        /// The new process's number.
        pid: u32,
        /// Its generation.
        generation: u64,
    },
    /// What waited when the new process was ready is the new process's.
    Moved {
        /// How many connections it took.
        connections: usize,
        /// How long after READY the last of them was.
        took: Duration,
    },
    /// The new process has proved itself; this one drains.
    Serves {
        /// The new process's number.
        pid: u32,
        /// Its generation.
        generation: u64,
    },
    /// It failed; this process goes on serving.
    Kept(&'a Error),
}

impl fmt::Display for RestartStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { generation } => write!(f, "restarting: starting generation {generation}"),
            Self::Ready { pid, generation } => {
                write!(f, "generation {generation} accepts (pid {pid})")
            }
            Self::Moved { connections, took } => {
                let millis = took.as_secs_f64() * 1000.0;
                write!(
                    f,
                    "moved {connections} waiting connections in {millis:.1} ms"
                )
            }
            Self::Serves { pid, generation } => {
                write!(
                    f,
                    "generation {generation} serves (pid {pid}); this one drains"
                )
            }
            Self::Kept(why) => write!(f, "kept the old process: {why}"),
        }
    }
}

/// Called with each step of a restart.
pub(crate) type RestartHook = Box<dyn FnMut(&RestartStep<'_>) + Send>;

/// Whom to answer.
pub(crate) type Reply = oneshot::Sender<Result<Restarted, Error>>;

/// The one restart that may be under way, and those that wait for it.
pub(crate) struct Restarts {
    pub(crate) upgrader: Option<Upgrader>,
    pub(crate) wishes: mpsc::UnboundedReceiver<Reply>,
    pub(crate) hook: Option<RestartHook>,
    pub(crate) herald: Herald,
    /// The supervisor that started this process, if it brokers.
    pub(crate) broker: Option<Broker>,
    /// The restart under way was the supervisor's wish.
    pub(crate) is_brokered: bool,
    /// What the supervisor was asked for.
    pub(crate) plea: Plea,
    pub(crate) crier: Crier,
    /// This process was started by another, which may still be there.
    pub(crate) heir: Option<Heir>,
    pub(crate) stage: Stage,
    /// Who asked for the restart that is under way.
    pub(crate) asked: Vec<Reply>,
    /// Who asked since.
    pub(crate) waiting: Vec<Reply>,
    /// The first wave of connections, on its way to the heir.
    pub(crate) moving: JoinSet<Option<usize>>,
    /// When the heir under way was ready.
    pub(crate) ready_at: Instant,
    /// Wishes on their way to the heir.
    pub(crate) passing: JoinSet<()>,
    /// Somebody wants the server to stop, which it does when this restart is decided.
    pub(crate) stop_wished: bool,
}

/// A reload that the supervisor was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Plea {
    #[default]
    None,
    /// It has not said yet what became of it.
    Asked,
    /// Nor then, but who wished hears it from the handover that came of it.
    Given,
}

/// How far a restart is.
pub(crate) enum Stage {
    /// None is under way.
    Alone,
    /// The new process was started.
    Starting(JoinSet<Result<Successor, curtsy_handover::Error>>),
    /// It accepts.
    Trial(Successor),
    /// It has proved itself.
    Succeeded(Successor),
}

/// What happened.
pub(crate) enum Event {
    Asked(Reply),
    Ready(Result<Successor, curtsy_handover::Error>),
    /// What waited at READY has been taken: how many, if nothing came back.
    Moved(Option<usize>),
    Decided(Result<(), curtsy_handover::Error>),
    /// This process, an heir itself, has lived long enough.
    Proved,
    /// The supervisor says something.
    Word(std::io::Result<Word>),
}

impl Restarts {
    /// What happens next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Event {
        let heir = self.heir.as_ref();
        tokio::select! {
            Some(reply) = self.wishes.recv() => Event::Asked(reply),
            event = self.stage.next() => event,
            Some(moved) = self.moving.join_next() => Event::Moved(moved.ok().flatten()),
            () = proved(heir) => Event::Proved,
            word = word(self.broker.as_ref()) => Event::Word(word),
        }
    }

    /// Whether another process has the listeners too.
    pub(crate) fn has_heir(&self) -> bool {
        matches!(self.stage, Stage::Trial(_) | Stage::Succeeded(_))
    }

    pub(crate) fn tell(&mut self, step: &RestartStep<'_>) {
        match step {
            RestartStep::Kept(error) => tracing::warn!(%error, "the restart failed"),
            RestartStep::Begun { .. }
            | RestartStep::Ready { .. }
            | RestartStep::Moved { .. }
            | RestartStep::Serves { .. } => {
                tracing::info!("{step}");
            }
        }
        // A supervisor is told in other words.
        if self.is_brokered {
            self.answer(step);
        } else {
            self.herald.step(step);
        }
        self.crier.tell_step(step);
        if let Some(hook) = &mut self.hook {
            hook(step);
        }
    }

    /// What became of a restart that the supervisor wished for.
    fn answer(&mut self, step: &RestartStep<'_>) {
        let word = match step {
            RestartStep::Ready { .. } => Word::Given,
            RestartStep::Kept(error) => Word::Kept(error.to_string()),
            RestartStep::Begun { .. } | RestartStep::Moved { .. } | RestartStep::Serves { .. } => {
                return;
            }
        };
        self.say(&word);
    }

    fn say(&self, word: &Word) {
        if let Some(broker) = &self.broker
            && let Err(error) = broker.say(word)
        {
            tracing::warn!(%error, "the supervisor does not listen");
        }
    }

    /// Gives to a process that the supervisor started, if nothing else is under way.
    pub(crate) fn give(
        &mut self,
        (pid, channel, process): (u32, OwnedFd, OwnedFd),
        is_serving: bool,
        gift: std::io::Result<Gift>,
    ) {
        let is_free = is_serving && matches!(self.stage, Stage::Alone);
        let parts = match (&self.upgrader, gift, hold(pid, process)) {
            (_, _, _) if !is_free => Err("it is restarting or stopping by itself".to_owned()),
            (None, _, _) => Err("it was built without a succession".to_owned()),
            (_, Err(error), _) | (_, _, Err(error)) => Err(error.to_string()),
            (Some(upgrader), Ok(gift), Ok(process)) => Ok((upgrader.clone(), gift, process)),
        };
        match parts {
            // The channel ends with this, and with it the new process.
            Err(why) => self.say(&Word::Kept(why)),
            Ok((upgrader, gift, process)) => {
                self.is_brokered = true;
                self.asked.append(&mut self.waiting);
                if self.plea == Plea::Asked {
                    self.plea = Plea::Given;
                }
                self.begin_over(upgrader, channel, process, gift);
            }
        }
    }

    fn begin_over(
        &mut self,
        upgrader: Upgrader,
        channel: OwnedFd,
        process: Box<dyn Process>,
        gift: Gift,
    ) {
        let generation = u64::from(upgrader.generation()) + 1;
        self.tell(&RestartStep::Begun { generation });
        // How long it may take is the supervisor's business.
        let upgrader = upgrader.ready_timeout(NO_LIMIT).bake_timeout(NO_LIMIT);
        let mut starting = JoinSet::new();
        starting.spawn(async move { upgrader.upgrade_over(channel, process, gift).await });
        self.stage = Stage::Starting(starting);
    }

    /// Asks the supervisor for a reload, once for all who wait; whether there is one to ask.
    ///
    /// To start the next process by itself would look to it like a death.
    pub(crate) fn wish(&mut self) -> bool {
        let Some(broker) = &self.broker else {
            return false;
        };
        if self.plea == Plea::None {
            if let Err(error) = broker.say(&Word::Wish) {
                tracing::warn!(%error, "the supervisor does not listen");
                return false;
            }
            tracing::info!("asked the supervisor for a restart");
            self.plea = Plea::Asked;
        }
        true
    }

    /// What became of it, by the supervisor's word.
    pub(crate) fn wished(&mut self, result: Result<(), String>) {
        if std::mem::take(&mut self.plea) != Plea::Asked {
            return;
        }
        let replies = std::mem::take(&mut self.waiting);
        if let Err(why) = &result {
            tracing::warn!(why, "the supervisor did not restart this process");
            let error = Error::new(Kind::Restart, why.as_str());
            let step = RestartStep::Kept(&error);
            self.crier.tell_step(&step);
            if let Some(hook) = &mut self.hook {
                hook(&step);
            }
        }
        for reply in replies {
            let answer = match &result {
                Ok(()) => Ok(Restarted::PassedOn),
                Err(why) => Err(Error::new(Kind::Restart, why.as_str())),
            };
            let _ = reply.send(answer);
        }
    }

    /// Starts the next process.
    pub(crate) fn begin(&mut self, gift: std::io::Result<Gift>) {
        self.is_brokered = false;
        self.asked.append(&mut self.waiting);
        let (upgrader, gift) = match (&self.upgrader, gift) {
            (Some(upgrader), Ok(gift)) => (upgrader.clone(), gift),
            (None, _) => {
                let error = Error::new(
                    Kind::Restart,
                    "this server cannot restart: it was built without a succession",
                );
                return self.failed(error);
            }
            (_, Err(error)) => {
                let error = Error::because(Kind::Restart, "cannot hand the listeners over", error);
                return self.failed(error);
            }
        };
        let generation = u64::from(upgrader.generation()) + 1;
        self.tell(&RestartStep::Begun { generation });
        let mut starting = JoinSet::new();
        starting.spawn(async move { upgrader.upgrade(gift).await });
        self.stage = Stage::Starting(starting);
    }

    /// Waits for what each worker's ferry took over first.
    pub(crate) fn count_moved(&mut self, ferries: Vec<oneshot::Receiver<usize>>) {
        self.ready_at = Instant::now();
        self.moving = JoinSet::new();
        self.moving.spawn(async move {
            let mut moved = 0;
            for ferry in ferries {
                moved += ferry.await.ok()?;
            }
            Some(moved)
        });
    }

    /// The first wave is over.
    pub(crate) fn moved(&mut self, moved: Option<usize>) {
        if let Some(connections) = moved {
            let took = self.ready_at.elapsed();
            self.tell(&RestartStep::Moved { connections, took });
        }
    }

    /// The restart under way failed.
    pub(crate) fn failed(&mut self, error: Error) {
        self.stage = Stage::Alone;
        self.tell(&RestartStep::Kept(&error));
        // All who asked hear it, the first with its cause.
        let text = error.to_string();
        let mut error = Some(error);
        for reply in self.asked.drain(..) {
            let error = error
                .take()
                .unwrap_or_else(|| Error::new(Kind::Restart, text.as_str()));
            // Who does not wait for the answer does not want it.
            let _ = reply.send(Err(error));
        }
    }

    /// The restart under way succeeded.
    pub(crate) fn succeeded(&mut self, successor: Successor) {
        let (pid, generation) = (successor.pid(), u64::from(successor.generation()));
        self.stage = Stage::Succeeded(successor);
        self.tell(&RestartStep::Serves { pid, generation });
        for reply in self.asked.drain(..) {
            let _ = reply.send(Ok(Restarted::Serves { pid, generation }));
        }
        if !self.waiting.is_empty() {
            self.pass_on();
        }
    }

    /// Asks the heir in this process's place, once for all who wait.
    pub(crate) fn pass_on(&mut self) {
        let Some(upgrader) = self.upgrader.clone() else {
            return;
        };
        let replies = std::mem::take(&mut self.waiting);
        self.passing.spawn(async move {
            let passed = match upgrader.upgrade(Gift::new()).await {
                Err(error) if error.is_forwarded() => Ok(Restarted::PassedOn),
                Err(error) => Err(error.to_string()),
                Ok(_) => Err("there is an heir already".to_owned()),
            };
            for reply in replies {
                let answer = passed.clone().map_err(|why| Error::new(Kind::Restart, why));
                let _ = reply.send(answer);
            }
        });
    }

    /// Waits until everything that was for the heir to do has been said, and takes leave of it.
    pub(crate) async fn finish(mut self, report: String) {
        let Stage::Succeeded(successor) = &self.stage else {
            return;
        };
        let farewell = async {
            while self.passing.join_next().await.is_some() {}
            successor.finish(report).await
        };
        // An heir that is gone, or does not listen, needs no farewell.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    /// The server stops: what was not decided is called off, nobody new is served.
    pub(crate) fn call_off(&mut self) {
        if matches!(self.stage, Stage::Starting(_)) {
            self.asked.append(&mut self.waiting);
            self.failed(Error::new(Kind::Restart, "the server was told to stop"));
        }
    }
}

impl Stage {
    async fn next(&mut self) -> Event {
        match self {
            Self::Starting(starting) => match starting.join_next().await {
                Some(Ok(ready)) => Event::Ready(ready),
                // It can only have panicked, and there is nothing to wait for any more.
                Some(Err(_)) | None => std::future::pending().await,
            },
            Self::Trial(successor) => Event::Decided(successor.baked().await),
            Self::Alone | Self::Succeeded(_) => std::future::pending().await,
        }
    }
}

async fn word(broker: Option<&Broker>) -> std::io::Result<Word> {
    match broker {
        Some(broker) => broker.next().await,
        None => std::future::pending().await,
    }
}

async fn proved(heir: Option<&Heir>) {
    match heir {
        Some(heir) => heir.proved().await,
        None => std::future::pending().await,
    }
}

/// The signals that ask for a restart, caught from the moment this is made.
#[derive(Debug)]
pub(crate) struct Restarting(Vec<Signal>);

impl Restarting {
    pub(crate) fn catch(kinds: &[SignalKind]) -> Result<Self, Error> {
        let caught = kinds.iter().map(|kind| signal(*kind));
        let caught = caught.collect::<Result<_, _>>();
        caught
            .map(Self)
            .map_err(|e| Error::because(Kind::Runtime, "cannot catch the signal for a restart", e))
    }

    /// Asks for a restart with each of them, for ever. The answers go to the log and the hook.
    pub(crate) async fn obey(mut self, restart: Arc<dyn Fn() + Send + Sync>) {
        loop {
            poll_fn(|cx| {
                let arrived = self
                    .0
                    .iter_mut()
                    .any(|signal| signal.poll_recv(cx).is_ready());
                if arrived {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            restart();
        }
    }
}
