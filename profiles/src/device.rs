//! A GPU as data: `profiles/devices/<name>.toml`. Every constant there carries its source or is
//! marked as a knob, in the comment of its line.

mod check;
mod load;
mod mig;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Nanos};

pub use load::DeviceError;
pub use mig::{MigError, MigInstance, MigPlacement};

/// The largest device that is accepted, in CUs: the masks of the simulator hold as many.
pub const MAX_CUS: u32 = 320;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// File name without `.toml`.
    pub name: String,
    /// Its name in texts.
    pub title: String,
    /// The manufacturer.
    pub vendor: Vendor,
    /// Compute units and their groups.
    pub topology: Topology,
    /// Clocks.
    pub clock: Clock,
    /// Peak dense arithmetic rates.
    pub compute: Compute,
    /// DRAM and L2.
    pub memory: Memory,
    /// The link to the host.
    pub pcie: Pcie,
    /// Hardware queues between host and dispatcher.
    pub queues: Queues,
    /// How blocks are dispatched to CUs.
    pub dispatch: Dispatch,
    /// Which masks are legal.
    pub mask: Mask,
    /// Processes side by side: MPS, or what ROCm does by itself; absent where there is neither.
    pub mps: Option<Mps>,
    /// Legal hardware instances; absent where the device has none.
    pub mig: Option<Mig>,
    /// The host's cost to issue kernels.
    pub host: Host,
    /// The cost of every sharing mechanism.
    pub costs: Costs,
    /// How co-running kernels slow each other down.
    pub contention: Contention,
    /// Power.
    pub power: Power,
    /// Knobs of the analytic model.
    pub analytic: Analytic,
}

/// The manufacturer of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Vendor {
    Nvidia,
    Amd,
}

/// Compute units and what one of them holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// CUs in each GPC or shader engine.
    pub groups: Vec<u32>,
    /// Resident threads of one CU.
    pub threads_per_cu: u32,
    /// Resident blocks of one CU.
    pub blocks_per_cu: u32,
    /// 32-bit registers of one CU.
    pub registers_per_cu: u32,
    /// Shared memory of one CU that blocks may use.
    pub smem_per_cu: Bytes,
}

impl Topology {
    /// Blocks of `block` threads that fit on one CU at once, at least 1: by threads, `regs`
    /// registers per thread, `smem` bytes of shared memory per block, and the limit of blocks.
    #[must_use]
    pub fn residency(&self, block: u32, regs: u32, smem: u32) -> u32 {
        let smem_per_cu = u32::try_from(self.smem_per_cu.0).unwrap_or(u32::MAX);
        let fit = |have: u32, need: u32| have.checked_div(need).unwrap_or(u32::MAX);
        fit(self.threads_per_cu, block)
            .min(fit(self.registers_per_cu, regs.saturating_mul(block)))
            .min(fit(smem_per_cu, smem))
            .min(self.blocks_per_cu)
            .max(1)
    }
}

/// Clocks.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Boost clock, MHz: what the peak rates assume.
    pub boost_mhz: f64,
}

/// Peak dense rates, 10^12 operations per second; a fused multiply-add counts as two.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Compute {
    /// FP32 on the vector units.
    pub fp32_tflops: f64,
    /// TF32 on the matrix units; equal to FP32 if there are none.
    pub tf32_tflops: f64,
    /// FP16 on the matrix units (vector units if there are none), FP32 accumulation.
    pub fp16_tflops: f64,
    /// BF16 on the matrix units; absent if they do not support it, in which case FP32 is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bf16_tflops: Option<f64>,
    /// FP8 on the matrix units, FP32 accumulation; absent if they do not support it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fp8_tflops: Option<f64>,
    /// INT8.
    pub int8_tops: f64,
    /// Whether there are matrix units (tensor cores) for FP16.
    pub matrix_units: bool,
}

/// DRAM and L2.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Device memory.
    pub capacity: Bytes,
    /// DRAM bandwidth, 10^9 bytes per second.
    pub dram_gbps: f64,
    /// L2 capacity.
    pub l2: Bytes,
    /// L2 bandwidth, 10^9 bytes per second.
    pub l2_gbps: f64,
}

/// The link to the host.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pcie {
    /// Host to device, achievable, 10^9 bytes per second.
    pub h2d_gbps: f64,
    /// Device to host.
    pub d2h_gbps: f64,
    /// Copy engines: one per direction at 2, one shared at 1.
    pub copy_engines: u32,
}

/// Hardware queues between host and dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Queues {
    /// Streams that progress independently; more of them share queues in order.
    pub hardware: u32,
    /// Extra time per launch once streams outnumber the queues (multiplexing).
    pub overflow: Nanos,
}

