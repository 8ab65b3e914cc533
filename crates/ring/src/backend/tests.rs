//! Every backend against oracles, on random and on the largest residues: rows against one division
//! per product, transforms against tfhe-ntt and the definition (`ntt.rs`), pointwise products
//! against wide integers.

use super::pointwise::{AddScaled, MulAdd, SumOfProducts};
use super::transform::{Forward, Inverse, Tables, holds_rows, load_runs, store_runs};
use super::*;
use crate::ntt::MakeTables;
use crate::primes::ntt_primes;
use crate::sample::{derive_key, stream};
use crate::wire::Writer;
use crate::{Modulus, Ntt, Poly, Ring, Wanted, Workspace};
use proptest::prelude::*;
use tfhe_ntt::prime64::Plan;

/// The backends to compare: all, or the one that the environment names (an emulated processor may
/// get others wrong).
fn backends() -> Vec<Backend> {
    let only = std::env::var("JALI_BACKEND").or_else(|_| std::env::var("JALI_KERNEL")).ok();
    Backend::available().into_iter().filter(|k| only.as_ref().is_none_or(|name| k.name() == name)).collect()
}

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
fn prepare(store: &RowStore, ring: &Ring, batch: &[impl AsRef<[Poly<Ntt>]>]) -> Result<Batch, RingError> {
    let batch: Vec<Vec<&Poly<Ntt>>> = batch.iter().map(|x| x.as_ref().iter().collect()).collect();
    store.prepare(ring, Inputs::Elements(&batch))
}

fn random_polys(ring: &Ring, count: usize, seed: u8) -> Vec<Poly<Ntt>> {
    let mut rng = stream(&derive_key("jali backend test", &[&[seed]]));
    (0..count).map(|_| ring.uniform(&mut rng)).collect()
}

/// All residues the largest.
fn top(ring: &Ring) -> Poly<Ntt> {
    let mut top = ring.zero::<Ntt>();
    for (l, m) in ring.moduli().iter().enumerate() {
        top.limb_mut(l).fill(m.value() - 1);
    }
    top
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
                store.apply(&ring, (rows.clone(), inputs), wanted, (&mut outs, &lens), &work, finish).unwrap();
                prop_assert!(got == *want, "{}, {}", backend.name(), wanted.is_some());
                prop_assert!(store.apply(&ring, (rows.clone(), inputs), wanted, (&mut [], &lens), &work, finish).is_err());
            }
            // A residue that is none, in the last of the images.
            let mut beyond = bytes[images - 1].clone();
            let middle = beyond.len() / 2;
            beyond[middle..][..16].fill(0xff);
            packed[images - 1] = &beyond;
            let mut got: Vec<Vec<u64>> = back.iter().map(|w| vec![0; w.len()]).collect();
            let mut outs: Vec<&mut [u64]> = got.iter_mut().map(Vec::as_mut_slice).collect();
            let inputs = Inputs::Packed(&packed);
            let done = store.apply(&ring, (rows.clone(), inputs), Some(&wanted), (&mut outs, &lens), &work, |_, _, _, _| {});
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
                let inputs = (0..2, Inputs::Elements(&elements));
                store.apply(&ring, inputs, wanted, (&mut outs, &[1024]), &Workspace::default(), copy).unwrap();
                assert!(
                    got.iter().all(|got| got.chunks(1024).all(|got| got == want)),
                    "{}, {bits} bits",
                    backend.name()
                );
            }
        }
    }
}

/// Where our order has what bit-reversed order has at `i`.
pub(crate) fn place(i: usize) -> usize {
    i / 64 * 64 + i % 8 * 8 + i / 8 % 8
}

