//! The analytic model: latency curves from blocks, arithmetic and bytes. The formulae, the knobs
//! and a comparison with published measurements are in `docs/analytic-model.md`.

use std::collections::BTreeMap;

use crate::curve::{Curve, Point};
use crate::device::{Device, Vendor};
use crate::drawn::Drawn;
use crate::executor::Executor;
use crate::kernel::{Kernel, Launch, Model, Profile, Source};
use crate::lower::{Config, KernelShape, LowerError, Precision, lower_tuned};
use crate::units::Nanos;
use crate::zoo::ModelSpec;

/// What to compute a profile with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Numbers computed with.
    pub precision: Precision,
    /// Merge element-wise followers and attention (TensorRT, TVM) instead of one kernel per layer
    /// (eager PyTorch).
    pub fused: bool,
    /// Host work per request before its first launch, written into every model. A knob: decoding
    /// an image takes milliseconds, accepting a tensor takes next to nothing.
    pub host_per_request: Nanos,
    /// Kernels as a tuner picks them that measures on so many compute units; `None`: as a library
    /// picks them, for the whole device.
    pub tuned_cus: Option<u32>,
    /// What the host pays per launch; `None`: a compiler's graph where operators are fused, else an
    /// eager framework's dispatch. By default a compiled graph, which leaves most of the time to the
    /// GPU.
    pub executor: Option<Executor>,
}

impl Options {
    /// The executor that decides host times.
    #[must_use]
    pub fn executor(&self) -> Executor {
        self.executor.unwrap_or(Executor::of(self.fused))
    }
}

impl Default for Options {
    fn default() -> Self {
        let host_per_request = Nanos::from_micros(20);
        Self {
            precision: Precision::Fp32,
            fused: false,
            host_per_request,
            tuned_cus: None,
            executor: Some(Executor::Compiled),
        }
    }
}

/// A profile of `specs` at `batches`. Kernels that several models or batches launch with the same
/// configuration appear once. Equal arguments give equal bits on every machine.
///
/// # Errors
/// A batch outside 1 to [`crate::lower::MAX_BATCH`].
pub fn profile(
    device: &Device,
    specs: &[&ModelSpec],
    batches: &[u32],
    options: &Options,
) -> Result<Profile, LowerError> {
    let mut profile = Profile {
        device: device.name.clone(),
        source: Source::Analytic,
        provenance: provenance(options),
        kernels: Vec::new(),
        models: BTreeMap::new(),
        corun: Vec::new(),
    };
    let mut known = BTreeMap::new();
    for spec in specs {
        let mut model = model(device, spec, options);
        for &batch in batches {
            let config = Config { batch, precision: options.precision, fused: options.fused };
            let lowered = lower_tuned(spec, device, config, options.tuned_cus)?;
            let helpers: Vec<bool> = lowered.kernels.iter().map(|k| k.helper).collect();
            let indices: Vec<usize> = lowered
                .kernels
                .into_iter()
                .map(|shape| {
                    *known.entry(shape.id.clone()).or_insert_with(|| {
                        profile.kernels.push(kernel(device, shape));
                        profile.kernels.len() - 1
                    })
                })
                .collect();
            let launches = lowered.launches.iter().enumerate().map(|(position, &k)| {
                let host = options.executor().host(device, position, helpers[k]);
                Launch { kernel: indices[k], host }
            });
            model.batches.insert(batch, launches.collect());
        }
        profile.models.insert(model.name.clone(), model);
    }
    Ok(profile)
}

pub(crate) fn provenance(options: &Options) -> BTreeMap<String, String> {
    let build = if options.fused { "fused operators" } else { "one kernel per operator" };
    [
        ("tool", "cotenant"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("method", "analytic: waves of blocks, arithmetic, bytes"),
        ("precision", options.precision.name()),
        ("framework", build),
        ("executor", options.executor().name()),
        ("clocks", "boost"),
        ("licence", "MIT OR Apache-2.0"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// The model's sizes, without launches.
fn model(device: &Device, spec: &ModelSpec, options: &Options) -> Model {
    let weights = spec.weights_bytes(options.precision);
    // Bytes over 10^6 bytes per second: bytes × 1000 / rate in ns, rounded up.
    let load = (weights.0 * 1000).div_ceil(u64::from(device.costs.load_mbps.max(1)));
    Model {
        name: spec.name.clone(),
        weights,
        activations_per_item: spec.activations_per_item_bytes(options.precision),
        input_per_item: spec.input_per_item_bytes(options.precision),
        output_per_item: spec.output_per_item_bytes(options.precision),
        load: Nanos(load),
        host_per_request: options.host_per_request,
        batches: BTreeMap::new(),
    }
}

pub(crate) fn kernel(device: &Device, shape: KernelShape) -> Kernel {
    let curve = curve(device, &shape).with_drawn(vec![drawn(device, &shape)]);
    Kernel {
        id: shape.id,
        name: shape.name,
        op: shape.op,
        grid: shape.grid,
        block: shape.block,
        regs: shape.regs,
        smem_bytes: shape.smem_bytes,
        blocks_per_cu: shape.blocks_per_cu,
        flops: shape.flops,
        dram_bytes: shape.dram_bytes,
        curve,
    }
}

/// What a kernel draws on all CUs.
fn drawn(device: &Device, shape: &KernelShape) -> Drawn {
    let cus = device.cus();
    let ns = duration_ns(device, shape, cus) as f64;
    let memory = &device.memory;
    let part = |bytes: u64, gbps: f64| (bytes as f64 / ns / gbps).min(1.0);
    let l2 = part(shape.l2_bytes, memory.l2_gbps);
    let dram = part(shape.dram_bytes, memory.dram_gbps);
    let watts =
        device.watts(shape.matrix_units, shape.flops as f64 / ns, shape.dram_bytes as f64 / ns);
    Drawn::new(cus, Some(l2), Some(dram), Some(watts))
}

/// The latency curve of a kernel, with a point at every count of CUs: steps between waves are
/// where they belong, and interpolation has nothing to smooth over.
#[must_use]
pub fn curve(device: &Device, shape: &KernelShape) -> Curve {
    let points = (1..=device.cus()).map(|c| Point::exact(c, duration_ns(device, shape, c)));
    Curve::new(points.collect()).expect("counts ascend from 1, durations are positive")
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

/// Share of the stated efficiency that so many resident warps reach.
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
