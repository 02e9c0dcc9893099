//! A serving engine: which tokens of which sequences a step computes, and the key-value cache that
//! limits how many sequences there are.
//!
//! The rules are those of vLLM's V1 scheduler (`vllm/v1/core/sched/scheduler.py`, release 0.33):
//!
//! 1. A step has a budget of tokens. Running sequences come first, in order of admission: each gets the
//!    tokens that it lacks, one if it generates and otherwise the rest of its prompt, as far as the budget
//!    goes.
//! 2. If the cache has no block left, the sequence admitted last loses all its blocks and moves to the
//!    front of the waiting sequences. It keeps the tokens that it has generated, and their keys and values
//!    are recomputed.
//! 3. Waiting sequences are admitted in order while budget, places and blocks last, unless a running one
//!    was preempted in this step. A sequence whose known tokens do not all fit blocks those behind it. No
//!    room is reserved for tokens yet to be generated.
//! 4. The whole blocks of a finished sequence stay as a cache for the next request of its session, until
//!    another sequence needs them. The least recently used session is evicted first.
//!
//! An engine has no clock and no GPU: the host asks it for steps, and tells it when they have ended.

mod kv;
mod plan;
mod rules;
mod sequence;

pub use crate::layout::Role;
pub use kv::KvCache;
pub use plan::{Emitted, Planned};
pub use rules::{Elastic, KvSize, Rules};
pub use sequence::{Arrived, Queue};

use std::collections::VecDeque;

use sequence::Sequence;

use crate::action::RequestId;

/// One model instance's engine.
#[derive(Clone, Debug)]
pub struct Engine {
    rules: Rules,
    kv: KvCache,
    /// Slots; those listed in `free` are reused.
    sequences: Vec<Sequence>,
    free: Vec<u32>,
    /// Slots of admitted sequences, in order of admission.
    running: Vec<u32>,
    /// Preempted sequences and those chosen by a policy, which come before the queue.
    waiting: VecDeque<Arrived>,
    /// By role: the step under way.
    steps: [Vec<plan::Entry>; 2],
}

impl Engine {
    /// An idle engine whose cache has `blocks` blocks.
    #[must_use]
    pub fn new(rules: Rules, blocks: u32) -> Self {
        Self {
            kv: KvCache::new(rules.block, blocks),
            rules,
            sequences: vec![],
            free: vec![],
            running: vec![],
            waiting: VecDeque::new(),
            steps: [vec![], vec![]],
        }
    }

    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Its cache.
    #[must_use]
    pub fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// Resizes its cache. Blocks left by sessions are evicted to make room.
    ///
    /// # Panics
    /// Sequences hold more than `blocks` blocks.
    pub fn resize(&mut self, blocks: u32) {
        self.kv.resize(blocks);
    }

    /// The longest sequence, prompt and output, that it can hold in `blocks` blocks.
    #[must_use]
    pub fn longest(&self, blocks: u32) -> u64 {
        let cache = u64::from(blocks) * u64::from(self.rules.block);
        let whole = match self.rules.chunked_prefill {
            true => u64::MAX,
            false => u64::from(self.rules.max_batched_tokens),
        };
        cache.min(u64::from(self.rules.max_context)).min(whole)
    }

    /// The number of sequences that it holds, admitted or waiting for readmission.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a step of this role would have work without newly arrived requests.
    #[must_use]
    pub fn has_work(&self, role: Role) -> bool {
        let open = |&slot: &u32| {
            let s = &self.sequences[slot as usize];
            !s.busy && role.takes(s)
        };
        role != Role::Decode && !self.waiting.is_empty() || self.running.iter().any(open)
    }

    /// The requests in the current step of a role.
    pub fn in_step(&self, role: Role) -> impl Iterator<Item = RequestId> + '_ {
        self.steps[role.index()].iter().map(|e| self.sequences[e.slot as usize].id)
    }

    /// Puts sequences that a policy has chosen first in line, in this order.
    pub fn choose(&mut self, chosen: impl DoubleEndedIterator<Item = Arrived>) {
        chosen.rev().for_each(|s| self.waiting.push_front(s));
    }

    /// Removes all sequences and empties the cache. Returns their requests in order of admission.
    pub fn evacuate(&mut self) -> Vec<RequestId> {
        let running = self.running.drain(..).map(|slot| self.sequences[slot as usize].id);
        let all = running.chain(self.waiting.drain(..).map(|w| w.id)).collect();
        self.sequences.clear();
        self.free.clear();
        self.steps.iter_mut().for_each(Vec::clear);
        self.kv = KvCache::new(self.rules.block, self.kv.blocks());
        all
    }
}
