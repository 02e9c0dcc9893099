//! The engine against one that is written for nothing but being plain: lists instead of counters, every
//! number computed anew at every step, tokens counted and blocks given up one by one.

use std::collections::VecDeque;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::engine::{KvSize, Rules};
use cotenant_traces::Rng;

use super::model::{requests, rules, step_ns, world};
use crate::common;

#[derive(Clone, Debug)]
struct Request {
    at: u64,
    prompt: u32,
    output: u32,
    session: u64,
    generated: u32,
    computed: u32,
    /// Tokens that were computed once, whether or not they are in the cache now.
    ever: u32,
    done: u64,
}

/// What all of them took.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    preemptions: u64,
    prefilled: u64,
    recomputed: u64,
    cached: u64,
    most_blocks: u64,
    steps: u64,
}

struct Plain<'a> {
    rules: Rules,
    blocks: u32,
    all: &'a mut [Request],
    /// By number, in order of admission.
    running: Vec<usize>,
    waiting: VecDeque<usize>,
    /// The step under way: who computes how many tokens.
    step: Vec<(usize, u32)>,
    /// Sessions and the blocks that they left, the one used longest ago first.
    left: Vec<(u64, u32)>,
    sums: Sums,
}

impl Plain<'_> {
    fn used(&self) -> u32 {
        self.running.iter().map(|&i| self.held(i).div_ceil(self.rules.block)).sum()
    }

    /// Blocks that nobody holds. What sessions left is of no account to those who want them.
    fn room(&self) -> u32 {
        self.blocks - self.used()
    }

    /// What sessions left makes way, one block after the other.
    fn evict(&mut self) {
        while self.used() + self.left.iter().map(|l| l.1).sum::<u32>() > self.blocks {
            self.left[0].1 -= 1;
            self.left.retain(|l| l.1 > 0);
        }
    }

    /// Computes so many tokens of a sequence in this step.
    fn add(&mut self, i: usize, n: u32) {
        let r = &mut self.all[i];
        for token in r.computed..r.computed + n {
            match () {
                () if token < r.ever => self.sums.recomputed += 1,
                () if token < r.prompt => self.sums.prefilled += 1,
                () => (),
            }
        }
        self.step.push((i, n));
        self.evict();
    }

    /// Tokens of a sequence that hold blocks: those in the cache, and those of this step.
    fn held(&self, i: usize) -> u32 {
        let now = self.step.iter().find(|(who, _)| *who == i).map_or(0, |(_, n)| *n);
        self.all[i].computed + now
    }

    fn missing(&self, i: usize) -> u32 {
        self.all[i].prompt + self.all[i].generated - self.all[i].computed
    }

    fn budget(&self) -> u32 {
        self.rules.max_batched_tokens - self.step.iter().map(|(_, n)| n).sum::<u32>()
    }

    /// Whether anybody was thrown back.
    fn go_on(&mut self, wanted: impl Fn(&Request) -> bool) -> bool {
        let mut thrown = false;
        let mut k = 0;
        while k < self.running.len() && self.budget() > 0 {
            let i = self.running[k];
            let n = self.missing(i).min(self.budget());
            let whole = self.rules.chunked_prefill || n == self.missing(i);
            if !wanted(&self.all[i]) || !whole {
                k += 1;
                continue;
            }
            let blocks = |tokens: u32| tokens.div_ceil(self.rules.block);
            if blocks(self.all[i].computed + n) - blocks(self.all[i].computed) > self.room() {
                let last = self.running.pop().unwrap();
                let r = &mut self.all[last];
                (r.ever, r.computed) = (r.ever.max(r.computed), 0);
                self.waiting.push_front(last);
                self.sums.preemptions += 1;
                thrown = true;
                continue;
            }
            self.add(i, n);
            k += 1;
        }
        thrown
    }

    fn admit(&mut self) {
        while let Some(&i) = self.waiting.front() {
            let known = self.missing(i);
            let session = self.all[i].session;
            let left = self.left.iter().position(|l| l.0 == session);
            // The last token is computed in any case.
            let hit = left.map_or(0, |l| self.left[l].1.min((known - 1) / self.rules.block));
            let cached = hit * self.rules.block;
            let n = (known - cached).min(self.budget());
            let whole = self.rules.chunked_prefill || n == known - cached;
            let full = self.running.len() == self.rules.max_seqs as usize;
            if n == 0 || full || !whole || known.div_ceil(self.rules.block) > self.room() {
                return;
            }
            self.waiting.pop_front();
            self.running.push(i);
            if hit > 0 {
                self.left.remove(left.unwrap());
            }
            let r = &mut self.all[i];
            self.sums.cached += (r.ever..r.prompt).filter(|&token| token < cached).count() as u64;
            r.computed = cached;
            self.add(i, n);
        }
    }

    /// Plans a step: how long it takes.
    fn plan(&mut self) -> Option<u64> {
        let generates = |r: &Request| r.generated > 0 && r.prompt + r.generated == r.computed + 1;
        if self.rules.alternate {
            self.go_on(|r| !generates(r));
            self.admit();
            if self.step.is_empty() {
                self.go_on(generates);
            }
        } else if !self.go_on(|_| true) {
            self.admit();
        }
        let (mut tokens, mut prompts, mut decode) = (0, 0, 0);
        for &(i, n) in &self.step {
            if generates(&self.all[i]) {
                decode += 1;
            } else {
                tokens += u64::from(n);
                prompts += 1;
            }
        }
        self.sums.steps += u64::from(!self.step.is_empty());
        self.sums.most_blocks = self.sums.most_blocks.max(u64::from(self.used()));
        (!self.step.is_empty()).then(|| step_ns(tokens, prompts, decode))
    }

    fn end(&mut self, now: u64) {
        for (i, n) in std::mem::take(&mut self.step) {
            let r = &mut self.all[i];
            r.computed += n;
            if r.computed == r.prompt + r.generated {
                r.generated += 1;
                if r.generated == r.output {
                    r.done = now;
                    let (session, whole) = (r.session, r.computed / self.rules.block);
                    self.running.retain(|&other| other != i);
                    if self.rules.prefix_cache && session > 0 && whole > 0 {
                        self.left.retain(|l| l.0 != session);
                        self.left.push((session, whole));
                    }
                }
            }
        }
    }

    fn run(&mut self) {
        let (mut next, mut until) = (0, None::<u64>);
        loop {
            let arrival = self.all.get(next).map(|r| r.at);
            match (until, arrival) {
                (None, None) => return,
                (Some(end), at) if at.is_none_or(|at| end <= at) => {
                    self.end(end);
                    until = self.plan().map(|ns| end + ns);
                }
                (_, Some(at)) => {
                    self.waiting.push_back(next);
                    next += 1;
                    if until.is_none() {
                        until = self.plan().map(|ns| at + ns);
                    }
                }
                (Some(_), None) => unreachable!("an end comes before no arrival"),
            }
        }
    }
}

