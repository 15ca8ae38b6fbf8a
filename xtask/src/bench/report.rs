//! The results of a day: `<date>.json` with every sample, `<date>.md` to read, and a chart per table.
//!
//! A later run of the same day replaces the tables that it measured and leaves the others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    chart, chart_name, clock,
    table::{OURS, Row, Table, number},
};

/// All of a day.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) date: String,
    /// Where it was measured, a line each.
    pub(super) machine: Vec<String>,
    pub(super) tables: Vec<Table>,
}

/// The tables in the order of the report.
const ORDER: [&str; 13] = [
    "requests-64",
    "requests-1024",
    "requests-pipelined",
    "requests-new",
    "requests-post",
    "requests-big",
    "tracking",
    "idle",
    "silent",
    "wake",
    "stop",
    "stop-idle",
    "drain",
];

/// Writes `tables` into the results of today in `directory`. What was not measured today stays as it was measured last;
/// each table says when that was.
pub(super) fn write(directory: &Path, tables: Vec<Table>, load_before: &str) -> Result<Results> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let date = clock::today();
    let json = directory.join(format!("{date}.json"));
    let earlier = match newest(directory)? {
        Some(path) => {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_slice::<Results>(&bytes)
                .with_context(|| format!("reading {}", path.display()))?
                .tables
        }
        None => Vec::new(),
    };
    let mut results = Results {
        date,
        machine: machine(load_before),
        tables: merge(earlier, tables),
    };
    results.tables.sort_by_key(|table| {
        ORDER
            .iter()
            .position(|id| *id == table.id)
            .unwrap_or(ORDER.len())
    });
    fs::write(&json, serde_json::to_string_pretty(&results)? + "\n")
        .context("writing the results")?;
    fs::write(
        directory.join(format!("{}.md", results.date)),
        page(&results),
    )
    .context("writing the page")?;
    for table in &results.tables {
        fs::write(
            directory.join(chart_name(&results.date, table)),
            chart::svg(table),
        )
        .context("writing a chart")?;
    }
    Ok(results)
}

/// The newest day's results; a date is its file's name, and the later name is the later date.
fn newest(directory: &Path) -> Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(directory).context("looking for earlier results")? {
        let path = entry.context("looking for earlier results")?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            newest = newest.max(Some(path));
        }
    }
    Ok(newest)
}

fn merge(earlier: Vec<Table>, newer: Vec<Table>) -> Vec<Table> {
    let kept = earlier
        .into_iter()
        .filter(|table| !newer.iter().any(|new| new.id == table.id));
    kept.collect::<Vec<_>>().into_iter().chain(newer).collect()
}

fn page(results: &Results) -> String {
    let mut page = format!("# Measured on {}\n\n", results.date);
    for line in &results.machine {
        page.push_str(&format!("- {line}\n"));
    }
    page.push_str(
        "\nEvery cell is the median of its rounds, with the least and the greatest, and the ratio to ours (the median \
         of the ratios within a round). How it is measured is told in [docs/benchmarks.md](../../docs/benchmarks.md); \
         the JSON beside this page has every sample.\n",
    );
    for table in &results.tables {
        page.push('\n');
        page.push_str(&markdown(
            table,
            Some(&chart_name(&results.date, table).display().to_string()),
        ));
    }
    page
}

/// A table as Markdown, with its chart if there is one.
pub(super) fn markdown(table: &Table, chart: Option<&str>) -> String {
    let mut text = format!(
        "## {}\n\n{} ({})\n\n",
        table.title, table.how, table.measured_at
    );
    if let Some(chart) = chart {
        text.push_str(&format!("![{}]({chart})\n\n", table.title));
    }
    let headings = table
        .columns
        .iter()
        .map(|column| format!(" {}, {} |", column.name, column.unit));
    text.push_str(&format!("| server |{}\n", headings.collect::<String>()));
    text.push_str(&format!("|---|{}\n", "---:|".repeat(table.columns.len())));
    for row in &table.rows {
        let name = if row.server == OURS {
            format!("**{}**", row.server)
        } else {
            row.server.clone()
        };
        let cells =
            (0..table.columns.len()).map(|column| format!(" {} |", cell(table, row, column)));
        text.push_str(&format!("| {name} |{}\n", cells.collect::<String>()));
    }
    if !table.goals.is_empty() {
        text.push_str("\n| to reach | | measured |\n|---|---|---|\n");
        for goal in &table.goals {
            text.push_str(&format!(
                "| {} | {} | {} |\n",
                goal.text,
                goal.outcome.words(),
                goal.detail
            ));
        }
    }
    if !table.notes.is_empty() {
        text.push('\n');
        for note in &table.notes {
            text.push_str(&format!("- {note}\n"));
        }
    }
    text
}

