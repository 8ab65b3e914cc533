//! Reads Resize and Upsample: nearest, linear and cubic, axis by axis.

use super::constant::axis_of;
use super::importer::Importer;
use super::place::{MAX_EXTENT, Places};
use super::reading::Reading;
use super::refusal::Refusal;
use crate::graph::ValueId;
use crate::op::{Op, Resample, ResampleAxis, SelectKind};

/// Most weights of one axis.
const MAX_TAPS: usize = 1 << 24;

/// One axis that changes its size.
#[derive(Debug, Clone, Copy)]
struct Axis {
    /// Its index as the file counts it.
    axis: usize,
    from: usize,
    to: usize,
    scale: f64,
}

/// Ways to place an output among the inputs.
#[derive(Debug, Clone, Copy)]
enum Transform {
    Asymmetric,
    HalfPixel,
    PytorchHalfPixel,
    AlignCorners,
    HalfPixelSymmetric,
}

impl Transform {
    fn named(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "asymmetric" => Self::Asymmetric,
            "half_pixel" => Self::HalfPixel,
            "pytorch_half_pixel" => Self::PytorchHalfPixel,
            "align_corners" => Self::AlignCorners,
            "half_pixel_symmetric" => Self::HalfPixelSymmetric,
            other => return Err(format!("its coordinate_transformation_mode \"{other}\" is not supported").into()),
        })
    }

    fn place(self, a: Axis, output: usize) -> f64 {
        let (o, n) = (output as f64, a.from as f64);
        match self {
            Self::Asymmetric => o / a.scale,
            Self::PytorchHalfPixel if a.to <= 1 => 0.0,
            Self::HalfPixel | Self::PytorchHalfPixel => (o + 0.5) / a.scale - 0.5,
            // The length before it is cut to an integer, as the standard's reference has it.
            Self::AlignCorners if n * a.scale <= 1.0 => 0.0,
            Self::AlignCorners => o * (n - 1.0) / (n * a.scale - 1.0),
            Self::HalfPixelSymmetric => {
                let adjusted = a.to as f64 / (n * a.scale);
                n / 2.0 * (1.0 - adjusted) + (o + 0.5) / a.scale - 0.5
            }
        }
    }
}

/// Ways to weight neighbours.
#[derive(Debug, Clone, Copy)]
struct Interpolation {
    /// The cubic's coefficient; without one it is linear.
    cubic: Option<f64>,
    /// Whether the filter grows with the step where there are fewer outputs than inputs.
    antialias: bool,
    /// Whether neighbours beyond the edge have no weight, instead of counting as the edge.
    exclude_outside: bool,
}

impl Interpolation {
    /// Returns the weight of a neighbour at this distance.
    fn weight(self, distance: f64) -> f64 {
        let d = distance.abs();
        match self.cubic {
            None => (1.0 - d).max(0.0),
            Some(a) if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Some(a) if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Some(_) => 0.0,
        }
    }

    /// Returns inputs and weights of the output that stands at `at`.
    fn taps(self, a: Axis, at: f64) -> Vec<(u32, f32)> {
        let shrink = if self.antialias { a.scale.min(1.0) } else { 1.0 };
        let support = if self.cubic.is_some() { 2.0 } else { 1.0 } / shrink;
        let last = a.from as i64 - 1;
        let (first, end) = ((at - support).floor() as i64, (at + support).ceil() as i64);
        let mut weights = std::collections::BTreeMap::new();
        for p in first..=end {
            let weight = self.weight((p as f64 - at) * shrink);
            let counts = !self.exclude_outside || (0..=last).contains(&p);
            if counts && weight != 0.0 {
                *weights.entry(p.clamp(0, last) as u32).or_insert(0.0) += weight;
            }
        }
        let sum: f64 = weights.values().sum();
        let sum = if sum == 0.0 { 1.0 } else { sum };
        weights.into_iter().map(|(p, w)| (p, (w / sum) as f32)).collect()
    }
}

impl Importer<'_, '_> {
    pub(super) fn resize(&mut self, r: &Reading<'_>) -> Result<ValueId, Refusal> {
        let x = self.value(r, 0)?;
        let old = r.node.op_type == "Upsample" || self.opset < 11;
        let axes = self.resized_axes(r, x, old)?;
        let transform = r.text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" });
        let transform = Transform::named(&transform)?;
        match r.text("mode", "nearest").as_str() {
            "nearest" => {
                let rounding = r.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" });
                self.nearest(r, x, &axes, transform, &rounding)
            }
            mode @ ("linear" | "cubic") => {
                let how = Interpolation {
                    cubic: (mode == "cubic").then(|| f64::from(r.float("cubic_coeff_a", -0.75))),
                    antialias: r.int("antialias", 0) != 0,
                    exclude_outside: r.int("exclude_outside", 0) != 0,
                };
                self.interpolated(r, x, &axes, transform, how)
            }
            other => Err(format!("its mode \"{other}\" is unknown").into()),
        }
    }

