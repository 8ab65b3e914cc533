//! The owner seals an operator: hidden rows under ring-LWE, open rows as they are.

use std::sync::Arc;

use jali_ring::modulus::MAX_LAZY_PRODUCTS;
use jali_ring::sample::{self, BINOMIAL_MAX, Key, derive_key, stream};
use jali_ring::wire::Writer;
use jali_ring::{Ntt, Poly, Ring, Wanted};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::answer::AnswerForm;
use crate::check::CheckVectors;
use crate::derive::{check_scalars, expand_public, row_secret};
use crate::key::{OperatorKey, check_bound, vectors_and_check};
use crate::noise::{NoiseReport, RowNorms};
use crate::sealed::{SealedHead, SealedOperator, SealedRow, Tile};
use crate::shape::{MatrixShape, OperatorId};
use crate::unmask::Unmasking;
use crate::{MaskError, Parameters, SealEntropy};

/// One row of the plain matrix.
#[derive(Debug, Clone, Copy)]
pub struct PlainRow<'a> {
    /// One sparse element per input tile.
    pub tiles: &'a [Tile],
    /// Whether the plan allows (and sealing chose) to store it in the clear.
    pub open: bool,
}

/// One row while it is being sealed.
struct SealedWork {
    /// `W~` in the NTT domain, hidden or open.
    lifted: Vec<Poly<Ntt>>,
    secret: Option<(Key, Zeroizing<Poly<Ntt>>)>,
    /// `sum_i W~[i]*a[i]`, if it is wanted.
    hint: Option<Poly<Ntt>>,
    norms: RowNorms,
}

/// What every derivation of one operator shares: everything but the rows' content that enters `W~`.
struct Scope<'a> {
    parameters: &'a Parameters,
    /// One encoding of ring, model, operator, shape of the matrix and wanted coefficients. Rows
    /// sealed with one entropy under different ones have nothing in common: the difference of two
    /// that shared a secret and not their `a` would be `(a2 - a1)*s'` without noise, and give `s'`
    /// away.
    operator: Vec<u8>,
    entropy: &'a SealEntropy,
}

impl<'a> Scope<'a> {
    fn new(
        parameters: &'a Parameters,
        id: OperatorId,
        shape: MatrixShape,
        wanted: &Wanted,
        entropy: &'a SealEntropy,
    ) -> Self {
        let mut w = Writer::new();
        let identity = parameters.identity();
        w.u64(identity.len() as u64);
        w.raw(&identity);
        w.raw(&id.model);
        w.u32(id.operator);
        [shape.rows, shape.blocks, shape.tiles].into_iter().for_each(|n| w.u64(n as u64));
        wanted.pattern().encode(&mut w);
        Self { parameters, operator: w.finish(), entropy }
    }

    /// Domain-separated key for this operator (condition 3); `domain` names protocol version and
    /// role.
    fn key(&self, domain: &'static str, more: &[&[u8]]) -> Key {
        let mut fields: Vec<&[u8]> = vec![&*self.entropy.rows, &self.operator];
        fields.extend(more);
        derive_key(domain, &fields)
    }
}

/// A matrix to be sealed. Rows are asked for when they are needed, twice each: all of them need not
/// be in memory together.
pub struct PlainMatrix<'a> {
    /// Its shape.
    pub shape: MatrixShape,
    /// Which rows the plan allows (and sealing chose) to store in the clear.
    pub open: &'a [bool],
    /// One row: a sparse element for every tile of its block, indices rising.
    pub row: &'a (dyn Fn(usize) -> Vec<Tile> + Sync),
}

impl std::fmt::Debug for PlainMatrix<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainMatrix").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Whether the key of an operator keeps what unmasks its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepHints {
    /// It does: requests can be made at once.
    Yes,
    /// It does not: the key is stored, and whoever reads it gets hints from the server.
    No,
}

/// Bytes of sealed rows that are in memory at a time, beside one row for every thread.
const ROWS_AT_ONCE: usize = 8 << 20;

/// Rows of so many tiles, of so many in all, that are sealed together: for what sealing takes.
pub fn rows_together(ring: &Ring, tiles: usize, rows: usize) -> usize {
    let row = tiles.saturating_mul(ring.limbs() * ring.degree() * 8).max(1);
    (ROWS_AT_ONCE / row).max(rayon::current_num_threads()).min(rows)
}

