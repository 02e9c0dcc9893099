//! Operators one by one, and autotuning as a workload: one model per operator, whose inference is
//! the tuner's measurements of it, kernel by kernel.
//!
//! A trial launches one of the kernels on offer a few times in a row, and the next trial the next
//! one. Building a trial's code is the tuner's work on the host, not part of the profile.

use std::collections::BTreeMap;

use crate::analytic::{self, Options};
use crate::device::Device;
use crate::kernel::{Launch, Model, Profile, Source};
use crate::lower::{Config, LowerError, Operator, lower_tuned, operators};
use crate::text::did_you_mean;
use crate::units::{Bytes, Nanos};
use crate::zoo::ModelSpec;

/// Why an operator has no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TuneError {
    /// The model is not lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The model has no such operator.
    #[error("model `{model}` has no operator `{operator}` at batch {batch}{near}; it has {known}")]
    NoOperator {
        /// The model.
        model: String,
        /// The operator asked for.
        operator: String,
        /// Names depend on it.
        batch: u32,
        /// The closest known name, in words.
        near: String,
        /// Every name.
        known: String,
    },
}

/// One operator of `spec` as a model of its own, of one launch, at one batch size.
///
/// # Errors
/// No such operator, or a batch outside 1 to [`crate::lower::MAX_BATCH`].
pub fn operator(
    device: &Device,
    spec: &ModelSpec,
    batch: u32,
    options: &Options,
    name: &str,
) -> Result<Profile, TuneError> {
    let config = Config { batch, precision: options.precision, fused: options.fused };
    let all = operators(spec, device, config)?;
    let Some(found) = all.iter().find(|o| o.name == name) else {
        let known: Vec<&str> = all.iter().map(|o| o.name.as_str()).collect();
        return Err(TuneError::NoOperator {
            model: spec.name.clone(),
            operator: name.to_owned(),
            batch,
            near: did_you_mean(name, known.iter().copied()),
            known: known.join(", "),
        });
    };
    let lowered = lower_tuned(spec, device, config, options.tuned_cus)?;
    let on_offer = |id: &str| found.variants.iter().any(|v| v.id == id);
    let kernel = lowered.kernels.into_iter().find(|k| on_offer(&k.id));
    let kernel = kernel.expect("every operator is lowered to one of its variants");
    let mut profile = empty(device, options);
    let launch = Launch { kernel: 0, host: device.costs.launch };
    let model = bare(name.to_owned(), Bytes(kernel.dram_bytes), batch, vec![launch]);
    profile.kernels.push(analytic::kernel(device, kernel));
    profile.models.insert(name.to_owned(), model);
    Ok(profile)
}

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
    let mut profile = empty(device, options);
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
    bare(name, Bytes(bytes), 1, launches.collect())
}

fn empty(device: &Device, options: &Options) -> Profile {
    Profile {
        device: device.name.clone(),
        source: Source::Analytic,
        provenance: analytic::provenance(options),
        kernels: vec![],
        models: BTreeMap::new(),
        corun: vec![],
    }
}

/// A model without copies and host work.
fn bare(name: String, weights: Bytes, batch: u32, launches: Vec<Launch>) -> Model {
    Model {
        name,
        weights,
        activations_per_item: Bytes(0),
        input_per_item: Bytes(0),
        output_per_item: Bytes(0),
        load: Nanos::ZERO,
        host_per_request: Nanos::ZERO,
        batches: BTreeMap::from([(batch, launches)]),
    }
}