/// How blocks are dispatched to CUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DispatchRule {
    /// To the CU with the most room (NVIDIA).
    LeastLoaded,
    /// Blocks split evenly over the groups in use; the slowest group decides (AMD).
    EvenGroups,
}

/// How blocks are dispatched to CUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// The rule.
    pub rule: DispatchRule,
}

/// Which masks are legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Fewest CUs of a mask.
    pub min_cus: u32,
    /// Masks hold a multiple of this many CUs.
    pub step_cus: u32,
}

/// Multi-process service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mps {
    /// A percentage becomes a multiple of this many CUs, rounded down, at least one step.
    pub round_cus: u32,
    /// Clients of one device.
    pub max_clients: u32,
    /// Device memory of one client's context.
    pub client_memory: Bytes,
    /// CUs of one static chunk (exclusive partitions).
    pub chunk_cus: u32,
    /// Chunks that static partitioning can hand out.
    pub chunks: u32,
}

/// Legal hardware instances.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mig {
    /// Slices of the compute axis.
    pub compute_slices: u32,
    /// Slices of the memory axis.
    pub memory_slices: u32,
    /// Instance profiles.
    pub profiles: Vec<MigProfile>,
}

/// One instance profile, read from real boards (`nvidia-smi mig -lgip`), not from mocks.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MigProfile {
    /// Such as `1g`, `1g+mem`, `3g`.
    pub name: String,
    /// CUs.
    pub cus: u32,
    /// Compute slices.
    pub compute: u32,
    /// Memory slices: DRAM bandwidth goes with them.
    pub memory: u32,
    /// Slices of L2, out of as many as there are memory slices; not always equal to `memory`.
    pub l2_slices: u32,
    /// Device memory.
    pub capacity: Bytes,
    /// Copy engines.
    pub copy_engines: u32,
    /// Legal first memory slices.
    pub starts: Vec<u32>,
    /// Most instances of this profile at once.
    pub max: u32,
}

/// The host's cost to issue kernels, by executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// One operator of an eager framework: dispatch, checks, launch.
    pub eager: Nanos,
    /// One kernel of a compiled graph.
    pub compiled: Nanos,
    /// One launch of a CUDA graph.
    pub graph_launch: Nanos,
    /// From one kernel of a CUDA graph to the next.
    pub graph_kernel: Nanos,
}

/// The effect of a mechanism on work already on the CUs concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resident {
    /// Nothing: it applies to what is dispatched afterwards.
    Keeps,
    /// Progress is saved and resumed.
    Saves,
    /// The mechanism waits until running work has ended.
    Drains,
    /// Running work is lost and starts over.
    Restarts,
}

impl Resident {
    /// The word that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keeps => "keeps",
            Self::Saves => "saves",
            Self::Drains => "drains",
            Self::Restarts => "restarts",
        }
    }
}

/// The cost and the effect of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mechanism {
    /// Time that the worker or stream concerned stands still; 0 where the file does not say.
    #[serde(default)]
    pub cost: Nanos,
    /// Time from the decision until it takes effect, others running on; 0 by default.
    #[serde(default)]
    pub delay: Nanos,
    /// Its effect on resident work.
    pub resident: Resident,
}

impl Mechanism {
    /// Free, immediate and weightless: the `ideal` arm.
    pub const FREE: Self =
        Self { cost: Nanos::ZERO, delay: Nanos::ZERO, resident: Resident::Keeps };
}

