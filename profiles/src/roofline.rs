//! One kernel and its time: blocks in waves, arithmetic, and bytes from DRAM and L2. The analytic model
//! is based on this, and lowering picks kernels by it.

use crate::device::{Device, Vendor};
use crate::kernel::Op;

/// One kernel without its curve: what the analytic model computes durations from.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelShape {
    /// Readable, and the same for the same shape: operation, problem, algorithm, precision.
    pub id: String,
    /// The function, named after those of the libraries.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Thread blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: u32,
    /// Registers per thread.
    pub regs: u32,
    /// Shared memory per block, bytes.
    pub smem_bytes: u32,
    /// Blocks that fit on one CU at once.
    pub blocks_per_cu: u32,
    /// Operations that the layer asks for.
    pub flops: u64,
    /// Bytes to and from DRAM.
    pub dram_bytes: u64,
    /// Bytes between L2 and the CUs.
    pub l2_bytes: u64,
    /// Time that one block takes of a CU whose units it keeps busy, ns: executed operations,
    /// padding included, at the efficiency of its kind, or its operands through the CU's port to
    /// L2, whichever takes longer.
    pub block_ns: f64,
    /// Shortest time of a block's inner loop, ns, however many units are free: round trips to
    /// memory that wait for each other.
    pub latency_ns: f64,
    /// Start of a wave of blocks until its units have work, ns: addresses, parameters, the first
    /// panels.
    pub start_ns: f64,
    /// End of each block, ns: results through shared memory to L2, while its units idle.
    pub end_ns: f64,
    /// Blocks end at different times, so that a wave's stragglers run beside the next one: many
    /// short blocks of a streaming kernel. Otherwise the busiest CU works in whole waves.
    pub staggered: bool,
    /// Bytes that a resident warp keeps in flight between memory and its CU.
    pub in_flight: f64,
    /// Share of the device's attainable DRAM bandwidth that the kernel's access pattern reaches.
    pub dram_share: f64,
    /// The arithmetic is done by matrix units, which few warps keep busy.
    pub matrix_units: bool,
    /// Share of the shorter one of arithmetic and traffic that the longer one does not hide.
    pub serial: f64,
    /// Kernels that belong to the call beside this one, ns: sums of partial products.
    pub helpers_ns: f64,
    /// Whether a library starts it within the call of the following operator, without a dispatch of its
    /// own.
    pub helper: bool,
    /// Traffic and arithmetic follow each other instead of overlapping, with this many further
    /// start-ups in between: a library call that is several kernels behind one name.
    pub phases: u32,
}

impl KernelShape {
    /// Thread blocks in all.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).product()
    }
}

/// Duration of a kernel alone on `cus` compute units, ns: start-up, and arithmetic, DRAM and L2
/// traffic side by side, but for the share of the shorter that the longer does not hide.
#[must_use]
pub fn duration_ns(device: &Device, shape: &KernelShape, cus: u32) -> u64 {
    assert!(cus > 0, "a kernel cannot run on 0 CUs");
    let blocks = shape.blocks().max(1);
    let compute = compute_ns(device, shape, blocks, cus);
    let memory = memory_ns(device, shape, blocks, cus);
    let floor = device.analytic.kernel_floor.0 as f64 * f64::from(1 + shape.phases);
    let serial = if shape.phases > 0 { 1.0 } else { shape.serial };
    let longest = compute.max(memory) + serial * compute.min(memory);
    ((floor + longest + shape.helpers_ns).ceil() as u64).max(1)
}

/// Bytes per clock from L2 into one CU, on every device here: NVIDIA's L1 fills 64 bytes per clock
/// (Jia et al. 2018, arXiv:1804.06826, Volta; the same since), AMD's vector L1 reads lines of 64.
const PORT_BYTES: f64 = 64.0;

/// 10^9 bytes per second from L2 into one CU, at the boost clock.
pub(crate) fn port_gbps(device: &Device) -> f64 {
    PORT_BYTES * device.clock.boost_mhz / 1e3
}

