//! What is measured, in which order.

use std::collections::BTreeMap;
use std::time::Duration;

use cotenant_profiles::lower::{MAX_BATCH, Precision};
use cotenant_profiles::zoo::decoder::{self, Decoder, DecoderError, StepShape};
use cotenant_profiles::zoo::{self, ModelSpec, ZooError};
use cotenant_profiles::{Bytes, Device as GpuDescription};

use crate::drive::Stop;
use crate::steps;
use crate::work::{Work, launches};

/// What to collect.
#[derive(Clone, Debug)]
pub struct Request {
    /// The GPU as the profile will name it.
    pub device: GpuDescription,
    /// Models of the zoo, or paths of a `config.json`.
    pub models: Vec<String>,
    /// Batch sizes.
    pub batches: Vec<u32>,
    /// Number format of the computation.
    pub precision: Precision,
    /// CU counts; if empty, the default ladder.
    pub cus: Vec<u32>,
    /// Timed launches of one visit.
    pub samples: usize,
    /// Visits of every point.
    pub rounds: usize,
    /// How many of the longest kernels are measured in pairs.
    pub corun_kernels: usize,
    /// Stop after this time.
    pub budget: Option<Duration>,
    /// How long the GPU is kept busy before anything is measured, so that its clocks rise.
    pub ramp: Duration,
    /// A request to end early. What has been measured by then is assembled.
    pub stop: Stop,
    /// Seed of the order.
    pub seed: u64,
}

impl Request {
    /// Whether to stop measuring, `taken` after the start.
    pub(crate) fn is_over(&self, taken: Duration) -> bool {
        self.stop.wanted() || self.budget.is_some_and(|b| taken >= b)
    }
}

/// Why a request cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No such model.
    #[error(transparent)]
    Model(#[from] ZooError),
    /// The file does not describe a usable model.
    #[error("{0}")]
    Config(String),
    /// No such batch size.
    #[error("batch {0}: 1 to {MAX_BATCH} are possible")]
    Batch(u32),
    /// A CU count that cannot be partitioned off.
    #[error("{cus} CUs: partitions of this GPU are multiples of 2 up to {most}, or all {all}")]
    Cus {
        /// CUs asked for.
        cus: u32,
        /// The largest partition.
        most: u32,
        /// CUs of the device.
        all: u32,
    },
    /// The description names another GPU.
    #[error("the GPU is `{found}`, {name} describes `{described}`: name the device that it is")]
    OtherName {
        /// Name of the description.
        name: String,
        /// Title of the description.
        described: String,
        /// Name of the GPU.
        found: String,
    },
    /// The description is of another GPU.
    #[error("{name} has {described} CUs, this GPU has {found}: name the device that it is")]
    OtherDevice {
        /// The description.
        name: String,
        /// Its CUs.
        described: u32,
        /// CUs of the GPU.
        found: u32,
    },
}

/// One point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Index into [`Plan::works`].
    pub work: usize,
    /// CUs.
    pub cus: u32,
    /// Cut in groups of 8 instead of the finest atoms.
    pub coarse: bool,
}

/// One visit of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The point visited.
    pub point: Point,
    /// Which visit of the point it is.
    pub round: usize,
}

/// Memory that a model takes, in the number format that it is measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Its weights.
    pub weights: Bytes,
    /// Per item: activations, input, output.
    pub per_item: [Bytes; 3],
}

/// Something of a model that can be measured.
enum Source {
    Network(ModelSpec),
    /// Decode steps of a decoder, in which as many sequences generate as the batch says.
    Decode(Decoder),
    /// Prefill steps of a decoder over that many prompts.
    Prefill(Decoder),
}

/// Tokens of a generating sequence in the measured steps: the length at which models are shown.
const CONTEXT: u32 = 1024;
/// Tokens of a prompt.
const PROMPT: u32 = 512;

impl Source {
    fn find(name: &str) -> Result<Vec<Self>, PlanError> {
        match decoder::find(name) {
            Ok(decoder) => Ok(vec![Self::Decode(decoder.clone()), Self::Prefill(decoder)]),
            Err(DecoderError::Config(why)) => Err(PlanError::Config(why.to_string())),
            Err(_) => Ok(zoo::find(name).map(|spec| vec![Self::Network(spec)])?),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Network(spec) => spec.name.clone(),
            Self::Decode(decoder) => format!("{}-decode", decoder.name),
            Self::Prefill(decoder) => format!("{}-prefill", decoder.name),
        }
    }

    fn launches(&self, batch: u32, precision: Precision) -> Vec<Work> {
        match self {
            Self::Network(spec) => launches(spec, batch, precision),
            Self::Decode(decoder) | Self::Prefill(decoder) => {
                steps::works(decoder, &self.step(decoder, batch), precision)
            }
        }
    }

