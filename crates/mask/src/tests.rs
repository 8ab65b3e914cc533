//! The whole masked product on random matrices, and every way a server or a careless change could
//! break it.

use std::sync::Arc;

use jali_ring::sample::{derive_key, stream};
use jali_ring::{Coefficient, Ntt, Poly, Ring, Steps, WantedPattern, Workspace};
use jali_testing::add_negacyclic_product;
use proptest::prelude::*;
use rand_core::Rng;
use zeroize::Zeroizing;

use crate::*;

mod binding;
mod exact;
mod lies;
mod noise;
mod secrets;
mod stored;

const BOUND: i64 = 255;

/// A matrix, its seal, and the oracle.
struct Fixture {
    rows: Vec<(Vec<Tile>, bool)>,
    layer: SealedOperator,
    key: OperatorKey,
}

fn random_rows(ring_degree: usize, tiles: usize, open: &[bool], rng: &mut impl Rng) -> Vec<(Vec<Tile>, bool)> {
    let row = |open| {
        let tile = |rng: &mut dyn FnMut() -> u64| -> Tile {
            let mut indices: Vec<u32> = (0..9).map(|_| (rng() % ring_degree as u64) as u32).collect();
            indices.sort_unstable();
            indices.dedup();
            indices.into_iter().map(|i| (i, (rng() % 255) as i32 - 127)).collect()
        };
        let mut next = || rng.next_u64();
        ((0..tiles).map(|_| tile(&mut next)).collect(), open)
    };
    open.iter()
        .map({
            let mut row = row;
            move |&o| row(o)
        })
        .collect()
}

/// A pattern of (count, stride), outermost first.
fn pattern(start: usize, steps: [(usize, usize); 3]) -> WantedPattern {
    WantedPattern { start, steps: steps.map(|(count, stride)| Steps { count, stride }) }
}

fn seal_rows(
    parameters: &Parameters,
    rows: &[(Vec<Tile>, bool)],
    blocks: usize,
    layer: u32,
    entropy: &SealEntropy,
) -> (SealedOperator, OperatorKey) {
    let wanted = pattern(70, [(3, 100), (5, 10), (7, 1)]).expand(parameters.ring().degree()).unwrap();
    let plain: Vec<PlainRow<'_>> = rows.iter().map(|(tiles, open)| PlainRow { tiles, open: *open }).collect();
    let id = OperatorId { model: entropy.model_id(), operator: layer };
    seal(parameters, id, &plain, blocks, &wanted, BOUND, entropy).unwrap()
}

fn parameters(degree: usize, prime_bits: &[u32], plaintext_bits: u32) -> Parameters {
    let open_primes = prime_bits.len();
    ParametersLiteral { degree, prime_bits: prime_bits.to_vec(), plaintext_bits, open_primes }.try_into().unwrap()
}

impl Fixture {
    fn new(degree: usize, prime_bits: &[u32], tiles: usize, open: &[bool], seed: u8) -> Self {
        Self::with(&parameters(degree, prime_bits, 22), tiles, open, 1, seed)
    }

    /// Open rows modulo the first of two primes alone.
    fn mixed(tiles: usize, open: &[bool], seed: u8) -> Self {
        Self::blocks(tiles, open, 1, seed)
    }

    /// The same for a block-diagonal matrix.
    fn blocks(tiles: usize, open: &[bool], blocks: usize, seed: u8) -> Self {
        let literal = ParametersLiteral { degree: 4096, prime_bits: vec![44, 33], plaintext_bits: 22, open_primes: 1 };
        Self::with(&literal.try_into().unwrap(), tiles, open, blocks, seed)
    }

    fn with(parameters: &Parameters, tiles: usize, open: &[bool], blocks: usize, seed: u8) -> Self {
        let degree = parameters.ring().degree();
        let mut rng = stream(&derive_key("jali mask test", &[&[seed]]));
        let rows = random_rows(degree, tiles, open, &mut rng);
        let (layer, key) = seal_rows(parameters, &rows, blocks, 3, &SealEntropy::fixed([seed; 32]));
        Self { rows, layer, key }
    }

