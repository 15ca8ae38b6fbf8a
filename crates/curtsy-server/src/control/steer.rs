//! A server, steered: what each command does to its handle, and what is told of it while it drains.

use super::event::{Crier, Event};
use super::listing;
use super::message::{Answer, Command};
use super::socket::Subject;
use super::status::{STRAGGLERS_NAMED, Status, StragglerStatus, of, status};
use crate::error::Error;
use crate::handle::Handle;
use crate::restart::{RestartStep, Restarted};
use crate::service::BoxError;
use crate::shared::Shared;
use curtsy_lifecycle::{Ending, Phase, Report};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// How long the answer to `drain` waits for the drain to have begun: during a restart's trial that
/// is decided first.
const BEGIN_MOST: Duration = Duration::from_secs(1);
/// The pause between two events of a drain's progress; what happens in it is one event.
const PACE: Duration = Duration::from_millis(100);

/// Sets how much is logged; why not, if it cannot.
pub(crate) type LogLevelHook = Arc<dyn Fn(&str) -> Result<(), BoxError> + Send + Sync>;

impl Handle {
    /// The same and more as the control socket tells it: what `curtsy status` shows.
    pub fn status(&self) -> Status {
        status(self)
    }

    /// Closes the connection with that number, whatever it is doing; whether there is one. It looks
    /// at every connection. One that is just being parked may escape: ask again.
    pub fn kill(&self, connection: u64) -> bool {
        let mut found = false;
        for worker in self.shared().workers() {
            found |= worker.lot.kill(connection, worker);
            worker.ledger.for_each(|entry| {
                if entry.id() == connection {
                    entry.kill();
                    found = true;
                }
            });
        }
        found
    }
}

/// A server as its control socket sees it.
pub(crate) struct Steered {
    handle: Handle,
    log_level: Option<LogLevelHook>,
}

impl Steered {
    pub(crate) fn new(handle: Handle, log_level: Option<LogLevelHook>) -> Self {
        Self { handle, log_level }
    }

    async fn carry_out(&self, command: Command) -> Result<Answer, Error> {
        let handle = &self.handle;
        match command {
            Command::Status {} | Command::Events {} => {
                // It looks at every connection.
                let handle = handle.clone();
                let status = blocking(move || Ok(handle.status())).await?;
                Ok(Answer {
                    status: Some(Box::new(status)),
                    ..Answer::default()
                })
            }
            Command::Stragglers { limit } => {
                let handle = handle.clone();
                let (total, stragglers) = blocking(move || Ok(stragglers(&handle, limit))).await?;
                Ok(Answer {
                    stragglers: Some(stragglers),
                    total: Some(total),
                    ..Answer::default()
                })
            }
            Command::Connections(filter) => {
                let handle = handle.clone();
                let found =
                    blocking(move || listing::list(handle.shared(), &filter, crate::clock::now()));
                let (total, connections) = found.await?;
                Ok(Answer {
                    connections: Some(connections),
                    total: Some(total),
                    ..Answer::default()
                })
            }
            Command::Drain {} => {
                handle.wish_shutdown();
                // Either way the phase says what has become of it.
                let _ = timeout(BEGIN_MOST, handle.reached(Phase::LameDuck)).await;
                Ok(self.in_phase())
            }
            Command::Undrain {} => {
                handle.undrain().await?;
                Ok(self.in_phase())
            }
            Command::Reload {} => restarted(handle.restart().await?),
            Command::Switch { listener, mode } => {
                handle.switch_to(&listener, mode.parse()?)?;
                Ok(Answer::default())
            }
            Command::ReloadCertificates {} => {
                let handle = handle.clone();
                // It reads files.
                blocking(move || handle.reload_certificates()).await?;
                Ok(Answer::default())
            }
            Command::LogLevel { level } => self.log_level(level),
            Command::Stop {} => {
                handle.close();
                Ok(Answer::default())
            }
            Command::Kill { connection } => {
                let asked = handle.clone();
                match blocking(move || Ok(asked.kill(connection))).await? {
                    true => Ok(Answer::default()),
                    false => Err(refused(format!("there is no connection {connection}"))),
                }
            }
        }
    }

    fn in_phase(&self) -> Answer {
        Answer {
            phase: Some(self.handle.phase().to_string()),
            ..Answer::default()
        }
    }

    fn log_level(&self, level: String) -> Result<Answer, Error> {
        let hook = self.log_level.as_ref().ok_or_else(|| {
            refused("this program has given the server no way to change its log level".to_owned())
        })?;
        hook(&level).map_err(|error| refused(format!("not a log level: {error}")))?;
        tracing::info!(level, "the log level was changed");
        keep_log_level(self.handle.shared(), &level);
        self.crier().tell(&Event::LogLevel { level });
        Ok(Answer::default())
    }
}

