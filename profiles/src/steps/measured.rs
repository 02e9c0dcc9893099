//! Measured times of a decoder's layers on the whole device, and how computed ones are scaled
//! through them.

use std::collections::BTreeMap;

use crate::kernel::Source;
use crate::zoo::decoder::{Decode, Decoder, Matrix, Prefill, StepLayer, StepShape};

/// The layers that tables of serving simulators time, by vLLM's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are those of the files
pub enum TimedLayer {
    Embedding,
    LayerNorm,
    QkvProj,
    RotaryEmb,
    /// With the write of new keys and values to the cache.
    Attention,
    OProj,
    GateUpProj,
    ActFn,
    DownProj,
    /// A mixture of experts after its router: choice, grouped products, sum.
    Moe,
    FinalLayerNorm,
    /// With the choice of the rows.
    LmHead,
    Sampler,
}

impl TimedLayer {
    /// Every layer, with the name that files use.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Embedding, "embedding"),
        (Self::LayerNorm, "layernorm"),
        (Self::QkvProj, "qkv_proj"),
        (Self::RotaryEmb, "rotary_emb"),
        (Self::Attention, "attention"),
        (Self::OProj, "o_proj"),
        (Self::GateUpProj, "gate_up_proj"),
        (Self::ActFn, "act_fn"),
        (Self::DownProj, "down_proj"),
        (Self::Moe, "moe"),
        (Self::FinalLayerNorm, "final_layernorm"),
        (Self::LmHead, "lm_head"),
        (Self::Sampler, "sampler"),
    ];

    /// The name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(layer, _)| *layer == self).expect("ALL lists every layer").1
    }

    /// The layer of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(layer, _)| *layer)
    }

    /// Whether its time goes by sequences instead of tokens.
    #[must_use]
    pub fn by_sequences(self) -> bool {
        matches!(self, Self::LmHead | Self::Sampler)
    }

    /// The row of a table that a layer of a step belongs to; `last`: behind the transformer's layers.
    /// `None`: no table has it.
    pub(super) fn of(layer: &StepLayer, last: bool) -> Option<Self> {
        Some(match layer {
            StepLayer::Embedding { .. } => Self::Embedding,
            StepLayer::RmsNorm { residual: true, .. } if last => Self::FinalLayerNorm,
            StepLayer::RmsNorm { residual: true, .. } => Self::LayerNorm,
            StepLayer::RmsNorm { residual: false, .. } => return None,
            StepLayer::Linear { matrix, .. } => match matrix {
                Matrix::QkvProj => Self::QkvProj,
                Matrix::OProj => Self::OProj,
                Matrix::GateUpProj => Self::GateUpProj,
                Matrix::DownProj => Self::DownProj,
                Matrix::LmHead => Self::LmHead,
                Matrix::Router => return None,
            },
            StepLayer::Rotary { .. } => Self::RotaryEmb,
            StepLayer::CacheWrite { .. }
            | StepLayer::PrefillAttention { .. }
            | StepLayer::DecodeAttention { .. } => Self::Attention,
            StepLayer::GatedActivation { .. } => Self::ActFn,
            StepLayer::Route { .. } | StepLayer::Experts { .. } | StepLayer::SumExperts { .. } => {
                Self::Moe
            }
            StepLayer::Gather { .. } => Self::LmHead,
            StepLayer::Sample { .. } => Self::Sampler,
        })
    }
}

/// Measured times of a decoder's layers, ns, on the whole device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerTimes {
    /// The decoder's name.
    pub model: String,
    /// The device.
    pub device: String,
    /// Where the times come from.
    pub source: Source,
    /// Provenance of the numbers: tool, version, precision.
    pub provenance: BTreeMap<String, String>,
    /// By layer and by its tokens (sequences where [`TimedLayer::by_sequences`]).
    pub rows: BTreeMap<TimedLayer, BTreeMap<u32, u64>>,
    /// Attention by the sums of what it computes.
    pub attention: BTreeMap<(Prefill, Decode), u64>,
}

/// Where an attention call lies among measured ones: sequences, new tokens and context of each of the
/// prompts, sequences that generate and context of each.
type Place = [u32; 5];

