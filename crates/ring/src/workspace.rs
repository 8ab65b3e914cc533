//! Memory of earlier row products, used again.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

use crate::Ring;
use crate::aligned::AlignedWords;
use crate::backend::{Batch, GROUP, product_words};

/// Images that are computed together: their products of a group of rows are about what a
/// second-level cache keeps.
pub(crate) const IMAGES_TOGETHER: usize = 8;

/// Groups of [`IMAGES_TOGETHER`] that the matrix is read for. The inputs of more would fall out of
/// the caches between some rows and the next, and cost more than reading the matrix again (measured
/// with 4, 8, 16 and 64 images of vgg3).
pub(crate) const GROUPS_AT_ONCE: usize = 2;

/// Memory that is kept for later, in bytes: more belongs to batches of large networks, where
/// getting it costs little beside the work.
const KEPT_BYTES: usize = 32 << 20;

/// Memory of earlier products, used again: new memory would have to be cleared. It holds what
/// products and inputs left there: whoever multiplies secrets wipes it.
#[derive(Debug, Default)]
pub struct Workspace(Mutex<Memory>);

#[derive(Default)]
pub(crate) struct Memory {
    batches: Vec<Batch>,
    /// As many words as an element has, and products of a group of rows.
    scratch: Vec<AlignedWords>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory(withheld)")
    }
}

impl Memory {
    fn bytes(&self) -> usize {
        let batches = self.batches.iter().map(Batch::bytes).sum::<usize>();
        batches + self.scratch.iter().map(|s| 8 * s.capacity()).sum::<usize>()
    }
}

impl Workspace {
    /// Bytes that [`crate::RowStore::apply`] takes at most for rows of so many tiles and so many images,
    /// beside its results.
    pub fn bytes_needed(ring: &Ring, tiles: usize, images: usize) -> usize {
        let (limbs, element) = (ring.limbs(), 8 * ring.degree());
        let inputs = images.min(GROUPS_AT_ONCE * IMAGES_TOGETHER).saturating_mul(tiles).saturating_mul(limbs * element);
        let products = GROUP * images.min(IMAGES_TOGETHER) * 8 * product_words(ring.degree());
        inputs.saturating_add(rayon::current_num_threads() * (products + element))
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Zeroize for Workspace {
    fn zeroize(&mut self) {
        let Memory { batches, scratch } = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        batches.zeroize();
        scratch.zeroize();
    }
}

/// Something that a workspace keeps.
pub(crate) trait Kept: Default + Zeroize {
    fn of(memory: &mut Memory) -> &mut Vec<Self>;
    fn bytes(&self) -> usize;
}

impl Kept for Batch {
    fn of(memory: &mut Memory) -> &mut Vec<Self> {
        &mut memory.batches
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

impl Kept for AlignedWords {
    fn of(memory: &mut Memory) -> &mut Vec<Self> {
        &mut memory.scratch
    }

    fn bytes(&self) -> usize {
        8 * self.capacity()
    }
}

/// Memory of a workspace for as long as it is needed: given back if there is room for it, wiped
/// else.
pub(crate) struct Borrowed<'w, T: Kept> {
    workspace: &'w Workspace,
    pub(crate) item: T,
}

impl<'w, T: Kept> Borrowed<'w, T> {
    /// Something that was kept, or new.
    pub(crate) fn of(workspace: &'w Workspace) -> Self {
        let item = T::of(&mut workspace.memory()).pop().unwrap_or_default();
        Self { workspace, item }
    }
}

impl<T: Kept> Drop for Borrowed<'_, T> {
    fn drop(&mut self) {
        let mut memory = self.workspace.memory();
        match memory.bytes() + self.item.bytes() <= KEPT_BYTES {
            true => T::of(&mut memory).push(std::mem::take(&mut self.item)),
            false => self.item.zeroize(),
        }
    }
}
