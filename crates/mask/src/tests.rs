//! The whole masked product on random matrices, and every way a server or a careless change could
//! break it.

use std::sync::Arc;

use jali_ring::sample::{derive_key, stream};
use jali_ring::{Coefficient, Ntt, Poly, Ring, Steps, WantedPattern, Workspace};
use proptest::prelude::*;
use rand_core::Rng;
use zeroize::Zeroizing;

use crate::*;

mod binding;

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
                for &(i, w) in tile {
                    for (j, &x) in x.iter().enumerate() {
                        let k = i as usize + j;
                        y[k % n] += if k < n { x * i64::from(w) } else { -x * i64::from(w) };
                    }
                }
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

#[test]
fn a_key_that_is_to_be_stored_unmasks_nothing() {
    let fixture = Fixture::new(4096, &[33, 33], 1, &[false], 7);
    let x = fixture.input(1);
    let (parameters, entropy) = (parameters(4096, &[33, 33], 22), SealEntropy::fixed([8; 32]));
    let wanted = pattern(0, [(1, 1), (1, 1), (4, 1)]).expand(4096).unwrap();
    let id = OperatorId { model: entropy.model_id(), operator: 0 };
    let setting = OperatorSetting { parameters: &parameters, id, wanted: &wanted, input_bound: BOUND };
    let shape = MatrixShape { rows: 1, blocks: 1, tiles: 1 };
    let matrix = PlainMatrix { shape, open: &[false], row: &|_| vec![vec![(0, 3)]] };
    let key = seal_matrix(setting, &matrix, KeepHints::No, &entropy, |_| Ok::<_, MaskError>(())).unwrap();
    assert_eq!(key.hint_bytes(), 0);
    let (_, pending) = key.mask(&x, RequestEntropy::fixed([1; 32]), context(0)).unwrap();
    assert_eq!(pending.finish(None), Err(MaskError::NoHints));
}

#[test]
fn a_lying_server_is_caught() {
    let open = [false, true, false];
    let mixed = Fixture::mixed(2, &open, 2);
    for fixture in [Fixture::new(4096, &[33, 33], 2, &open, 2), mixed, Fixture::blocks(2, &open, 3, 2)] {
        lies_are_caught(&fixture);
    }
}

fn lies_are_caught(fixture: &Fixture) {
    let honest = fixture.attack(|_, _| {});
    assert_eq!(honest.unwrap(), fixture.expected(&fixture.input(1)));
    let t = fixture.layer.parameters.t() as u128;
    let q: u128 = fixture.ring().moduli().iter().map(|m| u128::from(m.value())).product();
    let largest = t * (q / (2 * t));
    // On one wanted coefficient, one limb or all of them, in the first and the last row.
    for delta in [1, t, largest, q - 1] {
        for (row, &held) in fixture.key.form.limbs().iter().enumerate() {
            for limbs in [vec![0], vec![1], vec![0, 1]] {
                if limbs == [held] {
                    continue; // There is no such residue.
                }
                let lie = |ring: &Ring, rows: &mut Vec<Poly<Coefficient>>| {
                    for &l in &limbs {
                        let m = ring.moduli()[l];
                        let v = &mut rows[row].limb_mut(l)[70];
                        *v = m.add(*v, (delta % u128::from(m.value())) as u64);
                    }
                };
                assert_eq!(fixture.attack(lie), Err(MaskError::AnswerRejected), "{delta} row {row} limbs {limbs:?}");
            }
        }
    }
    assert_eq!(fixture.attack(|_, rows| rows.swap(0, 2)), Err(MaskError::AnswerRejected), "rows swapped");
    assert_eq!(fixture.attack(|_, rows| drop(rows.pop())), Err(MaskError::AnswerRejected), "row missing");
    assert_eq!(fixture.attack(|_, rows| rows.push(rows[0].clone())), Err(MaskError::AnswerRejected), "row too many");
}

