//! Models compiled for the event loop: dense curves, launch sequences, host times.

use std::collections::BTreeMap;
use std::sync::Arc;

use cotenant_profiles::device::Costs;
use cotenant_profiles::{Bytes, Device, Drawn, Kernel, Model, Nanos, Op, Profile};

use crate::contention::Pairs;

mod generate;
mod steps;

pub use generate::{StepLimits, as_batches};
pub use steps::{Follows, Grid, HostTimes, Shape, StepCode, Table};

/// One distinct kernel, ready for the event loop.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelCode {
    /// Its identifier in the profile.
    pub id: String,
    /// The function's name: what a runtime sees at launch, in addition to the grid.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Isolated duration in ns, by number of CUs up to the device's. Entry 0 is never used.
    pub duration_ns: Box<[u64]>,
    /// The CUs that it occupies when it is alone, at most the device's.
    pub want: u32,
    /// Thread blocks.
    pub blocks: u64,
    /// Threads of one block.
    pub threads: u32,
    /// Blocks resident on one CU at once.
    pub blocks_per_cu: u32,
    /// Floating-point operations; 0 if unknown.
    pub flops: u64,
    /// Bytes to and from DRAM.
    pub dram_bytes: u64,
    /// A pseudo-kernel that stands for a whole model: it shares CUs fairly, instead of leaving to others
    /// the CUs that it does not occupy.
    pub fair: bool,
    /// The resources that a block takes on a CU in addition to its threads.
    pub tile: Tile,
    /// Its measured use of memory system and power, in ascending order of CUs.
    pub drawn: Vec<Drawn>,
}

/// The resource that limits a kernel's speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelClass {
    /// Arithmetic.
    Compute,
    /// DRAM bandwidth.
    Memory,
    /// Neither its operations nor its bytes are known, or only one is known and stays far below the
    /// device's rate.
    Unknown,
}

/// Registers and shared memory. Together with the function's name and its number of threads they
/// distinguish two builds of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    /// Registers per thread; 0 if unknown.
    pub regs: u32,
    /// Shared memory per block, bytes.
    pub smem_bytes: u32,
}

impl KernelCode {
    /// A profile's kernel on a device of `cus` CUs.
    #[must_use]
    pub fn new(kernel: &Kernel, cus: u32) -> Self {
        let packed = kernel.cus_wanted().min(u64::from(cus)) as u32;
        let mut code = Self {
            id: kernel.id.clone(),
            name: kernel.name.clone(),
            op: kernel.op,
            duration_ns: kernel.dense(cus).into_boxed_slice(),
            want: packed,
            blocks: kernel.blocks(),
            threads: kernel.block,
            blocks_per_cu: kernel.blocks_per_cu.max(1),
            flops: kernel.flops,
            dram_bytes: kernel.dram_bytes,
            fair: kernel.op == Op::Pseudo,
            tile: Tile { regs: kernel.regs, smem_bytes: kernel.smem_bytes },
            drawn: kernel.curve.drawn().to_vec(),
        };
        code.drawn.retain(|d| (1..=cus).contains(&d.cus));
        // Dispatchers spread blocks over CUs before they stack them, and spread blocks run faster. A kernel
        // that runs alone takes its whole-device time, and needs this many CUs to reach it.
        let spread = code.blocks.min(u64::from(cus)) as u32;
        code.want = packed.max(spread.min(code.min_cu(0.0)));
        code
    }

    /// Merges several kernels into one launch: their blocks fill the CUs together, in common waves. The
    /// host cost of the call is not included.
    #[must_use]
    pub fn merged(parts: &[&Self], device: &Device, costs: &Costs) -> Self {
        let full = parts[0].duration_ns.len() as u32 - 1;
        let blocks: u64 = parts.iter().map(|k| k.blocks).sum();
        let per_cu = parts.iter().map(|k| k.blocks_per_cu).min().unwrap_or(1);
        let at = |c: u32| Self::merged_ns(parts.iter().copied(), c, device, costs);
        Self {
            id: format!("{}×{}", parts.len(), parts[0].id),
            name: parts[0].name.clone(),
            op: parts[0].op,
            duration_ns: std::iter::once(u64::MAX).chain((1..=full).map(at)).collect(),
            want: blocks.min(u64::from(full)) as u32,
            blocks,
            threads: parts[0].threads,
            blocks_per_cu: per_cu,
            flops: parts.iter().map(|k| k.flops).sum(),
            dram_bytes: parts.iter().map(|k| k.dram_bytes).sum(),
            fair: false,
            tile: parts[0].tile,
            drawn: drawn_together(parts, full, at(full), device).into_iter().collect(),
        }
    }

