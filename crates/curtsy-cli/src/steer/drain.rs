//! `curtsy drain`: begin to shut down, and see it through with `--wait`.
//!
//! With `--wait` the server tells of what happens; nothing is asked again and again. On a terminal a
//! bar moves by this process's own clock in between.

use super::{Whom, age, run, say, status};
use crate::progress;
use clap::Args;
use curtsy::BoxError;
use curtsy::control::{Command, Connections, Control, DrainStatus, Event, StragglerStatus};
use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often a terminal's bar moves.
const REFRESH: Duration = Duration::from_millis(100);
/// How many stragglers are named.
const NAMED: usize = 3;

/// Have a server shut down in good order.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "It drains as by SIGTERM: what is under way is finished, up to the deadline it was started with.\n\
    Exit codes: 0 it drains, or with --wait: has drained · 1 it does not, or its end is not known ·\n\
    2 usage · 3 with --wait: the deadline passed, or it was told to stop, and stragglers were cut"
)]
pub(crate) struct Drain {
    /// Wait for the end, and tell what it waits for
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    whom: Whom,
}

pub(crate) fn drain(arguments: &Drain) -> ExitCode {
    run(async {
        let mut server = arguments.whom.connect().await?;
        let mut view = View::new(stderr().is_terminal());
        if arguments.wait {
            // Before the order, so that nothing is missed.
            let status = server.listen().await?;
            view.connections = status.connections.unwrap_or_default();
            view.stragglers = status.stragglers;
            view.is_supervisor = status.kind == "supervisor";
        }
        let answer = server.ask(Command::Drain {}).await?;
        match answer.phase.as_deref() {
            Some("lame-duck") => say("it is a lame duck; `curtsy undrain` takes that back"),
            Some("draining" | "stopped") => say("it drains"),
            _ => say("it will drain as soon as the restart under way is decided"),
        }
        match arguments.wait {
            true => watch(&mut server, &mut view).await,
            false => Ok(ExitCode::SUCCESS),
        }
    })
}

/// What is shown.
#[derive(Default)]
struct View {
    is_terminal: bool,
    is_supervisor: bool,
    phase: String,
    connections: Connections,
    stragglers: Vec<StragglerStatus>,
    drain: Option<(DrainStatus, Instant)>,
    last: String,
}

async fn watch(server: &mut Control, view: &mut View) -> Result<ExitCode, BoxError> {
    loop {
        let event = tokio::select! {
            event = server.event() => event?,
            () = view.tick() => {
                view.show();
                continue;
            }
        };
        let Some((event, _)) = event else {
            view.clear();
            return Err("the server ended without saying how".into());
        };
        match event {
            Event::Phase { phase } if phase == "serving" => {
                view.clear();
                return Err("the drain was taken back: it serves again".into());
            }
            // Its end follows, which says more.
            Event::Phase { phase } if phase == "stopped" => continue,
            Event::Phase { phase } => view.phase = phase,
            Event::Progress { connections, drain } => {
                view.connections = connections;
                view.drain = Some((drain, Instant::now()));
            }
            Event::Stragglers { stragglers, .. } => view.stragglers = stragglers,
            Event::Ended {
                ending,
                stragglers_total,
                text,
                ..
            } => {
                view.clear();
                say(&super::clean(&text.replace('\n', " / ")));
                let is_whole = ending == "drained" || ending == "exited" || stragglers_total == 0;
                return Ok(match is_whole {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::from(3),
                });
            }
            Event::Restart { .. }
            | Event::Switched { .. }
            | Event::LogLevel { .. }
            | Event::Note { .. }
            | Event::Unknown
            | _ => {}
        }
        view.show();
    }
}

impl View {
    fn new(is_terminal: bool) -> Self {
        Self {
            is_terminal,
            ..Self::default()
        }
    }

    /// When the bar is to move, if there is one.
    async fn tick(&self) {
        match self.is_terminal && self.drain.is_some() {
            true => tokio::time::sleep(REFRESH).await,
            false => std::future::pending().await,
        }
    }

