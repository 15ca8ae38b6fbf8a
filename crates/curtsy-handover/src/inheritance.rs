//! The heir's end on tokio: what was handed over, and the connections that follow.
//!
//! [`inherit`] finds the channel, receives everything and says nothing more. [`Inheritance::ready`] says READY and starts
//! the task that drives [`crate::heir::Heir`] from then on: it sends a TAKEN before it lets a connection out.
//!
//! Deliberately absent: accepting, and what a listener's name means.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use curtsy_sys::watched::{Interest, Watched};
use curtsy_sys::{descriptors, pidfd, seqpacket};
use tokio::sync::mpsc;

use crate::channel::{Buffer, Channel, Packet, Sent};
use crate::chaos;
use crate::connection::Connection;
use crate::env::{Start, Summons};
use crate::error::{Error, Kind};
use crate::failure::Failure;
use crate::heir::{Action, Event, Heir, Limits, Phase};
use crate::outbox::Outbox;
use crate::upgrader::Ancestors;
use crate::wire::{Frame, Hello, Kind as ListenerKind, Message, WireError};

/// A listener that was handed over.
#[derive(Debug)]
pub struct InheritedListener {
    /// Its name: its identity from one generation to the next.
    pub name: String,
    /// What kind of socket.
    pub kind: ListenerKind,
    /// The mode it was in, in the server's own words.
    pub mode: String,
    /// Its sockets. Several share an address with `SO_REUSEPORT`: serve or hand on all of them, because what is queued
    /// on one that is closed is reset.
    pub sockets: Vec<OwnedFd>,
}

/// Everything that a donor hands over before READY. Dropping it gives up: the donor goes on serving.
#[derive(Debug)]
pub struct Inheritance {
    listeners: Vec<InheritedListener>,
    tickets: Option<Vec<u8>>,
    config: Vec<u8>,
    donor_pid: u32,
    ancestors: Ancestors,
    end: End,
}

/// What arrives after READY.
#[derive(Debug)]
pub enum Arrival {
    /// A connection, ours from now on.
    Connection(Connection),
    /// The donor was asked for a restart that is for us to do.
    Restart,
    /// The donor is gone, with its report if it had the time for one. Nothing follows.
    DonorGone(Option<String>),
}

/// The stream of what arrives after READY.
///
/// Dropping it refuses every further connection, and closes those that were taken and not read: read on after
/// [`Arrivals::stop`], or until [`Arrival::DonorGone`], before this process ends.
#[derive(Debug)]
pub struct Arrivals {
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    commands: mpsc::UnboundedSender<Command>,
}

/// Says that the server has proved itself.
#[derive(Debug, Clone)]
pub struct Baker(mpsc::UnboundedSender<Command>);

#[derive(Debug, Clone, Copy)]
enum Command {
    Bake,
    Stop,
}

/// Takes over from the process that started this one, if it left a summons: `None` when there is none.
///
/// # Errors
/// When there is one and it cannot be followed: no channel, another version, a donor that died half way. The process
/// should end with the error; the donor serves.
///
/// # Cancel safety
/// Not cancel safe: the channel is closed, and the donor ends this process.
pub async fn inherit(start: &Start) -> Result<Option<Inheritance>, Error> {
    // An heir whose donor died before it could look has another parent by now. What tells it from a child of the heir's
    // that only has the same environment is the channel, which does not get out of the heir.
    let orphaned = || {
        start
            .stale
            .filter(|stale| seqpacket::is_inherited(stale.channel))
    };
    let Some(summons) = start.summons.or_else(orphaned) else {
        return Ok(None);
    };
    chaos::point("heir", "begun", || "inherit".to_owned());
    let socket = seqpacket::adopt(summons.channel).map_err(Error::io("the handover's channel"))?;
    let stderr = summons.stderr.map(seqpacket::adopt_any).transpose();
    let stderr = stderr.map_err(Error::io("the saved standard error"))?;
    inherit_over(socket, stderr, summons, Limits::default())
        .await
        .map(Some)
}

