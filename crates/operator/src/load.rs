//! A sealed model in the server's memory.

use std::io::{Read, Seek};
use std::ops::Range;
use std::sync::Arc;

use jali_bundle::{Bundle, BundleError, Kind, MAX_SECTION};
use jali_mask::AnswerForm;
use jali_ring::ring::{MAX_DEGREE, MAX_LIMBS, MIN_DEGREE, TABLE_BYTES};
use jali_ring::wire::{Reader, element_len, poly_len};
use jali_ring::{Backend, Modulus, Ntt, Poly, Ring, RowStore, WantedPattern, Workspace};

use crate::OperatorError;
use crate::encode::{OPERATORS, ROW_HIDDEN, ROW_OPEN, rows_section};

/// Most operators of one model.
pub const MAX_OPERATORS: usize = 4096;
/// Most rows of one operator.
const MAX_ROWS: usize = 1 << 20;
/// Most bytes of the section that describes all operators: 16 million rows.
const MAX_DESCRIPTIONS: u64 = 1 << 24;
/// One operator, ready to be applied.
#[derive(Debug)]
pub struct Operator {
    pub(crate) ring: Ring,
    pub(crate) form: Arc<AnswerForm>,
    pub(crate) store: RowStore,
    /// Blocks of equally many rows, each with tiles of its own.
    pub(crate) blocks: usize,
    hidden_rows: usize,
    pub(crate) a_seed: [u8; 32],
    /// Shared by a model's operators. All that it holds came from requests and is as public.
    pub(crate) workspace: Arc<Workspace>,
}

/// All that a server holds of a sealed model.
#[derive(Debug)]
pub struct ServerModel {
    id: [u8; 16],
    hash: [u8; 32],
    operators: Vec<Operator>,
}

impl ServerModel {
    /// Reads the bytes of a server's bundle. `max_memory` bounds the bytes that loading may take.
    ///
    /// # Errors
    /// [`OperatorError`] as for [`ServerModel::read`].
    pub fn load(bytes: &[u8], backend: Backend, max_memory: usize) -> Result<Self, OperatorError> {
        Self::read(std::io::Cursor::new(bytes), backend, max_memory)
    }

    /// Reads a server's bundle section by section, so that little more than the matrices is in
    /// memory at any time. `max_memory` bounds the bytes that loading may take, whatever the bundle
    /// claims.
    ///
    /// # Errors
    /// [`OperatorError::Bundle`] for foreign or damaged bytes, [`OperatorError::Memory`] beyond the
    /// limit, [`OperatorError::Ring`] for bytes that do not decode.
    pub fn read(source: impl Read + Seek, backend: Backend, max_memory: usize) -> Result<Self, OperatorError> {
        let mut bundle = Bundle::open(source, Kind::Server)?;
        let (descriptions, hash) = (Description::read_all(&mut bundle)?, bundle.content_hash());
        let (mut operators, mut used) = (Vec::with_capacity(descriptions.len()), 0usize);
        let workspace = Arc::new(Workspace::default());
        for (index, description) in descriptions.into_iter().enumerate() {
            let operator = Operator::read(description, &operators, &mut bundle, (backend, &workspace), |more| {
                let needed = used.saturating_add(more);
                if needed > max_memory {
                    return Err(OperatorError::Memory { index, needed, limit: max_memory });
                }
                used = needed;
                Ok(())
            })?;
            operators.push(operator);
        }
        at_end(&bundle)?;
        Ok(Self { id: bundle.model(), hash, operators })
    }

    /// Returns the public id of the sealed model, 16 bytes.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Returns the content hash of the bundle that it was read from, 32 bytes.
    pub fn content_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Returns the operators, in the order of the network's linear layers.
    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    /// Returns the bytes of memory that all matrices take.
    pub fn memory(&self) -> usize {
        self.operators.iter().map(|o| o.store.bytes()).sum()
    }

    /// Reads all matrices and computes nothing, on all threads of the pool; returns a value that
    /// depends on them. For benchmarks: no inference can be faster.
    pub fn read_all(&self) -> u64 {
        self.operators.iter().fold(0, |all, o| all ^ o.ring.backend().read(o.store.memory()))
    }
}

fn at_end<R: Read + Seek>(bundle: &Bundle<R>) -> Result<(), OperatorError> {
    match bundle.peek() {
        None => Ok(()),
        Some(section) => {
            let why = "no section was expected here".into();
            Err(BundleError::Section { section: section.name.clone(), why }.into())
        }
    }
}

