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

mod masking;
mod pointwise;
mod rows;
mod transforms;

use rows::prepare;

/// The backends to compare: all, or the one that the environment names (an emulated processor may
/// get others wrong). `JALI_KERNEL` is the variable's old name.
fn backends() -> Vec<Backend> {
    let only = std::env::var("JALI_BACKEND").or_else(|_| std::env::var("JALI_KERNEL")).ok();
    Backend::available().into_iter().filter(|b| only.as_ref().is_none_or(|name| b.name() == name)).collect()
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

/// Where our order has what bit-reversed order has at `i`.
pub(crate) fn place(i: usize) -> usize {
    i / 64 * 64 + i % 8 * 8 + i / 8 % 8
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