    /// Duration of these kernels as one launch on `cus` CUs, ns.
    ///
    /// The busiest CU hosts `ceil(blocks / cus)` blocks. The slowest part decides how long that many take,
    /// and bandwidth sets a floor. Where one block fills a CU, this is `wave × ceil(blocks / cus)`, the
    /// staircase of batched GEMMs (Jain et al. 2018, figure 7), whose period is the GPU's CUs divided by
    /// the blocks of one GEMM. `merge_wave_percent` accounts for two facts: a merged kernel is a different
    /// build than its parts, and a full GPU clocks lower than an empty one.
    #[must_use]
    pub fn merged_ns<'a>(
        parts: impl Iterator<Item = &'a Self> + Clone,
        cus: u32,
        device: &Device,
        costs: &Costs,
    ) -> u64 {
        let blocks: u64 = parts.clone().map(|k| k.blocks).sum();
        let bytes: u64 = parts.clone().map(|k| k.dram_bytes).sum();
        let load = blocks.div_ceil(u64::from(cus));
        let mut last: Option<&Self> = None;
        let mut wave = 0;
        for k in parts {
            // Usually all parts are the same kernel.
            if last.is_none_or(|l| !std::ptr::eq(l, k)) {
                wave = wave.max(k.at_load(load));
            }
            last = Some(k);
        }
        let floor = bytes as f64 / (device.memory.dram_gbps * device.analytic.dram_efficiency);
        (wave * u64::from(costs.merge_wave_percent) / 100).max(floor as u64)
    }

    /// How long a CU takes for `n` of this kernel's blocks while all other CUs do the same, ns: full waves
    /// of as many blocks as fit, and one wave of the remainder.
    fn at_load(&self, n: u64) -> u64 {
        let fit = u64::from(self.blocks_per_cu);
        let rest = n % fit;
        n / fit * self.stacked(fit) + if rest > 0 { self.stacked(rest) } else { 0 }
    }

    /// Duration of a wave of `n` blocks per CU, ns: read off the curve at the CU count where the kernel's
    /// own blocks stack that high.
    fn stacked(&self, n: u64) -> u64 {
        let full = self.duration_ns.len() as u64 - 1;
        let cus = self.blocks.div_ceil(n).max(1);
        if n > self.blocks {
            // The kernel has fewer blocks than that: extrapolate from all of them on one CU.
            self.duration_ns[1] * n / self.blocks.max(1)
        } else if cus > full {
            // Even on the whole device its blocks stack higher than this.
            self.duration_ns[full as usize] * n / self.blocks.div_ceil(full)
        } else {
            self.duration_ns[cus as usize]
        }
    }

    /// Whether both are the same function in the same build, with the same launch configuration except for
    /// the grid, so that one launch can do the work of both.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        self.op == other.op
            && self.threads == other.threads
            && self.blocks_per_cu == other.blocks_per_cu
            && self.tile == other.tile
            && self.name == other.name
    }

    /// Duration of one wave of blocks on the whole device, ns. It grows with the work of a block (the inner
    /// dimension of a GEMM).
    #[must_use]
    pub fn wave_ns(&self) -> u64 {
        let full = self.duration_ns.len() as u64 - 1;
        let waves = self.blocks.div_ceil(u64::from(self.blocks_per_cu) * full).max(1);
        self.duration_ns[full as usize].div_ceil(waves)
    }

    /// Isolated duration on `cus` CUs, ns.
    #[inline]
    #[must_use]
    pub fn at(&self, cus: u32) -> u64 {
        self.duration_ns[cus as usize]
    }

    /// The resource that limits its speed on the whole `device`. If both its operations and its bytes are
    /// known, it is the one that takes more of its time at the device's peak rates (its place under the
    /// roofline). If only one is known, it is that one if it reaches 60 % of the peak, the rule by which
    /// Orion (EuroSys 2024) sorts kernels. Matrix products count at the rate of the precision in which the
    /// device serves models ([`Device::default_precision`]), all other kernels at the FP32 rate.
    #[must_use]
    pub fn class(&self, device: &Device) -> KernelClass {
        /// A kernel is bound by a resource from this share of its peak on, whatever else it does.
        const BOUND: f64 = 0.6;
        let products = matches!(self.op, Op::Gemm | Op::BatchedGemm | Op::Conv | Op::Attention);
        let rates = &device.compute;
        let fast = products && rates.matrix_units;
        let tflops = if fast { rates.fp16_tflops } else { rates.fp32_tflops };
        let ns = self.fastest().max(1) as f64;
        let compute = self.flops as f64 / (tflops * 1e3) / ns;
        let memory = self.dram_bytes as f64 / device.memory.dram_gbps / ns;
        match (self.flops > 0, self.dram_bytes > 0) {
            (true, true) if compute > memory => KernelClass::Compute,
            (true, true) => KernelClass::Memory,
            (true, false) if compute >= BOUND => KernelClass::Compute,
            (false, true) if memory >= BOUND => KernelClass::Memory,
            _ => KernelClass::Unknown,
        }
    }

    /// Whether `cus` CUs hold all its blocks at once.
    #[inline]
    #[must_use]
    pub fn placed(&self, cus: u32) -> bool {
        self.blocks <= u64::from(cus) * u64::from(self.blocks_per_cu)
    }

    /// The fewest CUs on which its duration is at most `(1 + tolerance)` times that on all CUs; never more
    /// than the kernel has blocks.
    #[must_use]
    pub fn min_cu(&self, tolerance: f64) -> u32 {
        let full = self.duration_ns.len() - 1;
        let limit = self.duration_ns[full] as f64 * (1.0 + tolerance);
        let least = (1..=full).find(|&c| self.duration_ns[c] as f64 <= limit).unwrap_or(full);
        (least as u64).min(self.blocks.max(1)) as u32
    }

    /// The least CU-time (CUs × ns) at which the kernel can run at all. CUs that hold none of its blocks do
    /// not count.
    #[must_use]
    pub fn least_area(&self) -> u64 {
        let most = if self.fair { u64::MAX } else { self.blocks.max(1) };
        let area = |c: usize| (c as u64).min(most).saturating_mul(self.duration_ns[c]);
        (1..self.duration_ns.len()).map(area).min().unwrap_or(0)
    }

    /// The shortest duration at any CU count, ns.
    #[must_use]
    pub fn fastest(&self) -> u64 {
        self.duration_ns[1..].iter().copied().min().unwrap_or(0)
    }
}