    fn show(&mut self) {
        if self.is_terminal {
            progress::redraw(&self.bar(Instant::now()));
            return;
        }
        let line = self.line();
        if line != self.last {
            say(&line);
            self.last = line;
        }
    }

    fn clear(&self) {
        if self.is_terminal {
            progress::redraw("");
        }
    }

    /// On a terminal: what was last told, moved on to now.
    fn bar(&self, now: Instant) -> String {
        let Some((mut drain, told_at)) = self.drain else {
            return self.line();
        };
        let since = now.saturating_duration_since(told_at);
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        for left in [&mut drain.lame_duck_in_ms, &mut drain.deadline_in_ms] {
            *left = left.map(|left| left.saturating_sub(since));
        }
        drain.for_ms = drain.for_ms.saturating_add(since);
        let progress = status::draining(&drain, self.connections.total);
        match self.stragglers.first() {
            Some(oldest) => format!("{progress}; {}", name(oldest)),
            None => progress,
        }
    }

    /// Elsewhere: the same words until something has changed.
    fn line(&self) -> String {
        let open = &self.connections;
        let mut parts = Vec::new();
        for (count, name) in [
            (open.active, "active"),
            (open.upgraded, "upgraded"),
            (open.idle + open.new, "idle"),
            (open.handshake, "in handshake"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {name}"));
            }
        }
        if let Some((drain, _)) = &self.drain
            && drain.hooks > 0
        {
            parts.push(format!("{} shutdown hooks", drain.hooks));
        }
        let waiting = match (parts.is_empty(), self.is_supervisor) {
            (true, true) => "waiting for its processes".to_owned(),
            (true, false) => "closing".to_owned(),
            (false, _) => format!("waiting for {}", parts.join(", ")),
        };
        let oldest: Vec<String> = self.stragglers.iter().take(NAMED).map(name).collect();
        match oldest.is_empty() {
            true => format!("{}: {waiting}", self.phase),
            false => format!("{}: {waiting}; oldest: {}", self.phase, oldest.join(", ")),
        }
    }
}

fn name(straggler: &StragglerStatus) -> String {
    let what = match straggler.method.as_str() {
        "" => "a request's head".to_owned(),
        method => super::clean(&format!("{method} {}", straggler.target)),
    };
    format!("{what} from {} ({})", straggler.peer, age(straggler.age_ms))
}

#[cfg(test)]
mod tests {
    use super::View;
    use curtsy::control::{Connections, DrainStatus, StragglerStatus};
    use std::time::{Duration, Instant};

    fn view() -> View {
        let mut view = View::new(true);
        view.phase = "draining".to_owned();
        view.connections = Connections {
            active: 1,
            idle: 3,
            total: 4,
            ..Connections::default()
        };
        view.stragglers = vec![StragglerStatus {
            age_ms: 2_000,
            peer: "127.0.0.1:1".to_owned(),
            method: "GET".to_owned(),
            target: "/slow".to_owned(),
            ..StragglerStatus::default()
        }];
        view
    }

    #[test]
    fn a_line_says_what_is_waited_for() {
        assert_eq!(
            view().line(),
            "draining: waiting for 1 active, 3 idle; oldest: GET /slow from 127.0.0.1:1 (2.0 s)"
        );
    }

    #[test]
    fn the_bar_moves_between_what_the_server_tells() {
        let (mut view, told) = (view(), Instant::now());
        let drain = DrainStatus {
            deadline_in_ms: Some(30_000),
            deadline_ms: Some(30_000),
            open_at_start: Some(8),
            ..DrainStatus::default()
        };
        view.drain = Some((drain, told));
        let at_first = view.bar(told);
        assert!(
            at_first.contains("[░") && at_first.contains("cut in 30.0 s"),
            "{at_first}"
        );
        let later = view.bar(told + Duration::from_secs(15));
        assert!(
            later.contains("███░") && later.contains("cut in 15.0 s"),
            "{later}"
        );
        assert!(later.contains("4 of 8 open; GET /slow"), "{later}");
        let long_after = view.bar(told + Duration::from_secs(99));
        assert!(long_after.contains("cut in 0.0 s"), "{long_after}");
    }
}
