//! How `top` looks: on 80 columns and 24 lines everything, on less what fits.

use super::model::{Look, Model, Prompt};
use crate::steer::{age, bytes, clean, count, share};
use curtsy::control::{Connections, DrainStatus, Latency, Status, StragglerStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, RenderDirection, Row, Sparkline, Table};

/// Below it there is no use in trying.
const LEAST: (u16, u16) = (40, 10);

/// A row of the connections' panel: name, color, which number.
type State = (&'static str, Color, fn(&Connections) -> usize);

const STATES: [State; 6] = [
    ("active", Color::Green, |c| c.active),
    ("upgraded", Color::Cyan, |c| c.upgraded),
    ("idle", Color::Blue, |c| c.idle),
    ("new", Color::Yellow, |c| c.new),
    ("handshake", Color::Magenta, |c| c.handshake),
    ("parked", Color::DarkGray, |c| c.parked),
];

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (width, height) = LEAST;
        let text = format!("a terminal of {width}x{height} at least, please");
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [head, panels, progress, under_way, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(8),
        Constraint::Length(3),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(heading(model), head);
    if model.status.kind == "supervisor" {
        processes(frame, &model.status, panels);
    } else {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)])
                .areas(panels);
        connections(frame, model, left);
        requests(frame, model, right);
    }
    progressing(frame, model, progress);
    stragglers(frame, &model.status, under_way);
    frame.render_widget(footing(model), foot);
}

fn heading(model: &Model) -> Paragraph<'_> {
    let status = &model.status;
    let (phase, color) = match (&model.lost, status.phase.as_str()) {
        (Some(_), _) => ("GONE".to_owned(), Color::Red),
        (None, "serving") => ("SERVING".to_owned(), Color::Green),
        (None, "stopped") => ("STOPPED".to_owned(), Color::Red),
        (None, other) => (other.to_uppercase(), Color::Yellow),
    };
    let style = Style::new().fg(color).add_modifier(Modifier::BOLD);
    let first = Line::from(vec![
        Span::styled(format!(" {phase} "), style.add_modifier(Modifier::REVERSED)),
        Span::raw(format!(
            " {} pid {} · generation {} · up {}",
            status.kind,
            status.pid,
            generations(status),
            age(status.up_ms)
        )),
    ]);
    let listeners: Vec<String> = status
        .listeners
        .iter()
        .map(|listener| {
            let mode = listener.mode.as_deref().unwrap_or_default();
            format!(" {} {} {mode}", listener.name, listener.address)
        })
        .collect();
    Paragraph::new(vec![first, Line::raw(listeners.join(" ·"))])
}

/// This one, and the one that comes or has come after it.
fn generations(status: &Status) -> String {
    let own = status.generation;
    let Some(next) = status.restart.as_ref() else {
        return own.to_string();
    };
    let pid = next
        .pid
        .map_or(String::new(), |pid| format!(" (pid {pid})"));
    let step = match next.step.as_str() {
        "begun" | "started" => "starting",
        "ready" => "on trial",
        step => step,
    };
    format!("{own} → {} {step}{pid}", next.generation)
}

fn connections(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let open = model.status.connections.unwrap_or_default();
    let title = format!(" Connections: {} open ", open.total);
    let block = Block::bordered().title(title);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let rows = Layout::vertical([Constraint::Length(1); STATES.len()]).split(inside);
    for ((name, color, of), row) in STATES.iter().zip(rows.iter()) {
        let [label, line] =
            Layout::horizontal([Constraint::Length(20), Constraint::Min(0)]).areas(*row);
        let text = format!(" {name:<9} {:>8} ", of(&open));
        frame.render_widget(Paragraph::new(text), label);
        let number = |look: &Look| of(&look.connections) as u64;
        spark(frame, model, line, *color, number);
    }
}