#[test]
fn every_wanted_position_is_checked() {
    let fixture = Fixture::new(4096, &[33, 33], 1, &[false, false], 4);
    for (n, &k) in fixture.layer.wanted.indices().iter().enumerate() {
        let lie = |ring: &Ring, rows: &mut Vec<Poly<Coefficient>>| {
            let (l, m) = (n % 2, ring.moduli()[n % 2]);
            let v = &mut rows[n % 2].limb_mut(l)[k as usize];
            *v = m.add(*v, 1);
        };
        assert_eq!(fixture.attack(lie), Err(MaskError::AnswerRejected), "coefficient {k}");
    }
}

#[test]
fn replayed_missing_and_malformed_answers_take_the_same_path() {
    let fixture = Fixture::new(4096, &[33, 33], 2, &[false], 5);
    let x = fixture.input(1);
    let (first, pending) = fixture.mask(&x, 1);
    let answer = fixture.answer(&fixture.serve(&first));
    pending.finish(Some(answer.clone())).unwrap();
    // The same image again: the old answer belongs to the old secret.
    let (_, pending) = fixture.mask(&x, 2);
    assert_eq!(pending.finish(Some(answer)), Err(MaskError::AnswerRejected));
    let (_, pending) = fixture.mask(&x, 3);
    assert_eq!(pending.finish(None), Err(MaskError::AnswerRejected));
    let ring = fixture.ring();
    let count = ring.limbs() * fixture.layer.wanted.count();
    let mut residues = vec![0; count];
    let form = fixture.key.form();
    assert!(Answer::new(ring, form, residues.clone()).is_ok());
    assert_eq!(Answer::new(ring, form, residues[1..].to_vec()), Err(MaskError::AnswerRejected));
    let foreign = Arc::new(AnswerForm::new(fixture.layer.wanted.clone(), vec![count]));
    assert_eq!(Answer::new(ring, &foreign, vec![0; foreign.residues()]), Err(MaskError::AnswerRejected));
    *residues.last_mut().unwrap() = ring.moduli()[1].value();
    assert_eq!(Answer::new(ring, form, residues), Err(MaskError::AnswerRejected), "residue >= p");
}

#[test]
fn check_scalars_wear_out() {
    let fixture = Fixture::new(2048, &[45], 1, &[true], 6);
    for _ in 0..check::MAX_REJECTS {
        fixture.key.check.count_guess();
    }
    let refused = fixture.key.mask(&fixture.input(1), RequestEntropy::fixed([1; 32]), context(0));
    assert_eq!(refused.map(|_| ()).unwrap_err(), MaskError::CheckKeyExhausted(1 << 16));
}

#[test]
fn request_secrets_are_never_reused() {
    let fixture = Fixture::new(4096, &[33, 33], 1, &[false], 7);
    let ring = fixture.ring();
    let (x, other) = (fixture.input(1), fixture.input(2));
    // The masked tile, and its error: x~ + a*s - x = t*e.
    let mask = |x: &[Vec<i64>], entropy: u8, counter: u64, image: u64| {
        let context = RequestContext { counter, image };
        let (mut masked, pending) = fixture.key.mask(x, RequestEntropy::fixed([entropy; 32]), context).unwrap();
        let masked = masked.remove(0);
        let mut noisy = masked.clone();
        ring.mul_add(&mut noisy, &public(&fixture.key)[0], &pending.secrets.s);
        (masked, ring.inverse(subtract(ring, &noisy, &ring.forward(ring.lift(&x[0], BOUND)))))
    };
    let (base, errors) = mask(&x, 1, 0, 0);
    // Under one secret the a*s parts cancel and a small difference is left.
    assert!(is_small(ring, subtract(ring, &base, &mask(&x, 1, 0, 0).0)), "the test can see reuse");
    for (what, masked) in [
        ("fresh randomness", mask(&x, 2, 0, 0)),
        ("counter", mask(&x, 1, 1, 0)),
        ("image", mask(&x, 1, 0, 1)),
        ("content", mask(&other, 1, 0, 0)),
    ] {
        assert!(!is_small(ring, subtract(ring, &base, &masked.0)), "{what}: same secret");
        assert_ne!(errors, masked.1, "{what}: same errors");
    }
    // At the public edge the operating system provides the randomness: two requests for one image
    // differ.
    let fresh = || fixture.key.mask(&x, RequestEntropy::from_os().unwrap(), context(0)).unwrap().0.remove(0);
    assert!(!is_small(fixture.ring(), subtract(fixture.ring(), &fresh(), &fresh())));
}

