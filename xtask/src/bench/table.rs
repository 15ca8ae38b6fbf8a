//! What was measured: tables of samples, one per round, and the goals they are held against.
//!
//! A sample is kept per round, not only its median, because servers are compared within a round: what the machine did
//! to one it did to the other. A server that failed in a round has no sample there, which is not the same as zero.

use serde::{Deserialize, Serialize};

/// The server that everything is compared to.
pub(super) const OURS: &str = "curtsy";

/// The server that does nothing but sockets and parsing; it takes no part in being first.
pub(super) const FLOOR: &str = "floor";

/// Medians of ratios this near to one are a tie: less than what two runs of the same server differ by.
pub(super) const TIE: f64 = 1.03;

/// Latencies that differ by less are a tie, in microseconds: the client looks at its sockets no more often.
const RESOLUTION_US: f64 = 1.0;

/// Of so many rounds one may go the other way before a latency is not behind any more. The tail of a few seconds is
/// some samples; between two runs of the same server its median differs by more than a tie.
const ROUNDS_PER_EXCEPTION: usize = 5;

/// One table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) id: String,
    pub(super) title: String,
    /// How it was measured, in one paragraph.
    pub(super) how: String,
    pub(super) measured_at: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    pub(super) goals: Vec<Goal>,
    /// What is missing or went wrong, and why.
    pub(super) notes: Vec<String>,
}

/// One measure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) better: Better,
    /// Whether the table's chart shows it.
    pub(super) charted: bool,
    /// Whether it is a latency, which is behind another only if it is in nearly every round.
    #[serde(default)]
    pub(super) latency: bool,
}

/// Which way is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Better {
    Lower,
    Higher,
}

/// One server; its samples by column, then by round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) server: String,
    pub(super) samples: Vec<Vec<Option<f64>>>,
}

/// What a table has to show.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Goal {
    pub(super) text: String,
    pub(super) outcome: Outcome,
    /// The number that decided.
    pub(super) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Met,
    NotMet,
    /// A server that it speaks of was not there.
    NotMeasured,
}

impl Outcome {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "**not met**",
            Self::NotMeasured => "not measured",
        }
    }

    fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }
}

impl Column {
    pub(super) fn new(name: &str, unit: &str, better: Better, charted: bool) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
            charted,
            latency: false,
        }
    }

    /// Microseconds of latency; not in the chart.
    pub(super) fn latency(name: &str) -> Self {
        Self {
            latency: true,
            ..Self::new(name, "us", Better::Lower, false)
        }
    }
}

/// Median, least and greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) greatest: f64,
}

impl Spread {
    /// None without a sample.
    pub(super) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &greatest) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            least,
            greatest,
        })
    }
}

impl Table {
    pub(super) fn new(id: &str, title: &str, how: String, columns: Vec<Column>) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            how,
            measured_at: super::clock::now(),
            columns,
            rows: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds one round of one server: a sample for every column. Rounds before it that it missed stay empty.
    pub(super) fn push(&mut self, server: &str, round: usize, samples: &[Option<f64>]) {
        assert_eq!(
            samples.len(),
            self.columns.len(),
            "a sample for every column"
        );
        let row = match self.rows.iter_mut().find(|row| row.server == server) {
            Some(row) => row,
            None => {
                self.rows.push(Row {
                    server: server.to_owned(),
                    samples: vec![Vec::new(); samples.len()],
                });
                let last = self.rows.len() - 1;
                &mut self.rows[last]
            }
        };
        for (column, sample) in row.samples.iter_mut().zip(samples) {
            column.resize(round, None);
            column.push(*sample);
        }
    }

    fn samples(&self, server: &str, column: usize) -> Option<&[Option<f64>]> {
        let row = self.rows.iter().find(|row| row.server == server)?;
        row.samples.get(column).map(Vec::as_slice)
    }

    /// Spread of one server in one column.
    pub(super) fn spread(&self, server: &str, column: usize) -> Option<Spread> {
        Spread::of(self.samples(server, column)?.iter().flatten().copied())
    }

