//! Several GPUs behind one router.
//!
//! Every GPU has its own host, world and policy, as in a cluster: sharing a GPU is decided on that GPU. A
//! [`Fleet`] adds the router in front of them. It hands every open-loop request to a GPU that serves its
//! tenant, by a [`Route`]. Closed-loop clients keep the GPU that they were assigned, as a connection does.
//! A GPU that fails loses the requests that it holds, with a reason, and comes back empty.
//!
//! GPUs share nothing but the router, so each one advances independently from one request to the next. An
//! observer sees the events of all GPUs in order of time.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use cotenant_profiles::Nanos;
use cotenant_traces::{Arrivals, Request};

use crate::contention::ContentionModel;
use crate::host::Host;
use crate::observe::{Happening, Observer};
use crate::policy::Policy;
use crate::report::Refusal;
use crate::scenario::{Jitter, Load, Setup};
use crate::virtual_world::VirtualWorld;

mod joined;

pub use joined::{FleetReport, GpuRun};

/// How the router chooses among the GPUs that serve a request's tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Each in turn, tenant by tenant.
    RoundRobin,
    /// The GPU with the fewest requests of the tenant waiting or running; in turn on a tie.
    #[default]
    LeastOutstanding,
}

/// One GPU of a fleet.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its device, costs and tenants.
    pub setup: Arc<Setup>,
    /// By tenant of the setup: its number in the fleet.
    pub tenants: Vec<u32>,
    /// How co-running kernels on it slow each other.
    pub contention: ContentionModel,
}

/// A temporary failure of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The GPU.
    pub gpu: u32,
    /// When it fails.
    pub at: Nanos,
    /// How long until its workers serve again.
    pub lasts: Nanos,
}

/// Several GPUs, their load, and how long to simulate.
pub struct Fleet {
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// By tenant of the fleet: the arrivals to route; `None` for closed loops.
    pub arrivals: Vec<Option<Box<dyn Arrivals>>>,
    /// How requests are routed.
    pub route: Route,
    /// GPUs that fail, in any order; those of one GPU do not overlap.
    pub outages: Vec<Outage>,
    /// Simulated before anything is counted.
    pub warmup: Nanos,
    /// Simulated and counted.
    pub duration: Nanos,
}

/// What a GPU of a fleet is given each time that it starts.
pub trait Parts {
    /// Its policy.
    fn policy(&self, gpu: u32) -> Box<dyn Policy>;

    /// The closed-loop clients of a tenant that are assigned to it.
    fn clients(&self, gpu: u32, tenant: u32) -> Load;

    /// Random factors for its kernels' times.
    fn jitter(&self, gpu: u32) -> Option<Box<dyn Jitter>>;
}

/// Drop reason of a request that no running GPU serves.
pub const NO_GPU: &str = "no-gpu";
/// Drop reason of a request that is lost with its GPU.
pub const GPU_DOWN: &str = "gpu-down";

/// The load of a tenant whose arrivals the router hands out: it has none of its own.
struct Routed;

impl Arrivals for Routed {
    fn next_request(&mut self) -> Option<Request> {
        None
    }
}

/// Forwards the events of one GPU, with the fleet's numbering.
struct Relay<'r, 'o> {
    to: &'r RefCell<&'o mut dyn Observer>,
    tenants: &'r [u32],
    pools: u32,
    workers: u32,
}

/// Worker numbers reserved per GPU, for observers: more than any layout has.
const WORKERS_OF_A_GPU: u32 = 1 << 16;

impl Observer for Relay<'_, '_> {
    fn happened(&mut self, now: Nanos, mut what: Happening) {
        match &mut what {
            Happening::Arrived { tenant }
            | Happening::RequestDone { tenant, .. }
            | Happening::Dropped { tenant } => *tenant = self.tenants[*tenant as usize],
            Happening::Switching { pool, .. } | Happening::Busy { pool, .. } => {
                *pool += self.pools;
            }
            Happening::BatchBegan { worker, .. }
            | Happening::Granted { worker, .. }
            | Happening::KernelEnded { worker, .. }
            | Happening::BatchEnded { worker, .. }
            | Happening::WorkerUp { worker }
            | Happening::WorkerDown { worker } => *worker += self.workers,
        }
        self.to.borrow_mut().happened(now, what);
    }

    fn watches_gpu(&self) -> bool {
        self.to.borrow().watches_gpu()
    }
}

/// The time of a GPU from one start to the next failure or the end.
struct Life<'r, 'o> {
    gpu: u32,
    from: Nanos,
    /// The outage that ends it.
    to: Option<Nanos>,
    policy: Box<dyn Policy>,
    relay: Option<Relay<'r, 'o>>,
}

type Running<'a> = Host<'a, VirtualWorld<'a>>;