/// What merged kernels draw on all CUs as one launch of duration `ns`: the total that they draw one after
/// the other, spread over that time. `None` unless it is known for each kernel.
fn drawn_together(parts: &[&KernelCode], full: u32, ns: u64, device: &Device) -> Option<Drawn> {
    let seen: Option<Vec<_>> = parts.iter().map(|k| Some((k.drawn.last()?, k))).collect();
    let mean = |of: fn(&Drawn) -> Option<f64>, base: f64| {
        let sum: Option<f64> =
            seen.as_ref()?.iter().map(|(d, k)| Some((of(d)? - base) * k.at(d.cus) as f64)).sum();
        Some(sum? / ns.max(1) as f64 + base)
    };
    let base = device.power.idle_w + device.power.active_w;
    let part = |of| mean(of, 0.0).map(|share: f64| share.min(1.0));
    let watts = mean(Drawn::watts, base).map(|w| w.min(device.power.cap_w));
    let drawn = Drawn::new(full, part(Drawn::l2), part(Drawn::dram), watts);
    seen.as_ref().map(|_| drawn)
}

/// One launch of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// An index into the setup's kernels.
    pub kernel: u32,
    /// When the host has issued it, ns after it began the pass.
    pub issued_ns: u64,
}

/// The launches of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Indices into [`Code::kernels`], in stream order.
    pub kernels: Vec<u32>,
    /// When the host has issued each launch, ns after it began the pass; ascending.
    pub issued_ns: Vec<u64>,
    /// Isolated GPU time from each launch to the end on all CUs, ns; one entry more than kernels.
    pub remaining_ns: Vec<u64>,
}

impl Program {
    /// The program of a composed step, with the isolated durations of its kernels on `cus` CUs.
    #[must_use]
    pub fn of_steps(steps: &[Step], code: &Code, cus: u32) -> Self {
        let mut left = 0;
        let alone = steps.iter().rev().map(|s| {
            left += code.kernels[s.kernel as usize].at(cus);
            left
        });
        let mut remaining_ns: Vec<u64> = std::iter::once(0).chain(alone).collect();
        remaining_ns.reverse();
        Self {
            kernels: steps.iter().map(|s| s.kernel).collect(),
            issued_ns: steps.iter().map(|s| s.issued_ns).collect(),
            remaining_ns,
        }
    }
}

