//! Variants of the tuner's template: how a product is divided into tiles of blocks and threads.

use std::fmt;

use crate::error::DeviceError;
use crate::recipe::{Parameter, Recipe};
use crate::work::{Task, Work};

/// The source of the template. [`Tile::options`] sets its sizes.
pub const SOURCE: &str = include_str!("../kernels/gemm.cu");

/// Static shared memory of a block on every GPU, bytes (CUDA C++ Programming Guide, technical
/// specifications per compute capability; more needs an opt-in).
const MOST_SHARED: u32 = 48 << 10;
/// Threads of a block and 32-bit registers of an SM and of a thread (same source).
const MOST_THREADS: u32 = 1024;
const SM_REGISTERS: u32 = 64 << 10;
const MOST_REGISTERS: u32 = 255;
/// Registers of a thread besides its sums and operands, for addresses and counters. This is an
/// estimate: the compiler is told the threads per block and keeps within the limit, by spilling if it
/// must.
const OTHER_REGISTERS: u32 = 32;

/// A variant of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// Rows, columns and inner length of a block's tile.
    pub block: [u32; 3],
    /// Rows and columns of the block's tile that one thread sums.
    pub thread: [u32; 2],
}

const fn tile(block: [u32; 3], thread: [u32; 2]) -> Tile {
    Tile { block, thread }
}

/// The variants that are searched, all of them for every shape: from small tiles, which give many
/// blocks even for a few rows, to large tiles, which read each operand least often.
pub const TILES: [Tile; 16] = [
    tile([16, 16, 16], [1, 1]),
    tile([32, 32, 16], [2, 2]),
    tile([32, 32, 8], [4, 4]),
    tile([64, 32, 16], [4, 4]),
    tile([32, 64, 16], [4, 4]),
    tile([64, 64, 8], [4, 4]),
    tile([64, 64, 16], [4, 4]),
    tile([64, 64, 16], [8, 4]),
    tile([64, 64, 16], [8, 8]),
    tile([128, 32, 16], [8, 4]),
    tile([32, 128, 16], [4, 8]),
    tile([128, 64, 16], [8, 4]),
    tile([64, 128, 16], [4, 8]),
    tile([128, 64, 8], [8, 8]),
    tile([128, 128, 8], [8, 8]),
    tile([128, 128, 16], [8, 8]),
];

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([m, n, k], [tm, tn]) = (self.block, self.thread);
        write!(f, "{m}x{n}x{k}-{tm}x{tn}")
    }
}

impl Tile {
    /// Threads of a block.
    #[must_use]
    pub fn threads(&self) -> u32 {
        (self.block[0] / self.thread[0]) * (self.block[1] / self.thread[1])
    }

    /// Shared memory of a block, bytes.
    #[must_use]
    pub fn shared_bytes(&self) -> u32 {
        let [m, n, k] = self.block;
        4 * k * (m + 1 + n)
    }

    /// Whether a block fits on an SM by its threads, shared memory and registers.
    #[must_use]
    pub fn fits(&self) -> bool {
        let [tm, tn] = self.thread;
        let whole = self.block[0].is_multiple_of(tm) && self.block[1].is_multiple_of(tn);
        let registers = tm * tn + tm + tn + OTHER_REGISTERS;
        let threads = self.threads();
        whole
            && threads.is_multiple_of(32)
            && (32..=MOST_THREADS).contains(&threads)
            && self.shared_bytes() <= MOST_SHARED
            && registers <= MOST_REGISTERS
            && registers * threads <= SM_REGISTERS
    }

    /// The options for the compiler.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        let ([m, n, k], [tm, tn]) = (self.block, self.thread);
        let sizes =
            [("TILE_M", m), ("TILE_N", n), ("TILE_K", k), ("THREAD_M", tm), ("THREAD_N", tn)];
        sizes.iter().map(|(name, size)| format!("-D{name}={size}")).collect()
    }

    /// The launch of a product in these tiles.
    ///
    /// # Errors
    /// The work is not a product, or has more blocks than a grid can hold.
    pub fn recipe(&self, work: &Work) -> Result<Recipe, DeviceError> {
        let Task::Gemm { m, n, k, count } = work.task else {
            return Err(DeviceError::unsupported(&work.id, "only matrix products have tiles"));
        };
        let down = u64::from(m.div_ceil(self.block[0]));
        let blocks = down * u64::from(n.div_ceil(self.block[1])) * u64::from(count);
        let blocks = i32::try_from(blocks).map_err(|_| {
            DeviceError::unsupported(&work.id, format!("{blocks} blocks of {self}: too many"))
        })?;
        let size = |n: u32| Parameter::Number(u64::from(n));
        let operands = [Parameter::Input(0), Parameter::Input(1), Parameter::Output];
        Ok(Recipe {
            function: "gemm".to_owned(),
            blocks: blocks.unsigned_abs(),
            block: self.threads(),
            parameters: [operands, [size(m), size(n), size(k)]].concat(),
            scratch: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_profiles::lower::Precision;

    #[test]
    fn every_variant_fits_and_has_a_name_of_its_own() {
        assert!(TILES.iter().all(Tile::fits));
        let mut names: Vec<String> = TILES.iter().map(Tile::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), TILES.len());
    }

    #[test]
    fn what_does_not_fit_is_known() {
        assert!(!tile([128, 128, 64], [8, 8]).fits(), "shared memory");
        assert!(!tile([64, 64, 8], [1, 1]).fits(), "threads");
        assert!(!tile([256, 256, 8], [8, 16]).fits(), "registers of the SM");
        assert!(!tile([64, 64, 8], [16, 16]).fits(), "registers of a thread");
        assert!(!tile([60, 64, 8], [8, 8]).fits(), "threads do not cover the tile");
    }

    #[test]
    fn a_ragged_product_has_blocks_for_its_edges() {
        let work = Work::new(Task::Gemm { m: 65, n: 64, k: 3, count: 2 }, Precision::Fp32);
        let recipe = tile([64, 64, 8], [4, 4]).recipe(&work).unwrap();
        assert_eq!((recipe.blocks, recipe.block), (4, 256));
    }
}
