//! How cost grows with the shape of a layer, and what larger networks would take: computed by the
//! cost model.

use std::path::PathBuf;

use jali::{Backend, Costs, Link, QuantConfig, calibration};
use jali_model::{Conv, Gemm, Linear};
use jali_protocol::{Estimate, LayerShape};
use serde::Serialize;

use crate::Common;
use crate::text::{bytes, say, say_json, table};

/// Compute, by the cost model, how cost grows with channels and plane size, and what ResNet-18 and
/// ResNet-50 would take.
///
/// Nothing is sealed or run.
#[derive(clap::Parser)]
#[command(after_help = "Examples:\n  jali bench growth\n  jali bench growth --link lan --svg growth.svg")]
pub(crate) struct GrowthArgs {
    /// Also write the growth as SVG
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// loopback, lan (0.3 ms, 1 Gbit/s), wan (40 ms, 100 Mbit/s) or RTT,MBPS
    #[arg(long, value_name = "LINK", default_value = "loopback")]
    link: Link,
    #[command(flatten)]
    common: Common,
}

/// All figures are computed, none is measured. Times are milliseconds per image.
#[derive(Serialize)]
struct Report {
    computed: bool,
    layers: Vec<Point>,
    networks: Vec<Network>,
}

#[derive(Serialize)]
struct Point {
    channels: usize,
    plane: usize,
    hidden_ms: f64,
    open_ms: f64,
    traffic_bytes: usize,
    sealed_bytes: usize,
}

#[derive(Serialize)]
struct Network {
    network: &'static str,
    layers: usize,
    weights: usize,
    hidden: Totals,
    /// 80 % of every layer's rows open.
    leaked_80: Totals,
}

#[derive(Serialize)]
struct Totals {
    client_ms: f64,
    server_ms: f64,
    link_ms: f64,
    traffic_bytes: usize,
    sealed_bytes: usize,
    memory_bytes: usize,
}

/// A convolution by its shape.
#[derive(Clone, Copy)]
struct Shape {
    channels: usize,
    filters: usize,
    /// Side of the input's plane.
    plane: usize,
    /// Side of the kernel.
    kernel: usize,
    stride: usize,
}

impl Shape {
    fn weights(&self) -> usize {
        self.channels * self.filters * self.kernel.pow(2)
    }

    fn estimate(&self, open: f64, costs: &Costs) -> anyhow::Result<Estimate> {
        let Self { channels, filters, plane, kernel, stride } = *self;
        let (weight, bias, padding) = (vec![], vec![], [kernel / 2; 4]);
        let (kernel, outputs, stride) = ([kernel; 2], filters * plane.div_ceil(stride).pow(2), [stride; 2]);
        let conv = Conv { weight, bias, filters, channels, kernel, stride, padding, dilation: [1, 1], groups: 1 };
        let input = [channels, plane, plane];
        let shape = LayerShape { linear: Linear::Conv(&conv), input: &input, outputs };
        Ok(Estimate::of(&QuantConfig::default(), shape, open, costs)?)
    }
}

fn gemm([inputs, outputs]: [usize; 2], open: f64, costs: &Costs) -> anyhow::Result<Estimate> {
    let gemm = Gemm { weight: vec![], bias: vec![], inputs, outputs };
    let shape = LayerShape { linear: Linear::Gemm(&gemm), input: &[inputs], outputs };
    Ok(Estimate::of(&QuantConfig::default(), shape, open, costs)?)
}

/// ResNet-18 for 224 x 224 (He et al., 2015), without its fully connected layer.
fn resnet18() -> Vec<Shape> {
    let mut out = vec![Shape { channels: 3, filters: 64, plane: 224, kernel: 7, stride: 2 }];
    out.extend([Shape { channels: 64, filters: 64, plane: 56, kernel: 3, stride: 1 }; 4]);
    for (c, plane) in [(64, 56), (128, 28), (256, 14)] {
        out.extend([
            Shape { channels: c, filters: 2 * c, plane, kernel: 3, stride: 2 },
            Shape { channels: c, filters: 2 * c, plane, kernel: 1, stride: 2 },
        ]);
        out.extend([Shape { channels: 2 * c, filters: 2 * c, plane: plane / 2, kernel: 3, stride: 1 }; 3]);
    }
    out
}

