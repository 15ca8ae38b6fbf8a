//! `curtsy status`: a screenful.

use super::{Whom, age, bar, bytes, clean, count, json, print, run};
use clap::Args;
use curtsy::control::{Connections, DrainStatus, Requests, Status, StragglerStatus};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// How many stragglers a screen has room for.
const NAMED: usize = 8;
/// How many processes.
const PROCESSES: usize = 8;
const BAR: usize = 20;

/// Tell what a server or supervisor is doing.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: curtsy status --json | jq .phase\n\
    Exit codes: 0 it answers, whatever it is doing · 1 it does not · 2 usage")]
pub(crate) struct StatusOf {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

/// Asks and shows.
pub(crate) fn status(arguments: &StatusOf) -> ExitCode {
    run(async {
        let mut server = arguments.whom.connect().await?;
        let status = server.status().await?;
        match arguments.json {
            true => print(&json(&status)?)?,
            false => print(&screen(&status, server.path()))?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The whole of it, in at most 24 lines of which most are there only if they say something.
fn screen(status: &Status, path: &Path) -> String {
    let mut text = String::new();
    // Writing to a string does not fail, here and below.
    let _ = writeln!(
        text,
        "{}: {} pid {}, generation {}, up {}   ({})",
        status.phase,
        status.kind,
        status.pid,
        status.generation,
        age(status.up_ms),
        path.display()
    );
    for listener in &status.listeners {
        let mode = listener.mode.as_deref().unwrap_or_default();
        let line = format!("  {:<12} {:<28} {mode}", listener.name, listener.address);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if let Some(admin) = &status.admin {
        let scheme = if admin.starts_with("unix:") {
            ""
        } else {
            "http://"
        };
        let _ = writeln!(text, "  {:<12} {scheme}{admin}", "admin");
    }
    if let Some(open) = status.connections {
        let _ = writeln!(text, "connections  {}", counted(&open));
    }
    if let Some(requests) = &status.requests {
        let _ = writeln!(text, "requests     {}", answered(requests));
    }
    if let Some(restart) = &status.restart {
        let pid = restart
            .pid
            .map_or(String::new(), |pid| format!(" (pid {pid})"));
        let what = match restart.step.as_str() {
            "begun" | "started" => "is starting",
            "ready" => "accepts, and has to prove itself",
            _ => "serves",
        };
        let generation = restart.generation;
        let _ = writeln!(text, "restart      generation {generation} {what}{pid}");
    }
    if let Some(failed) = &status.restart_failed {
        let why = clean(&failed.text.replace('\n', " / "));
        let _ = writeln!(
            text,
            "reload       failed {} ago: {why}",
            age(failed.ago_ms)
        );
    }
    if let Some(drain) = &status.drain {
        let open = status.connections.map_or(0, |open| open.total);
        let _ = writeln!(text, "drain        {}", draining(drain, open));
    }
    for process in status.processes.iter().take(PROCESSES) {
        let pid = process.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let _ = writeln!(
            text,
            "  generation {:<4} pid {pid:<8} {:<9} {}",
            process.generation,
            process.state,
            age(process.age_ms)
        );
    }
    if status.stragglers_total > 0 {
        let _ = writeln!(
            text,
            "under way    {}, the oldest:",
            status.stragglers_total
        );
        for straggler in status.stragglers.iter().take(NAMED) {
            let _ = writeln!(text, "  {}", line(straggler));
        }
    }
    text
}

/// How many connections, by state; nothing is said of states that none is in.
fn counted(open: &Connections) -> String {
    let mut text = format!("{} open", open.total);
    let mut before = ':';
    for (number, name) in [
        (open.active, "active"),
        (open.upgraded, "upgraded"),
        (open.idle, "idle"),
        (open.new, "new"),
        (open.handshake, "in handshake"),
    ] {
        if number > 0 {
            let _ = write!(text, "{before} {number} {name}");
            before = ',';
        }
    }
    if open.parked > 0 {
        let _ = write!(text, "; {} parked", open.parked);
    }
    text
}

/// What is known of the requests.
pub(crate) fn answered(requests: &Requests) -> String {
    let mut text = format!("{} answered", count(requests.total));
    if let Some(rate) = requests.per_second {
        let _ = write!(text, ", {rate:.1}/s");
    }
    if let Some(latency) = requests.latency_ms {
        let _ = write!(
            text,
            "; p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
            latency.p50, latency.p99, latency.p999
        );
    }
    text
}

/// How far a drain is.
pub(crate) fn draining(drain: &DrainStatus, open: usize) -> String {
    let mut text = match (drain.lame_duck_in_ms, drain.deadline_in_ms) {
        (Some(left), _) => format!("lame duck, draining in {}", age(left)),
        (None, Some(left)) => {
            let whole = drain.deadline_ms.unwrap_or(left).max(1);
            format!("[{}] cut in {}", bar(share(left, whole), BAR), age(left))
        }
        (None, None) => format!("for {}", age(drain.for_ms)),
    };
    let _ = match drain.open_at_start {
        Some(start) => write!(text, "; {open} of {start} open"),
        None => write!(text, "; {open} open"),
    };
    if drain.hooks > 0 {
        let _ = write!(text, ", {} shutdown hooks", drain.hooks);
    }
    text
}

/// How much of the time is gone.
#[allow(
    clippy::cast_precision_loss,
    reason = "milliseconds of a drain are far below 2^52"
)]
pub(crate) fn share(left: u64, whole: u64) -> f64 {
    whole.saturating_sub(left) as f64 / whole.max(1) as f64
}

/// A straggler in a line.
pub(crate) fn line(straggler: &StragglerStatus) -> String {
    let request = match straggler.method.as_str() {
        "" => "(head incomplete)".to_owned(),
        method => format!("{method} {}", straggler.target),
    };
    format!(
        "{:>10}  {:>8}  {:<8}  {:<21}  {}  {}",
        age(straggler.age_ms),
        format!("#{}", straggler.connection),
        straggler.state,
        straggler.peer,
        clean(&request),
        bytes(straggler.bytes_sent)
    )
}

#[cfg(test)]
mod tests {
    use super::screen;
    use curtsy::control::{
        Connections, DrainStatus, Latency, ListenerStatus, ProcessStatus, Requests, RestartFailed,
        RestartStatus, Status, StragglerStatus,
    };
    use std::path::Path;

    fn full() -> Status {
        let mut status = Status::default();
        status.kind = "server".to_owned();
        status.phase = "draining".to_owned();
        (status.pid, status.generation, status.up_ms) = (42, 3, 61_000);
        status.listeners.push(ListenerStatus {
            name: "main".to_owned(),
            address: "127.0.0.1:9000".to_owned(),
            mode: Some("both".to_owned()),
        });
        status.connections = Some(Connections {
            active: 1,
            idle: 2,
            parked: 2,
            total: 3,
            ..Connections::default()
        });
        status.requests = Some(Requests {
            total: 1_200_000,
            per_second: Some(345.6),
            latency_ms: Some(Latency {
                p50: 0.4,
                p90: 0.6,
                p99: 2.0,
                p999: 9.5,
            }),
            ..Requests::default()
        });
        status.admin = Some("127.0.0.1:9001".to_owned());
        status.restart_failed = Some(RestartFailed {
            ago_ms: 61_000,
            text: "kept the old process:\nit exited".to_owned(),
        });
        status.restart = Some(RestartStatus {
            step: "serves".to_owned(),
            generation: 4,
            pid: Some(43),
        });
        status.drain = Some(DrainStatus {
            for_ms: 10_000,
            deadline_in_ms: Some(20_000),
            deadline_ms: Some(30_000),
            open_at_start: Some(9),
            hooks: 1,
            ..DrainStatus::default()
        });
        status.stragglers_total = 100;
        status.stragglers = vec![
            StragglerStatus {
                connection: 7,
                age_ms: 12_300,
                peer: "127.0.0.1:1".to_owned(),
                state: "active".to_owned(),
                method: "GET".to_owned(),
                target: "/slow\u{1b}".to_owned(),
                ..StragglerStatus::default()
            };
            32
        ];
        status
    }

    #[test]
    fn everything_fits_on_a_screen() {
        let text = screen(&full(), Path::new("/run/c.sock"));
        for part in [
            "draining: server pid 42, generation 3, up 1 min 1 s   (/run/c.sock)",
            "main         127.0.0.1:9000               both",
            "admin        http://127.0.0.1:9001",
            "3 open: 1 active, 2 idle; 2 parked",
            "reload       failed 1 min 1 s ago: kept the old process: / it exited",
            "1.2 M answered, 345.6/s; p50 0.40 ms",
            "generation 4 serves (pid 43)",
            "[███████░░░░░░░░░░░░░] cut in 20.0 s; 3 of 9 open, 1 shutdown hooks",
            "100, the oldest:",
            "12.3 s        #7  active    127.0.0.1:1            GET /slow\u{fffd}  0 B",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(text.lines().count() <= 24, "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_supervisor_shows_its_processes_and_nothing_it_does_not_have() {
        let mut status = Status::default();
        status.kind = "supervisor".to_owned();
        status.phase = "reloading".to_owned();
        status.processes.push(ProcessStatus {
            pid: Some(77),
            generation: 1,
            state: "starting".to_owned(),
            age_ms: 300,
        });
        let text = screen(&status, Path::new("c"));
        assert!(
            text.contains("generation 1    pid 77       starting  0.3 s"),
            "{text}"
        );
        assert!(
            !text.contains("connections") && !text.contains("under way"),
            "{text}"
        );
    }
}
