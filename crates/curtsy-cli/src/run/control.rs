//! The supervisor at its control socket: the same language that servers speak, as far as it means something for a process
//! that holds sockets and has no connections.

use super::driver::Heard;
use super::machine::Event;
use crate::log;
use curtsy::control::{Answer, Command, Crier, Event as News, Subject};
use rustix::process::Signal;
use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// The supervisor, as whoever steers it sees it.
#[derive(Debug)]
pub(crate) struct Steered {
    pub(crate) events: UnboundedSender<Heard>,
    pub(crate) crier: Crier,
}

impl Steered {
    async fn carry_out(&self, command: Command) -> Result<Answer, String> {
        match command {
            Command::Status {} | Command::Events {} => {
                let (reply, answer) = oneshot::channel();
                let mut status = self.ask(Heard::Status(reply), answer).await?;
                let under_way = self.crier.restart().filter(|restart| restart.step != "serves");
                status.restart = under_way;
                status.restart_failed = self.crier.restart_failed();
                Ok(answer_with(|answer| answer.status = Some(Box::new(status))))
            }
            Command::Reload {} => {
                let (reply, answer) = oneshot::channel();
                let generation = self.ask(Heard::Reload(reply), answer).await??;
                Ok(answer_with(|answer| {
                    answer.generation = Some(generation.into());
                }))
            }
            Command::Drain {} => {
                self.tell(Event::Stop(Signal::TERM))?;
                Ok(answer_with(|answer| {
                    answer.phase = Some("draining".to_owned());
                }))
            }
            Command::Stop {} => {
                self.tell(Event::Cut)?;
                Ok(Answer::default())
            }
            Command::Undrain {} => {
                Err("not undrained: a supervisor does not take an order to stop back".to_owned())
            }
            Command::LogLevel { level } => {
                log::set(&level).map_err(|error| format!("not a log level: {error}"))?;
                self.crier.tell(&News::LogLevel { level });
                Ok(Answer::default())
            }
            Command::Stragglers { .. } | Command::Connections(_) | Command::Kill { .. } => Err(
                "a supervisor has no connections; ask its program, at a control socket of its own"
                    .to_owned(),
            ),
            Command::Switch { .. } | Command::ReloadCertificates {} => Err(
                "a supervisor does not speak on its sockets; ask its program, at a control socket of \
                 its own"
                    .to_owned(),
            ),
            other => Err(format!("a supervisor does not know what {other:?} is")),
        }
    }

    fn tell(&self, event: Event) -> Result<(), String> {
        let told = self.events.send(Heard::Event(event));
        told.map_err(|_| "the supervisor is ending".to_owned())
    }

    async fn ask<T>(&self, what: Heard, answer: oneshot::Receiver<T>) -> Result<T, String> {
        let ending = "the supervisor is ending";
        self.events.send(what).map_err(|_| ending.to_owned())?;
        answer.await.map_err(|_| ending.to_owned())
    }
}

fn answer_with(fill: impl FnOnce(&mut Answer)) -> Answer {
    let mut answer = Answer::default();
    fill(&mut answer);
    answer
}

impl Subject for Steered {
    fn obey(
        &self,
        command: Command,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + '_>> {
        Box::pin(self.carry_out(command))
    }

    fn crier(&self) -> &Crier {
        &self.crier
    }
}
