//! Autotuning as a workload: one model per operator, whose inference is the tuner's measurements of
//! it, kernel by kernel.
//!
//! A trial launches one of the kernels on offer a few times in a row, and the next trial the next
//! one. Building a trial's code is the tuner's work on the host, not part of the profile.

use std::collections::BTreeMap;

use crate::analytic::{self, Options};
use crate::device::Device;
use crate::kernel::{Launch, Model, Profile, Source};
use crate::lower::{Config, LowerError, Operator, operators};
use crate::units::{Bytes, Nanos};
use crate::zoo::ModelSpec;

/// How an operator is tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trials {
    /// Trials per operator. The kernels on offer are tried one after the other; beyond their number
    /// the tuner begins again.
    pub trials: u32,
    /// Launches per trial. AutoTVM's default is 13: one to warm up, then 3 times 4.
    pub launches: u32,
}

/// The tuning of every operator of `spec` at a batch size: a profile with one model per operator,
/// named as the operator, profiled at batch 1 (one inference is one operator tuned).
///
/// # Errors
/// The batch lies outside 1 to [`crate::lower::MAX_BATCH`].
pub fn workload(
    device: &Device,
    spec: &ModelSpec,
    batch: u32,
    options: &Options,
    trials: Trials,
) -> Result<Profile, LowerError> {
    let config = Config { batch, precision: options.precision, fused: options.fused };
    let mut profile = Profile {
        device: device.name.clone(),
        source: Source::Analytic,
        provenance: analytic::provenance(options),
        kernels: vec![],
        models: BTreeMap::new(),
        corun: vec![],
    };
    for operator in operators(spec, device, config)? {
        let model = model(device, operator, trials, &mut profile);
        profile.models.insert(model.name.clone(), model);
    }
    Ok(profile)
}

fn model(device: &Device, operator: Operator, trials: Trials, profile: &mut Profile) -> Model {
    let Operator { name, variants, .. } = operator;
    // What a measurement keeps on the device: operands and result.
    let bytes = variants.iter().map(|k| k.dram_bytes).max().unwrap_or(0);
    let first = profile.kernels.len();
    let count = variants.len();
    profile.kernels.extend(variants.into_iter().map(|k| analytic::kernel(device, k)));
    let host = device.costs.launch;
    let launches = (0..trials.trials as usize).flat_map(|trial| {
        let launch = Launch { kernel: first + trial % count, host };
        std::iter::repeat_n(launch, trials.launches as usize)
    });
    Model {
        name,
        weights: Bytes(bytes),
        activations_per_item: Bytes(0),
        input_per_item: Bytes(0),
        output_per_item: Bytes(0),
        load: Nanos::ZERO,
        host_per_request: Nanos::ZERO,
        batches: BTreeMap::from([(1, launches.collect())]),
    }
}
