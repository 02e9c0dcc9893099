//! The workload that event kernels are compared on, its hand-written loop, and the same workload as
//! a scenario of the simulator.
//!
//! `tenants` Poisson sources; a request is ten kernels in sequence with exponential service of mean
//! 100 µs; one FIFO in front of `servers` one-kernel servers; load 0.8. Every draw is a pure function
//! of (tenant, request, kernel), in whole nanoseconds, so that every contestant sees the same ones.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use cotenant_profiles::Nanos;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::scenario::{Jitter, Load, Scenario};
use cotenant_sim::{Report, program::KernelCode};
use cotenant_traces::rng::mix;
use cotenant_traces::{Arrivals, Request};

use super::{World, device, kernel, model, program, tenant};

/// Kernels of one request.
pub const PER_REQUEST: u32 = 10;
/// Mean service time of a kernel, ns.
pub const MEAN_NS: u64 = 100_000;

#[derive(Clone, Copy, Debug)]
pub struct Params {
    pub tenants: u32,
    pub servers: u32,
    pub kernels: u64,
    pub mean_gap_ns: f64,
}

impl Params {
    pub fn new(tenants: u32, servers: u32, kernels: u64) -> Self {
        let rate = 0.8 * f64::from(servers) / (f64::from(PER_REQUEST) * MEAN_NS as f64);
        Self { tenants, servers, kernels, mean_gap_ns: f64::from(tenants) / rate }
    }
}

/// Where draws come from.
pub trait Draws: Copy + Send + 'static {
    /// Time from the `request`-th arrival of `tenant` to the next, ns.
    fn gap(&self, p: &Params, tenant: u32, request: u32) -> u64;
    /// Service time over its mean, not yet rounded to nanoseconds.
    fn factor(&self, tenant: u32, request: u32, kernel: u32) -> f64;
}

/// Counter-based, with one logarithm or another.
#[derive(Clone, Copy)]
pub struct Counter(pub fn(f64) -> f64);

impl Counter {
    #[inline(always)]
    fn exp(self, counter: u64, salt: u64) -> f64 {
        let h = mix(counter.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(salt));
        let u = ((h >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64);
        -(self.0)(u)
    }
}

impl Draws for Counter {
    #[inline(always)]
    fn gap(&self, p: &Params, tenant: u32, request: u32) -> u64 {
        let c = u64::from(tenant) << 32 | u64::from(request);
        (self.exp(c, 0x9E37_79B9_7F4A_7C15) * p.mean_gap_ns) as u64 + 1
    }
    #[inline(always)]
    fn factor(&self, tenant: u32, request: u32, kernel: u32) -> f64 {
        let c = u64::from(tenant) << 40 ^ u64::from(request) << 8 ^ u64::from(kernel);
        self.exp(c, 0xD1B5_4A32_D192_ED03)
    }
}

#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    pub requests: u64,
    pub lat_sum: u64,
    pub lat_max: u64,
    pub check: u64,
}

impl Stats {
    #[inline(always)]
    pub fn finish(&mut self, tenant: u32, arrive: u64, now: u64) {
        self.requests += 1;
        self.lat_sum += now - arrive;
        self.lat_max = self.lat_max.max(now - arrive);
        self.check = self.check.wrapping_add(now.wrapping_mul(2 * u64::from(tenant) + 1));
    }
}

/// What the hand-written loop computes.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub stats: Stats,
    pub events: u64,
    pub end: u64,
    /// Events at the same nanosecond as the one before.
    pub ties: u64,
}

/// Events by (time, class, sequence, id); the first push after a pop replaces the top.
struct Queue<const KERNELS_FIRST: bool> {
    heap: BinaryHeap<Reverse<u128>>,
    sequence: u64,
    hole: bool,
}

impl<const KERNELS_FIRST: bool> Queue<KERNELS_FIRST> {
    #[inline(always)]
    fn push(&mut self, at: u64, id: u32, arrival: bool) {
        self.sequence += 1;
        let class = u128::from(KERNELS_FIRST && arrival) << 63;
        let key = u128::from(at) << 64 | class | u128::from(self.sequence) << 24 | u128::from(id);
        if self.hole {
            self.hole = false;
            *self.heap.peek_mut().unwrap() = Reverse(key);
        } else {
            self.heap.push(Reverse(key));
        }
    }
    #[inline(always)]
    fn pop(&mut self) -> Option<(u64, u32)> {
        if self.hole {
            self.heap.pop();
        }
        self.hole = true;
        let key = self.heap.peek()?.0;
        Some(((key >> 64) as u64, key as u32 & 0xFF_FFFF))
    }
}

#[derive(Clone, Copy)]
struct Req {
    tenant: u32,
    idx: u32,
    k: u32,
    arrive: u64,
}