    /// Returns the axes whose size changes; `old` says that the node is as in early operator sets.
    fn resized_axes(&self, r: &Reading<'_>, x: ValueId, old: bool) -> Result<Vec<Axis>, Refusal> {
        let dims = self.dims(x);
        let scales = match (r.attribute("scales"), old) {
            (Some(a), _) => Some(a.floats.clone()),
            (None, true) => self.weights(r, 1)?.map(|w| w.1),
            (None, false) => self.weights(r, 2)?.map(|w| w.1).filter(|s| !s.is_empty()),
        };
        let sizes = if old { None } else { self.ints(r, 3)? };
        let axes: Vec<usize> = match r.list("axes") {
            Some(axes) => axes.iter().map(|&a| axis_of(a, dims.len())).collect::<Result<_, _>>()?,
            None => (0..dims.len()).collect(),
        };
        let mut resized: Vec<Axis> = match (sizes, scales) {
            (Some(sizes), _) if sizes.len() == axes.len() => {
                let size = |(&s, &axis): (&i64, &usize)| -> Result<Axis, Refusal> {
                    let to = usize::try_from(s).map_err(|_| "its sizes are negative")?;
                    Ok(Axis { axis, from: dims[axis], to, scale: to as f64 / dims[axis] as f64 })
                };
                let mut resized = sizes.iter().zip(&axes).map(size).collect::<Result<Vec<_>, _>>()?;
                keep_aspect(&mut resized, &r.text("keep_aspect_ratio_policy", "stretch"))?;
                resized
            }
            (None, Some(scales)) if scales.len() == axes.len() => {
                let size = |(&scale, &axis): (&f32, &usize)| {
                    let (from, scale) = (dims[axis], f64::from(scale));
                    Axis { axis, from, to: (from as f64 * scale).floor() as usize, scale }
                };
                scales.iter().zip(&axes).map(size).collect()
            }
            _ => return Err("has neither sizes nor scales for its dimensions".into()),
        };
        resized.retain(|a| a.from != a.to || a.scale != 1.0);
        match resized.iter().find(|a| a.to == 0 || a.to > MAX_EXTENT || !a.scale.is_finite()) {
            Some(a) => Err(format!("gives axis {} the size {}, 1 to {MAX_EXTENT} are supported", a.axis, a.to).into()),
            None => Ok(resized),
        }
    }

    /// Appends a selection of the nearest elements of `x` along `axes`. `transform` places an
    /// output among the inputs, and `rounding` is the file's word for how that place becomes a
    /// whole one.
    fn nearest(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        axes: &[Axis],
        transform: Transform,
        rounding: &str,
    ) -> Result<ValueId, Refusal> {
        let mut selected = vec![];
        for &a in axes {
            let place = |o: usize| -> Result<Option<u32>, Refusal> {
                let at = transform.place(a, o);
                let whole = match rounding {
                    "floor" => at.floor(),
                    "ceil" => at.ceil(),
                    "round_prefer_ceil" => (at + 0.5).floor(),
                    "round_prefer_floor" => (at - 0.5).ceil(),
                    other => return Err(format!("its nearest_mode \"{other}\" is not supported").into()),
                };
                Ok(Some(whole.clamp(0.0, (a.from - 1) as f64) as u32))
            };
            selected.push((a.axis as i64, (0..a.to).map(place).collect::<Result<Places, _>>()?));
        }
        self.select_along(r, x, SelectKind::Resize, selected, 0.0)
    }

    /// Appends weighted sums of neighbours in `x` along `axes`. `transform` places an output among
    /// the inputs, and `how` weights the inputs around it.
    fn interpolated(
        &mut self,
        r: &Reading<'_>,
        x: ValueId,
        axes: &[Axis],
        transform: Transform,
        how: Interpolation,
    ) -> Result<ValueId, Refusal> {
        if axes.is_empty() {
            return Ok(x);
        }
        let counted: Vec<i64> = axes.iter().map(|a| a.axis as i64).collect();
        let (x, own) = self.along(r, x, &counted)?;
        let mut resampled = vec![];
        for (&a, &axis) in axes.iter().zip(&own) {
            let lists: Vec<Vec<(u32, f32)>> = (0..a.to).map(|o| how.taps(a, transform.place(a, o))).collect();
            let taps = lists.iter().map(Vec::len).max().unwrap_or(1).max(1);
            if taps.saturating_mul(a.to) > MAX_TAPS {
                return Err("has too many weights".into());
            }
            let padded = lists.into_iter().flat_map(|list| {
                let missing = taps - list.len();
                list.into_iter().chain(std::iter::repeat_n((0, 0.0), missing))
            });
            let (places, weights) = padded.unzip();
            resampled.push(ResampleAxis { axis, taps, places, weights });
        }
        resampled.sort_by_key(|a| a.axis);
        let y = self.push(r, Op::Resample(Resample { axes: resampled }), vec![x])?;
        self.settled(r, y)
    }
}

/// Makes all axes grow alike, by the smallest or the largest of their scales.
fn keep_aspect(axes: &mut [Axis], policy: &str) -> Result<(), Refusal> {
    let scales = axes.iter().map(|a| a.scale);
    let scale = match policy {
        "stretch" => return Ok(()),
        "not_larger" => scales.fold(f64::INFINITY, f64::min),
        "not_smaller" => scales.fold(0.0, f64::max),
        other => return Err(format!("its keep_aspect_ratio_policy \"{other}\" is unknown").into()),
    };
    for a in axes {
        (a.scale, a.to) = (scale, (a.from as f64 * scale + 0.5).floor() as usize);
    }
    Ok(())
}
