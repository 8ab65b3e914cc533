//! Computes shapes and places of constants for `Reshape`, `GatherND`, `ScatterND` and `Slice`.

use super::constant::{Constant, Values, axis_of};
use super::fold::pick;
use crate::tensor::elements;

/// Returns the shape that `Reshape` gives: 0 copies an extent unless `zero_is_zero`, -1 takes what
/// is left.
pub(super) fn target(dims: &[usize], wanted: &[i64], zero_is_zero: bool) -> Result<Vec<usize>, String> {
    let fail = || format!("{dims:?} cannot take the shape {wanted:?}");
    let total = elements(dims).ok_or_else(fail)?;
    let known = |(i, &d): (usize, &i64)| match d {
        0 if !zero_is_zero => dims.get(i).copied().map(Some),
        -1 => Some(None),
        d => usize::try_from(d).ok().map(Some),
    };
    let shape: Vec<Option<usize>> = wanted.iter().enumerate().map(known).collect::<Option<_>>().ok_or_else(fail)?;
    let rest: usize = elements(&shape.iter().flatten().copied().collect::<Vec<_>>()).ok_or_else(fail)?;
    let left = match shape.iter().filter(|d| d.is_none()).count() {
        0 => 1,
        1 if rest > 0 && total.is_multiple_of(rest) => total / rest,
        _ => return Err(fail()),
    };
    let shape: Vec<usize> = shape.into_iter().map(|d| d.unwrap_or(left)).collect();
    if elements(&shape) == Some(total) { Ok(shape) } else { Err(fail()) }
}

/// Most dimensions of a constant whose shape is changed.
pub(super) const MAX_DIMS: usize = 16;

pub(super) fn unsqueezed(dims: &[usize], axes: &[i64]) -> Result<Vec<usize>, String> {
    let rank = dims.len() + axes.len();
    if rank > MAX_DIMS {
        return Err(format!("makes {rank} dimensions, at most {MAX_DIMS} are supported"));
    }
    let axes: Vec<usize> = axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?;
    let mut old = dims.iter();
    let shape = (0..rank).map(|d| if axes.contains(&d) { Some(1) } else { old.next().copied() });
    shape.collect::<Option<_>>().ok_or_else(|| format!("axes {axes:?} name one dimension twice"))
}

pub(super) fn squeezed(dims: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, String> {
    if dims.len().max(axes.map_or(0, <[i64]>::len)) > MAX_DIMS {
        return Err(format!("has more than {MAX_DIMS} dimensions"));
    }
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|&a| axis_of(a, dims.len())).collect::<Result<_, _>>()?,
        None => (0..dims.len()).filter(|&d| dims[d] == 1).collect(),
    };
    match axes.iter().find(|&&a| dims[a] != 1) {
        Some(a) => Err(format!("cannot drop axis {a} of {dims:?}, its extent is not 1")),
        None => Ok((0..dims.len()).filter(|d| !axes.contains(d)).map(|d| dims[d]).collect()),
    }
}

/// Takes whole sub-arrays of a constant, one for every row of indices.
pub(super) fn gather_nd(c: &Constant, indices: &Constant) -> Result<Constant, String> {
    let places = scattered(&c.dims, indices)?;
    pick(c, gathered_dims(&c.dims, &indices.dims), places.into_iter())
}

/// Returns the shape that `GatherND` gives.
pub(super) fn gathered_dims(dims: &[usize], indices: &[usize]) -> Vec<usize> {
    let Some((&depth, rows)) = indices.split_last() else { return vec![] };
    [rows, dims.get(depth..).unwrap_or_default()].concat()
}

/// Replaces parts of a constant: a whole sub-array for every row of indices.
pub(super) fn scatter(c: &Constant, indices: &Constant, updates: &Constant) -> Result<Constant, String> {
    let places = scattered(&c.dims, indices)?;
    let mut out = c.clone();
    fn put<T: Copy>(out: &mut [T], places: &[usize], updates: &[T]) -> Result<(), String> {
        if places.len() != updates.len() {
            return Err("has updates of another number than its indices name".into());
        }
        places.iter().zip(updates).for_each(|(&place, &v)| out[place] = v);
        Ok(())
    }
    match (&mut out.values, &updates.values) {
        (Values::Int(out), Values::Int(v)) => put(out, &places, v)?,
        (Values::Float(out), Values::Float(v)) => put(out, &places, v)?,
        _ => return Err("has updates of another type".into()),
    }
    Ok(out)
}

/// Returns the row-major places that `ScatterND` writes to in a value of this shape, in the order
/// of its updates.
pub(super) fn scattered(dims: &[usize], indices: &Constant) -> Result<Vec<usize>, String> {
    let Some((&depth, rows)) = indices.dims.split_last() else { return Err("has indices without dimensions".into()) };
    let values = indices.as_ints().ok_or("its indices are not integers")?;
    if depth == 0 || depth > dims.len() {
        return Err(format!("has indices of {depth} numbers for {} dimensions", dims.len()));
    }
    let run: usize = dims[depth..].iter().product();
    let total = rows.iter().try_fold(run, |n, &d| n.checked_mul(d)).filter(|&n| n <= crate::tensor::MAX_ELEMENTS);
    let mut places = Vec::with_capacity(total.ok_or("is too large")?);
    for index in values.chunks_exact(depth) {
        let mut first = 0;
        for (&i, &extent) in index.iter().zip(dims) {
            first = first * extent + axis_of(i, extent)?;
        }
        places.extend(first * run..(first + 1) * run);
    }
    Ok(places)
}

/// Returns the places that `Slice` takes along an axis.
pub(super) fn slice_places(extent: usize, start: i64, end: i64, step: i64) -> Result<Vec<usize>, String> {
    let n = extent as i64;
    let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let (start, end) = (from_end(start), from_end(end));
    match step {
        1.. => {
            let (start, end) = (start.clamp(0, n) as usize, end.clamp(0, n) as usize);
            Ok((start..end).step_by(step as usize).collect())
        }
        0 => Err("has a step of 0".into()),
        _ => {
            let (start, end) = (start.clamp(-1, n - 1), end.clamp(-1, n - 1));
            let step = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
            Ok((end + 1..=start).rev().step_by(step).map(|i| i as usize).collect())
        }
    }
}
