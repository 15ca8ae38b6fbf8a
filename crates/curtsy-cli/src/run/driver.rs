//! The supervisor's hands: processes, signals, sockets and the clock, around the state machine.
//!
//! Invariants:
//! - Children are reaped in one place, [`Driver::reap`]: until then a number in the table is that process's and nobody
//!   else's, so that a signal cannot go astray. What is reaped and not in the table was inherited, by process 1.
//! - What a process said is heard before its end is judged.

use super::brokering::{Brokering, Spoken};
use super::launch::Launch;
use super::machine::{Action, End, Event, Generation, Id, Machine};
use super::probe::Door;
use super::readiness::Readiness;
use super::say;
use super::settings::{Arguments, Fixed, Settings};
use super::words::Words;
use curtsy::Listener;
use curtsy::control::{Crier, Event as News, ListenerStatus, ProcessStatus, Status};
use curtsy_handover::broker::Word;
use curtsy_handover::notify::Notify;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait,
};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// What comes to the supervisor's ears.
#[derive(Debug)]
pub(crate) enum Heard {
    Event(Event),
    /// A reload, and who wants to hear which generation serves then, or why not.
    Reload(Client),
    /// Somebody wants to know what it is doing.
    Status(oneshot::Sender<Status>),
}

/// Who wants to be told how a reload went.
pub(crate) type Client = oneshot::Sender<Result<u32, String>>;

/// A process that runs, or has ended and was not reaped.
#[derive(Debug)]
struct Process {
    pid: Pid,
    words: Arc<Words>,
    waiting: AbortHandle,
    greeting: AbortHandle,
}

/// What a generation is started with, and judged by.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    launch: Arc<Launch>,
    readiness: Arc<Readiness>,
}

impl Plan {
    pub(super) fn new(settings: &Settings, listeners: &[Listener]) -> Self {
        Self {
            launch: Arc::new(Launch::new(&settings.command, listeners)),
            readiness: Arc::new(settings.ready.clone()),
        }
    }
}

/// The supervisor at work.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) machine: Machine,
    /// The serving generation's.
    plan: Plan,
    /// That of the generation that a reload brings, or what is wrong with it.
    next_plan: Result<Plan, String>,
    /// What settings are read from, again in each reload.
    arguments: Arguments,
    /// What must be as it was.
    fixed: Fixed,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) notify: Notify,
    pub(crate) events: UnboundedSender<Heard>,
    pub(crate) heard: UnboundedReceiver<Heard>,
    pub(crate) crier: Crier,
    /// The phase that was last told of.
    phase: &'static str,
    /// When it was told to stop.
    stopping_since: Option<Instant>,
    began: Instant,
    processes: HashMap<Id, Process>,
    /// Who waits for the reload under way.
    clients: Vec<Client>,
    /// Who waits for the one after it.
    next_clients: Vec<Client>,
    is_reloading: bool,
    /// The generation that serves, once one does.
    serving: Option<Generation>,
    brokering: Brokering,
    /// What processes that can hand over say.
    spoken: UnboundedReceiver<Spoken>,
    /// Processes that can.
    greeted: (UnboundedSender<Greeted>, UnboundedReceiver<Greeted>),
}

/// A process, its number and its generation.
type Greeting = (Id, u32, Generation);
/// And its end of the pair.
type Greeted = (Greeting, OwnedFd);

impl Driver {
    pub(super) fn new(
        machine: Machine,
        plan: Plan,
        (arguments, fixed): (Arguments, Fixed),
        listeners: Vec<Listener>,
        notify: Notify,
        (events, heard): (UnboundedSender<Heard>, UnboundedReceiver<Heard>),
        crier: Crier,
    ) -> Self {
        let (speak, spoken) = unbounded_channel();
        Self {
            machine,
            next_plan: Ok(plan.clone()),
            plan,
            arguments,
            fixed,
            listeners,
            notify,
            events,
            heard,
            crier,
            phase: "",
            stopping_since: None,
            began: Instant::now(),
            processes: HashMap::new(),
            clients: Vec::new(),
            next_clients: Vec::new(),
            is_reloading: false,
            serving: None,
            brokering: Brokering::new(speak),
            spoken,
            greeted: unbounded_channel(),
        }
    }

