//! vLLM and SGLang: how much of the GPU's memory an engine takes.
//!
//! `--gpu-memory-utilization` (vLLM, default 0.92, in older versions 0.9) and `--mem-fraction-static`
//! (SGLang) are shares of the *whole* GPU for each engine, blind to its neighbours: two engines with
//! defaults do not fit one GPU. They bound memory, not compute.

use cotenant_profiles::Bytes;

use crate::finding::{ReadError, Weight};
use crate::found::{FRACTION, Found};
use crate::plan::{Emitted, Plan};

/// vLLM's default share.
const VLLM_DEFAULT: f64 = 0.92;

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let mut files = vec![];
    for placed in plan.all() {
        let Some(engine) = placed.tenant.engine else { continue };
        let (model, seqs, tokens) =
            (&placed.tenant.model, placed.tenant.batch_max, engine.step_tokens);
        let whole = plan.device.memory.capacity.0.max(1) as f64;
        let share = engine.memory_fraction.unwrap_or(placed.tenant.memory.0 as f64 / whole);
        if share > 1.0 {
            return Err(format!("`{}` needs more than the GPU's memory", placed.tenant.name));
        }
        // Rounded up: less than the model needs does not start.
        let share = (share * 100.0 - 1e-6).ceil() / 100.0;
        let cache = engine.cache.map_or_else(String::new, |c| format!(" {CACHE} {}", c.0));
        let body = format!(
            "# tenant={} gpu={}\nvllm serve {model} --gpu-memory-utilization {share:.2}{cache} --max-num-seqs \
             {seqs} --max-num-batched-tokens {tokens}\n\
             # SGLang: python -m sglang.launch_server --model-path {model} --mem-fraction-static {share:.2} \
             --max-running-requests {seqs} --chunked-prefill-size {tokens}\n",
            placed.tenant.name, placed.index
        );
        files.push(plan.file(format!("engines/{}.sh", placed.name), &body));
    }
    Ok(if files.is_empty() { Emitted::Nothing } else { Emitted::Files(files) })
}

/// The cache's memory in bytes, which holds in place of the fraction (`kv_cache_memory_bytes` of vLLM).
const CACHE: &str = "--kv-cache-memory-bytes";

pub(crate) fn recognises(_path: &str, text: &str) -> bool {
    ["vllm serve", "--gpu-memory-utilization", "--mem-fraction-static"]
        .iter()
        .any(|w| text.contains(w))
}

pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let stem = path.rsplit('/').next().unwrap_or(path);
    let mut tenant = stem.split('.').next().unwrap_or(stem).to_owned();
    let mut gpu = None;
    for (i, line) in text.lines().enumerate() {
        let number = Some(i + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(comment) = line.trim().strip_prefix('#') {
            for word in comment.split_whitespace() {
                if let Some(name) = word.strip_prefix("tenant=") {
                    tenant = name.to_owned();
                } else if let Some(index) = word.strip_prefix("gpu=") {
                    gpu = index.parse().ok();
                }
            }
            continue;
        }
        let flag = |name: &str| {
            let at = words.iter().position(|w| *w == name || w.starts_with(&format!("{name}=")))?;
            words[at].split_once('=').map_or_else(|| words.get(at + 1).copied(), |(_, v)| Some(v))
        };
        let vllm = line.contains("vllm serve") || line.contains("vllm.entrypoints");
        let given = flag("--gpu-memory-utilization").or_else(|| flag("--mem-fraction-static"));
        let share = match given {
            Some(text) => {
                text.parse::<f64>().ok().filter(|s| *s > 0.0 && *s <= 1.0).ok_or_else(|| {
                    let what = format!("`{text}` is not a share above 0 and at most 1");
                    ReadError::new(path, number, FRACTION, what)
                })?
            }
            None if vllm => VLLM_DEFAULT,
            None => continue,
        };
        let count = |names: [&str; 2]| names.into_iter().find_map(|n| flag(n)?.parse().ok());
        let own = found.tenant(&tenant, gpu);
        own.batch_max = count(["--max-num-seqs", "--max-running-requests"]).or(own.batch_max);
        let tokens = count(["--max-num-batched-tokens", "--chunked-prefill-size"]);
        own.step_tokens = tokens.or(own.step_tokens);
        own.cache = flag(CACHE).and_then(|s| s.parse().ok()).map(Bytes).or(own.cache);
        own.memory_fraction = Some(share);
        let sum: f64 = found
            .tenants
            .iter()
            .filter(|((_, g, _), _)| *g == gpu)
            .filter_map(|(_, t)| t.memory_fraction)
            .sum();
        if sum > 1.0 + 1e-9 {
            let what = format!(
                "the engines' shares add up to {sum:.2} of the GPU: each is of the whole GPU and blind to \
                 the others, so the last to start fails"
            );
            found.tell(Weight::Illegal, path, number, FRACTION, what);
        }
    }
    Ok(())
}