    fn ring(&self) -> &Ring {
        self.layer.parameters.ring()
    }

    fn input(&self, seed: u8) -> Vec<Vec<i64>> {
        let mut rng = stream(&derive_key("jali mask test input", &[&[seed]]));
        let span = 2 * BOUND as u64 + 1;
        let mut value = || (rng.next_u64() % span) as i64 - BOUND;
        (0..self.key.tiles()).map(|_| (0..self.ring().degree()).map(|_| value()).collect()).collect()
    }

    /// The server's product, computed without any backend.
    fn answer(&self, rows: &[Poly<Coefficient>]) -> Answer {
        // A row that is missing or too many changes the form.
        let limbs = (0..rows.len()).map(|row| *self.key.form.limbs().get(row).unwrap_or(&1)).collect();
        let form = Arc::new(AnswerForm::new(self.layer.wanted.clone(), limbs));
        let wanted = |(row, p): (usize, &Poly<Coefficient>)| -> Vec<u64> {
            let of =
                |limb: usize| form.wanted().indices().iter().map(|&k| p.limb(limb)[k as usize]).collect::<Vec<_>>();
            (0..form.limbs()[row]).flat_map(of).collect()
        };
        let residues = rows.iter().enumerate().flat_map(wanted).collect();
        Answer::new(self.ring(), &form, residues).unwrap_or_else(|_| panic!("a product's residues"))
    }

    /// `H[o] = sum_i W~[o][i]*a[i]` by the definition.
    fn hints(&self) -> Vec<Poly<Ntt>> {
        let hint = |(o, row): (usize, &SealedRow)| {
            let ring = self.layer.parameters.ring_of(matches!(row, SealedRow::Open(_)));
            let mut sum = ring.zero();
            for (i, a) in public(&self.key)[self.tiles_of(o)].iter().enumerate() {
                let w = match row {
                    SealedRow::Hidden(w) => w[i].clone(),
                    SealedRow::Open(w) => ring.forward(ring.lift(&dense(&w[i], ring.degree()), 127)),
                };
                ring.mul_add(&mut sum, &w, a);
            }
            sum
        };
        self.layer.rows.iter().enumerate().map(hint).collect()
    }

    /// An answer from rows in the NTT domain.
    fn answer_of(&self, rows: &[Poly<Ntt>]) -> Answer {
        self.answer(&rows.iter().map(|row| self.ring().inverse(row.clone())).collect::<Vec<_>>())
    }

    fn serve(&self, x: &[Poly<Ntt>]) -> Vec<Poly<Coefficient>> {
        self.products(x).into_iter().map(|row| self.ring().inverse(row)).collect()
    }

    /// The server's rows in the NTT domain.
    fn products(&self, x: &[Poly<Ntt>]) -> Vec<Poly<Ntt>> {
        let ring = self.ring();
        let product = |(o, row): (usize, &SealedRow)| {
            let mut sum = ring.zero();
            for (i, x) in x[self.tiles_of(o)].iter().enumerate() {
                let w = match row {
                    SealedRow::Hidden(w) => w[i].clone(),
                    SealedRow::Open(w) => ring.forward(ring.lift(&dense(&w[i], ring.degree()), 127)),
                };
                ring.mul_add(&mut sum, &w, x);
            }
            sum
        };
        self.layer.rows.iter().enumerate().map(product).collect()
    }

    /// The tiles that a row meets.
    fn tiles_of(&self, row: usize) -> std::ops::Range<usize> {
        let block = row / (self.rows.len() / self.layer.blocks);
        block * self.layer.tiles..(block + 1) * self.layer.tiles
    }

