//! Reads the constants of a file.

use super::proto;
use crate::ModelError;
use crate::tensor::elements;

/// Element types of `onnx.proto`.
pub(super) mod kind {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const BFLOAT16: i32 = 16;
}

const EXTERNAL: i32 = 1;

/// Where a constant's bytes lie outside of the model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// File, relative to the model's folder.
    pub location: String,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: usize,
}

/// Reads the bytes of an [`External`], or says why not.
pub type ReadExternal<'a> = &'a mut dyn FnMut(&External) -> Result<Vec<u8>, String>;

/// Values of a constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Float(Vec<f32>),
    Int(Vec<i64>),
    /// Values of a type, with this number, that no supported operator reads: reported where one
    /// needs them.
    Unread(i32),
}

/// A constant of the file, or one computed from constants.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    pub(super) values: Values,
}

impl Constant {
    pub(super) fn ints(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], values: Values::Int(values) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.values {
            Values::Float(v) => v.len(),
            Values::Int(v) => v.len(),
            Values::Unread(_) => 0,
        }
    }

    /// Returns the values as 32-bit floats, whatever numbers they are.
    pub(super) fn floats(&self) -> Option<Vec<f32>> {
        match &self.values {
            Values::Float(v) => Some(v.clone()),
            Values::Int(v) => Some(v.iter().map(|&v| v as f32).collect()),
            Values::Unread(_) => None,
        }
    }

    /// Returns the values as integers, if they are of an integer type.
    pub(super) fn as_ints(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Int(v) => Some(v),
            _ => None,
        }
    }

    /// Reads a tensor of the file.
    pub(super) fn read(t: &proto::TensorData, external: ReadExternal<'_>) -> Result<Self, ModelError> {
        let bad = |what: &str| ModelError::Onnx(format!("constant \"{}\": {what}", t.name));
        let dims: Option<Vec<usize>> = t.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let dims = dims.ok_or_else(|| bad("a dimension is negative"))?;
        let count = elements(&dims).ok_or_else(|| bad("it is too large"))?;
        let size = match t.data_type {
            kind::FLOAT | kind::INT32 => 4,
            kind::FLOAT16 | kind::BFLOAT16 => 2,
            kind::INT64 | kind::DOUBLE => 8,
            kind::UINT8 | kind::INT8 | kind::BOOL => 1,
            other => return Ok(Self { dims, values: Values::Unread(other) }),
        };
        let elsewhere = if t.data_location == EXTERNAL {
            let place = place(t, count * size).map_err(|why| bad(&why))?;
            let bytes = external(&place).map_err(|why| bad(&format!("its data in \"{}\": {why}", place.location)))?;
            Some(bytes)
        } else {
            None
        };
        let raw: &[u8] = elsewhere.as_deref().unwrap_or(&t.raw_data);
        if !raw.is_empty() && raw.len() != count * size {
            let (needed, held) = (count * size, raw.len());
            return Err(bad(&format!("its shape {dims:?} needs {needed} bytes, the file holds {held}")));
        }
        let half = |bits: u16, brain: bool| {
            if brain { half::bf16::from_bits(bits).to_f32() } else { half::f16::from_bits(bits).to_f32() }
        };
        let brain = t.data_type == kind::BFLOAT16;
        let small = || t.int32_data.iter().map(|&v| i64::from(v)).collect::<Vec<_>>();
        let values = match (t.data_type, raw.is_empty()) {
            (kind::FLOAT, true) => Values::Float(t.float_data.clone()),
            (kind::FLOAT, false) => {
                Values::Float(raw.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
            }
            (kind::DOUBLE, true) => Values::Float(t.double_data.iter().map(|&v| v as f32).collect()),
            (kind::DOUBLE, false) => {
                Values::Float(raw.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c) as f32).collect())
            }
            (kind::FLOAT16 | kind::BFLOAT16, true) => {
                Values::Float(t.int32_data.iter().map(|&v| half(v as u16, brain)).collect())
            }
            (kind::FLOAT16 | kind::BFLOAT16, false) => {
                Values::Float(raw.as_chunks::<2>().0.iter().map(|c| half(u16::from_le_bytes(*c), brain)).collect())
            }
            (kind::INT64, true) => Values::Int(t.int64_data.clone()),
            (kind::INT64, false) => {
                Values::Int(raw.as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect())
            }
            (kind::INT32, false) => {
                Values::Int(raw.as_chunks::<4>().0.iter().map(|c| i64::from(i32::from_le_bytes(*c))).collect())
            }
            (kind::INT8, false) => Values::Int(raw.iter().map(|&v| i64::from(v as i8)).collect()),
            (_, false) => Values::Int(raw.iter().map(|&v| i64::from(v)).collect()),
            (_, true) => Values::Int(small()),
        };
        let constant = Self { dims, values };
        match constant.len() {
            held if held == count => Ok(constant),
            held => Err(bad(&format!("its shape {:?} needs {count} values, the file holds {held}", constant.dims))),
        }
    }
}

/// Returns where the data of a constant lies outside of the model file; the data has `length`
/// bytes.
fn place(t: &proto::TensorData, length: usize) -> Result<External, String> {
    let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(v) => v.parse::<u64>().map(Some).map_err(|_| format!("its {key} \"{v}\" is no number")),
    };
    let location = entry("location").ok_or("it names no file that holds its data")?.to_string();
    let offset = number("offset")?.unwrap_or(0);
    match number("length")? {
        Some(got) if got != length as u64 => Err(format!("its shape needs {length} bytes, it names {got}")),
        _ => Ok(External { location, offset, length }),
    }
}

/// Returns the index of an axis that may be counted from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let from_start = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(from_start)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| format!("axis {axis} does not exist, there are {rank} dimensions"))
}
