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

mod measured;

pub use measured::{LayerTimes, TimedLayer};

use std::collections::BTreeMap;

use crate::analytic;
use crate::device::Device;
use crate::executor::Executor;
use crate::kernel::{Kernel, Launch, Op};
use crate::lower::{Precision, step_layer};
use crate::roofline::{self, KernelShape};
use crate::units::Nanos;
use crate::zoo::decoder::{Decode, Decoder, Rounding, Segment, StepLayer, StepShape};

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
    measured: Option<LayerTimes>,
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
            measured: None,
            kernels: Vec::new(),
            known: BTreeMap::new(),
            programs: Vec::new(),
            by_shape: BTreeMap::new(),
        }
    }

    /// The same library with measured times: on the whole device, a layer that was timed takes the
    /// time of its row, and fewer compute units slow it down as computed. Layers that were not timed
    /// stay as computed.
    ///
    /// # Panics
    /// Programs were asked for already.
    #[must_use]
    pub fn with_measured(self, times: LayerTimes) -> Self {
        assert!(self.programs.is_empty(), "measured times come before the first program");
        Self { measured: Some(times), ..self }
    }

    /// Measured times that layers are scaled through.
    #[must_use]
    pub fn measured(&self) -> Option<&LayerTimes> {
        self.measured.as_ref()
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

    /// The kernels of those layers of a step that are `wanted`, in stream order, of layers that are
    /// repeated once: for tables of kernels by size.
    pub fn layers(&mut self, shape: &StepShape, wanted: impl Fn(&StepLayer) -> bool) -> Vec<usize> {
        let step = self.decoder.step(shape);
        let last = step.segments.len() - 1;
        let mut kernels = vec![];
        for (at, segment) in step.segments.iter().enumerate() {
            let row = |l: &StepLayer| TimedLayer::of(l, at == last);
            // What one row of measured times stands for is scaled together.
            let rows: Vec<_> = segment.layers.iter().filter(|l| wanted(l)).map(row).collect();
            let same = |l: &&StepLayer| wanted(l) || row(l).is_some() && rows.contains(&row(l));
            let layers: Vec<StepLayer> = segment.layers.iter().filter(same).copied().collect();
            let part = Segment { layers, repeat: 1 };
            let all = self.segment(&part, shape, at == last);
            let chosen = all.into_iter().zip(&part.layers).filter(|(_, l)| wanted(l));
            kernels.extend(chosen.map(|(k, _)| k));
        }
        kernels
    }

    fn compute(&mut self, shape: StepShape) -> StepProgram {
        let step = self.decoder.step(&shape);
        let last = step.segments.len() - 1;
        let mut segments = Vec::new();
        let mut gpu_ns = 0;
        // A piece of a graph begins where the step does, and behind every call of attention.
        let mut begins = true;
        for (at, segment) in step.segments.iter().enumerate() {
            let mut launches = Vec::new();
            for index in self.segment(segment, &shape, at == last) {
                let kernel = &self.kernels[index];
                let host = self.host(kernel, &shape, begins);
                begins = kernel.op == Op::Attention && shape.prefill.tokens > 0;
                gpu_ns += u64::from(segment.repeat) * kernel.at(self.device.cus());
                launches.push(Launch { kernel: index, host });
            }
            segments.push(StepSegment { launches, repeat: segment.repeat });
        }
        StepProgram { shape, segments, gpu_ns }
    }

    /// The kernels of a segment's layers, by index.
    fn segment(&mut self, segment: &Segment, shape: &StepShape, last: bool) -> Vec<usize> {
        let precision = self.options.precision;
        let lower = |l: &StepLayer| step_layer(l, &self.device, precision);
        let kernels: Vec<KernelShape> = segment.layers.iter().map(lower).collect();
        let timed = |l: &StepLayer| TimedLayer::of(l, last);
        let rows: Vec<Option<TimedLayer>> = segment.layers.iter().map(timed).collect();
        // Layers that one row of the table stands for are scaled together: by that row over what
        // they are computed to take between them.
        let factor = |row: Option<TimedLayer>| -> Option<f64> {
            let row = row?;
            let measured = self.measured_ns(row, shape)?;
            let cus = self.device.cus();
            let own = rows.iter().zip(&kernels).filter(|(r, _)| **r == Some(row));
            let computed: u64 = own.map(|(_, k)| roofline::duration_ns(&self.device, k, cus)).sum();
            let times = rows.iter().filter(|r| **r == Some(row)).count();
            // Two norms of a layer are two calls of one row.
            let calls = if row == TimedLayer::LayerNorm { times } else { 1 };
            Some(measured * calls as f64 / computed.max(1) as f64)
        };
        let factors: Vec<Option<f64>> = rows.iter().map(|&r| factor(r)).collect();
        kernels.into_iter().zip(factors).map(|(k, f)| self.intern(k, f)).collect()
    }

    /// What the table says of a row of a step.
    fn measured_ns(&self, row: TimedLayer, shape: &StepShape) -> Option<f64> {
        let times = self.measured.as_ref()?;
        if row == TimedLayer::Attention {
            return times.attention_ns(shape, |s| self.computed_ns(row, s));
        }
        let rows = if row.by_sequences() { shape.sequences() } else { shape.tokens() };
        // So many rows: a prompt of as many tokens, or as many sequences.
        let of = |n: u32| match row.by_sequences() {
            true => {
                let decode = Decode { sequences: n, context: u64::from(n) };
                StepShape { decode, ..StepShape::default() }
            }
            false => StepShape::new(&[(n, n)], &[]),
        };
        times.row_ns(row, rows, |n| self.computed_ns(row, &of(n)))
    }

    /// What the layers behind a row are computed to take in one layer of a step, ns.
    fn computed_ns(&self, row: TimedLayer, shape: &StepShape) -> f64 {
        let step = self.decoder.step(shape);
        let last = step.segments.len() - 1;
        let mut sum = 0;
        for (at, segment) in step.segments.iter().enumerate() {
            for layer in &segment.layers {
                if TimedLayer::of(layer, at == last) == Some(row) {
                    let kernel = step_layer(layer, &self.device, self.options.precision);
                    sum += roofline::duration_ns(&self.device, &kernel, self.device.cus());
                }
            }
        }
        let calls = if row == TimedLayer::LayerNorm { 2.0 } else { 1.0 };
        sum as f64 / calls
    }

    /// Host time to issue a launch; `begins`: it is the first one of a graph.
    fn host(&self, kernel: &Kernel, shape: &StepShape, begins: bool) -> Nanos {
        let executor = self.options.executor;
        if executor == Executor::Graphs && kernel.op == Op::Attention && shape.prefill.tokens > 0 {
            return Executor::Eager.host(&self.device, 0, false);
        }
        executor.host(&self.device, usize::from(!begins), false)
    }

    /// The index of a kernel, which is added if it is new; with `factor`, its whole curve takes so
    /// many times as long as computed.
    fn intern(&mut self, shape: KernelShape, factor: Option<f64>) -> usize {
        let cus = self.device.cus();
        let scaled = factor.map(|f| {
            let ns = roofline::duration_ns(&self.device, &shape, cus) as f64 * f;
            (f, ns.round().max(1.0) as u64)
        });
        let id = match scaled {
            Some((_, ns)) => format!("{}@{ns}ns", shape.id),
            None => shape.id.clone(),
        };
        if let Some(&index) = self.known.get(&id) {
            return index;
        }
        let mut kernel = analytic::kernel(&self.device, shape);
        if let Some((factor, _)) = scaled {
            kernel.curve = kernel.curve.scaled(factor);
        }
        kernel.id.clone_from(&id);
        self.kernels.push(kernel);
        self.known.insert(id, self.kernels.len() - 1);
        self.kernels.len() - 1
    }
}
