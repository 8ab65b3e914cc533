//! Exponentials and their like without branches on values: how long they take does not depend on
//! what they are given, and loops over them are vectorised.
//!
//! They consist of additions, multiplications, divisions and operations on bits, each rounded as
//! IEEE 754 says: owner, client and references get the same bits on every machine. Every function
//! is within 4e-7 of the real one, or within 1e-6 of its value (powers: 8e-6; the tests compare
//! with `libm`). Time can still depend on one thing: subnormal numbers, which some processors add
//! slowly.

/// Returns `a` where the condition holds, else `b`; both are computed.
#[inline]
pub(crate) fn pick(condition: bool, a: f32, b: f32) -> f32 {
    let mask = u32::from(condition).wrapping_neg();
    f32::from_bits((a.to_bits() & mask) | (b.to_bits() & !mask))
}

/// 1.5 * 2^23: added to this a number has no room for a fraction, and the lower bits are the
/// integer.
const BESIDE: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// Returns `2^n` for an integer from -126 to 127.
#[inline]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// Returns `n` and `p` with `exp(x) = 2^n * (1 + p)` and `|ln(1 + p)| <= ln 2 / 2`. `x` is cut to
/// -104 and 89, beyond which results are 0 or infinite for sure.
#[inline]
fn reduced(x: f32) -> (i32, f32) {
    let x = pick(x > -104.0, x, -104.0);
    let x = pick(x < 89.0, x, 89.0);
    let beside = x * std::f32::consts::LOG2_E + BESIDE;
    let n = beside - BESIDE;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    // Taylor's series to the seventh power: what is left out is below 2^-27 of the result.
    let series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let p = r + r * r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * series)));
    ((beside.to_bits() as i32).wrapping_sub(BESIDE.to_bits() as i32), p)
}

/// `exp(x)`.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    let (n, p) = reduced(x);
    // In two steps: the scale alone may be out of range where the result is not.
    let half = n >> 1;
    let y = (1.0 + p) * power_of_two(half) * power_of_two(n - half);
    pick(x.is_nan(), x, y)
}

/// `exp(x) - 1`, also where that is small.
#[inline]
pub(crate) fn exp_m1(x: f32) -> f32 {
    let (n, p) = reduced(x);
    let half = n >> 1;
    let (a, b) = (power_of_two(half), power_of_two(n - half));
    // Where the result is large, the 1 is lost in it, and the scale alone may be out of range.
    let y = pick(n < 64, p * a * b + (a * b - 1.0), (1.0 + p) * a * b);
    pick(x.is_nan(), x, y)
}

/// The natural logarithm.
#[inline]
pub(crate) fn ln(x: f32) -> f32 {
    /// The square root of a half.
    const LEAST: u32 = 0x3f35_04f3;
    let small = x < f32::MIN_POSITIVE;
    let scaled = pick(small, x * 8_388_608.0, x);
    // x = m * 2^e with m from sqrt(1/2) to sqrt(2).
    let bits = scaled.to_bits().wrapping_add(0x3f80_0000 - LEAST);
    let e = ((bits >> 23) as i32 - 127) as f32 + pick(small, -23.0, 0.0);
    let f = f32::from_bits((bits & 0x007f_ffff) + LEAST) - 1.0;
    // ln m = 2 artanh(s), |s| < 0.172: what is left out of the series is below 2^-28.
    let s = f / (2.0 + f);
    let z = s * s;
    let series = 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0)))));
    let y = e * LN_2[0] + (series + e * LN_2[1]);
    let y = pick(x == f32::INFINITY, x, y);
    let y = pick(x == 0.0, f32::NEG_INFINITY, y);
    pick(x < 0.0 || x.is_nan(), f32::NAN, y)
}

/// `1 / (1 + exp(-x))`.
#[inline]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline]
pub(crate) fn tanh(x: f32) -> f32 {
    let m = exp_m1(-2.0 * x.abs());
    (-m / (2.0 + m)).copysign(x)
}

/// The error function: Abramowitz and Stegun, 7.1.26 (within 1.5e-7).
#[inline]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let series = -1.453_152_1 + t * 1.061_405_4;
    let p = t * (0.254_829_6 + t * (-0.284_496_72 + t * (1.421_413_8 + t * series)));
    (1.0 - p * exp(-a * a)).copysign(x)
}

/// `ln(1 + exp(x))`.
#[inline]
pub(crate) fn softplus(x: f32) -> f32 {
    let y = x.max(0.0) + ln(1.0 + exp(-x.abs()));
    pick(x.is_nan(), x, y)
}

