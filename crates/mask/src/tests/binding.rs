//! One entropy, anything else changed: a row comes out byte for byte the same, or has nothing in
//! common with the other one.

use super::*;

/// Everything that a sealing of one layer is given, but the entropy.
#[derive(Debug, Clone)]
struct Given {
    degree: usize,
    prime_bits: Vec<u32>,
    plaintext_bits: u32,
    open_primes: usize,
    model: [u8; 16],
    layer: u32,
    blocks: usize,
    wanted: (usize, [(usize, usize); 3]),
    bound: i64,
    rows: Vec<(Vec<Tile>, bool)>,
}

/// Which of them is changed.
const CHANGES: usize = 12;

impl Given {
    fn seal(&self, entropy: &SealEntropy) -> (SealedOperator, OperatorKey) {
        let (degree, prime_bits) = (self.degree, self.prime_bits.clone());
        let literal = ParametersLiteral {
            degree,
            prime_bits,
            plaintext_bits: self.plaintext_bits,
            open_primes: self.open_primes,
        };
        let wanted = pattern(self.wanted.0, self.wanted.1).expand(self.degree).unwrap();
        let plain: Vec<PlainRow<'_>> = self.rows.iter().map(|(tiles, open)| PlainRow { tiles, open: *open }).collect();
        let id = OperatorId { model: self.model, operator: self.layer };
        seal(&literal.try_into().unwrap(), id, &plain, self.blocks, &wanted, self.bound, entropy).unwrap()
    }

    fn changed(mut self, which: usize) -> Self {
        match which {
            0 => self.blocks = if self.blocks == 1 { self.rows.len() } else { 1 },
            1 => self.model[15] ^= 1,
            2 => self.layer += 1,
            3 => self.wanted.0 += 1,
            4 => self.wanted.1[0].0 -= 1,
            5 => self.plaintext_bits += 1,
            6 => self.bound += 1,
            7 => self.prime_bits[1] += 1,
            8 => self.rows[0].0[0][0].1 += 1,
            9 => self.rows[1].1 = !self.rows[1].1,
            10 => self.rows.truncate(self.rows.len() / 2),
            // The same tiles, cut into rows elsewhere.
            11 => {
                let tiles: Vec<Tile> = self.rows.iter().flat_map(|(tiles, _)| tiles.clone()).collect();
                let width = self.rows[0].0.len() * 2;
                self.rows = tiles.chunks_exact(width).map(|tiles| (tiles.to_vec(), false)).collect();
                self.blocks = 1;
            }
            _ => unreachable!(),
        }
        self
    }
}

fn is_small(values: &[u64], p: u64, bound: u64) -> bool {
    values.iter().all(|&v| v.min(p - v) <= bound)
}

/// What an eavesdropper with both sealed models would try: the difference of the two rows, as it is
/// and divided by the difference of their public elements.
fn have_nothing_in_common(
    one: (&SealedOperator, &[Poly<Ntt>]),
    two: (&SealedOperator, &[Poly<Ntt>]),
    row: usize,
) -> bool {
    let (ring, other) = (one.0.parameters.ring(), two.0.parameters.ring());
    let (SealedRow::Hidden(a), SealedRow::Hidden(b)) = (&one.0.rows[row], &two.0.rows[row]) else { return true };
    if ring.degree() != other.degree() || ring.moduli()[0] != other.moduli()[0] {
        return true;
    }
    let m = &ring.moduli()[0];
    let first = |layer: &SealedOperator| row / (layer.rows.len() / layer.blocks) * layer.tiles;
    a.iter().zip(b).enumerate().all(|(i, (a, b))| {
        let mut difference = ring.zero::<Ntt>();
        let mut quotient = ring.zero::<Ntt>();
        let (x, y) = (one.1[first(one.0) + i].limb(0), two.1[first(two.0) + i].limb(0));
        for k in 0..ring.degree() {
            let d = m.sub(b.limb(0)[k], a.limb(0)[k]);
            difference.limb_mut(0)[k] = d;
            quotient.limb_mut(0)[k] = m.mul(d, m.invert(m.sub(x[k], y[k]).max(1)));
        }
        ring.inverse_limb(0, &mut difference);
        ring.inverse_limb(0, &mut quotient);
        !is_small(difference.limb(0), m.value(), 1 << 26) && !is_small(quotient.limb(0), m.value(), 1)
    })
}

