//! What a step leaves undone: nothing that it had tokens, places and blocks for.

use std::collections::{BTreeMap, VecDeque};

use cotenant_sim::engine::{Arrived, Engine, Queue, Role, Rules};
use cotenant_sim::serving::RequestId;
use cotenant_traces::Rng;

use super::model::rules;

struct Waiting<'a>(&'a mut VecDeque<Arrived>, &'a mut Vec<RequestId>);

impl Queue for Waiting<'_> {
    fn front(&self) -> Option<Arrived> {
        self.0.front().copied()
    }

    fn admit(&mut self) {
        self.1.extend(self.0.pop_front().map(|a| a.id));
    }
}

#[test]
fn a_step_has_all_that_it_has_room_for() {
    let (mut full, mut idle, mut thrown) = (0, 0, 0);
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let rules = Rules {
            max_seqs: 1 + rng.below(8) as u32,
            max_batched_tokens: 8 + rng.below(40) as u32,
            prefix_cache: false,
            ..rules()
        };
        let blocks = 14 + rng.below(20) as u32;
        let mut engine = Engine::new(rules, blocks);
        let mut queue = VecDeque::new();
        // By request: known tokens, in order of arrival.
        let mut known: BTreeMap<u32, u32> = BTreeMap::new();
        let mut admitted = vec![];
        let mut next = 0;
        while next < 60 || !known.is_empty() {
            if next < 60 && (known.is_empty() || rng.below(3) == 0) {
                let [prompt, output] = [30, 20].map(|most| 1 + rng.below(most) as u32);
                let id = RequestId(next);
                let (generated, session, lost) = (0, 0, 0);
                queue.push_back(Arrived { id, prompt, output, generated, session, lost });
                known.insert(next, prompt);
                next += 1;
            }
            let step = engine.plan(Role::Whole, u32::MAX, &mut Waiting(&mut queue, &mut admitted));
            let Some(step) = step else {
                assert!(known.is_empty(), "seed {seed}: nobody runs, and somebody waits");
                continue;
            };
            let tokens = step.shape.tokens();
            let within: Vec<u32> = engine.in_step(Role::Whole).map(|id| id.0).collect();
            assert!(tokens <= rules.max_batched_tokens && tokens > 0, "seed {seed}");
            assert!(within.len() <= rules.max_seqs as usize, "seed {seed}");
            assert!(engine.kv().used() <= blocks, "seed {seed}");
            thrown += step.preempted;
            if tokens == rules.max_batched_tokens {
                full += 1;
            } else if step.preempted == 0 {
                idle += 1;
                // Budget was left: who is first among those left out has no place or no blocks.
                let out = known.iter().find(|(id, _)| !within.contains(id));
                if let Some((id, &n)) = out {
                    let free = blocks - engine.kv().used();
                    let places = within.len() < rules.max_seqs as usize;
                    let fits = n.div_ceil(rules.block) <= free;
                    assert!(!(places && fits), "seed {seed}: request {id} was left out");
                }
            }
            // Oldest first: nobody is computed while one that came before has no part in the step.
            let last = within.iter().max().copied().unwrap_or(0);
            assert!((within.len() as u32) >= known.range(..=last).count() as u32, "seed {seed}");
            engine.ended(Role::Whole, |emitted| {
                *known.get_mut(&emitted.id.0).unwrap() += 1;
                if emitted.last {
                    known.remove(&emitted.id.0);
                }
            });
        }
    }
    assert!(full > 1000 && idle > 1000 && thrown > 1000, "{full} {idle} {thrown}");
}