/// As [`inherit`], over a channel that was found in another way.
///
/// # Errors
/// As [`inherit`].
///
/// # Cancel safety
/// As [`inherit`].
pub async fn inherit_over(
    channel: OwnedFd,
    stderr: Option<OwnedFd>,
    summons: Summons,
    limits: Limits,
) -> Result<Inheritance, Error> {
    let channel = Channel::new(channel).map_err(Error::io("the handover's channel"))?;
    let mut end = End::new(channel, stderr, summons.generation, limits);
    let mut inheritance = Found::default();
    let mut buffer = Buffer::default();
    end.greet()?;
    while !matches!(end.machine.phase(), Phase::Complete | Phase::GivenUp) {
        end.pump();
        let deadline = end.machine.deadline();
        tokio::select! {
            biased;
            packet = end.channel.recv(&mut buffer) => {
                end.hear_set(packet.map_err(Error::io("the handover's channel"))?, &mut inheritance);
            }
            writable = end.channel.writable(), if end.outbox.state == Sent::Full => {
                writable.map_err(Error::io("the handover's channel"))?;
            }
            () = until(deadline) => end.step(Event::Timer),
        }
    }
    end.pump();
    if end.machine.phase() == Phase::GivenUp {
        return Err(end.gave_up());
    }
    let Found {
        listeners,
        tickets,
        hello,
        pidfds,
    } = inheritance;
    let mut pidfds = pidfds.into_iter().map(Arc::new);
    end.donor = pidfds.next();
    let ancestors = Ancestors(end.donor.clone().into_iter().chain(pidfds).collect());
    Ok(Inheritance {
        listeners,
        tickets,
        config: hello.config,
        donor_pid: hello.pid,
        ancestors,
        end,
    })
}

impl Inheritance {
    /// Takes the listener of this name out.
    pub fn take_listener(&mut self, name: &str) -> Option<InheritedListener> {
        let at = self
            .listeners
            .iter()
            .position(|listener| listener.name == name)?;
        Some(self.listeners.swap_remove(at))
    }

    /// The listeners that nobody has taken out. What is left at READY is closed here, and with the donor's own end what
    /// is queued on it is reset.
    #[must_use]
    pub fn listeners(&self) -> &[InheritedListener] {
        &self.listeners
    }

    /// The TLS session ticket keys, if the donor had any.
    #[must_use]
    pub fn tickets(&self) -> Option<&[u8]> {
        self.tickets.as_deref()
    }

    /// The hash of the donor's configuration.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Which generation this process is.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.end.generation
    }

    /// The donor's process number.
    #[must_use]
    pub fn donor_pid(&self) -> u32 {
        self.donor_pid
    }

    /// The donor and those before it, for this process's own [`crate::Upgrader`].
    #[must_use]
    pub fn ancestors(&self) -> Ancestors {
        self.ancestors.clone()
    }

    /// Says READY: this process accepts. It proves itself by living for `bake_after`, or, with `None`, by
    /// [`Baker::bake`] alone.
    ///
    /// Standard error goes where it went before the restart from here on.
    ///
    /// # Errors
    /// When the donor has called the handover off meanwhile: end the process, the donor serves. A donor that has *died*
    /// meanwhile is no error: everything is here.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Not cancel safe: as dropping the inheritance.
    pub async fn ready(self, bake_after: Option<Duration>) -> Result<Arrivals, Error> {
        let mut end = self.end;
        let mut buffer = Buffer::default();
        // What has been said since: an end or an abort must be known before READY is said.
        end.hear_queued(&mut buffer);
        while end.machine.phase() == Phase::Doubting {
            let deadline = end.machine.deadline();
            tokio::select! {
                biased;
                () = death(end.watch.as_ref()) => end.step(Event::DonorDied),
                () = until(deadline) => end.step(Event::Timer),
            }
        }
        if end.machine.phase() == Phase::GivenUp {
            return Err(end.gave_up());
        }
        if let Some(stderr) = end.stderr.take() {
            rustix::stdio::dup2_stderr(&stderr)
                .map_err(|error| Error::io("the saved standard error")(error.into()))?;
        }
        let (sender, arrivals) = mpsc::unbounded_channel();
        let (commands, received) = mpsc::unbounded_channel();
        end.arrivals = Some(sender);
        end.step(Event::Ready { bake_after });
        end.pump();
        tokio::spawn(end.run(received, buffer));
        Ok(Arrivals { arrivals, commands })
    }
}

