//! PNG, JPEG and .npy files to the tensor that a model needs. The kind is told by the content, not by the name.

use std::io::{Cursor, Read};
use std::path::Path;

use image::imageops::FilterType;
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader};
use jali_model::{ImageLayout, ModelError, Preprocess, Resize, Tensor};

use crate::error::{ImageFault, JaliError};

/// Largest image file that is read, in bytes.
const MAX_FILE: u64 = 1 << 26;
/// Most pixels of an image that is resized.
const MAX_PIXELS: usize = 1 << 26;
/// Longest .npy header: NumPy writes 128 bytes.
const MAX_NPY_HEADER: usize = 4096;

/// Reads a whole file unless it is larger than `limit` bytes.
///
/// # Errors
/// [`JaliError::Read`], [`JaliError::TooLarge`].
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, JaliError> {
    let fail = |e: std::io::Error| JaliError::Read { path: path.into(), why: e.to_string() };
    let file = std::fs::File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.is_dir() {
        return Err(JaliError::Read { path: path.into(), why: "it is a directory".into() });
    }
    let mut bytes = Vec::new();
    // The size may change while reading, and special files have none: the bound holds for what is really read.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(JaliError::TooLarge { path: path.into(), got: meta.len().max(limit + 1), limit });
    }
    Ok(bytes)
}

/// Reads an image for a model with the given input shape. Pixels of PNG and JPEG (and integer arrays) become inputs as
/// `preprocess` says; floating-point arrays are inputs already.
///
/// # Errors
/// [`JaliError::Read`] and [`JaliError::Image`] with what is wrong.
pub fn read_image(path: &Path, shape: &[usize], preprocess: &Preprocess) -> Result<Tensor, JaliError> {
    let bytes = read_bounded(path, MAX_FILE)?;
    decode_image(&bytes, shape, preprocess).map_err(|fault| JaliError::Image { path: path.into(), fault })
}