#[test]
fn every_request_ends_when_a_plain_engine_ends_it() {
    let (mut preempted, mut cached) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let blocks = 14 + rng.below(20) as u32;
        let rules = Rules {
            kv: KvSize::Bytes(Bytes(4 * u64::from(blocks))),
            max_seqs: 1 + rng.below(8) as u32,
            max_batched_tokens: 51 + rng.below(13) as u32,
            chunked_prefill: rng.below(3) > 0,
            alternate: rng.below(3) == 0,
            prefix_cache: rng.below(2) == 0,
            ..rules()
        };
        let mut at = 1;
        let mut plain: Vec<Request> = (0..50)
            .map(|_| {
                at += rng.below(60_000);
                let [prompt, output] = [30, 20].map(|most| 1 + rng.below(most) as u32);
                let session = rng.below(4);
                let (generated, computed, ever, done) = (0, 0, 0, 0);
                Request { at, prompt, output, session, generated, computed, ever, done }
            })
            .collect();
        let asked: Vec<_> =
            plain.iter().map(|r| (r.at - 1, r.prompt, r.output, r.session)).collect();
        let mut engine = Plain {
            rules,
            blocks,
            all: &mut plain,
            running: vec![],
            waiting: VecDeque::new(),
            step: vec![],
            left: vec![],
            sums: Sums::default(),
        };
        engine.run();
        let theirs_sums = engine.sums;
        let mut world = world(rules, None);
        world.duration = Nanos::from_secs(100);
        let scenario = world.scenario(vec![requests(&asked)]);
        let (report, log) = common::watch(scenario, common::build("mps", &[]).as_mut());
        let mut ours: Vec<(u64, u64)> =
            common::completions(&log).into_iter().map(|(now, _, arrival)| (arrival, now)).collect();
        ours.sort_unstable();
        let mut theirs: Vec<(u64, u64)> = plain.iter().map(|r| (r.at, r.done)).collect();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "seed {seed} {rules:?}");
        let t = report.tenants[0].tokens.as_ref().unwrap();
        let ours_sums = Sums {
            preemptions: t.preemptions,
            prefilled: t.prefilled,
            recomputed: t.recomputed,
            cached: t.cached,
            most_blocks: t.most_blocks,
            steps: t.steps,
        };
        assert_eq!(ours_sums, theirs_sums, "seed {seed} {rules:?}");
        preempted += t.preemptions;
        cached += t.cached;
    }
    assert!(preempted > 1000 && cached > 1000, "{preempted} preempted, {cached} cached");
}
