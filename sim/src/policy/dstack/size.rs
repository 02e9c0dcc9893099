//! How long a batch takes on a number of CUs, where the knee is, and which batch is worth most.

use crate::scenario::Setup;

/// Which share of the GPU a model gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Knee {
    /// The share at which `1 / (E² S)` is largest: E is the batch's time, S the CUs.
    Efficacy,
    /// The smallest within `1 + tolerance` of the time on the whole GPU.
    RightSize(f64),
    /// This number of CUs.
    Given(u32),
}

/// Which batch size it runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batching {
    /// The feasible batch with the largest `b / (E² S)`.
    Efficacy,
    /// The largest feasible batch.
    Largest,
}

/// A share and a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) cus: u32,
    pub(super) items: u32,
    /// The batch's time, ns.
    pub(super) ns: u64,
}

/// Time of a batch of `items` requests of tenant `t` alone on `cus` CUs, ns: host work, copies, and
/// kernels that each wait for their predecessor and for the host.
pub(super) fn batch_ns(setup: &Setup, t: usize, items: u32, cus: u32) -> u64 {
    let model = &setup.tenants[t].model;
    let copy = |bytes: u64, gbps: f64| {
        // 10^9 bytes per second are bytes per nanosecond.
        libm::ceil((bytes * u64::from(items)) as f64 / gbps) as u64
    };
    let pcie = &setup.device.pcie;
    let program = model.program(items);
    let mut now = copy(model.input_per_item.0, pcie.h2d_gbps);
    for (&k, &issued) in program.kernels.iter().zip(&program.issued_ns) {
        let kernel = &setup.code.kernels[k as usize];
        now = now.max(issued) + kernel.at(cus.min(kernel.want));
    }
    model.host_per_request.0 * u64::from(items) + now + copy(model.output_per_item.0, pcie.d2h_gbps)
}

/// Shares that the device supports, CUs, ascending.
pub(super) fn steps(setup: &Setup) -> Vec<u32> {
    let step = setup.device.mps.map_or(1, |m| m.round_cus).max(1) as usize;
    let cus = setup.device.cus();
    let mut steps: Vec<u32> = (1..=cus).filter(|c| c.is_multiple_of(step as u32)).collect();
    if steps.last() != Some(&cus) {
        steps.push(cus);
    }
    steps
}

/// The knee for batches of `items`.
fn knee(setup: &Setup, t: usize, items: u32, rule: Knee, steps: &[u32]) -> u32 {
    let full = setup.device.cus();
    match rule {
        Knee::Given(cus) => cus,
        Knee::Efficacy => {
            let cost = |&c: &u32| area(batch_ns(setup, t, items, c), c);
            *steps.iter().min_by_key(|c| cost(c)).expect("a device has CUs")
        }
        Knee::RightSize(tolerance) => {
            let limit = batch_ns(setup, t, items, full) as f64 * (1.0 + tolerance);
            let within = |c: &u32| batch_ns(setup, t, items, *c) as f64 <= limit;
            steps.iter().copied().find(within).unwrap_or(full)
        }
    }
}

/// E² S.
fn area(ns: u64, cus: u32) -> u128 {
    u128::from(ns) * u128::from(ns) * u128::from(cus)
}

/// The largest batch of each launch sequence: smaller ones take as long and serve fewer requests.
fn batches(setup: &Setup, t: usize) -> Vec<u32> {
    let tenant = &setup.tenants[t];
    let last = tenant.batch_max.min(tenant.model.max_items());
    let program = |b: u32| tenant.model.program_for[b as usize];
    (1..=last).filter(|&b| b == last || program(b) != program(b + 1)).collect()
}

/// Share and batch of a tenant with this SLO (ns) and rate (items/s, if known): a batch must be
/// done within half of the SLO, so that one can wait for another, and its assembly and its run
/// together within all of it. Where no batch is feasible: one item, on the fewest CUs that make it
/// within half of the SLO, or on those where it is fastest.
pub(super) fn choose(
    setup: &Setup,
    t: usize,
    slo: u64,
    rate: Option<f64>,
    rule: Knee,
    batching: Batching,
) -> Choice {
    let steps = steps(setup);
    let mut best: Option<Choice> = None;
    for items in batches(setup, t) {
        let cus = knee(setup, t, items, rule, &steps);
        let choice = Choice { cus, items, ns: batch_ns(setup, t, items, cus) };
        let better = best.is_none_or(|b| match batching {
            Batching::Largest => items > b.items,
            // b / (E² S), multiplied out.
            Batching::Efficacy => {
                u128::from(items) * area(b.ns, b.cus) > u128::from(b.items) * area(choice.ns, cus)
            }
        });
        if better && feasible(choice, slo, rate) {
            best = Some(choice);
        }
    }
    best.unwrap_or_else(|| fallback(setup, t, slo, rule, &steps))
}

fn feasible(choice: Choice, slo: u64, rate: Option<f64>) -> bool {
    let assembly = match rate {
        Some(rate) if rate > 0.0 => f64::from(choice.items - 1) / rate * 1e9,
        _ => 0.0,
    };
    choice.ns <= slo / 2 && choice.ns as f64 + assembly <= slo as f64
}

fn fallback(setup: &Setup, t: usize, slo: u64, rule: Knee, steps: &[u32]) -> Choice {
    let at = |cus: u32| Choice { cus, items: 1, ns: batch_ns(setup, t, 1, cus) };
    if let Knee::Given(cus) = rule {
        return at(cus);
    }
    let choices = || steps.iter().map(|&c| at(c));
    let in_time = choices().find(|c| c.ns <= slo / 2);
    in_time.or_else(|| choices().min_by_key(|c| c.ns)).expect("a device has CUs")
}
