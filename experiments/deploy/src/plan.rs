//! Who runs where: what every format is written from.

use cotenant_profiles::{Bytes, Device, Nanos};

/// Settings of one or several GPUs of a kind.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The GPU.
    pub device: Device,
    /// Lines for the head of every file: mix, goals, version, expected numbers.
    pub header: Vec<String>,
    /// By index.
    pub gpus: Vec<Gpu>,
}

/// One GPU's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// How it is shared.
    pub sharing: Sharing,
    /// Who shares it.
    pub tenants: Vec<Tenant>,
}

/// How a GPU is shared. Lists are in the order of the GPU's tenants.
#[derive(Clone, Debug, PartialEq)]
pub enum Sharing {
    /// Processes take turns.
    TimeSlicing {
        /// How long a turn is.
        slice: TimeSlice,
    },
    /// One server process, a stream for each model instance.
    Streams,
    /// MPS; percentage of the CUs that a client may use, 100 where nothing is said.
    Mps {
        /// By tenant.
        percent: Vec<u32>,
    },
    /// MPS static partitions.
    Static {
        /// Chunks by tenant.
        chunks: Vec<u32>,
    },
    /// Hardware instances, with MPS inside where several tenants share one.
    Mig {
        /// Profiles by the device file's names.
        instances: Vec<String>,
        /// Which instance each tenant is on.
        place: Vec<usize>,
        /// Percentage of its instance's CUs that a client may use, 100 where nothing is said.
        percent: Vec<u32>,
    },
}

/// The driver's names for the length of a turn. What they mean in milliseconds is not published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeSlice {
    /// The driver's own.
    #[default]
    Default,
    /// `Short`.
    Short,
    /// `Medium`.
    Medium,
    /// `Long`.
    Long,
}

impl TimeSlice {
    const ALL: [Self; 4] = [Self::Default, Self::Short, Self::Medium, Self::Long];

    /// As `timeSlicingConfig.interval` of NVIDIA's DRA driver has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "Default",
            Self::Short => "Short",
            Self::Medium => "Medium",
            Self::Long => "Long",
        }
    }

    /// In lower case.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Short => "short",
            Self::Medium => "medium",
            Self::Long => "long",
        }
    }

    /// The one of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

impl Sharing {
    /// Processes take turns as the driver has it.
    pub const TURNS: Self = Self::TimeSlicing { slice: TimeSlice::Default };

    /// As reports word it, on GPUs of NVIDIA's.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::TimeSlicing { slice: TimeSlice::Default } => "time slicing".to_owned(),
            Self::TimeSlicing { slice } => format!("time slicing, {} turns", slice.word()),
            Self::Streams => "one server, a stream per instance".to_owned(),
            Self::Mps { percent } if percent.iter().all(|&p| p == 100) => "MPS".to_owned(),
            Self::Mps { percent } => format!("MPS, {}", list(percent, " %")),
            Self::Static { chunks } => {
                format!("MPS static partitions, {} chunks", list(chunks, ""))
            }
            Self::Mig { instances, place, percent } => {
                let shared = place.len() > instances.len() || percent.iter().any(|&p| p < 100);
                let inside = if shared { ", MPS inside" } else { "" };
                format!("MIG {}{inside}", instances.join(" + "))
            }
        }
    }
}

impl Sharing {
    /// As reports word it on a GPU: what is MPS on NVIDIA's is processes side by side on AMD's, and a static
    /// partition is a mask of CUs.
    #[must_use]
    pub fn words_on(&self, device: &Device) -> String {
        match self {
            Self::Mps { percent } if device.is_amd() && percent.iter().all(|&p| p >= 100) => {
                "side by side".to_owned()
            }
            Self::Static { chunks } if device.is_amd() => {
                format!("masks of {} CUs", list(chunks, ""))
            }
            _ => self.words(),
        }
    }
}

fn list(numbers: &[u32], unit: &str) -> String {
    let texts: Vec<String> = numbers.iter().map(|n| format!("{n}{unit}")).collect();
    texts.join(" / ")
}

/// One tenant's part of a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// Share of its requests that this GPU serves, above 0 and at most 1.
    pub requests: f64,
    /// Model instances, each a process of its own (a stream under [`Sharing::Streams`]).
    pub workers: u32,
    /// Most items of a batch.
    pub batch_max: u32,
    /// Longest wait for a batch to fill.
    pub batch_timeout: Nanos,
    /// Its goal.
    pub slo: Option<Nanos>,
    /// Takes what is left.
    pub best_effort: bool,
    /// Device memory of one worker, context included.
    pub memory: Bytes,
    /// It is a language model behind vLLM or SGLang, which takes a part of the memory for itself;
    /// `batch_max` is then the most sequences at once.
    pub engine: Option<Engine>,
}

/// What an engine is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Engine {
    /// Share of the memory of its GPU or instance.
    pub memory_fraction: Option<f64>,
    /// Memory of the key-value cache, in place of that.
    pub cache: Option<Bytes>,
    /// Most tokens of a step.
    pub step_tokens: u32,
}

/// A file to deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the folder.
    pub path: String,
    /// Content.
    pub text: String,
}

/// What a format makes of a plan.
pub(crate) enum Emitted {
    /// These files.
    Files(Vec<File>),
    /// The plan is for this format, which cannot express it.
    Cannot(String),
    /// The format is not for such a plan.
    Nothing,
}

impl Plan {
    /// The head of every file as comments.
    pub(crate) fn comments(&self) -> String {
        self.header.iter().map(|line| format!("# {line}\n")).collect()
    }

    pub(crate) fn file(&self, path: impl Into<String>, body: &str) -> File {
        File { path: path.into(), text: format!("{}{body}", self.comments()) }
    }

    /// Every tenant with its GPU, its index there, and a name that is unique among all.
    pub(crate) fn all(&self) -> impl Iterator<Item = Placed<'_>> {
        self.gpus.iter().enumerate().flat_map(move |(index, gpu)| {
            gpu.tenants.iter().enumerate().map(move |(i, tenant)| {
                let several = self.gpus.len() > 1 && tenant.requests < 1.0;
                let suffix = if several { format!("-gpu{index}") } else { String::new() };
                Placed { index, gpu, i, tenant, name: slug(&tenant.name) + &suffix }
            })
        })
    }
}

/// A tenant in its place.
pub(crate) struct Placed<'a> {
    pub(crate) index: usize,
    pub(crate) gpu: &'a Gpu,
    pub(crate) i: usize,
    pub(crate) tenant: &'a Tenant,
    /// A name that Kubernetes accepts.
    pub(crate) name: String,
}

/// A name as Kubernetes wants it: lower case, digits and dashes.
pub(crate) fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}