#[test]
fn masked_tiles_of_one_request_have_different_errors() {
    let fixture = Fixture::new(4096, &[33, 33], 2, &[true], 7);
    let x = vec![vec![0; 4096]; 2];
    let (masked, pending) = fixture.mask(&x, 1);
    // x~ + a*s = t*e: recover both error vectors with the secret and compare.
    let ring = fixture.ring();
    let errors: Vec<Vec<u64>> = (0..2)
        .map(|i| {
            let mut v = masked[i].clone();
            ring.mul_add(&mut v, &public(&fixture.key)[i], &pending.secrets.s);
            ring.inverse(v).limb(0).to_vec()
        })
        .collect();
    assert_ne!(errors[0], errors[1]);
}

#[test]
fn sealing_again_redraws_exactly_what_changed() {
    let parameters = parameters(4096, &[33, 33], 22);
    let ring = parameters.ring();
    let entropy = SealEntropy::fixed([8; 32]);
    let mut rng = stream(&derive_key("jali mask test", &[&[8]]));
    let rows = random_rows(4096, 2, &[false, false, true, false], &mut rng);
    let mut changed = rows.clone();
    changed[1].0[0][0].1 += 1; // a weight of a hidden row
    changed[2].1 = false; // the plan of an open row
    let (old, old_key) = seal_rows(&parameters, &rows, 1, 3, &entropy);
    let (same, _) = seal_rows(&parameters, &rows, 1, 3, &entropy);
    let (new, new_key) = seal_rows(&parameters, &changed, 1, 3, &entropy);
    assert_eq!(old.rows, same.rows, "an unchanged model stays byte-identical");
    assert_eq!((&old.rows[0], &old.rows[3]), (&new.rows[0], &new.rows[3]), "so does an unchanged row");
    let (SealedRow::Hidden(before), SealedRow::Hidden(after)) = (&old.rows[1], &new.rows[1]) else { panic!() };
    for (b, a) in before.iter().zip(after) {
        assert!(!is_small(ring, subtract(ring, b, a)), "same secret or error under new content opens both");
    }
    // A fresh secret alone would not do: with the same errors the difference is free of noise.
    let before = row_errors(&old, &old_key, 1, &rows[1].0);
    let after = row_errors(&new, &new_key, 1, &changed[1].0);
    assert!(before.iter().zip(&after).all(|(b, a)| b != a), "errors are drawn anew as well");
    assert_ne!(before[0], before[1], "tiles do not share errors");
    assert_ne!(row_errors(&old, &old_key, 0, &rows[0].0), before, "nor do rows");
    assert!(matches!(new.rows[2], SealedRow::Hidden(_)));
    // Another layer, another sealing secret: nothing is shared, not even the public vector.
    let (elsewhere, _) = seal_rows(&parameters, &rows, 1, 4, &entropy);
    let (stranger, _) = seal_rows(&parameters, &rows, 1, 3, &SealEntropy::fixed([9; 32]));
    assert!(old.rows[0] != elsewhere.rows[0] && old.rows[0] != stranger.rows[0]);
}

#[test]
fn rows_of_equal_content_have_secrets_of_their_own() {
    let parameters = parameters(4096, &[33, 33], 22);
    let ring = parameters.ring();
    let tiles: Vec<Tile> = vec![vec![(5, 7)], vec![]];
    let (layer, _) =
        seal_rows(&parameters, &[(tiles.clone(), false), (tiles, false)], 1, 0, &SealEntropy::fixed([1; 32]));
    let (SealedRow::Hidden(a), SealedRow::Hidden(b)) = (&layer.rows[0], &layer.rows[1]) else { panic!() };
    for (a, b) in a.iter().zip(b) {
        assert!(!is_small(ring, subtract(ring, a, b)));
    }
}

