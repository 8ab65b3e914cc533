//! Rows against one division per product.

use super::*;
use crate::RowProduct;

fn compare_rows(degree: usize, bits: &[u32], rows: &[Vec<Poly<Ntt>>], batch: &[Vec<Poly<Ntt>>]) {
    for backend in backends() {
        let ring = Ring::with_backend(degree, bits, backend).unwrap();
        // A row of which only leading residues are given is held modulo these primes alone.
        let limbs: Vec<usize> = rows.iter().map(|tiles| tiles[0].limbs()).collect();
        let mut store = RowStore::new(&ring, &limbs, rows[0].len()).unwrap();
        assert!(store.bytes() <= RowStore::bytes_needed(&ring, &limbs, rows[0].len()));
        for (row, tiles) in rows.iter().enumerate() {
            tiles.iter().enumerate().for_each(|(tile, p)| store.set(row, tile, p));
        }
        let batch_of = prepare(&store, &ring, batch).unwrap();
        let products = store.products(&ring, &batch_of, 0..rows.len()).unwrap();
        let last = store.products(&ring, &batch_of, rows.len() - 1..rows.len()).unwrap();
        for (image, x) in batch.iter().enumerate() {
            for (row, tiles) in rows.iter().enumerate() {
                let want = store.product_naive(&ring, row, x);
                // The store's order is part of what is tested: some coefficients from the elements
                // themselves.
                for (l, m) in ring.moduli()[..limbs[row]].iter().enumerate() {
                    for k in [0, 1, 31, 32, 63, 64, degree / 2 + 5, degree - 1] {
                        let by_hand = tiles.iter().zip(x).fold(0u128, |s, (w, x)| {
                            (s + u128::from(w.limb(l)[k]) * u128::from(x.limb(l)[k])) % u128::from(m.value())
                        });
                        assert_eq!(u128::from(want.limb(l)[k]), by_hand);
                    }
                }
                let got = &products[row][image];
                assert!(row + 1 < rows.len() || last[0][image] == *got, "{}, one row alone", backend.name());
                assert!(*got == want, "{}, row {row}, image {image}", backend.name());
            }
        }
    }
}

