//! The analytic model: profiles of models whose kernels were never measured, with latency curves from
//! blocks, arithmetic and bytes ([`crate::roofline`]). The formulae, the knobs and a comparison with
//! published measurements are in `docs/analytic-model.md`.

use std::collections::BTreeMap;

use crate::curve::{Curve, Point};
use crate::device::Device;
use crate::drawn::Drawn;
use crate::executor::Executor;
use crate::kernel::{Kernel, Launch, Model, Profile, Source};
use crate::lower::{Config, LowerError, lower_tuned};
use crate::precision::Precision;
use crate::roofline::{KernelShape, duration_ns};
use crate::units::Nanos;
use crate::zoo::ModelSpec;

/// Options of a computed profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number format of the computation.
    pub precision: Precision,
    /// Merge element-wise followers and attention (TensorRT, TVM) instead of one kernel per layer
    /// (eager PyTorch).
    pub fused: bool,
    /// Host work per request before its first launch, written into every model. A knob: decoding
    /// an image takes milliseconds, accepting a tensor takes next to nothing.
    pub host_per_request: Nanos,
    /// Kernels as picked by a tuner that measures on this many compute units; `None` means as picked by
    /// a library, for the whole device.
    pub tuned_cus: Option<u32>,
    /// The host's cost per launch. `None` means a compiler's graph if operators are fused, otherwise an
    /// eager framework's dispatch. The default is a compiled graph, which leaves most of the time to
    /// the GPU.
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

/// A kernel's draw on all CUs.
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
