//! Random scenarios: small devices, odd kernels, every kind of load, tight memory, costly mechanisms.

pub(crate) mod policies;
pub(crate) mod script;
mod worlds;

use cotenant_sim::contention::NAMES;
use proptest::prelude::*;

pub(crate) use worlds::{laid_out, scenario};

/// Size and kind of a random scenario; the rest comes from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) groups: Vec<u32>,
    pub(crate) kernels: u32,
    pub(crate) tenants: u32,
    /// Most workers per tenant.
    pub(crate) workers: u32,
    /// 0: one lane, 1: exclusive lanes, 2: time slices, 3: to completion, 4: two pools.
    pub(crate) kind: u32,
    pub(crate) contention: usize,
    /// Hardware queues.
    pub(crate) hardware: u32,
    pub(crate) flags: Flags,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// Blocks go to all groups alike.
    pub(crate) even: bool,
    /// Some kernels share fairly.
    pub(crate) fair: bool,
    pub(crate) priorities: bool,
    /// Of masks too.
    pub(crate) masks: bool,
    /// Workers of a pool share a host.
    pub(crate) shared_host: bool,
    /// Memory for a few workers more than there are.
    pub(crate) tight: bool,
    /// Mechanisms cost nothing.
    pub(crate) ideal: bool,
    pub(crate) jitter: bool,
    pub(crate) slos: bool,
}

/// One in `n`.
fn one_in(n: u32) -> impl Strategy<Value = bool> {
    (0..n).prop_map(|i| i == 0)
}

fn flags() -> impl Strategy<Value = Flags> {
    let placement = (any::<bool>(), one_in(4), any::<bool>(), any::<bool>());
    let rest = (one_in(3), any::<bool>(), one_in(4), one_in(4), any::<bool>());
    (placement, rest).prop_map(|(p, r)| Flags {
        even: p.0,
        fair: p.1,
        priorities: p.2,
        masks: p.3,
        shared_host: r.0,
        tight: r.1,
        ideal: r.2,
        jitter: r.3,
        slos: r.4,
    })
}

pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let groups = proptest::collection::vec(1u32..5, 1..4);
    let sizes = (1u32..6, 1u32..6, 1u32..4, 0u32..5, 0..NAMES.len(), 1u32..20);
    (any::<u64>(), groups, sizes, flags()).prop_map(|(seed, groups, sizes, flags)| Shape {
        seed,
        groups,
        kernels: sizes.0,
        tenants: sizes.1,
        workers: sizes.2,
        kind: sizes.3,
        contention: sizes.4,
        hardware: sizes.5,
        flags,
    })
}
