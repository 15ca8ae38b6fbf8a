//! A table as bars, in SVG written by hand: one panel per charted column, one bar per server, best first.
//!
//! It carries its own colours for light and dark and refers to nothing outside of itself. The bar is the median, the
//! thin line the least and the greatest, the number beside it the median again.

use std::fmt::Write as _;

use super::table::{Better, Column, OURS, Spread, Table, number};

const WIDTH: f64 = 760.0;
const NAME_WIDTH: f64 = 110.0;
const NUMBER_WIDTH: f64 = 90.0;
const MARGIN: f64 = 16.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
const TITLE: f64 = 44.0;
const PANEL_TITLE: f64 = 26.0;

const STYLE: &str = "\
.ground{fill:#ffffff}.title,.name,.number{fill:#1f2328}.panel{fill:#57606a}.bar{fill:#8c9bad}.ours{fill:#0a7f5a}\
.spread{stroke:#1f2328}.bold{font-weight:600}text{font-family:system-ui,-apple-system,'Segoe UI',sans-serif}\
@media (prefers-color-scheme:dark){.ground{fill:#0d1117}.title,.name,.number{fill:#e6edf3}.panel{fill:#9da7b3}\
.bar{fill:#5b6b7f}.ours{fill:#2fbf8f}.spread{stroke:#e6edf3}}";

/// The chart of `table`.
pub(super) fn svg(table: &Table) -> String {
    let charted = table
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.charted);
    let panels: Vec<(&Column, Vec<(&str, Spread)>)> = charted
        .map(|(index, column)| (column, bars(table, index)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let rows: usize = panels.iter().map(|(_, bars)| bars.len()).sum();
    let height = TITLE + size(panels.len()) * (PANEL_TITLE + MARGIN) + size(rows) * ROW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" font-size=\"13\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" fill=\"#ffffff\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n\
         <text class=\"title bold\" x=\"{MARGIN}\" y=\"28\" font-size=\"16\">{title}</text>\n",
        title = escaped(&table.title)
    );
    let mut top = TITLE;
    for (column, bars) in panels {
        panel(&mut out, column, &bars, top);
        top += PANEL_TITLE + MARGIN + size(bars.len()) * ROW;
    }
    out.push_str("</svg>\n");
    out
}

fn bars(table: &Table, column: usize) -> Vec<(&str, Spread)> {
    let spreads = table
        .rows
        .iter()
        .filter_map(|row| Some((row.server.as_str(), table.spread(&row.server, column)?)));
    let mut bars: Vec<_> = spreads.collect();
    bars.sort_by(|left, right| left.1.median.total_cmp(&right.1.median));
    if table.columns[column].better == Better::Higher {
        bars.reverse();
    }
    bars
}

fn panel(out: &mut String, column: &Column, bars: &[(&str, Spread)], top: f64) {
    let better = match column.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    };
    let heading = escaped(&format!("{}, {} ({better})", column.name, column.unit));
    let _ = writeln!(
        out,
        "<text class=\"panel\" x=\"{MARGIN}\" y=\"{}\">{heading}</text>",
        top + 16.0
    );
    let left = MARGIN + NAME_WIDTH;
    let room = WIDTH - left - NUMBER_WIDTH - MARGIN;
    let most = bars
        .iter()
        .map(|(_, spread)| spread.greatest)
        .fold(f64::MIN_POSITIVE, f64::max);
    // What is below zero (a difference can be) has no length.
    let length = |value: f64| (value / most * room).clamp(0.0, room);
    for (index, (server, spread)) in bars.iter().enumerate() {
        let y = top + PANEL_TITLE + size(index) * ROW;
        let (class, weight) = if *server == OURS {
            ("ours", " bold")
        } else {
            ("bar", "")
        };
        let (middle, baseline) = (y + BAR / 2.0, y + BAR - 2.5);
        let (bar, least, greatest) = (
            length(spread.median),
            length(spread.least),
            length(spread.greatest),
        );
        let _ = writeln!(
            out,
            "<text class=\"name{weight}\" x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text class=\"number{weight}\" x=\"{:.1}\" y=\"{baseline:.1}\">{}</text>",
            left - 8.0,
            escaped(server),
            bar.max(1.0),
            left + least,
            left + greatest,
            left + bar.max(greatest) + 8.0,
            number(spread.median),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn size(count: usize) -> f64 {
    count as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = vec![
            Column::new("a < b", "us", Better::Lower, true),
            Column::new("hidden", "us", Better::Lower, false),
            Column::new("rate", "1/s", Better::Higher, true),
        ];
        let mut table = Table::new("t", "A & B", String::new(), columns);
        table.push("slow", 0, &[Some(4.0), Some(1.0), Some(1.0)]);
        table.push(OURS, 0, &[Some(2.0), Some(1.0), Some(9.0)]);
        table.push("less", 0, &[Some(-1.0), None, None]);
        table
    }

    #[test]
    fn the_best_comes_first_and_the_greatest_is_longest() {
        let table = table();
        let names = |column| {
            bars(&table, column)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["less", OURS, "slow"]);
        assert_eq!(names(2), [OURS, "slow"]);
        let room = WIDTH - 2.0 * MARGIN - NAME_WIDTH - NUMBER_WIDTH;
        let svg = svg(&table);
        assert!(
            svg.contains(&format!(
                "class=\"bar\" x=\"126.0\" y=\"118.0\" width=\"{room:.1}\""
            )),
            "{svg}"
        );
        assert!(
            svg.contains(&format!(
                "class=\"ours\" x=\"126.0\" y=\"94.0\" width=\"{:.1}\"",
                room / 2.0
            )),
            "{svg}"
        );
    }

    #[test]
    fn it_is_whole_and_refers_to_nothing() {
        let svg = svg(&table());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("A &amp; B") && svg.contains("a &lt; b") && !svg.contains("hidden"));
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert!(!svg.contains("href") && !svg.contains("url(") && !svg.contains("@import"));
    }
}