/// What was, the newest at the right.
fn spark(
    frame: &mut Frame<'_>,
    model: &Model,
    area: Rect,
    color: Color,
    of: impl Fn(&Look) -> u64,
) {
    let seen: Vec<u64> = model.history.iter().map(&of).collect();
    let line = Sparkline::default()
        .data(seen)
        .max(model.most(of))
        .direction(RenderDirection::RightToLeft)
        .style(Style::new().fg(color));
    frame.render_widget(line, area);
}

fn requests(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let block = Block::bordered().title(" Requests ");
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let Some(requests) = &model.status.requests else {
        let text = " not measured by this server";
        frame.render_widget(Paragraph::new(text).style(Style::new().dim()), inside);
        return;
    };
    let [total, line, latencies] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(inside);
    let rate = match requests.per_second {
        Some(rate) => format!(" {rate:.1}/s, {} in all", count(requests.total)),
        None => format!(" {} in all", count(requests.total)),
    };
    frame.render_widget(Paragraph::new(rate), total);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate, as high as a bar"
    )]
    let rate = |look: &Look| look.per_second.unwrap_or_default() as u64;
    spark(frame, model, line, Color::Green, rate);
    if let Some(latency) = &requests.latency_ms {
        frame.render_widget(Paragraph::new(quantiles(latency)), latencies);
    }
}

fn quantiles(latency: &Latency) -> Vec<Line<'static>> {
    [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p999),
    ]
    .map(|(name, ms)| Line::raw(format!(" {name:<6} {ms:>10.2} ms")))
    .to_vec()
}

fn processes(frame: &mut Frame<'_>, status: &Status, area: Rect) {
    let rows = status.processes.iter().map(|process| {
        let pid = process.pid.map_or("-".to_owned(), |pid| pid.to_string());
        Row::new([
            process.generation.to_string(),
            pid,
            process.state.clone(),
            age(process.age_ms),
        ])
    });
    let widths = [10, 10, 10, 14].map(Constraint::Length);
    let head = Row::new(["GENERATION", "PID", "STATE", "FOR"]).style(Style::new().bold());
    let title = format!(" Processes: {} ", status.processes.len());
    let table = Table::new(rows, widths)
        .header(head)
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

/// The drain against its deadline; without one, what happened last.
fn progressing(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    if let (Some(drain), None) = (&model.status.drain, &model.lost) {
        let open = model.status.connections.map_or(0, |open| open.total);
        let (ratio, label) = deadline(drain, open);
        let gauge = Gauge::default()
            .block(Block::bordered().title(" Drain "))
            .gauge_style(Style::new().fg(Color::Yellow))
            .ratio(ratio)
            .label(label);
        frame.render_widget(gauge, area);
        return;
    }
    let failed = model.status.restart_failed.as_ref().map(|failed| {
        let ago = age(failed.ago_ms);
        format!("the last reload failed {ago} ago: {}", failed.text)
    });
    let note = || {
        model
            .notes
            .front()
            .or(failed.as_ref())
            .map_or("", String::as_str)
    };
    let last = model.lost.as_deref().unwrap_or_else(note);
    let last = last.lines().next().unwrap_or_default();
    let block = Block::bordered().title(" Last ");
    frame.render_widget(
        Paragraph::new(format!(" {}", clean(last))).block(block),
        area,
    );
}

/// How much of the time is gone, and what that means.
fn deadline(drain: &DrainStatus, open: usize) -> (f64, String) {
    let left = match drain.open_at_start {
        Some(start) => format!("{open} of {start} open"),
        None => format!("{open} open"),
    };
    match (drain.lame_duck_in_ms, drain.deadline_in_ms) {
        (Some(until), _) => {
            let whole = drain.for_ms.saturating_add(until);
            let text = format!("lame duck, draining in {} · {left}", age(until));
            (share(until, whole), text)
        }
        (None, Some(until)) => {
            let whole = drain.deadline_ms.unwrap_or(until);
            let text = format!("cut in {} · {left}", age(until));
            (share(until, whole), text)
        }
        (None, None) => (0.0, left),
    }
}

fn stragglers(frame: &mut Frame<'_>, status: &Status, area: Rect) {
    let head = Row::new(["AGE", "NUMBER", "STATE", "PEER", "REQUEST", "SENT"]);
    let widths = [
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(21),
        Constraint::Min(10),
        Constraint::Length(7),
    ];
    let title = format!(" Under way: {} ", status.stragglers_total);
    let table = Table::new(status.stragglers.iter().map(straggler), widths)
        .header(head.style(Style::new().bold()))
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn straggler(straggler: &StragglerStatus) -> Row<'_> {
    let request = match straggler.method.as_str() {
        "" => "(head incomplete)".to_owned(),
        method => clean(&format!("{method} {}", straggler.target)),
    };
    Row::new([
        age(straggler.age_ms),
        straggler.connection.to_string(),
        straggler.state.clone(),
        straggler.peer.clone(),
        request,
        bytes(straggler.bytes_sent),
    ])
}

fn footing(model: &Model) -> Paragraph<'_> {
    let asks = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);
    match &model.prompt {
        Prompt::Nothing => {
            let keys = match &model.lost {
                Some(_) => " looking for whoever serves now · q quit",
                None => " r reload · s switch · d drain · u undrain · q quit",
            };
            Paragraph::new(keys).style(Style::new().add_modifier(Modifier::REVERSED))
        }
        Prompt::Switch(at) => {
            let listener = model.status.listeners.get(*at);
            let name = listener.map_or("", |listener| listener.name.as_str());
            let text =
                format!(" switch ◂ {name} ▸ to: p plain · t tls · b both · any other key: no");
            Paragraph::new(text).style(asks)
        }
        Prompt::Really(order) => Paragraph::new(format!(" {order}? y/n")).style(asks),
    }
}

