//! The picture of `jali bench inference --sweep`.

use std::time::Duration;

use super::inference::Point;
use crate::text::ms;

/// Latency against the fraction open, as a small self-contained SVG.
pub(super) fn plot(network: &str, sweep: &[Point], clear: Duration) -> String {
    let (width, height, left, top) = (640.0, 360.0, 70.0, 40.0);
    let most = sweep.iter().map(|p| p.latency_ms).fold(1.0, f64::max) * 1.1;
    let x = |open: f64| left + open * (width - left - 20.0);
    let y = |ms: f64| top + (1.0 - ms / most) * (height - top - 50.0);
    let line: Vec<String> = sweep.iter().map(|p| format!("{:.1},{:.1}", x(p.leak), y(p.latency_ms))).collect();
    let dots: String = sweep
        .iter()
        .map(|p| {
            let (x, y) = (x(p.leak), y(p.latency_ms));
            let title = format!("{:.0} % open: {:.1} ms", 100.0 * p.leak, p.latency_ms);
            format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#1b6ca8\"><title>{title}</title></circle>\n")
        })
        .collect();
    let ticks: String = (0..=4)
        .map(|i| {
            let (open, ms) = (f64::from(i) / 4.0, most * f64::from(i) / 4.0);
            format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0} %</text>\n<text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{ms:.1} ms</text>\n<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" \
                 stroke=\"#ddd\"/>\n",
                x(open),
                height - 30.0,
                100.0 * open,
                left - 8.0,
                y(ms) + 4.0,
                width - 20.0,
                y(ms),
                y(ms)
            )
        })
        .collect();
    let clear_ms = ms(clear);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{left}\" y=\"20\" \
         font-size=\"14\">Latency per image against weights allowed open ({})</text>\n{ticks}<line x1=\"{left}\" \
         x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#999\" stroke-dasharray=\"4\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"end\" fill=\"#666\">in the clear, {clear_ms:.1} ms</text>\n<polyline points=\"{}\" fill=\"none\" \
         stroke=\"#1b6ca8\" stroke-width=\"2\"/>\n{dots}<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">weights \
         allowed open (random rows)</text>\n</svg>\n",
        escape(network),
        width - 20.0,
        y(clear_ms),
        y(clear_ms),
        width - 24.0,
        y(clear_ms) - 5.0,
        line.join(" "),
        (left + width) / 2.0,
        height - 10.0
    )
}

/// Text inside XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
