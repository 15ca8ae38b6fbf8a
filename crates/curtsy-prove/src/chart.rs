//! Timelines: answers, losses and latencies over the time of a run, for terminals and as SVG.

use std::fmt::Write as _;

use crate::book::Cell;
use crate::report::{Report, span};

/// Two sparklines with the marks below them.
pub(crate) fn terminal(report: &Report) -> String {
    let (columns, column_ms) = columns(report, TERMINAL_COLUMNS);
    let most = columns.iter().map(|c| c.answered).max().unwrap_or(0);
    let slowest = columns.iter().map(|c| c.latency_max_us).max().unwrap_or(0);
    let spark = |value: fn(&Cell) -> u64, most: u64| -> String {
        columns.iter().map(|c| level(value(c), most)).collect()
    };
    let lost: String = columns
        .iter()
        .map(|c| if c.lost > 0 { '!' } else { ' ' })
        .collect();
    let per_second = most as f64 * 1000.0 / column_ms as f64;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  answers  {}  {per_second:.0}/s at most",
        spark(|c| c.answered, most)
    );
    let _ = writeln!(
        text,
        "  slowest  {}  {} at most",
        spark(|c| c.latency_max_us, slowest),
        span(slowest)
    );
    if report.lost() > 0 {
        let _ = writeln!(text, "  lost     {}", lost.trim_end());
    }
    let column_of = |ms: u64| usize::try_from(ms / column_ms).unwrap_or(0);
    if report.segments.len() > LABELLED_MARKS + 1 {
        let mut row = vec![' '; TERMINAL_COLUMNS + 1];
        for segment in &report.segments[1..] {
            if let Some(column) = row.get_mut(column_of(segment.from_ms)) {
                *column = '^';
            }
        }
        let row: String = row.into_iter().collect();
        let _ = writeln!(text, "  marks    {}", row.trim_end());
    } else {
        for segment in report.segments.iter().skip(1) {
            let column = column_of(segment.from_ms);
            let _ = writeln!(
                text,
                "           {:column$}^ {} ({:.2} s)",
                "",
                segment.label,
                segment.from_ms as f64 / 1000.0
            );
        }
    }
    let _ = writeln!(text, "  a column is {column_ms} ms");
    text
}

/// The timeline in at most `most` columns, and the milliseconds of one.
fn columns(report: &Report, most: usize) -> (Vec<Cell>, u64) {
    let per_column = report.timeline.len().div_ceil(most).max(1);
    let columns = report
        .timeline
        .chunks(per_column)
        .map(|cells| {
            let mut sum = cells[0];
            cells[1..].iter().for_each(|cell| sum.merge(cell));
            sum
        })
        .collect();
    (columns, report.cell_ms.max(1) * per_column as u64)
}

/// A block as high as `value` is, of `most`; a blank for nothing at all.
fn level(value: u64, most: u64) -> char {
    if value == 0 {
        return ' ';
    }
    let step = (value * (LEVELS.len() as u64 - 1)).div_ceil(most.max(1));
    LEVELS[usize::try_from(step).unwrap_or(0).min(LEVELS.len() - 1)]
}

/// Three bands over one time axis: answers per second, greatest latency (logarithmic), losses.
pub(crate) fn svg(report: &Report) -> String {
    let (columns, column_ms) = columns(report, SVG_COLUMNS);
    let total_ms = (columns.len() as u64 * column_ms).max(1);
    let x = |ms: u64| LEFT + PLOT_WIDTH * ms as f64 / total_ms as f64;
    let mut out = String::new();
    let title = format!(
        "{}: {} sent, {} answered, {} lost",
        report.target,
        report.counts.sent,
        report.counts.answered,
        report.lost()
    );
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\"><title>{0}</title>{STYLE}\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\
         <text class=\"ink\" x=\"{LEFT}\" y=\"20\" font-size=\"14\">{0}</text>",
        escape(&title)
    );
    answers_band(&mut out, &columns, column_ms, &x);
    latency_band(&mut out, &columns, column_ms, &x);
    losses_band(&mut out, &columns, column_ms, &x);
    marks(&mut out, report, &x);
    axis(&mut out, total_ms, &x);
    out.push_str("</svg>\n");
    out
}

