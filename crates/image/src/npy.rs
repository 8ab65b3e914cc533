//! NumPy's `.npy` arrays, versions 1 to 3: magic, version, header length, a Python dictionary, the
//! values. They are read here, with every number bounded, because the form that we accept is one
//! line.

use jali_model::{ImageLayout, Preprocess, Tensor};

use crate::ImageFault;

/// Longest header: NumPy writes 128 bytes.
const MAX_HEADER: usize = 4096;

/// Returns a tensor as an array of 32-bit floats in NumPy's format, version 1, with the shape as it
/// is.
pub fn npy_bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = header("<f4", &tensor.shape);
    bytes.extend(tensor.data.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

/// Returns integers as a one-dimensional array of 64-bit integers in NumPy's format.
pub fn npy_of_integers(values: &[i64]) -> Vec<u8> {
    let mut bytes = header("<i8", &[values.len()]);
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

/// Reads an array of floats of any shape, with its shape.
///
/// # Errors
/// [`ImageFault::Damaged`] for another type or a shape that the values do not fill,
/// [`ImageFault::NotFinite`].
pub fn floats_of_npy(bytes: &[u8]) -> Result<Tensor, ImageFault> {
    let damaged = |why: String| ImageFault::Damaged(why);
    let Header { dims, fortran, kind, data } = Header::read(bytes)?;
    if !kind.is_float() {
        return Err(damaged("its values are no floats".into()));
    }
    let needed = dims.iter().try_fold(kind.size, |n, &d| n.checked_mul(d));
    if needed != Some(data.len()) {
        return Err(damaged(format!(
            "it holds {} bytes of values, its shape {dims:?} needs another number",
            data.len()
        )));
    }
    let mut values: Vec<f64> = data.chunks_exact(kind.size).map(|v| kind.value(v)).collect();
    if fortran {
        values = in_rows(&values, &dims);
    }
    let data: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    match data.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(ImageFault::NotFinite { index }),
        None => Ok(Tensor { shape: dims, data }),
    }
}

/// What stands before the values.
fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    // Magic, version, length and header take a multiple of 64 bytes and end with a line break.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).into_bytes());
    bytes
}

/// The header's fields, and the bytes of the values behind it.
struct Header<'a> {
    dims: Vec<usize>,
    fortran: bool,
    kind: Kind,
    data: &'a [u8],
}

/// Type of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// `f` float, `i` signed, `u` unsigned, `b` truth value.
    letter: u8,
    /// Bytes of a value.
    size: usize,
    big_endian: bool,
}

impl Kind {
    fn read(descr: &str) -> Option<Self> {
        let bytes = descr.as_bytes();
        let (order, rest) = match bytes.first()? {
            b'<' | b'>' | b'|' | b'=' => (bytes[0], &bytes[1..]),
            _ => (b'=', bytes),
        };
        let (&letter, size) = rest.split_first()?;
        let size = std::str::from_utf8(size).ok()?.parse().ok()?;
        let known = matches!((letter, size), (b'f', 2 | 4 | 8) | (b'i' | b'u', 1 | 2 | 4 | 8) | (b'b', 1));
        // Arrays in the order of the machine that wrote them come from machines like this one.
        let native_big = order == b'=' && cfg!(target_endian = "big");
        known.then_some(Self { letter, size, big_endian: order == b'>' || native_big })
    }

    fn is_float(self) -> bool {
        self.letter == b'f'
    }

    /// Returns a value of `size` bytes as a float.
    fn value(self, bytes: &[u8]) -> f64 {
        let mut raw = [0u8; 8];
        // The lowest byte first.
        for (i, slot) in raw.iter_mut().take(self.size).enumerate() {
            *slot = bytes[if self.big_endian { self.size - 1 - i } else { i }];
        }
        let bits = u64::from_le_bytes(raw);
        match (self.letter, self.size) {
            (b'f', 2) => half::f16::from_bits(bits as u16).to_f64(),
            (b'f', 4) => f64::from(f32::from_bits(bits as u32)),
            (b'f', _) => f64::from_bits(bits),
            (b'i', size) => {
                let unused = 64 - 8 * size as u32;
                ((bits << unused) as i64 >> unused) as f64
            }
            _ => bits as f64,
        }
    }
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ImageFault> {
        let damaged = |why: &str| ImageFault::Damaged(why.into());
        let (length_bytes, start) = match bytes.get(6) {
            Some(1) => (2, 10),
            Some(2 | 3) => (4, 12),
            _ => return Err(damaged("unknown .npy version")),
        };
        let length = bytes.get(8..8 + length_bytes).ok_or_else(|| damaged("its header is cut off"))?;
        let length = length.iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b));
        if length > MAX_HEADER {
            return Err(damaged("its header is too long"));
        }
        let header = bytes.get(start..start + length).ok_or_else(|| damaged("its header is cut off"))?;
        let header = std::str::from_utf8(header).map_err(|_| damaged("its header is not text"))?;
        let field = |name: &str| header.split_once(&format!("'{name}':")).map(|(_, rest)| rest.trim_start());
        let order = field("fortran_order").ok_or_else(|| damaged("its header has no fortran_order"))?;
        let dims = field("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split_once(')'));
        let dims = dims.ok_or_else(|| damaged("its header has no shape"))?.0;
        let dims: Result<Vec<usize>, _> =
            dims.split(',').map(str::trim).filter(|d| !d.is_empty()).map(str::parse).collect();
        let dims = dims.map_err(|_| damaged("its shape is not a list of numbers"))?;
        let descr = field("descr").and_then(|s| s.strip_prefix('\'')).and_then(|s| s.split_once('\'')).map(|s| s.0);
        let kind = descr.and_then(Kind::read).ok_or_else(|| {
            let descr: String = descr.unwrap_or("missing").chars().filter(|c| !c.is_control()).take(20).collect();
            damaged(&format!("its type is {descr}; save floats (float16, 32 or 64) or integers"))
        })?;
        Ok(Self { dims, fortran: order.starts_with("True"), kind, data: &bytes[start + length..] })
    }
}

