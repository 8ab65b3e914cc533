//! Results are those of plain integers, one by one and in batches.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn results_are_exact(tiles in 1usize..5, open in prop::collection::vec(any::<bool>(), 1..4), seed: u8, kind in 0usize..5) {
        // N = 4096 carries hidden rows; N = 2048 with one prime only open ones.
        let fixture = match kind {
            0 => Fixture::new(2048, &[47], tiles, &vec![true; open.len()], seed),
            1 => Fixture::new(4096, &[33, 33], tiles, &open, seed),
            2 => Fixture::mixed(tiles, &open, seed),
            blocks => Fixture::blocks(tiles, &open.repeat(blocks), blocks, seed),
        };
        prop_assert!(fixture.key.noise().log2_failure < -64.0);
        let x = fixture.input(seed);
        let (masked, pending) = fixture.mask(&x, seed);
        let answer = fixture.answer(&fixture.serve(&masked));
        prop_assert_eq!(pending.finish(Some(answer)).unwrap(), fixture.expected(&x));
    }
}

#[test]
fn extreme_inputs_are_exact() {
    let fixture = Fixture::new(4096, &[33, 33], 3, &[false, true], 9);
    for value in [BOUND, -BOUND, 0] {
        let x = vec![vec![value; 4096]; 3];
        let (masked, pending) = fixture.mask(&x, 1);
        let answer = fixture.answer(&fixture.serve(&masked));
        assert_eq!(pending.finish(Some(answer)).unwrap(), fixture.expected(&x));
    }
}

#[test]
fn a_batch_is_finished_as_its_images_are() {
    let open = [false, true, false];
    for fixture in [Fixture::mixed(2, &open, 2), Fixture::blocks(2, &open, 3, 2)] {
        let workspace = Zeroizing::new(Workspace::default());
        // More than products are held of together.
        let inputs: Vec<_> = (0..9).map(|seed| fixture.input(seed)).collect();
        let batch = || -> Vec<_> {
            let one = |(seed, x): (usize, &Vec<Vec<i64>>)| {
                let (masked, pending) = fixture.mask(x, seed as u8);
                (pending, Some(fixture.answer(&fixture.serve(&masked))))
            };
            inputs.iter().enumerate().map(one).collect()
        };
        let want: Vec<_> = inputs.iter().map(|x| fixture.expected(x)).collect();
        assert_eq!(fixture.key.finish_batch(batch(), &workspace).unwrap(), want);
        assert_eq!(fixture.key.finish_batch(vec![], &workspace).unwrap(), Vec::<Vec<i64>>::new());
        // Answers of two images mixed up, and one missing: nothing is unmasked.
        let mut mixed = batch();
        let first = mixed[0].1.take();
        mixed[0].1 = mixed[3].1.take();
        mixed[3].1 = first;
        assert_eq!(fixture.key.finish_batch(mixed, &workspace), Err(MaskError::AnswerRejected));
        let mut missing = batch();
        missing[4].1 = None;
        assert_eq!(fixture.key.finish_batch(missing, &workspace), Err(MaskError::AnswerRejected));
        let other = Fixture::mixed(2, &open, 3);
        assert!(matches!(other.key.finish_batch(batch(), &workspace), Err(MaskError::Shape { .. })));
    }
}

/// Alters the rows of a batch, image by image.
type Lie<'a> = &'a dyn Fn(&mut [Vec<Poly<Ntt>>]);

#[test]
fn batches_are_exact_and_checked_image_by_image() {
    let open = [false, true, false];
    for fixture in
        [Fixture::mixed(2, &open, 2), Fixture::blocks(2, &open, 3, 2), Fixture::new(4096, &[33, 33], 3, &open, 4)]
    {
        let inputs: Vec<_> = (0..3).map(|seed| fixture.input(seed)).collect();
        let want: Vec<_> = inputs.iter().map(|x| fixture.expected(x)).collect();
        let workspace = Zeroizing::new(Workspace::default());
        // What the server says is altered by `lie`.
        let finish = |lie: Lie<'_>| {
            let (masked, pending): (Vec<_>, Vec<_>) =
                inputs.iter().enumerate().map(|(i, x)| fixture.mask(x, 10 + i as u8)).unzip();
            let mut rows: Vec<_> = masked.iter().map(|x| fixture.products(x)).collect();
            lie(&mut rows);
            let answers = rows.iter().map(|rows| Some(fixture.answer_of(rows)));
            fixture.key.finish_batch(pending.into_iter().zip(answers).collect(), &workspace)
        };
        assert_eq!(finish(&|_| {}).as_ref(), Ok(&want));
        let ring = fixture.ring();
        for row in 0..open.len() {
            for limb in 0..fixture.key.form().limbs()[row] {
                // One value in the NTT domain is all coefficients together.
                let add = |p: &mut Poly<Ntt>| {
                    let v = &mut p.limb_mut(limb)[1000 + row];
                    *v = ring.moduli()[limb].add(*v, 1);
                };
                assert_eq!(finish(&|rows| add(&mut rows[1][row])), Err(MaskError::AnswerRejected));
            }
        }
        assert_eq!(finish(&|rows| rows[2].swap(0, 2)), Err(MaskError::AnswerRejected));
    }
}