/// As [`read_image`], from bytes.
///
/// # Errors
/// [`ImageFault`].
pub fn decode_image(bytes: &[u8], shape: &[usize], preprocess: &Preprocess) -> Result<Tensor, ImageFault> {
    let data = if bytes.starts_with(b"\x93NUMPY") {
        decode_npy(bytes, shape, preprocess)?
    } else {
        decode_pixels(bytes, shape, preprocess)?
    };
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
    let decoder = reader.into_decoder().map_err(damaged)?;
    // Size and channels stand in the header: nothing is decoded, and no memory taken, for an image that cannot fit.
    let (got_width, got_height) = decoder.dimensions();
    let (got_width, got_height) = (got_width as usize, got_height as usize);
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

/// An image in another size, smoothed.
fn resized(image: image::DynamicImage, width: u32, height: u32, how: Resize) -> image::DynamicImage {
    if how != Resize::Crop {
        return image.resize_exact(width, height, FilterType::Triangle);
    }
    // What is kept is 7/8 of the largest part of the image with the right proportions.
    let (w, h) = (f64::from(image.width()), f64::from(image.height()));
    let scale = (w / f64::from(width)).min(h / f64::from(height)) * 7.0 / 8.0;
    let part = |n: u32, whole: f64| ((f64::from(n) * scale).round().clamp(1.0, whole)) as u32;
    let (cut_w, cut_h) = (part(width, w), part(height, h));
    let (x, y) = ((image.width() - cut_w) / 2, (image.height() - cut_h) / 2);
    image.crop_imm(x, y, cut_w, cut_h).resize_exact(width, height, FilterType::Triangle)
}

/// An array of floats as NumPy's format, version 1, with the shape as it is.
pub fn npy_bytes(tensor: &Tensor) -> Vec<u8> {
    let dims: String = tensor.shape.iter().map(|d| format!("{d}, ")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    // Magic, version, length and header take a multiple of 64 bytes and end with a line break.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).into_bytes());
    bytes.extend(tensor.data.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

/// NumPy's format, versions 1 to 3: magic, version, header length, a Python dictionary, the values. Parsed here, with
/// every number bounded, because the form that we accept is one line.
fn decode_npy(bytes: &[u8], shape: &[usize], preprocess: &Preprocess) -> Result<Vec<f32>, ImageFault> {
    let damaged = |why: &str| ImageFault::Damaged(why.into());
    let (length_bytes, start) = match bytes.get(6) {
        Some(1) => (2, 10),
        Some(2 | 3) => (4, 12),
        _ => return Err(damaged("unknown .npy version")),
    };
    let length = bytes.get(8..8 + length_bytes).ok_or_else(|| damaged("its header is cut off"))?;
    let length = length.iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b));
    if length > MAX_NPY_HEADER {
        return Err(damaged("its header is too long"));
    }
    let header = bytes.get(start..start + length).ok_or_else(|| damaged("its header is cut off"))?;
    let header = std::str::from_utf8(header).map_err(|_| damaged("its header is not text"))?;
    let field = |name: &str| header.split_once(&format!("'{name}':")).map(|(_, rest)| rest.trim_start());
    let order = field("fortran_order").ok_or_else(|| damaged("its header has no fortran_order"))?;
    if !order.starts_with("False") {
        return Err(damaged("Fortran order is not supported; save a C-ordered array"));
    }
    let dims = field("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split_once(')'));
    let dims = dims.ok_or_else(|| damaged("its header has no shape"))?.0;
    let dims: Result<Vec<usize>, _> =
        dims.split(',').map(str::trim).filter(|d| !d.is_empty()).map(str::parse).collect();
    let dims = dims.map_err(|_| damaged("its shape is not a list of numbers"))?;
    // With or without a batch of one; a single channel may be left out.
    let squeezed: Vec<usize> = dims.iter().copied().skip_while(|&d| d == 1).collect();
    let wanted: Vec<usize> = shape.iter().copied().skip_while(|&d| d == 1).collect();
    if squeezed != wanted {
        return Err(match (&dims[..], shape) {
            (&[.., c, h, w], &[channels, height, width]) if (h, w) == (height, width) && dims.len() <= 4 => {
                ImageFault::Channels { expected: channels, got: c }
            }
            (&[.., c, got_height, got_width], &[channels, height, width]) if c == channels => {
                ImageFault::Size { width, height, got_width, got_height }
            }
            _ => ImageFault::Shape { expected: shape.to_vec(), got: dims },
        });
    }
    let count: usize = shape.iter().product();
    let kind = field("descr").and_then(|s| s.strip_prefix('\'')).and_then(|s| s.split_once('\'')).map(|s| s.0);
    let size = match kind {
        Some("|u1") => 1,
        Some("<f4") => 4,
        Some("<f8") => 8,
        other => {
            return Err(damaged(&format!(
                "its type is {}; save float32, float64 or uint8",
                other.unwrap_or("missing")
            )));
        }
    };
    let data = &bytes[start + length..];
    if data.len() != count * size {
        return Err(damaged(&format!("it holds {} bytes of values, its shape needs {}", data.len(), count * size)));
    }
    Ok(match size {
        // Pixels in the order of the network's input.
        1 => {
            let [channels, height, width] = preprocess.image_size(shape).unwrap_or([1, 1, count]);
            let channel = |i: usize| match preprocess.layout {
                ImageLayout::Nchw => i / (height * width),
                ImageLayout::Nhwc => i % channels,
            };
            data.iter().enumerate().map(|(i, &v)| preprocess.value(f32::from(v), channel(i))).collect()
        }
        4 => data.as_chunks::<4>().0.iter().map(|&v| f32::from_le_bytes(v)).collect(),
        _ => data.as_chunks::<8>().0.iter().map(|&v| f64::from_le_bytes(v) as f32).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], shape: &[usize]) -> Result<Tensor, ImageFault> {
        decode_image(bytes, shape, &Preprocess::default())
    }

    fn npy(shape: &str, descr: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn what_is_written_can_be_read() {
        for shape in [vec![4], vec![1, 2, 2], vec![2, 2, 1]] {
            let t = Tensor::new("t", shape.clone(), vec![1.5, -2.0, 0.0, 3e9]).unwrap();
            let bytes = npy_bytes(&t);
            assert_eq!((bytes.len() - 16) % 64, 0);
            assert_eq!(decode(&bytes, &shape).unwrap(), t);
        }
    }

    #[test]
    fn arrays_are_read_with_or_without_batch() {
        let data: Vec<u8> = (0..8u8).flat_map(|v| f32::from(v).to_le_bytes()).collect();
        for shape in ["2, 2, 2", "1, 2, 2, 2"] {
            let t = decode(&npy(shape, "<f4", &data), &[2, 2, 2]).unwrap();
            assert_eq!(t.data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        }
        let t = decode(&npy("2, 2", "|u1", &[0, 51, 102, 255]), &[1, 2, 2]).unwrap();
        assert_eq!(t.data, [0.0, 0.2, 0.4, 1.0]);
    }

    #[test]
    fn every_fault_has_its_name() {
        let nan: Vec<u8> = [1.0, f32::NAN].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(decode(&npy("1, 1, 2", "<f4", &nan), &[1, 1, 2]), Err(ImageFault::NotFinite { index: 1 }));
        let channels = ImageFault::Channels { expected: 3, got: 2 };
        assert_eq!(decode(&npy("2, 1, 1", "<f4", &nan), &[3, 1, 1]), Err(channels));
        let size = ImageFault::Size { width: 2, height: 2, got_width: 1, got_height: 1 };
        assert_eq!(decode(&npy("3, 1, 1", "<f4", &nan), &[3, 2, 2]), Err(size));
        let shape = ImageFault::Shape { expected: vec![3, 2, 2], got: vec![7] };
        assert_eq!(decode(&npy("7,", "<f4", &nan), &[3, 2, 2]), Err(shape));
        let damaged = |bytes: &[u8]| matches!(decode(bytes, &[1, 1, 2]), Err(ImageFault::Damaged(_)));
        let good = npy("1, 1, 2", "<f4", &[0; 8]);
        assert!(decode(&good, &[1, 1, 2]).is_ok());
        for len in 6..good.len() {
            assert!(damaged(&good[..len]), "cut to {len}");
        }
        assert!(damaged(&npy("1, 1, 2", "<i8", &[0; 16])));
        for hostile in ["99999999999999999999", "-1", "x"] {
            assert!(damaged(&npy(hostile, "<f4", &[])));
        }
        assert!(decode(&npy(&["18446744073709551615"; 9].join(","), "<f4", &[]), &[1, 1, 2]).is_err());
        assert_eq!(decode(b"", &[1, 1, 2]), Err(ImageFault::NotAnImage));
        assert_eq!(decode(b"GIF89a....", &[1, 1, 2]), Err(ImageFault::NotAnImage));
    }
}
