//! Random shapes against plain convolution, with products in `Z[X]/(X^N + 1)` computed term by
//! term.

use jali_model::{Conv, Gemm, Linear};
use jali_testing::add_negacyclic_product;
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

/// Every strip of an image through the same matrix.
fn multiply(layout: &Layout, weights: &[i32], x: &[i32], degree: usize) -> Vec<i64> {
    let strips = layout.pack(x);
    assert_eq!(strips.len(), layout.strips());
    let products: Vec<_> = strips.iter().map(|tiles| multiply_strip(layout, weights, tiles, degree)).collect();
    layout.unpack(&products)
}

/// Rows times the tiles of their block, negacyclic, cut to the wanted coefficients.
fn multiply_strip(layout: &Layout, weights: &[i32], tiles: &[Vec<i64>], degree: usize) -> Vec<i64> {
    assert_eq!(tiles.len(), layout.tiles());
    assert_eq!(layout.rows() % layout.blocks(), 0);
    let block_rows = layout.rows() / layout.blocks();
    assert!(tiles.iter().all(|t| t.len() == degree));
    // No two outputs share a coefficient, or it could not be expanded.
    let wanted = layout.wanted().expand(degree).unwrap();
    let mut out = vec![];
    for row in 0..layout.rows() {
        let mut y = vec![0i64; degree];
        let terms = layout.row(weights, row);
        assert_eq!(terms.len(), layout.row_tiles());
        for (tile, x) in terms.iter().zip(&tiles[row / block_rows * layout.row_tiles()..]) {
            assert!(tile.windows(2).all(|t| t[0].0 < t[1].0), "indices rise");
            add_negacyclic_product(&mut y, tile, x);
        }
        out.extend(wanted.indices().iter().map(|&k| y[k as usize]));
    }
    out
}

