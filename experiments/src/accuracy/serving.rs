//! A whole serving engine: 300 requests of ShareGPT that LLMServingSim's authors sent to vLLM on an RTX
//! 4090, against the same requests simulated with step times from their layer tables. Neither the engine
//! nor its constants have seen the requests' times.

use std::sync::Arc;

use cotenant_profiles::import::{Input, llmservingsim};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::steps::{StepLibrary, StepOptions};
use cotenant_profiles::zoo::decoder::{Rounding, decoder};
use cotenant_profiles::{Bytes, Executor, Nanos};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::engine::{KvSize, Rules};
use cotenant_sim::observe::Observer;
use cotenant_sim::policy::{self, Options};
use cotenant_sim::program::{Code, ModelCode, StepLimits, as_batches};
use cotenant_sim::scenario::{Generates, Setup, Tenant};
use cotenant_sim::{Class, Load, Scenario};
use cotenant_traces::Request;

use super::Data;
use super::products::device;
use crate::fail::{Done, Failure};
use crate::generate::host_times;

/// Blocks of the run's cache, and what its log says of the engine (`vllm/meta.json`).
const BLOCKS: u64 = 2588;
const BLOCK: u32 = 16;
const MAX_SEQS: u32 = 256;
const MAX_TOKENS: u32 = 2048;
const CONTEXT: u32 = 32_768;
/// Host time of a step: the default of experiment files.
const OVERHEAD: Nanos = Nanos::from_micros(500);

/// One request as it was measured, seconds on one clock.
struct Measured {
    arrival: f64,
    first: f64,
    last: f64,
    tokens_in: u32,
    tokens_out: u32,
}

/// What is compared, measured and simulated.
pub(super) struct Row {
    pub(super) metric: &'static str,
    pub(super) measured: f64,
    pub(super) simulated: f64,
    /// The error that is aimed at.
    pub(super) target: f64,
}

/// The rows of the comparison.
///
/// # Errors
/// Data that does not read.
pub(super) fn compare(data: &Data<'_>) -> Done<Vec<Row>> {
    let run = data.at("llmservingsim/bench/examples/RTX4090/Llama-3.1-8B/vllm/requests.jsonl");
    let tables = data.at("llmservingsim/profiler/perf/RTX4090/meta-llama/Llama-3.1-8B/bf16/tp1");
    let measured = requests(&run)?;
    let setup = setup(&tables)?;
    let start = measured.iter().map(|m| m.arrival).fold(f64::INFINITY, f64::min);
    let at = |m: &Measured| Request {
        tokens_in: m.tokens_in,
        tokens_out: m.tokens_out,
        ..Request::at(Nanos(((m.arrival - start) * 1e9) as u64 + 1))
    };
    let mut arrivals: Vec<Request> = measured.iter().map(at).collect();
    arrivals.sort_by_key(|r| r.arrival);
    let scenario = Scenario {
        setup,
        loads: vec![Load::Open(Box::new(arrivals.into_iter()))],
        warmup: Nanos::ZERO,
        duration: Nanos::from_secs(3600),
        contention: ContentionModel::None,
        jitter: None,
    };
    let mps = policy::find("mps").ok_or_else(|| Failure::failed("no policy mps"))?;
    let mut policy =
        (mps.build)(&Options::default()).map_err(|e| Failure::failed(e.to_string()))?;
    let report = cotenant_sim::run(scenario, policy.as_mut(), None::<&mut dyn Observer>)
        .map_err(|e| Failure::failed(e.to_string()))?;
    let tenant = &report.tenants[0];
    let tokens = tenant.tokens.as_ref().ok_or_else(|| Failure::failed("no tokens"))?;
    let all = |f: fn(&Measured) -> f64| measured.iter().map(f).collect::<Vec<f64>>();
    let ttft = all(|m| (m.first - m.arrival) * 1e3);
    let tpot = all(|m| (m.last - m.first) * 1e3 / f64::from(m.tokens_out.saturating_sub(1).max(1)));
    let e2e = all(|m| (m.last - m.arrival) * 1e3);
    let ms = |ns: Option<Nanos>| ns.map_or(f64::NAN, Nanos::as_millis_f64);
    let row = |metric, measured, simulated, target| Row { metric, measured, simulated, target };
    let latencies = &tenant.counts.latencies;
    Ok(vec![
        row("mean TTFT, ms", mean(&ttft), ms(tokens.ttft_mean()), 0.1),
        row("p50 TTFT, ms", quantile(&ttft, 0.5), ms(tokens.ttft.quantile(0.5)), 0.1),
        row("p99 TTFT, ms", quantile(&ttft, 0.99), ms(tokens.ttft.quantile(0.99)), 0.2),
        row("mean TPOT, ms", mean(&tpot), ms(tokens.tpot_mean()), 0.1),
        row("p50 TPOT, ms", quantile(&tpot, 0.5), ms(tokens.tpot.quantile(0.5)), 0.1),
        row("p99 TPOT, ms", quantile(&tpot, 0.99), ms(tokens.tpot.quantile(0.99)), 0.2),
        row("mean end to end, ms", mean(&e2e), ms(tenant.latency_mean()), 0.1),
        row("p50 end to end, ms", quantile(&e2e, 0.5), ms(latencies.quantile(0.5)), 0.1),
        row("p99 end to end, ms", quantile(&e2e, 0.99), ms(latencies.quantile(0.99)), 0.2),
    ])
}