    /// The step that corresponds to a batch of a decoder.
    fn step(&self, decoder: &Decoder, batch: u32) -> StepShape {
        let long = |n: u32| n.min(decoder.positions);
        let (prompt, context) = (long(PROMPT), long(CONTEXT));
        match self {
            Self::Prefill(_) => StepShape::new(&vec![(prompt, prompt); batch as usize], &[]),
            _ => StepShape::new(&[], &vec![context; batch as usize]),
        }
    }

    /// The decoder and its step, if the source is a decoder.
    fn timed(&self, batch: u32) -> Option<(Decoder, StepShape)> {
        match self {
            Self::Network(_) => None,
            Self::Decode(decoder) | Self::Prefill(decoder) => {
                Some((decoder.clone(), self.step(decoder, batch)))
            }
        }
    }

    fn sizes(&self, precision: Precision) -> Sizes {
        match self {
            Self::Network(spec) => Sizes {
                weights: spec.weights_bytes(precision),
                per_item: [
                    spec.activations_per_item_bytes(precision),
                    spec.input_per_item_bytes(precision),
                    spec.output_per_item_bytes(precision),
                ],
            },
            // A token enters as a number and leaves as one.
            Self::Decode(decoder) | Self::Prefill(decoder) => {
                let tokens = self.step(decoder, 1).tokens();
                let activations = decoder.activations_bytes(tokens, 1, precision);
                let ids = Bytes(4 * u64::from(tokens));
                Sizes {
                    weights: decoder.weights_bytes(precision),
                    per_item: [activations, ids, Bytes(4)],
                }
            }
        }
    }
}

/// The works of a decoder model at a batch. The model is named as the collector names it, such as
/// `llama-3.2-1b-decode`; for other models the list is empty.
pub(crate) fn works_of_steps(model: &str, batch: u32, precision: Precision) -> Vec<Work> {
    let name = model.strip_suffix("-decode").or_else(|| model.strip_suffix("-prefill"));
    let found = name.and_then(|name| Source::find(name).ok()).unwrap_or_default();
    let source = found.iter().find(|s| s.name() == model);
    source.map_or_else(Vec::new, |s| s.launches(batch, precision))
}

/// Everything that is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Distinct kernels.
    pub works: Vec<Work>,
    /// Launches of each model and batch: indices into `works`.
    pub models: BTreeMap<String, BTreeMap<u32, Vec<usize>>>,
    /// The models' sizes.
    pub sizes: BTreeMap<String, Sizes>,
    /// Steps of decoders whose layers are measured.
    pub timed: Vec<(Decoder, StepShape)>,
    /// Points of the whole device, of half of it, and all others.
    steps: [Vec<Point>; 3],
}

/// What can be partitioned in groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coarse {
    /// CUs of a group.
    pub grain: u32,
    /// CUs of all groups.
    pub divisible: u32,
}

impl Coarse {
    fn can(self, cus: u32) -> bool {
        self.grain > 1 && cus.is_multiple_of(self.grain) && cus <= self.divisible
    }
}

/// Dense where curves bend, sparse where they are flat.
const LADDER: [u32; 12] = [2, 4, 6, 8, 12, 16, 24, 32, 48, 66, 96, 128];

/// Plans for a GPU of `cus` CUs, of which `divisible` can be partitioned in the finest atoms, and
/// `coarse` in groups.
///
/// # Errors
/// There is no such model, batch or CU count.
pub fn plan(
    request: &Request,
    cus: u32,
    divisible: u32,
    coarse: Coarse,
) -> Result<Plan, PlanError> {
    if request.device.cus() != cus {
        let (name, described) = (request.device.name.clone(), request.device.cus());
        return Err(PlanError::OtherDevice { name, described, found: cus });
    }
    let mut plan = Plan {
        works: Vec::new(),
        models: BTreeMap::new(),
        sizes: BTreeMap::new(),
        timed: Vec::new(),
        steps: [vec![], vec![], vec![]],
    };
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut sources = Vec::new();
    for name in &request.models {
        sources.extend(Source::find(name)?);
    }
    for model in sources {
        for &batch in &request.batches {
            if !(1..=MAX_BATCH).contains(&batch) {
                return Err(PlanError::Batch(batch));
            }
            let mut indices = Vec::new();
            for work in model.launches(batch, request.precision) {
                let index = *known.entry(work.id.clone()).or_insert(plan.works.len());
                if index == plan.works.len() {
                    plan.works.push(work);
                }
                indices.push(index);
            }
            plan.models.entry(model.name()).or_default().insert(batch, indices);
            plan.timed.extend(model.timed(batch));
        }
        plan.sizes.insert(model.name(), model.sizes(request.precision));
    }
    let mut ladder = request.cus.clone();
    if ladder.is_empty() {
        ladder = LADDER.iter().copied().filter(|c| *c <= divisible).collect();
    }
    if let Some(&bad) =
        ladder.iter().find(|c| **c != cus && (**c == 0 || **c > divisible || **c % 2 != 0))
    {
        return Err(PlanError::Cus { cus: bad, most: divisible, all: cus });
    }
    ladder.retain(|c| *c != cus);
    let nearest = ladder.iter().copied().min_by_key(|c| (c * 2).abs_diff(cus));
    for work in 0..plan.works.len() {
        plan.steps[0].push(Point { work, cus, coarse: false });
        for &c in &ladder {
            let step = if Some(c) == nearest { 1 } else { 2 };
            plan.steps[step].push(Point { work, cus: c, coarse: false });
            if c < divisible && coarse.can(c) {
                plan.steps[2].push(Point { work, cus: c, coarse: true });
            }
        }
    }
    Ok(plan)
}

