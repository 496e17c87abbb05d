//! The page around the charts: one file, its style within it, and each chart's numbers as a table below it.

use super::chart::{COLOURS, Chart, number};
use super::points::OfMachine;
use std::collections::BTreeSet;

/// Colours of the series on a light and on a dark ground.
const ON_LIGHT: [&str; COLOURS] =
    ["#1f5fa8", "#b8491b", "#1d7a4d", "#7a3fa0", "#8a6410", "#b02a5b", "#117a86", "#555c66"];
const ON_DARK: [&str; COLOURS] =
    ["#7db4f0", "#f09a6c", "#6fcf9f", "#c79be6", "#e0bd63", "#f08fb3", "#66ccd6", "#b4bcc8"];

const STYLE: &str = "\
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1c2128; --faint: #dfe3e8; --soft: #57606a; }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 58rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 2rem 0 0; }
p { color: var(--soft); margin: 0.2rem 0 0.8rem; }
svg { width: 100%; height: auto; }
.grid { stroke: var(--faint); } .axis { stroke: var(--soft); fill: none; }
.tick { fill: var(--soft); font-size: 12px; } .name { fill: var(--ink); font-size: 13px; }
.line { fill: none; stroke: currentColor; stroke-width: 2; } .mark { fill: currentColor; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.8rem; text-align: right; border-bottom: 1px solid var(--faint); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
";

/// Everything between here and the reader's eye.
pub(super) fn page(machines: &[OfMachine]) -> String {
    let colours = |of: &[&str; COLOURS]| -> String {
        of.iter().enumerate().map(|(nth, colour)| format!(".s{nth} {{ color: {colour}; }}\n")).collect()
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n\
         <meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width\"/>\n\
         <title>bench report</title>\n<style>\n{STYLE}{}@media (prefers-color-scheme: dark) {{\n\
         :root {{ --ground: #14181d; --ink: #e6e9ee; --faint: #2b323b; --soft: #9aa4b0; }}\n{}}}\n</style>\n\
         </head>\n<body>\n<h1>bench report</h1>\n<p>Medians of the rounds of the newest record for each point. \
         Servers run on one core, the generator on another.</p>\n",
        colours(&ON_LIGHT),
        colours(&ON_DARK)
    );
    for machine in machines {
        out.push_str(&format!(
            "<h2>{}</h2>\n<p>{}</p>\n",
            escaped(&machine.machine),
            escaped(&machine.newest)
        ));
        for chart in &machine.charts {
            let (title, about) = (escaped(&chart.title), escaped(&chart.about));
            out.push_str(&format!("<h3>{title}</h3>\n<p>{about}</p>\n{}{}", chart.svg(), table(chart)));
        }
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// The chart's numbers: a row a series, a column a place.
fn table(chart: &Chart) -> String {
    let places = chart.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0 as u64));
    let places: BTreeSet<u64> = places.collect();
    let head: String = places.iter().map(|x| format!("<th>{}</th>", number(*x as f64))).collect();
    let (x, y) = (escaped(chart.x.0), escaped(chart.y.0));
    let mut out = format!("<div class=\"wide\"><table>\n<tr><th>{y} by {x}</th>{head}</tr>\n");
    for line in &chart.lines {
        let cell = |x: &u64| {
            let found = line.points.iter().find(|point| point.0 as u64 == *x);
            format!("<td>{}</td>", found.map_or_else(|| "-".to_owned(), |point| number(point.1)))
        };
        let cells: String = places.iter().map(cell).collect();
        out.push_str(&format!("<tr><td>{}</td>{cells}</tr>\n", escaped(&line.name)));
    }
    out.push_str("</table></div>\n");
    out
}

/// Text that means itself, between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // No document may hold these.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