/// One tenant's model, ready for the event loop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCode {
    /// The model's name.
    pub name: String,
    /// Launch sequences; setups share them.
    pub programs: Arc<Vec<Program>>,
    /// The index of the program that serves a batch of `i` items (entry 0 is unused): that of the exact
    /// size, or of the next larger size in the profile.
    pub program_for: Vec<u32>,
    /// Size of the parameters.
    pub weights: Bytes,
    /// Activations per item.
    pub activations_per_item: Bytes,
    /// Bytes copied to the GPU per item.
    pub input_per_item: Bytes,
    /// Bytes copied back per item.
    pub output_per_item: Bytes,
    /// Time to load the weights.
    pub load: Nanos,
    /// Host work per request before its first launch.
    pub host_per_request: Nanos,
}

/// Why a model cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The profile has no such model.
    #[error("the profile of {device} has no model `{model}`")]
    NoModel {
        /// The requested model.
        model: String,
        /// The profile's device.
        device: String,
    },
    /// The profile has no batch size as large as requested.
    #[error(
        "model `{model}` is profiled up to batch {largest}, not {wanted}: lower `batch.max`, or add a profile of larger batches"
    )]
    NoBatch {
        /// The requested model.
        model: String,
        /// Largest batch in the profile.
        largest: u32,
        /// The requested batch size.
        wanted: u32,
    },
    /// A batch without a single launch.
    #[error("model `{model}` launches nothing at batch {batch}")]
    NoLaunch {
        /// The requested model.
        model: String,
        /// The empty batch.
        batch: u32,
    },
}

/// Every kernel of a scenario, shared by its tenants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Code {
    /// Distinct kernels.
    pub kernels: Vec<KernelCode>,
    /// Measured pairs of kernels.
    pub pairs: Pairs,
    /// The measurements behind the pairs.
    measured: Vec<((u32, u32), f64)>,
}

impl Code {
    /// Compiles `model` of `profile` for batches of 1 to `max_batch` items on a device of `cus` CUs.
    /// Kernels already compiled are found again by identifier.
    ///
    /// # Errors
    /// The model is missing, not profiled up to `max_batch`, or empty.
    pub fn compile(
        &mut self,
        profile: &Profile,
        model: &str,
        max_batch: u32,
        cus: u32,
    ) -> Result<ModelCode, CompileError> {
        let source: &Model = profile.models.get(model).ok_or_else(|| CompileError::NoModel {
            model: model.to_owned(),
            device: profile.device.clone(),
        })?;
        let largest = source.batches.keys().next_back().copied().unwrap_or(0);
        if largest < max_batch {
            let model = model.to_owned();
            return Err(CompileError::NoBatch { model, largest, wanted: max_batch });
        }
        let mut map = vec![u32::MAX; profile.kernels.len()];
        // A model has thousands of kernels over all its batch sizes: look them up by name instead of
        // scanning.
        let mut named: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (i, kernel) in self.kernels.iter().enumerate() {
            named.entry(kernel.id.clone()).or_default().push(i as u32);
        }
        let mut programs = Vec::new();
        let mut program_for = vec![0];
        for (&batch, launches) in &source.batches {
            if program_for.len() as u32 > max_batch {
                break;
            }
            if launches.is_empty() {
                return Err(CompileError::NoLaunch { model: model.to_owned(), batch });
            }
            while program_for.len() as u32 <= batch.min(max_batch) {
                program_for.push(programs.len() as u32);
            }
            let mut program = Program { kernels: vec![], issued_ns: vec![], remaining_ns: vec![] };
            let mut issued = 0;
            for launch in launches {
                let slot = &mut map[launch.kernel];
                if *slot == u32::MAX {
                    let kernel = KernelCode::new(&profile.kernels[launch.kernel], cus);
                    *slot = self.intern(kernel, &mut named);
                }
                issued += launch.host.0;
                program.kernels.push(*slot);
                program.issued_ns.push(issued);
            }
            let mut left = 0;
            program.remaining_ns = std::iter::once(0)
                .chain(program.kernels.iter().rev().map(|&k| {
                    left += self.kernels[k as usize].at(cus);
                    left
                }))
                .collect();
            program.remaining_ns.reverse();
            programs.push(program);
        }
        self.pair_up(profile, &named);
        Ok(ModelCode {
            name: source.name.clone(),
            programs: Arc::new(programs),
            program_for,
            weights: source.weights,
            activations_per_item: source.activations_per_item,
            input_per_item: source.input_per_item,
            output_per_item: source.output_per_item,
            load: source.load,
            host_per_request: source.host_per_request,
        })
    }

    /// Code with these kernels and no measured pairs.
    #[must_use]
    pub fn of(kernels: Vec<KernelCode>) -> Self {
        Self { kernels, ..Self::default() }
    }

