//! Models of tenants that generate tokens: finds them and compiles their steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cotenant_profiles::files::Store;
use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::{StepLibrary, StepOptions};
use cotenant_profiles::zoo::decoder::{self, Decoder, Rounding, StepShape};
use cotenant_profiles::{Bytes, Device, Executor, Model, Nanos, Profile, Source};
use cotenant_sim::engine::Rules;
use cotenant_sim::program::{Code, HostTimes, ModelCode, StepLimits, as_batches};
use cotenant_sim::scenario::{Generates, TokenGoals};

use crate::canonical;
use crate::config::{EngineConfig, ProfileSource, Slo, TenantConfig};
use crate::digest;
use crate::models::Found;

/// Batches in the shown profile of a model that generates tokens: numbers of generating sequences, each of
/// `SHOWN_LENGTH`.
const SHOWN: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
const SHOWN_LENGTH: u32 = 1024;
/// The largest step that vLLM captures as one graph, sequences.
const LARGEST_GRAPH: u32 = 512;

/// The architecture of a tenant's model: a name from the zoo, or a `config.json`.
///
/// # Errors
/// It is neither.
pub(crate) fn decoder(base: &Path, config: &TenantConfig) -> Result<Decoder, String> {
    let model = &config.model;
    let found = if Path::new(model).extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        decoder::read_config(&base.join(model)).map(|c| c.decoder).map_err(|e| e.to_string())
    } else {
        decoder::decoder(model).map_err(|e| {
            format!(
                "{e}; `engine` is for models that generate tokens, or the path of a config.json"
            )
        })
    };
    let decoder = found.map_err(|e| format!("{}: {e}", config.model_at))?;
    within_context(config, &decoder)?;
    Ok(decoder)
}

/// Checks that an engine's longest sequence and a tenant's shortest request are within the context.
fn within_context(config: &TenantConfig, decoder: &Decoder) -> Result<(), String> {
    let Some(engine) = &config.engine else { return Ok(()) };
    let (name, positions) = (&decoder.name, decoder.positions);
    let most = engine.max_context.unwrap_or(positions);
    if most > positions {
        return Err(format!(
            "{}: engine.max_context: is {most}, but {name} has a context of {positions} tokens",
            config.model_at
        ));
    }
    let Some(tokens) = config.arrivals.tokens else { return Ok(()) };
    let least = u64::from(tokens.tokens_in.least()) + u64::from(tokens.tokens_out.least());
    if least > u64::from(most) {
        return Err(format!(
            "{}: every request has at least {least} tokens, prompt and output, and {name} has a \
             context of {most}: shorten `tokens_in` or `tokens_out`",
            config.arrivals_at
        ));
    }
    Ok(())
}

/// The steps of a decoder, scaled by measured layers if there are any, and the file of these measurements.
fn library(
    decoder: Decoder,
    device: &Device,
    precision: Precision,
    graphs: bool,
    sources: &[ProfileSource],
) -> Result<(StepLibrary, Option<PathBuf>), String> {
    let folder = |source: &ProfileSource| match source {
        ProfileSource::Folder(dir) => Some(dir.clone()),
        ProfileSource::Import { .. } => None,
    };
    let store = Store::with_defaults(sources.iter().filter_map(folder).collect());
    let measured = store.layers_of(&decoder.name, device).map_err(|e| e.to_string())?;
    let executor = if graphs { Executor::Graphs } else { Executor::Eager };
    let options = StepOptions { precision, executor, rounding: Rounding::exact() };
    let library = StepLibrary::new(decoder, device.clone(), options);
    Ok(match measured {
        Some((file, times)) => (library.with_measured(times), Some(file)),
        None => (library, None),
    })
}

/// What is known about the model of a tenant that generates tokens, before it is compiled. Its profile holds
/// the generating steps for a few numbers of sequences.
///
/// # Errors
/// No such model.
pub(crate) fn find(
    base: &Path,
    config: &TenantConfig,
    engine: &EngineConfig,
    device: &Device,
    sources: &[ProfileSource],
) -> Result<Found, String> {
    let decoder = decoder(base, config)?;
    let precision = config.precision;
    let (mut steps, measured) =
        library(decoder.clone(), device, precision, engine.graphs, sources)?;
    let digest = digest_of(&steps, config, engine, device);
    let weights = decoder.weights_bytes(precision);
    let mut model = Model {
        name: decoder.name.to_string(),
        weights,
        activations_per_item: Bytes(0),
        input_per_item: Bytes(0),
        output_per_item: Bytes(0),
        load: load(weights, device),
        host_per_request: Nanos::ZERO,
        batches: std::collections::BTreeMap::new(),
    };
    let length = SHOWN_LENGTH.min(decoder.positions);
    for n in SHOWN.into_iter().filter(|&n| n <= engine.max_seqs) {
        let program = steps.program(&StepShape::new(&[], &vec![length; n as usize]));
        model.batches.insert(n, program.launches().collect());
    }
    let words = format!(
        "computed from layer shapes (roofline and waves of blocks){}, {}, steps of an engine{}",
        measured.as_ref().map_or_else(String::new, |f| format!(", scaled through {}", f.display())),
        precision.name(),
        if engine.graphs { ", captured graphs" } else { "" },
    );
    let warning = format!(
        "{} on {}: no measured profile, so an analytic one was computed ({})",
        decoder.name,
        device.name,
        precision.name(),
    );
    let name = model.name.clone();
    let profile = Profile {
        device: device.name.clone(),
        source: Source::Analytic,
        provenance: [("precision".to_owned(), precision.name().to_owned())].into(),
        kernels: steps.kernels().to_vec(),
        models: [(name.clone(), model)].into(),
        corun: vec![],
    };
    Ok(Found {
        profile: Arc::new(profile),
        model: name,
        words,
        digest,
        warning: measured.is_none().then_some(warning),
    })
}