/// A bundle's description of an operator, which comes before its rows.
struct Description {
    degree: usize,
    prime_bits: Vec<u32>,
    open_primes: usize,
    tiles: usize,
    blocks: usize,
    wanted: WantedPattern,
    a_seed: [u8; 32],
    kinds: Vec<u8>,
}

/// A summary of what a server's bundle says about one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSummary {
    /// Ring degree `N`.
    pub degree: usize,
    /// Size of every prime, in bits.
    pub prime_bits: Vec<u32>,
    /// Tiles of a row.
    pub tiles: usize,
    /// Blocks of equally many rows, each with tiles of its own.
    pub blocks: usize,
    /// Wanted coefficients of a row.
    pub wanted: usize,
    /// Hidden rows.
    pub hidden_rows: usize,
    /// Open rows.
    pub open_rows: usize,
    /// Bytes of all hidden rows.
    pub hidden_bytes: u64,
    /// Bytes of all open rows.
    pub open_bytes: u64,
}

impl OperatorSummary {
    /// Summarises every operator of a bundle from its table and first section; no row is read.
    ///
    /// # Errors
    /// [`OperatorError::Bundle`] or [`OperatorError::Ring`] for bytes that are no server's bundle.
    pub fn read_all<R: Read + Seek>(bundle: &mut Bundle<R>) -> Result<Vec<Self>, OperatorError> {
        let descriptions = Description::read_all(bundle)?;
        let section_of = |name: &str| name.strip_prefix("rows ")?.split(' ').next()?.parse::<usize>().ok();
        let mut bytes = vec![0u64; descriptions.len()];
        for section in bundle.sections() {
            if let Some(all) = section_of(&section.name).and_then(|index| bytes.get_mut(index)) {
                *all = all.saturating_add(section.len);
            }
        }
        let summary = |(d, bytes): (Description, u64)| {
            let hidden_rows = d.kinds.iter().filter(|&&kind| kind == ROW_HIDDEN).count();
            let element = element_len(d.degree, d.prime_bits.iter().copied());
            let hidden_bytes = (hidden_rows * d.tiles * element) as u64;
            Self {
                degree: d.degree,
                tiles: d.tiles,
                blocks: d.blocks,
                wanted: d.wanted.count(),
                hidden_rows,
                open_rows: d.kinds.len() - hidden_rows,
                hidden_bytes,
                open_bytes: bytes.saturating_sub(hidden_bytes),
                prime_bits: d.prime_bits,
            }
        };
        Ok(descriptions.into_iter().zip(bytes).map(summary).collect())
    }
}

impl Description {
    /// Reads the section that describes all operators.
    fn read_all<R: Read + Seek>(bundle: &mut Bundle<R>) -> Result<Vec<Self>, OperatorError> {
        let bytes = bundle.expect(OPERATORS, MAX_DESCRIPTIONS)?;
        let mut r = Reader::new(&bytes);
        let read = |r: &mut Reader<'_>| -> Result<Vec<Self>, OperatorError> {
            let count = r.count(MAX_OPERATORS, "operators")?;
            (0..count).map(|_| Self::read(r)).collect()
        };
        let named = |e: OperatorError| BundleError::Section { section: OPERATORS.into(), why: e.to_string() };
        let descriptions = read(&mut r).map_err(named)?;
        r.finish()?;
        Ok(descriptions)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, OperatorError> {
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
        let blocks = r.count(MAX_ROWS, "blocks")?;
        let rows = r.count(MAX_ROWS, "rows")?;
        if blocks == 0 || !rows.is_multiple_of(blocks) {
            return Err(r.malformed("rows of equal blocks").into());
        }
        if !degree.is_power_of_two() || !(MIN_DEGREE..=MAX_DEGREE).contains(&degree) || rows == 0 || tiles == 0 {
            return Err(r.malformed("shape of an operator").into());
        }
        let wanted = WantedPattern::decode(r, degree)?;
        let a_seed = r.array()?;
        let kinds = r.raw(rows)?.to_vec();
        if !kinds.iter().all(|kind| [ROW_HIDDEN, ROW_OPEN].contains(kind)) {
            return Err(r.malformed("kind of a row").into());
        }
        Ok(Self { degree, prime_bits, open_primes, tiles, blocks, wanted, a_seed, kinds })
    }
}