#[test]
fn hidden_tiles_of_zeros_are_sealed_and_open_rows_are_plain() {
    let parameters = parameters(4096, &[33, 33], 22);
    let zero = vec![vec![], vec![]];
    let open: Vec<Tile> = vec![vec![(5, -7)], vec![(9, 120)]];
    let (layer, key) =
        seal_rows(&parameters, &[(zero, false), (open.clone(), true)], 1, 0, &SealEntropy::fixed([1; 32]));
    let SealedRow::Hidden(sealed) = &layer.rows[0] else { panic!() };
    // W~ + a*s' = t*e': every tile has errors of its own under the secret.
    let ring = parameters.ring();
    let a = public(&key);
    let errors = sealed.iter().zip(&a).map(|(w, a)| {
        let mut v = w.clone();
        ring.mul_add(&mut v, a, &secret(&key, 0));
        ring.inverse(v).limb(0).to_vec()
    });
    let errors: Vec<Vec<u64>> = errors.collect();
    assert!(errors.iter().all(|e| e.iter().filter(|&&v| v != 0).count() > 3000) && errors[0] != errors[1]);
    for tile in sealed {
        let zeros = tile.limb(0).iter().filter(|&&v| v == 0).count();
        assert!(zeros < 3, "a sealed zero tile looks uniform, {zeros} zeros");
    }
    assert_eq!(layer.rows[1], SealedRow::Open(open));
}

#[test]
fn measured_noise_is_under_the_bound_and_near_it() {
    for (fixture, name) in [
        (Fixture::new(4096, &[34, 33], 11, &[false, false], 3), "hidden"),
        (Fixture::new(2048, &[46], 4, &[true, true], 3), "open"),
    ] {
        let report = fixture.key.noise();
        let x = fixture.input(3);
        let (masked, pending) = fixture.mask(&x, 3);
        let answer = fixture.answer(&fixture.serve(&masked));
        let (values, measured) = pending.finish_measuring_noise(Some(answer)).unwrap();
        assert_eq!(values, fixture.expected(&x));
        assert!(measured <= report.bound_bits && report.bound_bits <= measured + 6.0, "{name}: {measured} {report:?}");
        assert!(report.bound_bits <= report.available_bits && report.log2_failure <= noise::MAX_FAILURE_LOG2);
    }
}

#[test]
fn a_modulus_too_small_shows_in_the_report() {
    let fixture = Fixture::new(4096, &[33, 33], 4, &[false], 3);
    let report = fixture.key.noise();
    assert!(report.bound_bits < report.available_bits && report.log2_failure < -64.0);
    let parameters = parameters(4096, &[33, 33], 27);
    let (_, key) = seal_rows(&parameters, &fixture.rows, 1, 3, &SealEntropy::fixed([3; 32]));
    assert!(key.noise().log2_failure > -64.0 && key.noise().bound_bits > key.noise().available_bits);
}