/// Whether a GPU named `gpu` may be the one that `title` describes. An H100 has as many CUs as an H200,
/// and a measurement of one must not carry the other's name. Words such as `H200` decide; a title
/// without one fits every GPU.
pub(crate) fn same_gpu(title: &str, gpu: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let split = text.split(|c: char| !c.is_ascii_alphanumeric());
        split.map(str::to_uppercase).collect()
    };
    let model = |w: &String| {
        let digits = w.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let letters = w.len() - digits.len();
        (1..=2).contains(&letters)
            && (2..=4).contains(&digits.len())
            && digits.chars().all(|c| c.is_ascii_digit())
    };
    let here = words(gpu);
    words(title).iter().find(|w| model(w)).is_none_or(|w| here.contains(w))
}

impl Plan {
    /// All visits in order. Only the seed determines the order.
    #[must_use]
    pub fn visits(&self, request: &Request) -> Vec<Planned> {
        let mut state = request.seed;
        let mut all = Vec::with_capacity(self.visit_count(request));
        for round in 0..request.rounds {
            for step in &self.steps {
                let mut points = step.clone();
                shuffle(&mut points, &mut state);
                all.extend(points.into_iter().map(|point| Planned { point, round }));
            }
        }
        all
    }

    /// How many visits there are.
    #[must_use]
    pub fn visit_count(&self, request: &Request) -> usize {
        request.rounds * self.steps.iter().map(Vec::len).sum::<usize>()
    }
}

/// Shuffles items (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, (next(state) % (i as u64 + 1)) as usize);
    }
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_decoder_every_layer_of_both_kinds_of_steps_is_measured() {
        let sources = Source::find("llama-3.2-1b").unwrap();
        let names: Vec<String> = sources.iter().map(Source::name).collect();
        assert_eq!(names, ["llama-3.2-1b-decode", "llama-3.2-1b-prefill"]);
        let distinct = |source: &Source, batch| {
            let works = source.launches(batch, Precision::Bf16);
            let mut ids: Vec<String> = works.iter().map(|w| w.id.clone()).collect();
            assert_eq!(ids.len(), 1 + 16 * 10 + 4, "ten launches in each of sixteen layers");
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let decode = distinct(&sources[0], 4);
        assert!(decode.contains(&"gemm-m4-n3072-k2048-bf16".to_owned()), "{decode:?}");
        let attention = "decode_attention-4x4x4092w1024-h32kv8x64-bf16";
        assert!(decode.contains(&attention.to_owned()), "{decode:?}");
        let prefill = distinct(&sources[1], 2);
        let attention = "prefill_attention-2x1024x0w512-h32kv8x64-bf16";
        assert!(prefill.contains(&attention.to_owned()), "{prefill:?}");
        assert!(matches!(Source::find("resnet18").unwrap()[..], [Source::Network(_)]));
        assert!(Source::find("resnet19").is_err());
    }

    #[test]
    fn an_h100_is_no_h200() {
        let title = |name: &str| GpuDescription::builtin(name).unwrap().title;
        assert!(same_gpu(&title("h200-sxm"), "NVIDIA H200"));
        assert!(!same_gpu(&title("h200-sxm"), "NVIDIA H100 80GB HBM3"));
        assert!(same_gpu(&title("h100-sxm"), "NVIDIA H100 80GB HBM3"));
        assert!(same_gpu(&title("a100-sxm-80"), "NVIDIA A100-SXM4-80GB"));
        assert!(same_gpu(&title("a30"), "NVIDIA A30"));
        assert!(same_gpu(&title("v100-sxm2-16"), "Tesla V100-SXM2-16GB"));
        assert!(!same_gpu(&title("a30"), "NVIDIA A100-SXM4-80GB"));
        assert!(same_gpu("my own GPU", "anything"));
    }
}
