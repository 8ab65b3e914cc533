//! Random shapes against plain convolution, with products in `Z[X]/(X^N + 1)` computed term by term.

use jali_model::{Conv, Gemm, Linear};
use proptest::prelude::*;

use crate::*;

/// A small deterministic generator: the tests need variety, not randomness.
fn values(seed: u64, n: usize, span: i64) -> Vec<i32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as i64 % (2 * span + 1) - span) as i32
    };
    (0..n).map(|_| next()).collect()
}

/// Rows times tiles, negacyclic, cut to the wanted coefficients.
fn multiply(layout: &Layout, weights: &[i32], x: &[i32], degree: usize) -> Vec<i64> {
    let tiles = layout.pack(x);
    assert_eq!(tiles.len(), layout.tiles());
    assert!(tiles.iter().all(|t| t.len() == degree));
    let WantedPattern { start, dims } = layout.wanted();
    let indices = (0..dims[0].0).flat_map(|a| {
        (0..dims[1].0).flat_map(move |b| (0..dims[2].0).map(move |c| a * dims[0].1 + b * dims[1].1 + c * dims[2].1))
    });
    let distinct: std::collections::BTreeSet<usize> = indices.clone().collect();
    assert_eq!(distinct.len(), indices.count(), "no two outputs share a coefficient");
    let mut out = vec![];
    for row in 0..layout.rows() {
        let mut y = vec![0i64; degree];
        let terms = layout.row(weights, row);
        assert_eq!(terms.len(), tiles.len());
        for (tile, x) in terms.iter().zip(&tiles) {
            assert!(tile.windows(2).all(|t| t[0].0 < t[1].0), "indices rise");
            for &(i, w) in tile {
                for (j, &x) in x.iter().enumerate().filter(|(_, x)| **x != 0) {
                    let k = i as usize + j;
                    y[k % degree] += if k < degree { x * i64::from(w) } else { -x * i64::from(w) };
                }
            }
        }
        for a in 0..dims[0].0 {
            for b in 0..dims[1].0 {
                for c in 0..dims[2].0 {
                    out.push(y[start + a * dims[0].1 + b * dims[1].1 + c * dims[2].1]);
                }
            }
        }
    }
    layout.unpack(out)
}