/// Elements in order, as the batch that they are.
pub(super) fn prepare(store: &RowStore, ring: &Ring, batch: &[impl AsRef<[Poly<Ntt>]>]) -> Result<Batch, RingError> {
    let batch: Vec<Vec<&Poly<Ntt>>> = batch.iter().map(|x| x.as_ref().iter().collect()).collect();
    store.prepare(ring, Inputs::Elements(&batch))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_backends_agree_on_rows(
        log_n in 10usize..12, bits in prop::collection::vec(28u32..=50, 1..4), tiles in 1usize..9, images in 1usize..12, seed: u8,
        limbs in prop::collection::vec(1usize..4, 1..12),
    ) {
        let ring = Ring::new(1 << log_n, &bits).unwrap();
        // Rows modulo all primes and modulo the first of them, mixed.
        let row = |(r, &limbs): (usize, &usize)| random_polys(&ring.leading(limbs), tiles, seed.wrapping_add(r as u8));
        let rows: Vec<_> = limbs.iter().enumerate().map(row).collect();
        let batch: Vec<_> = (0..images).map(|i| random_polys(&ring, tiles, seed.wrapping_add(100 + i as u8))).collect();
        compare_rows(1 << log_n, &bits, &rows, &batch);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_are_applied_and_transformed_back_from_elements_and_from_bytes(
        log_n in 10usize..12, bits in prop::collection::vec(28u32..=50, 1..4), tiles in 1usize..5, images in 1usize..20, seed: u8,
        limbs in prop::collection::vec(1usize..4, 2..12), first in 0usize..5, missing in 0usize..5,
    ) {
        let degree = 1 << log_n;
        for backend in backends() {
            let ring = Ring::with_backend(degree, &bits, backend).unwrap();
            let limbs: Vec<usize> = limbs.iter().map(|&l| l.min(ring.limbs())).collect();
            let mut store = RowStore::new(&ring, &limbs, tiles).unwrap();
            for row in 0..limbs.len() {
                let polys = random_polys(&ring, tiles, seed.wrapping_add(row as u8));
                polys.iter().enumerate().for_each(|(tile, p)| store.set(row, tile, p));
            }
            let batch: Vec<_> = (0..images).map(|i| random_polys(&ring, tiles, seed.wrapping_add(100 + i as u8))).collect();
            let elements: Vec<Vec<&Poly<Ntt>>> = batch.iter().map(|x| x.iter().collect()).collect();
            let pack = |x: &Vec<Poly<Ntt>>| {
                let mut w = Writer::new();
                w.polys(&ring, x);
                w.finish()
            };
            let bytes: Vec<Vec<u8>> = batch.iter().map(pack).collect();
            let mut packed: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
            // Some neighbouring rows; of each, some coefficients, other numbers of them for every
            // prime.
            let first = first.min(limbs.len() - 1);
            let (rows, indices) = (first..limbs.len().saturating_sub(missing).max(first + 1), [0, 3, degree as u32 / 2, degree as u32 - 1]);
            let wanted = Wanted::of_indices(degree, &indices);
            let lens: Vec<usize> = (0..ring.limbs()).map(|l| 1 + l).collect();
            // Transformed back or as they are.
            let expect = |x: &Vec<Poly<Ntt>>, back: bool| -> Vec<u64> {
                let of_row = |row: usize| -> Vec<u64> {
                    let mut product = store.product_naive(&ring, row, x);
                    if back {
                        ring.leading(limbs[row]).inverse_in_place(&mut product);
                    }
                    let of_limb = |l: usize| indices[..1 + l].iter().map(|&i| product.limb(l)[i as usize]).collect();
                    (0..limbs[row]).flat_map::<Vec<u64>, _>(of_limb).collect()
                };
                rows.clone().flat_map(of_row).collect()
            };
            let (back, as_they_are): (Vec<Vec<u64>>, Vec<Vec<u64>>) =
                batch.iter().map(|x| (expect(x, true), expect(x, false))).unzip();
            let work = Workspace::default();
            // All in the same memory.
            for (inputs, wanted, want) in [
                (Inputs::Elements(&elements), Some(&wanted), &back),
                (Inputs::Packed(&packed), None, &as_they_are),
                (Inputs::Packed(&packed), Some(&wanted), &back),
                (Inputs::Elements(&elements), None, &as_they_are),
            ] {
                let mut got: Vec<Vec<u64>> = want.iter().map(|w| vec![0; w.len()]).collect();
                let mut outs: Vec<&mut [u64]> = got.iter_mut().map(Vec::as_mut_slice).collect();
                let finish = |_: usize, all: &[u64], _: &mut [u64], out: &mut [u64]| {
                    out.iter_mut().zip(indices).for_each(|(o, i)| *o = all[i as usize]);
                };
                let product = RowProduct { rows: rows.clone(), inputs, wanted, lens: &lens };
                store.apply(&ring, product.clone(), &mut outs, &work, finish).unwrap();
                prop_assert!(got == *want, "{}, {}", backend.name(), wanted.is_some());
                prop_assert!(store.apply(&ring, product, &mut [], &work, finish).is_err());
            }
            // A residue that is none, in the last of the images.
            let mut beyond = bytes[images - 1].clone();
            let middle = beyond.len() / 2;
            beyond[middle..][..16].fill(0xff);
            packed[images - 1] = &beyond;
            let mut got: Vec<Vec<u64>> = back.iter().map(|w| vec![0; w.len()]).collect();
            let mut outs: Vec<&mut [u64]> = got.iter_mut().map(Vec::as_mut_slice).collect();
            let inputs = Inputs::Packed(&packed);
            let product = RowProduct { rows, inputs, wanted: Some(&wanted), lens: &lens };
            let done = store.apply(&ring, product, &mut outs, &work, |_, _, _, _| {});
            prop_assert!(matches!(done, Err(RingError::Malformed { .. })), "{done:?}");
        }
    }
}

#[test]
fn worst_case_residues_do_not_overflow() {
    for (bits, tiles) in [(50, 4096), (40, 600), (50, 1)] {
        let ring = Ring::new(1024, &[bits]).unwrap();
        let x = vec![top(&ring); tiles];
        compare_rows(1024, &[bits], std::slice::from_ref(&x), &[x.clone(), x.clone()]);
        compare_rows(1024, &[bits], std::slice::from_ref(&x), std::slice::from_ref(&x));
    }
}

/// Of large primes and many tiles a closed sum is above 2p, and is settled before the transform
/// back begins with it.
#[test]
fn wide_sums_are_transformed_back() {
    for (bits, tiles, images) in
        [(47, 100, 1), (47, 100, 3), (45, 300, 1), (46, 150, 2), (47, 16, 1), (47, 17, 1), (50, 12, 1)]
    {
        for backend in backends() {
            let ring = Ring::with_backend(1024, &[bits], backend).unwrap();
            // Differences of nothing and the largest sum.
            let mut element = top(&ring);
            element.limb_mut(0).chunks_mut(16).for_each(|values| values[..8].fill(0));
            let x = vec![element; tiles];
            let mut store = RowStore::new(&ring, &[1, 1], tiles).unwrap();
            // The residue that is the largest where it is held, by IFMA's lanes.
            let (m, mut w) = (&ring.moduli()[0], ring.zero());
            w.limb_mut(0).fill(m.mul(m.value() - 1, m.invert(m.constants().pow52[0])));
            (0..2 * tiles).for_each(|i| store.set(i / tiles, i % tiles, &w));
            let product = store.product_naive(&ring, 0, &x);
            let elements = vec![x.iter().collect(); images];
            let all = Wanted::of_indices(1024, &(0..1024).collect::<Vec<_>>());
            let copy = |_: usize, all: &[u64], _: &mut [u64], out: &mut [u64]| out.copy_from_slice(all);
            let values = product.limb(0).to_vec();
            let coefficients = ring.inverse(product).limb(0).to_vec();
            for (wanted, want) in [(Some(&all), coefficients), (None, values)] {
                let mut got = vec![vec![0; 2 * 1024]; images];
                let mut outs: Vec<&mut [u64]> = got.iter_mut().map(Vec::as_mut_slice).collect();
                let inputs = Inputs::Elements(&elements);
                let product = RowProduct { rows: 0..2, inputs, wanted, lens: &[1024] };
                store.apply(&ring, product, &mut outs, &Workspace::default(), copy).unwrap();
                assert!(
                    got.iter().all(|got| got.chunks(1024).all(|got| got == want)),
                    "{}, {bits} bits",
                    backend.name()
                );
            }
        }
    }
}
