//! A network's graph as a picture: nodes in layers from top to bottom, the server's part coloured.

use jali_model::Graph;

const WIDTH: usize = 230;
const HEIGHT: usize = 34;
const GAP_X: usize = 24;
const GAP_Y: usize = 22;
const MARGIN: usize = 24;
/// Longest text in a box, in characters.
const TEXT: usize = 34;

/// The picture, self-contained.
pub(super) fn draw(graph: &Graph, title: &str) -> String {
    let places = Places::of(graph);
    let mut svg = places.head(title);
    for (i, node) in graph.nodes().iter().enumerate() {
        for &input in &node.inputs {
            svg += &places.edge(input, i + 1);
        }
    }
    for value in 0..=graph.nodes().len() {
        svg += &places.node(graph, value);
    }
    svg + "</svg>\n"
}

/// Where the boxes of values stand.
struct Places {
    /// Row of every value, counted from the top.
    depth: Vec<usize>,
    /// Column of every value, counted from the left.
    column: Vec<usize>,
    rows: usize,
    columns: usize,
}

impl Places {
    /// A node stands below everything that it reads; places in a row are taken from left to right.
    fn of(graph: &Graph) -> Self {
        let values = graph.nodes().len() + 1;
        let mut depth = vec![0; values];
        for (i, node) in graph.nodes().iter().enumerate() {
            depth[i + 1] = 1 + node.inputs.iter().map(|&v| depth[v]).max().unwrap_or(0);
        }
        let rows = depth.iter().max().map_or(1, |d| d + 1);
        let mut taken = vec![0usize; rows];
        let mut column = vec![0; values];
        for v in 0..values {
            // Below the leftmost of its inputs where that place is free.
            let inputs = v.checked_sub(1).map_or(&[][..], |i| &graph.nodes()[i].inputs);
            let wish = inputs.iter().map(|&input| column[input]).min().unwrap_or(0);
            column[v] = wish.max(taken[depth[v]]);
            taken[depth[v]] = column[v] + 1;
        }
        let columns = taken.iter().max().copied().unwrap_or(1);
        Self { depth, column, rows, columns }
    }

    /// The left upper corner of a value's box.
    fn at(&self, value: usize) -> (usize, usize) {
        (MARGIN + self.column[value] * (WIDTH + GAP_X), 60 + self.depth[value] * (HEIGHT + GAP_Y))
    }

    /// What stands before the boxes: size, title, legend.
    fn head(&self, title: &str) -> String {
        let width = 2 * MARGIN + self.columns * (WIDTH + GAP_X);
        let height = 60 + self.rows * (HEIGHT + GAP_Y) + MARGIN;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\
             <title>{0}</title><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
             <text x=\"{MARGIN}\" y=\"24\" font-size=\"14\" font-weight=\"bold\">{0}</text>\
             <rect x=\"{MARGIN}\" y=\"34\" width=\"12\" height=\"12\" fill=\"#1f4e79\"/><text x=\"{1}\" y=\"44\">server, on masked data</text>\
             <rect x=\"{2}\" y=\"34\" width=\"12\" height=\"12\" fill=\"#eef1f4\" stroke=\"#8a97a5\"/><text x=\"{3}\" y=\"44\">client, in the clear</text>",
            escaped(title),
            MARGIN + 18,
            MARGIN + 180,
            MARGIN + 198
        )
    }

    /// The line from a value to a node that reads it.
    fn edge(&self, input: usize, reader: usize) -> String {
        let ((from_x, from_y), (x, y)) = (self.at(input), self.at(reader));
        if from_x == x && self.depth[reader] > self.depth[input] + 1 {
            // Around what stands between.
            let (side, y0, y1) = (x + WIDTH, from_y + HEIGHT / 2, y + HEIGHT / 2);
            return format!(
                "<path d=\"M{side} {y0}C{0} {y0} {0} {y1} {side} {y1}\" fill=\"none\" stroke=\"#8a97a5\"/>",
                side + GAP_X
            );
        }
        let (x0, y0, x1, y1) = (from_x + WIDTH / 2, from_y + HEIGHT, x + WIDTH / 2, y);
        let bend = (y1 - y0) / 2;
        format!(
            "<path d=\"M{x0} {y0}C{x0} {0} {x1} {1} {x1} {y1}\" fill=\"none\" stroke=\"#8a97a5\"/>",
            y0 + bend,
            y1 - bend
        )
    }

    /// The box of a value.
    fn node(&self, graph: &Graph, value: usize) -> String {
        let (x, y) = self.at(value);
        let (name, operator, server) = match value.checked_sub(1).map(|i| &graph.nodes()[i]) {
            None => ("image", "input", false),
            Some(n) => (n.name.as_str(), n.op.name(), n.op.linear().is_some()),
        };
        let (fill, ink) = if server { ("#1f4e79", "#fff") } else { ("#eef1f4", "#1a1f24") };
        let edge = if graph.outputs().contains(&value) { "#b3541e\" stroke-width=\"2.5" } else { "#8a97a5" };
        let shape: Vec<String> = graph.shape(value).iter().map(usize::to_string).collect();
        format!(
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"4\" fill=\"{fill}\" stroke=\"{edge}\"/>\
             <text x=\"{3}\" y=\"{4}\" fill=\"{ink}\" font-weight=\"bold\">{1} {5}</text><text x=\"{3}\" y=\"{6}\" fill=\"{ink}\">{2}</text></g>",
            escaped(name),
            operator,
            escaped(&shortened(name)),
            x + 8,
            y + 14,
            shape.join("x"),
            y + 27
        )
    }
}

/// The end of a long name tells more than its beginning.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= TEXT {
        name.into()
    } else {
        format!("…{}", name.chars().skip(length - TEXT + 1).collect::<String>())
    }
}

fn escaped(text: &str) -> String {
    let character = |c: char| match c {
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        '"' => "&quot;".into(),
        c if c.is_control() => String::new(),
        c => c.to_string(),
    };
    text.chars().map(character).collect()
}