fn cell(table: &Table, row: &Row, column: usize) -> String {
    let Some(spread) = table.spread(&row.server, column) else {
        return "–".to_owned();
    };
    let ends = format!(
        "{} ({}..{})",
        number(spread.median),
        number(spread.least),
        number(spread.greatest)
    );
    match table.ratio(&row.server, OURS, column) {
        Some(ratio) if row.server != OURS => format!("{ends} {}x", number(ratio.median)),
        _ => ends,
    }
}

/// What a reader has to know of the machine to weigh the numbers.
fn machine(load_before: &str) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let mut lines = vec![
        format!(
            "{cores} cores, {}",
            model.map_or("of unknown make", |(_, model)| model)
        ),
        format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        format!(
            "load average {load_before} before, {} after",
            load_average()
        ),
        "every Rust server: release, fat LTO, one codegen unit, mimalloc".to_owned(),
    ];
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let programs = [
        (rustc, "--version"),
        ("go".into(), "version"),
        ("nginx".into(), "-v"),
        ("wrk".into(), "-v"),
    ];
    for (program, flag) in programs {
        if let Ok(output) = Command::new(program).arg(flag).output() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            lines.extend(
                said.lines()
                    .next()
                    .map(|line| line.split(" Copyright").next().unwrap_or(line).to_owned()),
            );
        }
    }
    lines
}

/// The kernel's one, five and fifteen minutes.
pub(super) fn load_average() -> String {
    let average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    average
        .split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::{
        super::table::{Better, Column},
        *,
    };

    fn table(id: &str, sample: f64) -> Table {
        let mut table = Table::new(
            id,
            "T",
            "How.".to_owned(),
            vec![Column::new("cpu", "us", Better::Lower, true)],
        );
        table.push(OURS, 0, &[Some(sample)]);
        table.push("x", 0, &[Some(sample * 2.0)]);
        table.goal_at_most(0, 1.0, "at most one");
        table
    }

    #[test]
    fn a_later_run_replaces_what_it_measured() {
        let merged = merge(
            vec![table("idle", 1.0), table("wake", 1.0)],
            vec![table("wake", 3.0)],
        );
        let seen: Vec<_> = merged
            .iter()
            .map(|table| (table.id.as_str(), table.spread(OURS, 0).unwrap().median))
            .collect();
        assert_eq!(seen, [("idle", 1.0), ("wake", 3.0)]);
    }

    #[test]
    fn a_new_day_begins_with_the_results_of_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |date: &str| directory.path().join(format!("{date}.json"));
        assert_eq!(newest(directory.path()).unwrap(), None);
        for (date, sample) in [("2025-12-31", 1.0), ("2026-01-01", 2.0)] {
            let results = Results {
                date: date.to_owned(),
                machine: vec![],
                tables: vec![table("wake", sample)],
            };
            fs::write(path(date), serde_json::to_string(&results).unwrap()).unwrap();
            assert_eq!(newest(directory.path()).unwrap(), Some(path(date)));
        }
        let written = write(directory.path(), vec![table("idle", 3.0)], "").unwrap();
        let seen: Vec<_> = written
            .tables
            .iter()
            .map(|table| (table.id.as_str(), table.spread(OURS, 0).unwrap().median))
            .collect();
        assert_eq!(seen, [("idle", 3.0), ("wake", 2.0)]);
    }

    #[test]
    fn a_page_says_medians_ratios_and_goals() {
        let text = markdown(&table("wake", 2.0), Some("w.svg"));
        assert!(
            text.contains("| **curtsy** | 2.00 (2.00..2.00) |"),
            "{text}"
        );
        assert!(text.contains("| x | 4.00 (4.00..4.00) 2.00x |"), "{text}");
        assert!(
            text.contains("| at most one | **not met** | 2.00 us |"),
            "{text}"
        );
        assert!(text.contains("![T](w.svg)"), "{text}");
    }

    #[test]
    fn results_survive_being_written() {
        let results = Results {
            date: "d".to_owned(),
            machine: vec![],
            tables: vec![table("wake", 1.5)],
        };
        let read: Results =
            serde_json::from_str(&serde_json::to_string(&results).unwrap()).unwrap();
        assert_eq!(read.tables[0].spread("x", 0).unwrap().median, 3.0);
    }
}
