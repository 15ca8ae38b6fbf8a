//! The donor's end on tokio: an heir that is being started, that bakes, or that serves.
//!
//! A task of its own drives [`crate::donor::Donor`]: it reads the channel before it looks at anything else, so that what
//! an heir said before it died is heard before its death. It lives until the heir's process has been reaped.
//!
//! Deliberately absent: listeners and connections of the server's own; it says when to stop accepting, and when to go on.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::channel::{Buffer, Channel, Packet, Sent};
use crate::chaos;
use crate::connection::Connection;
use crate::donor::{Action, Donor, Event, Limits, Phase};
use crate::env::{Env, Process};
use crate::error::{Error, Kind};
use crate::failure::Failure;
use crate::gift::Gift;
use crate::lane::{Command, Lane, Settled};
use crate::outbox::Outbox;
use crate::wire::{self, Hello, Message, Offered};

/// An heir that has said READY.
///
/// Dropping it before it is baked does not call the handover off: it goes on by itself, and says BYE at the end.
#[derive(Debug)]
pub struct Successor {
    pid: u32,
    generation: u32,
    commands: mpsc::UnboundedSender<Command>,
    progress: watch::Receiver<Progress>,
    ids: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
enum Progress {
    Starting,
    Ready,
    Baked,
    Left,
    Failed(Failure, String),
}

/// What a running handover is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) channel: Channel,
    pub(crate) process: Box<dyn Process>,
    pub(crate) env: Arc<dyn Env>,
    /// The donor's generation.
    pub(crate) generation: u32,
    pub(crate) gift: Gift,
    pub(crate) limits: Limits,
    /// Held until the heir is baked or has failed.
    pub(crate) turn: Turn,
}

/// The right to be the only handover under way. Whoever waits for it next learns from it whether there is an heir.
pub(crate) type Turn = tokio::sync::OwnedMutexGuard<Option<Forward>>;

/// How to ask a baked heir for a restart.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    commands: mpsc::WeakUnboundedSender<Command>,
    pub(crate) generation: u32,
}

impl Forward {
    /// Whether the heir could be asked.
    pub(crate) fn ask(&self) -> bool {
        self.commands
            .upgrade()
            .is_some_and(|commands| commands.send(Command::Restart).is_ok())
    }
}

impl Successor {
    /// Waits until the heir is ready.
    pub(crate) async fn start(parts: Parts) -> Result<Self, Error> {
        let (commands, received) = mpsc::unbounded_channel();
        let (report, mut progress) = watch::channel(Progress::Starting);
        let (pid, generation) = (parts.process.pid(), parts.generation + 1);
        let forward = Forward {
            commands: commands.downgrade(),
            generation,
        };
        tokio::spawn(Driver::new(parts, received, report, forward).run());
        let ids = Arc::new(AtomicU64::new(1));
        let reached = progress
            .wait_for(|progress| !matches!(progress, Progress::Starting))
            .await;
        match reached.as_deref() {
            Ok(Progress::Failed(failure, words)) => {
                Err(Error::failed(failure.clone(), words.clone()))
            }
            Ok(_) => {
                drop(reached);
                Ok(Self {
                    pid,
                    generation,
                    commands,
                    progress,
                    ids,
                })
            }
            Err(_) => Err(Error::new(Kind::Over)),
        }
    }