impl Arrivals {
    /// Takes no more connections: the donor keeps what it offers from now on. Those that are taken already still come,
    /// and then `None`.
    pub fn stop(&self) {
        // Nobody there: the donor is gone.
        let _ = self.commands.send(Command::Stop);
    }

    /// What arrives next; `None` after [`Arrival::DonorGone`], or when everything has come that came before
    /// [`Arrivals::stop`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// A handle that says when the server has proved itself.
    #[must_use]
    pub fn baker(&self) -> Baker {
        Baker(self.commands.clone())
    }
}

impl Baker {
    /// The server has proved itself: the donor may close its listeners. Saying it again does nothing.
    pub fn bake(&self) {
        // Nobody there: the donor is gone.
        let _ = self.0.send(Command::Bake);
    }
}

/// What has arrived so far.
#[derive(Default)]
struct Found {
    listeners: Vec<InheritedListener>,
    tickets: Option<Vec<u8>>,
    hello: Hello,
    pidfds: Vec<OwnedFd>,
}

/// The channel with its machine.
#[derive(Debug)]
struct End {
    channel: Channel,
    machine: Heir,
    generation: u32,
    /// Connections that belong to a TAKEN are let out when it has gone.
    outbox: Outbox<Vec<u64>>,
    offered: HashMap<u64, Connection>,
    donor: Option<Arc<OwnedFd>>,
    watch: Option<Watched>,
    stderr: Option<OwnedFd>,
    arrivals: Option<mpsc::UnboundedSender<Arrival>>,
    report: Option<String>,
    /// The channel was read to its end.
    ended: bool,
    /// The server takes no more.
    stopped: bool,
}

/// What woke the driver.
enum Wake {
    Packet(io::Result<Option<Packet>>),
    Died,
    Command(Option<Command>),
    Deaf,
    Writable,
    Time,
}

impl End {
    fn new(channel: Channel, stderr: Option<OwnedFd>, generation: u32, limits: Limits) -> Self {
        Self {
            channel,
            machine: Heir::new(Instant::now(), limits),
            generation,
            outbox: Outbox::new("heir", generation),
            offered: HashMap::new(),
            donor: None,
            watch: None,
            stderr,
            arrivals: None,
            report: None,
            ended: false,
            stopped: false,
        }
    }

    fn greet(&mut self) -> Result<(), Error> {
        let room = descriptors::room().map_err(Error::io("the room for descriptors"))?;
        let hello = Hello {
            pid: std::process::id(),
            room: u32::try_from(room.saturating_sub(RESERVED)).unwrap_or(u32::MAX),
            window: WINDOW,
            ..Hello::default()
        };
        self.post(Message::Hello(hello), vec![]);
        Ok(())
    }

