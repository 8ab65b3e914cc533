//! Every kernel against the naive one, on random and on the largest residues.

use super::lanes::{self, Lanes};
use super::*;
use crate::sample::{derive_key, stream};
use crate::{Ntt, Poly, Ring};
use proptest::prelude::*;

/// IFMA in plain integers.
#[derive(Clone, Copy)]
struct Emulated([u64; 8]);

const MASK: u64 = (1 << 52) - 1;

impl Lanes for Emulated {
    fn zero() -> Self {
        Self([0; 8])
    }
    fn load(words: &[u64; 8]) -> Self {
        Self(*words)
    }
    fn store(self, words: &mut [u64; 8]) {
        *words = self.0;
    }
    fn add_low(self, a: Self, b: Self) -> Self {
        let product = |i: usize| u128::from(a.0[i] & MASK) * u128::from(b.0[i] & MASK);
        Self(std::array::from_fn(|i| self.0[i].checked_add(product(i) as u64 & MASK).expect("lane overflow")))
    }
    fn add_high(self, a: Self, b: Self) -> Self {
        let product = |i: usize| u128::from(a.0[i] & MASK) * u128::from(b.0[i] & MASK);
        Self(std::array::from_fn(|i| self.0[i].checked_add((product(i) >> 52) as u64).expect("lane overflow")))
    }
}

fn compare(ring: &Ring, rows: &[Vec<Poly<Ntt>>], x: &[Poly<Ntt>]) {
    let mut store = RowStore::new(ring, rows.len(), x.len()).unwrap();
    for (mut slot, row) in store.rows_mut().zip(rows) {
        row.iter().enumerate().for_each(|(i, p)| slot.set(i, p));
    }
    let limb_words = x.len() * ring.degree();
    for row in 0..rows.len() {
        let want = store.product(Kernel::NAIVE, ring, row, x).unwrap();
        // The store's order is part of what is tested: the first coefficient by hand.
        let by_hand = rows[row].iter().zip(x).fold(0u128, |s, (w, x)| {
            (s + u128::from(w.limb(0)[0]) * u128::from(x.limb(0)[0])) % u128::from(ring.moduli()[0].value())
        });
        assert_eq!(u128::from(want.limb(0)[0]), by_hand);
        for kernel in Kernel::available() {
            assert!(store.product(kernel, ring, row, x).unwrap() == want, "{}", kernel.name());
        }
        for (l, m) in ring.moduli().iter().enumerate() {
            let w = &store.words_for_tests()[row * limb_words * ring.limbs() + l * limb_words..][..limb_words];
            let xs: Vec<&[u64]> = x.iter().map(|p| p.limb(l)).collect();
            let mut out = vec![0; ring.degree()];
            lanes::row::<Emulated>(m, w, &xs, &mut out);
            assert!(out == want.limb(l), "emulated 52-bit lanes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_kernels_agree(log_n in 10usize..13, bits in 28u32..=50, limbs in 1usize..3, rows in 1usize..3, tiles in 1usize..9, seed: u8) {
        let ring = Ring::new(1 << log_n, &vec![bits; limbs]).unwrap();
        let mut rng = stream(&derive_key("jali kernel test", &[&[seed]]));
        let rows: Vec<Vec<_>> = (0..rows).map(|_| (0..tiles).map(|_| ring.uniform(&mut rng)).collect()).collect();
        let x: Vec<_> = (0..tiles).map(|_| ring.uniform(&mut rng)).collect();
        compare(&ring, &rows, &x);
    }
}

#[test]
fn worst_case_residues_do_not_overflow() {
    for (bits, tiles) in [(50, 4096), (28, 4096), (50, 1)] {
        let ring = Ring::new(1024, &[bits]).unwrap();
        let mut top = ring.zero::<Ntt>();
        top.limb_mut(0).fill(ring.moduli()[0].value() - 1);
        let x = vec![top; tiles];
        compare(&ring, std::slice::from_ref(&x), &x);
    }
}

#[test]
fn ifma_is_compared_where_it_exists() {
    // A loud line instead of a silent pass: on machines without IFMA only its emulation was compared above.
    if Kernel::ifma().is_none() {
        println!("SKIPPED: this processor has no AVX-512 IFMA; only the emulated lanes were compared");
    }
    assert_eq!(Kernel::available().first(), Some(&Kernel::fastest()));
}

#[test]
fn wrong_shapes_and_names_are_errors() {
    let ring = Ring::new(1024, &[28]).unwrap();
    assert!(RowStore::new(&ring, 1, 0).is_err());
    assert!(RowStore::new(&ring, 1, 4097).is_err());
    assert!(RowStore::new(&ring, usize::MAX / 1024, 4096).is_err());
    let store = RowStore::new(&ring, 2, 3).unwrap();
    let x = vec![ring.zero(); 3];
    assert!(store.product(Kernel::NAIVE, &ring, 2, &x).is_err());
    assert!(store.product(Kernel::NAIVE, &ring, 0, &x[..2]).is_err());
    let other = Ring::new(2048, &[28]).unwrap();
    assert!(store.product(Kernel::NAIVE, &ring, 0, &vec![other.zero(); 3]).is_err());
    assert!(Kernel::choose(Some("sse9")).unwrap_err().to_string().contains("portable"));
}
