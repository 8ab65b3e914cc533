//! Products of random shapes, by every backend, compared with sums by definition.

use proptest::prelude::*;

use super::*;

/// The sums by the definition of a convolution.
fn oracle(conv: &Conv, weights: &[u32], input: &[usize], output: &[usize], x: &[u32]) -> Vec<u32> {
    let (&[_, height, width], &[filters, out_height, out_width]) = (input, output) else { panic!("planes") };
    let mut y = vec![0_u32; filters * out_height * out_width];
    for (i, y) in y.iter_mut().enumerate() {
        let (f, oy, ox) = (i / (out_height * out_width), i / out_width % out_height, i % out_width);
        let group = f / (filters / conv.groups);
        for c in 0..conv.channels {
            for ky in 0..conv.kernel[0] {
                for kx in 0..conv.kernel[1] {
                    let iy = (oy * conv.stride[0] + ky * conv.dilation[0]).wrapping_sub(conv.padding[0]);
                    let ix = (ox * conv.stride[1] + kx * conv.dilation[1]).wrapping_sub(conv.padding[1]);
                    if iy < height && ix < width {
                        let w = weights[((f * conv.channels + c) * conv.kernel[0] + ky) * conv.kernel[1] + kx];
                        let x = x[((group * conv.channels + c) * height + iy) * width + ix];
                        *y = y.wrapping_add(w.wrapping_mul(x));
                    }
                }
            }
        }
    }
    y
}

fn words(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(11).wrapping_mul(0x85eb_ca6b)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn convolutions_are_sums_of_products(
        (groups, of_group, channels) in (1..4_usize, 1..11_usize, 1..4_usize),
        (height, width) in (1..12_usize, 1..40_usize),
        kernel in prop::array::uniform2(1..4_usize),
        stride in prop::array::uniform2(1..4_usize),
        dilation in prop::array::uniform2(1..3_usize),
        padding in prop::array::uniform4(0..3_usize),
    ) {
        let extent = |n: usize, axis: usize| {
            let padded = n + padding[axis] + padding[axis + 2];
            (padded.checked_sub((kernel[axis] - 1) * dilation[axis] + 1)).map(|rest| rest / stride[axis] + 1)
        };
        let (Some(out_height), Some(out_width)) = (extent(height, 0), extent(width, 1)) else { return Ok(()) };
        let filters = groups * of_group;
        let conv =
            Conv { weight: vec![], bias: vec![], filters, channels, kernel, stride, padding, dilation, groups };
        let (input, output) = ([groups * channels, height, width], [filters, out_height, out_width]);
        let weights = words(filters * channels * kernel[0] * kernel[1], 1);
        let x = words(input.iter().product(), 2);
        let want = oracle(&conv, &weights, &input, &output, &x);
        let matrix = Matrix::new(Linear::Conv(&conv), &input, &output, &weights, 32);
        let added = |matrix: &Matrix, backend: Backend, x: &[u32]| -> Vec<u32> {
            let mut y = words(want.len(), 3);
            matrix.add_product(backend, x, &mut y);
            y.iter().zip(words(want.len(), 3)).map(|(y, b)| y.wrapping_sub(b)).collect()
        };
        for backend in Backend::all() {
            prop_assert_eq!(&added(&matrix, backend, &x), &want);
        }
        // Numbers of 16 bits, in pairs.
        let short = |words: &[u32]| words.iter().map(|w| *w as i32 >> 16).map(|v| v as u32).collect::<Vec<_>>();
        let (weights, x) = (short(&weights), short(&x));
        let want = oracle(&conv, &weights, &input, &output, &x);
        let range = [i64::from(i16::MIN), i64::from(i16::MAX)];
        let matrix = Matrix::in_the_clear(Linear::Conv(&conv), &input, &output, &weights, (32, range));
        prop_assert_eq!(matches!(matrix.shape, Shape::Pairs { .. }), channels > 1);
        for backend in Backend::all() {
            prop_assert_eq!(&added(&matrix, backend, &x), &want);
        }
    }

    /// With sums of fewer bits, three by three taps are computed in tiles.
    #[test]
    fn tiles_are_sums_of_products(
        (filters, channels) in (8..19_usize, 8..13_usize),
        (height, width) in (1..13_usize, 1..40_usize),
        padding in prop::array::uniform4(0..6_usize),
    ) {
        let extent = |n: usize, axis: usize| (n + padding[axis] + padding[axis + 2]).checked_sub(2);
        let (Some(out_height @ 1..), Some(out_width @ 1..)) = (extent(height, 0), extent(width, 1)) else {
            return Ok(());
        };
        let (kernel, stride, dilation, groups) = ([3, 3], [1, 1], [1, 1], 1);
        let conv =
            Conv { weight: vec![], bias: vec![], filters, channels, kernel, stride, padding, dilation, groups };
        let (input, output) = ([channels, height, width], [filters, out_height, out_width]);
        let (weights, x) = (words(filters * channels * 9, 1), words(input.iter().product(), 2));
        let want = oracle(&conv, &weights, &input, &output, &x);
        let matrix = Matrix::new(Linear::Conv(&conv), &input, &output, &weights, 30);
        prop_assert!(matches!(matrix.shape, Shape::Tiles(_)));
        let whole = Matrix::new(Linear::Conv(&conv), &input, &output, &weights, 31);
        prop_assert!(matches!(whole.shape, Shape::Conv(_)), "tiles lose two bits");
        for backend in Backend::all() {
            let mut y = words(want.len(), 3);
            matrix.add_product(backend, &x, &mut y);
            for ((y, before), want) in y.iter().zip(words(want.len(), 3)).zip(&want) {
                prop_assert_eq!(y.wrapping_sub(before) << 2, want << 2);
            }
        }
    }

    #[test]
    fn dense_layers_are_sums_of_products(inputs in 1..300_usize, outputs in 1..20_usize) {
        let (weights, x) = (words(inputs * outputs, 1), words(inputs, 2));
        let gemm = Gemm { weight: vec![], bias: vec![], inputs, outputs };
        let matrix = Matrix::new(Linear::Gemm(&gemm), &[inputs], &[outputs], &weights, 32);
        let sum = |row: &[u32]| row.iter().zip(&x).fold(0_u32, |s, (w, x)| s.wrapping_add(w.wrapping_mul(*x)));
        let want: Vec<u32> = weights.chunks_exact(inputs).map(sum).collect();
        for backend in Backend::all() {
            let mut y = vec![0; outputs];
            matrix.add_product(backend, &x, &mut y);
            prop_assert_eq!(&y, &want);
        }
    }

    /// Sessions that share a pass get the product of their own inputs each.
    #[test]
    fn shared_products_are_each_sessions_own(
        (inputs, outputs, sessions) in (1..90_usize, 1..300_usize, 1..12_usize)
    ) {
        let weights = words(inputs * outputs, 1);
        let gemm = Gemm { weight: vec![], bias: vec![], inputs, outputs };
        let alone = Matrix::new(Linear::Gemm(&gemm), &[inputs], &[outputs], &weights, 32);
        for backend in Backend::all() {
            let shared = Matrix { gathering: Some(Arc::default()), ..alone.clone() };
            std::thread::scope(|scope| {
                for session in 0..sessions {
                    let (alone, shared) = (&alone, &shared);
                    scope.spawn(move || {
                        let x = words(inputs, session as u32);
                        let (mut got, mut want) = (words(outputs, 7), words(outputs, 7));
                        shared.add_product(backend, &x, &mut got);
                        alone.add_product(backend, &x, &mut want);
                        assert_eq!(got, want);
                    });
                }
            });
        }
    }
}
