//! Whether the page is well-formed, and whether its points lie where the records say.

use super::chart::{Axis, Line, Scale};
use super::*;
use serde_json::json;

/// A record of two rounds a side, as `compare` writes it.
fn record(date: &str, sides: &[(&str, u32, [f64; 2])], offered: Option<serde_json::Value>) -> String {
    let rounds: Vec<serde_json::Value> = sides
        .iter()
        .flat_map(|(side, connections, costs)| costs.iter().map(move |cost| (side, connections, cost)))
        .map(|(side, connections, cost)| {
            json!({ "side": side, "connections": connections, "round": 1, "figures": {
                "offered": offered, "requests_per_s": 1e6 / cost, "server_cpu_us_per_request": cost,
                "latency_us": { "p50": cost * 10.0, "p99": cost * 100.0, "p99_9": cost * 200.0, "max": 1.0 },
            }})
        })
        .collect();
    let machine = json!({ "cpu": "A & B <c>", "cores": 2, "kernel": "6.18", "commit": "abc" });
    json!({ "date": date, "machine": machine, "command": ["compare"], "figures": rounds }).to_string()
}

fn machines(lines: &[String]) -> Vec<points::OfMachine> {
    points::by_machine(&points::read(&[("f".to_owned(), lines.join("\n"))]).unwrap())
}

fn line(name: &str, points: &[(f64, f64)]) -> Line {
    Line { name: name.to_owned(), points: points.to_vec() }
}

/// Medians of the newest record, a point for each count of connections.
#[test]
fn cost_is_drawn_by_side_and_connections_from_the_newest_record() {
    let lines = [
        record("2026-11-20", &[("ours", 64, [9.0, 9.0]), ("ours", 1000, [7.0, 8.0])], None),
        record("2026-11-21", &[("ours", 64, [5.0, 6.0]), ("nginx", 64, [8.0, 8.0])], None),
    ];
    let machines = machines(&lines);
    assert_eq!(machines.len(), 1);
    assert!(machines[0].newest.contains("2026-11-21") && machines[0].newest.contains("abc"));
    let cost = machines[0].charts.iter().find(|chart| chart.title.starts_with("CPU")).unwrap();
    assert_eq!(cost.lines, [line("nginx", &[(64.0, 8.0)]), line("ours", &[(64.0, 5.5), (1000.0, 7.5)])]);
}

/// Rounds on a clock are drawn by their rate, and not among the closed loops; batches are drawn in neither.
#[test]
fn latency_is_drawn_by_offered_rate() {
    let offered = |arrival: &str, rate: u32, batch: u32| {
        Some(
            json!({ "arrival": arrival, "requests_per_s": rate, "batch": batch, "lifetime": "kept", "seed": 1 }),
        )
    };
    let sides = [("ours", 64, [5.0, 5.0])];
    let lines = [
        record("1", &sides, offered("constant", 1_000, 1)),
        record("2", &sides, offered("poisson", 20_000, 1)),
        record("3", &sides, offered("constant", 3_000, 100)),
        record("4", &sides, offered("ramp", 4_000, 1)),
    ];
    let machines = machines(&lines);
    let titles: Vec<&str> = machines[0].charts.iter().map(|chart| chart.title.as_str()).collect();
    assert_eq!(titles, ["Latency by load, 64 connections"]);
    assert_eq!(
        machines[0].charts[0].lines,
        [
            line("ours p50", &[(1_000.0, 50.0), (20_000.0, 50.0)]),
            line("ours p99", &[(1_000.0, 500.0), (20_000.0, 500.0)]),
            line("ours p99.9", &[(1_000.0, 1_000.0), (20_000.0, 1_000.0)]),
        ]
    );
}

/// What one server does at one level says nothing of another level.
#[test]
fn levels_of_one_server_are_series_of_their_own() {
    let with_level = |date, level: &str| {
        let text = record(date, &[("ours", 64, [5.0, 5.0])], None);
        text.replace("\"figures\":{", &format!("\"figures\":{{\"durability\":\"{level}\","))
    };
    let machines =
        machines(&[with_level("1", "written"), with_level("2", "synced"), with_level("3", "ours")]);
    let names: Vec<&str> = machines[0].charts[0].lines.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, ["ours", "ours, synced", "ours, written"]);
}