/// The costs of every sharing mechanism on a device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Host time of one kernel launch, where the profile does not say.
    pub launch: Nanos,
    /// Device memory of one process's context.
    pub context_memory: Bytes,
    /// Time slice of a context while others wait.
    pub quantum: Nanos,
    /// Switch between time-sliced contexts.
    pub context_switch: Mechanism,
    /// From a context that went idle to the next one: nothing to save.
    pub context_yield: Mechanism,
    /// Kernel on another stream or green context than its predecessor: event and wait.
    pub stream_hop: Mechanism,
    /// Barrier packet between hardware queues (ECLIP).
    pub barrier: Mechanism,
    /// Set a CU mask by a system call (KRISP as emulated).
    pub mask_ioctl: Mechanism,
    /// Set a TPC mask at launch (libsmctrl).
    pub mask_tpc: Mechanism,
    /// Compute a mask in the packet processor (KRISP as proposed).
    pub mask_firmware: Mechanism,
    /// Intercept one kernel launch on its way to the driver, classify it and queue it (Orion, LithOS,
    /// XSched).
    #[serde(default = "intercepted")]
    pub kernel_intercept: Mechanism,
    /// One more launch for a range of a kernel's blocks (Tally, LithOS' atoms).
    #[serde(default = "sliced")]
    pub kernel_slice: Mechanism,
    /// Kill a running kernel, which starts over (REEF).
    #[serde(default = "reset")]
    pub preempt_reset: Mechanism,
    /// Tell a kernel in persistent-thread form to start no more blocks (Tally).
    #[serde(default = "drained")]
    pub preempt_blocks: Mechanism,
    /// Save a running kernel's state: `delay` until the CUs stop, `cost` to save the state, and the
    /// same again to restore it (GPreempt, XSched's third level).
    #[serde(default = "saved")]
    pub preempt_save: Mechanism,
    /// Time of a kernel in persistent-thread form, whose blocks poll for the order to stop, relative to
    /// the unchanged kernel, percent.
    #[serde(default = "persistent")]
    pub persistent_percent: u32,
    /// Change the board's clock (LithOS).
    #[serde(default = "reclocked")]
    pub clock_switch: Mechanism,
    /// Start a process with its context, without the model's own load time.
    pub process_start: Mechanism,
    /// Route from one worker to its loaded shadow (GSLICE).
    pub shadow_switch: Mechanism,
    /// Destroy one hardware instance.
    pub mig_destroy: Mechanism,
    /// Create one hardware instance.
    pub mig_create: Mechanism,
    /// Fixed cost of a launch that merges kernels of several tenants (batched GEMM call).
    pub merge_fixed: Nanos,
    /// Its cost per merged kernel (pointer arrays).
    pub merge_each: Nanos,
    /// Time of a wave of merged blocks on the full GPU, relative to a wave of one of the kernels alone,
    /// percent.
    #[serde(default = "as_alone")]
    pub merge_wave_percent: u32,
    /// Host-to-device rate while loading weights, 10^6 bytes per second (disk, framework).
    pub load_mbps: u32,
}

const fn mechanism(cost_ns: u64, delay_ns: u64, resident: Resident) -> Mechanism {
    Mechanism { cost: Nanos(cost_ns), delay: Nanos(delay_ns), resident }
}

/// A reproduction of LithOS measured 0.03 to 0.23 us on an A100.
fn intercepted() -> Mechanism {
    mechanism(230, 0, Resident::Keeps)
}

/// A bare launch (2.1 us) and the cost of slicing (0.33 us), in a reproduction of LithOS on an A100.
fn sliced() -> Mechanism {
    mechanism(2_430, 0, Resident::Keeps)
}

/// "Tens of microseconds" (REEF, OSDI 2022).
fn reset() -> Mechanism {
    mechanism(0, 40_000, Resident::Restarts)
}

/// One write over PCIe; the blocks under way then end where they run.
fn drained() -> Mechanism {
    mechanism(0, 1_000, Resident::Drains)
}

/// GPreempt (ATC 2025) on an A100: some 100 us together, at most 40 us of which save 44 MB of state.
fn saved() -> Mechanism {
    mechanism(40_000, 60_000, Resident::Saves)
}

/// Unpublished: blocks that fetch their work with an atomic operation and read a flag each time.
fn persistent() -> u32 {
    110
}

/// About 50 ms until a new clock holds (LithOS, SOSP 2025).
fn reclocked() -> Mechanism {
    mechanism(0, 50_000_000, Resident::Keeps)
}

/// Merged blocks take as long as the kernel's own.
fn as_alone() -> u32 {
    100
}

impl Costs {
    /// Makes every sharing mechanism free. The host's cost of a kernel launch stays, since it is not a
    /// sharing mechanism but part of the work.
    #[must_use]
    pub fn ideal(&self) -> Self {
        Self {
            context_switch: Mechanism::FREE,
            context_yield: Mechanism::FREE,
            stream_hop: Mechanism::FREE,
            barrier: Mechanism::FREE,
            mask_ioctl: Mechanism::FREE,
            mask_tpc: Mechanism::FREE,
            mask_firmware: Mechanism::FREE,
            kernel_intercept: Mechanism::FREE,
            kernel_slice: Mechanism::FREE,
            preempt_reset: Mechanism::FREE,
            preempt_blocks: Mechanism::FREE,
            preempt_save: Mechanism::FREE,
            persistent_percent: as_alone(),
            clock_switch: Mechanism::FREE,
            process_start: Mechanism::FREE,
            shadow_switch: Mechanism::FREE,
            mig_destroy: Mechanism::FREE,
            mig_create: Mechanism::FREE,
            merge_fixed: Nanos::ZERO,
            merge_each: Nanos::ZERO,
            merge_wave_percent: as_alone(),
            ..self.clone()
        }
    }
}