/// The loop as one writes it by hand. At equal times events go in the order in which they were
/// scheduled; with `KERNELS_FIRST`, kernel completions go before arrivals.
#[inline(never)]
pub fn by_hand<const KERNELS_FIRST: bool, D: Draws>(p: &Params, draws: D) -> Outcome {
    let n = p.tenants;
    let mut q = Queue::<KERNELS_FIRST> {
        heap: BinaryHeap::with_capacity((p.tenants + p.servers) as usize + 1),
        sequence: 0,
        hole: false,
    };
    let service = |tenant, idx, k| (draws.factor(tenant, idx, k) * MEAN_NS as f64) as u64 + 1;
    let (mut reqs, mut free, mut queue) = (Vec::<Req>::new(), Vec::<u32>::new(), VecDeque::new());
    let mut running = vec![0; p.servers as usize];
    let mut idle: Vec<u32> = (0..p.servers).rev().collect();
    let mut next = vec![0u32; n as usize];
    let mut out = Outcome { stats: Stats::default(), events: 0, end: 0, ties: 0 };
    let mut kernels = 0;
    for t in 0..n {
        q.push(draws.gap(p, t, 0), t, true);
    }
    while let Some((now, ev)) = q.pop() {
        out.ties += u64::from(now == out.end);
        out.end = now;
        out.events += 1;
        if ev < n {
            let idx = next[ev as usize];
            next[ev as usize] = idx + 1;
            q.push(now + draws.gap(p, ev, idx + 1), ev, true);
            let r = Req { tenant: ev, idx, k: 0, arrive: now };
            let id = if let Some(i) = free.pop() {
                reqs[i as usize] = r;
                i
            } else {
                reqs.push(r);
                reqs.len() as u32 - 1
            };
            if let Some(srv) = idle.pop() {
                running[srv as usize] = id;
                q.push(now + service(ev, idx, 0), n + srv, false);
            } else {
                queue.push_back(id);
            }
        } else {
            let srv = ev - n;
            kernels += 1;
            let id: u32 = running[srv as usize];
            let r = &mut reqs[id as usize];
            r.k += 1;
            if r.k == PER_REQUEST {
                out.stats.finish(r.tenant, r.arrive, now);
                free.push(id);
            } else {
                queue.push_back(id);
            }
            if kernels >= p.kernels {
                break;
            }
            if let Some(id) = queue.pop_front() {
                running[srv as usize] = id;
                let r = &reqs[id as usize];
                q.push(now + service(r.tenant, r.idx, r.k), n + srv, false);
            } else {
                idle.push(srv);
            }
        }
    }
    out
}

struct CounterArrivals<D> {
    p: Params,
    draws: D,
    tenant: u32,
    index: u32,
    at: u64,
}

impl<D: Draws> Arrivals for CounterArrivals<D> {
    fn next_request(&mut self) -> Option<Request> {
        self.at += self.draws.gap(&self.p, self.tenant, self.index);
        self.index += 1;
        Some(Request::at(Nanos(self.at)))
    }
}

struct CounterJitter<D>(D);

impl<D: Draws> Jitter for CounterJitter<D> {
    fn factor(&mut self, tenant: u32, request: u64, position: u32) -> f64 {
        self.0.factor(tenant, request as u32, position)
    }
}

/// The same workload for the simulator: one-CU kernels on `servers` CUs, first come first served.
/// `workers` per tenant bounds the requests of a tenant under way; `dram_bytes` is each kernel's.
pub fn scenario<D: Draws>(
    p: &Params,
    draws: D,
    workers: u32,
    dram_bytes: u64,
    contention: ContentionModel,
    end: u64,
) -> Scenario {
    let one_cu = KernelCode { want: 1, blocks: 1, dram_bytes, ..kernel(p.servers, |_| MEAN_NS) };
    let mut world = World::new(device(&[p.servers]), vec![one_cu]);
    let model = model(vec![program(&world.code, &[0; PER_REQUEST as usize], 0)]);
    for t in 0..p.tenants {
        let mut tenant = tenant(&format!("t{t}"), model.clone());
        tenant.workers = workers;
        world.tenants.push(tenant);
    }
    world.duration = Nanos(end);
    world.contention = contention;
    let arrivals = |tenant| -> Load {
        Load::Open(Box::new(CounterArrivals { p: *p, draws, tenant, index: 0, at: 0 }))
    };
    let mut scenario = world.scenario((0..p.tenants).map(arrivals).collect());
    scenario.jitter = Some(Box::new(CounterJitter(draws)));
    scenario
}

impl Observer for Stats {
    fn happened(&mut self, now: Nanos, what: Happening) {
        if let Happening::RequestDone { tenant, arrival } = what {
            self.finish(tenant, arrival.0, now.0);
        }
    }
}

/// Runs it under `mps`.
pub fn simulate(scenario: Scenario, stats: Option<&mut Stats>) -> Report {
    let mut policy = super::build("mps", &[]);
    let observer = stats.map(|s| s as &mut dyn Observer);
    cotenant_sim::run(scenario, policy.as_mut(), observer).unwrap()
}