/// `x` where it is above zero, else `alpha * (exp(x / width) - 1)`.
#[inline]
pub(crate) fn elu(x: f32, alpha: f32, width: f32) -> f32 {
    pick(x > 0.0, x, alpha * exp_m1(x / width))
}

/// Returns `sin(pi * f)` for `|f| <= 1/2`, the sine of `f` half turns, by Taylor's series in double
/// precision (what is left out is below 1e-10).
#[inline]
fn sin_of_half_turns(f: f64) -> f64 {
    let x = f * std::f64::consts::PI;
    let z = x * x;
    let series = 1.0 / 362_880.0 - z * (1.0 / 39_916_800.0 - z * (1.0 / 6_227_020_800.0));
    x * (1.0 - z * (1.0 / 6.0 - z * (1.0 / 120.0 - z * (1.0 / 5_040.0 - z * series))))
}

/// The nearest integer, halves to the even one.
#[inline]
pub(crate) fn round(x: f32) -> f32 {
    /// 2^23: from there on every number is whole, and beside it no other has room for a fraction.
    const WHOLE: f32 = 8_388_608.0;
    let a = x.abs();
    let rounded = ((a + WHOLE) - WHOLE).copysign(x);
    pick(a < WHOLE, rounded, x)
}

/// The largest integer that is not larger.
#[inline]
pub(crate) fn floor(x: f32) -> f32 {
    let r = round(x);
    (r - f32::from(u8::from(r > x))).copysign(x)
}

/// The smallest integer that is not smaller.
#[inline]
pub(crate) fn ceil(x: f32) -> f32 {
    -floor(-x)
}

/// Cut to an integer, towards zero.
#[inline]
pub(crate) fn truncate(x: f32) -> f32 {
    floor(x.abs()).copysign(x)
}

/// Returns the sine of an angle `x` in radians plus `shift` half turns. Beyond 2^20 or so a 32-bit
/// float has no precise sine.
#[inline]
fn sin_from(x: f32, shift: f64) -> f32 {
    /// 1.5 * 2^52: beside it a double has no room for a fraction.
    const BESIDE: f64 = 6_755_399_441_055_744.0;
    let turns = f64::from(x) * std::f64::consts::FRAC_1_PI + shift;
    let beside = turns + BESIDE;
    let y = sin_of_half_turns(turns - (beside - BESIDE)) as f32;
    // An odd number of half turns reverses the sign.
    f32::from_bits(y.to_bits() ^ ((beside.to_bits() as u32 & 1) << 31))
}

/// The sine.
#[inline]
pub(crate) fn sin(x: f32) -> f32 {
    sin_from(x, 0.0)
}

/// The cosine.
#[inline]
pub(crate) fn cos(x: f32) -> f32 {
    sin_from(x, 0.5)
}

/// Returns the arc tangent: the angle is halved twice and then computed by its series.
#[inline]
pub(crate) fn atan(x: f32) -> f32 {
    let a = f64::from(x.abs());
    let large = a > 1.0;
    let z = if large { 1.0 / a } else { a };
    let half = |z: f64| z / (1.0 + (1.0 + z * z).sqrt());
    let z = half(half(z));
    let s = z * z;
    let series = 1.0 - s * (1.0 / 3.0 - s * (1.0 / 5.0 - s * (1.0 / 7.0 - s * (1.0 / 9.0 - s * (1.0 / 11.0)))));
    let angle = 4.0 * z * series;
    let y = if large { std::f64::consts::FRAC_PI_2 - angle } else { angle };
    (y as f32).copysign(x)
}

