//! A sealed model in the server's memory.

use std::sync::Arc;

use jali_mask::{Answer, AnswerForm, Wanted};
use jali_ring::ring::{MAX_DEGREE, MIN_DEGREE};
use jali_ring::wire::{Reader, poly_len};
use jali_ring::{Kernel, Ntt, Poly, Products, Ring, RowStore};

use crate::OperatorError;
use crate::encode::{MAGIC, ROW_HIDDEN, ROW_OPEN, VERSION};

/// Most operators of one model.
const MAX_OPERATORS: usize = 4096;
/// Most primes of one ring.
const MAX_LIMBS: usize = 32;
/// Most rows of one operator.
const MAX_ROWS: usize = 1 << 20;
/// Bytes per coefficient and prime that the tables of roots take: root, quotient and their copy lane by lane, both ways.
const TABLE_BYTES: usize = 2 * (16 + 14);

/// Products held at once while a batch is computed, in bytes: about what a second-level cache keeps.
const PRODUCT_BYTES: usize = 1 << 20;

/// One linear layer, ready to be applied.
#[derive(Debug)]
pub struct Operator {
    ring: Ring,
    /// Of the primes that open rows are computed modulo.
    open_ring: Ring,
    form: Arc<AnswerForm>,
    store: RowStore,
    hidden_rows: usize,
}

/// All that a server holds.
#[derive(Debug)]
pub struct ServerModel {
    id: [u8; 16],
    operators: Vec<Operator>,
}

impl ServerModel {
    /// Reads what [`crate::encode_model`] wrote. `max_memory` bounds the bytes that loading may take, whatever the input
    /// claims.
    ///
    /// # Errors
    /// [`OperatorError::Format`] for foreign bytes, [`OperatorError::Memory`] beyond the limit, and the decoder's errors.
    pub fn load(bytes: &[u8], kernel: Kernel, max_memory: usize) -> Result<Self, OperatorError> {
        let mut r = Reader::new(bytes);
        let foreign = |got: &str| OperatorError::Format { expected: VERSION, got: got.into() };
        if r.array::<8>().map_err(|_| foreign("the file is too short"))? != MAGIC {
            return Err(foreign("the file starts with other bytes"));
        }
        let version = r.u8()?;
        if version != VERSION {
            return Err(foreign(&format!("version {version}")));
        }
        let id = r.array()?;
        let count = r.count(MAX_OPERATORS, "operators")?;
        let (mut operators, mut used) = (Vec::new(), 0usize);
        for index in 0..count {
            let operator = Operator::read(&mut r, kernel, |more| {
                let needed = used.saturating_add(more);
                if needed > max_memory {
                    return Err(OperatorError::Memory { index, needed, limit: max_memory });
                }
                used = needed;
                Ok(())
            })?;
            operators.push(operator);
        }
        r.finish()?;
        Ok(Self { id, operators })
    }

    /// Public name of the sealed model.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The operators in order.
    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    /// Bytes of memory that all matrices take.
    pub fn memory(&self) -> usize {
        self.operators.iter().map(|o| o.store.bytes()).sum()
    }
}