/// Warps at which a CU reaches half of the rate it would reach with unlimited warps, and warps at
/// which a kernel reaches the efficiency that the device file states. On vector units the latency
/// of barriers, shared memory and first loads has to be covered by other warps: knobs from
/// published V100 measurements (see the documentation). One instruction keeps a matrix unit busy
/// for many clocks, so one or two warps per scheduler do: calibrated (see the documentation).
const VECTOR_WARPS: [f64; 2] = [2.0, 16.0];
const MATRIX_WARPS: [f64; 2] = [1.0, 8.0];

/// The share of the stated efficiency that this many resident warps reach.
fn rate(shape: &KernelShape, warps: f64) -> f64 {
    let [half, full] = if shape.matrix_units { MATRIX_WARPS } else { VECTOR_WARPS };
    let saturation = |w: f64| w / (w + half);
    (saturation(warps) / saturation(full)).min(1.0)
}

/// Warps (wavefronts on AMD) of `blocks` resident blocks.
fn warps(device: &Device, shape: &KernelShape, blocks: f64) -> f64 {
    let width = match device.vendor {
        Vendor::Nvidia => 32,
        Vendor::Amd => 64,
    };
    blocks * f64::from(shape.block.div_ceil(width))
}

/// Arithmetic of `blocks` on `cus` CUs. The busiest CU runs its blocks in waves of as many as fit,
/// each at the rate that its resident warps reach, and none shorter than one block's latency.
/// Staggered blocks of more than one wave leave no tail of a whole wave.
fn compute_ns(device: &Device, shape: &KernelShape, blocks: u64, cus: u32) -> f64 {
    let fit = u64::from(shape.blocks_per_cu.max(1));
    let wave = |n: u64| {
        let busy = n as f64 * shape.block_ns
            / rate(shape, warps(device, shape, n as f64)).max(f64::MIN_POSITIVE);
        let time = shape.start_ns + busy.max(shape.latency_ns) + n as f64 * shape.end_ns;
        if n == 0 { 0.0 } else { time }
    };
    let busiest = blocks.div_ceil(u64::from(cus));
    if shape.staggered && busiest > fit {
        let waves = blocks as f64 / (u64::from(cus) * fit) as f64;
        return waves.max(1.0) * wave(fit);
    }
    (busiest / fit) as f64 * wave(fit) + wave(busiest % fit)
}

/// From a load to its data when DRAM is busy, ns. A knob: 380 to 480 ns idle on a V100 and an A100
/// in public micro-benchmarks, more under load.
const DRAM_LATENCY_NS: f64 = 500.0;

/// CUs with blocks draw as many bytes per DRAM latency as their resident warps keep in flight
/// (Little's law): each up to its share where the fewest CUs saturate DRAM, all of them up to the
/// attainable DRAM bandwidth; and to L2 up to the port and to L2's own bandwidth.
fn memory_ns(device: &Device, shape: &KernelShape, blocks: u64, cus: u32) -> f64 {
    let busy = blocks.min(u64::from(cus)) as f64;
    // On average over the CUs: the few that hold one block more do not draw for the others.
    let resident = (blocks as f64 / busy).min(f64::from(shape.blocks_per_cu.max(1)));
    let in_flight = warps(device, shape, resident) * shape.in_flight / DRAM_LATENCY_NS;
    let (memory, knobs) = (&device.memory, &device.analytic);
    // 10^9 bytes per second is one byte per ns.
    let attainable = memory.dram_gbps * knobs.dram_efficiency;
    let most = attainable / f64::from(knobs.dram_saturating_cus.max(1));
    let dram = (busy * in_flight.min(most)).min(attainable * shape.dram_share);
    // L2 answers in about half the time.
    let l2 = (busy * (2.0 * in_flight).min(port_gbps(device))).min(memory.l2_gbps);
    (shape.dram_bytes as f64 / dram).max(shape.l2_bytes as f64 / l2)
}