/// ResNet-50 for 224 x 224, stride in the 3x3 layers, without its fully connected layer.
fn resnet50() -> Vec<Shape> {
    let mut out = vec![Shape { channels: 3, filters: 64, plane: 224, kernel: 7, stride: 2 }];
    let mut input = 64;
    for (c, blocks, plane) in [(64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)] {
        let stride = if c == 64 { 1 } else { 2 };
        for block in 0..blocks {
            let stride = if block == 0 { stride } else { 1 };
            out.extend([
                Shape { channels: input, filters: c, plane: plane * stride, kernel: 1, stride: 1 },
                Shape { channels: c, filters: c, plane: plane * stride, kernel: 3, stride },
            ]);
            out.push(Shape { channels: c, filters: 4 * c, plane, kernel: 1, stride: 1 });
            if block == 0 {
                out.push(Shape { channels: input, filters: 4 * c, plane: plane * stride, kernel: 1, stride });
            }
            input = 4 * c;
        }
    }
    out
}

fn network(
    network: &'static str,
    convs: &[Shape],
    fc: [usize; 2],
    costs: (Backend, &Costs),
) -> anyhow::Result<Network> {
    let weights = convs.iter().map(Shape::weights).sum::<usize>() + fc[0] * fc[1];
    let (hidden, leaked_80) = (totals(convs, fc, 0.0, weights, costs)?, totals(convs, fc, 0.8, weights, costs)?);
    Ok(Network { network, layers: convs.len() + 1, weights, hidden, leaked_80 })
}

fn totals(
    convs: &[Shape],
    fc: [usize; 2],
    open: f64,
    weights: usize,
    (backend, costs): (Backend, &Costs),
) -> anyhow::Result<Totals> {
    let mut estimates = convs.iter().map(|s| s.estimate(open, costs)).collect::<Result<Vec<_>, _>>()?;
    estimates.push(gemm(fc, open, costs)?);
    let sum = |f: &dyn Fn(&Estimate) -> f64| estimates.iter().map(f).sum::<f64>();
    let total = |f: &dyn Fn(&Estimate) -> usize| estimates.iter().map(f).sum::<usize>();
    let memory = |e: &Estimate| {
        let limb = |(l, &bits): (usize, &u32)| {
            let rows = if l == 0 { e.counts.rows } else { e.counts.rows - e.counts.short_rows };
            e.counts.row_tiles * rows * e.counts.degree * backend.held_bits(bits) / 8
        };
        e.prime_bits.iter().enumerate().map(limb).sum::<usize>()
    };
    Ok(Totals {
        client_ms: sum(&|e| e.prediction.client_ms),
        server_ms: sum(&|e| e.prediction.server_ms),
        link_ms: sum(&|e| e.prediction.link_ms),
        traffic_bytes: total(&|e| e.counts.bytes()),
        // An open weight takes about two bytes: index step and value.
        sealed_bytes: total(&|e| e.hidden_bytes) + (weights as f64 * open) as usize * 2,
        memory_bytes: total(&memory),
    })
}

pub(super) fn run(args: &GrowthArgs) -> anyhow::Result<()> {
    let backend = args.common.start()?;
    let costs = calibration::of_this_machine(backend)?.over(args.link);
    let point = |channels: usize, plane: usize| -> anyhow::Result<Point> {
        let shape = Shape { channels, filters: channels, plane, kernel: 3, stride: 1 };
        let (hidden, open) = (shape.estimate(0.0, &costs)?, shape.estimate(1.0, &costs)?);
        Ok(Point {
            channels,
            plane,
            hidden_ms: hidden.prediction.total_ms(),
            open_ms: open.prediction.total_ms(),
            traffic_bytes: hidden.counts.bytes(),
            sealed_bytes: hidden.hidden_bytes,
        })
    };
    let by_channels = [8, 16, 32, 64, 128, 256].map(|c| point(c, 32));
    let by_plane = [8, 16, 32, 64, 128].map(|plane| point(32, plane));
    let layers = by_channels.into_iter().chain(by_plane).collect::<Result<Vec<_>, _>>()?;
    let networks = vec![
        network("ResNet-18, 224 x 224", &resnet18(), [512, 1000], (backend, &costs))?,
        network("ResNet-50, 224 x 224", &resnet50(), [2048, 1000], (backend, &costs))?,
    ];
    let report = Report { computed: true, layers, networks };
    if let Some(path) = &args.svg {
        std::fs::write(path, plot(&report.layers))
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
    }
    if args.common.json { say_json(&report) } else { print(&report) }
}

