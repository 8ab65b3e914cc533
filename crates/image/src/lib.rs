//! Turns PNG, JPEG and .npy files into the tensor that a model needs, and back. The kind is told by
//! the content. It does no input or output: whoever has it brings the bytes.
#![forbid(unsafe_code)]

mod fault;
mod npy;
mod whole;

use std::io::Cursor;

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader};
use jali_model::{ModelError, Preprocess, Resize, Tensor};

pub use self::fault::{ImageFault, ImageKind};
pub use self::npy::{Values, floats_of_npy, from_array, npy_bytes, npy_of_integers};

/// Most pixels of an image that is resized.
const MAX_PIXELS: usize = 1 << 26;

/// The kind of image that a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pixels: PNG or JPEG.
    Pixels,
    /// A NumPy array.
    Array,
}

/// Returns the kind of image that a file's first bytes tell, or `None` if it is none that is read.
pub fn kind_of(head: &[u8]) -> Option<Kind> {
    match head {
        h if h.starts_with(b"\x93NUMPY") => Some(Kind::Array),
        h if h.starts_with(b"\x89PNG\r\n\x1a\n") || h.starts_with(b"\xff\xd8\xff") => Some(Kind::Pixels),
        _ => None,
    }
}

/// Returns the input that the bytes of an image file are for a model with the given input shape.
/// Pixels of PNG and JPEG (and integer arrays) become inputs as `preprocess` says; floating-point
/// arrays are inputs already.
///
/// # Errors
/// [`ImageFault`] with what is wrong.
pub fn decode_image(bytes: &[u8], shape: &[usize], preprocess: &Preprocess) -> Result<Tensor, ImageFault> {
    let data = if bytes.starts_with(b"\x93NUMPY") {
        npy::decode(bytes, shape, preprocess)?
    } else {
        decode_pixels(bytes, shape, preprocess)?
    };
    tensor(shape, data)
}

/// Returns a PNG of an image `[channels, height, width]` of one or three channels, whose values are
/// 0 to 1, or `None` if it is another tensor.
pub fn png_bytes(image: &Tensor) -> Option<Vec<u8>> {
    let &[channels, height, width] = &image.shape[..] else { return None };
    let colour = match channels {
        1 => ColorType::L8,
        3 => ColorType::Rgb8,
        _ => return None,
    };
    let places = height * width;
    let pixel = |at: usize, channel: usize| (image.data[channel * places + at] * 255.0).round() as u8;
    let pixels: Vec<u8> = (0..places).flat_map(|at| (0..channels).map(move |c| pixel(at, c))).collect();
    let mut bytes = vec![];
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(&pixels, width as u32, height as u32, colour.into()).ok()?;
    Some(bytes)
}

/// Makes an input of its values.
fn tensor(shape: &[usize], data: Vec<f32>) -> Result<Tensor, ImageFault> {
    Tensor::new("image", shape.to_vec(), data).map_err(|e| match e {
        ModelError::NotFinite { index, .. } => ImageFault::NotFinite { index },
        other => ImageFault::Damaged(other.to_string()),
    })
}

fn decode_pixels(bytes: &[u8], shape: &[usize], preprocess: &Preprocess) -> Result<Vec<f32>, ImageFault> {
    let damaged = |e: image::ImageError| ImageFault::Damaged(e.to_string());
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| ImageFault::NotAnImage)?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err(ImageFault::NotAnImage);
    }
    let Some([channels, height, width]) = preprocess.image_size(shape) else {
        return Err(ImageFault::Shape { expected: shape.to_vec(), got: vec![] });
    };
    match reader.format() {
        Some(ImageFormat::Png) => whole::png(bytes)?,
        _ => whole::jpeg(bytes)?,
    }
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    // Cameras store pictures as the sensor was held, and say how to turn them.
    let orientation = decoder.orientation().map_err(damaged)?;
    let turned = matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    // Size and channels stand in the header: nothing is decoded, and no memory taken, for an image
    // that cannot fit.
    let (got_width, got_height) = decoder.dimensions();
    let (got_width, got_height) = (got_width as usize, got_height as usize);
    let (got_width, got_height) = if turned { (got_height, got_width) } else { (got_width, got_height) };
    let got = usize::from(decoder.color_type().channel_count());
    let fits = (got_width, got_height) == (width, height);
    match preprocess.resize {
        Resize::None if !fits => return Err(ImageFault::Size { width, height, got_width, got_height }),
        Resize::None if got != channels => return Err(ImageFault::Channels { expected: channels, got }),
        _ if !matches!(channels, 1 | 3) => return Err(ImageFault::Channels { expected: channels, got }),
        _ if got_width.saturating_mul(got_height) > MAX_PIXELS => {
            return Err(ImageFault::Damaged(format!("{got_width}x{got_height} pixels are more than can be resized")));
        }
        _ => {}
    }
    let wide = matches!(decoder.color_type(), ColorType::L16 | ColorType::Rgb16 | ColorType::La16 | ColorType::Rgba16);
    let mut image = image::DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    if !fits {
        image = resized(image, width as u32, height as u32, preprocess.resize);
    }
    let pixels: Vec<f32> = if wide {
        let samples = if channels == 1 { image.into_luma16().into_raw() } else { image.into_rgb16().into_raw() };
        samples.into_iter().map(|v| f32::from(v) / 257.0).collect()
    } else {
        let samples = if channels == 1 { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
        samples.into_iter().map(f32::from).collect()
    };
    Ok(preprocess.apply(&pixels, [channels, height, width]))
}

/// Returns an image in another size, smoothed.
fn resized(image: image::DynamicImage, width: u32, height: u32, how: Resize) -> image::DynamicImage {
    if how != Resize::Crop {
        return image.resize_exact(width, height, FilterType::Triangle);
    }
    // The part that is kept is 7/8, along each side, of the largest one with the right proportions.
    let (w, h) = (f64::from(image.width()), f64::from(image.height()));
    let scale = (w / f64::from(width)).min(h / f64::from(height)) * 7.0 / 8.0;
    let part = |n: u32, whole: f64| ((f64::from(n) * scale).round().clamp(1.0, whole)) as u32;
    let (cut_w, cut_h) = (part(width, w), part(height, h));
    let (x, y) = ((image.width() - cut_w) / 2, (image.height() - cut_h) / 2);
    image.crop_imm(x, y, cut_w, cut_h).resize_exact(width, height, FilterType::Triangle)
}

#[cfg(test)]
mod tests;
