//! The queue of `../run` in nexosim: one model that schedules events to itself, which is the fastest
//! way to write it there, since models that send each other messages cost more.
//!
//! Arguments: tenants, servers, kernels.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexosim::model::{Context, Model, schedulable};
use nexosim::simulation::{Mailbox, SimInit};
use nexosim::time::MonotonicTime;
use serde::{Deserialize, Serialize};

/// Kernels of one request, their mean service time in ns, and the load of the servers.
const PER_REQUEST: u32 = 10;
const MEAN_NS: f64 = 100_000.0;
const LOAD: f64 = 0.8;

/// Kernels that have ended, events, requests answered, and the sum of their latencies, ns.
static ENDED: AtomicU64 = AtomicU64::new(0);
static EVENTS: AtomicU64 = AtomicU64::new(0);
static ANSWERED: AtomicU64 = AtomicU64::new(0);
static LATENCY: AtomicU64 = AtomicU64::new(0);

/// Exponential with this mean, a pure function of the counter.
fn exponential(mean: f64, counter: u64, salt: u64) -> Duration {
    let mut z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(salt);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let uniform = ((z >> 11) + 1) as f64 / (1u64 << 53) as f64;
    Duration::from_nanos((-uniform.ln() * mean) as u64 + 1)
}

#[derive(Clone, Serialize, Deserialize)]
struct Request {
    tenant: u32,
    number: u32,
    /// Kernels of it that have ended.
    done: u32,
    arrived: u64,
}

#[derive(Serialize, Deserialize)]
struct Servers {
    tenants: u32,
    mean_gap_ns: f64,
    idle: u32,
    waiting: VecDeque<Request>,
    /// By tenant: requests so far.
    arrived: Vec<u32>,
}

fn now(context: &Context<Servers>) -> u64 {
    let now = context.time();
    now.as_secs() as u64 * 1_000_000_000 + u64::from(now.subsec_nanos())
}

#[Model]
impl Servers {
    #[nexosim(init)]
    async fn init(&mut self, context: &Context<Self>) {
        (0..self.tenants).for_each(|tenant| self.await_next(tenant, context));
    }

    fn await_next(&self, tenant: u32, context: &Context<Self>) {
        let counter = u64::from(tenant) << 32 | u64::from(self.arrived[tenant as usize]);
        let gap = exponential(self.mean_gap_ns, counter, 0x9E37_79B9_7F4A_7C15);
        context.schedule_event(gap, schedulable!(Self::arrives), tenant).expect("it lies ahead");
    }

    fn queue(&mut self, request: Request, context: &Context<Self>) {
        self.waiting.push_back(request);
        self.serve(context);
    }

    fn serve(&mut self, context: &Context<Self>) {
        if self.idle == 0 {
            return;
        }
        let Some(request) = self.waiting.pop_front() else { return };
        self.idle -= 1;
        let Request { tenant, number, done, .. } = request;
        let counter = u64::from(tenant) << 40 ^ u64::from(number) << 8 ^ u64::from(done);
        let service = exponential(MEAN_NS, counter, 0xD1B5_4A32_D192_ED03);
        context.schedule_event(service, schedulable!(Self::ends), request).expect("it lies ahead");
    }

    #[nexosim(schedulable)]
    async fn arrives(&mut self, tenant: u32, context: &Context<Self>) {
        EVENTS.fetch_add(1, Ordering::Relaxed);
        let number = self.arrived[tenant as usize];
        self.arrived[tenant as usize] += 1;
        self.await_next(tenant, context);
        self.queue(Request { tenant, number, done: 0, arrived: now(context) }, context);
    }

    #[nexosim(schedulable)]
    async fn ends(&mut self, mut request: Request, context: &Context<Self>) {
        EVENTS.fetch_add(1, Ordering::Relaxed);
        ENDED.fetch_add(1, Ordering::Relaxed);
        self.idle += 1;
        request.done += 1;
        if request.done == PER_REQUEST {
            ANSWERED.fetch_add(1, Ordering::Relaxed);
            LATENCY.fetch_add(now(context) - request.arrived, Ordering::Relaxed);
            self.serve(context);
        } else {
            self.queue(request, context);
        }
    }
}

/// CPU time of this thread, s.
fn clock() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let ns: f64 = stat.split_whitespace().next().expect("it comes first").parse().expect("a number");
    ns / 1e9
}

fn main() {
    let arguments: Vec<u32> =
        std::env::args().skip(1).map(|a| a.parse().expect("tenants, servers, kernels")).collect();
    let [tenants, servers, kernels] = arguments[..] else { panic!("tenants, servers, kernels") };
    let rate = LOAD * f64::from(servers) / (f64::from(PER_REQUEST) * MEAN_NS);
    let model = Servers {
        tenants,
        mean_gap_ns: f64::from(tenants) / rate,
        idle: servers,
        waiting: VecDeque::new(),
        arrived: vec![0; tenants as usize],
    };
    let bench = SimInit::with_num_threads(1).add_model(model, Mailbox::new(), "servers");
    let mut simulation = bench.init(MonotonicTime::EPOCH).expect("it starts");
    let start = clock();
    while ENDED.load(Ordering::Relaxed) < u64::from(kernels) {
        simulation.step().expect("it goes on");
    }
    let seconds = clock() - start;
    let (events, answered) = (EVENTS.load(Ordering::Relaxed), ANSWERED.load(Ordering::Relaxed));
    let mean_us = LATENCY.load(Ordering::Relaxed) as f64 / answered as f64 / 1e3;
    println!("{events} {seconds:.6} {mean_us:.3}");
}
