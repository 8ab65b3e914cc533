//! Computes arithmetic and comparisons of constants.

use super::constant::{Constant, Values};
use super::fold::broadcast;
use crate::shape_inference::{spread, walk};

/// Returns whether an operator on two constants gives truth values.
pub(super) fn compares(op: &str) -> bool {
    matches!(op, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor")
}

fn of_ints(op: &str, x: i64, y: i64, like_fmod: bool) -> Option<i64> {
    Some(match op {
        "Add" => x.checked_add(y)?,
        "Sub" => x.checked_sub(y)?,
        "Mul" => x.checked_mul(y)?,
        "Div" => x.checked_div(y)?,
        // The sign of the divisor; of the dividend where the file asks for it.
        "Mod" if like_fmod => x.checked_rem(y)?,
        "Mod" => {
            let rest = x.checked_rem(y)?;
            if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
        }
        "Pow" => x.checked_pow(u32::try_from(y).ok()?)?,
        "Max" => x.max(y),
        "Min" => x.min(y),
        "Equal" => i64::from(x == y),
        "Less" => i64::from(x < y),
        "LessOrEqual" => i64::from(x <= y),
        "Greater" => i64::from(x > y),
        "GreaterOrEqual" => i64::from(x >= y),
        "And" => i64::from(x != 0 && y != 0),
        "Or" => i64::from(x != 0 || y != 0),
        _ => i64::from((x != 0) != (y != 0)),
    })
}

fn of_floats(op: &str, x: f32, y: f32) -> f32 {
    match op {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Mod" => x % y,
        "Pow" => x.powf(y),
        "Max" => x.max(y),
        _ => x.min(y),
    }
}

pub(super) fn arithmetic(op: &str, a: &Constant, b: &Constant, like_fmod: bool) -> Result<Constant, String> {
    let dims = broadcast(&[a, b], &[])?;
    let (a_strides, b_strides) = (spread(&dims, &a.dims), spread(&dims, &b.dims));
    let pairs = walk(&dims, &a_strides).zip(walk(&dims, &b_strides));
    let values = match (&a.values, &b.values) {
        (Values::Int(x), Values::Int(y)) => {
            let one = |(i, j): (usize, usize)| of_ints(op, x[i], y[j], like_fmod);
            Values::Int(pairs.map(one).collect::<Option<_>>().ok_or("overflows, or divides by 0")?)
        }
        _ => {
            let (x, y) = (a.floats().ok_or("is of an unknown type")?, b.floats().ok_or("is of an unknown type")?);
            if compares(op) {
                let order = |(i, j): (usize, usize)| {
                    let (x, y) = (x[i], y[j]);
                    i64::from(match op {
                        "Equal" => x == y,
                        "Less" => x < y,
                        "LessOrEqual" => x <= y,
                        "Greater" => x > y,
                        "GreaterOrEqual" => x >= y,
                        "And" => x != 0.0 && y != 0.0,
                        "Or" => x != 0.0 || y != 0.0,
                        _ => (x != 0.0) != (y != 0.0),
                    })
                };
                Values::Int(pairs.map(order).collect())
            } else {
                Values::Float(pairs.map(|(i, j)| of_floats(op, x[i], y[j])).collect())
            }
        }
    };
    Ok(Constant { dims, values })
}
