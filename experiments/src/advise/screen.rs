//! A formula that ranks candidates before any is simulated.
//!
//! A tenant on `c` CUs with a share of the bandwidth serves a batch of `b` in `s(b) = max(host, Σ max(kernel
//! at c CUs, its bytes / bandwidth)) + host work per request`. At rate λ with `w` workers, its batches are of
//! the smallest size `b` that keeps it busy for at most 80 % of the time, else of the largest size. Its 99th
//! percentile is taken as `s × (1 or 2, waiting for the batch that runs) + 4.6 × the mean wait of an M/D/1
//! queue`. An engine's batches are its sequences: each takes `s(b)` per token and, once, its prompt at half
//! of the place's arithmetic rate. None of this is reported: it only decides what is simulated first.

use cotenant_sim::scenario::Setup;

use super::goal::Goal;
use super::lab::Lab;

/// The part of the GPU that a tenant may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) cus: u32,
    /// DRAM bandwidth, bytes per microsecond.
    pub(crate) bandwidth: u64,
}

impl Place {
    /// The whole GPU.
    pub(crate) fn whole(setup: &Setup) -> Self {
        Self { cus: setup.device.cus(), bandwidth: (setup.device.memory.dram_gbps * 1000.0) as u64 }
    }

    /// A part of the GPU's CUs, with all of its bandwidth available.
    pub(crate) fn part(setup: &Setup, cus: u32) -> Self {
        Self { cus: cus.clamp(1, setup.device.cus()), ..Self::whole(setup) }
    }
}

/// Time of a batch, ns: on the GPU, and for the host.
pub(crate) fn batch_ns(lab: &Lab, tenant: usize, batch: u32, place: Place) -> (f64, f64) {
    let t = &lab.setup.tenants[tenant];
    let program = t.model.program(batch);
    let kernels = program.kernels.iter().map(|&k| &lab.setup.code.kernels[k as usize]);
    let gpu: u64 =
        kernels.map(|k| k.at(place.cus).max(k.dram_bytes * 1000 / place.bandwidth.max(1))).sum();
    let issue = program.issued_ns.last().copied().unwrap_or(0);
    let host = issue as f64 + t.model.host_per_request.0 as f64 * f64::from(batch);
    (gpu as f64, host)
}

/// The formula's 99th percentile over the goal (or over ten times the isolated latency if there is no goal).
/// It grows without bound under overload.
pub(crate) fn ratio(
    lab: &Lab,
    tenant: usize,
    (batch, workers, requests): (u32, u32, f64),
    place: Place,
) -> f64 {
    if lab.generates(tenant) {
        return engine_ratio(lab, tenant, (batch, workers, requests), place);
    }
    let rate = lab.mix.rate(tenant).unwrap_or(0.0) * requests / 1e9;
    let workers = f64::from(workers);
    let busy = |b: u32| {
        let (gpu, host) = batch_ns(lab, tenant, b, place);
        // Several workers share the place's CUs, but each has a host thread of its own.
        (rate / f64::from(b) * gpu).max(rate / f64::from(b) * gpu.max(host) / workers)
    };
    let sizes = (0..).map(|i| 1 << i).take_while(|&b| b < batch).chain([batch]);
    let chosen = sizes.into_iter().find(|&b| busy(b) <= 0.8).unwrap_or(batch);
    let (gpu, host) = batch_ns(lab, tenant, chosen, place);
    let (service, u) = (gpu.max(host), busy(chosen));
    let p99 = if u >= 1.0 {
        1e3 * service * u
    } else {
        let waits = if chosen > 1 { 2.0 } else { 1.0 };
        service * waits + 4.6 * service / workers * u / (2.0 * (1.0 - u))
    };
    let goal = match lab.slo(tenant) {
        Some(slo) => slo.0 as f64,
        None => 10.0 * lab.isolated[tenant].map_or(service, |i| i.p95.0 as f64),
    };
    p99 / goal.max(1.0)
}