/// How co-running kernels slow each other down; every number is a knob with its origin in the file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contention {
    /// `bandwidth`: slow-down of a fully DRAM-bound kernel whose L2 share is lost, minus 1.
    pub l2_penalty: f64,
    /// `linear` (gpu-lets): coefficients of own L2, others' L2, own DRAM, others' DRAM utilisation
    /// (0 to 1), and the constant.
    pub linear: [f64; 5],
    /// `igniter`: active time grows by this per unit (0 to 1) of the others' L2 utilisation.
    pub igniter_cache: f64,
    /// `igniter`: extra scheduling delay per kernel, ns: slope per co-runner and intercept.
    pub igniter_sched_ns: [f64; 2],
    /// `igniter`: MHz lost per watt demanded above the cap (a positive number).
    pub igniter_mhz_per_watt: f64,
}

/// Power: `idle + active while anything runs + cu × speed of CUs in use + DRAM energy`, capped
/// nowhere but in the `igniter` model.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Whole board, nothing running, W. CUs are not gated one by one.
    pub idle_w: f64,
    /// Additional draw of the board as soon as anything runs, W: clocks and memory awake.
    pub active_w: f64,
    /// One busy CU, W, whatever it does; used if a kernel's own draw is unknown.
    pub cu_w: f64,
    /// An operation on vector units at the boost clock, picojoules.
    pub vector_pj_per_flop: f64,
    /// An operation on matrix units at the boost clock, picojoules; the value for vector units if there
    /// are none.
    pub matrix_pj_per_flop: f64,
    /// DRAM traffic, picojoules per byte.
    pub dram_pj_per_byte: f64,
    /// Board limit, W.
    pub cap_w: f64,
}

/// Knobs of the analytic model: what fraction of the peak a library kernel reaches.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Analytic {
    /// Share of the peak arithmetic rate that the inner loop of a large product reaches.
    pub matmul_efficiency: f64,
    /// The same for dense convolutions, whose inner loops also find their inputs' addresses.
    pub conv_efficiency: f64,
    /// The same for depthwise and grouped convolutions.
    pub grouped_efficiency: f64,
    /// Share of the DRAM bandwidth that a streaming kernel reaches with all CUs.
    pub dram_efficiency: f64,
    /// CUs that saturate DRAM: below it bandwidth grows with the CUs.
    pub dram_saturating_cus: u32,
    /// Start-up and tail of any kernel on the GPU.
    pub kernel_floor: Nanos,
    /// From the start of a wave of a product's blocks until its units have work: addresses and the
    /// first panels.
    pub block_start: Nanos,
    /// Shortest time of 32 steps of a product's inner loop, however small the tile: the latency of
    /// panels that its stages do not hide.
    pub step_latency: Nanos,
    /// Share of the shorter one of a product's arithmetic and traffic that the longer one does not
    /// hide, 0 to 1.
    pub serial_share: f64,
}

impl Device {
    /// Whether the device is made by AMD.
    #[must_use]
    pub fn is_amd(&self) -> bool {
        self.vendor == Vendor::Amd
    }

    /// Compute units in all.
    #[must_use]
    pub fn cus(&self) -> u32 {
        self.topology.groups.iter().sum()
    }

    /// Share of the boost clock that the board's limit leaves to kernels that keep the vector or the
    /// matrix units (at `peak_tops` 10^12 operations per second) busy: energy per operation at the
    /// boost clock against what the limit leaves above idle. Small boards (L4, T4) hold much less
    /// than they print.
    #[must_use]
    pub fn held_clock(&self, matrix_units: bool, peak_tops: f64) -> f64 {
        let p = &self.power;
        let each = if matrix_units { p.matrix_pj_per_flop } else { p.vector_pj_per_flop };
        // 10^12 operations per second at one picojoule each are one watt.
        ((p.cap_w - p.idle_w) / (peak_tops * each)).min(1.0)
    }

    /// Power of the whole board, W, while kernels run that perform this many operations and move this
    /// many bytes of DRAM per nanosecond; at most the board's limit.
    #[must_use]
    pub fn watts(&self, matrix_units: bool, flops_per_ns: f64, dram_bytes_per_ns: f64) -> f64 {
        let p = &self.power;
        let each = if matrix_units { p.matrix_pj_per_flop } else { p.vector_pj_per_flop };
        // One picojoule per nanosecond is one milliwatt.
        let work = (flops_per_ns * each + dram_bytes_per_ns * p.dram_pj_per_byte) / 1e3;
        (p.idle_w + p.active_w + work).min(p.cap_w)
    }

    /// CUs that an MPS percentage grants: rounded down to the device's step, at least one step.
    #[must_use]
    pub fn mps_cus(&self, percent: f64) -> u32 {
        let step = self.mps.map_or(1, |m| m.round_cus);
        let cus = (f64::from(self.cus()) * percent / 100.0 + 1e-9) as u32;
        (cus / step * step).clamp(step, self.cus())
    }
}