/// Has an heir log as much as the process before it, and the next one after it.
pub(crate) fn inherit_log_level(shared: &Shared, hook: &LogLevelHook, level: &str) {
    match hook(level) {
        Ok(()) => keep_log_level(shared, level),
        // Another version of the program may know other words.
        Err(error) => tracing::warn!(level, error, "the log level of the process before"),
    }
}

fn keep_log_level(shared: &Shared, level: &str) {
    let mut kept = (shared.log_level.lock()).unwrap_or_else(PoisonError::into_inner);
    *kept = Some(level.to_owned());
}

impl Subject for Steered {
    fn obey(
        &self,
        command: Command,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + '_>> {
        Box::pin(async move {
            let carried_out = self.carry_out(command).await;
            carried_out.map_err(|error| error.to_string())
        })
    }

    fn crier(&self) -> &Crier {
        &self.handle.shared().crier
    }
}

impl fmt::Debug for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steered").field(&self.handle).finish()
    }
}

fn refused(why: String) -> Error {
    Error::new(crate::error::Kind::Control, why)
}

/// What would hold up a runtime of one thread, done beside it.
async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(what).await {
        Ok(done) => done,
        Err(error) => Err(refused(error.to_string())),
    }
}

fn stragglers(handle: &Handle, limit: Option<usize>) -> (usize, Vec<StragglerStatus>) {
    let limit = limit.unwrap_or(listing::Filter::LIMIT);
    let limit = limit.min(listing::Filter::LIMIT_MOST);
    let all = handle.shared().stragglers();
    let named = all.iter().take(limit).map(StragglerStatus::from);
    (all.len(), named.collect())
}

fn restarted(restarted: Restarted) -> Result<Answer, Error> {
    match restarted {
        Restarted::Serves { pid, generation } => Ok(Answer {
            generation: Some(generation),
            pid: Some(pid),
            ..Answer::default()
        }),
        Restarted::PassedOn => Err(refused(
            "another restart succeeded meanwhile, and the new process was asked to restart once more; \
             what comes of that, it tells"
                .to_owned(),
        )),
    }
}

/// Tells of a drain's progress, each time that something may have changed, for ever.
pub(crate) async fn tell_progress(shared: Arc<Shared>) {
    let mut last = Vec::new();
    loop {
        shared.crier.nudged().await;
        if shared.crier.is_heard() {
            let status = of(&shared);
            tell_of(&shared.crier, status, &mut last);
            sleep(PACE).await;
        }
    }
}

fn tell_of(crier: &Crier, status: Status, last: &mut Vec<(u64, String)>) {
    let (Some(connections), Some(drain)) = (status.connections, status.drain) else {
        return;
    };
    crier.tell(&Event::Progress { connections, drain });
    let named = status.stragglers.iter();
    let mut now: Vec<(u64, String)> = named
        .map(|straggler| (straggler.connection, straggler.target.clone()))
        .collect();
    now.push((status.stragglers_total as u64, String::new()));
    if *last != now {
        *last = now;
        crier.tell(&Event::Stragglers {
            stragglers_total: status.stragglers_total,
            stragglers: status.stragglers,
        });
    }
}

impl Crier {
    pub(crate) fn tell_phase(&self, phase: Phase) {
        let phase = phase.to_string();
        self.tell(&Event::Phase { phase });
        self.nudge();
    }

    pub(crate) fn tell_step(&self, step: &RestartStep<'_>) {
        let (name, generation, pid) = match step {
            RestartStep::Begun { generation } => ("begun", Some(*generation), None),
            RestartStep::Ready { pid, generation } => ("ready", Some(*generation), Some(*pid)),
            RestartStep::Serves { pid, generation } => ("serves", Some(*generation), Some(*pid)),
            // Where the restart is has not changed.
            RestartStep::Moved { .. } => ("moved", None, None),
            RestartStep::Kept(_) => ("kept", None, None),
        };
        self.tell(&Event::Restart {
            step: name.to_owned(),
            generation,
            pid,
            text: step.to_string(),
        });
    }

    pub(crate) fn tell_end(&self, report: &Report) {
        let ending = match report.ending {
            Ending::Drained => "drained",
            Ending::DeadlinePassed => "deadline-passed",
            Ending::Closed => "closed",
        };
        let named = report.stragglers.iter().take(STRAGGLERS_NAMED);
        self.tell(&Event::Ended {
            ending: ending.to_owned(),
            took_ms: super::status::ms(report.took),
            stragglers_total: report.stragglers.len(),
            stragglers: named.map(StragglerStatus::from).collect(),
            text: report.to_string(),
        });
    }
}