/// What sealing one operator needs to know beside its rows.
#[derive(Debug, Clone, Copy)]
pub struct OperatorSetting<'a> {
    /// The ring.
    pub parameters: &'a Parameters,
    /// Model and position.
    pub id: OperatorId,
    /// Coefficients that the client is going to ask for.
    pub wanted: &'a Wanted,
    /// The largest absolute value that a request may hold.
    pub input_bound: i64,
}

impl OperatorSetting<'_> {
    fn scope<'e>(&'e self, shape: MatrixShape, entropy: &'e SealEntropy) -> Scope<'e> {
        Scope::new(self.parameters, self.id, shape, self.wanted, entropy)
    }

    /// The public part of the operator, before any row is sealed.
    ///
    /// # Errors
    /// [`MaskError::Shape`] for a matrix without rows, tiles or equal blocks, or with rows that are
    /// too long.
    pub fn head(&self, shape: MatrixShape, entropy: &SealEntropy) -> Result<SealedHead, MaskError> {
        let MatrixShape { rows, blocks, tiles } = shape;
        if tiles == 0 || rows == 0 {
            return Err(MaskError::Shape { what: "rows and tiles of an operator", expected: 1, got: 0 });
        }
        if blocks == 0 || !rows.is_multiple_of(blocks) {
            return Err(MaskError::Shape { what: "rows of equal blocks", expected: blocks, got: rows });
        }
        if tiles > MAX_LAZY_PRODUCTS {
            // The server's backend could not add them up.
            return Err(MaskError::Shape { what: "tiles of a row", expected: MAX_LAZY_PRODUCTS, got: tiles });
        }
        Ok(SealedHead {
            id: self.id,
            parameters: self.parameters.clone(),
            wanted: self.wanted.clone(),
            shape,
            // The seed of `a` is public and belongs to this operator of this model alone.
            a_seed: *self.scope(shape, entropy).key("jali 2 seal: public seed of a", &[]),
        })
    }
}

/// Checks that a matrix says of every row whether it is open.
fn check_permissions(matrix: &PlainMatrix<'_>, rows: usize) -> Result<(), MaskError> {
    match matrix.open.len() {
        got if got == rows => Ok(()),
        got => Err(MaskError::Shape { what: "rows that are open or not", expected: rows, got }),
    }
}

/// Returns the digest of every row, after checking the row.
fn digests_of(matrix: &PlainMatrix<'_>, tiles: usize, degree: usize) -> Result<Vec<Key>, MaskError> {
    let digest = |o: usize| {
        let row = (matrix.row)(o);
        check_row(&row, tiles, degree)?;
        Ok(row_digest(&PlainRow { tiles: &row, open: matrix.open[o] }))
    };
    (0..matrix.open.len()).into_par_iter().map(digest).collect()
}

/// Makes room for the hints, if they are kept.
fn room_for_hints(
    keep: KeepHints,
    parameters: &Parameters,
    limbs: &[usize],
    matrix: &PlainMatrix<'_>,
) -> Result<Option<Unmasking>, MaskError> {
    match keep {
        KeepHints::Yes => Unmasking::room(parameters, limbs, matrix.open.contains(&false)).map(Some),
        KeepHints::No => Ok(None),
    }
}

/// Returns rows as the server gets them: in the clear where `plain` has them.
fn sealed_rows(lifted: Vec<Vec<Poly<Ntt>>>, plain: Vec<Option<Vec<Tile>>>) -> Vec<SealedRow> {
    let row = |(lifted, plain): (_, Option<_>)| plain.map_or(SealedRow::Hidden(lifted), SealedRow::Open);
    lifted.into_iter().zip(plain).map(row).collect()
}