    /// Spread of the ratios of `server` to `to`, round by round.
    pub(super) fn ratio(&self, server: &str, to: &str, column: usize) -> Option<Spread> {
        Spread::of(self.ratios(server, to, column)?)
    }

    /// The ratio of every round that has a sample of both.
    fn ratios(&self, server: &str, to: &str, column: usize) -> Option<Vec<f64>> {
        let (left, right) = (self.samples(server, column)?, self.samples(to, column)?);
        let pairs = left
            .iter()
            .zip(right)
            .filter_map(|(left, right)| Some(((*left)?, (*right)?)));
        // A difference may be zero or less; its ratio would mean nothing.
        let meaningful = pairs.filter(|(left, right)| *left > 0.0 && *right > 0.0);
        Some(meaningful.map(|(left, right)| left / right).collect())
    }

    /// Spread of by how much `server` is more than `than`, round by round.
    fn more(&self, server: &str, than: &str, column: usize) -> Option<Spread> {
        let (left, right) = (self.samples(server, column)?, self.samples(than, column)?);
        let pairs = left.iter().zip(right);
        Spread::of(pairs.filter_map(|(left, right)| Some((*left)? - (*right)?)))
    }

    /// Ours is at most `limit` of the column's unit.
    pub(super) fn goal_at_most(&mut self, column: usize, limit: f64, text: &str) {
        let unit = self.columns[column].unit.clone();
        let goal = match self.spread(OURS, column) {
            Some(spread) => goal(
                text,
                Outcome::of(spread.median <= limit),
                format!("{} {unit}", number(spread.median)),
            ),
            None => goal(text, Outcome::NotMeasured, String::new()),
        };
        self.goals.push(goal);
    }

    /// Ours is zero in every column and every one of `rounds`; a missing round is not a zero.
    pub(super) fn goal_never(&mut self, rounds: usize, text: &str) {
        let columns: Option<Vec<_>> = (0..self.columns.len())
            .map(|column| self.samples(OURS, column))
            .collect();
        let goal = match columns {
            Some(columns) => {
                let zeros = columns.iter().all(|samples| {
                    samples.len() == rounds && samples.iter().all(|sample| *sample == Some(0.0))
                });
                let sum: f64 = columns
                    .iter()
                    .flat_map(|samples| samples.iter().flatten())
                    .sum();
                goal(text, Outcome::of(zeros), format!("{} in all", number(sum)))
            }
            None => goal(text, Outcome::NotMeasured, String::new()),
        };
        self.goals.push(goal);
    }

    /// Ours is at most `limit` times `to`.
    pub(super) fn goal_ratio(&mut self, column: usize, to: &str, limit: f64, text: &str) {
        let goal = match self.ratio(OURS, to, column) {
            Some(ratio) => goal(
                text,
                Outcome::of(ratio.median <= limit),
                format!("{:.3}x", ratio.median),
            ),
            None => goal(text, Outcome::NotMeasured, String::new()),
        };
        self.goals.push(goal);
    }

    /// Ours is at most `limit` more than `to`, in the median of the rounds' differences.
    pub(super) fn goal_difference(&mut self, column: usize, to: &str, limit: f64, text: &str) {
        let goal = match self.more(OURS, to, column) {
            Some(more) => {
                let unit = &self.columns[column].unit;
                let detail = format!(
                    "{:+.3} {unit}, from {:+.3} to {:+.3}",
                    more.median, more.least, more.greatest
                );
                goal(text, Outcome::of(more.median <= limit), detail)
            }
            None => goal(text, Outcome::NotMeasured, String::new()),
        };
        self.goals.push(goal);
    }

    /// Ours is below every one of `others` that was measured.
    pub(super) fn goal_below(&mut self, column: usize, others: &[&str], text: &str) {
        let ratios = others
            .iter()
            .filter_map(|other| Some((*other, self.ratio(OURS, other, column)?.median)));
        let worst = ratios.max_by(|left, right| left.1.total_cmp(&right.1));
        let goal = match worst {
            Some((other, ratio)) => goal(
                text,
                Outcome::of(ratio < 1.0),
                format!("{ratio:.3}x {other}, the nearest"),
            ),
            None => goal(text, Outcome::NotMeasured, String::new()),
        };
        self.goals.push(goal);
    }