fn plain_conv(c: &Conv, [channels, h, w]: [usize; 3], weights: &[i32], x: &[i32]) -> Vec<i64> {
    let [top, left, bottom, right] = c.padding.map(|p| p as i64);
    let [down, right_by] = c.stride.map(|s| s as i64);
    let reach = |axis: usize| ((c.kernel[axis] - 1) * c.dilation[axis]) as i64;
    let (rows, cols) =
        ((h as i64 + top + bottom - reach(0) - 1) / down + 1, (w as i64 + left + right - reach(1) - 1) / right_by + 1);
    let mut out = vec![];
    assert_eq!(channels, c.channels * c.groups);
    for m in 0..c.filters {
        for i in 0..rows {
            for j in 0..cols {
                let mut sum = 0;
                for ch in 0..c.channels {
                    for di in 0..c.kernel[0] {
                        for dj in 0..c.kernel[1] {
                            let y = i * down + (di * c.dilation[0]) as i64 - top;
                            let z = j * right_by + (dj * c.dilation[1]) as i64 - left;
                            if (0..h as i64).contains(&y) && (0..w as i64).contains(&z) {
                                let weight = weights[((m * c.channels + ch) * c.kernel[0] + di) * c.kernel[1] + dj];
                                let from = m / (c.filters / c.groups) * c.channels + ch;
                                sum += i64::from(weight) * i64::from(x[(from * h + y as usize) * w + z as usize]);
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
    // The first, the last and some between: of every number of strips and groups in a tile.
    let (step, last) = (candidates.len().div_ceil(5), candidates.len() - 1);
    for pick in (0..=last).step_by(step).chain([last]) {
        let layout = Layout::Conv(Box::new(candidates[pick].clone()));
        let again = Layout::chosen(Linear::Conv(c), &input, degree, layout.choice()).unwrap();
        prop_assert_eq!(&again, &layout);
        let rows = (0..layout.rows()).flat_map(|row| layout.outputs_of_row(row));
        prop_assert!(rows.eq(0..c.filters), "every filter once, in order: {:?}", layout);
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
    fn strides_dilations_groups_and_strips_of_any_shape(
        kernel in [1usize..6, 1usize..6], stride in [1usize..5, 1usize..5], dilation in [1usize..4, 1usize..4],
        h in 1usize..48, w in 1usize..40, groups in 1usize..7, channels in 1usize..4, filters in 1usize..4,
        pad in [0usize..6, 0usize..6, 0usize..6, 0usize..6], small: bool, seed: u64,
    ) {
        let reach = |axis: usize| (kernel[axis] - 1) * dilation[axis] + 1;
        prop_assume!(h + pad[0] + pad[2] >= reach(0) && w + pad[1] + pad[3] >= reach(1));
        let weight = vec![0.0; groups * filters * channels * kernel[0] * kernel[1]];
        let (bias, filters) = (vec![0.0; groups * filters], groups * filters);
        let c = Conv { weight, bias, filters, channels, kernel, stride, padding: pad, dilation, groups };
        // In the smaller ring most of these planes need strips.
        check_conv(&c, [channels * groups, h, w], if small { 256 } else { 1024 }, seed >> 1)?;
    }

    #[test]
    fn depthwise_layers_of_any_size(
        k in 1usize..6, stride in 1usize..3, size in 1usize..17, channels in 1usize..40, times in 1usize..3, seed: u64,
    ) {
        let weight = vec![0.0; channels * times * k * k];
        let (bias, filters, padding) = (vec![0.0; channels * times], channels * times, [k / 2; 4]);
        let c = Conv {
            weight, bias, filters, channels: 1, kernel: [k; 2], stride: [stride; 2], padding, dilation: [1; 2], groups: channels,
        };
        check_conv(&c, [channels, size, size], 1024, seed >> 1)?;
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
    assert!(check_conv(&conv(3, 2, [1, 1], [0; 4]), [2, 32, 32], 1024, 5).unwrap() > 0);
    // A single pixel.
    assert!(check_conv(&conv(5, 4, [1, 1], [0; 4]), [4, 1, 1], 1024, 6).unwrap() > 1);
    assert!(check_conv(&conv(2, 3, [7, 7], [6, 6, 6, 6]), [3, 1, 1], 1024, 7).unwrap() > 0);
    // Four planes of 256 coefficients exactly.
    assert!(check_conv(&conv(4, 4, [3, 3], [0; 4]), [4, 16, 16], 1024, 8).unwrap() > 1);
    // One coefficient too large: two strips.
    let strips = ConvLayout::candidates(&conv(1, 1, [1, 1], [0; 4]), [1, 25, 41], 1024).unwrap();
    assert!(strips.iter().all(|l| l.strips() > 1));
    check_conv(&conv(1, 1, [1, 1], [0; 4]), [1, 25, 41], 1024, 9).unwrap();
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
        assert_eq!(layout.outputs_of_row(layout.rows() - 1).end, 128);
        assert!(!layout.describe().is_empty());
    }
}

#[test]
fn tiles_of_common_layers_are_as_few_as_the_packing_allows() {
    let least = |c: &Conv, input: [usize; 3], degree: usize| {
        let all = ConvLayout::candidates(c, input, degree).unwrap();
        // Ring products of an image: rows times tiles of a row times strips.
        all.iter().map(|l| l.rows() * l.row_tiles() * l.strips()).min().unwrap()
    };
    let base = |filters, channels, k: usize, stride, groups| {
        let c = conv(filters, channels / groups, [k; 2], [k / 2; 4]);
        Conv { stride: [stride; 2], groups, ..c }
    };
    // 7x7 planes of 3x3 kernels share their padding: 64 coefficients each, so 63 pairs of 4096 and
    // not 56.
    assert!(least(&base(512, 512, 3, 1, 1), [512, 7, 7], 4096) <= 512 * 512 / 60);
    // A strided shortcut reads one phase of four.
    assert_eq!(least(&base(64, 32, 1, 2, 1), [32, 16, 16], 4096), 32);
    // Depthwise: a tile of 49 planes of 9 x 9 would need 49^2 places to keep them apart; 7 planes
    // and 7 filters fit.
    assert!(least(&base(64, 64, 3, 1, 64), [64, 8, 8], 4096) <= 10);
    // The stem of a ResNet, 224 x 224: three channels in four phases each, 64 filters, in strips.
    assert!(least(&base(64, 3, 7, 2, 1), [3, 224, 224], 4096) <= 12 * 64 * 4);
}

#[test]
fn what_cannot_be_lowered_says_so() {
    let choice = |[tile_inputs, row_outputs, block_groups, strips]: [usize; 4]| LayoutChoice {
        tile_inputs,
        row_outputs,
        block_groups,
        strips,
    };
    let choose = |c: &Conv, numbers: [usize; 4]| {
        Layout::chosen(Linear::Conv(c), &[4, 8, 8], 4096, choice(numbers)).unwrap_err().to_string()
    };
    let base = conv(4, 4, [3, 3], [1; 4]);
    assert!(choose(&base, [1, 1, 3, 1]).contains("groups in a block"));
    assert!(choose(&Conv { groups: 4, channels: 1, ..base.clone() }, [1, 1, 2, 1]).contains("more than one tile"));
    assert!(choose(&base, [1, 1, 1, 9]).contains("strips"));
    assert!(choose(&base, [64, 64, 1, 1]).contains("coefficients"));
    assert!(choose(&Conv { kernel: [20, 1], ..base }, [1, 1, 1, 1]).contains("window"));
    let g = Gemm { weight: vec![], bias: vec![], inputs: 4, outputs: 4 };
    assert!(Layout::chosen(Linear::Gemm(&g), &[4], 4096, choice([4, 4, 1, 2])).is_err());
    // A row of pixels that is wider than the largest ring.
    let wide = Layout::candidates(Linear::Conv(&conv(1, 1, [1, 1], [0; 4])), &[1, 1, 40_000], 32_768);
    assert!(matches!(wide, Err(PackError::TooLarge { .. })));
}
