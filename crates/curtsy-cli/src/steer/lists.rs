//! `curtsy stragglers` and `curtsy connections`: who is there.

use super::{Whom, age, clean, json, print, run, say, status};
use crate::duration;
use clap::Args;
use curtsy::BoxError;
use curtsy::control::{Command, ConnectionStatus, Filter};
use std::process::ExitCode;
use std::time::Duration;

/// List the requests and upgraded connections that are under way, oldest first.
#[derive(Args, Clone, Debug)]
#[command(after_help = LINE)]
pub(crate) struct Stragglers {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = Filter::LIMIT)]
    limit: usize,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

/// List connections, those longest in their state first.
#[derive(Args, Clone, Debug)]
#[command(after_help = CONNECTIONS)]
pub(crate) struct Connections {
    /// Only those in this state
    #[arg(long, value_name = "STATE",
        value_parser = ["handshake", "new", "active", "idle", "upgraded", "parked"])]
    state: Option<String>,
    /// Only those that have been in their state for at least so long: 500ms, 30s, 2m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    age: Option<Duration>,
    /// Only those from this address, address and port, network (10.0.0.0/8), or `unix`
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = Filter::LIMIT)]
    limit: usize,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

const LINE: &str = "\
A line: age, #connection, state, peer, request, and how much of the answer was sent.
`curtsy kill 12` cuts connection #12.";
const CONNECTIONS: &str = "\
Examples:
  curtsy connections --state active --age 30s
  curtsy connections --peer 10.0.0.0/8 --limit 1000 --json
A line: time in its state, #connection, state, peer, listener, and what it has done.
`curtsy kill 12` cuts connection #12.";

pub(crate) fn stragglers(arguments: &Stragglers) -> ExitCode {
    run(async {
        let mut server = arguments.whom.connect().await?;
        let command = Command::Stragglers {
            limit: Some(arguments.limit),
        };
        let answer = server.ask(command).await?;
        let found = answer.stragglers.unwrap_or_default();
        if arguments.json {
            print(&json(&found)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let lines: Vec<String> = found.iter().map(status::line).collect();
        show(&lines, answer.total)
    })
}

pub(crate) fn connections(arguments: &Connections) -> ExitCode {
    run(async {
        let mut server = arguments.whom.connect().await?;
        let ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let filter = Filter {
            state: arguments.state.clone(),
            min_age_ms: arguments.age.map(ms),
            peer: arguments.peer.clone(),
            limit: Some(arguments.limit),
        };
        let answer = server.connections(filter).await?;
        let found = answer.connections.unwrap_or_default();
        if arguments.json {
            print(&json(&found)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let lines: Vec<String> = found.iter().map(line).collect();
        show(&lines, answer.total)
    })
}

fn show(lines: &[String], total: Option<usize>) -> Result<ExitCode, BoxError> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    print(&text)?;
    let total = total.unwrap_or(lines.len());
    match total {
        0 => say("there are none"),
        _ if total > lines.len() => say(&format!("{} of {total} are shown", lines.len())),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn line(connection: &ConnectionStatus) -> String {
    let state = match connection.parked {
        true => format!("{} (parked)", connection.state),
        false => connection.state.clone(),
    };
    let mut about = format!("{} requests", connection.requests);
    if let Some(streams) = connection.streams {
        about = format!("{about}, {streams} streams");
    }
    if connection.tls {
        about.push_str(", TLS");
    }
    if let Some(request) = &connection.request {
        about = format!("{about}, {}", clean(request));
    }
    format!(
        "{:>10}  {:>8}  {state:<13}  {:<21}  {:<10}  open {}, {about}",
        age(connection.age_ms),
        format!("#{}", connection.connection),
        connection.peer,
        connection.listener,
        age(connection.open_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::line;
    use curtsy::control::ConnectionStatus;

    #[test]
    fn a_connection_in_a_line() {
        let connection = ConnectionStatus {
            connection: 12,
            state: "idle".to_owned(),
            parked: true,
            age_ms: 3_000,
            open_ms: 61_000,
            peer: "[::1]:4000".to_owned(),
            listener: "main".to_owned(),
            requests: 9,
            ..ConnectionStatus::default()
        };
        assert_eq!(
            line(&connection),
            "     3.0 s       #12  idle (parked)  [::1]:4000             main        open 1 min 1 s, 9 requests"
        );
    }
}
