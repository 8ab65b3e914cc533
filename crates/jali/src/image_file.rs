//! Turns PNG, JPEG and .npy files into the tensor that a model needs. The kind is told by the
//! content, not by the name.

mod npy;
mod whole;

use std::io::{Cursor, Read};
use std::path::Path;

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader};
use jali_model::{ModelError, Preprocess, Resize, Tensor};

pub use self::npy::{Values, from_array, npy_bytes};
use crate::error::{ImageFault, JaliError};
use crate::files::read_bounded;

/// Largest image file that is read, in bytes.
const MAX_FILE: u64 = 1 << 26;
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
///
/// # Errors
/// [`JaliError::Read`].
pub fn is_image(path: &Path) -> Result<Option<Kind>, JaliError> {
    let fail = |e: std::io::Error| JaliError::Read { path: path.into(), why: e.to_string() };
    let mut head = Vec::new();
    std::fs::File::open(path).map_err(fail)?.take(8).read_to_end(&mut head).map_err(fail)?;
    Ok(match &head[..] {
        h if h.starts_with(b"\x93NUMPY") => Some(Kind::Array),
        h if h.starts_with(b"\x89PNG\r\n\x1a\n") || h.starts_with(b"\xff\xd8\xff") => Some(Kind::Pixels),
        _ => None,
    })
}

/// Reads an image for a model with the given input shape. Pixels of PNG and JPEG (and integer
/// arrays) become inputs as `preprocess` says; floating-point arrays are inputs already.
///
/// # Errors
/// [`JaliError::Read`] and [`JaliError::Image`] with what is wrong.
pub fn read_image(path: &Path, shape: &[usize], preprocess: &Preprocess) -> Result<Tensor, JaliError> {
    let bytes = read_bounded(path, MAX_FILE)?;
    decode_image(&bytes, shape, preprocess).map_err(|fault| JaliError::Image { path: path.into(), fault })
}