#[test]
fn all_transforms_agree_with_another_implementation() {
    for (degree, bits) in [
        (1024, 22),
        (1024, 26),
        (1024, 50),
        (2048, 33),
        (2048, 44),
        (2048, 47),
        (2048, 48),
        (4096, 33),
        (4096, 36),
        (4096, 47),
        (4096, 49),
        (8192, 35),
        (16384, 47),
        (32768, 47),
        (32768, 34),
        (32768, 50),
    ] {
        let m = Modulus::new(ntt_primes(degree, bits, 1).unwrap()[0]).unwrap();
        let other = Plan::try_new(degree, m.value()).unwrap();
        let reduce = |v: &mut Vec<u64>| v.iter_mut().for_each(|v| *v %= m.value());
        // The other implementation's root: the value that the transform of X has first.
        let mut roots = vec![0; degree];
        roots[1] = 1;
        other.fwd(&mut roots);
        reduce(&mut roots);
        let psi = roots[0];
        let mut random = vec![0; degree];
        crate::sample::uniform_mod(&mut stream(&derive_key("jali ntt test", &[&[bits as u8]])), &m, &mut random);
        for input in [
            random,
            vec![m.value() - 1; degree],
            (0..degree).map(|i| if i % 3 == 0 { m.value() - 1 } else { 0 }).collect(),
        ] {
            let mut want = input.clone();
            other.fwd(&mut want);
            reduce(&mut want);
            for backend in backends().into_iter().filter(|k| k.for_modulus(&m) == *k) {
                let tables = backend.run(MakeTables { modulus: m, log_degree: degree.ilog2(), psi });
                let mut got = input.clone();
                backend.run(Forward { tables: &tables, values: &mut got });
                let name = backend.name();
                assert!((0..degree).all(|i| got[place(i)] == want[i]), "{name} forward, degree {degree}, {bits} bits");
                backend.run(Inverse { tables: &tables, values: &mut got, begun: false, wanted: None, ahead: &[] });
                assert!(got == input, "{name} inverse, degree {degree}, {bits} bits");
            }
        }
    }
}

#[test]
fn pruning_takes_any_degree() {
    for degree in [0, 1, 63, 64, 100, 1 << 20, usize::MAX] {
        let _ = WantedRuns::new(degree, &[0, 5, 99, u32::MAX]);
    }
}

/// The six innermost levels of an inverse, block by block, where lanes take these; whether they do.
struct Begin<'a> {
    tables: &'a Tables,
    values: &'a mut [u64],
}

impl Job for Begin<'_> {
    type Out = bool;

    #[inline(always)]
    fn run<V: Lanes>(self) -> bool {
        let (p, degree) = (V::prime(self.tables.modulus()), self.values.len());
        for block in 0..if holds_rows::<V>() { degree / 64 } else { 0 } {
            let words = V::split_mut(&mut self.values[64 * block..][..64]);
            let x = load_runs::<V, 8>(words, 0, 1, true);
            store_runs(words, 0, 1, &self.tables.begin_inverse::<V>(x, block, &p));
            self.tables.go_on::<V>((&mut *self.values, degree), block, &p);
        }
        holds_rows::<V>()
    }
}

