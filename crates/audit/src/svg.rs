//! Small charts as SVG text. Colours are Okabe and Ito's, told apart by colour-blind readers;
//! series also differ in dashes and markers, for print without colour.

use std::fmt::Write;

/// Colours of series.
pub const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f00", "#000000"];
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

/// A line through points, with error bars where `spread` has them.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// `(x, y)` in data units, rising in x.
    pub points: Vec<(f64, f64)>,
    /// Ends of an interval in y for each point.
    pub spread: Vec<Option<[f64; 2]>>,
    /// Points only.
    pub scatter: bool,
}

/// Axes and what stands on them.
#[derive(Debug, Clone)]
pub struct Chart<'a> {
    /// Read out by screen readers.
    pub title: &'a str,
    /// Label and range.
    pub x: (&'a str, f64, f64),
    /// Label and range.
    pub y: (&'a str, f64, f64),
    /// Horizontal lines with names: ends to compare with.
    pub levels: Vec<(String, f64)>,
    /// Lines.
    pub series: Vec<Series>,
    /// Names of points, the most important first: those without room are left out.
    pub notes: Vec<Note>,
}

/// The name of a point.
#[derive(Debug, Clone)]
pub struct Note {
    /// In data units.
    pub x: f64,
    /// In data units.
    pub y: f64,
    /// What stands beside it.
    pub text: String,
    /// Whether a ring is around the point.
    pub ringed: bool,
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Width of a letter of a name, about.
const LETTER: f64 = 6.2;

/// Text for HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Round steps for an axis, about five.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = (high - low).max(1e-9);
    let rough = span / 5.0;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|s| s * unit).find(|s| *s >= rough).unwrap_or(rough);
    let first = (low / step - 1e-9).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|v| *v <= high + 1e-9 * span).take(20).collect()
}

fn number(v: f64) -> String {
    let rounded = (v * 100.0).round() / 100.0;
    if rounded == 0.0 { "0".into() } else { format!("{rounded}") }
}

