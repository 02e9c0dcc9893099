//! Kernels, launches, models and the profile that holds them.

use std::collections::BTreeMap;
use std::fmt;

use crate::curve::Curve;
use crate::units::{Bytes, Nanos};

/// What a kernel does, as far as modelling and coalescing need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the variants are the field's own names
pub enum Op {
    Gemm,
    BatchedGemm,
    Conv,
    DepthwiseConv,
    Norm,
    Activation,
    Elementwise,
    Pool,
    Softmax,
    Attention,
    Embedding,
    Concat,
    Reduce,
    Copy,
    /// A whole model behind one pair of numbers: many small kernels, sharing fairly.
    Pseudo,
    Other,
}

impl Op {
    /// Every operation, with the name that files use.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::Gemm, "gemm"),
        (Self::BatchedGemm, "batched-gemm"),
        (Self::Conv, "conv"),
        (Self::DepthwiseConv, "depthwise-conv"),
        (Self::Norm, "norm"),
        (Self::Activation, "activation"),
        (Self::Elementwise, "elementwise"),
        (Self::Pool, "pool"),
        (Self::Softmax, "softmax"),
        (Self::Attention, "attention"),
        (Self::Embedding, "embedding"),
        (Self::Concat, "concat"),
        (Self::Reduce, "reduce"),
        (Self::Copy, "copy"),
        (Self::Pseudo, "pseudo"),
        (Self::Other, "other"),
    ];

    /// The name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).expect("ALL lists every operation").1
    }

    /// The operation of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(op, _)| *op)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One distinct kernel: a function at one launch configuration and one problem size.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Identifier within its profile, unique; the key of every file.
    pub id: String,
    /// The function's name, as the framework or the library calls it.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Thread blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: u32,
    /// Registers per thread; 0 if unknown.
    pub regs: u32,
    /// Shared memory per block, bytes.
    pub smem_bytes: u32,
    /// Blocks that fit on one CU at once.
    pub blocks_per_cu: u32,
    /// Floating-point operations of one launch; 0 if unknown.
    pub flops: u64,
    /// Bytes to and from DRAM of one launch; 0 if unknown.
    pub dram_bytes: u64,
    /// Isolated duration against CUs.
    pub curve: Curve,
}

impl Kernel {
    /// Thread blocks in all.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).product()
    }

    /// Its thread blocks where they are known: not of a whole model behind one number.
    #[must_use]
    pub fn geometry(&self) -> Option<u64> {
        Some(self.blocks()).filter(|&blocks| blocks > 0 && self.op != Op::Pseudo)
    }

    /// Isolated duration on `cus` CUs, ns: see [`Curve::of_blocks`].
    #[must_use]
    pub fn at(&self, cus: u32) -> u64 {
        self.curve.of_blocks(cus, self.geometry())
    }

    /// Durations for every count: entry `c` is the duration on `c` CUs, entry 0 is `u64::MAX`.
    #[must_use]
    pub fn dense(&self, cus: u32) -> Vec<u64> {
        std::iter::once(u64::MAX).chain((1..=cus).map(|c| self.at(c))).collect()
    }

    /// The fewest CUs whose duration is at most `(1 + tolerance)` times that on all `cus`; never
    /// more than the kernel has blocks.
    #[must_use]
    pub fn min_cu(&self, cus: u32, tolerance: f64) -> u32 {
        let limit = self.at(cus) as f64 * (1.0 + tolerance);
        let least = (1..=cus).find(|&c| self.at(c) as f64 <= limit).unwrap_or(cus);
        self.geometry().map_or(least, |blocks| u64::from(least).min(blocks) as u32)
    }

    /// CUs that its blocks fill at full occupancy, at least 1: more CUs than this stay idle.
    #[must_use]
    pub fn cus_wanted(&self) -> u64 {
        self.blocks().div_ceil(u64::from(self.blocks_per_cu.max(1))).max(1)
    }
}

/// One kernel launch of a model, in stream order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Index into [`Profile::kernels`].
    pub kernel: usize,
    /// Host time to issue it.
    pub host: Nanos,
}

/// A model on one device: what one inference launches, and what it needs besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The zoo's or the importer's name.
    pub name: String,
    /// Device memory for the parameters.
    pub weights: Bytes,
    /// Device memory for activations, per item of a batch.
    pub activations_per_item: Bytes,
    /// Bytes copied to the device, per item.
    pub input_per_item: Bytes,
    /// Bytes copied back, per item.
    pub output_per_item: Bytes,
    /// Process start to ready, weights loaded, without the process start itself.
    pub load: Nanos,
    /// Host work per request before its first launch (decode, pre-processing).
    pub host_per_request: Nanos,
    /// Launches in stream order, for each batch size profiled.
    pub batches: BTreeMap<u32, Vec<Launch>>,
}

/// Where a profile's numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Measured by this tool on a real GPU.
    Measured,
    /// Computed from layer shapes.
    Analytic,
    /// Read from another tool's measurement.
    #[default]
    Imported,
}

impl Source {
    /// The name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Analytic => "analytic",
            Self::Imported => "imported",
        }
    }

    /// The source of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Measured, Self::Analytic, Self::Imported].into_iter().find(|s| s.name() == name)
    }
}

/// One measured pair of kernels on disjoint CUs.
#[derive(Clone, Debug, PartialEq)]
pub struct CoRun {
    /// Index of the first kernel in [`Profile::kernels`], and its CUs.
    pub a: (usize, u32),
    /// Index of the second kernel, and its CUs.
    pub b: (usize, u32),
    /// Duration of the first beside the second, ns.
    pub duration_a_ns: u64,
    /// Duration of the second beside the first, ns.
    pub duration_b_ns: u64,
    /// Samples behind the pair.
    pub samples: u32,
}

/// Everything known of some models on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Device name.
    pub device: String,
    /// Where the numbers come from.
    pub source: Source,
    /// Provenance: tool, version, driver, clocks, framework, precision, date, licence…
    pub provenance: BTreeMap<String, String>,
    /// Distinct kernels.
    pub kernels: Vec<Kernel>,
    /// Models by name.
    pub models: BTreeMap<String, Model>,
    /// Measured pairs.
    pub corun: Vec<CoRun>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::Point;

    fn kernel(op: Op, blocks: u32, points: &[(u32, u64)]) -> Kernel {
        let points = points.iter().map(|&(c, d)| Point::exact(c, d)).collect();
        Kernel {
            id: "k".to_owned(),
            name: "k".to_owned(),
            op,
            grid: [blocks, 1, 1],
            block: 256,
            regs: 0,
            smem_bytes: 0,
            blocks_per_cu: 1,
            flops: 0,
            dram_bytes: 0,
            curve: Curve::new(points).unwrap(),
        }
    }

    #[test]
    fn min_cu_is_never_more_than_the_blocks() {
        assert_eq!(kernel(Op::Other, 8, &[(66, 1000), (132, 1000)]).min_cu(132, 0.05), 8);
        // Noise among points that are all the same to eight blocks.
        let noisy = kernel(Op::Other, 8, &[(8, 1100), (66, 1000), (132, 1000)]);
        assert_eq!(noisy.min_cu(132, 0.05), 8);
        // What is not a kernel has no blocks.
        assert_eq!(kernel(Op::Pseudo, 8, &[(66, 1000), (132, 900)]).min_cu(132, 0.05), 91);
    }
}