/// Identifies the steps of a tenant that generates tokens, under an engine.
fn digest_of(
    steps: &StepLibrary,
    config: &TenantConfig,
    engine: &EngineConfig,
    device: &Device,
) -> String {
    let of = (steps.decoder(), config.precision);
    digest::of_value(&canonical::steps(of, device, engine, steps.measured()))
}

/// The digest that [`find`] gives a tenant's profile.
///
/// # Errors
/// As [`decoder()`].
pub(crate) fn digest(
    base: &Path,
    config: &TenantConfig,
    engine: &EngineConfig,
    device: &Device,
    sources: &[ProfileSource],
) -> Result<String, String> {
    let (steps, _) =
        library(decoder(base, config)?, device, config.precision, engine.graphs, sources)?;
    Ok(digest_of(&steps, config, engine, device))
}

/// Time to load the weights.
fn load(weights: Bytes, device: &Device) -> Nanos {
    // Bytes over 10^6 bytes per second are 10^-3 bytes per ns.
    Nanos((weights.0 * 1000).div_ceil(u64::from(device.costs.load_mbps.max(1))))
}

/// Compiles the model of a tenant that generates tokens.
///
/// # Errors
/// As [`decoder()`].
pub(crate) fn compile(
    code: &mut Code,
    base: &Path,
    config: &TenantConfig,
    engine: &EngineConfig,
    device: &Device,
    sources: &[ProfileSource],
) -> Result<(ModelCode, Arc<Generates>), String> {
    let decoder = decoder(base, config)?;
    let precision = config.precision;
    let kv_per_token = decoder.kv_bytes_per_token(precision);
    let max_context = engine.max_context.unwrap_or(decoder.positions).min(decoder.positions);
    let limits = StepLimits {
        sequences: engine.max_seqs,
        tokens: engine.max_batched_tokens.max(engine.max_seqs),
        context: max_context,
        cache: device.memory.capacity.0 / kv_per_token.0.max(1),
    };
    let host = host_times(device, engine.graphs);
    let (mut steps, _) = library(decoder.clone(), device, precision, engine.graphs, sources)?;
    let cus = device.cus();
    let steps = code.compile_steps(&mut steps, limits, host, cus);
    let weights = decoder.weights_bytes(precision);
    let activations =
        decoder.activations_bytes(engine.max_batched_tokens, engine.max_seqs, precision);
    let model = ModelCode {
        name: decoder.name.to_string(),
        weights,
        activations_per_item: Bytes(activations.0.div_ceil(u64::from(engine.max_seqs))),
        load: load(weights, device),
        ..as_batches(&steps, code, limits, cus)
    };
    let rules = Rules {
        max_seqs: engine.max_seqs,
        max_batched_tokens: engine.max_batched_tokens,
        chunked_prefill: engine.chunked_prefill,
        alternate: engine.alternate,
        prefix_cache: engine.prefix_cache,
        max_context,
        block: engine.block,
        kv: engine.kv,
        elastic: engine.elastic,
        kv_per_token,
        scheduler_overhead: engine.scheduler_overhead,
        async_scheduling: engine.async_scheduling,
    };
    let goals: Option<TokenGoals> = match config.slo {
        Some(Slo::Tokens(goals)) => Some(goals),
        _ => None,
    };
    Ok((model, Arc::new(Generates { rules, goals, steps })))
}

/// Host times for the launches of a step.
pub(crate) fn host_times(device: &Device, graphs: bool) -> HostTimes {
    let host = |e: Executor, position| e.host(device, position, false).0;
    HostTimes {
        graph_ns: host(Executor::Graphs, 0),
        graph_kernel_ns: host(Executor::Graphs, 1),
        launch_ns: host(Executor::Eager, 0),
        largest_graph: if graphs { LARGEST_GRAPH } else { 0 },
    }
}