/// The engine of the run, its steps scaled through the measured layers.
fn setup(tables: &std::path::Path) -> Done<Arc<Setup>> {
    let device = device("rtx-4090")?;
    let mut texts = vec![];
    for name in ["dense.csv", "per_sequence.csv", "attention.csv"] {
        let file = tables.join(name);
        let text = std::fs::read_to_string(&file)
            .map_err(|e| Failure::input(format!("{}: {e}", file.display())))?;
        texts.push((file.display().to_string(), text));
    }
    let inputs: Vec<Input<'_>> = texts.iter().map(|(file, text)| Input { file, text }).collect();
    let model = decoder("llama-3.1-8b").map_err(|e| Failure::failed(e.to_string()))?;
    let times = llmservingsim(&inputs, &device, &model.name, &[])
        .map_err(|e| Failure::input(e.to_string()))?
        .times;
    let precision = Precision::Bf16;
    let kv_per_token = model.kv_bytes_per_token(precision);
    let options =
        StepOptions { precision, executor: Executor::Graphs, rounding: Rounding::exact() };
    let mut library = StepLibrary::new(model, device.clone(), options).with_measured(times);
    let limits = StepLimits {
        sequences: MAX_SEQS,
        tokens: MAX_TOKENS,
        context: CONTEXT,
        cache: BLOCKS * u64::from(BLOCK),
    };
    let (mut code, cus) = (Code::default(), device.cus());
    let steps = code.compile_steps(&mut library, limits, host_times(&device, true), cus);
    let rules = Rules {
        max_seqs: MAX_SEQS,
        max_batched_tokens: MAX_TOKENS,
        chunked_prefill: true,
        alternate: false,
        prefix_cache: true,
        max_context: CONTEXT,
        block: BLOCK,
        kv: KvSize::Bytes(Bytes(BLOCKS * u64::from(BLOCK) * kv_per_token.0)),
        elastic: None,
        kv_per_token,
        scheduler_overhead: OVERHEAD,
        async_scheduling: true,
    };
    let model =
        ModelCode { name: "llama-3.1-8b".to_owned(), ..as_batches(&steps, &code, limits, cus) };
    let tenant = Tenant {
        name: "llm".to_owned(),
        model,
        class: Class::Latency,
        slo: None,
        workers: 1,
        batch_max: MAX_SEQS,
        batch_timeout: Nanos::ZERO,
        generates: Some(Arc::new(Generates { rules, goals: None, steps })),
        per_request_batches: false,
        drop_after: None,
    };
    Ok(Arc::new(Setup {
        costs: device.costs.clone(),
        device,
        code: code.into(),
        tenants: vec![tenant],
    }))
}

/// The run's requests. Arrivals are on the wall clock, all else on a monotonic one; the two are laid
/// over each other where a request was queued soonest after it had arrived.
fn requests(path: &std::path::Path) -> Done<Vec<Measured>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
    let mut all = vec![];
    let mut offset = f64::INFINITY;
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let bad = |why: String| Failure::input(format!("{}:{}: {why}", path.display(), i + 1));
        let row: serde_json::Value = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        let number =
            |key: &str| row[key].as_f64().ok_or_else(|| bad(format!("{key}: not a number")));
        let arrival = number("arrival_time")?;
        offset = offset.min(number("queued_ts")? - arrival);
        all.push(Measured {
            arrival,
            first: number("first_token_ts")?,
            last: number("last_token_ts")?,
            tokens_in: number("input_toks")? as u32,
            tokens_out: number("output_toks")? as u32,
        });
    }
    all.iter_mut().for_each(|m| m.arrival += offset);
    Ok(all)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