/// Decodes the values for an input of this shape. Floats are inputs already; integers are pixels
/// from 0 to 255 and become inputs as `preprocess` says.
pub(super) fn decode(bytes: &[u8], shape: &[usize], preprocess: &Preprocess) -> Result<Vec<f32>, ImageFault> {
    let damaged = |why: String| ImageFault::Damaged(why);
    let Header { dims, fortran, kind, data } = Header::read(bytes)?;
    fits(&dims, shape)?;
    let count: usize = shape.iter().product();
    if data.len() != count * kind.size {
        return Err(damaged(format!("it holds {} bytes of values, its shape needs {}", data.len(), count * kind.size)));
    }
    let mut values: Vec<f64> = data.chunks_exact(kind.size).map(|v| kind.value(v)).collect();
    if fortran {
        values = in_rows(&values, &dims);
    }
    if kind.is_float() {
        return Ok(values.into_iter().map(|v| v as f32).collect());
    }
    pixels(&values, shape, preprocess)
}

/// Turns pixels, 0 to 255, in the order of the network's input into inputs.
fn pixels(values: &[f64], shape: &[usize], preprocess: &Preprocess) -> Result<Vec<f32>, ImageFault> {
    let count = values.len();
    if let Some(index) = values.iter().position(|v| !(0.0..=255.0).contains(v)) {
        return Err(ImageFault::NotAPixel { index, got: values[index] });
    }
    // Pixels in the order of the network's input.
    let [channels, height, width] = preprocess.image_size(shape).unwrap_or([1, 1, count]);
    let channel = |i: usize| match preprocess.layout {
        ImageLayout::Nchw => i / (height * width),
        ImageLayout::Nhwc => i % channels,
    };
    Ok(values.iter().enumerate().map(|(i, &v)| preprocess.value(v as f32, channel(i))).collect())
}

/// Turns the values of an array, row by row, into an input. Integers are pixels from 0 to 255 and
/// become inputs as `preprocess` says; floats are inputs already.
///
/// # Errors
/// [`ImageFault`] with what is wrong, if `dims` are not those of an input of this shape in
/// particular.
pub fn from_array(
    dims: &[usize],
    values: Values<'_>,
    shape: &[usize],
    preprocess: &Preprocess,
) -> Result<Tensor, ImageFault> {
    fits(dims, shape)?;
    let data = match values {
        Values::Floats(floats) => floats.to_vec(),
        Values::Pixels(values) => pixels(values, shape, preprocess)?,
    };
    super::tensor(shape, data)
}

/// The values of an array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values<'v> {
    /// Inputs.
    Floats(&'v [f32]),
    /// Integers.
    Pixels(&'v [f64]),
}

/// Returns values that stand column by column in the order row by row.
fn in_rows(values: &[f64], dims: &[usize]) -> Vec<f64> {
    let mut place = vec![0; dims.len()];
    let mut strides = vec![1; dims.len()];
    (1..dims.len()).for_each(|d| strides[d] = strides[d - 1] * dims[d - 1]);
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[place.iter().zip(&strides).map(|(p, s)| p * s).sum::<usize>()]);
        for d in (0..dims.len()).rev() {
            place[d] += 1;
            if place[d] < dims[d] {
                break;
            }
            place[d] = 0;
        }
    }
    out
}

/// Checks that an array has the model's shape, with or without a batch of one; a single channel may
/// be left out.
fn fits(dims: &[usize], shape: &[usize]) -> Result<(), ImageFault> {
    let squeezed: Vec<usize> = dims.iter().copied().skip_while(|&d| d == 1).collect();
    let wanted: Vec<usize> = shape.iter().copied().skip_while(|&d| d == 1).collect();
    if squeezed == wanted {
        return Ok(());
    }
    // A wrong number of dimensions is a fault of the shape, whatever the extents are; a batch of
    // one may be in front.
    let own = if dims.len() == shape.len() + 1 && dims[0] == 1 { &dims[1..] } else { dims };
    Err(match (own, shape) {
        (&[c, h, w], &[channels, height, width]) if (h, w) == (height, width) => {
            ImageFault::Channels { expected: channels, got: c }
        }
        (&[c, got_height, got_width], &[channels, height, width]) if c == channels => {
            ImageFault::Size { width, height, got_width, got_height }
        }
        _ => ImageFault::Shape { expected: shape.to_vec(), got: dims.to_vec() },
    })
}