/// Returns `x` to a power: by multiplication for small whole exponents, which are public, else
/// through the logarithm. A negative number to a power that is not whole is NaN.
#[inline]
pub(crate) fn pow(x: f32, exponent: f32) -> f32 {
    if exponent == 0.5 {
        return x.sqrt();
    }
    let whole = exponent == exponent.trunc();
    if whole && exponent.abs() <= 16.0 {
        let y = (0..exponent.abs() as u32).fold(1.0f32, |y, _| y * x);
        return if exponent < 0.0 { 1.0 / y } else { y };
    }
    let magnitude = exp(exponent * ln(x.abs()));
    let odd = whole && (exponent / 2.0).trunc() * 2.0 != exponent;
    let negative = if odd { -magnitude } else { magnitude };
    pick(x < 0.0, if whole { negative } else { f32::NAN }, magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of all sizes, those around zero and the ends among them.
    fn samples() -> impl Iterator<Item = f32> {
        let spread = (-4_000..4_000).map(|i| i as f32 / 40.0);
        let sizes = (0..2_000).map(|i| f32::from_bits(0x0080_0000 + i * 0x000f_0000)).filter(|v| v.is_finite());
        let sizes = sizes.flat_map(|v| [v, -v]);
        spread.chain(sizes).chain([0.0, -0.0, 88.72, -87.3, -103.9, 1e-30, f32::MAX, f32::MIN, f32::MIN_POSITIVE])
    }

    fn compare(name: &str, got: fn(f32) -> f32, want: impl Fn(f64) -> f64) {
        // A power through a logarithm has the error of an exponent of up to 88.
        let relative = if name.starts_with("pow") { 8e-6 } else { 1e-6 };
        for x in samples() {
            let (g, w) = (got(x), want(f64::from(x)) as f32);
            let near = (g - w).abs() <= 4e-7 + relative * w.abs() || g == w || g.is_nan() && w.is_nan();
            assert!(near, "{name}({x:e}) = {g:e}, not {w:e}");
        }
    }

    #[test]
    fn they_are_near_the_real_ones() {
        compare("exp", exp, libm::exp);
        compare("exp_m1", exp_m1, libm::expm1);
        compare("ln", ln, libm::log);
        compare("sigmoid", sigmoid, |x| 1.0 / (1.0 + libm::exp(-x)));
        compare("tanh", tanh, libm::tanh);
        compare("erf", erf, libm::erf);
        compare("softplus", softplus, |x| x.max(0.0) + libm::log1p(libm::exp(-x.abs())));
        compare("elu", |x| elu(x, 1.5, 1.0), |x| if x > 0.0 { x } else { 1.5 * libm::expm1(x) });
        // A sine of a number that has no fraction any more is a matter of taste.
        compare("sin", |x| sin(x.clamp(-1e5, 1e5)), |x| libm::sin(x.clamp(-1e5, 1e5)));
        compare("cos", |x| cos(x.clamp(-1e5, 1e5)), |x| libm::cos(x.clamp(-1e5, 1e5)));
        compare("atan", atan, libm::atan);
        compare("pow 3", |x| pow(x, 3.0), |x| libm::pow(x, 3.0));
        compare("pow -2", |x| pow(x, -2.0), |x| libm::pow(x, -2.0));
        compare("pow 0.25", |x| pow(x, 0.25), |x| libm::pow(x, 0.25));
    }

    #[test]
    fn small_results_keep_their_digits() {
        for x in [1e-10f32, -1e-10, 3e-6, -2e-4, 0.01] {
            let relative = |g: f32, w: f64| (f64::from(g) - w).abs() / w.abs();
            assert!(relative(exp_m1(x), libm::expm1(x.into())) < 3e-7);
            assert!(relative(tanh(x), libm::tanh(x.into())) < 3e-7);
        }
    }

    #[test]
    fn integers_are_the_standard_librarys() {
        let halves = (-40..40).map(|i| i as f32 / 4.0);
        let large = [8_388_607.5, 8_388_608.0, 8_388_609.0, 4_194_303.5, 4_194_304.5, 1e30, f32::INFINITY, 1e-40, 0.0];
        let ends = large.into_iter().flat_map(|v| [v, -v, v.next_up(), (-v).next_up(), v.next_down()]);
        for x in samples().chain(halves).chain(ends) {
            for (name, got, want) in [
                ("round", round(x), x.round_ties_even()),
                ("floor", floor(x), x.floor()),
                ("ceil", ceil(x), x.ceil()),
                ("truncate", truncate(x), x.trunc()),
            ] {
                assert!(got.to_bits() == want.to_bits() || x.is_nan(), "{name}({x}) = {got}, not {want}");
            }
        }
    }

    #[test]
    fn no_number_stays_no_number() {
        let of_nan = [exp, exp_m1, ln, sigmoid, tanh, erf, softplus].map(|f| f(f32::NAN));
        assert!(of_nan.iter().all(|v| v.is_nan()));
        assert!(ln(-1.0).is_nan() && ln(0.0) == f32::NEG_INFINITY && pow(-2.0, 0.3).is_nan());
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (f32::INFINITY, 0.0));
        assert_eq!((tanh(f32::INFINITY), erf(f32::NEG_INFINITY), sigmoid(-200.0)), (1.0, -1.0, 0.0));
    }
}
