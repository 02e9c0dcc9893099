//! The steps of a generating model on one device: kernels with their curves, and programs that are
//! computed once and shared by all steps alike.
//!
//! ```
//! use cotenant_profiles::Device;
//! use cotenant_profiles::steps::{StepLibrary, StepOptions};
//! use cotenant_profiles::zoo::decoder::{StepShape, decoder};
//!
//! let device = Device::builtin("h100-sxm")?;
//! let llama = decoder("llama-3.1-8b")?;
//! let mut steps = StepLibrary::new(llama, device, StepOptions::default());
//! // A prompt of 512 tokens beside three sequences that generate.
//! let program = steps.program(&StepShape::new(&[(512, 512)], &[900, 1200, 80]));
//! assert!(program.launches().count() > 300);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;

use crate::analytic;
use crate::device::Device;
use crate::executor::Executor;
use crate::kernel::{Kernel, Launch, Op};
use crate::lower::{self, Precision};
use crate::units::Nanos;
use crate::zoo::decoder::{Decoder, Rounding, StepShape};

/// How steps are computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOptions {
    /// Numbers computed with.
    pub precision: Precision,
    /// What the host pays per launch. With [`Executor::Graphs`], the default, a step that only
    /// generates is one captured graph; a step with prompts is a graph per piece between two calls of
    /// attention, which the host launches one by one (vLLM's default, full and piecewise graphs).
    pub executor: Executor,
    /// Which steps share a program.
    pub rounding: Rounding,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self {
            precision: Precision::Fp16,
            executor: Executor::Graphs,
            rounding: Rounding::default(),
        }
    }
}

/// What one step launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepProgram {
    /// The step that it stands for, rounded.
    pub shape: StepShape,
    /// Launches in stream order, in runs that are repeated: before the transformer's layers, those
    /// layers, and after.
    pub segments: Vec<StepSegment>,
    /// Time of its kernels one after the other on the whole device, ns; no host time.
    pub gpu_ns: u64,
}

/// Launches that are issued several times in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSegment {
    /// Launches of kernels of the library.
    pub launches: Vec<Launch>,
    /// How often.
    pub repeat: u32,
}

impl StepProgram {
    /// Every launch, in stream order.
    pub fn launches(&self) -> impl Iterator<Item = Launch> + '_ {
        self.segments
            .iter()
            .flat_map(|s| (0..s.repeat).flat_map(move |_| s.launches.iter().copied()))
    }
}

/// A decoder on a device: its kernels so far, and the programs of its steps so far.
#[derive(Clone, Debug)]
pub struct StepLibrary {
    decoder: Decoder,
    device: Device,
    options: StepOptions,
    kernels: Vec<Kernel>,
    known: BTreeMap<String, usize>,
    programs: Vec<StepProgram>,
    by_shape: BTreeMap<StepShape, usize>,
}

impl StepLibrary {
    /// An empty library.
    #[must_use]
    pub fn new(decoder: Decoder, device: Device, options: StepOptions) -> Self {
        Self {
            decoder,
            device,
            options,
            kernels: Vec::new(),
            known: BTreeMap::new(),
            programs: Vec::new(),
            by_shape: BTreeMap::new(),
        }
    }

    /// The model.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// How steps are computed.
    #[must_use]
    pub fn options(&self) -> &StepOptions {
        &self.options
    }

    /// Kernels so far. Programs refer to them by index; more are only ever added behind them.
    #[must_use]
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Programs so far, by the index that [`Self::index`] gives.
    #[must_use]
    pub fn programs(&self) -> &[StepProgram] {
        &self.programs
    }

    /// The program of a step; see [`Self::index`].
    pub fn program(&mut self, shape: &StepShape) -> &StepProgram {
        let index = self.index(shape);
        &self.programs[index]
    }

    /// The index of a step's program, which is computed if no step alike asked for it before. Equal
    /// steps give equal programs, whatever was asked for in between; indices depend on the order.
    ///
    /// # Panics
    /// The step is empty: there is nothing to launch.
    pub fn index(&mut self, shape: &StepShape) -> usize {
        assert!(!shape.is_empty(), "a step without tokens launches nothing");
        let shape = self.options.rounding.round(shape);
        if let Some(&index) = self.by_shape.get(&shape) {
            return index;
        }
        let program = self.compute(shape);
        self.programs.push(program);
        self.by_shape.insert(shape, self.programs.len() - 1);
        self.programs.len() - 1
    }

    fn compute(&mut self, shape: StepShape) -> StepProgram {
        let step = self.decoder.step(&shape);
        let lowered = lower::step(&step, &self.device, self.options.precision);
        let indices: Vec<usize> = lowered.kernels.into_iter().map(|k| self.intern(k)).collect();
        let mut segments = Vec::new();
        let mut gpu_ns = 0;
        // A piece of a graph begins where the step does, and behind every call of attention.
        let mut begins = true;
        for (launches, repeat) in lowered.segments {
            let launches: Vec<Launch> = launches
                .into_iter()
                .map(|k| {
                    let kernel = &self.kernels[indices[k]];
                    let host = self.host(kernel, &shape, begins);
                    begins = kernel.op == Op::Attention && shape.prefill.tokens > 0;
                    gpu_ns += u64::from(repeat) * kernel.at(self.device.cus());
                    Launch { kernel: indices[k], host }
                })
                .collect();
            segments.push(StepSegment { launches, repeat });
        }
        StepProgram { shape, segments, gpu_ns }
    }

    /// Host time to issue a launch; `begins`: it is the first one of a graph.
    fn host(&self, kernel: &Kernel, shape: &StepShape, begins: bool) -> Nanos {
        let executor = self.options.executor;
        if executor == Executor::Graphs && kernel.op == Op::Attention && shape.prefill.tokens > 0 {
            return Executor::Eager.host(&self.device, 0, false);
        }
        executor.host(&self.device, usize::from(!begins), false)
    }

    fn intern(&mut self, shape: lower::KernelShape) -> usize {
        if let Some(&index) = self.known.get(&shape.id) {
            return index;
        }
        let id = shape.id.clone();
        self.kernels.push(analytic::kernel(&self.device, shape));
        self.known.insert(id, self.kernels.len() - 1);
        self.kernels.len() - 1
    }
}