impl Chart<'_> {
    /// The chart with its legend, as one HTML figure.
    pub fn figure(&self, caption: &str) -> String {
        let mut out = format!("<figure>{}", self.svg());
        if self.series.len() > 1 || !self.levels.is_empty() {
            out += "<p class=legend>";
            for (i, s) in self.series.iter().enumerate() {
                let _ = write!(
                    out,
                    "<span><svg width=26 height=10 aria-hidden=true>{}</svg> {}</span> ",
                    key(i, s.scatter),
                    escape(&s.name)
                );
            }
            out += "</p>";
        }
        let _ = write!(out, "<figcaption>{}</figcaption></figure>", escape(caption));
        out
    }

    fn px(&self, x: f64) -> f64 {
        LEFT + (x - self.x.1) / (self.x.2 - self.x.1).max(1e-12) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        let part = ((y - self.y.1) / (self.y.2 - self.y.1).max(1e-12)).clamp(-0.02, 1.02);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }

    fn svg(&self) -> String {
        let mut s = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\" font-size=12>",
            escape(self.title)
        );
        for y in ticks(self.y.1, self.y.2) {
            let at = self.py(y);
            let _ = write!(
                s,
                "<line class=grid x1={LEFT} x2={:.1} y1={at:.1} y2={at:.1} /><text x={:.1} y={:.1} text-anchor=end>{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(y)
            );
        }
        for x in ticks(self.x.1, self.x.2) {
            let at = self.px(x);
            let _ = write!(
                s,
                "<line class=grid x1={at:.1} x2={at:.1} y1={TOP} y2={:.1} /><text x={at:.1} y={:.1} text-anchor=middle>{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0,
                number(x)
            );
        }
        let _ = write!(
            s,
            "<text x={:.1} y={:.1} text-anchor=middle>{}</text><text transform=\"translate(14 {:.1}) rotate(-90)\" \
             text-anchor=middle>{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(self.x.0),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escape(self.y.0)
        );
        for (name, y) in &self.levels {
            let at = self.py(*y);
            let _ = write!(
                s,
                "<line class=level x1={LEFT} x2={:.1} y1={at:.1} y2={at:.1} /><text class=level x={:.1} y={:.1}>{}</text>",
                WIDTH - RIGHT,
                LEFT + 4.0,
                at - 4.0,
                escape(name)
            );
        }
        for (i, series) in self.series.iter().enumerate() {
            self.line(&mut s, i, series);
        }
        self.name_points(&mut s);
        s + "</svg>"
    }

    /// Writes names beside points, on the first side where nothing else is; the ringed point
    /// chooses first.
    fn name_points(&self, s: &mut String) {
        let at = |n: &Note| (self.px(n.x), self.py(n.y));
        let mut taken: Vec<[f64; 4]> =
            self.notes.iter().map(at).map(|(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
        let (ringed, others): (Vec<&Note>, Vec<&Note>) = self.notes.iter().partition(|note| note.ringed);
        for note in ringed.into_iter().chain(others) {
            let (x, y) = at(note);
            if note.ringed {
                let _ = write!(s, "<circle class=ring cx={x:.1} cy={y:.1} r=8 fill=none stroke-width=2 />");
            }
            let wide = LETTER * note.text.chars().count() as f64;
            let sides = [(x + 11.0, y), (x - 11.0 - wide, y), (x - wide / 2.0, y - 14.0), (x - wide / 2.0, y + 15.0)];
            let near = [-10.0, 11.0, -22.0, 22.0].map(|up| [(x + 9.0, y + up), (x - 9.0 - wide, y + up)]);
            let boxes =
                sides.into_iter().chain(near.into_iter().flatten()).map(|(x, y)| [x, y - 6.0, x + wide, y + 6.0]);
            let free = |b: &[f64; 4]| {
                b[0] > LEFT
                    && b[2] < WIDTH
                    && b[1] > 0.0
                    && b[3] < HEIGHT - BOTTOM
                    && !taken.iter().any(|t| overlap(t, b))
            };
            if let Some(place) = boxes.into_iter().find(free) {
                // At the end of the place that is nearest the point: letters may be narrower.
                let (to, anchor) = match place {
                    [_, _, right, _] if right < x => (right, "end"),
                    [left, ..] if left > x => (left, "start"),
                    [left, _, right, _] => (f64::midpoint(left, right), "middle"),
                };
                let (line, text) = (place[3] - 2.5, escape(&note.text));
                let _ = write!(s, "<text class=name text-anchor={anchor} x={to:.1} y={line:.1}>{text}</text>");
                taken.push(place);
            }
        }
    }

    fn line(&self, s: &mut String, i: usize, series: &Series) {
        let (colour, dash) = (COLOURS[i % COLOURS.len()], DASHES[i % DASHES.len()]);
        if !series.scatter {
            let path: Vec<String> =
                series.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", self.px(x), self.py(y))).collect();
            let _ = write!(
                s,
                "<polyline points=\"{}\" fill=none stroke={colour} stroke-width=2 stroke-dasharray=\"{dash}\"/>",
                path.join(" ")
            );
        }
        for (k, &(x, y)) in series.points.iter().enumerate() {
            let (cx, cy) = (self.px(x), self.py(y));
            if let Some(Some([low, high])) = series.spread.get(k) {
                let (a, b) = (self.py(*low), self.py(*high));
                let _ = write!(
                    s,
                    "<path d=\"M{cx:.1} {a:.1}V{b:.1}M{:.1} {a:.1}h6M{:.1} {b:.1}h6\" stroke={colour} stroke-width=1.3 fill=none />",
                    cx - 3.0,
                    cx - 3.0
                );
            }
            let title = format!("<title>{}: {}, {}</title>", escape(&series.name), number(x), number(y));
            let _ = if i.is_multiple_of(2) {
                write!(s, "<circle cx={cx:.1} cy={cy:.1} r=3.4 fill={colour}>{title}</circle>")
            } else {
                write!(s, "<rect x={:.1} y={:.1} width=6.4 height=6.4 fill={colour}>{title}</rect>", cx - 3.2, cy - 3.2)
            };
        }
    }
}

/// How a series looks, for the legend.
fn key(i: usize, scatter: bool) -> String {
    let (colour, dash) = (COLOURS[i % COLOURS.len()], DASHES[i % DASHES.len()]);
    match (scatter, i.is_multiple_of(2)) {
        (true, true) => format!("<circle cx=13 cy=5 r=3.4 fill={colour} />"),
        (true, false) => format!("<rect x=9.8 y=1.8 width=6.4 height=6.4 fill={colour} />"),
        (false, _) => {
            format!("<line x1=0 y1=5 x2=26 y2=5 stroke={colour} stroke-width=2.5 stroke-dasharray=\"{dash}\"/>")
        }
    }
}

/// Whether two boxes (left, top, right, bottom) have a point in common.
fn overlap(a: &[f64; 4], b: &[f64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Bars with error bars, one group after the other: `(label, value, interval)`.
pub fn bars(title: &str, axis: &str, groups: &[(String, f64, Option<[f64; 2]>)]) -> String {
    const ROW: f64 = 20.0;
    const LABEL: f64 = 206.0;
    let low = groups.iter().map(|g| g.2.map_or(g.1, |i| i[0])).fold(0.0, f64::min);
    let high = groups.iter().map(|g| g.2.map_or(g.1, |i| i[1])).fold(1.0, f64::max);
    let height = groups.len() as f64 * ROW + 44.0;
    let px = |v: f64| LABEL + (v - low) / (high - low) * (WIDTH - LABEL - 50.0);
    let mut s =
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"{}\" font-size=11>", escape(title));
    for x in ticks(low, high) {
        let _ = write!(
            s,
            "<line class=grid x1={0:.1} x2={0:.1} y1=0 y2={1:.1} /><text x={0:.1} y={2:.1} text-anchor=middle>{3}</text>",
            px(x),
            height - 40.0,
            height - 24.0,
            number(x)
        );
    }
    for (i, (label, value, interval)) in groups.iter().enumerate() {
        let y = i as f64 * ROW;
        let (a, b) = (px(value.min(0.0)), px(value.max(0.0)));
        let _ = write!(
            s,
            "<text x={:.1} y={:.1} text-anchor=end>{}</text><rect x={a:.1} y={:.1} width={:.1} height=12 fill={} />",
            LABEL - 8.0,
            y + 14.0,
            escape(label),
            y + 4.0,
            (b - a).max(0.5),
            COLOURS[0]
        );
        let mut end = b;
        if let Some([l, h]) = interval {
            end = end.max(px(*h));
            let _ = write!(
                s,
                "<path d=\"M{0:.1} {2:.1}H{1:.1}M{0:.1} {3:.1}v8M{1:.1} {3:.1}v8\" class=bar fill=none />",
                px(*l),
                px(*h),
                y + 10.0,
                y + 6.0
            );
        }
        let _ = write!(s, "<text x={:.1} y={:.1}>{:.1}</text>", end + 5.0, y + 14.0, value);
    }
    let _ = write!(
        s,
        "<text x={:.1} y={:.1} text-anchor=middle>{}</text></svg>",
        (LABEL + WIDTH - 50.0) / 2.0,
        height - 6.0,
        escape(axis)
    );
    s
}