#[test]
fn other_records_are_counted_and_lines_that_are_none_are_refused_by_their_place() {
    let other = json!({ "date": "1", "machine": { "cores": 2 }, "command": [], "figures": { "replay": 1 } });
    let found = points::read(&[("f".to_owned(), format!("{other}\n\n"))]).unwrap();
    assert_eq!((found.rounds.len(), found.others), (0, 1));
    let error = points::read(&[("a.jsonl".to_owned(), format!("{other}\nnothing\n"))]).err().unwrap();
    assert!(error.to_string().starts_with("a.jsonl:2"), "{error}");
}

/// Each mark of the drawing lies where the axes put its values: the lowest at the bottom, powers evenly.
#[test]
fn marks_lie_where_their_values_are() {
    let lines = [record("1", &[("ours", 10, [4.0, 4.0]), ("ours", 1000, [8.0, 8.0])], None)];
    let machines = machines(&lines);
    let cost = machines[0].charts.iter().find(|chart| chart.title.starts_with("CPU")).unwrap();
    let (x, y) = cost.axes();
    let svg = cost.svg();
    for (connections, us) in [(10.0, 4.0), (1000.0, 8.0)] {
        let corner = format!("M{:.1} {:.1}L", x.place(connections) - 4.0, y.place(us) - 4.0);
        let title = format!("<title>ours: {} connections, {us} µs", chart::number(connections));
        let mark =
            svg.lines().find(|line| line.contains(&title)).unwrap_or_else(|| panic!("{title} in\n{svg}"));
        assert!(mark.contains(&corner), "{mark}");
    }
    let middle = (x.place(10.0) + x.place(1000.0)) / 2.0;
    assert!((x.place(100.0) - middle).abs() < 0.01, "powers of ten are not evenly spaced");
    assert!((y.place(0.0) - y.place(4.0) - (y.place(4.0) - y.place(8.0))).abs() < 0.01);
}

/// The lowest of an axis lies at its begin and the highest at its end.
#[test]
fn an_axis_fills_its_place() {
    let linear = Axis::around(Scale::Linear, [4.0, 8.0].into_iter(), [320.0, 20.0]);
    assert_eq!((linear.place(0.0), linear.place(8.0)), (320.0, 20.0));
    let log = Axis::around(Scale::Log, [10.0, 1_000.0].into_iter(), [80.0, 660.0]);
    let (low, high) = (log.place(10.0 / 1.3), log.place(1_000.0 * 1.3));
    assert!((low - 80.0).abs() < 1e-6 && (high - 660.0).abs() < 1e-6, "{low} {high}");
}

#[test]
fn ticks_are_round_and_within_the_axis() {
    let ticks = |scale, values: [f64; 2]| Axis::around(scale, values.into_iter(), [0.0, 100.0]).ticks();
    assert_eq!(ticks(Scale::Linear, [3.0, 9.3]), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    assert_eq!(ticks(Scale::Log, [64.0, 1000.0]), [50.0, 100.0, 200.0, 500.0, 1000.0]);
    assert_eq!(ticks(Scale::Log, [1.0, 1e6]), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
}

/// Every tag that opens closes, in order; attributes are quoted; nothing stands bare that must be escaped.
fn assert_well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text.strip_prefix("<!DOCTYPE html>").unwrap_or(text);
    while let Some(at) = rest.find('<') {
        let between = &rest[..at];
        assert!(!between.contains('>'), "a bare > in {between:?}");
        for entity in between.split('&').skip(1) {
            let name = entity.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot"].contains(&name), "&{name} in {between:?}");
        }
        let end = at + rest[at..].find('>').expect("a tag without an end");
        let tag = &rest[at + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        let name = tag.trim_matches('/').split_whitespace().next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn the_page_is_well_formed_stands_alone_and_knows_the_dark() {
    let sides = [("a<b>&\"c\"", 64, [5.0, 6.0]), ("nginx", 64, [8.0, 8.0])];
    let page = page::page(&machines(&[record("1", &sides, None)]));
    assert_well_formed(&page);
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("A &amp; B &lt;c&gt;"));
    for outside in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
#[should_panic(expected = "</a>")]
fn crossed_tags_are_not_well_formed() {
    assert_well_formed("<a><b></a></b>");
}

/// The records of this very repository can be drawn.
#[test]
fn the_kept_records_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report.html");
    let records = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("records")];
    assert_eq!(run(&ReportArguments { records, out: out.clone() }).unwrap(), Verdict::Passed);
    let page = fs::read_to_string(out).unwrap();
    assert_well_formed(&page);
    assert!(page.contains("CPU per request by connections"));
}
