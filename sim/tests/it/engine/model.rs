//! A generating model whose steps can be counted by hand.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // tests of two crates use parts of it

use std::sync::Arc;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::engine::{KvSize, Rules};
use cotenant_sim::program::{Follows, Grid, HostTimes, KernelCode, StepCode, Table};
use cotenant_sim::scenario::{Generates, TokenGoals};
use cotenant_sim::{Load, Tenant};
use cotenant_traces::Request;

use crate::common::{self, World};

/// Each token of a step takes so long in its layers.
pub const TOKEN: u64 = 1_000;
/// Each sequence that is sampled from.
pub const SAMPLE: u64 = 100;
/// Attention of one new token, and of one sequence that generates, whatever they look at.
pub const PREFILL: u64 = 10;
pub const DECODE: u64 = 500;
pub const CUS: u32 = 8;

/// Two launches by tokens around attention, one by sequences.
pub fn kernels(most: u32) -> (Vec<KernelCode>, StepCode) {
    let sizes: Vec<u32> = (1..=most).collect();
    let mut kernels = vec![];
    let mut of = |ns: u64| -> Vec<u32> {
        let first = kernels.len() as u32;
        kernels.extend(sizes.iter().map(|&n| common::kernel(CUS, |_| ns * u64::from(n))));
        (first..kernels.len() as u32).collect()
    };
    let by_tokens = Table { sizes: sizes.clone(), kernels: vec![of(TOKEN)] };
    let by_sequences = Table { sizes: sizes.clone(), kernels: vec![of(SAMPLE)] };
    let mut grid = |ns: u64| Grid {
        sizes: sizes.clone(),
        lengths: vec![1],
        kernels: of(ns).into_iter().map(|k| vec![k]).collect(),
    };
    let (prefill, decode) = (grid(PREFILL), grid(DECODE));
    let launches =
        vec![Follows::Decode, Follows::Prefill, Follows::Tokens(0), Follows::Sequences(0)];
    let host = HostTimes::default();
    (
        kernels,
        StepCode {
            launches,
            by_tokens,
            by_sequences,
            prefill,
            decode,
            host,
            ..StepCode::default()
        },
    )
}

/// Time of a step that computes so many tokens of so many prompts, and generates for so many.
pub fn step_ns(tokens: u64, prompts: u64, decode: u64) -> u64 {
    PREFILL * tokens + DECODE * decode + TOKEN * (tokens + decode) + SAMPLE * (prompts + decode)
}

pub fn rules() -> Rules {
    Rules {
        max_seqs: 8,
        max_batched_tokens: 64,
        chunked_prefill: true,
        alternate: false,
        prefix_cache: true,
        max_context: 1 << 20,
        block: 4,
        kv: KvSize::Bytes(Bytes(64)),
        elastic: None,
        kv_per_token: Bytes(1),
        scheduler_overhead: Nanos::ZERO,
        async_scheduling: true,
    }
}

/// One generating tenant alone.
pub fn world(rules: Rules, goals: Option<TokenGoals>) -> World {
    let (kernels, steps) = kernels(64);
    let mut world = World::new(common::device(&[CUS]), kernels);
    world.costs = world.costs.ideal();
    let program = |n: usize| {
        let launches = [&steps.decode.kernels[n][0], &steps.by_tokens.kernels[0][n]];
        common::program(&world.code, &launches.map(|k| *k), 0)
    };
    let model = common::model((0..rules.max_seqs as usize).map(program).collect());
    world.tenants = vec![generating("llm", model, steps, rules, goals)];
    world
}

pub fn generating(
    name: &str,
    model: cotenant_sim::program::ModelCode,
    steps: StepCode,
    rules: Rules,
    goals: Option<TokenGoals>,
) -> Tenant {
    let generates = Generates { rules, goals, steps };
    Tenant { generates: Some(Arc::new(generates)), ..common::tenant(name, model) }
}

/// Requests: instant (from just after the window has opened), prompt, output, session.
pub fn requests(all: &[(u64, u32, u32, u64)]) -> Load {
    let request = |&(at, tokens_in, tokens_out, session): &(u64, u32, u32, u64)| Request {
        tokens_in,
        tokens_out,
        session,
        ..Request::at(Nanos(at + 1))
    };
    Load::Open(Box::new(all.iter().map(request).collect::<Vec<_>>().into_iter()))
}
