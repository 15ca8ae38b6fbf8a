//! The account of a run, for programs (serde), for people (`Display`) and as a picture ([`Report::svg`]).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::book::{Book, Cell, Counts, LostRequest, Seen, Stretch, millis};
use crate::chart;
use crate::outcome::Loss;
use crate::plan::Plan;

/// What became of every request of a run.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What was asked, as `GET http://127.0.0.1:9000/`.
    pub target: String,
    /// How many clients there were.
    pub connections: usize,
    /// The length of the run in milliseconds.
    pub length_ms: u64,
    /// When the last byte of the last answer was read: what a server does after it, it does for itself.
    #[serde(skip)]
    pub last_answer_at: Option<Instant>,
    /// The counts.
    pub counts: Counts,
    /// Whether a refused connection counts as a loss.
    pub is_refusal_a_loss: bool,
    /// Latencies of all answered requests.
    pub latency: Quantiles,
    /// The times that connects took.
    pub connect: Quantiles,
    /// The run, cut at its marks. A request belongs to the segment in which it ended.
    pub segments: Vec<Segment>,
    /// Segments of one kind told together, if [`Running::mark_in`](crate::Running::mark_in) named any.
    pub groups: Vec<Group>,
    /// The width of a cell of the timeline in milliseconds: 100, doubled when ten minutes, twenty, ... are over.
    pub cell_ms: u64,
    /// The timeline.
    pub timeline: Vec<Cell>,
    /// The first 100 lost requests.
    pub losses: Vec<LostRequest>,
    /// Failed connects by reason (not the refused ones).
    pub connect_errors: BTreeMap<String, u64>,
    /// The different bodies, if the plan [records them](Plan::record_answers).
    pub answers: BTreeMap<String, Seen>,
    /// WebSocket connections that the server closed, by code: 1001 is going away, 1005 a Close without a code, 1006 no Close
    /// at all.
    pub close_codes: BTreeMap<u16, u64>,
}

/// The time from one mark to the next.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Segment {
    /// The label of the mark that begins it; `start` for the first.
    pub label: String,
    /// Its beginning, in milliseconds since the run began.
    pub from_ms: u64,
    /// Its end, in milliseconds since the run began.
    pub to_ms: u64,
    /// Requests (and connections, where that counts) lost in it.
    pub lost: u64,
    /// Latencies of the requests answered in it.
    pub latency: Quantiles,
}

/// All segments of one kind.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// Its name; `before` is the time before the first mark.
    pub name: String,
    /// How many segments it has.
    pub segments: u64,
    /// Requests (and connections, where that counts) lost in them.
    pub lost: u64,
    /// Latencies of the requests answered in them.
    pub latency: Quantiles,
}

/// A distribution of times, in microseconds, to three digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them are not above it.
    pub p50_us: u64,
    /// 90% of them are not above it.
    pub p90_us: u64,
    /// 99% of them are not above it.
    pub p99_us: u64,
    /// 99.9% of them are not above it.
    pub p999_us: u64,
    /// The greatest.
    pub max_us: u64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

impl Report {
    pub(crate) fn of(plan: &Plan, book: &Book) -> Self {
        let length_ms = millis(book.started.elapsed());
        let pages = book.pages();
        let mut all = pages.stretches[0].latency.clone();
        for stretch in &pages.stretches[1..] {
            // Both resize themselves and have the same precision, so that adding cannot fail.
            all.add(&stretch.latency).expect("histograms of one kind");
        }
        let ends = pages.stretches.iter().skip(1).map(|s| millis(s.from));
        let segments = pages
            .stretches
            .iter()
            .zip(ends.chain([length_ms]))
            .map(|(stretch, to_ms)| Segment {
                label: stretch.label.clone(),
                from_ms: millis(stretch.from),
                to_ms,
                lost: stretch.lost,
                latency: Quantiles::of(&stretch.latency),
            })
            .collect();
        Self {
            target: format!("{} {}", plan.method, plan.target),
            connections: plan.connections,
            length_ms,
            last_answer_at: pages.last_answer_at,
            counts: pages.counts,
            is_refusal_a_loss: plan.is_refusal_a_loss,
            latency: Quantiles::of(&all),
            connect: Quantiles::of(&pages.connects),
            segments,
            groups: groups(&pages.stretches),
            cell_ms: millis(pages.cell_width),
            timeline: pages.cells.clone(),
            losses: pages.losses.clone(),
            connect_errors: pages.connect_errors.clone(),
            answers: pages.answers.clone(),
            close_codes: pages.close_codes.clone(),
        }
    }

    /// How many requests, and connections that should have been made, were lost.
    pub fn lost(&self) -> u64 {
        let refused = if self.is_refusal_a_loss {
            self.counts.refused
        } else {
            0
        };
        self.counts.lost.total() + self.counts.connect_failed + refused
    }

    /// Something was answered, nothing was lost, and nothing came that nobody had asked for.
    pub fn is_clean(&self) -> bool {
        self.counts.answered > 0 && self.lost() == 0 && self.counts.unsolicited == 0
    }

    /// Requests answered per second over the whole run.
    pub fn rate(&self) -> f64 {
        if self.length_ms == 0 {
            return 0.0;
        }
        self.counts.answered as f64 * 1000.0 / self.length_ms as f64
    }

