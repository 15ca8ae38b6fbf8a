//! Starting the next generation: one at a time, from what this process was started with.
//!
//! Invariants: at most one handover is under way, a second request waits for its turn; when it comes and this process
//! has handed over meanwhile, the heir is asked in its place; a failure leaves this process as it was.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use curtsy_sys::{pidfd, seqpacket};
use tokio::sync::Mutex;

use crate::broker;
use crate::channel::Channel;
use crate::donor::Limits;
use crate::env::{Env, Launch, Process, Start, Summons, System};
use crate::error::{Error, Kind};
use crate::gift::Gift;
use crate::successor::{Forward, Parts, Successor, Turn};

/// The processes that were before this one and have not ended yet.
#[derive(Debug, Clone, Default)]
pub struct Ancestors(pub(crate) Vec<Arc<OwnedFd>>);

impl Ancestors {
    /// How many of them live.
    #[must_use]
    pub fn living(&self) -> usize {
        self.0
            .iter()
            .filter(|held| !pidfd::has_ended(held.as_fd()))
            .count()
    }
}

/// Restarts this process.
#[derive(Debug, Clone)]
pub struct Upgrader {
    start: Arc<Start>,
    env: Arc<dyn Env>,
    ancestors: Ancestors,
    limits: Limits,
    generations_max: usize,
    capture_stderr: bool,
    turn: Arc<Mutex<Option<Forward>>>,
}

