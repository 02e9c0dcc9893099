//! The page: `docs/accuracy.md`.

use std::fmt::Write as _;

use super::pairs::{MODELS, Pairs};
use super::processes::Best;
use super::serving::Row;
use super::{Comparison, Set};

const HEAD: &str = "# Accuracy

Our errors on other people's measurements. This page is the output of `cotenant accuracy`; CI shows where the two differ. Errors are (ours − measured) / measured. `mean` is the mean absolute error; `naive` is that of a simple predictor on the same rows: *three constants* (0.8 of the peak rate, 0.8 of the bandwidth, 3 µs), *as many times one* (processes do not disturb each other), *as one* (further processes add nothing).

";

const SERVING: &str = "
## A serving engine

300 ShareGPT requests that LLMServingSim's authors sent to vLLM 0.19 with Llama-3.1-8B on an RTX 4090, 10 a second, against the same requests through the simulated engine. Step times come from their tables of single layers, the size of the cache and the limits of a step from the engine's log; host time per step is the default. The cache is too small for the load, so that this tests admission and preemption more than kernels, and it says nothing about sharing.

";

const TAIL: &str = "
## The data

| source | what it is |
|---|---|
| AIConfigurator | NVIDIA, Apache-2.0, github.com/ai-dynamo/aiconfigurator: products and attention as timed in vLLM on an A100 SXM 80 GB and an H100 SXM |
| NeuSight | Lee et al., ASPLOS 2025, github.com/sitar-lab/NeuSight: PyTorch layers in FP32 with the grids of their kernels |
| LLMServingSim | KAIST, github.com/casys-kaist/LLMServingSim: layers of Llama-3.1-8B in vLLM on two GPUs |
| Orion | Strati et al., EuroSys 2024, github.com/eth-easl/orion: kernels of PyTorch models on a V100 |
| REEF | Han et al., OSDI 2022, github.com/SJTU-IPADS/reef-artifacts: kernels of TVM models on an MI50 |
| ParvaGPU | Lee et al., SC 2024: throughput of 1 to 5 MPS processes of a model in every MIG instance of an A100 80 GB |
| iGniter | Xu et al., TPDS 2023, github.com/icloud-ecnu/igniter: four models under MPS on a V100, alone and as two copies; quoted in `experiments/src/accuracy/pairs.rs` |
| Abacus | Cui et al., SC 2021, github.com/Raphael-Hao/Abacus: pairs of models on an A100; quoted in `experiments/src/accuracy/pairs.rs` |

Put them into one folder as `profiles/aiconfigurator`, `profiles/neusight`, `profiles/llmservingsim`, `profiles/orion_v100`, `profiles/reef_mi50` and `profiles/parvagpu`, each as its repository has it, and run `cotenant accuracy --data FOLDER`.

## What was calibrated on what

* **Products**: a shape `m × n × k` belongs to the training half if the middle bits of a hash of it are even (`experiments/src/accuracy/split.rs`). Efficiencies, start, steps and end of blocks come from the training halves of the A100's and the H100's BF16 products, nothing else.
* **Attention**: a call belongs to the training half by the same hash of its sequences, tokens and heads. FlashAttention-2's efficiency and its time to combine parts come from the A100's training half, the time of FlashAttention-3's blocks outside of their steps from the H100's; tiles, parts and kernels from the libraries' sources.
* **ParvaGPU**: ResNet-50 and BERT may be looked at, VGG-16 not.
* **Pairs**: nothing. The constants of `cache` and `igniter` are those that iGniter publishes; the clock under the board's limit follows from watts by the third power. iGniter's constants come from the same GPU as its pairs, but from other runs.
* Everything else is test: other precisions, devices, operators, models.
";

/// The page as Markdown.
pub(super) fn markdown(
    all: &[Comparison],
    best: &[Best],
    pairs: &[Pairs],
    serving: &[Row],
) -> String {
    let mut text = HEAD.to_owned();
    for set in [Set::Test, Set::Training] {
        let title = match set {
            Set::Test => "## On data that no constant has seen",
            Set::Training => "## On data that constants were calibrated on",
        };
        let _ = writeln!(text, "{title}\n");
        text += "| source | policy | model | n | failed | mean | bias | median | 95 % | largest | naive |\n";
        text += "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|\n";
        for c in all.iter().filter(|c| c.set == set) {
            text += &line(c);
        }
        text += "\n";
    }
    text += "## The best number of processes\n\n";
    text += "How often the number of processes that the simulation likes best measured at least 98 % of the best throughput, and what of it is had on average. Of numbers that are as fast in the simulation, the fewest count. Layer shapes do not say what a process does between batches: BERT's here leave the GPU idle for some 2 ms an item, on every share.\n\n";
    text +=
        "| source | model | set | cells | right | throughput had |\n|---|---|---|---:|---:|---:|\n";
    for b in best {
        let _ = writeln!(
            text,
            "| ParvaGPU | {} | {} | {} | {:.0} % | {:.1} % |",
            b.model,
            b.set.name(),
            b.cells,
            100.0 * b.right as f64 / b.cells.max(1) as f64,
            100.0 * b.had,
        );
    }
    text += "\n## Pairs, by contention model\n\n";
    text += "What each contention model makes of measured pairs: mean absolute error, and bias. `measured` is the mean slow-down, or the time over that of one after the other. The default is the model with the least error here.\n\n";
    text += &format!("| source | pairs | set | n | measured | {} |\n", MODELS.join(" | "));
    text += &format!("|---|---|---|---:|---:|{}\n", "---:|".repeat(MODELS.len()));
    for p in pairs {
        let errors = p.errors.iter().map(|e| format!("{} ({})", percent(e.mean), signed(e.bias)));
        let errors: Vec<String> = errors.collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.3} | {} |",
            p.source,
            p.what,
            p.set.name(),
            p.n,
            p.measured,
            errors.join(" | "),
        );
    }
    text += SERVING;
    text +=
        "| metric | measured | simulated | error | aim | kept |\n|---|---:|---:|---:|---:|---|\n";
    for row in serving {
        let error = row.simulated / row.measured - 1.0;
        let kept = if error.abs() <= row.target { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {} | {:.0} % | {kept} |",
            row.metric,
            row.measured,
            row.simulated,
            signed(error),
            100.0 * row.target,
        );
    }
    text + TAIL
}

fn line(c: &Comparison) -> String {
    let e = c.errors();
    let naive: Vec<String> =
        c.naive_errors().iter().map(|(name, mean)| format!("{name} {}", percent(*mean))).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        c.source,
        c.policy,
        c.model,
        e.n,
        c.failed,
        percent(e.mean),
        signed(e.bias),
        percent(e.median),
        percent(e.p95),
        percent(e.largest),
        if naive.is_empty() { "–".to_owned() } else { naive.join(", ") },
    )
}

fn percent(x: f64) -> String {
    format!("{:.1} %", 100.0 * x)
}

fn signed(x: f64) -> String {
    format!("{:+.1} %", 100.0 * x)
}
