//! A sealed model in the server's memory.

use jali_mask::{Answer, Wanted};
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
    wanted: Wanted,
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
        let tiles = r.count(jali_ring::modulus::MAX_LAZY_PRODUCTS, "tiles of a row")?;
        let rows = r.count(MAX_ROWS, "rows")?;
        if !degree.is_power_of_two() || !(MIN_DEGREE..=MAX_DEGREE).contains(&degree) || rows == 0 || tiles == 0 {
            return Err(r.malformed("shape of an operator").into());
        }
        // The tables of roots are needed to know the sizes of the primes; they and the matrix are claimed before the
        // matrix is built.
        claim(limbs.saturating_mul(TABLE_BYTES * degree) + degree * 8)?;
        let ring = Ring::with_kernel(degree, &prime_bits, kernel)?;
        claim(RowStore::bytes_needed(&ring, rows, tiles))?;
        let wanted = Wanted::decode(r, &ring)?;
        // A row takes at least its kind and, open, one byte per tile: refuse before asking for memory.
        if r.remaining() < rows.saturating_mul(tiles + 1) {
            return Err(r.malformed("the data ends too early").into());
        }
        let mut store = RowStore::new(&ring, rows, tiles)?;
        let mut hidden_rows = 0;
        for row in 0..rows {
            match r.u8()? {
                ROW_HIDDEN => {
                    hidden_rows += 1;
                    if r.remaining() < poly_len(&ring).saturating_mul(tiles) {
                        return Err(r.malformed("the data ends too early").into());
                    }
                    for i in 0..tiles {
                        store.set(row, i, &r.poly(&ring)?);
                    }
                }
                ROW_OPEN => {
                    for i in 0..tiles {
                        store.set(row, i, &read_tile(r, &ring)?);
                    }
                }
                _ => return Err(r.malformed("kind of a row").into()),
            }
        }
        Ok(Self { ring, wanted, store, hidden_rows })
    }

    /// Rows times the masked inputs of a batch, cut to the wanted coefficients: all that a server ever computes. The
    /// matrix is read once, whatever the batch.
    ///
    /// # Errors
    /// [`OperatorError::Ring`] if an input's shape does not fit or there is none.
    pub fn apply(&self, batch: &[impl AsRef<[Poly<Ntt>]> + Sync]) -> Result<Vec<Answer>, OperatorError> {
        let (rows, images) = (self.rows(), batch.len());
        let prepared = self.store.prepare(&self.ring, batch)?;
        let mut answers = vec![Answer::empty(&self.ring, &self.wanted, rows); images];
        // So many rows that their products are still in the cache when they are transformed back.
        let bytes = self.ring.limbs() * self.ring.degree() * 8 * images;
        let step = (PRODUCT_BYTES / bytes).clamp(1, rows);
        let mut products = Products::default();
        for first in (0..rows).step_by(step) {
            let part = first..rows.min(first + step);
            self.store.products_into(&self.ring, &prepared, part.clone(), &mut products)?;
            let row = |row, image| self.ring.inverse(products.poly(&self.ring, row, image));
            Answer::fill(&mut answers, &self.ring, &self.wanted, part, row);
        }
        Ok(answers)
    }

    /// The ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Coefficients of an answer.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
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