    /// The heir's process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The heir's generation.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Opens a way to offer connections.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::new(self.commands.clone(), Arc::clone(&self.ids))
    }

    /// Waits until the heir has proved itself. Then the listeners may be closed.
    ///
    /// # Errors
    /// When the heir failed before: accept again. What it had not taken has come back through the lanes.
    ///
    /// # Cancel safety
    /// Cancel safe, and may be asked again.
    pub async fn baked(&self) -> Result<(), Error> {
        let mut progress = self.progress.clone();
        let reached = progress
            .wait_for(|progress| !matches!(progress, Progress::Starting | Progress::Ready))
            .await;
        match reached.as_deref() {
            Ok(Progress::Failed(failure, words)) => {
                Err(Error::failed(failure.clone(), words.clone()))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(Kind::Over)),
        }
    }

    /// Waits until the heir is gone or has been said BYE to: it cannot be offered anything any more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn over(&self) {
        let mut progress = self.progress.clone();
        // An error means that the driver is gone, which is as over as can be.
        let _ = progress
            .wait_for(|progress| matches!(progress, Progress::Left | Progress::Failed(..)))
            .await;
    }

    /// Calls the handover off, if the heir has not proved itself yet: it is killed, and [`Successor::baked`] says so.
    pub fn cancel(&self) {
        // Nobody there means that it is over.
        let _ = self.commands.send(Command::Cancel);
    }

    /// Says that this process is drained: BYE goes out when the heir is baked and every offer answered. Returns when
    /// that has happened.
    ///
    /// # Errors
    /// When the heir failed first.
    ///
    /// # Cancel safety
    /// Once begun, BYE is said whether this is waited for or not.
    pub async fn finish(&self, report: impl Into<String>) -> Result<(), Error> {
        let _ = self.commands.send(Command::Finish(report.into()));
        let mut progress = self.progress.clone();
        let reached = progress
            .wait_for(|progress| matches!(progress, Progress::Left | Progress::Failed(..)))
            .await;
        match reached.as_deref() {
            Ok(Progress::Failed(failure, words)) => {
                Err(Error::failed(failure.clone(), words.clone()))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(Kind::Over)),
        }
    }
}

/// What belongs to a frame in the outbox.
#[derive(Debug)]
enum Load {
    None,
    Sockets(Vec<OwnedFd>),
    Shared(Vec<Arc<OwnedFd>>),
    /// These of the connections held.
    Connections(Vec<u64>),
}

#[derive(Debug)]
struct Held {
    connection: Connection,
    answers: mpsc::UnboundedSender<(u64, Settled)>,
}

#[derive(Debug)]
struct Driver {
    channel: Option<Channel>,
    process: Box<dyn Process>,
    env: Arc<dyn Env>,
    machine: Donor,
    generation: u32,
    gift: Gift,
    outbox: Outbox<Load>,
    held: HashMap<u64, Held>,
    commands: mpsc::UnboundedReceiver<Command>,
    report: watch::Sender<Progress>,
    turn: Option<Turn>,
    forward: Forward,
    farewell: String,
    /// The channel was read to its end.
    ended: bool,
    /// The process was reaped.
    dead: bool,
}

/// What woke the driver.
enum Wake {
    Packet(io::Result<Option<Packet>>),
    Exit(curtsy_sys::pidfd::Exit),
    Commands(usize),
    Writable,
    Time,
}

impl Driver {
    fn new(
        parts: Parts,
        commands: mpsc::UnboundedReceiver<Command>,
        report: watch::Sender<Progress>,
        forward: Forward,
    ) -> Self {
        let Parts {
            channel,
            process,
            env,
            generation,
            gift,
            limits,
            turn,
        } = parts;
        let machine = Donor::new(env.now(), gift.sets(), limits);
        Self {
            channel: Some(channel),
            process,
            env,
            machine,
            generation,
            gift,
            outbox: Outbox::new("donor", generation),
            held: HashMap::new(),
            commands,
            report,
            turn: Some(turn),
            forward,
            farewell: String::new(),
            ended: false,
            dead: false,
        }
    }

    async fn run(mut self) {
        let mut buffer = Buffer::default();
        let mut arrived = Vec::with_capacity(COMMANDS_AT_ONCE);
        let mut open = true;
        self.greet();
        while !self.is_over() {
            self.pump();
            let deadline = self.machine.deadline();
            let Some(channel) = &self.channel else { break };
            let wake = tokio::select! {
                // The channel first: what was said counts before what happened after.
                biased;
                packet = channel.recv(&mut buffer), if !self.ended => Wake::Packet(packet),
                exit = self.process.exited(), if !self.dead => Wake::Exit(exit),
                count = self.commands.recv_many(&mut arrived, COMMANDS_AT_ONCE), if open => Wake::Commands(count),
                writable = channel.writable(), if self.outbox.state == Sent::Full => {
                    writable.map_or_else(|error| Wake::Packet(Err(error)), |()| Wake::Writable)
                }
                () = tokio::time::sleep(CONGESTION_WAIT), if self.outbox.state == Sent::Congested => Wake::Writable,
                () = until(deadline) => Wake::Time,
            };
            match wake {
                Wake::Packet(Ok(Some(packet))) => self.hear(packet),
                Wake::Packet(Ok(None)) => self.end(),
                Wake::Packet(Err(error)) => {
                    tracing::warn!(%error, "the handover's channel cannot be read");
                    self.end();
                }
                Wake::Exit(exit) => self.exited(exit, &mut buffer),
                Wake::Commands(0) => {
                    open = false;
                    self.step(Event::Finish);
                }
                Wake::Commands(_) => arrived.drain(..).for_each(|command| self.obey(command)),
                Wake::Writable => {}
                Wake::Time => self.step(Event::Timer),
            }
        }
        self.rest(open).await;
    }