/// Two panels with logarithmic axes: against channels and against the side of the plane.
fn plot(points: &[Point]) -> String {
    let most = points.iter().map(|p| p.hidden_ms).fold(1.0, f64::max).log10().ceil();
    let least = points.iter().map(|p| p.open_ms).fold(1.0, f64::min).log10().floor();
    let y = |ms: f64| 290.0 - 240.0 * (ms.log10() - least) / (most - least);
    let mut body = String::new();
    let channels: Vec<_> = points.iter().filter(|p| p.plane == 32).map(|p| (p, p.channels)).collect();
    let planes: Vec<_> = points.iter().filter(|p| p.channels == 32).map(|p| (p, p.plane)).collect();
    let panels = [(70.0, "channels (32 x 32)", channels), (400.0, "side of the plane (32 channels)", planes)];
    for (left, title, mut panel) in panels {
        panel.sort_by_key(|(_, at)| *at);
        panel.dedup_by_key(|(_, at)| *at);
        let step = 240.0 / (panel.len() - 1) as f64;
        for (i, (_, at)) in panel.iter().enumerate() {
            body +=
                &format!("<text x=\"{:.0}\" y=\"308\" text-anchor=\"middle\">{at}</text>\n", left + i as f64 * step);
        }
        for decade in least as i32..=most as i32 {
            let (at, ms) = (y(10f64.powi(decade)), 10f64.powi(decade));
            body += &format!(
                "<line x1=\"{left}\" x2=\"{:.0}\" y1=\"{at:.0}\" y2=\"{at:.0}\" stroke=\"#ddd\"/>\n<text x=\"{:.0}\" \
                 y=\"{:.0}\" text-anchor=\"end\">{ms} ms</text>\n",
                left + 240.0,
                left - 6.0,
                at + 4.0
            );
        }
        for (colour, value) in [("#1b6ca8", (|p| p.hidden_ms) as fn(&Point) -> f64), ("#c0562a", |p| p.open_ms)] {
            let line =
                panel.iter().enumerate().map(|(i, (p, _))| format!("{:.1},{:.1}", left + i as f64 * step, y(value(p))));
            let line = line.collect::<Vec<_>>().join(" ");
            body += &format!("<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n");
        }
        body += &format!("<text x=\"{:.0}\" y=\"328\" text-anchor=\"middle\">{title}</text>\n", left + 120.0);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 340\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"70\" y=\"22\" font-size=\"14\">conv 3x3, as many \
         filters as channels: computed by the cost model (<tspan fill=\"#1b6ca8\">hidden</tspan>, \
         <tspan fill=\"#c0562a\">open</tspan>)</text>\n{body}</svg>\n"
    )
}

fn print(r: &Report) -> anyhow::Result<()> {
    say("Computed by the cost model, not measured. conv 3x3, as many filters as channels:\n")?;
    let header = ["channels", "plane", "hidden ms", "open ms", "traffic", "sealed"];
    let rows = r.layers.iter().map(|p| {
        vec![
            p.channels.to_string(),
            format!("{0} x {0}", p.plane),
            format!("{:.1}", p.hidden_ms),
            format!("{:.1}", p.open_ms),
            bytes(p.traffic_bytes),
            bytes(p.sealed_bytes),
        ]
    });
    say(format!("{}\n", table(&header, 0, rows)))?;
    let header =
        ["network", "layers", "weights", "open", "client ms", "server ms", "link ms", "traffic", "sealed", "memory"];
    let rows = r.networks.iter().flat_map(|n| {
        let row = move |open: &str, t: &Totals| {
            vec![
                n.network.into(),
                n.layers.to_string(),
                n.weights.to_string(),
                open.into(),
                format!("{:.0}", t.client_ms),
                format!("{:.0}", t.server_ms),
                format!("{:.0}", t.link_ms),
                bytes(t.traffic_bytes),
                bytes(t.sealed_bytes),
                bytes(t.memory_bytes),
            ]
        };
        [row("none", &n.hidden), row("80 %", &n.leaked_80)]
    });
    say(format!("{}\n", table(&header, 1, rows)))?;
    say("Depth adds up: one layer's cost does not depend on the others.")?;
    Ok(())
}