#[cfg(test)]
mod tests {
    use super::draw;
    use crate::top::model::{Key, Model, Told};
    use curtsy::control::{
        Connections, DrainStatus, Latency, ListenerStatus, ProcessStatus, Requests, RestartFailed,
        RestartStatus, Status, StragglerStatus,
    };
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    fn status(active: usize) -> Status {
        let mut status = Status::default();
        status.kind = "server".to_owned();
        status.phase = "serving".to_owned();
        (status.pid, status.generation, status.up_ms) = (4711, 2, 11_520_000);
        status.listeners.push(ListenerStatus {
            name: "main".to_owned(),
            address: "127.0.0.1:9000".to_owned(),
            mode: Some("plain".to_owned()),
        });
        status.connections = Some(Connections {
            active,
            idle: 7,
            parked: 6,
            total: active + 7,
            ..Connections::default()
        });
        status
    }

    fn has(screen: &str, parts: &[&str]) {
        for part in parts {
            assert!(screen.contains(part), "no {part:?} in\n{screen}");
        }
    }

    #[test]
    fn a_serving_server_on_80_by_24() {
        let mut model = Model::new(status(0));
        for active in [1, 2, 4, 8] {
            let mut next = status(active);
            next.requests = Some(Requests {
                total: 1_234_567,
                per_second: Some(100.0 * active as f64),
                latency_ms: Some(Latency {
                    p50: 0.4,
                    p90: 0.6,
                    p99: 2.25,
                    p999: 9.5,
                }),
                ..Requests::default()
            });
            next.stragglers_total = 8;
            next.stragglers.push(StragglerStatus {
                connection: 17,
                age_ms: 12_300,
                peer: "127.0.0.1:40126".to_owned(),
                state: "active".to_owned(),
                method: "GET".to_owned(),
                target: "/slow\u{1b}[2J".to_owned(),
                bytes_sent: 1_500,
                ..StragglerStatus::default()
            });
            model.hear(Told::Status(Box::new(next)));
        }
        let screen = screen(&model, 80, 24);
        has(
            &screen,
            &[
                " SERVING  server pid 4711 · generation 2 · up 3 h 12 min",
                "main 127.0.0.1:9000 plain",
                "Connections: 15 open",
                "active           8 ",
                // The last five looks, in eighths of the most.
                " ▁▂▄█",
                "800.0/s, 1.2 M in all",
                "p99          2.25 ms",
                "p99.9        9.50 ms",
                "Under way: 8",
                "12.3 s       17       active   127.0.0.1:40126       GET /slow\u{fffd}[2J",
                "1.5 kB",
                "r reload · s switch · d drain · u undrain · q quit",
            ],
        );
        assert!(!screen.contains('\u{1b}'));
    }