#[test]
fn unfit_inputs_and_rows_are_errors() {
    let fixture = Fixture::new(2048, &[45], 2, &[true], 1);
    let ask = |x: &[Vec<i64>]| fixture.key.mask(x, RequestEntropy::fixed([1; 32]), context(0)).map(|_| ()).unwrap_err();
    let mut x = fixture.input(1);
    assert!(matches!(ask(&x[..1]), MaskError::Shape { .. }));
    x[1].pop();
    assert!(matches!(ask(&x), MaskError::Shape { .. }));
    x[1].push(0);
    for beyond in [BOUND + 1, -BOUND - 1, i64::MAX, i64::MIN] {
        x[1][7] = beyond;
        assert_eq!(ask(&x), MaskError::InputRange { bound: BOUND }, "{beyond}");
    }
    x[1][7] = -BOUND;
    assert!(fixture.key.mask(&x, RequestEntropy::fixed([1; 32]), context(0)).is_ok());

    let id = OperatorId { model: [0; 16], operator: 0 };
    let entropy = SealEntropy::fixed([1; 32]);
    let wanted = &fixture.layer.wanted;
    let try_seal = |tiles: &[&[Tile]]| {
        let rows: Vec<PlainRow<'_>> = tiles.iter().map(|tiles| PlainRow { tiles, open: true }).collect();
        seal(&fixture.layer.parameters, id, &rows, 1, wanted, BOUND, &entropy).map(|_| ()).is_err()
    };
    assert!(try_seal(&[]));
    assert!(try_seal(&[&[]]));
    assert!(try_seal(&[&[vec![]], &[vec![], vec![]]]));
    assert!(try_seal(&[&[vec![(2048, 1)]]]));
    assert!(try_seal(&[&[vec![(5, 1), (5, 1)]]]), "two values at one place");
    let thin = parameters(2048, &[32], 12);
    let rows = [PlainRow { tiles: &[vec![(1, 1)]], open: true }];
    let refused = seal(&thin, id, &rows, 1, wanted, BOUND, &entropy).map(|_| ()).unwrap_err();
    assert_eq!(refused, MaskError::SmallPrime { got: 32, min: 33 });
    assert!(!try_seal(&[&[vec![(2047, 1)]]]));
}

#[test]
fn a_stored_key_works_again_and_takes_only_right_hints() {
    for fixture in [Fixture::new(4096, &[33, 33], 2, &[false, true], 8), Fixture::mixed(3, &[true, false, true], 9)] {
        let key = &fixture.key;
        let mut w = jali_ring::wire::Writer::new();
        key.encode(&mut w);
        let bytes = w.finish();
        assert!(bytes.len() <= key.encoded_len());
        let read = |bytes: &[u8]| {
            let mut r = jali_ring::wire::Reader::new(bytes);
            let wanted = key.form.wanted().clone();
            let shape = MatrixShape { rows: key.rows(), blocks: key.blocks(), tiles: key.block_tiles() };
            UnhintedKey::decode(&mut r, key.id, key.parameters.clone(), wanted, BOUND, shape)
        };
        for cut in (0..bytes.len()).step_by(101) {
            assert!(read(&bytes[..cut]).is_err(), "cut to {cut}");
        }
        let mut unhinted = read(&bytes).unwrap();
        let ring = fixture.ring();
        // One residue of any row and limb, a row too few, rows in another order.
        let hints = fixture.hints();
        let mut lies: Vec<Vec<Poly<Ntt>>> = vec![hints[1..].to_vec(), hints.iter().rev().cloned().collect()];
        for row in 0..key.rows() {
            for l in 0..hints[row].limbs() {
                let mut lie = hints.clone();
                let at = (row * 1237 + l * 411) % ring.degree();
                let v = &mut lie[row].limb_mut(l)[at];
                *v = ring.moduli()[l].add(*v, 1);
                lies.push(lie);
            }
        }
        for lie in lies {
            unhinted = *unhinted.accept(&pack(ring, &lie)).unwrap_err();
        }
        let mut beyond = pack(ring, &hints);
        beyond[..16].fill(0xff);
        unhinted = *unhinted.accept(&beyond).unwrap_err();
        let restored = unhinted.accept(&pack(ring, &hints)).unwrap();
        let x = fixture.input(4);
        let (masked, pending) = restored.mask(&x, RequestEntropy::fixed([4; 32]), context(0)).unwrap();
        assert_eq!(pending.finish(Some(fixture.answer(&fixture.serve(&masked)))).unwrap(), fixture.expected(&x));
        let (masked, pending) = restored.mask(&x, RequestEntropy::fixed([5; 32]), context(1)).unwrap();
        let mut rows = fixture.serve(&masked);
        rows[0].limb_mut(0)[70] ^= 1;
        assert_eq!(pending.finish(Some(fixture.answer(&rows))), Err(MaskError::AnswerRejected));
    }
}