/// Simulates a fleet.
///
/// # Errors
/// A policy cannot lay its tenants out, or they do not fit into a GPU's memory.
///
/// # Panics
/// Outages of one GPU overlap.
pub fn run(
    fleet: Fleet,
    parts: &dyn Parts,
    observer: Option<&mut dyn Observer>,
) -> Result<FleetReport, Refusal> {
    let Fleet { gpus, arrivals, route, outages, warmup, duration } = fleet;
    let closed: Vec<bool> = arrivals.iter().map(Option::is_none).collect();
    let shared = observer.map(RefCell::new);
    let mut lives = lives(&gpus, &outages, parts, shared.as_ref());
    let end = Nanos(warmup.0 + duration.0);
    let mut changes: Vec<Change> = lives.iter().enumerate().flat_map(Change::of).collect();
    // At the same instant, ends come before starts.
    changes.sort_by_key(|c| (c.at, c.starts, c.life));
    let mut waiting: Vec<Option<&mut Life<'_, '_>>> = lives.iter_mut().map(Some).collect();
    let mut router = Router::new(&gpus, arrivals, route, shared.is_some());
    let mut runs = joined::Runs::new(gpus.len(), router.sources.len());
    for change in changes.iter().filter(|c| c.at < end) {
        router.hand_out(change.at, warmup, &mut runs);
        if !change.starts {
            let mut host = router.take(change.gpu, change.at);
            host.fail(GPU_DOWN);
            runs.ended(change.gpu, host.finish().0, change.at >= warmup);
            continue;
        }
        if router.in_order {
            router.run_in_order(change.at);
        }
        let life = waiting[change.life].take().expect("a life starts once");
        let gpu = &gpus[change.gpu as usize];
        let mut host = begin(gpu, life, parts, &closed, (warmup, duration))?;
        host.run_to(change.at);
        router.hosts[change.gpu as usize] = Some(host);
    }
    router.hand_out(end, warmup, &mut runs);
    if router.in_order {
        router.run_in_order(Nanos(end.0 - 1));
    }
    for gpu in 0..gpus.len() as u32 {
        let Some(mut host) = router.hosts[gpu as usize].take() else { continue };
        host.drain();
        runs.ended(gpu, host.finish().0, true);
    }
    Ok(runs.report(&gpus, duration))
}

impl Running<'_> {
    /// Runs up to and including an instant.
    fn run_to(&mut self, at: Nanos) {
        self.world_mut().pause_at(at);
        self.drain();
        self.world_mut().go_on();
    }

    /// The time of the next event.
    fn next_at(&mut self) -> u64 {
        self.world_mut().next_at()
    }
}

/// The start or the end of a GPU's life.
struct Change {
    at: Nanos,
    starts: bool,
    life: usize,
    gpu: u32,
}

impl Change {
    fn of((life, l): (usize, &Life<'_, '_>)) -> impl Iterator<Item = Self> {
        let starts = Self { at: l.from, starts: true, life, gpu: l.gpu };
        let ends = l.to.map(|at| Self { at, starts: false, life, gpu: l.gpu });
        [Some(starts), ends].into_iter().flatten()
    }
}

/// The lives of every GPU: from when to when it runs.
fn lives<'r, 'o>(
    gpus: &'r [Gpu],
    outages: &[Outage],
    parts: &dyn Parts,
    observer: Option<&'r RefCell<&'o mut dyn Observer>>,
) -> Vec<Life<'r, 'o>> {
    let mut lives = vec![];
    let mut pools = 0;
    for (g, gpu) in (0..).zip(gpus) {
        if gpu.setup.tenants.is_empty() {
            continue;
        }
        let mut own: Vec<_> = outages.iter().filter(|o| o.gpu == g).collect();
        own.sort_by_key(|o| o.at);
        let mut from = Nanos::ZERO;
        let ends = own.iter().map(|o| Some(**o)).chain([None]);
        for outage in ends {
            let to = outage.map(|o| o.at);
            assert!(to.is_none_or(|to| to >= from), "outages of one GPU do not overlap");
            let relay = observer.map(|to| Relay {
                to,
                tenants: &gpu.tenants,
                pools,
                workers: g * WORKERS_OF_A_GPU,
            });
            lives.push(Life { gpu: g, from, to, policy: parts.policy(g), relay });
            from = outage.map_or(Nanos::MAX, |o| Nanos(o.at.0.saturating_add(o.lasts.0)));
        }
        // More pools than any layout has instances; the numbers only have to differ.
        pools += 64;
    }
    lives
}

/// Starts a GPU: empty, with its workers loaded.
fn begin<'a>(
    gpu: &Gpu,
    life: &'a mut Life<'_, '_>,
    parts: &dyn Parts,
    closed: &[bool],
    (warmup, duration): (Nanos, Nanos),
) -> Result<Running<'a>, Refusal> {
    let Life { gpu: number, from, policy, relay, .. } = life;
    let layout = policy.layout(&gpu.setup)?;
    let load = |&tenant: &u32| match closed[tenant as usize] {
        true => parts.clients(*number, tenant),
        false => Load::Open(Box::new(Routed)),
    };
    let loads = gpu.tenants.iter().map(load).collect();
    let world = VirtualWorld::new(
        &gpu.setup,
        &layout,
        policy.depth(),
        &gpu.contention,
        parts.jitter(*number),
        relay.as_mut().map(|relay| relay as &mut dyn Observer),
        Nanos(warmup.0 + duration.0),
    );
    let world = world.starting_at(*from);
    let window = (warmup.max(*from), duration);
    let mut host = Host::new(world, &gpu.setup, loads, &layout, &mut **policy, window)?;
    host.begin_run();
    Ok(host)
}

