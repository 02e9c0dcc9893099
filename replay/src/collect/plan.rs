//! What is measured, and in which order.

use std::collections::BTreeMap;
use std::time::Duration;

use cotenant_profiles::lower::{MAX_BATCH, Precision};
use cotenant_profiles::zoo::decoder::{self, Decoder};
use cotenant_profiles::zoo::{self, ModelSpec, ZooError};
use cotenant_profiles::{Bytes, Device as GpuDescription};

use crate::drive::Stop;
use crate::work::{Work, launches, products};

/// What to collect.
#[derive(Clone, Debug)]
pub struct Request {
    /// The GPU as the profile will name it.
    pub device: GpuDescription,
    /// Models of the zoo.
    pub models: Vec<String>,
    /// Batch sizes.
    pub batches: Vec<u32>,
    /// Numbers computed with.
    pub precision: Precision,
    /// CU counts; empty for the default ladder.
    pub cus: Vec<u32>,
    /// Timed launches of one visit.
    pub samples: usize,
    /// Visits of every point.
    pub rounds: usize,
    /// How many of the longest kernels are measured in pairs.
    pub corun_kernels: usize,
    /// Stop after this time.
    pub budget: Option<Duration>,
    /// How long the GPU is kept busy before anything is measured, for its clocks to rise.
    pub ramp: Duration,
    /// Somebody may ask for the end: what is measured by then is assembled.
    pub stop: Stop,
    /// Seed of the order.
    pub seed: u64,
}

impl Request {
    /// Whether measuring is to end, `taken` after it began.
    pub(crate) fn is_over(&self, taken: Duration) -> bool {
        self.stop.wanted() || self.budget.is_some_and(|b| taken >= b)
    }
}

/// Why nothing can be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No such model.
    #[error(transparent)]
    Model(#[from] ZooError),
    /// No batch of that size.
    #[error("batch {0}: 1 to {MAX_BATCH} are possible")]
    Batch(u32),
    /// CUs that cannot be given.
    #[error("{cus} CUs: partitions of this GPU are multiples of 2 up to {most}, or all {all}")]
    Cus {
        /// CUs asked for.
        cus: u32,
        /// The largest partition.
        most: u32,
        /// CUs of the device.
        all: u32,
    },
    /// The description is of a GPU of another name.
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
    /// Where.
    pub point: Point,
    /// The how-manieth visit.
    pub round: usize,
}

/// What a model takes, in the numbers that it is measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Its weights.
    pub weights: Bytes,
    /// Of one item: activations, input, output.
    pub per_item: [Bytes; 3],
}

/// A model that can be measured.
enum Source {
    Network(ModelSpec),
    /// Of a decoder, the matrix products of its transformer layers.
    Products(Decoder),
}

impl Source {
    fn find(name: &str) -> Result<Self, ZooError> {
        match decoder::decoder(name) {
            Ok(decoder) => Ok(Self::Products(decoder)),
            Err(_) => zoo::find(name).map(Self::Network),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Network(spec) => spec.name.clone(),
            Self::Products(decoder) => format!("{}-products", decoder.name),
        }
    }

    fn launches(&self, batch: u32, precision: Precision) -> Vec<Work> {
        match self {
            Self::Network(spec) => launches(spec, batch, precision),
            Self::Products(decoder) => products(decoder, batch, precision),
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
            // A token goes in as a number and comes out as one.
            Self::Products(decoder) => Sizes {
                weights: decoder.weights_bytes(precision),
                per_item: [decoder.activations_bytes(1, 1, precision), Bytes(4), Bytes(4)],
            },
        }
    }
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
    /// Points of the whole device, of its half, and the others.
    steps: [Vec<Point>; 3],
}

/// What can be cut in groups.
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

/// Plans for a GPU of `cus` CUs, of which `divisible` can be partitioned in the finest atoms, and `coarse`
/// in groups.
///
/// # Errors
/// A model, batch or CU count that is not there.
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
        steps: [vec![], vec![], vec![]],
    };
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for name in &request.models {
        let model = Source::find(name)?;
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

/// Whether a GPU of the name `gpu` may be what `title` describes: an H100 has as many CUs as an H200,
/// and what was measured on one must not bear the other's name. Words such as `H200` decide; a
/// title without one fits every GPU.
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
    /// Every visit in its order, which the seed alone decides.
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

/// Puts items into a random order (Fisher and Yates).
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
    fn of_a_decoder_the_products_are_measured_under_a_name_of_their_own() {
        let source = Source::find("llama-3.2-1b").unwrap();
        assert_eq!(source.name(), "llama-3.2-1b-products");
        let works = source.launches(4, Precision::Bf16);
        let mut ids: Vec<&str> = works.iter().map(|w| w.id.as_str()).collect();
        assert_eq!(ids.len(), 16 * 4, "four products in each of sixteen layers");
        assert_eq!(ids[0], "gemm-m4-n3072-k2048-bf16");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4);
        assert!(matches!(Source::find("resnet18"), Ok(Source::Network(_))));
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
