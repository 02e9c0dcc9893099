//! Small tasks for checking the kernels.

use crate::work::{Attend, StepTask};

/// Every kind of task, small enough for a CPU: one panel of keys and several, prompts that do not fill
/// a tile, sequences of unequal lengths, windows, query heads that share no keys, few and many keys.
#[must_use]
pub fn samples() -> Vec<StepTask> {
    let attend = |sequences, tokens, cached, window, [heads, kv_heads, width]: [u32; 3]| Attend {
        sequences,
        tokens,
        cached,
        window,
        heads,
        kv_heads,
        width,
    };
    let all = [
        StepTask::RmsNorm { rows: 3, width: 300, residual: false },
        StepTask::RmsNorm { rows: 3, width: 300, residual: true },
        StepTask::Rotary { tokens: 3, heads: 5, width: 64 },
        StepTask::CacheWrite { tokens: 21, width: 40 },
        StepTask::Gated { tokens: 3, inner: 300 },
        StepTask::Route { tokens: 3, experts: 128, active: 8 },
        StepTask::Route { tokens: 2, experts: 7, active: 7 },
        StepTask::SumExperts { tokens: 3, active: 8, width: 300 },
        StepTask::Gather { rows: 5, width: 70 },
        StepTask::Sample { rows: 3, vocabulary: 10_000 },
        StepTask::Sample { rows: 2, vocabulary: 300 },
        StepTask::Prefill(attend(1, 150, 0, 150, [2, 1, 64])),
        StepTask::Prefill(attend(2, 37, 601, 700, [2, 1, 32])),
        StepTask::Prefill(attend(1, 20, 500, 300, [2, 2, 128])),
        StepTask::Prefill(attend(3, 3, 0, 1, [2, 1, 256])),
        StepTask::Decode(attend(1, 1, 99, 100, [8, 2, 64])),
        StepTask::Decode(attend(3, 3, 1000, 400, [8, 2, 64])),
        StepTask::Decode(attend(2, 2, 1021, 100, [40, 2, 32])),
        StepTask::Decode(attend(1, 1, 0, 1, [7, 1, 128])),
        StepTask::Biased { m: 37, n: 64, k: 72 },
    ];
    all.to_vec()
}
