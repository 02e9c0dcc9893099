//! Canonical text of everything that decides a cell's numbers: JSON with its own names, and the text of
//! files. Cells are named by digests of it, so that renaming a Rust field changes no cell's name.

use cotenant_profiles::analytic::Options;
use cotenant_profiles::files::{self, FileError};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::LayerTimes;
use cotenant_profiles::tune::Trials;
use cotenant_profiles::zoo::decoder::{Decoder, FeedForward};
use cotenant_profiles::{Device, Profile};
use cotenant_sim::engine::{Elastic, KvSize};
use serde_json::{Value, json};

use crate::config::{EngineConfig, Part};
use crate::digest::{of_device, of_text};

/// Digest of a profile's files.
///
/// # Errors
/// A model that no file can describe.
pub(crate) fn of_profile(profile: &Profile) -> Result<String, FileError> {
    files::text(profile).map(|text| of_text(&text))
}

/// The options of an analytic profile.
pub(crate) fn analytic(model: &str, device: &Device, options: &Options) -> Value {
    let Options { precision, fused, host_per_request, tuned_cus, executor } = options;
    json!({
        "model": model,
        "device": of_device(device),
        "precision": precision.name(),
        "fused": fused,
        "host_per_request_ns": host_per_request.0,
        "tuned_cus": tuned_cus,
        "executor": executor.map(|e| e.name()),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// The part of a model that is run.
pub(crate) fn part(part: &Part) -> Value {
    match part {
        Part::Whole => json!("whole"),
        Part::Operator(operator) => json!({ "operator": operator }),
        Part::Tuning { operator, batch, trials: Trials { trials, launches } } => json!({
            "tuning": operator,
            "batch": batch,
            "trials": trials,
            "launches": launches,
        }),
    }
}

/// The steps of an engine.
pub(crate) fn steps(
    (decoder, precision): (&Decoder, Precision),
    device: &Device,
    engine: &EngineConfig,
    measured: Option<&LayerTimes>,
) -> Value {
    json!({
        "decoder": self::decoder(decoder),
        "precision": precision.name(),
        "device": of_device(device),
        "engine": self::engine(engine),
        "layers": measured.map(|times| of_text(&files::layers_text(times))),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn decoder(decoder: &Decoder) -> Value {
    let Decoder {
        name,
        title: _,
        layers,
        width,
        heads,
        kv_heads,
        head_dim,
        feed_forward,
        vocabulary,
        tied,
        qkv_bias,
        o_bias,
        qk_norm,
        window,
        positions,
    } = decoder;
    let feed_forward = match feed_forward {
        FeedForward::Gated { inner } => json!({ "inner": inner }),
        FeedForward::Experts { experts, active, inner } => {
            json!({ "experts": experts, "active": active, "inner": inner })
        }
    };
    json!({
        "name": name,
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "feed_forward": feed_forward,
        "vocabulary": vocabulary,
        "tied": tied,
        "qkv_bias": qkv_bias,
        "o_bias": o_bias,
        "qk_norm": qk_norm,
        "window": window,
        "positions": positions,
    })
}

fn engine(engine: &EngineConfig) -> Value {
    let EngineConfig {
        max_seqs,
        max_batched_tokens,
        chunked_prefill,
        alternate,
        kv,
        elastic,
        block,
        prefix_cache,
        max_context,
        scheduler_overhead,
        async_scheduling,
        graphs,
    } = engine;
    let kv = match kv {
        KvSize::Bytes(bytes) => json!({ "bytes": bytes.0 }),
        KvSize::Fraction(share) => json!({ "fraction": share }),
    };
    let elastic = elastic.map(
        |Elastic { floor, page, map }| json!({ "floor": floor.0, "page": page.0, "map_ns": map.0 }),
    );
    json!({
        "max_seqs": max_seqs,
        "max_batched_tokens": max_batched_tokens,
        "chunked_prefill": chunked_prefill,
        "alternate": alternate,
        "kv": kv,
        "elastic": elastic,
        "block": block,
        "prefix_cache": prefix_cache,
        "max_context": max_context,
        "scheduler_overhead_ns": scheduler_overhead.0,
        "async_scheduling": async_scheduling,
        "graphs": graphs,
    })
}

#[cfg(test)]
mod tests {
    use cotenant_profiles::zoo::decoder::DECODERS;

    use super::*;

    /// A change here renames every cell of a tenant that generates tokens.
    #[test]
    fn a_decoder_has_one_text() {
        let of = |name: &str| DECODERS.iter().find(|d| d.name == name).map(decoder);
        let text = of("llama-3.1-8b").map(|value| crate::digest::sorted(&value).to_string());
        let known = r#"{"feed_forward":{"inner":14336},"head_dim":128,"heads":32,"kv_heads":8,"#;
        assert!(text.is_some_and(|text| text.starts_with(known)));
    }

    #[test]
    fn an_analytic_profile_has_one_text() {
        let device = Device::builtin("a30").expect("it ships");
        let Value::Object(text) = analytic("alexnet", &device, &Options::default()) else {
            panic!("a table");
        };
        let names: Vec<&str> = text.keys().map(String::as_str).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let known = [
            "device",
            "executor",
            "fused",
            "host_per_request_ns",
            "model",
            "precision",
            "tuned_cus",
            "version",
        ];
        assert_eq!(sorted, known);
    }
}
