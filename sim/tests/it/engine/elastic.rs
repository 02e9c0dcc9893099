//! Caches that share memory and take it only while sequences need it.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::engine::{Elastic, KvSize, Rules};
use cotenant_sim::policy::ALL;
use cotenant_sim::{Load, Scenario};
use cotenant_traces::Rng;

use super::model::{generating, kernels, requests, rules, step_ns, world};
use crate::common;

/// When a request comes, its tokens in and out, its session.
type Asked = (u64, u32, u32, u64);

const PAGES: Elastic = Elastic { floor: Bytes(0), page: Bytes(4), map: Nanos::ZERO };

/// Two tenants whose caches share `shared` bytes; a block has 4.
fn pair(shared: u64, rules: [Rules; 2], loads: Vec<Load>) -> Scenario {
    of_workers(1, shared, rules, loads)
}

/// So many workers for each tenant.
fn of_workers(workers: u32, shared: u64, [a, b]: [Rules; 2], loads: Vec<Load>) -> Scenario {
    let (kernels, steps) = kernels(64);
    let mut world = world(a, None);
    world.code.kernels = kernels;
    let model = world.tenants[0].model.clone();
    world.tenants.push(generating("other", model, steps, b, None));
    world.tenants.iter_mut().for_each(|t| t.workers = workers);
    world.duration = Nanos::from_secs(10);
    let scenario = world.scenario(vec![]);
    let models: u64 = scenario.setup.tenants.iter().map(|t| t.model.memory().0).sum();
    world.device.memory.capacity =
        Bytes(shared + models + u64::from(2 * workers) * scenario.setup.client_memory().0);
    world.scenario(loads)
}

fn elastic(kv: u64, elastic: Elastic) -> Rules {
    Rules { kv: KvSize::Bytes(Bytes(kv)), elastic: Some(elastic), ..rules() }
}

fn load(rng: &mut Rng, n: u64) -> Vec<Asked> {
    let mut at = 0;
    (0..n)
        .map(|_| {
            at += rng.below(60_000);
            let [tokens_in, tokens_out] = [30, 20].map(|most| 1 + rng.below(most) as u32);
            (at, tokens_in, tokens_out, rng.below(4))
        })
        .collect()
}

#[test]
fn memory_that_nobody_else_needs_is_like_ones_own() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let all = load(&mut rng, 50);
        let bytes = 4 * (14 + rng.below(20));
        let run = |rules: Rules| {
            let loads = vec![requests(&all), requests(&[])];
            let scenario = pair(bytes, [rules, elastic(bytes, PAGES)], loads);
            let (report, log) = common::watch(scenario, common::build("mps", &[]).as_mut());
            let t = report.tenants[0].tokens.clone().unwrap();
            (common::completions(&log), (t.preemptions, t.recomputed, t.most_blocks), t)
        };
        // What sessions leave is given back.
        let ours = Rules { prefix_cache: false, ..elastic(bytes, PAGES) };
        let fixed = run(Rules { elastic: None, ..ours });
        let shared = run(ours);
        assert_eq!((&fixed.0, fixed.1), (&shared.0, shared.1), "seed {seed}");
        // Neither idle time nor free blocks take memory.
        assert_eq!(shared.2.kv_utilization(), Some(1.0), "seed {seed}");
        assert!(shared.2.memory_ns < fixed.2.memory_ns, "seed {seed}");
    }
}

