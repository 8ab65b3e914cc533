//! Memory of earlier row products, used again.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

use crate::Ring;
use crate::aligned::AlignedWords;
use crate::backend::{Batch, GROUP, product_words};

/// Images that are multiplied together: their products with one group of rows just about fit a
/// second-level cache.
pub(crate) const IMAGES_TOGETHER: usize = 8;

/// Groups of [`IMAGES_TOGETHER`] images that share one reading of the matrix. The inputs of more
/// groups would fall out of the caches from one part of the rows to the next, which costs more than
/// reading the matrix again (measured with 4, 8, 16 and 64 images of vgg3).
pub(crate) const GROUPS_AT_ONCE: usize = 2;

/// Most bytes of memory that are kept for later. Only batches of large networks take more, and
/// there getting memory anew costs little beside the work.
const KEPT_BYTES: usize = 32 << 20;

/// Memory of earlier row products, kept because new memory would have to be cleared. It still holds
/// what inputs and products left there, so whoever multiplies secrets has to wipe it.
#[derive(Debug, Default)]
pub struct Workspace(Mutex<Memory>);

#[derive(Default)]
pub(crate) struct Memory {
    batches: Vec<Batch>,
    /// Each has words for one limb of an element and for the products of a group of rows.
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
    /// Returns the bytes that [`crate::RowStore::apply`] takes at most, beside its results, for
    /// rows of `tiles` tiles and for `images` images.
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

/// A kind of memory that a workspace keeps.
pub(crate) trait Kept: Default + Zeroize {
    /// Returns the list in which a workspace keeps this kind.
    fn of(memory: &mut Memory) -> &mut Vec<Self>;
    /// Returns the bytes of memory held.
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

/// Memory borrowed from a workspace. On drop it goes back if the workspace has room for it, and is
/// wiped if not.
pub(crate) struct Borrowed<'w, T: Kept> {
    workspace: &'w Workspace,
    pub(crate) item: T,
}

impl<'w, T: Kept> Borrowed<'w, T> {
    /// Takes an item that the workspace has kept, or makes a new one.
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