impl Operator {
    /// Reads the rows of the operator that `description` describes from the next sections of
    /// `bundle`. `earlier` are the model's operators before it, whose ring it may share. `claim` is
    /// called with bytes of memory before they are taken, and may refuse them; results are computed
    /// by the backend, in the memory of the workspace.
    fn read<R: Read + Seek>(
        description: Description,
        earlier: &[Self],
        bundle: &mut Bundle<R>,
        (backend, workspace): (Backend, &Arc<Workspace>),
        mut claim: impl FnMut(usize) -> Result<(), OperatorError>,
    ) -> Result<Self, OperatorError> {
        let Description { degree, prime_bits, open_primes, tiles, blocks, wanted, a_seed, kinds } = description;
        let (index, limbs) = (earlier.len(), prime_bits.len());
        // The tables of roots are needed to know the sizes of the primes; they and the matrix are
        // claimed before the matrix is built.
        claim(limbs.saturating_mul(TABLE_BYTES * degree) + degree * 8)?;
        claim(wanted.memory(degree))?;
        // Operators of the same ring share its tables.
        let same = |o: &&Self| {
            o.ring.degree() == degree && o.ring.moduli().iter().map(Modulus::bits).eq(prime_bits.iter().copied())
        };
        let ring = match earlier.iter().find(same) {
            Some(operator) => operator.ring.leading(limbs),
            None => Ring::with_backend(degree, &prime_bits, backend)?,
        };
        let row_limbs: Vec<usize> =
            kinds.iter().map(|&kind| if kind == ROW_OPEN { open_primes } else { limbs }).collect();
        // A bundle must hold at least the bytes of its hidden rows, and a byte for each tile of an
        // open row.
        let hidden_rows = kinds.iter().filter(|&&kind| kind == ROW_HIDDEN).count();
        let least = hidden_rows.saturating_mul(poly_len(&ring)).saturating_add(kinds.len() - hidden_rows);
        let mine = format!("rows {index} ");
        let there = bundle.sections().iter().filter(|s| s.name.starts_with(&mine));
        if there.fold(0u64, |sum, s| sum.saturating_add(s.len)) < least.saturating_mul(tiles) as u64 {
            return Err(BundleError::Section { section: mine, why: "its rows are too short".into() }.into());
        }
        claim(RowStore::bytes_needed(&ring, &row_limbs, tiles))?;
        let open_ring = ring.leading(open_primes);
        let mut store = RowStore::new(&ring, &row_limbs, tiles)?;
        let mut row = 0;
        while row < kinds.len() {
            let (name, first) = (rows_section(index, row), row);
            let bytes = bundle.expect(&name, MAX_SECTION)?;
            let mut r = Reader::new(&bytes);
            let mut read = || -> Result<(), OperatorError> {
                // At least one row, then as many as the section holds.
                while row < kinds.len() && (row == first || r.remaining() > 0) {
                    if kinds[row] == ROW_OPEN {
                        for i in 0..tiles {
                            store.set(row, i, &read_tile(&mut r, &open_ring)?);
                        }
                    } else {
                        let polys = r.polys(&ring, tiles)?;
                        polys.iter().enumerate().for_each(|(i, w)| store.set(row, i, w));
                    }
                    row += 1;
                }
                Ok(r.clone().finish()?)
            };
            read().map_err(|e| BundleError::Section { section: name, why: e.to_string() })?;
        }
        let form = Arc::new(AnswerForm::new(wanted.expand(degree)?, row_limbs));
        Ok(Self { ring, form, store, blocks, hidden_rows, a_seed, workspace: workspace.clone() })
    }

    /// Returns which rows a block has.
    pub(crate) fn block_rows(&self, block: usize) -> Range<usize> {
        let rows = self.rows() / self.blocks;
        block * rows..(block + 1) * rows
    }

    /// Returns which tiles of an input a block has.
    pub(crate) fn block_tiles(&self, block: usize) -> Range<usize> {
        let tiles = self.store.tiles();
        block * tiles..(block + 1) * tiles
    }

    /// Returns the ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Returns the form of the operator's answers.
    pub fn form(&self) -> &AnswerForm {
        &self.form
    }

    /// Returns the tiles of an input, all blocks together.
    pub fn tiles(&self) -> usize {
        self.blocks * self.store.tiles()
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.store.rows()
    }

    /// Returns how many rows are hidden.
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
