//! The bound behind the `ideal` policy: a fluid packing of all requests, each at its best operating point.
//!
//! A request of `n` items progresses at most as fast as its kernels' shortest durations allow. While it
//! progresses, it holds CUs and DRAM bandwidth in proportion: per item, the least CU-time at which its
//! kernels can run at all (over CU counts and batch sizes), and the bytes that they move. The sums over all
//! requests stay within the device. There is no launch, copy, switch or placement, nothing is quantised,
//! and requests can be preempted at any instant at no cost. Whatever a policy completes uses at least this
//! much of the device, so no policy can reach a mix of completions outside these limits.
//!
//! Within the limits some request has to go first: see `order`. Whatever the order, the mix of completions
//! lies within what the device can do; the order decides which of these mixes results.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use cotenant_traces::rng::mix;

use crate::metrics::Counts;
use crate::observe::{Happening, Observer};
use crate::pool::Totals;
use crate::program::Code;
use crate::report::{GpuReport, Report, TenantReport};
use crate::scenario::{Class, Scenario, Setup, Tenant};
use crate::source::Source;

mod order;

use order::{Flow, Waiting};

/// What one item of a tenant costs at its best operating point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// CU-nanoseconds.
    pub cu_ns: f64,
    /// Bytes.
    pub dram_bytes: f64,
}

/// The least of the device that an item of `tenant` needs, over batch sizes up to the tenant's limit.
#[must_use]
pub fn need(tenant: &Tenant, code: &Code, dram_bytes_per_us: u64) -> Need {
    let mut best = Need { cu_ns: f64::INFINITY, dram_bytes: f64::INFINITY };
    for items in 1..=tenant.batch_max.min(tenant.model.max_items()) {
        let kernels =
            tenant.model.program(items).kernels.iter().map(|&k| &code.kernels[k as usize]);
        let area: u64 = kernels.clone().map(|k| k.least_area()).sum();
        // A kernel on its own never draws more bandwidth than the device has.
        let bytes: u64 = kernels
            .map(|k| k.dram_bytes.min(dram_bytes_per_us.saturating_mul(k.fastest()) / 1000))
            .sum();
        best.cu_ns = best.cu_ns.min(area as f64 / f64::from(items));
        best.dram_bytes = best.dram_bytes.min(bytes as f64 / f64::from(items));
    }
    best
}

struct Side {
    source: Source,
    counts: Counts,
    in_system: u64,
}

struct Fluid<'a> {
    setup: Arc<Setup>,
    observer: Option<&'a mut dyn Observer>,
    needs: Vec<Need>,
    capacity: (f64, f64),
    sides: Vec<Side>,
    /// (time, order, tenant): the next arrivals.
    timers: BinaryHeap<Reverse<(u64, u64, u32)>>,
    order: u64,
    /// Requests in the system that are not running.
    waiting: Waiting,
    /// Running requests, each with its speed (1: as fast as it can).
    running: Vec<(Flow, f64)>,
    now: u64,
    busy_cu_ns: f64,
    dram_bytes: f64,
    events: u64,
    digest: u64,
}

/// Computes the bound of `scenario`, as a report that no policy can beat.
#[must_use]
pub fn bound(scenario: Scenario, observer: Option<&mut dyn Observer>) -> Report {
    let Scenario { setup, loads, warmup, duration, .. } = scenario;
    let bandwidth = (setup.device.memory.dram_gbps * 1000.0) as u64;
    let needs = setup.tenants.iter().map(|t| need(t, &setup.code, bandwidth)).collect();
    let rate = setup.device.memory.dram_gbps;
    let sides = loads.into_iter().map(|load| Side {
        source: Source::new(load),
        counts: Counts::default(),
        in_system: 0,
    });
    let mut fluid = Fluid {
        setup: Arc::clone(&setup),
        observer,
        needs,
        capacity: (f64::from(setup.device.cus()), rate),
        sides: sides.collect(),
        timers: BinaryHeap::new(),
        order: 0,
        waiting: Waiting::default(),
        running: vec![],
        now: 0,
        busy_cu_ns: 0.0,
        dram_bytes: 0.0,
        events: 0,
        digest: 0,
    };
    fluid.arm_loads();
    fluid.go(warmup.0);
    for side in &mut fluid.sides {
        side.counts.open(side.in_system, warmup, duration);
    }
    let opened = (fluid.busy_cu_ns, fluid.dram_bytes);
    let end = warmup.0 + duration.0;
    fluid.go(end);
    let (busy, bytes) = (fluid.busy_cu_ns - opened.0, fluid.dram_bytes - opened.1);
    let power = &setup.device.power;
    let used = Totals {
        // 1 W × ns is 10^-6 mJ, and 1 pJ is 10^-9 mJ.
        energy_mj: busy * power.cu_w / 1e6 + bytes * power.dram_pj_per_byte / 1e9,
        busy_cu_ns: (fluid.busy_cu_ns - opened.0) as u64,
        cu_ns: fluid.busy_cu_ns - opened.0,
        dram_bytes: fluid.dram_bytes - opened.1,
        ..Totals::default()
    };
    let gpu = GpuReport::of(&setup.device, duration, used);
    let late = fluid.late(end);
    let tenants = fluid.sides.iter().zip(late).map(|(s, late)| TenantReport {
        counts: s.counts.clone(),
        tokens: None,
        in_flight: s.in_system,
        in_flight_late: late,
        used: None,
    });
    Report {
        tenants: tenants.collect(),
        gpu,
        events: fluid.events,
        digest: mix(fluid.digest ^ fluid.events),
        window: duration,
        counters: vec![],
        cut: None,
    }
}