    /// Supervises until the end; the status to exit with. `children` is told at every SIGCHLD.
    pub(crate) async fn run(mut self, mut children: tokio::signal::unix::Signal) -> u8 {
        if let Some(status) = self.handle(Event::Start) {
            return status;
        }
        loop {
            let wakes_at = self.machine.wakes_at().map(|moment| self.began + moment);
            let tick = async {
                match wakes_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let events = tokio::select! {
                // In this order: what was said before an end or a readiness counts before it.
                biased;
                Some((process, pair)) = self.greeted.1.recv() => {
                    self.greet(process, pair);
                    Vec::new()
                }
                Some((process, word)) = self.spoken.recv() => self.listen(process, word),
                _ = children.recv() => self.reap(),
                heard = self.heard.recv() => match heard {
                    Some(Heard::Event(event)) => self.unless_to_be_given(event),
                    Some(Heard::Reload(client)) => {
                        self.wait_for_reload(client);
                        vec![Event::Reload]
                    }
                    Some(Heard::Status(client)) => {
                        // Who does not wait for the answer does not want it.
                        let _ = client.send(self.status());
                        Vec::new()
                    }
                    // Never: this value holds a sender.
                    None => Vec::new(),
                },
                () = tick => vec![Event::Tick],
            };
            for event in events {
                if let Some(status) = self.handle(event) {
                    return status;
                }
            }
        }
    }

    /// Lets the machine decide and does what it says; the status, if that is to exit.
    fn handle(&mut self, event: Event) -> Option<u8> {
        let mut pending = vec![event];
        while let Some(event) = pending.pop() {
            let actions = self.machine.handle(self.began.elapsed(), event);
            if self.machine.is_stopping() {
                self.stopping_since.get_or_insert_with(Instant::now);
            }
            for action in actions {
                match action {
                    Action::Start {
                        process,
                        generation,
                    } => {
                        if let Err(why) = self.start(process, generation) {
                            // As if it had started and ended.
                            let end = End::NotExecuted { why, status: 1 };
                            pending.push(Event::Ended(process, end));
                        }
                    }
                    Action::Exit(status) => {
                        self.tell_end(status);
                        return Some(status);
                    }
                    Action::Signal(process, signal) => self.signal(process, signal),
                    Action::Kill(process) => self.kill(process),
                    Action::Close => {
                        self.tell_manager(Notify::stopping);
                        self.listeners.iter_mut().for_each(Listener::refuse_new);
                    }
                    Action::Serving => {
                        self.serving = Some(self.machine.current());
                        say("curtsy: generation 0 serves");
                        self.tell_manager(Notify::ready);
                    }
                    Action::Tell(text) => {
                        say(&format!("curtsy: {text}"));
                        self.crier.tell(&News::Note { text });
                    }
                    Action::Refused(why) => self.refused(why),
                    Action::Reloading(generation) => self.reloading(generation),
                    Action::Reloaded(generation, result) => self.reloaded(generation, result),
                }
            }
            self.tell_phase();
        }
        None
    }

    fn tell_phase(&mut self) {
        let phase = self.machine.phase();
        if std::mem::replace(&mut self.phase, phase) != phase {
            let phase = phase.to_owned();
            self.crier.tell(&News::Phase { phase });
        }
    }

    fn tell_end(&self, status: u8) {
        // One that ends by itself has taken no time to stop.
        let took = self
            .stopping_since
            .map_or(Duration::ZERO, |since| since.elapsed());
        self.crier.tell(&News::Ended {
            ending: "exited".to_owned(),
            took_ms: ms(took),
            stragglers_total: 0,
            stragglers: Vec::new(),
            text: format!(
                "exited with status {status} after {:.3} s",
                took.as_secs_f64()
            ),
        });
    }

    fn tell_step(&self, step: &str, generation: Generation, pid: Option<u32>, text: &str) {
        say(&format!("curtsy: {text}"));
        self.crier.tell(&News::Restart {
            step: step.to_owned(),
            generation: Some(generation.number.into()),
            pid,
            text: text.to_owned(),
        });
    }

    fn status(&self) -> Status {
        let now = self.began.elapsed();
        let mut status = Status::of_this_process("supervisor");
        status.generation = self.machine.current().number.into();
        status.phase = self.machine.phase().to_owned();
        status.up_ms = ms(now);
        status.listeners = self
            .listeners
            .iter()
            .map(|listener| ListenerStatus {
                name: listener.name().to_owned(),
                address: listener.address().to_string(),
                mode: None,
            })
            .collect();
        status.processes = self
            .machine
            .processes()
            .map(|(process, generation, state, since)| ProcessStatus {
                pid: self.processes.get(&process).map(Process::number),
                generation: generation.number.into(),
                state: state.to_owned(),
                age_ms: ms(now.saturating_sub(since)),
            })
            .collect();
        status
    }

    fn start(&mut self, process: Id, generation: Generation) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot start a process: {error}");
        let plan = match self.is_reloading && self.serving != Some(generation) {
            true => self.next_plan.clone()?,
            false => self.plan.clone(),
        };
        let words = Arc::new(Words::new().map_err(failed)?);
        let number = plan
            .launch
            .start(&self.listeners, &words.address())
            .map_err(failed)?;
        let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else {
            return Err(format!("{number} is not a process"));
        };
        let text = format!("generation {generation} started  (pid {number})");
        match self.is_reloading {
            true => self.tell_step("started", generation, Some(number), &text),
            false => {
                say(&format!("curtsy: {text}"));
                self.crier.tell(&News::Note { text });
            }
        }
        let readiness = plan.readiness;
        let door = self.door();
        let (events, ear) = (self.events.clone(), Arc::clone(&words));
        let waiting = tokio::spawn(async move {
            readiness.wait(number, &ear, door).await;
            // Nobody to tell means that the supervisor has ended.
            let _ = events.send(Heard::Event(Event::Ready(process)));
        });
        let waiting = waiting.abort_handle();
        let (greeted, ear) = (self.greeted.0.clone(), Arc::clone(&words));
        let greeting = tokio::spawn(async move {
            let pair = ear.pair(number).await;
            let _ = greeted.send(((process, number, generation), pair));
        });
        let greeting = greeting.abort_handle();
        let started = Process {
            pid,
            words,
            waiting,
            greeting,
        };
        self.processes.insert(process, started);
        Ok(())
    }