fn compare(given: &Given, which: usize, entropy: &SealEntropy) {
    let changed = given.clone().changed(which);
    let ((one, key), (two, other)) = (given.seal(entropy), changed.seal(entropy));
    let a =
        |layer: &SealedOperator| expand_public(layer.parameters.ring(), &layer.a_seed, 0..layer.blocks * layer.tiles);
    let (a_one, a_two) = (a(&one), a(&two));
    for row in 0..one.rows.len().min(two.rows.len()) {
        let same = one.rows[row] == two.rows[row] && one.a_seed == two.a_seed;
        // Rows that nothing has touched stay as they are.
        let untouched = which == 6 || matches!(which, 8 | 9) && row != which - 8;
        assert_eq!(same, untouched, "change {which}, row {row}");
        if untouched {
            continue;
        }
        let hidden = key.row_keys[row].is_some() && other.row_keys[row].is_some();
        assert!(!hidden || key.row_keys[row] != other.row_keys[row], "change {which}, row {row}: one secret");
        assert!(have_nothing_in_common((&one, &a_one), (&two, &a_two), row), "change {which}, row {row}");
    }
    assert!(key.sealing != other.sealing || which == 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn rows_are_bound_to_all_that_they_meet(seed: u8, tiles in 1usize..3, open in proptest::collection::vec(any::<bool>(), 4)) {
        let entropy = SealEntropy::fixed([seed; 32]);
        let mut rng = stream(&derive_key("test rows", &[&[seed]]));
        let mut given = Given {
            degree: 4096,
            prime_bits: vec![34, 34],
            plaintext_bits: 16,
            open_primes: 2,
            model: entropy.model_id(),
            layer: 3,
            blocks: 1,
            wanted: (70, [(3, 100), (5, 10), (7, 1)]),
            bound: 255,
            rows: random_rows(4096, tiles, &open, &mut rng),
        };
        // Whole blocks and at least one hidden row.
        given.rows[0].1 = false;
        for blocks in [1, 2] {
            given.blocks = blocks;
            for which in (0..CHANGES).filter(|&w| !(blocks == 2 && w == 11)) {
                compare(&given, which, &entropy);
            }
        }
    }
}

#[test]
fn check_scalars_are_fresh_for_every_sealing() {
    let entropy = SealEntropy::from_os().unwrap();
    let parameters = parameters(4096, &[34, 34], 16);
    let rows = random_rows(4096, 1, &[false, true], &mut stream(&derive_key("test rows", &[])));
    let (one, key) = seal_rows(&parameters, &rows, 1, 0, &entropy);
    let (two, other) = seal_rows(&parameters, &rows, 1, 0, &entropy);
    assert_eq!(one.rows, two.rows);
    assert!(key.check_key != other.check_key && key.sealing != other.sealing);
}

#[test]
fn what_tested_no_scalar_is_not_counted() {
    let fixture = Fixture::new(2048, &[45], 1, &[true], 6);
    let x = fixture.input(1);
    for i in 0..20 {
        let (_, pending) = fixture.mask(&x, i);
        assert_eq!(pending.finish(None), Err(MaskError::AnswerRejected));
    }
    assert_eq!(fixture.key.check.guesses(), 0);
    let (_, pending) = fixture.mask(&x, 99);
    let form = fixture.key.form();
    let wrong = Answer::new(fixture.ring(), form, vec![1; form.residues()]).unwrap();
    assert_eq!(pending.finish(Some(wrong)), Err(MaskError::AnswerRejected));
    assert_eq!(fixture.key.check.guesses(), 1);
}
