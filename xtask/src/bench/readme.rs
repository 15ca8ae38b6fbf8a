//! The newest numbers in README.md, between two markers: one line per server, and what is reached.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    chart_name,
    report::Results,
    table::{OURS, Outcome, Table, number},
};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Table, column in it, and its heading in the README.
type Shown = (&'static str, usize, &'static str);

/// The README's tables: what they are of, and their columns.
const GROUPS: [(&str, &[Shown]); 4] = [
    (
        "Requests lost in seven restarts or reloads under 200 busy keep-alive connections, by the pause between an answer \
         and the next request, and connections closed by the server",
        &[
            ("restart", 0, "lost, no pause"),
            ("restart", 3, "2 ms"),
            ("restart", 6, "50 ms"),
            ("restart", 2, "closed"),
        ],
    ),
    (
        "CPU microseconds per request on one core, and bytes of memory per idle connection at 10,000 (medians, and the \
         ratio to ours)",
        &[
            ("requests-64", 0, "64 connections"),
            ("requests-1024", 0, "1,024"),
            ("requests-pipelined", 0, "pipelined"),
            ("requests-new", 0, "new connection"),
            ("requests-post", 0, "1 KiB POST"),
            ("requests-big", 0, "64 KiB response"),
            ("idle", 0, "idle"),
            ("idle", 1, "idle, all at once"),
            ("idle", 2, "idle, after uploads"),
        ],
    ),
    (
        "The same over TLS 1.3, microseconds per handshake and request, and bytes per idle connection",
        &[
            ("tls-handshakes", 0, "handshake"),
            ("tls-requests", 0, "HTTP/1.1"),
            ("tls-requests", 2, "HTTP/2"),
            ("tls-requests", 4, "HTTP/2, 32 streams"),
            ("tls-idle", 0, "idle"),
            ("tls-idle", 1, "idle, HTTP/2"),
        ],
    ),
    (
        "The framework: microseconds per request; `curtsy-bare` is the server without it",
        &[
            ("web-overhead", 0, "a parameter"),
            ("web-json", 0, "a parameter, as JSON"),
            ("web-signup", 0, "JSON read, validated, answered"),
        ],
    ),
];

/// Charts in the README.
const CHARTS: [&str; 2] = ["requests-64", "idle"];

/// Puts `results` between the markers of the README at `root`; says so when there are none.
pub(super) fn update(root: &Path, results: &Results) -> Result<()> {
    let path = root.join("README.md");
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("!!! there is no README.md to put the numbers into");
        return Ok(());
    };
    match between(&text, &section(results)) {
        Some(text) => fs::write(path, text).context("writing README.md"),
        None => {
            eprintln!("!!! README.md has no {BEGIN} .. {END}: the numbers are not in it");
            Ok(())
        }
    }
}

fn between(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

fn section(results: &Results) -> String {
    let there = |id: &str| results.tables.iter().find(|table| table.id == id);
    let mut text = String::new();
    for (of, columns) in GROUPS {
        let columns: Vec<_> = columns
            .iter()
            .filter_map(|(id, column, name)| Some((there(id)?, *column, *name)))
            .collect();
        if !columns.is_empty() {
            text.push_str(&format!("{of}:\n\n{}\n", grid(&columns)));
        }
    }
    for table in CHARTS.into_iter().filter_map(there) {
        let chart = chart_name(&results.date, table);
        text.push_str(&format!(
            "![{}](bench/results/{})\n\n",
            table.title,
            chart.display()
        ));
    }
    let goals: Vec<_> = results
        .tables
        .iter()
        .flat_map(|table| &table.goals)
        .collect();
    let met = goals
        .iter()
        .filter(|goal| goal.outcome == Outcome::Met)
        .count();
    text.push_str(&format!(
        "Measured on {date}; {met} of {all} goals met. Spread, latencies, wake, stop and every goal: \
         [bench/results/{date}.md](bench/results/{date}.md). How: [docs/benchmarks.md](docs/benchmarks.md).\n",
        date = results.date,
        all = goals.len()
    ));
    text
}

/// A line for each server that is in one of these columns.
fn grid(columns: &[(&Table, usize, &str)]) -> String {
    let mut servers: Vec<&str> = Vec::new();
    for row in columns.iter().flat_map(|(table, ..)| &table.rows) {
        if !servers.contains(&row.server.as_str()) {
            servers.push(&row.server);
        }
    }
    // Ours first, whoever was measured first.
    servers.sort_by_key(|server| *server != OURS);
    let headings = columns.iter().map(|(.., name)| format!(" {name} |"));
    let mut text = format!("| |{}\n|---|", headings.collect::<String>());
    text.push_str(&"---:|".repeat(columns.len()));
    text.push('\n');
    for server in servers {
        let cells: String = columns
            .iter()
            .map(|(table, column, _)| {
                let Some(spread) = table.spread(server, *column) else {
                    return " – |".to_owned();
                };
                match table.ratio(server, OURS, *column) {
                    Some(ratio) if server != OURS => {
                        format!(" {} ({}x) |", number(spread.median), number(ratio.median))
                    }
                    _ => format!(" {} |", number(spread.median)),
                }
            })
            .collect();
        let name = if server == OURS {
            format!("**{server}**")
        } else {
            server.to_owned()
        };
        text.push_str(&format!("| {name} |{cells}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::table::{Better, Column},
        *,
    };

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = between(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(between(&new, "new\n").unwrap(), new);
        assert!(between("no markers", "new").is_none());
    }

    #[test]
    fn the_section_has_a_line_per_server() {
        let column = Column::new("CPU", "us", Better::Lower, true);
        let mut table = Table::new("requests-64", "R", String::new(), vec![column]);
        table.push(OURS, 0, &[Some(5.0)]);
        table.push("x", 0, &[Some(10.0)]);
        table.goal_at_most(0, 6.0, "g");
        let results = Results {
            date: "2026-01-31".to_owned(),
            machine: vec![],
            tables: vec![table],
        };
        let text = section(&results);
        assert!(
            text.contains("| **curtsy** | 5.00 |\n| x | 10.0 (2.00x) |"),
            "{text}"
        );
        assert!(!text.contains("TLS"), "nothing was measured of it: {text}");
        assert!(text.contains("1 of 1 goals met"), "{text}");
        assert!(
            text.contains("(bench/results/2026-01-31-requests-64.svg)"),
            "{text}"
        );
    }
}