impl Fluid<'_> {
    fn arm_loads(&mut self) {
        for t in 0..self.sides.len() {
            for at in self.sides[t].source.first() {
                self.arm(at.0, t);
            }
        }
    }

    fn arm(&mut self, at: u64, tenant: usize) {
        self.order += 1;
        self.timers.push(Reverse((at, self.order, tenant as u32)));
    }

    /// Runs to `end`, which is the first instant not simulated.
    fn go(&mut self, end: u64) {
        loop {
            let done = self
                .running
                .iter()
                .filter(|r| r.1 > 0.0)
                .map(|(f, speed)| self.now + (libm::ceil(f.left_ns / speed) as u64).max(1));
            let done = done.min().unwrap_or(u64::MAX);
            let timer = self.timers.peek().map_or(u64::MAX, |t| t.0.0);
            let next = done.min(timer);
            if next >= end {
                self.age(end);
                return;
            }
            self.age(next);
            self.events += 1;
            self.digest = mix(self.digest ^ next ^ u64::from(timer < done) << 63);
            if done <= timer {
                self.complete();
            } else {
                let Reverse((_, _, tenant)) = self.timers.pop().expect("a timer is due");
                self.arrival(tenant as usize);
            }
            self.pack();
        }
    }

    fn age(&mut self, to: u64) {
        let dt = (to - self.now) as f64;
        for (flow, speed) in &mut self.running {
            let worked = (dt * *speed).min(flow.left_ns);
            flow.left_ns -= worked;
            self.busy_cu_ns += worked * flow.cus;
            self.dram_bytes += worked * flow.rate;
        }
        self.now = to;
    }

    fn complete(&mut self) {
        let mut i = 0;
        while i < self.running.len() {
            // A request with less than a nanosecond left is done.
            if self.running[i].0.left_ns >= 1.0 - 1e-9 {
                i += 1;
                continue;
            }
            let (flow, _) = self.running.remove(i);
            let t = flow.tenant as usize;
            let side = &mut self.sides[t];
            let latency = self.now - flow.arrival;
            let in_time = (flow.deadline != u64::MAX).then_some(self.now <= flow.deadline);
            side.counts.complete(Nanos(latency), Nanos::ZERO, in_time);
            side.counts.batches += 1;
            side.counts.batch_items += u64::from(flow.items);
            side.in_system -= 1;
            if let Some(o) = &mut self.observer {
                let arrival = Nanos(flow.arrival);
                o.happened(
                    Nanos(self.now),
                    Happening::RequestDone { tenant: flow.tenant, arrival },
                );
            }
            if let Some(at) = self.sides[t].source.again(Nanos(self.now)) {
                self.arm(at.0, t);
            }
        }
    }

    fn arrival(&mut self, t: usize) {
        let side = &mut self.sides[t];
        let (request, next) = side.source.arrive(Nanos(self.now));
        side.counts.arrive(Nanos(self.now), side.in_system);
        side.in_system += 1;
        if let Some(next) = next {
            self.arm(next.0, t);
        }
        let tenant = &self.setup.tenants[t];
        let largest = tenant.model.max_items();
        let items = request.items.max(1);
        let program = tenant.model.program(items.min(largest));
        let passes = items.div_ceil(largest);
        let code = &self.setup.code;
        let pass: u64 = program.kernels.iter().map(|&k| code.kernels[k as usize].fastest()).sum();
        let shortest = (pass * u64::from(passes)) as f64 * f64::from(request.work);
        let weight = f64::from(items) * f64::from(request.work) / shortest;
        let slo = request.slo.or(tenant.slo);
        let (cus, rate) = (self.needs[t].cu_ns * weight, self.needs[t].dram_bytes * weight);
        self.order += 1;
        let flow = Flow {
            tenant: t as u32,
            items,
            arrival: request.arrival.0,
            deadline: slo.map_or(u64::MAX, |s| request.arrival.0.saturating_add(s.0)),
            best_effort: tenant.class == Class::BestEffort,
            order: self.order,
            left_ns: shortest,
            cus,
            rate,
            share: (cus / self.capacity.0).max(rate / self.capacity.1),
        };
        self.waiting.add(flow, self.now);
        if let Some(o) = &mut self.observer {
            o.happened(Nanos(self.now), Happening::Arrived { tenant: t as u32 });
        }
    }

    /// Recomputes all speeds: in order, each request runs as fast as the rest of the device allows.
    fn pack(&mut self) {
        for (flow, _) in std::mem::take(&mut self.running) {
            self.waiting.add(flow, self.now);
        }
        let (mut cus, mut rate) = self.capacity;
        let running = &mut self.running;
        self.waiting.serve(self.now, |flow| {
            let share = |left: f64, full: f64| if full > left { left / full } else { 1.0 };
            let speed = share(cus, flow.cus).min(share(rate, flow.rate)).max(0.0);
            if speed < 1e-9 {
                return false;
            }
            cus -= speed * flow.cus;
            rate -= speed * flow.rate;
            running.push((flow, speed));
            true
        });
        if let Some(o) = &mut self.observer {
            let cus = (self.capacity.0 - cus.max(0.0)) as u32;
            o.happened(Nanos(self.now), Happening::Busy { pool: 0, cus });
        }
    }

    fn late(&self, end: u64) -> Vec<u64> {
        let mut late = vec![0; self.sides.len()];
        let running = self.running.iter().map(|r| &r.0);
        for flow in running.chain(self.waiting.iter()).filter(|f| f.deadline < end) {
            late[flow.tenant as usize] += 1;
        }
        late
    }
}