fn answers_band(out: &mut String, columns: &[Cell], column_ms: u64, x: &impl Fn(u64) -> f64) {
    let most = columns.iter().map(|c| c.answered).max().unwrap_or(0).max(1);
    let base = ANSWERS_TOP + BAND_HEIGHT;
    let mut path = format!("M{LEFT} {base}");
    for (i, cell) in columns.iter().enumerate() {
        let y = base - BAND_HEIGHT * cell.answered as f64 / most as f64;
        let from = x(i as u64 * column_ms);
        let to = x((i as u64 + 1) * column_ms);
        let _ = write!(path, "L{from:.1} {y:.1}L{to:.1} {y:.1}");
    }
    let _ = write!(path, "L{:.1} {base}Z", LEFT + PLOT_WIDTH);
    let _ = write!(out, "<path class=\"answers\" d=\"{path}\"/>");
    let per_second = most as f64 * 1000.0 / column_ms as f64;
    band_label(out, ANSWERS_TOP, "answers/s", &format!("{per_second:.0}"));
}

fn latency_band(out: &mut String, columns: &[Cell], column_ms: u64, x: &impl Fn(u64) -> f64) {
    let slowest = columns.iter().map(|c| c.latency_max_us).max().unwrap_or(0);
    for (class, value) in [
        ("mean", mean_us as fn(&Cell) -> u64),
        ("latency", |c| c.latency_max_us),
    ] {
        let path = latency_line(columns, column_ms, x, slowest, value);
        let _ = write!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    let unit = "latency: slowest, and mean (logarithmic, from 10 us)";
    band_label(out, LATENCY_TOP, unit, &span(slowest));
}

/// A line through the columns that have answers, broken where there are none.
fn latency_line(
    columns: &[Cell],
    column_ms: u64,
    x: &impl Fn(u64) -> f64,
    slowest_us: u64,
    value: fn(&Cell) -> u64,
) -> String {
    let base = LATENCY_TOP + BAND_HEIGHT;
    // From 10 us, which is below any answer, to the slowest one.
    let decades = (slowest_us.max(100) as f64 / 10.0).log10();
    let mut is_open = false;
    let mut path = String::new();
    for (i, cell) in columns.iter().enumerate() {
        if cell.answered == 0 {
            is_open = false;
            continue;
        }
        let height = (value(cell).max(10) as f64 / 10.0).log10() / decades;
        let y = base - BAND_HEIGHT * height;
        let middle = x(i as u64 * column_ms + column_ms / 2);
        let _ = write!(
            path,
            "{}{middle:.1} {y:.1}",
            if is_open { 'L' } else { 'M' }
        );
        if !is_open {
            // A lone point is still to be seen.
            path.push_str("h0.01");
        }
        is_open = true;
    }
    path
}

fn mean_us(cell: &Cell) -> u64 {
    cell.latency_sum_us / cell.answered.max(1)
}

fn losses_band(out: &mut String, columns: &[Cell], column_ms: u64, x: &impl Fn(u64) -> f64) {
    let most = columns.iter().map(|c| c.lost).max().unwrap_or(0);
    let base = LOSSES_TOP + BAND_HEIGHT;
    for (i, cell) in columns.iter().enumerate().filter(|(_, c)| c.lost > 0) {
        let from = x(i as u64 * column_ms);
        let width = (x((i as u64 + 1) * column_ms) - from).max(1.5);
        let height = (BAND_HEIGHT * cell.lost as f64 / most as f64).max(2.0);
        let _ = write!(
            out,
            "<rect class=\"lost\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
            base - height
        );
    }
    let unit = if most == 0 {
        "nothing lost".to_owned()
    } else {
        format!("lost per {column_ms} ms")
    };
    band_label(out, LOSSES_TOP, &unit, &most.to_string());
}

/// The name of a band and its greatest value, with lines at its top and bottom.
fn band_label(out: &mut String, top: f64, name: &str, most: &str) {
    let _ = write!(
        out,
        "<text class=\"ink\" x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{most}</text>\
         <text class=\"faint\" x=\"{LEFT}\" y=\"{2}\">{name}</text>\
         <path class=\"rule\" d=\"M{LEFT} {top}h{PLOT_WIDTH}M{LEFT} {3}h{PLOT_WIDTH}\"/>",
        LEFT - 8.0,
        top + 10.0,
        top - 5.0,
        top + BAND_HEIGHT
    );
}

fn marks(out: &mut String, report: &Report, x: &impl Fn(u64) -> f64) {
    let bottom = LOSSES_TOP + BAND_HEIGHT;
    for segment in report.segments.iter().skip(1) {
        let at = x(segment.from_ms);
        let _ = write!(out, "<path class=\"mark\" d=\"M{at:.1} 30V{bottom}\"/>");
    }
    let mut taken = [LEFT; 2];
    for (i, segment) in report.segments.iter().skip(1).enumerate() {
        let at = x(segment.from_ms);
        // Neighbouring labels take turns in height, and those at the right end read leftwards. One that would cover another
        // is left out.
        let y = 38.0 + 13.0 * (i % 2) as f64;
        let is_right = at > LEFT + PLOT_WIDTH * 0.75;
        let length = LABEL_CHAR_WIDTH * segment.label.chars().count() as f64 + 8.0;
        let begin = if is_right { at - length } else { at };
        if begin < taken[i % 2] {
            continue;
        }
        taken[i % 2] = begin + length;
        let (anchor, shift) = if is_right {
            ("end", -4.0)
        } else {
            ("start", 4.0)
        };
        let _ = write!(
            out,
            "<text class=\"ink label\" x=\"{:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            at + shift,
            escape(&segment.label)
        );
    }
}

fn axis(out: &mut String, total_ms: u64, x: &impl Fn(u64) -> f64) {
    let y = LOSSES_TOP + BAND_HEIGHT + 18.0;
    let step_ms = STEPS_MS
        .into_iter()
        .find(|step| total_ms / step <= 10)
        .unwrap_or(total_ms);
    for tick in 0..=total_ms / step_ms {
        let ms = tick * step_ms;
        let _ = write!(
            out,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{y}\" text-anchor=\"middle\">{} s</text>",
            x(ms),
            ms as f64 / 1000.0
        );
    }
}

fn escape(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .fold(String::new(), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                c => out.push(c),
            }
            out
        })
}

