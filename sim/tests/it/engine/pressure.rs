//! More sequences than the cache holds.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::engine::{KvSize, Rules};
use cotenant_traces::Rng;

use super::model::{requests, rules, step_ns, world};
use crate::common;

/// When a request comes, its tokens in and out, its session.
type Asked = (u64, u32, u32, u64);

/// Random requests, and what they ask for in all.
fn load(seed: u64, n: u64) -> (Vec<Asked>, u64, u64) {
    let mut rng = Rng::new(seed);
    let mut at = 0;
    let all: Vec<_> = (0..n)
        .map(|_| {
            at += rng.below(40_000);
            let [tokens_in, tokens_out] = [30, 20].map(|most| 1 + rng.below(most) as u32);
            (at, tokens_in, tokens_out, rng.below(4))
        })
        .collect();
    let sum = |f: fn(&Asked) -> u32| all.iter().map(|r| u64::from(f(r))).sum();
    (all.clone(), sum(|r| r.1), sum(|r| r.2))
}

#[test]
fn every_token_is_accounted_for_and_no_block_is_used_twice() {
    for seed in 0..200 {
        let mut rng = Rng::new(1000 + seed);
        let blocks = 13 + rng.below(20);
        let rules = Rules {
            kv: KvSize::Bytes(Bytes(4 * blocks)),
            max_seqs: 1 + rng.below(12) as u32,
            max_batched_tokens: 50 + rng.below(14) as u32,
            chunked_prefill: rng.below(4) > 0,
            alternate: rng.below(3) == 0,
            prefix_cache: rng.below(2) == 0,
            ..rules()
        };
        let (all, offered_in, offered_out) = load(seed, 60);
        let mut world = world(Rules { max_seqs: 12, ..rules }, None);
        let generates = std::sync::Arc::make_mut(world.tenants[0].generates.as_mut().unwrap());
        generates.rules = rules;
        world.duration = Nanos::from_secs(10);
        let report = common::run(world.scenario(vec![requests(&all)]), "mps", &[]);
        let (tenant, tokens) = (&report.tenants[0], report.tenants[0].tokens.as_ref().unwrap());
        assert_eq!(tenant.counts.completed, 60, "seed {seed} {rules:?}: {tenant:?}");
        assert_eq!(tokens.generated, offered_out, "seed {seed}");
        assert_eq!(tokens.prefilled + tokens.cached, offered_in, "seed {seed} {rules:?}");
        assert!(tokens.most_blocks <= blocks, "seed {seed}");
        assert_eq!(tokens.recomputed == 0, tokens.preemptions == 0, "seed {seed}");
    }
}

#[test]
fn those_admitted_last_lose_their_blocks_and_nobody_starves() {
    // Eight prompts fill the cache; their outputs do not fit beside each other.
    let all: Vec<_> = (0..8).map(|i| (i, 8, 24, 0)).collect();
    let mut world = world(rules(), None);
    world.duration = Nanos::from_secs(10);
    let report = common::run(world.scenario(vec![requests(&all)]), "mps", &[]);
    let tokens = report.tenants[0].tokens.as_ref().unwrap();
    assert_eq!(report.tenants[0].counts.completed, 8);
    assert!(tokens.preemptions > 0 && tokens.recomputed > 0);
    assert_eq!(tokens.most_blocks, 16);
    // First come, first served: the first one is never thrown back, so its tokens never pause.
    let share = tokens.kv_utilization().unwrap();
    assert!((0.0..=1.0).contains(&share));
}

#[test]
fn nobody_starves_however_many_come_behind() {
    for seed in 0..100 {
        let mut rng = Rng::new(2000 + seed);
        let rules = Rules {
            kv: KvSize::Bytes(Bytes(4 * (13 + rng.below(20)))),
            max_seqs: 1 + rng.below(8) as u32,
            max_batched_tokens: 50 + rng.below(14) as u32,
            chunked_prefill: rng.below(2) == 0,
            ..rules()
        };
        // Many times what the engine can do.
        let mut at = 0;
        let all: Vec<Asked> = (0..80)
            .map(|_| {
                at += rng.below(4_000);
                let [tokens_in, tokens_out] = [30, 20].map(|most| 1 + rng.below(most) as u32);
                (at, tokens_in, tokens_out, rng.below(4))
            })
            .collect();
        let mut world = world(rules, None);
        world.duration = Nanos::from_secs(10);
        let (_, log) =
            common::watch(world.scenario(vec![requests(&all)]), &mut *common::build("mps", &[]));
        let mut done: Vec<(u64, u64)> =
            common::completions(&log).into_iter().map(|(now, _, arrival)| (arrival, now)).collect();
        done.sort_unstable();
        assert_eq!(done.len(), all.len(), "seed {seed}");
        // Once everybody before it is done, a request is the oldest: it is never thrown back, so all
        // that it waits for is the step under way, its prompt (and what it had generated), and a step
        // per token.
        let seqs = u64::from(rules.max_seqs);
        let longest = step_ns(u64::from(rules.max_batched_tokens), seqs, seqs);
        let mut before = 0;
        for (&(arrival, now), &(_, tokens_in, tokens_out, _)) in done.iter().zip(&all) {
            let steps = 2 + u64::from((tokens_in + tokens_out) / 50 + tokens_out);
            assert!(now <= arrival.max(before) + steps * longest, "seed {seed}: {arrival}");
            before = before.max(now);
        }
    }
}

#[test]
fn what_can_never_fit_is_dropped_with_its_reason() {
    let all = [(0, 60, 5, 0), (1, 10, 2, 0)];
    let report = common::run(world(rules(), None).scenario(vec![requests(&all)]), "mps", &[]);
    assert_eq!(report.tenants[0].counts.dropped, [("too-long", 1)]);
    assert_eq!(report.tenants[0].counts.completed, 1);
}

#[test]
fn an_engine_without_room_for_a_cache_does_not_start() {
    let rules = Rules { kv: KvSize::Bytes(Bytes(3)), ..rules() };
    let scenario = world(rules, None).scenario(vec![requests(&[])]);
    let error = cotenant_sim::run(scenario, &mut *common::build("mps", &[]), None).unwrap_err();
    assert!(error.to_string().contains("out-of-memory"), "{error}");
}