    /// Ours is first, or tied for it, in every column; the floor takes no part. Another is ahead only by more than the
    /// rounds leave in doubt, and in a latency only if it is so in nearly every round.
    pub(super) fn goal_first(&mut self, text: &str) {
        let others: Vec<&str> = self.rows.iter().map(|row| row.server.as_str()).collect();
        let others: Vec<&str> = others
            .into_iter()
            .filter(|&server| server != OURS && server != FLOOR)
            .collect();
        let (mut behind, mut compared) = (Vec::new(), 0);
        for (index, column) in self.columns.iter().enumerate() {
            for other in &others {
                let Some(mut worse) = self.ratios(OURS, other, index) else {
                    continue;
                };
                if column.better == Better::Higher {
                    worse.iter_mut().for_each(|ratio| *ratio = ratio.recip());
                }
                let Some(spread) = Spread::of(worse.iter().copied()) else {
                    continue;
                };
                compared += 1;
                let more = self.more(OURS, other, index);
                let is_seen = more.is_some_and(|more| more.median >= RESOLUTION_US);
                let is_certain = match column.latency {
                    true => is_seen && nearly_always(&worse),
                    false => spread.median.ln() > standard_error(&worse),
                };
                if spread.median <= TIE || !is_certain {
                    continue;
                }
                behind.push(format!(
                    "{} behind {other} by {:.1}%",
                    column.name,
                    (spread.median - 1.0) * 100.0
                ));
            }
        }
        let goal = match compared {
            0 => goal(text, Outcome::NotMeasured, String::new()),
            _ if behind.is_empty() => goal(text, Outcome::Met, format!("{compared} comparisons")),
            _ => goal(text, Outcome::NotMet, behind.join("; ")),
        };
        self.goals.push(goal);
    }
}

/// Whether ours is worse in every round but the exceptions.
fn nearly_always(worse: &[f64]) -> bool {
    let exceptions = worse.iter().filter(|ratio| **ratio <= 1.0).count();
    exceptions <= worse.len() / ROUNDS_PER_EXCEPTION
}

/// How far the median of ratios like these may be off, as a logarithm; 0 if there is no telling.
fn standard_error(ratios: &[f64]) -> f64 {
    /// A median is off by so much more than a mean, where noise is normal.
    const OF_MEDIAN: f64 = 1.253;
    if ratios.len() < 2 {
        return 0.0;
    }
    let count = ratios.len() as f64;
    let logs = || ratios.iter().map(|ratio| ratio.ln());
    let mean = logs().sum::<f64>() / count;
    let squares = logs().map(|log| (log - mean).powi(2)).sum::<f64>();
    OF_MEDIAN * (squares / (count - 1.0) / count).sqrt()
}

fn goal(text: &str, outcome: Outcome, detail: String) -> Goal {
    Goal {
        text: text.to_owned(),
        outcome,
        detail,
    }
}