/// Seals an operator row by row; `emit` gets the sealed rows in order, some at a time.
///
/// One entropy gives a row the same sealed bytes as long as everything that enters them is the
/// same: the row and its plan, its index, the numbers of rows, blocks and tiles, the wanted
/// coefficients, the parameters, model and operator. Any change of any of these draws a new secret,
/// new errors, and (but for the row itself) a new public vector (condition 1). Within a block
/// nothing is skipped: what the server sees of a hidden row follows from the operator's shape.
///
/// The caller's layout answers for `t`: every wanted sum of products must lie in `[-t/2, t/2)`.
///
/// # Errors
/// [`MaskError::Shape`] if rows have another number of tiles, or their indices do not rise or leave
/// the ring; [`MaskError::SmallPrime`]; [`MaskError::InputRange`] for a bound below zero or above
/// 2^31 - 1; [`MaskError::Entropy`]; those of `emit`.
pub fn seal_matrix<E: From<MaskError>>(
    setting: OperatorSetting<'_>,
    matrix: &PlainMatrix<'_>,
    keep: KeepHints,
    entropy: &SealEntropy,
    mut emit: impl FnMut(Vec<SealedRow>) -> Result<(), E>,
) -> Result<OperatorKey, E> {
    let OperatorSetting { parameters, id, wanted, input_bound } = setting;
    let SealedHead { a_seed, shape, .. } = setting.head(matrix.shape, entropy)?;
    let (ring, MatrixShape { rows, blocks, tiles }) = (parameters.ring(), shape);
    parameters.fit_for_checking()?;
    check_bound(input_bound)?;
    check_permissions(matrix, rows)?;
    let scope = setting.scope(shape, entropy);
    let digests = digests_of(matrix, tiles, ring.degree())?;
    let content = Zeroizing::new(digests.iter().flat_map(|d| **d).collect::<Vec<u8>>());
    // Fresh for every sealing, also of the same rows with the same entropy.
    let fresh = entropy.fresh()?;
    let check_key = scope.key("jali 2 seal: check scalars", &[&*fresh, &content]);
    let sealing = scope.key("jali 2 seal: name of the sealing", &[&*fresh, &content]);
    let alphas = check_scalars(ring, &check_key, rows);
    let a = expand_public(ring, &a_seed, 0..blocks * tiles);
    let limbs: Vec<usize> = matrix.open.iter().map(|&open| parameters.ring_of(open).limbs()).collect();
    let mut unmasking = room_for_hints(keep, parameters, &limbs, matrix)?;
    let mut vectors = CheckVectors::new(ring, shape);
    let (mut norms, mut row_keys) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let together = rows_together(ring, tiles, rows);
    for first in (0..rows).step_by(together) {
        let some = first..(first + together).min(rows);
        let one = |o: usize| {
            let a = &a[o / (rows / blocks) * tiles..][..tiles];
            let row = (matrix.row)(o);
            let work = seal_row(&scope, o as u64, &row, matrix.open[o], &digests[o], a, keep);
            (work, matrix.open[o].then_some(row))
        };
        let made: Vec<(SealedWork, Option<Vec<Tile>>)> = some.into_par_iter().map(one).collect();
        let (mut lifted, mut plain) = (vec![], vec![]);
        for (i, (work, row)) in made.into_iter().enumerate() {
            let (key, secret) = work.secret.unzip();
            if let (Some(unmasking), Some(hint)) = (&mut unmasking, &work.hint) {
                unmasking.put(first + i, hint, &secret);
            }
            row_keys.push(key);
            norms.push(work.norms);
            lifted.push(work.lifted);
            plain.push(row);
        }
        vectors.add(ring, &alphas, first, &lifted);
        emit(sealed_rows(lifted, plain))?;
    }
    let noise = NoiseReport::new(&norms, wanted.count(), (parameters.plaintext_bits(), input_bound));
    let (vectors, check) = vectors_and_check(ring, tiles, (&a, vectors.vectors()), alphas)?;
    Ok(OperatorKey {
        id,
        parameters: parameters.clone(),
        form: Arc::new(AnswerForm::new(wanted.clone(), limbs)),
        input_bound,
        vectors,
        blocks,
        unmasking,
        check,
        sealing,
        noise,
        a_seed: Zeroizing::new(a_seed),
        check_key,
        row_keys,
    })
}

