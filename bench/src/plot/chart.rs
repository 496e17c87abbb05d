//! One chart as SVG: axes with round numbers, a line and marks for each series, a legend beside it.
//!
//! Colours are classes, so that the page decides them for light and dark; each series has a mark of its own shape too,
//! for eyes and printers that tell colours badly. A mark says its values when pointed at.

use super::page::escaped;
use crate::table::thousands;
use std::fmt::Write;

/// How an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// By powers; all values are above 0.
    Log,
}

/// A series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    /// In the order of x.
    pub(super) points: Vec<(f64, f64)>,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) about: String,
    pub(super) x: (&'static str, Scale),
    pub(super) y: (&'static str, Scale),
    pub(super) lines: Vec<Line>,
}

const WIDTH: f64 = 860.0;
/// Or as much as the legend needs.
const HEIGHT: f64 = 380.0;
const LEGEND_LINE: f64 = 22.0;
/// Where the axes meet and end.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 660.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 320.0;

/// Colours and marks before they begin again.
pub(super) const COLOURS: usize = 8;

/// Round numbers on an axis, about.
const TICKS: f64 = 5.0;

/// From values to places.
pub(super) struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
}

impl Axis {
    /// Around the values, with a place for the lowest and for the highest of the axis.
    pub(super) fn around(scale: Scale, values: impl Iterator<Item = f64>, [begin, end]: [f64; 2]) -> Axis {
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let high = if high > 0.0 { high } else { 1.0 };
        let (from, to) = match scale {
            Scale::Linear => (0.0, (high / step(high)).ceil() * step(high)),
            Scale::Log => (low.clamp(1e-9, high) / 1.3, high * 1.3),
        };
        Axis { scale, from, to, begin, end }
    }

    /// Where a value lies.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
        };
        self.begin + share * (self.end - self.begin)
    }

    /// Round numbers along it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.to);
                let count = (self.to / step).round() as u32;
                (0..=count).map(|nth| f64::from(nth) * step).collect()
            }
            Scale::Log => {
                let first = self.from.log10().floor() as i32;
                let last = self.to.log10().ceil() as i32;
                let is_wide = last - first > 4;
                let digits: &[f64] = if is_wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let all = (first..=last).flat_map(|power| digits.iter().map(move |d| d * 10_f64.powi(power)));
                all.filter(|tick| (self.from..=self.to).contains(tick)).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that a handful reach `high`.
fn step(high: f64) -> f64 {
    let rough = high / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough).unwrap_or(rough)
}

/// Whole numbers with commas, small ones with as many decimals as they need.
pub(super) fn number(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { thousands(value) } else { format!("{value:.2}") }
}

impl Chart {
    /// The axes for all of its points: x, then y.
    pub(super) fn axes(&self) -> (Axis, Axis) {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        (
            Axis::around(self.x.1, points().map(|point| point.0), [LEFT, RIGHT]),
            Axis::around(self.y.1, points().map(|point| point.1), [BOTTOM, TOP]),
        )
    }

    /// The whole drawing.
    pub(super) fn svg(&self) -> String {
        let (x, y) = self.axes();
        let legend = TOP + LEGEND_LINE * (self.lines.len() + 1) as f64;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" \
             aria-label=\"{}\">\n",
            HEIGHT.max(legend),
            escaped(&self.title)
        );
        // Writing to a String cannot fail.
        let mut put = |text: std::fmt::Arguments<'_>| {
            let _ = out.write_fmt(text);
            out.push('\n');
        };
        for tick in y.ticks() {
            let at = y.place(tick);
            put(format_args!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>"));
            put(format_args!(
                "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                number(tick)
            ));
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            put(format_args!("<path class=\"grid\" d=\"M{at:.1} {TOP}V{BOTTOM}\"/>"));
            put(format_args!(
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 18.0,
                number(tick)
            ));
        }
        put(format_args!("<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>"));
        put(format_args!(
            "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + RIGHT) / 2.0,
            BOTTOM + 42.0,
            escaped(self.x.0)
        ));
        put(format_args!(
            "<text class=\"name\" transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (TOP + BOTTOM) / 2.0,
            escaped(self.y.0)
        ));
        for (nth, line) in self.lines.iter().enumerate() {
            let class = nth % COLOURS;
            let places: Vec<(f64, f64)> =
                line.points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            put(format_args!("<g class=\"s{class}\">"));
            put(format_args!("<path class=\"line\" d=\"M{}\"/>", path.join("L")));
            for ((px, py), (vx, vy)) in places.iter().zip(&line.points) {
                put(format_args!(
                    "<path class=\"mark\" d=\"{}\"><title>{}: {} {}, {} {}</title></path>",
                    mark(nth, *px, *py),
                    escaped(&line.name),
                    number(*vx),
                    escaped(self.x.0),
                    number(*vy),
                    escaped(self.y.0)
                ));
            }
            let at = TOP + 14.0 + LEGEND_LINE * nth as f64;
            put(format_args!("<path class=\"mark\" d=\"{}\"/>", mark(nth, RIGHT + 24.0, at - 4.0)));
            put(format_args!("</g>"));
            put(format_args!(
                "<text class=\"name\" x=\"{}\" y=\"{at:.1}\">{}</text>",
                RIGHT + 38.0,
                escaped(&line.name)
            ));
        }
        out.push_str("</svg>\n");
        out
    }
}

/// A mark around a place: square, diamond, triangle up, triangle down, in turn.
fn mark(nth: usize, x: f64, y: f64) -> String {
    let corners: &[(f64, f64)] = match nth % 4 {
        0 => &[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)],
        1 => &[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)],
        2 => &[(0.0, -5.5), (5.0, 4.0), (-5.0, 4.0)],
        _ => &[(0.0, 5.5), (5.0, -4.0), (-5.0, -4.0)],
    };
    let path: Vec<String> = corners.iter().map(|(dx, dy)| format!("{:.1} {:.1}", x + dx, y + dy)).collect();
    format!("M{}Z", path.join("L"))
}