/// Pruned transforms give the same where they must: the degrees are those whose last pass has 1, 2
/// and 3 levels left.
#[test]
fn pruned_transforms_give_the_wanted_coefficients() {
    for (degree, bits) in [(1024, 26), (2048, 47), (4096, 34), (8192, 35), (32768, 47), (4096, 49)] {
        let m = Modulus::new(ntt_primes(degree, bits, 1).unwrap()[0]).unwrap();
        let psi = (2..).map(|g| m.pow_vartime(g, (m.value() - 1) / (2 * degree as u64)));
        let psi = psi.into_iter().find(|&psi| m.pow_vartime(psi, degree as u64) == m.value() - 1).unwrap();
        let n = degree as u32;
        // One alone, a column of each mask of outputs, a run, neighbours of a stride, all, none,
        // and what lies outside.
        let columns = (0..256u32.min(n / 64)).flat_map(|mask| {
            (0..8).filter(move |a| (mask * 37 + 1) >> a & 1 == 1).map(move |a| a * (n / 8) + mask * 8 + mask % 8)
        });
        let sets: [Vec<u32>; 8] = [
            vec![0],
            vec![n - 1],
            columns.collect(),
            (n / 2 + 13..n / 2 + 13 + n / 4).collect(),
            (0..16).map(|i| i * (n / 16) + 5).collect(),
            (0..n).collect(),
            vec![],
            vec![n, u32::MAX, 7],
        ];
        for top in [false, true] {
            let mut values = vec![m.value() - 1; degree];
            if !top {
                crate::sample::uniform_mod(&mut stream(&derive_key("jali pruning test", &[])), &m, &mut values);
            }
            for backend in backends() {
                let backend = backend.for_modulus(&m);
                let tables = backend.run(MakeTables { modulus: m, log_degree: degree.ilog2(), psi });
                let mut want = values.clone();
                backend.run(Inverse { tables: &tables, values: &mut want, begun: false, wanted: None, ahead: &[] });
                for set in &sets {
                    let (wanted, mut got) = (WantedRuns::new(degree, set), values.clone());
                    backend.run(Inverse {
                        tables: &tables,
                        values: &mut got,
                        begun: false,
                        wanted: Some(&wanted),
                        ahead: &[7; 999],
                    });
                    // The same, begun as rows begin it.
                    let mut other = values.clone();
                    let begun = backend.run(Begin { tables: &tables, values: &mut other });
                    let (values, wanted) = (&mut other, Some(&wanted));
                    backend.run(Inverse { tables: &tables, values, begun, wanted, ahead: &[] });
                    for i in set.iter().map(|&i| i as usize).filter(|&i| i < degree) {
                        assert!(
                            got[i] == want[i] && other[i] == want[i],
                            "{}, degree {degree}, {bits} bits",
                            backend.name()
                        );
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pointwise_products_agree_with_wide_integers(bits in 20u32..=50, seed: u8, scalar: u64, top in any::<bool>()) {
        let m = Modulus::new(ntt_primes(1024, bits, 1).unwrap()[0]).unwrap();
        let p = u128::from(m.value());
        let mut v = vec![m.value() - 1; 5 * 64];
        if !top {
            crate::sample::uniform_mod(&mut stream(&derive_key("jali pointwise test", &[&[seed]])), &m, &mut v);
        }
        let part = |i: usize| &v[64 * i..64 * (i + 1)];
        let wide = |i: usize, k: usize| u128::from(part(i)[k]);
        let scalar = scalar % m.value();
        for backend in backends().into_iter().filter(|k| k.for_modulus(&m) == *k) {
            for subtract in [false, true] {
                let mut acc = part(0).to_vec();
                backend.run(MulAdd { modulus: &m, acc: &mut acc, a: part(1), b: part(2), subtract });
                for k in 0..64 {
                    let product = wide(1, k) * wide(2, k) % p;
                    let want = (wide(0, k) + if subtract { p - product } else { product }) % p;
                    prop_assert_eq!(u128::from(acc[k]), want);
                }
            }
            let mut out = vec![0; 64];
            backend.run(SumOfProducts { modulus: &m, out: &mut out, factors: [[part(1), part(2)], [part(3), part(4)]] });
            for k in 0..64 {
                prop_assert_eq!(u128::from(out[k]), (wide(1, k) * wide(2, k) + wide(3, k) * wide(4, k)) % p);
            }
            let mut acc = part(0).to_vec();
            backend.run(AddScaled { modulus: &m, acc: &mut acc, a: part(1), scalar });
            for k in 0..64 {
                prop_assert_eq!(u128::from(acc[k]), (wide(0, k) + u128::from(scalar) * wide(1, k)) % p);
            }
        }
    }
}

/// The same polynomial operation in wide integers, coefficient by coefficient.
fn combine(ring: &Ring, f: impl Fn(usize, usize, u128) -> u128) -> Poly<Ntt> {
    let mut out = ring.zero();
    for (l, m) in ring.moduli().iter().enumerate() {
        let p = u128::from(m.value());
        out.limb_mut(l).iter_mut().enumerate().for_each(|(k, o)| *o = (f(l, k, p) % p) as u64);
    }
    out
}

#[test]
fn masking_agrees_with_wide_integers() {
    // Primes with and without folds between few products; blocks of the matrix of one and of many
    // tiles.
    for (bits, width, blocks, extreme) in [
        (34, 3, 1, false),
        (34, 3, 2, true),
        (47, 5, 1, true),
        (47, 70, 1, true),
        (50, 2, 1, true),
        (50, 5, 4, true),
        (28, 1, 3, false),
    ] {
        let tiles = width * blocks;
        for backend in backends() {
            let ring = Ring::with_backend(1024, &[bits, bits], backend).unwrap();
            let element = |seed: usize| if extreme { top(&ring) } else { random_polys(&ring, 1, seed as u8).remove(0) };
            let list = |seed: usize| -> Vec<Poly<Ntt>> { (0..tiles).map(|i| element(seed + i)).collect() };
            let (x, a, u0, u1, s) = (list(0), list(50), list(100), list(150), element(200));
            let vectors = MaskVectors::new(&ring, width, &a, [&u0, &u1]).unwrap();
            assert_eq!((vectors.tiles(), vectors.width()), (tiles, width));
            for i in 0..tiles {
                let held = [Vector::Public, Vector::Check(0), Vector::Check(1)].map(|v| vectors.element(&ring, v, i));
                assert!(held == [a[i].clone(), u0[i].clone(), u1[i].clone()], "{}", backend.name());
            }
            let mut masked = x.clone();
            let sums = vectors.mask(&ring, &mut masked, &s).unwrap();
            let at = |p: &Poly<Ntt>, l: usize, k: usize| u128::from(p.limb(l)[k]);
            for i in 0..tiles {
                let want = combine(&ring, |l, k, p| at(&x[i], l, k) + p - at(&a[i], l, k) * at(&s, l, k) % p);
                assert!(masked[i] == want, "{}, tile {i}, {bits} bits", backend.name());
            }
            let sum = |u: &[Poly<Ntt>], v: &[Poly<Ntt>]| {
                combine(&ring, |l, k, p| u.iter().zip(v).map(|(u, v)| at(u, l, k) * at(v, l, k) % p).sum())
            };
            assert_eq!(sums.z.len(), blocks);
            for (z, (a, x)) in sums.z.iter().zip(a.chunks(width).zip(x.chunks(width))) {
                assert!(**z == sum(a, x), "{}, z, {bits} bits", backend.name());
            }
            assert!(*sums.checks[0] == sum(&u0, &masked) && *sums.checks[1] == sum(&u1, &masked), "{}", backend.name());
        }
    }
    let ring = Ring::new(1024, &[34]).unwrap();
    let (two, three) = (vec![ring.zero(); 2], vec![ring.zero(); 3]);
    let vectors = MaskVectors::new(&ring, 1, &two, [&two, &two]).unwrap();
    assert!(MaskVectors::new(&ring, 1, &three, [&two, &two]).is_err());
    assert!(MaskVectors::new(&ring, 2, &three, [&three, &three]).is_err());
    assert!(MaskVectors::new(&ring, 0, &two, [&two, &two]).is_err());
    assert!(vectors.mask(&ring, &mut three.clone(), &ring.zero()).is_err());
    let other = Ring::new(2048, &[34]).unwrap();
    assert!(vectors.mask(&ring, &mut two.clone(), &other.zero()).is_err());
    let mut foreign = vec![other.zero(); 2];
    assert!(vectors.mask(&other, &mut foreign, &other.zero()).is_err());
    let same_size = Ring::new(1024, &[35]).unwrap();
    assert!(vectors.mask(&same_size, &mut two.clone(), &ring.zero()).is_err());
}

/// More tiles than a row may have are held in several stores.
#[test]
fn masking_of_very_many_tiles_is_done_in_parts() {
    let ring = Ring::new(1024, &[28]).unwrap();
    let tiles = 3 * 1400;
    let polys = random_polys(&ring, tiles, 1);
    let vectors = MaskVectors::new(&ring, 3, &polys, [&polys, &polys]).unwrap();
    assert!(MaskVectors::bytes_needed(&ring, 3, tiles) > MaskVectors::bytes_needed(&ring, 3, 4096 / 3 * 3));
    let mut x = polys.clone();
    let sums = vectors.mask(&ring, &mut x, &ring.zero()).unwrap();
    assert_eq!(sums.z.len(), 1400);
    // Nothing was masked: all sums are those of squares.
    let (mut all, last) = (ring.zero(), tiles - 3);
    for (i, p) in polys.iter().enumerate() {
        ring.mul_add(&mut all, p, p);
        assert!(x[i] == *p);
    }
    assert!(*sums.checks[0] == all && *sums.checks[1] == all);
    // With a secret: what is masked in the second store is masked with its own tiles' elements.
    let s = random_polys(&ring, 1, 9).remove(0);
    let mut masked = polys.clone();
    let with_secret = vectors.mask(&ring, &mut masked, &s).unwrap();
    let mut check = ring.zero();
    polys.iter().zip(&masked).for_each(|(u, x)| ring.mul_add(&mut check, u, x));
    assert!(*with_secret.checks[0] == check && *with_secret.z[1399] == *sums.z[1399]);
    let mut back = masked[last].clone();
    ring.mul_add(&mut back, &polys[last], &s);
    assert!(back == polys[last] && masked[last] != polys[last]);
    let mut block = ring.zero();
    polys[last..].iter().for_each(|p| ring.mul_add(&mut block, p, p));
    assert!(*sums.z[1399] == block && vectors.element(&ring, Vector::Check(1), last) == polys[last]);
    assert!(vectors.element(&ring, Vector::Public, tiles) == ring.zero());
}

#[test]
fn ifma_is_compared_where_it_exists() {
    // A loud line instead of a silent pass: on machines without IFMA only its emulation was
    // compared above.
    if Backend::ifma().is_none() {
        println!("SKIPPED: this processor has no AVX-512 IFMA; only the emulated lanes were compared");
    }
    assert_eq!(Backend::available().first(), Some(&Backend::fastest()));
}

#[test]
fn wrong_shapes_and_names_are_errors() {
    let ring = Ring::new(1024, &[28]).unwrap();
    assert!(RowStore::new(&ring, &[1], 0).is_err());
    assert!(RowStore::new(&ring, &[1], 4097).is_err());
    assert!(RowStore::new(&ring, &[1, 0], 1).is_err() && RowStore::new(&ring, &[2], 1).is_err());
    assert!(RowStore::new(&ring, &vec![1; 1 << 24], 4096).is_err());
    let mut store = RowStore::new(&ring, &[1, 1], 3).unwrap();
    store.set(2, 0, &ring.zero());
    store.set(0, 3, &ring.zero());
    let x = vec![ring.zero(); 3];
    assert!(prepare(&store, &ring, &[&x[..2]]).is_err() && prepare(&store, &ring, &[] as &[Vec<Poly<Ntt>>]).is_err());
    let other = Ring::new(2048, &[28]).unwrap();
    assert!(prepare(&store, &ring, &[vec![other.zero(); 3]]).is_err());
    let batch = prepare(&store, &ring, &[&x]).unwrap();
    assert!(store.products(&ring, &batch, 0..2).is_ok());
    assert!(store.products(&ring, &batch, 0..3).is_err() && store.products(&ring, &batch, 1..1).is_err());
    // Another ring, and a batch of no images.
    assert!(store.products(&other, &batch, 0..2).is_err() && store.products(&ring, &Batch::default(), 0..2).is_err());
    assert!(store.products(&Ring::new(1024, &[29]).unwrap(), &batch, 0..2).is_err());
    for backend in Backend::available().into_iter().filter(|k| *k != ring.backend()) {
        // Lanes of another backend hold residues in another form.
        let other = Ring::with_backend(1024, &[28], backend).unwrap();
        assert!(store.products(&other, &batch, 0..2).is_err());
    }
    let smaller = RowStore::new(&ring, &[1, 1], 2).unwrap();
    assert!(smaller.products(&ring, &batch, 0..2).is_err());
    assert!(Backend::choose(Some("sse9")).unwrap_err().to_string().contains("portable"));
}
