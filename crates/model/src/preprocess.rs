//! Turns pixels into a network's input.

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Order of the dimensions of a network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageLayout {
    /// `[channels, height, width]`: PyTorch.
    #[default]
    Nchw,
    /// `[height, width, channels]`: Keras.
    Nhwc,
}

/// Order of the colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colours {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red: OpenCV and Caffe.
    Bgr,
}

/// What happens to an image of another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// It is refused.
    #[default]
    None,
    /// It is stretched to the network's size.
    Stretch,
    /// It is scaled until its shorter side is 8/7 of the network's (256 for 224) and cut at the
    /// centre.
    Crop,
}

/// How images become inputs: `(pixel * input_scale - mean) / std`, pixels from 0 to 255. Arrays of
/// floats are inputs already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocess {
    /// Factor of every pixel.
    pub input_scale: f32,
    /// Subtracted from every channel; none, one for all, or one for each.
    pub mean: Vec<f32>,
    /// Divisor of every channel; none, one for all, or one for each.
    pub std: Vec<f32>,
    /// Order of the dimensions.
    pub layout: ImageLayout,
    /// Order of the colours.
    pub channels: Colours,
    /// What happens to an image of another size.
    pub resize: Resize,
}

impl Default for Preprocess {
    /// Divides pixels by 255 and does nothing else.
    fn default() -> Self {
        Self {
            input_scale: 1.0 / 255.0,
            mean: vec![],
            std: vec![],
            layout: ImageLayout::default(),
            channels: Colours::default(),
            resize: Resize::default(),
        }
    }
}

impl Preprocess {
    /// Returns channels, height and width of images for a network whose input has this shape, or
    /// `None` if it takes no images.
    pub fn image_size(&self, shape: &[usize]) -> Option<[usize; 3]> {
        match (shape, self.layout) {
            (&[c, h, w], ImageLayout::Nchw) | (&[h, w, c], ImageLayout::Nhwc) => Some([c, h, w]),
            _ => None,
        }
    }

    /// Checks that the numbers make sense for a network with this input.
    ///
    /// # Errors
    /// [`ModelError::Preprocess`] naming the field.
    pub fn check(&self, shape: &[usize]) -> Result<(), ModelError> {
        let channels = self.image_size(shape).map_or(1, |[c, ..]| c);
        let fail = |field, why: String| Err(ModelError::Preprocess { field, why });
        if !(self.input_scale.is_finite() && self.input_scale > 0.0) {
            return fail("input_scale", format!("must be a number above 0, got {}", self.input_scale));
        }
        for (field, list) in [("mean", &self.mean), ("std", &self.std)] {
            if !(list.len() <= 1 || list.len() == channels) {
                return fail(field, format!("has {} values, the network's input has {channels} channels", list.len()));
            }
            if list.iter().any(|v| !v.is_finite()) || field == "std" && list.iter().any(|v| *v <= 0.0) {
                return fail(field, format!("must be finite numbers (std above 0), got {list:?}"));
            }
        }
        if self.channels == Colours::Bgr && channels != 3 {
            return fail("channels", format!("\"bgr\" needs three channels, the network's input has {channels}"));
        }
        Ok(())
    }

    fn at(list: &[f32], channel: usize, default: f32) -> f32 {
        match list {
            [] => default,
            [one] => *one,
            more => more.get(channel).copied().unwrap_or(default),
        }
    }

    /// Returns a pixel's value, 0 to 255, as the network takes it. `channel` counts in the
    /// network's order.
    pub fn value(&self, pixel: f32, channel: usize) -> f32 {
        // For the usual scale it divides, which gives the numbers that training saw to the last
        // bit.
        let scaled = if self.input_scale == 1.0 / 255.0 { pixel / 255.0 } else { pixel * self.input_scale };
        (scaled - Self::at(&self.mean, channel, 0.0)) / Self::at(&self.std, channel, 1.0)
    }

    /// Returns the smallest and largest value of inputs of this shape.
    pub fn input_range(&self, shape: &[usize]) -> (f32, f32) {
        self.range(self.image_size(shape).map_or(1, |[channels, ..]| channels))
    }

    /// Returns the smallest and largest value that a pixel of so many channels can become.
    pub fn range(&self, channels: usize) -> (f32, f32) {
        let ends = (0..channels.max(1)).flat_map(|c| [self.value(0.0, c), self.value(255.0, c)]);
        ends.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    }

    /// Turns pixels `[height][width][channel]` in red, green, blue, 0 to 255, into a network's
    /// input in the layout that it takes.
    pub fn apply(&self, pixels: &[f32], [channels, height, width]: [usize; 3]) -> Vec<f32> {
        let source = |c: usize| if self.channels == Colours::Bgr { channels - 1 - c } else { c };
        let value = |at: usize, c: usize| self.value(pixels[at * channels + source(c)], c);
        let places = height * width;
        match self.layout {
            ImageLayout::Nchw => (0..channels).flat_map(|c| (0..places).map(move |at| value(at, c))).collect(),
            ImageLayout::Nhwc => (0..places).flat_map(|at| (0..channels).map(move |c| value(at, c))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_inputs_in_every_order() {
        // Two pixels, red to blue.
        let pixels = [0.0, 51.0, 102.0, 153.0, 204.0, 255.0];
        let plain = Preprocess::default();
        let got: Vec<f32> = plain.apply(&pixels, [3, 1, 2]).iter().map(|v| (v * 10.0).round()).collect();
        assert_eq!(got, [0.0, 6.0, 2.0, 8.0, 4.0, 10.0]);
        let bgr = Preprocess { input_scale: 1.0, channels: Colours::Bgr, layout: ImageLayout::Nhwc, ..plain.clone() };
        assert_eq!(bgr.apply(&pixels, [3, 1, 2]), [102.0, 51.0, 0.0, 255.0, 204.0, 153.0]);
        let normal = Preprocess { mean: vec![0.5], std: vec![0.25, 0.5, 1.0], ..plain };
        assert_eq!(normal.range(3), (-2.0, 2.0));
        assert_eq!(normal.value(255.0, 2), 0.5);
    }

    #[test]
    fn wrong_fields_are_named() {
        let check = |p: Preprocess| p.check(&[3, 4, 4]).unwrap_err().to_string();
        let base = Preprocess::default;
        assert!(base().check(&[3, 4, 4]).is_ok());
        assert!(check(Preprocess { input_scale: 0.0, ..base() }).contains("input_scale"));
        assert!(check(Preprocess { mean: vec![0.5; 2], ..base() }).contains("mean"));
        assert!(check(Preprocess { std: vec![0.0], ..base() }).contains("std"));
        assert!(Preprocess { channels: Colours::Bgr, ..base() }.check(&[1, 4, 4]).is_err());
    }
}