    /// A process can hand over, and is told its part.
    fn greet(&mut self, process: Greeting, pair: OwnedFd) {
        if let Err(error) = self.brokering.greeted(process, pair, self.serving) {
            // It begins on its own when it hears nothing.
            tracing::warn!(%error, pid = process.1, "cannot tell a process its part");
        }
    }

    /// A process says something.
    fn listen(&mut self, process: Id, word: Option<Word>) -> Vec<Event> {
        match word {
            Some(Word::Given) => {}
            Some(Word::Kept(why)) => {
                let text = format!("not handed over: {why}").replace('\n', " / ");
                say(&format!("curtsy: {text}"));
                self.crier.tell(&News::Note { text });
                return Vec::new();
            }
            Some(Word::Wish) => return self.wished(process),
            Some(
                Word::First(_) | Word::Take(..) | Word::Give(..) | Word::Bake | Word::Serves(_),
            ) => {
                return Vec::new();
            }
            // It has ended, or does not want to be asked any more.
            None => {}
        }
        let ready = self.brokering.given(process);
        ready.map(Event::Ready).into_iter().collect()
    }

    /// A process wants to be restarted: a reload, as anybody else may ask for one, and it hears how that went.
    fn wished(&mut self, process: Id) -> Vec<Event> {
        let Some(broker) = self.brokering.reached(process) else {
            return Vec::new();
        };
        if let Some(child) = self.processes.get(&process) {
            say(&format!(
                "curtsy: process {} asks for a reload",
                child.number()
            ));
        }
        let (reply, answer) = oneshot::channel();
        tokio::spawn(async move {
            let word = match answer.await {
                Ok(Ok(generation)) => Word::Serves(generation),
                Ok(Err(why)) => Word::Kept(why),
                Err(_) => return,
            };
            if let Err(error) = broker.say(&word) {
                // It had to go, as it wished.
                tracing::debug!(%error, "who asked for the reload does not listen any more");
            }
        });
        self.wait_for_reload(reply);
        vec![Event::Reload]
    }

    /// An event; or nothing yet, for an heir whose donor still accepts.
    fn unless_to_be_given(&mut self, event: Event) -> Vec<Event> {
        let Event::Ready(process) = event else {
            return vec![event];
        };
        match self.brokering.is_given(process) {
            true => vec![event],
            false => Vec::new(),
        }
    }