/// A number with three significant digits, or all of them before the point, in groups of three.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain
        .split_once('.')
        .map_or((plain.as_str(), None), |(whole, part)| (whole, Some(part)));
    let (sign, whole) = whole
        .strip_prefix('-')
        .map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or_else(
        || format!("{sign}{grouped}"),
        |fraction| format!("{sign}{grouped}.{fraction}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &[f64])]) -> Table {
        let columns = vec![
            Column::new("cpu", "us", Better::Lower, true),
            Column::new("rate", "1/s", Better::Higher, false),
        ];
        let mut table = Table::new("t", "T", String::new(), columns);
        for (server, samples) in rows {
            for (round, sample) in samples.iter().enumerate() {
                table.push(server, round, &[Some(*sample), Some(1000.0 / sample)]);
            }
        }
        table
    }

    fn last(table: &Table) -> Outcome {
        table.goals.last().unwrap().outcome
    }

    #[test]
    fn a_spread_is_median_and_ends() {
        let of = |samples: &[f64]| Spread::of(samples.iter().copied());
        assert_eq!(
            of(&[3.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                least: 1.0,
                greatest: 3.0
            })
        );
        assert_eq!(of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as slow in the second round, for both.
        let mut table = table(&[(OURS, &[5.0, 10.0]), ("x", &[10.0, 20.0])]);
        let ratio = table.ratio("x", OURS, 0).unwrap();
        assert_eq!((ratio.least, ratio.greatest), (2.0, 2.0));
        table.push("x", 2, &[Some(1.0), None]);
        table.push(OURS, 3, &[Some(1.0), None]);
        table.push("x", 3, &[Some(2.0), None]);
        let ratio = table.ratio("x", OURS, 0).unwrap();
        assert_eq!(
            (ratio.least, ratio.greatest),
            (2.0, 2.0),
            "a missed round is not another's"
        );
    }

    #[test]
    fn goals_are_met_or_not() {
        let mut table = table(&[(OURS, &[5.0]), (FLOOR, &[4.0]), ("x", &[5.1])]);
        table.goal_at_most(0, 5.0, "");
        assert_eq!(last(&table), Outcome::Met);
        table.goal_at_most(0, 4.9, "");
        assert_eq!(last(&table), Outcome::NotMet);
        table.goal_ratio(0, FLOOR, 1.25, "");
        assert_eq!(last(&table), Outcome::Met);
        table.goal_ratio(0, FLOOR, 1.2, "");
        assert_eq!(last(&table), Outcome::NotMet);
        table.goal_below(0, &["x", "absent"], "");
        assert_eq!(last(&table), Outcome::Met);
        table.goal_below(0, &["x", FLOOR], "");
        assert_eq!(last(&table), Outcome::NotMet);
    }

    #[test]
    fn a_difference_is_taken_within_a_round() {
        // The machine was twice as slow in the second round, for both.
        let mut table = table(&[(OURS, &[5.2, 10.2, 5.2]), ("x", &[5.0, 10.0, 5.0])]);
        table.goal_difference(0, "x", 0.3, "");
        assert_eq!(last(&table), Outcome::Met);
        table.goal_difference(0, "x", 0.1, "");
        assert_eq!(last(&table), Outcome::NotMet);
        table.goal_difference(0, "absent", 0.3, "");
        assert_eq!(last(&table), Outcome::NotMeasured);
    }

    #[test]
    fn first_is_first_in_every_column_or_tied() {
        let mut tied = table(&[(OURS, &[5.0]), (FLOOR, &[1.0]), ("x", &[4.9])]);
        tied.goal_first("");
        assert_eq!(last(&tied), Outcome::Met);
        let mut behind = table(&[(OURS, &[5.0]), ("x", &[4.0])]);
        behind.goal_first("");
        assert_eq!(last(&behind), Outcome::NotMet);
        assert_eq!(
            behind.goals[0].detail,
            "cpu behind x by 25.0%; rate behind x by 25.0%"
        );
    }

    #[test]
    fn nobody_is_ahead_by_less_than_the_rounds_leave_in_doubt() {
        let outcome = |ours: &[f64]| {
            let mut table = table(&[(OURS, ours), ("x", &[5.0; 5])]);
            table.goal_first("");
            last(&table)
        };
        // Ten percent behind in the median.
        assert_eq!(outcome(&[5.5; 5]), Outcome::NotMet);
        assert_eq!(outcome(&[5.3, 5.7, 5.5, 5.5, 5.4]), Outcome::NotMet);
        assert_eq!(outcome(&[3.0, 8.0, 5.5, 4.0, 6.5]), Outcome::Met);
        assert_eq!(outcome(&[5.5]), Outcome::NotMet);
    }

    #[test]
    fn a_standard_error_is_that_of_the_median() {
        assert_eq!(standard_error(&[2.0]), 0.0);
        assert_eq!(standard_error(&[2.0; 4]), 0.0);
        let ratios = [1.0, 1.0, 1.0, 1.0_f64.exp()];
        // The logarithms' deviation is a half, over the root of four.
        assert!((standard_error(&ratios) - 1.253 / 4.0).abs() < 1e-9);
    }

    /// What becomes of being first when ours takes 10 us in every round.
    fn first_in_latency(other: &[f64]) -> Goal {
        let columns = vec![Column::latency("p99")];
        let mut table = Table::new("t", "T", String::new(), columns);
        for (round, sample) in other.iter().enumerate() {
            table.push(OURS, round, &[Some(10.0)]);
            table.push("x", round, &[Some(*sample)]);
        }
        table.goal_first("");
        table.goals.remove(0)
    }

    #[test]
    fn a_latency_is_behind_only_if_it_is_in_nearly_every_round() {
        let outcome = |other: &[f64]| first_in_latency(other).outcome;
        for behind in [
            &[8.0][..],
            &[8.0; 4],
            &[8.0, 8.0, 8.0, 8.0, 90.0],
            &[8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 90.0, 90.0],
        ] {
            assert_eq!(outcome(behind), Outcome::NotMet, "{behind:?}");
        }
        for tied in [
            &[8.0, 90.0][..],
            &[8.0, 8.0, 8.0, 10.0],
            &[8.0, 8.0, 8.0, 90.0, 90.0],
            &[8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 90.0, 90.0, 90.0],
            // Better in every round, but not by more than a tie.
            &[9.8; 5],
            // Nor by more than can be seen.
            &[9.2; 5],
        ] {
            assert_eq!(outcome(tied), Outcome::Met, "{tied:?}");
        }
        assert_eq!(first_in_latency(&[8.0; 5]).detail, "p99 behind x by 25.0%");
    }

    #[test]
    fn a_latency_is_compared_in_rounds_with_both() {
        let columns = vec![Column::latency("p99")];
        let mut table = Table::new("t", "T", String::new(), columns);
        for round in 0..3 {
            table.push(OURS, round, &[Some(10.0)]);
            table.push("x", round, &[Some(8.0)]);
        }
        // With this one it would be tied.
        table.push("x", 3, &[Some(90.0)]);
        table.goal_first("");
        assert_eq!(last(&table), Outcome::NotMet);
    }

    #[test]
    fn a_column_of_older_results_is_no_latency() {
        let text = r#"{"name":"p99","unit":"us","better":"Lower","charted":false}"#;
        assert!(!serde_json::from_str::<Column>(text).unwrap().latency);
    }

    #[test]
    fn never_is_zero_in_every_round() {
        let columns = vec![Column::new("lost", "lost", Better::Lower, true)];
        let outcome = |rounds: &[Option<f64>]| {
            let mut table = Table::new("t", "T", String::new(), columns.clone());
            for (round, sample) in rounds.iter().enumerate() {
                table.push(OURS, round, &[*sample]);
            }
            table.goal_never(2, "");
            last(&table)
        };
        assert_eq!(outcome(&[Some(0.0), Some(0.0)]), Outcome::Met);
        assert_eq!(outcome(&[Some(0.0), Some(1.0)]), Outcome::NotMet);
        assert_eq!(outcome(&[Some(0.0)]), Outcome::NotMet);
        assert_eq!(outcome(&[Some(0.0), None]), Outcome::NotMet);
        assert_eq!(outcome(&[]), Outcome::NotMeasured);
    }

    #[test]
    fn without_ours_nothing_is_met() {
        let mut table = table(&[("x", &[4.0])]);
        table.goal_at_most(0, 1.0, "");
        table.goal_ratio(0, "x", 1.0, "");
        table.goal_below(0, &["x"], "");
        table.goal_first("");
        assert!(
            table
                .goals
                .iter()
                .all(|goal| goal.outcome == Outcome::NotMeasured)
        );
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0.00"),
            (5.816, "5.82"),
            (58.16, "58.2"),
            (31882.4, "31,882"),
            (-1234.0, "-1,234"),
            (999.6, "1,000"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