    /// The life after READY.
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, mut buffer: Buffer) {
        let mut open = true;
        while self.machine.phase() != Phase::Alone {
            self.pump();
            // What is taken must still come out.
            let settled = self.outbox.len() == 0 && self.machine.held().is_empty();
            if self.stopped && settled {
                self.arrivals = None;
            }
            let deadline = self.machine.deadline();
            let wake = tokio::select! {
                // The channel first: what a donor offered before its death counts.
                biased;
                packet = self.channel.recv(&mut buffer), if !self.ended => Wake::Packet(packet),
                () = death(self.watch.as_ref()) => Wake::Died,
                command = commands.recv(), if open => Wake::Command(command),
                writable = self.channel.writable(), if self.outbox.state == Sent::Full => {
                    writable.map_or_else(|error| Wake::Packet(Err(error)), |()| Wake::Writable)
                }
                () = closed(self.arrivals.as_ref()) => Wake::Deaf,
                () = until(deadline) => Wake::Time,
            };
            match wake {
                Wake::Packet(Ok(Some(packet))) => {
                    self.hear(packet);
                    self.pump();
                    // Whoever takes what has arrived does so before more of it is read: what came first is served first.
                    tokio::task::yield_now().await;
                }
                Wake::Packet(Ok(None)) => self.end(),
                Wake::Packet(Err(error)) => {
                    tracing::warn!(%error, "the handover's channel cannot be read");
                    self.end();
                }
                Wake::Died => self.died(&mut buffer),
                Wake::Command(Some(Command::Bake)) => self.step(Event::Bake),
                Wake::Command(Some(Command::Stop)) => self.stopped = true,
                Wake::Command(None) => open = false,
                Wake::Deaf => self.arrivals = None,
                Wake::Writable => {}
                Wake::Time => self.step(Event::Timer),
            }
        }
        self.pump();
        self.tell(Arrival::DonorGone(self.report.clone()));
    }

    /// Everything that is queued, before something is done that depends on it.
    fn hear_queued(&mut self, buffer: &mut Buffer) {
        while !self.ended {
            match self.channel.try_recv(buffer) {
                Ok(Some(packet)) => self.hear(packet),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => self.end(),
            }
        }
    }

    fn died(&mut self, buffer: &mut Buffer) {
        self.hear_queued(buffer);
        self.end();
        self.pump();
        self.unsent();
        self.step(Event::DonorDied);
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.step(Event::End);
        }
    }

    fn hear_set(&mut self, packet: Option<Packet>, found: &mut Found) {
        let Some(packet) = packet else {
            return self.end();
        };
        let Packet { frame, fds } = packet;
        let Some((frame, event)) = self.understand(frame, fds.len()) else {
            return;
        };
        match (frame.message, &event) {
            (Message::Hello(hello), Event::Hello) => (found.hello, found.pidfds) = (hello, fds),
            (Message::Listener(listener), Event::Set { .. }) => {
                found.listeners.push(InheritedListener {
                    name: listener.name,
                    kind: listener.kind,
                    mode: listener.mode,
                    sockets: fds,
                })
            }
            (Message::Tickets(keys), Event::Set { .. }) => found.tickets = Some(keys),
            (_, _) => {}
        }
        self.step(event);
    }

    fn hear(&mut self, packet: Packet) {
        let Packet { frame, fds } = packet;
        let Some((frame, event)) = self.understand(frame, fds.len()) else {
            return;
        };
        match frame.message {
            Message::Offer(offered) => {
                let deaf = self
                    .arrivals
                    .as_ref()
                    .is_none_or(mpsc::UnboundedSender::is_closed);
                if deaf || self.stopped {
                    return self.step(Event::Unwanted(offered.iter().map(|one| one.id).collect()));
                }
                for (one, fd) in offered.into_iter().zip(fds) {
                    self.offered.insert(
                        one.id,
                        Connection {
                            fd,
                            record: one.record,
                        },
                    );
                }
            }
            Message::Bye { report } => self.report = Some(report),
            Message::Hello(_)
            | Message::Listener(_)
            | Message::Tickets(_)
            | Message::Complete
            | Message::Got { .. }
            | Message::Ready
            | Message::Taken(_)
            | Message::Refuse { .. }
            | Message::Baked
            | Message::Restart
            | Message::Abort { .. } => {}
        }
        self.step(event);
    }

    /// The frame and what it means here, or `None` when what it means was nothing and has been dealt with.
    fn understand(
        &mut self,
        frame: Result<Frame, WireError>,
        fds: usize,
    ) -> Option<(Frame, Event)> {
        match frame {
            Ok(frame) if frame.generation.wrapping_add(1) == self.generation => {
                let event = Event::from_frame(&frame, fds);
                Some((frame, event))
            }
            Ok(frame) => {
                let what = format!("a frame from generation {}", frame.generation);
                self.step(Event::Alien(Failure::Protocol(what)));
                None
            }
            Err(error) => {
                self.step(Event::Alien(error.into()));
                None
            }
        }
    }

    fn step(&mut self, event: Event) {
        tracing::trace!(phase = ?self.machine.phase(), ?event, "heir");
        chaos::point("heir", "heard", || chaos::name(&event));
        for action in self.machine.step(Instant::now(), event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Got { sequence } => self.post(Message::Got { sequence }, vec![]),
            Action::Ready => self.post(Message::Ready, vec![]),
            Action::Take(ids) => self.post(Message::Taken(ids.clone()), ids),
            Action::Keep(ids) => self.let_out(ids),
            Action::Drop(ids) => ids.iter().for_each(|id| drop(self.offered.remove(id))),
            Action::Refuse(ids, reason) => {
                ids.iter().for_each(|id| drop(self.offered.remove(id)));
                self.post(Message::Refuse { ids, reason }, vec![]);
            }
            Action::Baked => self.post(Message::Baked, vec![]),
            Action::Abort(failure) => self.post(
                Message::Abort {
                    reason: failure.to_string(),
                },
                vec![],
            ),
            Action::Restart => self.tell(Arrival::Restart),
            Action::WatchDonor => self.watch_donor(),
        }
    }

    fn watch_donor(&mut self) {
        if self.watch.is_some() {
            return;
        }
        let donor = self.donor.as_ref().map(seqpacket::duplicate);
        let watch = donor.map(|donor| Watched::new(donor?, Interest::READABLE));
        match watch.transpose() {
            Ok(watch) => self.watch = watch,
            // Then time decides: what is in doubt is left to the donor.
            Err(error) => tracing::warn!(%error, "the donor's death cannot be watched for"),
        }
    }

    fn post(&mut self, message: Message, take: Vec<u64>) {
        let name = message.name();
        if let Err(error) = self.outbox.put(message, take) {
            tracing::error!(%error, "a {name} cannot be sent");
        }
    }

    fn pump(&mut self) {
        match self.outbox.send(&self.channel, &(), |_, ()| vec![]) {
            Ok(gone) => gone.into_iter().for_each(|ids| self.let_out(ids)),
            Err(error) => {
                tracing::warn!(%error, "the handover's channel cannot be written");
                self.outbox.state = Sent::Closed;
            }
        }
        if self.outbox.state == Sent::Closed {
            self.unsent();
        }
    }

    /// What waits for room will never go.
    fn unsent(&mut self) {
        let ids: Vec<u64> = self.outbox.abandon().into_iter().flatten().collect();
        if !ids.is_empty() {
            self.step(Event::Unsent(ids));
        }
    }

    fn let_out(&mut self, ids: Vec<u64>) {
        chaos::moved(b'h', std::process::id(), || {
            let offered = ids.iter().filter_map(|id| self.offered.get(id));
            offered.map(|connection| connection.fd.as_fd())
        });
        for id in ids {
            if let Some(connection) = self.offered.remove(&id) {
                self.tell(Arrival::Connection(connection));
            }
        }
    }

    fn tell(&self, arrival: Arrival) {
        if let Some(arrivals) = &self.arrivals {
            // A server that has stopped listening has stopped serving.
            let _ = arrivals.send(arrival);
        }
    }

    fn gave_up(&self) -> Error {
        let failure = self.machine.failure().cloned();
        Error::new(Kind::Failed(failure.unwrap_or(Failure::Cancelled)))
    }
}

/// The end of the process that is watched; never, when none is.
async fn death(watch: Option<&Watched>) {
    let Some(watch) = watch else {
        return std::future::pending().await;
    };
    while !pidfd::has_ended(watch) {
        match watch.readable().await {
            Ok(mut ready) if !pidfd::has_ended(watch) => ready.clear_ready(),
            Ok(_) => return,
            Err(_) => return std::future::pending().await,
        }
    }
}

async fn closed(arrivals: Option<&mpsc::UnboundedSender<Arrival>>) {
    match arrivals {
        Some(arrivals) => arrivals.closed().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// How many offers may be under way to us unanswered: sixteen frames, enough that neither side waits for the other, and
/// well below what one user may have under way in the system.
const WINDOW: u32 = 1024;

/// Descriptors that are kept back for the server's own needs when the room is told, so that a handover cannot use up
/// what accepting needs.
const RESERVED: usize = 64;
