//! Metrics of a tenant that generates tokens.
//!
//! For a request that arrives at `a` and gets its tokens at `t1 … tn`, the time to first token (TTFT) is
//! `t1 - a`, the time per output token (TPOT) is `(tn - t1) / (n - 1)`, which is undefined for a request of
//! one token, and the gaps between its tokens (ITL) are `t2 - t1, t3 - t2, …`.

use cotenant_profiles::Nanos;

use super::Latencies;

/// One tenant's tokens within the window.
#[derive(Clone, Debug, Default)]
pub struct TokenCounts {
    /// Times to first token of requests that got it in the window.
    pub ttft: Latencies,
    /// Their sum, ns.
    pub ttft_sum: u128,
    /// Times per output token of completed requests with more than one.
    pub tpot: Latencies,
    /// Their sum, ns.
    pub tpot_sum: u128,
    /// Gaps between tokens.
    pub itl: Latencies,
    /// Tokens generated.
    pub generated: u64,
    /// Prompt tokens computed for the first time.
    pub prefilled: u64,
    /// Tokens computed again after a preemption.
    pub recomputed: u64,
    /// Prompt tokens found in the cache.
    pub cached: u64,
    /// Sequences that lost their blocks.
    pub preemptions: u64,
    /// Steps begun.
    pub steps: u64,
    /// Blocks in use over time, block × ns.
    pub block_ns: u128,
    /// Existing blocks over time, block × ns.
    pub capacity_ns: u128,
    /// Memory that the cache had over time, bytes × ns.
    pub memory_ns: u128,
    /// The most blocks in use at any time.
    pub most_blocks: u64,
}

impl TokenCounts {
    /// Discards all counts and keeps the allocated memory.
    pub(crate) fn open(&mut self) {
        let mut kept = [&mut self.ttft, &mut self.tpot, &mut self.itl].map(std::mem::take);
        kept.iter_mut().for_each(Latencies::clear);
        let [ttft, tpot, itl] = kept;
        *self = Self { ttft, tpot, itl, ..Self::default() };
    }

    /// Allocates the memory for all latencies.
    pub(crate) fn reserve(&mut self) {
        self.ttft.reserve();
        self.tpot.reserve();
        self.itl.reserve();
    }

    /// Counts a request's first token.
    pub(crate) fn first(&mut self, ttft: Nanos) {
        self.ttft.record(ttft);
        self.ttft_sum += u128::from(ttft.0);
        self.generated += 1;
    }

    /// Counts a further token.
    #[inline]
    pub(crate) fn further(&mut self, gap: Nanos) {
        self.itl.record(gap);
        self.generated += 1;
    }

    /// Records a completed request's time per output token.
    pub(crate) fn per_token(&mut self, tpot: Nanos) {
        self.tpot.record(tpot);
        self.tpot_sum += u128::from(tpot.0);
    }

    /// Mean time to first token.
    #[must_use]
    pub fn ttft_mean(&self) -> Option<Nanos> {
        mean(self.ttft_sum, self.ttft.len())
    }

    /// Mean time per output token.
    #[must_use]
    pub fn tpot_mean(&self) -> Option<Nanos> {
        mean(self.tpot_sum, self.tpot.len())
    }

    /// Share of the blocks in use, mean over time.
    #[must_use]
    pub fn kv_utilization(&self) -> Option<f64> {
        (self.capacity_ns > 0).then(|| self.block_ns as f64 / self.capacity_ns as f64)
    }

    /// Memory of the cache, mean over a window, bytes.
    #[must_use]
    pub fn kv_memory(&self, window: Nanos) -> Option<f64> {
        (window > Nanos::ZERO).then(|| self.memory_ns as f64 / window.0 as f64)
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.ttft.merge(&other.ttft);
        self.tpot.merge(&other.tpot);
        self.itl.merge(&other.itl);
        self.ttft_sum += other.ttft_sum;
        self.tpot_sum += other.tpot_sum;
        self.generated += other.generated;
        self.prefilled += other.prefilled;
        self.recomputed += other.recomputed;
        self.cached += other.cached;
        self.preemptions += other.preemptions;
        self.steps += other.steps;
        self.block_ns += other.block_ns;
        self.capacity_ns += other.capacity_ns;
        self.memory_ns += other.memory_ns;
        self.most_blocks = self.most_blocks.max(other.most_blocks);
    }
}

fn mean(sum: u128, n: u64) -> Option<Nanos> {
    (n > 0).then(|| Nanos((sum / u128::from(n)) as u64))
}