#[test]
fn every_token_is_accounted_for_under_every_policy() {
    let mut ran = 0;
    for info in ALL {
        for seed in 0..6 {
            let workers = 1 + seed % 3;
            let mut rng = Rng::new(seed);
            let shared = 4 * (20 + rng.below(12));
            let page = Bytes(1 + rng.below(9));
            let rules = [0, 1].map(|_| {
                let (floor, map) = (Bytes(rng.below(20) / workers), Nanos(rng.below(300)));
                let kv = shared - rng.below(12);
                let elastic = elastic(kv, Elastic { floor, page, map });
                Rules { prefix_cache: rng.below(2) == 0, ..elastic }
            });
            let all = [load(&mut rng, 40), load(&mut rng, 40)];
            let loads = all.iter().map(|a| requests(a)).collect();
            let there = shared + 2 * page.0;
            let scenario = of_workers(workers as u32, there, rules, loads);
            let Ok(mut policy) = (info.build)(&Default::default()) else { continue };
            if policy.layout(&scenario.setup).is_err() {
                continue;
            }
            let Ok(report) = cotenant_sim::run(scenario, policy.as_mut(), None) else { continue };
            ran += 1;
            let mut memory = 0.0;
            for (t, all) in all.iter().enumerate() {
                let (tenant, what) = (&report.tenants[t], format!("{} seed {seed}", info.name));
                let tokens = tenant.tokens.as_ref().unwrap();
                let dropped = tenant.counts.dropped_total();
                assert_eq!(tenant.counts.completed + dropped, 40, "{what}: {tenant:?}");
                assert!(dropped < 20, "{what}: {dropped}");
                assert!(4 * tokens.most_blocks <= there, "{what}");
                if dropped == 0 {
                    let sum = |f: fn(&Asked) -> u32| all.iter().map(|r| u64::from(f(r))).sum();
                    let (offered_in, offered_out): (u64, u64) = (sum(|r| r.1), sum(|r| r.2));
                    assert_eq!(tokens.generated, offered_out, "{what}");
                    assert_eq!(tokens.prefilled + tokens.cached, offered_in, "{what}");
                }
                memory += tokens.kv_memory(report.window).unwrap();
            }
            assert!(memory <= there as f64, "{} seed {seed}: {memory} of {there}", info.name);
        }
    }
    assert!(ran >= 60, "only {ran} runs");
}

#[test]
fn who_waits_for_memory_starts_when_it_is_given_back() {
    let waits = |floor: u64| {
        let rules = [elastic(32, PAGES), elastic(32, Elastic { floor: Bytes(floor), ..PAGES })];
        let loads = vec![requests(&[(0, 29, 2, 0)]), requests(&[(5, 8, 1, 0)])];
        let (report, log) = common::watch(pair(32, rules, loads), &mut *common::build("mps", &[]));
        let done = common::completions(&log);
        (
            report,
            done.iter().find(|c| c.1 == 0).unwrap().0,
            done.iter().find(|c| c.1 == 1).unwrap().0,
        )
    };
    // The first one's 30 tokens fill all of the 8 blocks.
    let (_, first, second) = waits(0);
    assert_eq!(second, first + step_ns(8, 1, 0));
    // With a floor of its own the second one need not wait, and the first is too long for the rest.
    let (report, ..) = {
        let rules = [elastic(32, PAGES), elastic(32, Elastic { floor: Bytes(8), ..PAGES })];
        let loads = vec![requests(&[(0, 29, 2, 0), (1, 20, 4, 0)]), requests(&[(5, 8, 1, 0)])];
        common::watch(pair(32, rules, loads), &mut *common::build("mps", &[]))
    };
    assert_eq!(report.tenants[0].counts.dropped, [("too-long", 1)]);
    assert_eq!((report.tenants[0].counts.completed, report.tenants[1].counts.completed), (1, 1));
}

#[test]
fn mapping_takes_host_time_page_by_page() {
    let pages = Elastic { page: Bytes(8), map: Nanos(700), ..PAGES };
    let rules = Rules { async_scheduling: false, ..elastic(64, pages) };
    let run = |rules: Rules| {
        let loads = vec![requests(&[(0, 20, 6, 0)]), requests(&[])];
        let report = common::run(pair(64, [rules, elastic(64, PAGES)], loads), "mps", &[]);
        (report.tenants[0].tokens.clone().unwrap(), report.tenants[0].latency_mean().unwrap())
    };
    // Five blocks are three pages; the 25th token is the fourth page's first one.
    let (tokens, latency) = run(rules);
    let (prompt, token) = (step_ns(20, 1, 0), step_ns(0, 0, 1));
    assert_eq!(tokens.ttft_mean(), Some(Nanos(3 * 700 + prompt)));
    assert_eq!(latency, Nanos(4 * 700 + prompt + 5 * token));
    // Planned while the step before runs, mapping hides behind it.
    let (_, latency) = run(Rules { async_scheduling: true, ..rules });
    assert_eq!(latency, Nanos(3 * 700 + prompt + 5 * token));
}