impl LayerTimes {
    /// Points in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.values().map(BTreeMap::len).sum::<usize>() + self.attention.len()
    }

    /// Whether there are no times.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the times of a step's layers, ns each. Layers that share a row are added up; a row with an
    /// unknown layer is left out.
    pub fn add_step(
        &mut self,
        decoder: &Decoder,
        shape: &StepShape,
        ns: impl Fn(&StepLayer) -> Option<u64>,
    ) {
        let step = decoder.step(shape);
        for (at, segment) in step.segments.iter().enumerate() {
            let mut sums: BTreeMap<TimedLayer, (Option<u64>, u64)> = BTreeMap::new();
            for layer in &segment.layers {
                if let Some(row) = TimedLayer::of(layer, at + 1 == step.segments.len()) {
                    let (sum, times) = sums.entry(row).or_insert((Some(0), 0));
                    *sum = sum.zip(ns(layer)).map(|(sum, ns)| sum + ns);
                    *times += 1;
                }
            }
            for (row, (sum, times)) in sums {
                let Some(ns) = sum.filter(|ns| *ns > 0) else { continue };
                // Two norms of a layer are two calls of one row.
                let ns = if row == TimedLayer::LayerNorm { ns.div_ceil(times) } else { ns };
                if row == TimedLayer::Attention {
                    self.attention.insert((shape.prefill, shape.decode), ns);
                } else {
                    let rows = if row.by_sequences() { shape.sequences() } else { shape.tokens() };
                    self.rows.entry(row).or_default().insert(rows, ns);
                }
            }
        }
    }

    /// The time of a layer for this many rows, ns. Between two measured numbers of rows, the time is
    /// interpolated. Beyond them, it is the computed time, multiplied by the ratio of measured to
    /// computed time at the nearest measured number of rows.
    pub(super) fn row_ns(
        &self,
        layer: TimedLayer,
        rows: u32,
        computed: impl Fn(u32) -> f64,
    ) -> Option<f64> {
        let points = self.rows.get(&layer)?;
        let below = points.range(..=rows).next_back();
        let above = points.range(rows..).next();
        let ns = |(_, &ns): (&u32, &u64)| ns as f64;
        match (below, above) {
            (Some(a), Some(b)) if a.0 == b.0 => Some(ns(a)),
            (Some(a), Some(b)) => {
                let part = f64::from(rows - a.0) / f64::from(b.0 - a.0);
                Some(ns(a) + part * (ns(b) - ns(a)))
            }
            (Some(end), None) | (None, Some(end)) => {
                Some(computed(rows) * ns(end) / computed(*end.0))
            }
            (None, None) => None,
        }
    }

    /// The time of attention, ns: the computed time, multiplied by the ratio of measured to computed
    /// time of measured calls around it.
    pub(super) fn attention_ns(
        &self,
        shape: &StepShape,
        computed: impl Fn(&StepShape) -> f64,
    ) -> Option<f64> {
        let key = (shape.prefill, shape.decode);
        if let Some(&ns) = self.attention.get(&key) {
            return Some(ns as f64);
        }
        let factor = self.factor(place(shape), &computed)?;
        Some(computed(shape) * factor)
    }

    /// Measured over computed at a place: interpolated over the logarithms of its coordinates between
    /// the measured places around it, as far as there are any; else that of the nearest one.
    fn factor(&self, at: Place, computed: &dyn Fn(&StepShape) -> f64) -> Option<f64> {
        let ratio = |(&(prefill, decode), &ns): (&(Prefill, Decode), &u64)| {
            ns as f64 / computed(&StepShape { prefill, decode, padding: 0 }).max(1.0)
        };
        let known: Vec<(Place, _)> = self
            .attention
            .iter()
            .map(|row| {
                let (prefill, decode) = *row.0;
                (place(&StepShape { prefill, decode, padding: 0 }), row)
            })
            // A prompt alongside generating sequences is a different call from either alone.
            .filter(|(p, _)| (p[1] == 0) == (at[1] == 0) && (p[3] == 0) == (at[3] == 0))
            .collect();
        // In every coordinate the measured values right below and right above.
        let around: [[u32; 2]; 5] = std::array::from_fn(|i| {
            let values = || known.iter().map(|(p, _)| p[i]);
            let below = values().filter(|&v| v <= at[i]).max();
            let above = values().filter(|&v| v >= at[i]).min();
            [below.or(above).unwrap_or(at[i]), above.or(below).unwrap_or(at[i])]
        });
        let (mut sum, mut weights) = (0.0, 0.0);
        for (p, row) in &known {
            let mut weight = 1.0;
            for i in 0..5 {
                let [below, above] = around[i];
                let part = if below == above {
                    f64::from(u8::from(p[i] == below))
                } else {
                    let along = (log(at[i]) - log(below)) / (log(above) - log(below));
                    match p[i] {
                        v if v == below => 1.0 - along,
                        v if v == above => along,
                        _ => 0.0,
                    }
                };
                weight *= part;
            }
            if weight > 0.0 {
                sum += weight * libm::log(ratio(*row));
                weights += weight;
            }
        }
        if weights > 0.0 {
            return Some(libm::exp(sum / weights));
        }
        let distance = |p: &Place| -> f64 {
            (0..5).map(|i| (log(p[i]) - log(at[i])) * (log(p[i]) - log(at[i]))).sum()
        };
        let nearest = known.iter().min_by(|a, b| distance(&a.0).total_cmp(&distance(&b.0)));
        nearest.map(|(_, row)| ratio(*row))
    }
}

/// Mean lengths: calls are compared by what one of their sequences is.
fn place(shape: &StepShape) -> Place {
    let (prefill, decode) = (&shape.prefill, &shape.decode);
    let mean = |sum: u64, n: u32| {
        let n = u64::from(n.max(1));
        u32::try_from((sum + n / 2) / n).unwrap_or(u32::MAX)
    };
    let new = mean(u64::from(prefill.tokens), prefill.sequences);
    let cached = prefill.context.saturating_sub(u64::from(prefill.tokens));
    [
        prefill.sequences,
        new,
        mean(cached, prefill.sequences),
        decode.sequences,
        mean(decode.context, decode.sequences),
    ]
}

fn log(n: u32) -> f64 {
    libm::log2(f64::from(n) + 1.0)
}