    /// What flags and file say now.
    fn read_again(&mut self) -> Result<Plan, String> {
        let settings = self.arguments.settings().map_err(|failure| failure.why)?;
        if let Some(what) = self.fixed.differs(&settings.fixed) {
            return Err(format!(
                "is not what the file asks for: {what} can only be changed by a new start of the supervisor"
            ));
        }
        self.machine
            .set_times(settings.ready_timeout, settings.grace);
        Ok(Plan::new(&settings, &self.listeners))
    }

    /// Where probes go: the first TCP listener.
    fn door(&self) -> Option<Door> {
        self.listeners.iter().find_map(|listener| {
            let own = format!("/proc/self/fd/{}", listener.socket().as_raw_fd());
            Some(Door {
                address: listener.address().tcp()?,
                // No socket has the number 0.
                inode: std::fs::metadata(own).map_or(0, |file| file.ino()),
            })
        })
    }

    /// Takes the status of every child that has ended.
    fn reap(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let found = self.processes.iter().find(|(_, child)| child.pid == pid);
            let Some(id) = found.map(|(id, _)| *id) else {
                continue;
            };
            if let Some(child) = self.processes.remove(&id) {
                child.waiting.abort();
                child.greeting.abort();
                let ready = self.brokering.ended(id);
                events.extend(ready.map(Event::Ready));
                events.push(Event::Ended(id, judge(&child, status)));
            }
        }
        events
    }

    fn signal(&self, process: Id, signal: Signal) {
        if let Some(child) = self.processes.get(&process) {
            // It has ended, and will be reaped.
            let _ = kill_process(child.pid, signal);
        }
    }

    /// It and all that it started, unless they went their own way.
    fn kill(&self, process: Id) {
        if let Some(child) = self.processes.get(&process) {
            let _ = kill_process_group(child.pid, Signal::KILL);
            // In the first moment of its life it leads no group.
            let _ = kill_process(child.pid, Signal::KILL);
        }
    }

    fn wait_for_reload(&mut self, client: Client) {
        match self.is_reloading {
            // The next one follows the one under way.
            true => self.next_clients.push(client),
            false => self.clients.push(client),
        }
    }

    fn reloading(&mut self, generation: Generation) {
        self.is_reloading = true;
        self.next_plan = self.read_again();
        self.clients.append(&mut self.next_clients);
        let text = format!("reloading: generation {generation} is to come");
        self.tell_step("begun", generation, None, &text);
        self.tell_manager(Notify::reloading);
    }

    fn reloaded(&mut self, generation: Generation, result: Result<(), String>) {
        self.is_reloading = false;
        self.tell_manager(Notify::ready);
        if let (Ok(()), Ok(plan)) = (&result, &self.next_plan) {
            self.plan = plan.clone();
            self.serving = Some(generation);
            self.brokering.bake(generation);
        }
        let result = match result {
            Ok(()) => {
                let text = format!("generation {generation} serves");
                self.tell_step("serves", generation, None, &text);
                Ok(generation.number)
            }
            Err(why) => {
                let text = format!("generation {generation} {why}; the old one was kept");
                self.tell_step("kept", generation, None, &text);
                Err(text)
            }
        };
        for client in self.clients.drain(..) {
            // A client that left is no reason not to reload.
            let _ = client.send(result.clone());
        }
    }

    fn refused(&mut self, why: &str) {
        say(&format!("curtsy: not reloaded: {why}"));
        for client in self.clients.drain(..).chain(self.next_clients.drain(..)) {
            let _ = client.send(Err(why.to_owned()));
        }
    }

    fn tell_manager(&self, what: fn(&Notify) -> std::io::Result<()>) {
        if let Err(error) = what(&self.notify) {
            tracing::warn!(%error, "cannot tell the service manager");
        }
    }
}

impl Process {
    fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn judge(child: &Process, status: WaitStatus) -> End {
    let said = child.words.said(child.number());
    let exit = status
        .exit_status()
        .and_then(|status| u8::try_from(status).ok());
    match (exit, status.terminating_signal()) {
        (Some(status), _) => match (said.errno, said.status) {
            (Some(_), Some(why)) => End::NotExecuted { why, status },
            (None, _) | (_, None) => End::Status(status),
        },
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Status(1),
    }
}
