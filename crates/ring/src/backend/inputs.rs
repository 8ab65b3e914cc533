//! Inputs of rows: where they come from, and the order in which rows read them.

use std::ops::Range;

use rayon::prelude::*;
use zeroize::Zeroize;

use super::lanes::Lanes;
use super::{BLOCK, Backend, Job};
use crate::aligned::AlignedWords;
use crate::wire::{Reader, packed_len, poly_len};
use crate::{Ntt, Poly, Ring, RingError};

/// Inputs of a batch, each of as many ring elements as a row has tiles.
#[derive(Clone, Copy)]
pub enum Inputs<'a> {
    /// Ring elements.
    Elements(&'a [Vec<&'a Poly<Ntt>>]),
    /// Elements as [`Writer::polys`](crate::wire::Writer::polys) packs them.
    Packed(&'a [&'a [u8]]),
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inputs<{} images, content withheld>", self.images())
    }
}

impl Inputs<'_> {
    /// Returns the number of images.
    pub fn images(&self) -> usize {
        match self {
            Self::Elements(batch) => batch.len(),
            Self::Packed(batch) => batch.len(),
        }
    }

    /// Returns the inputs of some of the images.
    pub(crate) fn some(&self, images: Range<usize>) -> Self {
        match self {
            Self::Elements(batch) => Self::Elements(&batch[images]),
            Self::Packed(batch) => Self::Packed(&batch[images]),
        }
    }

    /// # Errors
    /// [`RingError::Length`] unless there is an input and all have the shape that rows of `tiles`
    /// tiles take.
    fn check(&self, ring: &Ring, tiles: usize) -> Result<(), RingError> {
        let unfit = |x: &&Vec<&Poly<Ntt>>| x.len() != tiles || !x.iter().all(|p| ring.holds(p));
        let bytes = tiles * poly_len(ring);
        match self {
            _ if self.images() == 0 => Err(RingError::Length { what: "images of a batch", expected: 1, got: 0 }),
            Self::Elements(batch) => batch.iter().find(unfit).map_or(Ok(()), |x| {
                Err(RingError::Length { what: "tiles of the input", expected: tiles, got: x.len() })
            }),
            Self::Packed(batch) => batch.iter().find(|x| x.len() != bytes).map_or(Ok(()), |x| {
                Err(RingError::Length { what: "bytes of the input", expected: bytes, got: x.len() })
            }),
        }
    }
}

/// Inputs whose shape has been checked.
pub(super) struct Source<'a> {
    inputs: Inputs<'a>,
    ring: &'a Ring,
    tiles: usize,
    /// Where every limb begins in a packed element.
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    /// # Errors
    /// [`RingError::Length`] for no inputs, or inputs of another shape than rows of `tiles` tiles
    /// take.
    pub(super) fn new(ring: &'a Ring, inputs: Inputs<'a>, tiles: usize) -> Result<Self, RingError> {
        inputs.check(ring, tiles)?;
        let starts = ring.moduli().iter().scan(0, |end, m| {
            let start = *end;
            *end += packed_len(m, ring.degree());
            Some(start)
        });
        Ok(Self { inputs, ring, tiles, starts: starts.collect() })
    }

    /// Returns as many residues as the buffer has of one limb of one tile, from value `first` on:
    /// where they lie if they are ring elements, or else unpacked into the buffer.
    #[inline(always)]
    fn residues<'b>(
        &'b self,
        (image, tile, limb, first): (usize, usize, usize, usize),
        buffer: &'b mut Residues,
    ) -> Result<&'b [u64], RingError> {
        match self.inputs {
            Inputs::Elements(batch) => Ok(&batch[image][tile].limb(limb)[first..][..buffer.len()]),
            Inputs::Packed(batch) => {
                let m = &self.ring.moduli()[limb];
                // So many residues fill whole bytes.
                let offset = tile * poly_len(self.ring) + self.starts[limb] + packed_len(m, first);
                let bytes = &batch[image][offset..][..packed_len(m, buffer.len())];
                Reader::new(bytes).residues(self.ring.backend(), m, buffer).map_err(|e| e.moved(offset))?;
                Ok(buffer)
            }
        }
    }

    /// Puts [`PREPARED`] blocks of one limb into order, from block `first` on, for all inputs.
    fn arrange(&self, limb: usize, first: usize, out: &mut [u64]) -> Result<(), RingError> {
        self.ring.backend().run(Arrange { source: self, limb, first: first * BLOCK, out })
    }
}

/// The inputs of a batch in the form that a backend's lanes load, `[limb][block][group of
/// lanes][tile][image][lanes]`.
pub struct Batch {
    images: usize,
    /// The backend whose form the words have.
    pub(super) backend: Backend,
    pub(super) words: AlignedWords,
}

impl Batch {
    /// Returns the number of images.
    pub(crate) fn images(&self) -> usize {
        self.images
    }

    /// Returns the bytes of memory held.
    pub fn bytes(&self) -> usize {
        8 * self.words.capacity()
    }

    /// Puts inputs into order, in the memory of those that were here before.
    pub(super) fn fill(&mut self, source: &Source<'_>) -> Result<(), RingError> {
        let (ring, images) = (source.ring, source.inputs.images());
        let words = PREPARED * source.tiles * images * BLOCK;
        (self.images, self.backend) = (images, ring.backend());
        let parts = ring.degree() / BLOCK / PREPARED;
        self.words.resize(ring.limbs() * parts * words);
        let outs = self.words.par_chunks_exact_mut(words).with_min_len((16_384 / words).max(1)).enumerate();
        outs.try_for_each(|(index, out)| source.arrange(index / parts, index % parts * PREPARED, out))
    }
}

/// Makes a batch of no images: memory to prepare into.
impl Default for Batch {
    fn default() -> Self {
        Self { images: 0, backend: Backend::PORTABLE, words: AlignedWords::default() }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch<{} images, content withheld>", self.images)
    }
}

impl Zeroize for Batch {
    fn zeroize(&mut self) {
        self.words.zeroize();
    }
}

/// Blocks that are put into order together, which saves jumps from element to element.
const PREPARED: usize = 4;

/// Residues of [`PREPARED`] blocks.
type Residues = [u64; PREPARED * BLOCK];

/// Puts [`PREPARED`] blocks of one limb of all inputs into the order of a [`Batch`].
struct Arrange<'a> {
    source: &'a Source<'a>,
    limb: usize,
    /// The first coefficient.
    first: usize,
    out: &'a mut [u64],
}

impl Job for Arrange<'_> {
    type Out = Result<(), RingError>;

    #[inline(always)]
    fn run<V: Lanes>(self) -> Self::Out {
        let (images, tiles) = (self.source.inputs.images(), self.source.tiles);
        let out = V::split_mut(self.out);
        let mut buffer = [0; PREPARED * BLOCK];
        for image in 0..images {
            for tile in 0..tiles {
                let words = self.source.residues((image, tile, self.limb, self.first), &mut buffer)?;
                // Groups of one block after those of the block before: `g` counts through all of
                // them.
                for (g, words) in V::split(words).iter().enumerate() {
                    V::enter(words).store(&mut out[(g * tiles + tile) * images + image]);
                }
            }
        }
        Ok(())
    }
}