    /// Negacyclic products in plain integers at the wanted coefficients.
    fn expected(&self, x: &[Vec<i64>]) -> Vec<i64> {
        let n = self.ring().degree();
        let mut out = vec![];
        for (o, (tiles, _)) in self.rows.iter().enumerate() {
            let mut y = vec![0i64; n];
            for (tile, x) in tiles.iter().zip(&x[self.tiles_of(o)]) {
                add_negacyclic_product(&mut y, tile, x);
            }
            out.extend(self.layer.wanted.indices().iter().map(|&k| y[k as usize]));
        }
        out
    }

    fn mask(&self, x: &[Vec<i64>], entropy: u8) -> (Vec<Poly<Ntt>>, PendingRequest<'_>) {
        self.key.mask(x, RequestEntropy::fixed([entropy; 32]), context(0)).unwrap()
    }

    /// What a server that alters the rows achieves.
    fn attack(&self, alter: impl Fn(&Ring, &mut Vec<Poly<Coefficient>>)) -> Result<Vec<i64>, MaskError> {
        let x = self.input(1);
        let (masked, pending) = self.mask(&x, 1);
        let mut rows = self.serve(&masked);
        alter(self.ring(), &mut rows);
        pending.finish(Some(self.answer(&rows)))
    }
}

fn context(counter: u64) -> RequestContext {
    RequestContext { counter, image: 0 }
}

fn dense(tile: &Tile, n: usize) -> Vec<i64> {
    let mut out = vec![0; n];
    tile.iter().for_each(|&(i, v)| out[i as usize] = i64::from(v));
    out
}

/// Whether an element has only small coefficients, as the difference of two samples under one
/// secret has.
fn is_small(ring: &Ring, difference: Poly<Ntt>) -> bool {
    let d = ring.inverse(difference);
    let q_half = (ring.log2_q() - 1.0).exp2();
    let largest = (0..ring.degree())
        .map(|k| ring.crt().centred_f64(&(0..ring.limbs()).map(|l| d.limb(l)[k]).collect::<Vec<_>>()).abs())
        .fold(0.0, f64::max);
    largest < q_half / 1024.0
}

/// `t` times the error of every tile of a hidden row, modulo the first prime: what is left without
/// secret and message.
fn row_errors(layer: &SealedOperator, key: &OperatorKey, row: usize, plain: &[Tile]) -> Vec<Vec<u64>> {
    let ring = layer.parameters.ring();
    let SealedRow::Hidden(sealed) = &layer.rows[row] else { panic!("row {row} is open") };
    let error = |((w, a), tile): ((&Poly<Ntt>, &Poly<Ntt>), &Tile)| {
        let mut v = w.clone();
        ring.mul_add(&mut v, a, &secret(key, row));
        let v = subtract(ring, &v, &ring.forward(ring.lift(&dense(tile, ring.degree()), 127)));
        ring.inverse(v).limb(0).to_vec()
    };
    sealed.iter().zip(&public(key)).zip(plain).map(error).collect()
}

/// Rows as they travel.
fn pack(ring: &Ring, rows: &[Poly<Ntt>]) -> Vec<u8> {
    let mut w = jali_ring::wire::Writer::new();
    for row in rows {
        let moduli = ring.moduli()[..row.limbs()].iter().enumerate();
        moduli.for_each(|(l, m)| w.residues(ring.backend(), m, row.limb(l)));
    }
    w.finish()
}

/// `a`.
fn public(key: &OperatorKey) -> Vec<Poly<Ntt>> {
    expand_public(key.parameters.ring(), &key.a_seed, 0..key.tiles())
}

/// `s'` of a hidden row.
fn secret(key: &OperatorKey, row: usize) -> Poly<Ntt> {
    (*crate::derive::row_secret(key.parameters.ring(), key.row_keys[row].as_ref().unwrap())).clone()
}

fn subtract(ring: &Ring, a: &Poly<Ntt>, b: &Poly<Ntt>) -> Poly<Ntt> {
    let mut out = a.clone();
    for (l, m) in ring.moduli().iter().enumerate() {
        out.limb_mut(l).iter_mut().zip(b.limb(l)).for_each(|(x, &y)| *x = m.sub(*x, y));
    }
    out
}