/// Time of a prompt, ns: two operations per weight and token, at half of the place's rate.
fn prompt_ns(lab: &Lab, tenant: usize, place: Place) -> f64 {
    let (device, model) = (&lab.setup.device, &lab.setup.tenants[tenant].model);
    let share = f64::from(place.cus) / f64::from(device.cus().max(1));
    let precision = lab.mix.point.tenants[tenant].precision;
    let weights = model.weights.0 as f64 * 1e3 / precision.weight_bytes(1000).max(1) as f64;
    let per_ns = device.compute.fp16_tflops * 1e3 / 2.0 * share;
    2.0 * weights * lab.tokens[tenant].0 / f64::max(per_ns, 1.0)
}

fn engine_ratio(
    lab: &Lab,
    tenant: usize,
    (most, workers, requests): (u32, u32, f64),
    place: Place,
) -> f64 {
    let rate = lab.mix.rate(tenant).unwrap_or(0.0) * requests / 1e9 / f64::from(workers);
    let (_, out) = lab.tokens[tenant];
    let prompt = prompt_ns(lab, tenant, place);
    // One token of each of `n` sequences, and their part of the prompts that are computed meanwhile.
    let token = |n: u32| {
        let (gpu, host) = batch_ns(lab, tenant, n, place);
        gpu.max(host) + f64::from(n) * prompt / out
    };
    let busy = |n: u32| rate * out * token(n) / f64::from(n);
    let sizes = (0..).map(|i| 1 << i).take_while(|&n| n < most).chain([most]);
    let chosen = sizes.into_iter().find(|&n| busy(n) <= 0.8).unwrap_or(most);
    let (each, u) = (token(chosen), busy(chosen));
    let (ttft, tpot) = match lab.goal(tenant) {
        Some(Goal::Tokens(goals)) => (goals.ttft.0 as f64, goals.tpot.0 as f64),
        Some(Goal::Latency(slo)) => (slo.0 as f64 / 4.0, slo.0 as f64 / out),
        None => (10.0 * (prompt + each), 10.0 * each),
    };
    let over = if u >= 1.0 { 1e3 * u } else { 1.0 };
    over * ((prompt + each) / ttft.max(1.0)).max(each / tpot.max(1.0))
}

/// Steps that a request takes: 1, or one for each token.
fn steps(lab: &Lab, tenant: usize) -> f64 {
    if lab.generates(tenant) { lab.tokens[tenant].1 } else { 1.0 }
}

/// Time of a batch if the whole GPU could be filled with such batches side by side, ns.
pub(crate) fn area_ns(lab: &Lab, tenant: usize, batch: u32) -> f64 {
    let program = lab.setup.tenants[tenant].model.program(batch);
    let kernels = program.kernels.iter().map(|&k| &lab.setup.code.kernels[k as usize]);
    let area: f64 = kernels.map(|k| k.at(k.want) as f64 * f64::from(k.want)).sum();
    area / f64::from(lab.setup.device.cus())
}

/// Share of the GPU's CUs that a tenant keeps busy, on average, at its rate with such batches.
pub(crate) fn demand(lab: &Lab, tenant: usize, batch: u32, requests: f64) -> f64 {
    let Some(rate) = lab.mix.rate(tenant) else { return 0.1 };
    let steps = rate * requests * steps(lab, tenant) / f64::from(batch);
    steps * area_ns(lab, tenant, batch) / 1e9
}

/// The load of a tenant's requests: GPU or host time per unit of time, whichever is larger.
pub(crate) fn load(lab: &Lab, tenant: usize, batch: u32, requests: f64) -> f64 {
    let rate = lab.mix.rate(tenant).unwrap_or(0.0) * requests / 1e9;
    let whole = Place::whole(&lab.setup);
    let (gpu, host) = batch_ns(lab, tenant, batch, whole);
    let prompt = if lab.generates(tenant) { prompt_ns(lab, tenant, whole) } else { 0.0 };
    rate * (steps(lab, tenant) / f64::from(batch) * gpu.max(host) + prompt)
}