    /// Adds the profile's measured pairs among the kernels compiled so far.
    fn pair_up(&mut self, profile: &Profile, named: &BTreeMap<String, Vec<u32>>) {
        if profile.corun.is_empty() {
            return;
        }
        let known =
            |kernel: usize| named.get(&profile.kernels[kernel].id).map_or(&[][..], Vec::as_slice);
        let alone = |(kernel, cus): (usize, u32)| profile.kernels[kernel].at(cus) as f64;
        for pair in &profile.corun {
            let (a, b) = (pair.a, pair.b);
            let (slow_a, slow_b) =
                (pair.duration_a_ns as f64 / alone(a), pair.duration_b_ns as f64 / alone(b));
            for &i in known(a.0) {
                for &j in known(b.0) {
                    self.measured.push(((i, j), slow_a));
                    self.measured.push(((j, i), slow_b));
                }
            }
        }
        // Each further tenant finds the same pairs again.
        self.measured.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.measured.dedup();
        self.pairs = Pairs::new(self.measured.clone());
    }

    /// Returns the index of a kernel and adds it if it is new: tenants that run the same model share its
    /// kernels. `named`: the kernels so far, by name.
    fn intern(&mut self, kernel: KernelCode, named: &mut BTreeMap<String, Vec<u32>>) -> u32 {
        let same = named.entry(kernel.id.clone()).or_default();
        let found = same.iter().copied().find(|&i| self.kernels[i as usize] == kernel);
        found.unwrap_or_else(|| {
            let index = self.kernels.len() as u32;
            same.push(index);
            self.kernels.push(kernel);
            index
        })
    }
}

impl ModelCode {
    /// The program for a batch of `items`; the largest program for larger batches.
    #[inline]
    #[must_use]
    pub fn program(&self, items: u32) -> &Program {
        let i = (items as usize).min(self.program_for.len() - 1);
        &self.programs[self.program_for[i] as usize]
    }

    /// The largest batch, in items.
    #[must_use]
    pub fn max_items(&self) -> u32 {
        self.program_for.len() as u32 - 1
    }

    /// Device memory of one instance, without its context.
    #[must_use]
    pub fn memory(&self) -> Bytes {
        Bytes(self.weights.0 + self.activations_per_item.0 * u64::from(self.max_items()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_profiles::{Curve, curve::Point};

    fn kernel(blocks: u32, blocks_per_cu: u32, at: impl Fn(u32) -> u64) -> KernelCode {
        let points = (1..=60).map(|c| Point::exact(c, at(c))).collect();
        let kernel = Kernel {
            id: "k".to_owned(),
            name: "k".to_owned(),
            op: Op::Gemm,
            grid: [blocks, 1, 1],
            block: 256,
            regs: 0,
            smem_bytes: 0,
            blocks_per_cu,
            flops: 0,
            dram_bytes: 0,
            curve: Curve::new(points).unwrap(),
        };
        KernelCode::new(&kernel, 60)
    }

    #[test]
    fn a_kernel_alone_spreads_as_far_as_it_gains() {
        // 40 blocks, four per CU: ten CUs would hold them, at a quarter of the speed.
        let k = kernel(40, 4, |c| 1_000 * u64::from(40u32.div_ceil(c)));
        assert_eq!((k.want, k.at(k.want)), (40, k.at(60)));
        // Bound by the bandwidth that 34 CUs draw.
        assert_eq!(kernel(10_000, 8, |c| 100_000 / u64::from(c.min(34))).want, 60);
        assert_eq!(kernel(40, 4, |c| 100_000 / u64::from(c.min(34))).want, 34);
        // Stacked blocks lose nothing: it takes no more CUs than hold its blocks.
        assert_eq!(kernel(40, 4, |c| if c < 10 { 2_000 } else { 1_000 }).want, 10);
    }

    #[test]
    fn a_kernel_is_bound_by_what_takes_most_of_its_time() {
        let device = Device::builtin("v100-sxm2-16").unwrap();
        let with = |flops, dram_bytes| {
            KernelCode { flops, dram_bytes, ..kernel(60, 1, |_| 100_000) }.class(&device)
        };
        // In 100 us a V100 moves 90 MB and does 12.5 TFLOP of products.
        assert_eq!(with(10_000_000_000, 20_000_000), KernelClass::Compute);
        assert_eq!(with(1_000_000_000, 20_000_000), KernelClass::Memory);
        assert_eq!(with(0, 80_000_000), KernelClass::Memory);
        assert_eq!(with(0, 20_000_000), KernelClass::Unknown);
        assert_eq!(with(11_000_000_000, 0), KernelClass::Compute);
        assert_eq!(with(0, 0), KernelClass::Unknown);
    }
}