const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const TERMINAL_COLUMNS: usize = 80;
const SVG_COLUMNS: usize = 400;

/// With more marks than this, a terminal's chart only shows where they are; their labels are in the table above it.
const LABELLED_MARKS: usize = 6;
/// About; the text is set in a proportional font of the reader's choice.
const LABEL_CHAR_WIDTH: f64 = 6.5;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 72.0;
const PLOT_WIDTH: f64 = 850.0;
const BAND_HEIGHT: f64 = 78.0;
const ANSWERS_TOP: f64 = 76.0;
const LATENCY_TOP: f64 = 178.0;
const LOSSES_TOP: f64 = 280.0;
const STEPS_MS: [u64; 12] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000,
];
const STYLE: &str = "<style>\
    .paper{fill:#fff}.ink{fill:#1b1f24}.faint{fill:#667}.rule{stroke:#ccd;fill:none}\
    .label{stroke:#fff;stroke-width:4;paint-order:stroke}\
    .answers{fill:#7aa7d9}.mean{stroke:#c9a35c;fill:none;stroke-linecap:round}.latency{stroke:#8a5a00;fill:none;stroke-width:1.5;stroke-linecap:round}\
    .lost{fill:#c4122f}.mark{stroke:#667;stroke-dasharray:3 3;fill:none}\
    @media(prefers-color-scheme:dark){.paper{fill:#14171b}.ink{fill:#e8eaed}.faint{fill:#9aa3ad}\
    .label{stroke:#14171b}.mean{stroke:#8f7440}.rule{stroke:#333a42}.answers{fill:#3f6ea3}.latency{stroke:#e0a94a}.lost{fill:#ff5468}}</style>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_span_the_blocks_and_show_the_least() {
        assert_eq!(level(0, 100), ' ');
        assert_eq!(level(1, 1_000_000), '▁');
        assert_eq!(level(50, 100), '▄');
        assert_eq!(level(100, 100), '█');
    }

    #[test]
    fn text_cannot_leave_its_element() {
        assert_eq!(escape("a<b>&\"c\"\n"), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