impl Operator {
    fn read(
        r: &mut Reader<'_>,
        kernel: Kernel,
        mut claim: impl FnMut(usize) -> Result<(), OperatorError>,
    ) -> Result<Self, OperatorError> {
        let degree = r.u32()? as usize;
        let limbs = usize::from(r.u8()?);
        if !(1..=MAX_LIMBS).contains(&limbs) {
            return Err(r.malformed("number of primes").into());
        }
        let prime_bits: Vec<u32> = r.raw(limbs)?.iter().map(|&b| u32::from(b)).collect();
        let open_primes = usize::from(r.u8()?);
        if !(1..=limbs).contains(&open_primes) {
            return Err(r.malformed("number of primes of open rows").into());
        }
        let tiles = r.count(jali_ring::modulus::MAX_LAZY_PRODUCTS, "tiles of a row")?;
        let rows = r.count(MAX_ROWS, "rows")?;
        if !degree.is_power_of_two() || !(MIN_DEGREE..=MAX_DEGREE).contains(&degree) || rows == 0 || tiles == 0 {
            return Err(r.malformed("shape of an operator").into());
        }
        // The tables of roots are needed to know the sizes of the primes; they and the matrix are claimed before the
        // matrix is built.
        claim(limbs.saturating_mul(TABLE_BYTES * degree) + degree * 8)?;
        let ring = Ring::with_kernel(degree, &prime_bits, kernel)?;
        let wanted = Wanted::decode(r, &ring)?;
        let kinds = r.raw(rows)?;
        if !kinds.iter().all(|kind| [ROW_HIDDEN, ROW_OPEN].contains(kind)) {
            return Err(r.malformed("kind of a row").into());
        }
        let hidden_rows = kinds.iter().filter(|&&kind| kind == ROW_HIDDEN).count();
        // What a hidden row takes is known, an open one takes at least one byte per tile: refuse before asking for memory.
        let least =
            hidden_rows.saturating_mul(poly_len(&ring)).saturating_add(rows - hidden_rows).saturating_mul(tiles);
        if r.remaining() < least {
            return Err(r.malformed("the data ends too early").into());
        }
        let row_limbs: Vec<usize> =
            kinds.iter().map(|&kind| if kind == ROW_OPEN { open_primes } else { limbs }).collect();
        claim(RowStore::bytes_needed(&ring, &row_limbs, tiles))?;
        let open_ring = ring.leading(open_primes);
        let mut store = RowStore::new(&ring, &row_limbs, tiles)?;
        for (row, &kind) in kinds.iter().enumerate() {
            for i in 0..tiles {
                let w = if kind == ROW_OPEN { read_tile(r, &open_ring)? } else { r.poly(&ring)? };
                store.set(row, i, &w);
            }
        }
        let form = Arc::new(AnswerForm::new(wanted, row_limbs));
        Ok(Self { ring, open_ring, form, store, hidden_rows })
    }

    /// Rows times the masked inputs of a batch, cut to the wanted coefficients: all that a server ever computes. The
    /// matrix is read once, whatever the batch.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] if an input's shape does not fit or there is none.
    pub fn apply(&self, batch: &[impl AsRef<[Poly<Ntt>]> + Sync]) -> Result<Vec<Answer>, OperatorError> {
        let (rows, images) = (self.rows(), batch.len());
        let prepared = self.store.prepare(&self.ring, batch)?;
        let mut answers = vec![Answer::empty(&self.form); images];
        // So many rows that their products are still in the cache when they are transformed back.
        let bytes = self.ring.limbs() * self.ring.degree() * 8 * images;
        let step = (PRODUCT_BYTES / bytes).clamp(1, rows);
        let mut products = Products::default();
        for first in (0..rows).step_by(step) {
            let part = first..rows.min(first + step);
            self.store.products_into(&self.ring, &prepared, part.clone(), &mut products)?;
            let row = |row, image| {
                let product = products.poly(&self.ring, row, image);
                let ring = if product.limbs() == self.ring.limbs() { &self.ring } else { &self.open_ring };
                ring.inverse(product)
            };
            Answer::fill(&mut answers, part, row);
        }
        Ok(answers)
    }

    /// The ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The form of its answers.
    pub fn form(&self) -> &AnswerForm {
        &self.form
    }

    /// Ring elements of a request.
    pub fn tiles(&self) -> usize {
        self.store.tiles()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.store.rows()
    }

    /// How many of them are hidden.
    pub fn hidden_rows(&self) -> usize {
        self.hidden_rows
    }
}

fn read_tile(r: &mut Reader<'_>, ring: &Ring) -> Result<Poly<Ntt>, OperatorError> {
    let terms = r.varint()?;
    let mut coefficients = vec![0i64; ring.degree()];
    let mut next = 0u64;
    for _ in 0..terms {
        let index = next.saturating_add(r.varint()?);
        let value = r.varint()?;
        let (Some(slot), Ok(value)) = (coefficients.get_mut(index as usize), u32::try_from(value)) else {
            return Err(r.malformed("a term lies outside the ring or is too large").into());
        };
        *slot = i64::from((value >> 1) as i32 ^ -((value & 1) as i32));
        next = index + 1;
    }
    Ok(ring.forward(ring.lift(&coefficients, 1 << 31)))
}