fn plain_conv(c: &Conv, [channels, h, w]: [usize; 3], weights: &[i32], x: &[i32]) -> Vec<i64> {
    let [top, left, bottom, right] = c.padding.map(|p| p as i64);
    let (rows, cols) =
        (h as i64 + top + bottom - c.kernel[0] as i64 + 1, w as i64 + left + right - c.kernel[1] as i64 + 1);
    let mut out = vec![];
    for m in 0..c.filters {
        for i in 0..rows {
            for j in 0..cols {
                let mut sum = 0;
                for ch in 0..channels {
                    for di in 0..c.kernel[0] {
                        for dj in 0..c.kernel[1] {
                            let (y, z) = (i + di as i64 - top, j + dj as i64 - left);
                            if (0..h as i64).contains(&y) && (0..w as i64).contains(&z) {
                                let weight = weights[((m * channels + ch) * c.kernel[0] + di) * c.kernel[1] + dj];
                                sum += i64::from(weight) * i64::from(x[(ch * h + y as usize) * w + z as usize]);
                            }
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

fn conv(filters: usize, channels: usize, kernel: [usize; 2], padding: [usize; 4]) -> Conv {
    let weight = vec![0.0; filters * channels * kernel[0] * kernel[1]];
    let (stride, dilation) = ([1, 1], [1, 1]);
    Conv { weight, bias: vec![0.0; filters], filters, channels, kernel, stride, padding, dilation, groups: 1 }
}

fn check_conv(c: &Conv, input: [usize; 3], degree: usize, seed: u64) -> Result<usize, TestCaseError> {
    let weights = values(seed, c.weight.len(), 127);
    let x = values(seed + 1, input.iter().product(), 255);
    let want = plain_conv(c, input, &weights, &x);
    let candidates = match ConvLayout::candidates(c, input, degree) {
        Ok(candidates) => candidates,
        Err(PackError::TooLarge { needed, .. }) => {
            prop_assert!(needed > degree);
            return Ok(0);
        }
        Err(e) => return Err(TestCaseError::fail(e.to_string())),
    };
    prop_assert!(!candidates.is_empty());
    // The tightest tile, the cheapest, and one in the middle.
    let picks = [0, candidates.len() / 2, candidates.len() - 1];
    for pick in picks {
        let layout = Layout::Conv(candidates[pick].clone());
        prop_assert_eq!(&multiply(&layout, &weights, &x, degree), &want, "{:?}", layout);
    }
    Ok(candidates.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn convolutions_of_any_shape(
        k in prop::sample::select(vec![1usize, 3, 5, 7]), k2 in prop::sample::select(vec![1usize, 3, 5, 7]), square in any::<bool>(),
        h in 1usize..20, w in 1usize..20, channels in 1usize..7, filters in 1usize..7,
        pad in [0usize..7, 0usize..7, 0usize..7, 0usize..7], seed: u64,
    ) {
        let kernel = [k, if square { k } else { k2 }];
        // Any padding that leaves the window inside the padded plane.
        prop_assume!(h + pad[0] + pad[2] >= kernel[0] && w + pad[1] + pad[3] >= kernel[1]);
        check_conv(&conv(filters, channels, kernel, pad), [channels, h, w], 1024, seed >> 1)?;
    }

    #[test]
    fn fully_connected_layers_of_any_shape(inputs in 1usize..2100, outputs in 1usize..30, seed: u64) {
        let weights = values(seed >> 1, inputs * outputs, 127);
        let x = values(seed >> 2, inputs, 255);
        let dot = |row: &[i32]| row.iter().zip(&x).map(|(&w, &x)| i64::from(w) * i64::from(x)).sum::<i64>();
        let want: Vec<i64> = weights.chunks_exact(inputs).map(dot).collect();
        let candidates = FcLayout::candidates(inputs, outputs, 1024);
        prop_assert!(!candidates.is_empty());
        for pick in [0, candidates.len() / 2, candidates.len() - 1] {
            let layout = Layout::Fc(candidates[pick].clone());
            prop_assert_eq!(&multiply(&layout, &weights, &x, 1024), &want, "{:?}", layout);
        }
    }
}

#[test]
fn planes_that_fill_the_ring_to_the_last_coefficient() {
    // 32 x 32 without padding and 1x1 kernels: P = 1024 = N.
    assert_eq!(check_conv(&conv(3, 2, [1, 1], [0; 4]), [2, 32, 32], 1024, 5).unwrap(), 1);
    // A single pixel.
    assert!(check_conv(&conv(5, 4, [1, 1], [0; 4]), [4, 1, 1], 1024, 6).unwrap() > 1);
    assert!(check_conv(&conv(2, 3, [7, 7], [6, 6, 6, 6]), [3, 1, 1], 1024, 7).unwrap() > 0);
    // Four planes of 256 coefficients exactly.
    assert!(check_conv(&conv(4, 4, [3, 3], [0; 4]), [4, 16, 16], 1024, 8).unwrap() > 1);
    // One coefficient too large.
    let error = ConvLayout::candidates(&conv(1, 1, [1, 1], [0; 4]), [1, 25, 41], 1024).unwrap_err();
    assert_eq!(error, PackError::TooLarge { what: "a tile of the convolution", needed: 1025, degree: 1024 });
}

#[test]
fn small_layouts_of_vgg3_are_among_the_candidates() {
    let least = |linear, input: &[usize]| {
        let all = Layout::candidates(linear, input, 4096).unwrap();
        all.iter().map(|l| l.tiles() * l.rows()).min().unwrap()
    };
    let c = conv(32, 32, [3, 3], [1; 4]);
    assert!(least(Linear::Conv(&c), &[32, 32, 32]) <= 352);
    let g = Gemm { weight: vec![0.0; 2048 * 128], bias: vec![0.0; 128], inputs: 2048, outputs: 128 };
    assert!(least(Linear::Gemm(&g), &[2048]) <= 70);
    for layout in Layout::candidates(Linear::Gemm(&g), &[2048], 4096).unwrap() {
        assert_eq!(layout.outputs_of_row(layout.rows() - 1, 128).end, 128);
        assert!(!layout.describe().is_empty());
    }
}

#[test]
fn what_is_not_lowered_yet_says_so() {
    let choose = |c: &Conv| Layout::candidates(Linear::Conv(c), &[4, 8, 8], 4096).unwrap_err().to_string();
    let base = conv(4, 4, [3, 3], [1; 4]);
    assert!(choose(&Conv { stride: [2, 2], ..base.clone() }).contains("stride"));
    assert!(choose(&Conv { dilation: [2, 1], ..base.clone() }).contains("dilation"));
    assert!(choose(&Conv { groups: 2, ..base }).contains("group"));
}