    /// The timeline as a picture: one SVG document that needs nothing beside it.
    pub fn svg(&self) -> String {
        chart::svg(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        writeln!(
            f,
            "{}  {} connections, {:.1} s, {:.0} answers/s",
            self.target,
            self.connections,
            self.length_ms as f64 / 1000.0,
            self.rate()
        )?;
        writeln!(
            f,
            "  requests     {} sent, {} answered, {} lost",
            c.sent,
            c.answered,
            c.lost.total()
        )?;
        for loss in Loss::ALL {
            let n = c.lost.of(loss);
            if n > 0 {
                writeln!(f, "    lost       {n} {loss}")?;
            }
        }
        writeln!(
            f,
            "  connections  {} opened; closed: {} announced by the server, {} by it while idle, {} with a loss, {} by the client",
            c.opened,
            c.closed_by_server_announced,
            c.closed_while_idle,
            c.closed_by_loss,
            c.closed_by_client
        )?;
        for (code, n) in &self.close_codes {
            writeln!(f, "  Close {code}   {n} times")?;
        }
        if c.crossed_close > 0 {
            writeln!(
                f,
                "  crossed      {} messages met a Close: no loss",
                c.crossed_close
            )?;
        }
        if c.refused > 0 {
            let weight = if self.is_refusal_a_loss {
                "counted as lost"
            } else {
                "no loss: nobody listened any more"
            };
            writeln!(f, "  refused      {} ({weight})", c.refused)?;
        }
        for (why, n) in &self.connect_errors {
            writeln!(f, "  no connection {n} times: {why}")?;
        }
        if c.unsolicited > 0 {
            writeln!(
                f,
                "  unsolicited  {} times bytes that nobody had asked for",
                c.unsolicited
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  {:<20} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9}",
            "latency", "from", "answered", "lost", "p50", "p99", "p99.9", "max"
        )?;
        for s in self.segments.iter().take(SEGMENTS_SHOWN) {
            let from = format!("{:.1} s", s.from_ms as f64 / 1000.0);
            row(f, &s.label, &from, s.lost, &s.latency)?;
        }
        if self.segments.len() > SEGMENTS_SHOWN {
            let hidden = self.segments.len() - SEGMENTS_SHOWN;
            writeln!(f, "  ... and {hidden} more")?;
        }
        if !self.groups.is_empty() {
            writeln!(f)?;
        }
        for g in &self.groups {
            let name = format!("all {} {}", g.segments, g.name);
            row(
                f,
                if g.segments > 1 { &name } else { &g.name },
                "",
                g.lost,
                &g.latency,
            )?;
        }
        if self.segments.len() > 1 {
            row(f, "all", "", self.lost(), &self.latency)?;
        }
        for (text, seen) in &self.answers {
            writeln!(
                f,
                "  answer       {} x {text:?}, from {:.2} s to {:.2} s",
                seen.count,
                seen.first_ms as f64 / 1000.0,
                seen.last_ms as f64 / 1000.0
            )?;
        }
        writeln!(f)?;
        f.write_str(&chart::terminal(self))?;
        for lost in self.losses.iter().take(LOSSES_SHOWN) {
            writeln!(
                f,
                "  lost: request {} of client {} at {:.3} s after {}: {} ({})",
                lost.number,
                lost.client,
                lost.at_ms as f64 / 1000.0,
                span(lost.after_us),
                lost.cause,
                lost.detail
            )?;
        }
        let hidden = self.counts.lost.total().saturating_sub(LOSSES_SHOWN as u64);
        if hidden > 0 {
            writeln!(f, "  ... and {hidden} more")?;
        }
        Ok(())
    }
}

/// Stretches told together by their groups, in the order in which these began; none if no mark named one.
fn groups(stretches: &[Stretch]) -> Vec<Group> {
    if stretches.iter().skip(1).all(|s| s.group.is_none()) {
        return Vec::new();
    }
    let mut sums: Vec<(&str, u64, u64, Histogram<u64>)> = Vec::new();
    for stretch in stretches {
        let Some(name) = stretch.group else { continue };
        match sums.iter_mut().find(|sum| sum.0 == name) {
            Some((_, segments, lost, latency)) => {
                *segments += 1;
                *lost += stretch.lost;
                // As above.
                latency
                    .add(&stretch.latency)
                    .expect("histograms of one kind");
            }
            None => sums.push((name, 1, stretch.lost, stretch.latency.clone())),
        }
    }
    sums.into_iter()
        .map(|(name, segments, lost, latency)| Group {
            name: name.to_owned(),
            segments,
            lost,
            latency: Quantiles::of(&latency),
        })
        .collect()
}

fn row(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    from: &str,
    lost: u64,
    q: &Quantiles,
) -> fmt::Result {
    write!(f, "  {label:<20} {from:>9} {:>9} {lost:>7}", q.count)?;
    for us in [q.p50_us, q.p99_us, q.p999_us, q.max_us] {
        let text = if q.count == 0 {
            "-".to_owned()
        } else {
            span(us)
        };
        write!(f, " {text:>9}")?;
    }
    writeln!(f)
}

/// A time with its unit, three digits or so.
pub(crate) fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Lost requests that `Display` lists; the report itself holds more.
const LOSSES_SHOWN: usize = 10;
/// Segments that `Display` lists, for the same reason.
const SEGMENTS_SHOWN: usize = 24;