    /// The handover is over: says how, answers offers that come too late, and waits for the child so that it does not
    /// become a zombie.
    async fn rest(mut self, mut open: bool) {
        self.pump();
        self.channel = None;
        self.turn = None;
        if self.machine.phase() == Phase::Left {
            self.report.send_replace(Progress::Left);
        } else {
            let words = if self.dead {
                self.process.last_words().await
            } else {
                String::new()
            };
            let failure = self
                .machine
                .failure()
                .cloned()
                .unwrap_or(Failure::Cancelled);
            self.report.send_replace(Progress::Failed(failure, words));
        }
        while open || !self.dead {
            tokio::select! {
                command = self.commands.recv(), if open => match command {
                    Some(command) => self.obey(command),
                    None => open = false,
                },
                _ = self.process.exited(), if !self.dead => self.dead = true,
            }
        }
    }

    fn is_over(&self) -> bool {
        match self.machine.phase() {
            // BYE may still wait for room.
            Phase::Left => self.outbox.len() == 0 || self.outbox.state == Sent::Closed,
            Phase::Kept | Phase::Lost => true,
            Phase::Greeting
            | Phase::Giving
            | Phase::Waiting
            | Phase::Baking
            | Phase::Baked
            | Phase::Ending => false,
        }
    }

    fn greet(&mut self) {
        // The heir learns of our death, and of whoever drains before us, from descriptors: nothing to poll, and no
        // number that could come to mean another process.
        let own = curtsy_sys::pidfd::own().map(Arc::new).inspect_err(|error| {
            tracing::warn!(%error, "this process cannot be held by a descriptor");
        });
        let mut pidfds: Vec<Arc<OwnedFd>> = own.into_iter().collect();
        pidfds.extend(self.gift.ancestors.drain(..).take(wire::FDS_MAX - 1));
        let hello = Hello {
            pid: std::process::id(),
            config: self.gift.config.clone(),
            pidfds: u16::try_from(pidfds.len()).unwrap_or(0),
            ..Hello::default()
        };
        self.post(Message::Hello(hello), Load::Shared(pidfds));
    }

    fn post(&mut self, message: Message, load: Load) {
        let name = message.name();
        if let Err(error) = self.outbox.put(message, load) {
            // Too long a name, or too many keys: the heir will not get it, and not get ready.
            tracing::error!(%error, "a {name} cannot be sent");
            self.step(Event::Alien(Failure::Protocol(format!(
                "our own {name} is {error}"
            ))));
        }
    }

    /// Sends what there is room for: what waits, then batches of connections as long as the credit lasts.
    fn pump(&mut self) {
        loop {
            let Some(channel) = &self.channel else { return };
            let sent = self
                .outbox
                .send(channel, &self.held, |load, held| match load {
                    Load::None => vec![],
                    Load::Sockets(sockets) => sockets.iter().map(AsFd::as_fd).collect(),
                    Load::Shared(shared) => shared.iter().map(|fd| fd.as_fd()).collect(),
                    Load::Connections(ids) => ids
                        .iter()
                        .filter_map(|id| held.get(id))
                        .map(|held| held.connection.fd.as_fd())
                        .collect(),
                });
            if let Err(error) = sent {
                tracing::warn!(%error, "the handover's channel cannot be written");
                self.step(Event::Alien(Failure::Protocol(format!(
                    "the channel cannot be written: {error}"
                ))));
                return;
            }
            if self.outbox.len() > 0 || !self.machine.wants_to_send() {
                return;
            }
            self.step(Event::Flush);
        }
    }

