//! One step: how many tokens each sequence computes in it, and its results once it has ended.

use super::sequence::{Arrived, Queue, Sequence};
use super::{Engine, Role};
use crate::action::RequestId;
use crate::program::Shape;

/// A sequence's part of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) slot: u32,
    tokens: u32,
}

/// A planned step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// What it computes.
    pub shape: Shape,
    /// Sequences that lost their blocks to make room.
    pub preempted: u32,
    /// Prompt tokens that are computed for the first time.
    pub prefilled: u64,
    /// Tokens that are computed again after a preemption.
    pub recomputed: u64,
    /// Prompt tokens that were already in the cache.
    pub cached: u64,
}

/// A token that a step has produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The request that it belongs to.
    pub id: RequestId,
    /// It is the request's last one.
    pub last: bool,
}

impl Engine {
    /// Plans the next step of a role, with at most `most` sequences. `None`: there is no work.
    ///
    /// # Panics
    /// The role's last step has not ended.
    pub fn plan(&mut self, role: Role, most: u32, queue: &mut dyn Queue) -> Option<Planned> {
        let mut step = std::mem::take(&mut self.steps[role.index()]);
        assert!(step.is_empty(), "one step at a time");
        let mut planned = Planned::default();
        let mut budget = self.rules.max_batched_tokens;
        let most = most.min(self.rules.max_seqs) as usize;
        match role {
            Role::Whole if self.rules.alternate => {
                self.go_on(Role::Prefill, most, &mut budget, &mut step, &mut planned);
                self.admit(queue, most, &mut budget, &mut step, &mut planned);
                if step.is_empty() {
                    self.go_on(Role::Decode, most, &mut budget, &mut step, &mut planned);
                }
            }
            _ => {
                self.go_on(role, most, &mut budget, &mut step, &mut planned);
                if role != Role::Decode && planned.preempted == 0 {
                    self.admit(queue, most, &mut budget, &mut step, &mut planned);
                }
            }
        }
        let some = !step.is_empty();
        for entry in &step {
            self.sequences[entry.slot as usize].busy = true;
        }
        self.steps[role.index()] = step;
        some.then_some(planned)
    }

    /// Running sequences get the tokens that they lack.
    fn go_on(
        &mut self,
        role: Role,
        most: usize,
        budget: &mut u32,
        step: &mut Vec<Entry>,
        planned: &mut Planned,
    ) {
        let mut i = 0;
        while i < self.running.len() && *budget > 0 && step.len() < most {
            let slot = self.running[i];
            let s = self.sequences[slot as usize];
            let tokens = s.missing().min(*budget);
            let whole = self.rules.chunked_prefill || tokens == s.missing();
            if s.busy || !role.takes(&s) || !whole {
                i += 1;
                continue;
            }
            let wanted = self.kv.blocks_of(s.computed + tokens) - s.blocks;
            if !self.kv.take(wanted) {
                match self.preempt_last(i) {
                    Some(_) => planned.preempted += 1,
                    // All other candidates are in steps that have not ended.
                    None => i += 1,
                }
                continue;
            }
            self.sequences[slot as usize].blocks += wanted;
            self.add(slot, tokens, budget, step, planned);
            i += 1;
        }
    }

    /// Preempts the idle sequence that was admitted last, at position `from` or later: it loses its blocks
    /// and goes to the front of the waiting sequences.
    fn preempt_last(&mut self, from: usize) -> Option<RequestId> {
        let idle = |&i: &usize| !self.sequences[self.running[i] as usize].busy;
        let last = (from..self.running.len()).rev().find(idle)?;
        let slot = self.running.remove(last);
        let s = self.sequences[slot as usize];
        self.kv.give_back(s.blocks, 0, 0);
        self.waiting.push_front(s.arrived());
        self.free.push(slot);
        Some(s.id)
    }

    /// Admits waiting sequences.
    fn admit(
        &mut self,
        queue: &mut dyn Queue,
        most: usize,
        budget: &mut u32,
        step: &mut Vec<Entry>,
        planned: &mut Planned,
    ) {
        while *budget > 0 && step.len() < most && self.running.len() < self.rules.max_seqs as usize
        {
            let preempted = self.waiting.front().copied();
            let Some(next) = preempted.or_else(|| queue.front()) else { return };
            let known = next.prompt + next.generated;
            let hit =
                if self.rules.prefix_cache { self.kv.hit(next.session, known - 1) } else { 0 };
            let cached = self.kv.tokens_of(hit);
            let tokens = (known - cached).min(*budget);
            let whole = self.rules.chunked_prefill || tokens == known - cached;
            if !whole || !self.kv.has_room(self.kv.blocks_of(known) - hit, hit) {
                return;
            }
            match preempted {
                Some(_) => drop(self.waiting.pop_front()),
                None => queue.admit(),
            }
            self.kv.take_over(next.session, hit);
            let blocks = self.kv.blocks_of(cached + tokens);
            let taken = self.kv.take(blocks - hit);
            assert!(taken, "the whole of it has room");
            let slot = self.seat(&next, cached, blocks);
            planned.cached += u64::from(cached.min(next.prompt).saturating_sub(next.lost));
            self.running.push(slot);
            self.add(slot, tokens, budget, step, planned);
        }
    }

    fn seat(&mut self, from: &Arrived, computed: u32, blocks: u32) -> u32 {
        let sequence = Sequence::new(from, computed, blocks);
        match self.free.pop() {
            Some(slot) => {
                self.sequences[slot as usize] = sequence;
                slot
            }
            None => {
                self.sequences.push(sequence);
                self.sequences.len() as u32 - 1
            }
        }
    }

    fn add(
        &mut self,
        slot: u32,
        tokens: u32,
        budget: &mut u32,
        step: &mut Vec<Entry>,
        planned: &mut Planned,
    ) {
        let s = &self.sequences[slot as usize];
        *budget -= tokens;
        if s.generates() {
            planned.shape.add_decode(s.known());
        } else {
            planned.shape.add_prefill(tokens, s.computed + tokens);
        }
        let (first, again) = s.split(tokens);
        planned.prefilled += u64::from(first);
        planned.recomputed += u64::from(again);
        step.push(Entry { slot, tokens });
    }

    /// Ends the current step of a role. Calls `emit` for every sequence that got a token, in the order of
    /// the step. Finished sequences leave the engine.
    pub fn ended(&mut self, role: Role, mut emit: impl FnMut(Emitted)) {
        let mut step = std::mem::take(&mut self.steps[role.index()]);
        let mut done = false;
        for entry in step.drain(..) {
            let s = &mut self.sequences[entry.slot as usize];
            s.busy = false;
            s.computed += entry.tokens;
            if s.missing() > 0 {
                continue;
            }
            s.generated += 1;
            let (id, last) = (s.id, s.is_done());
            emit(Emitted { id, last });
            if last {
                done = true;
                // The last token is not in the cache: no later token attended to it.
                let keep = if self.rules.prefix_cache { s.computed / self.rules.block } else { 0 };
                let (blocks, session) = (s.blocks, s.session);
                self.kv.give_back(blocks, session, keep);
                self.free.push(entry.slot);
            }
        }
        if done {
            let sequences = &self.sequences;
            self.running.retain(|&slot| !sequences[slot as usize].is_done());
        }
        self.steps[role.index()] = step;
    }
}