/// The router in front of the GPUs.
struct Router<'a> {
    route: Route,
    /// By GPU; `None` while it is down or serves no tenant.
    hosts: Vec<Option<Running<'a>>>,
    sources: Vec<Option<Box<dyn Arrivals>>>,
    /// By tenant: the GPUs that serve it, and its number there.
    places: Vec<Vec<(u32, u32)>>,
    /// By tenant: the index of the place whose turn it is.
    turn: Vec<usize>,
    /// The next request of each tenant, earliest first.
    next: BinaryHeap<Reverse<(Nanos, u32)>>,
    requests: Vec<Request>,
    /// Events have to be reported in order of time.
    in_order: bool,
}

impl<'a> Router<'a> {
    fn new(
        gpus: &[Gpu],
        sources: Vec<Option<Box<dyn Arrivals>>>,
        route: Route,
        in_order: bool,
    ) -> Self {
        let place = |tenant: u32| {
            let here = |(g, gpu): (u32, &Gpu)| {
                let local = gpu.tenants.iter().position(|&t| t == tenant)?;
                Some((g, local as u32))
            };
            (0..).zip(gpus).filter_map(here).collect()
        };
        let tenants = sources.len();
        let mut router = Self {
            route,
            hosts: gpus.iter().map(|_| None).collect(),
            sources,
            places: (0..tenants as u32).map(place).collect(),
            turn: vec![0; tenants],
            next: BinaryHeap::new(),
            requests: vec![Request::at(Nanos::ZERO); tenants],
            in_order,
        };
        (0..tenants).for_each(|tenant| router.ask(tenant));
        router
    }

    /// Fetches a tenant's next request.
    fn ask(&mut self, tenant: usize) {
        let Some(source) = &mut self.sources[tenant] else { return };
        let Some(request) = source.next_request() else { return };
        assert!(request.arrival >= self.requests[tenant].arrival, "arrivals come in time order");
        self.requests[tenant] = request;
        self.next.push(Reverse((request.arrival, tenant as u32)));
    }

    /// Hands out every request that arrives before `until`. The GPUs first run up to that arrival.
    fn hand_out(&mut self, until: Nanos, warmup: Nanos, runs: &mut joined::Runs) {
        while let Some(&Reverse((at, tenant))) = self.next.peek()
            && at < until
        {
            self.next.pop();
            let request = self.requests[tenant as usize];
            if self.in_order {
                self.run_in_order(at);
            }
            match self.choose(tenant, at) {
                Some((gpu, local)) => {
                    let host = self.hosts[gpu as usize].as_mut().expect("it was chosen");
                    host.run_to(at);
                    host.hand(local, &request);
                    // Report what the GPU starts with it before another GPU continues.
                    host.run_to(at);
                }
                None if at >= warmup => runs.not_routed(tenant),
                None => {}
            }
            self.ask(tenant as usize);
        }
    }

    /// The GPU that gets a tenant's request at this instant, and the tenant's number there.
    fn choose(&mut self, tenant: u32, at: Nanos) -> Option<(u32, u32)> {
        let places = &self.places[tenant as usize];
        let turn = self.turn[tenant as usize];
        let (mut best, mut least) = (None, u64::MAX);
        for i in 0..places.len() {
            let which = (turn + i) % places.len();
            let (gpu, local) = places[which];
            let Some(host) = &mut self.hosts[gpu as usize] else { continue };
            let outstanding = match self.route {
                Route::RoundRobin => 0,
                Route::LeastOutstanding => {
                    host.run_to(at);
                    host.outstanding(local)
                }
            };
            if outstanding < least {
                (best, least) = (Some(which), outstanding);
            }
        }
        let which = best?;
        self.turn[tenant as usize] = (which + 1) % places.len();
        Some(places[which])
    }

    /// Runs every GPU up to and including an instant, one step at a time, always the earliest GPU first.
    fn run_in_order(&mut self, until: Nanos) {
        loop {
            let mut first: Option<(u64, usize)> = None;
            for (g, host) in self.hosts.iter_mut().enumerate() {
                let Some(host) = host else { continue };
                let at = host.next_at();
                if at <= until.0 && first.is_none_or(|(least, _)| at < least) {
                    first = Some((at, g));
                }
            }
            let Some((at, g)) = first else { return };
            self.hosts[g].as_mut().expect("it was looked at").run_to(Nanos(at));
        }
    }

    /// Takes a GPU out of service at an instant.
    fn take(&mut self, gpu: u32, at: Nanos) -> Running<'a> {
        if self.in_order {
            self.run_in_order(at);
        }
        let mut host = self.hosts[gpu as usize].take().expect("it has started");
        host.run_to(at);
        host
    }
}
