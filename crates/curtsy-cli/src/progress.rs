//! What a draining server waits for, told on stderr: a line each time that changes, or a bar on a
//! terminal.

use crate::voice::say;
use curtsy::{Handle, Phase, Snapshot};
use rustix::termios::tcgetwinsize;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// How often a terminal's bar moves, and how often a change is looked for.
const REFRESH: Duration = Duration::from_millis(100);
/// How many stragglers a line names.
const NAMED: usize = 3;

/// Tells until the server has stopped. What is told is for people; the drain does not wait for it.
pub(crate) async fn tell(handle: Handle) {
    if !handle.reached(Phase::LameDuck).await {
        return;
    }
    let terminal = stderr().is_terminal();
    let mut last = String::new();
    loop {
        let snapshot = handle.snapshot();
        if snapshot.phase == Phase::Stopped {
            break;
        }
        let waiting = describe(&snapshot);
        if terminal {
            redraw(&bar(&snapshot, &waiting));
        } else if waiting != last {
            say(&format!("curtsy: {}: {waiting}\n", snapshot.phase));
            last = waiting;
        }
        tokio::select! {
            _ = handle.reached(Phase::Stopped) => break,
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
    if terminal {
        redraw("");
    }
}

fn describe(snapshot: &Snapshot) -> String {
    let counts = &snapshot.counts;
    let mut parts = Vec::new();
    for (count, name) in [
        (counts.active, "active"),
        (counts.upgraded, "upgraded"),
        (counts.idle + counts.new, "idle"),
        (counts.handshake, "in handshake"),
        (snapshot.hooks, "shutdown hooks"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    let waiting = match parts.is_empty() {
        true => "closing".to_owned(),
        false => format!("waiting for {}", parts.join(", ")),
    };
    let oldest: Vec<String> = snapshot
        .stragglers
        .iter()
        .take(NAMED)
        .map(|straggler| {
            let what = match straggler.method.as_str() {
                "" => "a request's head".to_owned(),
                method => format!("{method} {}", straggler.target),
            };
            format!("{what} from {}", straggler.peer)
        })
        .collect();
    match oldest.is_empty() {
        true => waiting,
        false => format!("{waiting}; oldest: {}", oldest.join(", ")),
    }
}

fn bar(snapshot: &Snapshot, waiting: &str) -> String {
    const WIDTH: usize = 20;
    let gone = snapshot.draining_for.as_secs_f64();
    let Some(left) = snapshot.deadline_in.map(|left| left.as_secs_f64()) else {
        return format!("{} {gone:.1} s  {waiting}", snapshot.phase);
    };
    let share = (gone / (gone + left).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let full = (0..WIDTH)
        .filter(|cell| (*cell as f64) < share * WIDTH as f64)
        .count();
    format!(
        "{} [{}{}] {gone:.1} of {:.0} s  {waiting}",
        snapshot.phase,
        "█".repeat(full),
        "░".repeat(WIDTH - full),
        gone + left
    )
}

/// Puts a line into the place of the one before it, on a terminal. What does not fit is cut: a line
/// that went on below could not be replaced.
pub(crate) fn redraw(line: &str) {
    let width = tcgetwinsize(stderr()).map_or(80, |size| usize::from(size.ws_col));
    // One that does not know its size says 0.
    let width = if width == 0 { 80 } else { width };
    let line: String = line.chars().take(width.saturating_sub(1)).collect();
    say(&format!("\r\x1b[2K{line}"));
}

#[cfg(test)]
mod tests {
    use super::{bar, describe};
    use curtsy::{Address, Counts, Phase, Snapshot, State, Straggler};
    use std::time::Duration;

    fn snapshot() -> Snapshot {
        Snapshot {
            phase: Phase::Draining,
            generation: 0,
            draining_for: Duration::from_secs(10),
            deadline_in: Some(Duration::from_secs(20)),
            counts: Counts {
                active: 1,
                idle: 7,
                ..Counts::default()
            },
            stragglers: vec![Straggler {
                id: 1,
                age: Duration::from_secs(12),
                peer: Address::Tcp("127.0.0.1:1".parse().unwrap()),
                listener: "main".into(),
                state: State::Active,
                method: "GET".into(),
                target: "/slow".into(),
                bytes_sent: 0,
            }],
            hooks: 0,
        }
    }

    #[test]
    fn names_what_it_waits_for() {
        let waiting = describe(&snapshot());
        assert_eq!(
            waiting,
            "waiting for 1 active, 7 idle; oldest: GET /slow from 127.0.0.1:1"
        );
        assert!(bar(&snapshot(), &waiting).contains("[███████░░░░░░░░░░░░░] 10.0 of 30 s"));
    }

    #[test]
    fn says_so_when_nothing_is_left() {
        let mut snapshot = snapshot();
        snapshot.counts = Counts::default();
        snapshot.stragglers.clear();
        assert_eq!(describe(&snapshot), "closing");
    }
}