/// Seals an operator whose rows are all there, in so many `blocks` (1 for a dense matrix), into
/// memory.
///
/// # Errors
/// As [`seal_matrix`].
pub fn seal(
    parameters: &Parameters,
    id: OperatorId,
    rows: &[PlainRow<'_>],
    blocks: usize,
    wanted: &Wanted,
    input_bound: i64,
    entropy: &SealEntropy,
) -> Result<(SealedOperator, OperatorKey), MaskError> {
    let tiles = rows.first().map_or(0, |r| r.tiles.len());
    let shape = MatrixShape { rows: rows.len(), blocks, tiles };
    let setting = OperatorSetting { parameters, id, wanted, input_bound };
    let head = setting.head(shape, entropy)?;
    let open: Vec<bool> = rows.iter().map(|row| row.open).collect();
    let matrix = PlainMatrix { shape, open: &open, row: &|o| rows[o].tiles.to_vec() };
    let mut sealed = Vec::with_capacity(rows.len());
    let key = seal_matrix(setting, &matrix, KeepHints::Yes, entropy, |rows| -> Result<(), MaskError> {
        sealed.extend(rows);
        Ok(())
    })?;
    let SealedHead { id, parameters, wanted, a_seed, .. } = head;
    Ok((SealedOperator { id, parameters, wanted, tiles, blocks, a_seed, rows: sealed }, key))
}

/// Whether a row has the operator's tiles, with indices that rise and stay in the ring.
fn check_row(row: &[Tile], tiles: usize, degree: usize) -> Result<(), MaskError> {
    if row.iter().any(|tile| !tile.is_sorted_by(|a, b| a.0 < b.0)) {
        return Err(MaskError::Shape { what: "rising coefficient indices", expected: 1, got: 0 });
    }
    if row.len() != tiles {
        return Err(MaskError::Shape { what: "tiles of a row", expected: tiles, got: row.len() });
    }
    match row.iter().flatten().find(|(i, _)| *i as usize >= degree) {
        Some(&(index, _)) => Err(MaskError::Shape { what: "coefficient index", expected: degree, got: index as usize }),
        None => Ok(()),
    }
}

/// A row and its plan, digested for key derivation: different for different rows.
fn row_digest(row: &PlainRow<'_>) -> Key {
    let mut w = Writer::new();
    w.u8(u8::from(row.open));
    w.varint(row.tiles.len() as u64);
    for tile in row.tiles {
        w.varint(tile.len() as u64);
        for &(index, value) in tile {
            w.u32(index);
            w.u32(value as u32);
        }
    }
    sample::digest("jali 2 seal: content of a row", &Zeroizing::new(w.finish()))
}

fn seal_row(
    scope: &Scope<'_>,
    o: u64,
    row: &[Tile],
    open: bool,
    content: &Key,
    a: &[Poly<Ntt>],
    keep: KeepHints,
) -> SealedWork {
    let ring = scope.parameters.ring_of(open);
    let t = scope.parameters.t();
    let bound = t * BINOMIAL_MAX + (1 << 31);
    let mut norms = RowNorms { squared: 0, error_l1: 0, log2_q: ring.log2_q() };
    // Keyed by the row's content and plan: new content under an old secret would open both.
    let index = o.to_le_bytes();
    let fields: [&[u8]; 2] = [&index, &**content];
    let secret = (!open).then(|| {
        let key = scope.key("jali 2 seal: row secret", &fields);
        let secret = row_secret(ring, &key);
        (key, secret)
    });
    let mut errors = stream(&scope.key("jali 2 seal: row errors", &fields));
    let mut v = Zeroizing::new(vec![0i64; ring.degree()]);
    let lifted: Vec<Poly<Ntt>> = row
        .iter()
        .zip(a)
        .map(|(tile, a)| {
            if secret.is_some() {
                sample::centred_binomial(ring.backend(), &mut errors, &mut v);
                norms.error_l1 += v.iter().map(|e| u128::from(e.unsigned_abs())).sum::<u128>();
                v.iter_mut().for_each(|e| *e *= t);
            } else {
                v.fill(0);
            }
            for &(index, value) in tile {
                v[index as usize] += i64::from(value);
            }
            norms.squared += v.iter().map(|v| u128::from(v.unsigned_abs()).pow(2)).sum::<u128>();
            let mut w = ring.forward(ring.lift(&v, bound));
            if let Some((_, s)) = &secret {
                ring.mul_sub(&mut w, a, s);
            }
            w
        })
        .collect();
    let hint = (keep == KeepHints::Yes).then(|| {
        let mut hint = ring.zero();
        lifted.iter().zip(a).for_each(|(w, a)| ring.mul_add(&mut hint, w, a));
        hint
    });
    SealedWork { lifted, secret, hint, norms }
}