    #[test]
    fn a_drain_moves_towards_its_deadline() {
        let mut draining = status(1);
        draining.phase = "draining".to_owned();
        draining.restart = Some(RestartStatus {
            step: "serves".to_owned(),
            generation: 3,
            pid: Some(4712),
        });
        let mut drain = DrainStatus {
            deadline_in_ms: Some(15_000),
            deadline_ms: Some(30_000),
            open_at_start: Some(20),
            ..DrainStatus::default()
        };
        draining.drain = Some(drain);
        let half = screen(&Model::new(draining.clone()), 80, 24);
        has(
            &half,
            &[
                " DRAINING ",
                "generation 2 → 3 serves (pid 4712)",
                "cut in 15.0 s · 8 of 20 open",
            ],
        );
        drain.deadline_in_ms = Some(3_000);
        draining.drain = Some(drain);
        let nearly = screen(&Model::new(draining), 80, 24);
        let full = |screen: &str| screen.matches('█').count();
        assert!(full(&nearly) > full(&half), "{half}\n{nearly}");
    }

    #[test]
    fn a_supervisor_shows_its_generations() {
        let mut supervising = Status::default();
        supervising.kind = "supervisor".to_owned();
        supervising.phase = "reloading".to_owned();
        for (generation, state) in [(0, "ready"), (1, "starting")] {
            supervising.processes.push(ProcessStatus {
                pid: Some(100),
                generation,
                state: state.to_owned(),
                age_ms: 500,
            });
        }
        let screen = screen(&Model::new(supervising), 80, 24);
        has(
            &screen,
            &[
                "RELOADING",
                "Processes: 2",
                "1          100        starting   0.5 s",
            ],
        );
        assert!(!screen.contains("Connections"), "{screen}");
    }

    #[test]
    fn it_asks_at_the_foot_and_says_what_became_of_the_server() {
        let mut model = Model::new(status(1));
        model.press(Key::Letter('s'));
        has(
            &screen(&model, 80, 24),
            &["switch ◂ main ▸ to: p plain · t tls · b both"],
        );
        model.press(Key::Letter('t'));
        has(&screen(&model, 80, 24), &["switch main to tls? y/n"]);
        model.press(Key::Letter('y'));
        let refused = Err("there is no certificate".to_owned());
        model.hear(Told::Obeyed("switch main to tls".to_owned(), refused));
        has(
            &screen(&model, 80, 24),
            &["switch main to tls: there is no certificate"],
        );
        let mut failed = status(1);
        failed.restart_failed = Some(RestartFailed {
            ago_ms: 5_000,
            text: "no such program".to_owned(),
        });
        has(
            &screen(&Model::new(failed), 80, 24),
            &["the last reload failed 5.0 s ago: no such program"],
        );
        model.hear(Told::Lost("drained in 0.1 s".to_owned()));
        has(
            &screen(&model, 80, 24),
            &[" GONE ", "drained in 0.1 s", "looking for whoever"],
        );
        has(
            &screen(&Model::new(status(1)), 80, 24),
            &["not measured by this server"],
        );
    }

    #[test]
    fn every_size_is_drawn() {
        let mut model = Model::new(status(3));
        model.press(Key::Letter('d'));
        for (width, height) in [(1, 1), (39, 24), (40, 10), (60, 15), (80, 24), (300, 100)] {
            let drawn = screen(&model, width, height);
            assert_eq!(
                drawn.contains("drain? y/n"),
                width >= 40 && height >= 10,
                "{drawn}"
            );
        }
    }
}