/// Decodes the bytes of an image file as [`read_image`] does.
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
        // A wrong number of dimensions is that, and neither a size nor a number of channels.
        for dims in [vec![3, 3], vec![2, 3, 2, 2], vec![1, 1, 3, 2, 2, 1], vec![3, 2, 2, 1]] {
            let text = dims.iter().map(|d| format!("{d},")).collect::<String>();
            let shape = ImageFault::Shape { expected: vec![3, 2, 2], got: dims };
            assert_eq!(decode(&npy(&text, "<f4", &nan), &[3, 2, 2]), Err(shape.clone()), "{text}");
            assert_eq!(shape.kind(), crate::error_kind::ImageKind::Shape);
        }
        let shape = ImageFault::Shape { expected: vec![3, 2, 2], got: vec![7] };
        assert_eq!(decode(&npy("7,", "<f4", &nan), &[3, 2, 2]), Err(shape));
        let damaged = |bytes: &[u8]| matches!(decode(bytes, &[1, 1, 2]), Err(ImageFault::Damaged(_)));
        let good = npy("1, 1, 2", "<f4", &[0; 8]);
        assert!(decode(&good, &[1, 1, 2]).is_ok());
        for len in 6..good.len() {
            assert!(damaged(&good[..len]), "cut to {len}");
        }
        assert!(damaged(&npy("1, 1, 2", "<c8", &[0; 16])));
        let no_pixel = ImageFault::NotAPixel { index: 0, got: -1.0 };
        assert_eq!(decode(&npy("1, 1, 2", "<i8", &[0xff; 16]), &[1, 1, 2]), Err(no_pixel));
        for hostile in ["99999999999999999999", "-1", "x"] {
            assert!(damaged(&npy(hostile, "<f4", &[])));
        }
        assert!(decode(&npy(&["18446744073709551615"; 9].join(","), "<f4", &[]), &[1, 1, 2]).is_err());
        assert_eq!(decode(b"", &[1, 1, 2]), Err(ImageFault::NotAnImage));
        assert_eq!(decode(b"GIF89a....", &[1, 1, 2]), Err(ImageFault::NotAnImage));
    }

    #[test]
    fn arrays_of_all_types_and_orders_are_the_same_image() {
        let want = [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0];
        let floats = |to: &dyn Fn(f32) -> Vec<u8>| want.iter().flat_map(|&v| to(v)).collect::<Vec<u8>>();
        for (descr, bytes) in [
            ("<f4", floats(&|v| v.to_le_bytes().into())),
            (">f4", floats(&|v| v.to_be_bytes().into())),
            ("<f8", floats(&|v| f64::from(v).to_le_bytes().into())),
            (">f8", floats(&|v| f64::from(v).to_be_bytes().into())),
            ("<f2", floats(&|v| half::f16::from_f32(v).to_le_bytes().into())),
            (">f2", floats(&|v| half::f16::from_f32(v).to_be_bytes().into())),
        ] {
            assert_eq!(decode(&npy("1, 2, 3", descr, &bytes), &[1, 2, 3]).unwrap().data, want, "{descr}");
        }
        for (descr, bytes) in [
            ("|u1", floats(&|v| vec![v as u8])),
            ("<i8", floats(&|v| (v as i64).to_le_bytes().into())),
            (">i2", floats(&|v| (v as i16).to_be_bytes().into())),
            ("<u4", floats(&|v| (v as u32).to_le_bytes().into())),
        ] {
            let got = decode(&npy("1, 2, 3", descr, &bytes), &[1, 2, 3]).unwrap().data;
            assert!(got.iter().zip(want).all(|(g, w)| (g - w / 255.0).abs() < 1e-7), "{descr}");
        }
        // Column by column.
        let columns = [0.0f32, 3.0, 1.0, 4.0, 2.0, 5.0].map(f32::to_le_bytes).concat();
        let fortran = String::from_utf8_lossy(&npy("2, 3", "<f4", &columns)[..60]).contains("False");
        assert!(fortran);
        let mut bytes = npy("2, 3", "<f4", &columns);
        let at = bytes.windows(5).position(|w| w == b"False").unwrap();
        bytes[at..at + 5].copy_from_slice(b"True ");
        assert_eq!(decode(&bytes, &[1, 2, 3]).unwrap().data, want);
    }

    fn picture() -> image::RgbImage {
        image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([(x * 10) as u8, (y * 15) as u8, ((x * y) % 251) as u8]))
    }

    #[test]
    fn pictures_that_are_cut_are_refused() {
        let cut =
            |bytes: &[u8]| matches!(decode(bytes, &[3, 16, 24]), Err(ImageFault::Damaged(_) | ImageFault::NotAnImage));
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let mut whole = Cursor::new(vec![]);
            picture().write_to(&mut whole, format).unwrap();
            let whole = whole.into_inner();
            assert!(decode(&whole, &[3, 16, 24]).is_ok());
            for length in 1..whole.len() {
                assert!(cut(&whole[..length]), "{format:?} cut to {length} of {} bytes", whole.len());
            }
        }
        let mut png = Cursor::new(vec![]);
        picture().write_to(&mut png, ImageFormat::Png).unwrap();
        let mut png = png.into_inner();
        let middle = png.len() / 2;
        png[middle] ^= 1;
        assert!(cut(&png), "a flipped bit");
    }

    #[test]
    fn cameras_say_how_pictures_are_turned() {
        let mut jpeg = Cursor::new(vec![]);
        picture().write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let jpeg = jpeg.into_inner();
        let upright = decode(&jpeg, &[3, 16, 24]).unwrap();
        // An EXIF segment with one entry: orientation 6, a quarter turn to the right.
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
        let mut segment = vec![0xff, 0xe1];
        segment.extend((exif.len() as u16 + 2).to_be_bytes());
        segment.append(&mut exif);
        let turned = [&jpeg[..2], &segment, &jpeg[2..]].concat();
        assert!(matches!(decode(&turned, &[3, 16, 24]), Err(ImageFault::Size { got_width: 16, got_height: 24, .. })));
        let turned = decode(&turned, &[3, 24, 16]).unwrap();
        // The upper left corner has become the upper right one.
        assert_eq!(turned.data[15], upright.data[0]);
    }
}