    fn hear(&mut self, packet: Packet) {
        let event = match packet.frame {
            Ok(frame) if frame.generation != self.generation + 1 => Event::Alien(
                Failure::Protocol(format!("a frame from generation {}", frame.generation)),
            ),
            Ok(frame) => Event::from_message(frame.message),
            Err(error) => Event::Alien(error.into()),
        };
        self.step(event);
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.step(Event::End);
        }
    }

    fn exited(&mut self, exit: curtsy_sys::pidfd::Exit, buffer: &mut Buffer) {
        self.dead = true;
        // All that a dead process has said is in the queue; an empty one is the end, even if somebody else holds the
        // other side.
        while !self.ended {
            let packet = self
                .channel
                .as_ref()
                .map(|channel| channel.try_recv(buffer));
            match packet {
                Some(Ok(Some(packet))) => self.hear(packet),
                Some(Ok(None) | Err(_)) | None => self.end(),
            }
        }
        self.step(Event::Exited(exit));
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Offer(id, connection, answers) => {
                let size = if connection.record.fits() {
                    connection.record.size()
                } else {
                    usize::MAX
                };
                self.held.insert(
                    id,
                    Held {
                        connection,
                        answers,
                    },
                );
                self.step(Event::Offer { id, size });
            }
            Command::Finish(report) => {
                self.farewell = report;
                self.step(Event::Finish);
            }
            Command::Cancel => self.step(Event::Cancel),
            Command::Restart if self.machine.phase() == Phase::Baked => {
                self.post(Message::Restart, Load::None)
            }
            Command::Restart => {}
        }
    }

    fn step(&mut self, event: Event) {
        tracing::trace!(phase = ?self.machine.phase(), ?event, "donor");
        chaos::point("donor", "heard", || chaos::name(&event));
        for action in self.machine.step(self.env.now(), event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Give => {
                for (listener, sockets) in std::mem::take(&mut self.gift.listeners) {
                    self.post(Message::Listener(listener), Load::Sockets(sockets));
                }
                if let Some(keys) = self.gift.tickets.take() {
                    self.post(Message::Tickets(keys), Load::None);
                }
            }
            Action::Complete => self.post(Message::Complete, Load::None),
            Action::StopAccepting => {
                self.report.send_replace(Progress::Ready);
            }
            // Both are told by the failure that follows, when everything has come back.
            Action::ResumeAccepting => {}
            Action::CloseListeners => {
                if let Some(mut turn) = self.turn.take() {
                    *turn = Some(self.forward.clone());
                }
                self.report.send_replace(Progress::Baked);
            }
            Action::Offer(ids) => {
                let records = ids
                    .iter()
                    .filter_map(|id| Some((*id, self.held.get(id)?.connection.record.clone())));
                let offered = records.map(|(id, record)| Offered { id, record }).collect();
                self.post(Message::Offer(offered), Load::Connections(ids));
            }
            Action::Taken(ids) => {
                chaos::moved(b'd', self.process.pid(), || {
                    let held = ids.iter().filter_map(|id| self.held.get(id));
                    held.map(|held| held.connection.fd.as_fd())
                });
                self.settle(ids, |_| Settled::Taken);
            }
            Action::Forget(ids) => self.settle(ids, |_| Settled::Forgotten),
            Action::Return(ids, why) => {
                self.settle(ids, |connection| Settled::Returned(connection, why))
            }
            Action::Kill => {
                if let Err(error) = self.process.kill() {
                    tracing::error!(%error, pid = self.process.pid(), "the new process cannot be killed");
                }
            }
            Action::Bye => self.post(
                Message::Bye {
                    report: self.farewell.clone(),
                },
                Load::None,
            ),
        }
    }

    fn settle(&mut self, ids: Vec<u64>, how: impl Fn(Connection) -> Settled) {
        for id in ids {
            if let Some(Held {
                connection,
                answers,
            }) = self.held.remove(&id)
            {
                // A lane that is gone wants no answers; the connection is closed with the message.
                let _ = answers.send((id, how(connection)));
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// How many offers to take from the server before looking at the channel again.
const COMMANDS_AT_ONCE: usize = 1024;

/// How long to wait when the system has too many descriptors under way. Nothing says when that is over.
const CONGESTION_WAIT: Duration = Duration::from_millis(5);