impl Upgrader {
    /// An upgrader that starts what this process was started with.
    ///
    /// ```
    /// use curtsy_handover::{Start, Upgrader};
    ///
    /// let upgrader = Upgrader::new(Start::capture()).ready_timeout(std::time::Duration::from_secs(10));
    /// assert_eq!(upgrader.generation(), 0);
    /// ```
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self {
            start: Arc::new(start),
            env: Arc::new(System),
            ancestors: Ancestors::default(),
            limits: Limits::default(),
            generations_max: GENERATIONS_MAX,
            capture_stderr: true,
            turn: Arc::default(),
        }
    }

    /// Takes the operating system's part, for a test.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = env;
        self
    }

    /// Who was before this process: [`crate::Inheritance::ancestors`] of an heir.
    #[must_use]
    pub fn ancestors(mut self, ancestors: Ancestors) -> Self {
        self.ancestors = ancestors;
        self
    }

    /// How long the new process may take to be ready. Default 30 s.
    #[must_use]
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.limits.ready_timeout = timeout;
        self
    }

    /// How long it may take, once ready, to prove itself. Default 30 s.
    #[must_use]
    pub fn bake_timeout(mut self, timeout: Duration) -> Self {
        self.limits.bake_timeout = timeout;
        self
    }

    /// How long it may take to answer an offered connection before it has proved itself. Default 5 s.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.limits.answer_timeout = timeout;
        self
    }

    /// How many old generations may be draining, this one not counted, for it to start another. Default 8.
    #[must_use]
    pub fn generations_max(mut self, most: usize) -> Self {
        self.generations_max = most;
        self
    }

    /// Whether the new process's standard error passes through this one until it is ready, so that a failure can be
    /// reported with its last lines. Default true.
    #[must_use]
    pub fn capture_stderr(mut self, capture: bool) -> Self {
        self.capture_stderr = capture;
        self
    }

    /// Which generation this process is.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.start.generation()
    }

    /// Starts the next generation and waits until it is ready. This process accepts until then.
    ///
    /// While another handover is under way, it waits for that to succeed or fail.
    ///
    /// # Errors
    /// Why there is no new generation; this process goes on as before. [`Error::is_forwarded`] is no failure: this
    /// process had an heir by then, which was asked to restart instead. [`Error::is_supervised`]: the parent is a `curtsy run`,
    /// which would take the end of this process for a death; it is to be asked for a reload.
    ///
    /// # Cancel safety
    /// Dropping the future before READY calls the handover off; the new process is killed and reaped.
    pub async fn upgrade(&self, gift: Gift) -> Result<Successor, Error> {
        let (turn, gift) = self.turn(gift).await?;
        if let Some(pid) = broker::supervisor(&self.start) {
            return Err(Error::new(Kind::Supervised(pid)));
        }
        let (ours, theirs) = seqpacket::pair().map_err(Error::io("no channel for the handover"))?;
        let process = self.launch(&theirs)?;
        // Only the heir holds its end now, so that its death is the channel's end.
        drop(theirs);
        self.start(turn, ours, process, gift).await
    }

    /// As [`Upgrader::upgrade`], for an heir that somebody else has started and given the other end of the channel: a
    /// supervisor that is the parent of all generations. Its [`Summons`] must name this generation's successor.
    ///
    /// # Errors
    /// As [`Upgrader::upgrade`]. A process that does not get its turn is not ended.
    ///
    /// # Cancel safety
    /// As [`Upgrader::upgrade`].
    pub async fn upgrade_over(
        &self,
        channel: OwnedFd,
        process: Box<dyn Process>,
        gift: Gift,
    ) -> Result<Successor, Error> {
        let (turn, gift) = self.turn(gift).await?;
        self.start(turn, channel, process, gift).await
    }

    /// Waits for the others, and looks whether there may be another generation.
    async fn turn(&self, mut gift: Gift) -> Result<(Turn, Gift), Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if let Some(forward) = &*turn {
            let kind = if forward.ask() {
                Kind::Forwarded(forward.generation)
            } else {
                Kind::Over
            };
            return Err(Error::new(kind));
        }
        let living = self
            .ancestors
            .0
            .iter()
            .filter(|held| !pidfd::has_ended(held.as_fd()));
        gift.ancestors = living.cloned().collect();
        if gift.ancestors.len() >= self.generations_max {
            return Err(Error::new(Kind::TooManyGenerations(gift.ancestors.len())));
        }
        Ok((turn, gift))
    }

    async fn start(
        &self,
        turn: Turn,
        channel: OwnedFd,
        process: Box<dyn Process>,
        gift: Gift,
    ) -> Result<Successor, Error> {
        // The process exists by now: from here on there must be no way out that does not wait for it.
        let channel = match Channel::new(channel) {
            Ok(channel) => channel,
            Err(error) => {
                let mut process = process;
                let killed = process.kill();
                if killed.is_ok() {
                    process.exited().await;
                }
                return Err(Error::io("no channel for the handover")(error));
            }
        };
        let generation = self.generation();
        tracing::info!(
            pid = process.pid(),
            generation = generation + 1,
            "handing over to the next generation"
        );
        let (env, limits) = (Arc::clone(&self.env), self.limits);
        Successor::start(Parts {
            channel,
            process,
            env,
            generation,
            gift,
            limits,
            turn,
        })
        .await
    }

    fn launch(&self, theirs: &OwnedFd) -> Result<Box<dyn Process>, Error> {
        let stderr = rustix::stdio::stderr();
        let mut fds = vec![(theirs.as_fd(), CHANNEL_NUMBER)];
        if self.capture_stderr {
            fds.push((stderr, STDERR_NUMBER));
        }
        let summons = Summons {
            channel: CHANNEL_NUMBER,
            stderr: self.capture_stderr.then_some(STDERR_NUMBER),
            parent: std::process::id(),
            generation: self.generation() + 1,
        };
        let mut vars = self.start.vars.clone();
        vars.push(summons.variable());
        let launch = Launch {
            program: self.start.program.clone(),
            args: self.start.args.clone(),
            vars,
            directory: self.start.directory.clone(),
            fds,
            capture_stderr: self.capture_stderr,
        };
        self.env
            .launch(launch)
            .map_err(|error| Error::new(Kind::Exec(error)))
    }
}

/// Where the heir finds its end of the channel.
const CHANNEL_NUMBER: i32 = 3;

/// Where it finds the standard error to return to.
const STDERR_NUMBER: i32 = 4;

/// More than anybody needs who drains within minutes; fewer than would fill a machine with old processes.
const GENERATIONS_MAX: usize = 8;
