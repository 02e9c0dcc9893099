//! `mps-static`: exclusive partitions.
//!
//! Models MPS static partitioning (CUDA 13.1, `-S`): the GPU is cut into chunks of CUs, a partition
//! is a set of chunks that no other client can touch, and idle CUs cannot be borrowed. CUs that do not
//! fill a chunk are stranded. L2 and DRAM stay shared. On devices without MPS the same is done with
//! one-CU chunks (CU masks). `shares` is `equal` or percentages per tenant; each tenant's workers
//! share its partition unless `per_worker` gives every worker one of its own.
//!
//! With `rebalance` the partitions follow the load while every worker keeps its model loaded: a worker
//! finishes its batch, stands still until those whose partitions change do, and serves on. MPS itself
//! cannot do that, since a client keeps the partition that it starts in. What can: streams of one process
//! that move to other green contexts, made beforehand (`stream_hop` for each worker), and AMD queues
//! whose CU mask is set anew (`mask_ioctl` for each worker).
//!
//! Source: NVIDIA's MPS documentation; chunk sizes as in the device files. gpu-lets (ATC 2022) divides
//! anew every 20 s.
//!
//! Choices, for `rebalance`: a tenant needs what arrived in the last period, each request at the CUs of
//! its model's right size (5 %) times its isolated time there in a full batch. Every partition keeps one
//! chunk, and the others go one by one to the tenant with most need for each chunk that it has. A period in
//! which nothing arrived changes nothing.

use cotenant_profiles::Nanos;
use cotenant_profiles::device::DispatchRule;

use super::{Depth, LayoutError, PerTenant, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::Count;
use crate::layout::{Layout, PoolSpec, Role, WorkerSpec};
use crate::scenario::Setup;
use crate::view::View;
use crate::{counters, options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "mps-static",
    summary: "exclusive CU partitions, no borrowing",
    source: "NVIDIA MPS documentation (static SM partitioning)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: MpsStatic::COUNTERS,
    build: |options| {
        Ok(Box::new(MpsStatic { knobs: Knobs::read(options)?, ..MpsStatic::default() }))
    },
};

options! {
    /// Options of `mps-static`.
    struct Knobs {
        /// share of the chunks per tenant (per worker with per_worker)
        shares: PerTenant<Rule> = PerTenant::Word(Rule::Equal), unit("%");
        /// CUs of one chunk
        chunk: Option<u32> = None, whole(1, 320), unit("CUs"), unset("the device's");
        /// a partition per worker instead of one per tenant
        per_worker: bool = false;
        /// divide anew so often, by what arrived; gpu-lets every 20s
        rebalance: Option<Nanos> = None, period(), unset("never");
    }
}

/// How a share is determined.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Equal,
}

words!(Rule { "equal" => Rule::Equal });

/// A tenant's partitions.
#[derive(Clone, Copy, Debug)]
struct Owner {
    /// The number of partitions.
    partitions: u32,
    /// CU-time of one request.
    work: f64,
    /// Requests that had arrived when the period began.
    arrived: u64,
}

#[derive(Default)]
struct MpsStatic {
    knobs: Knobs,
    chunk: u32,
    chunks: u32,
    /// By tenant.
    owners: Vec<Owner>,
    repartitions: u64,
}

/// The slowdown that a model's right size may cause.
const TOLERANCE: f64 = 0.05;

/// Chunks of each partition of each tenant, according to their needs.
fn apportion(chunks: u32, owners: &[Owner], needs: &[f64]) -> Vec<u32> {
    let mut each = vec![1; owners.len()];
    let taken: u32 = owners.iter().map(|o| o.partitions).sum();
    let mut left = chunks.saturating_sub(taken);
    loop {
        let per_chunk = |t: usize| needs[t] / f64::from(each[t] * owners[t].partitions);
        let fits = |t: &usize| owners[*t].partitions <= left && needs[*t] > 0.0;
        // The first of the tenants with equal need.
        let most = (0..owners.len()).rev().filter(fits);
        let Some(t) = most.max_by(|&a, &b| per_chunk(a).total_cmp(&per_chunk(b))) else {
            return each;
        };
        each[t] += 1;
        left -= owners[t].partitions;
    }
}

impl MpsStatic {
    fn rebalance(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let arrived = |o: &mut Owner, now: u64| now - std::mem::replace(&mut o.arrived, now);
        let needs = self.owners.iter_mut().zip(view.tenants);
        let needs = needs.map(|(owner, t)| arrived(owner, t.arrived) as f64 * owner.work);
        let needs: Vec<f64> = needs.collect();
        if needs.iter().all(|&n| n == 0.0) {
            return;
        }
        let each = apportion(self.chunks, &self.owners, &needs);
        let of_owner =
            |(owner, each): (&Owner, &u32)| vec![each * self.chunk; owner.partitions as usize];
        let lanes: Vec<u32> = self.owners.iter().zip(&each).flat_map(of_owner).collect();
        if lanes != view.pools[0].lanes {
            let masks = view.setup.device.dispatch.rule == DispatchRule::EvenGroups;
            let via = if masks { Via::MaskIoctl } else { Via::Hop };
            act.push(Action::Repartition { pool: 0, lanes, via });
        }
    }
}

counters! {
    MpsStatic |mps|
    /// of the partitions that took effect
    "repartitions", unit("changes") = mps.repartitions;
}

impl Policy for MpsStatic {
    fn depth(&self) -> Depth {
        if self.knobs.rebalance.is_some() { Depth::Request } else { Depth::Layout }
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let device = &setup.device;
        let chunk = self.knobs.chunk.or(device.mps.map(|m| m.chunk_cus)).unwrap_or(1);
        let chunks = match (self.knobs.chunk, device.mps) {
            (None, Some(mps)) => mps.chunks,
            _ => device.cus() / chunk,
        };
        if chunks == 0 {
            return Err(LayoutError(format!(
                "{} has no static partitioning; `chunk = {}` simulates it all the same",
                device.name, chunk
            )));
        }
        // Owners of partitions: (tenant, number of partitions it gets).
        let per_worker = self.knobs.per_worker;
        let owners = setup.tenants.iter().map(|t| if per_worker { t.workers } else { 1 });
        let owners: Vec<u32> = owners.collect();
        let count: u32 = owners.iter().sum();
        let each: Vec<u32> = match &self.knobs.shares {
            PerTenant::Word(Rule::Equal) => vec![chunks / count.max(1); owners.len()],
            PerTenant::Given(value) => {
                let shares = setup.per_tenant("shares", value)?;
                let chunks_of = |p: f64| (f64::from(chunks) * p / 100.0 + 1e-9) as u32;
                shares.into_iter().map(chunks_of).collect()
            }
        };
        let asked: u32 = each.iter().zip(&owners).map(|(e, n)| e * n).sum();
        if each.contains(&0) || asked > chunks {
            return Err(LayoutError(format!(
                "{} has {chunks} chunks of {chunk} CUs: {count} partitions of {each:?} chunks do not \
                 fit",
                device.name
            )));
        }
        let mut lanes = vec![];
        let mut first_lane = vec![];
        for (chunks_each, n) in each.iter().zip(&owners) {
            first_lane.push(lanes.len() as u32);
            lanes.extend((0..*n).map(|_| chunks_each * chunk));
        }
        let mut seen = vec![0; owners.len()];
        let workers = setup.workers(|tenant, _| {
            let t = tenant as usize;
            let lane = first_lane[t] + if per_worker { seen[t] } else { 0 };
            seen[t] += 1;
            let cap = lanes[lane as usize];
            let overhead = setup.client_memory();
            WorkerSpec { tenant, pool: 0, lane, cap, priority: 0, overhead, role: Role::Whole }
        });
        setup.check_clients(workers.len())?;
        let layout = Layout { pools: vec![PoolSpec { lanes, ..setup.whole_gpu() }], workers };
        if self.knobs.rebalance.is_none() {
            return Ok(layout);
        }
        if let Some(tenant) = setup.tenants.iter().find(|t| t.generates.is_some()) {
            return Err(LayoutError(format!(
                "`rebalance` goes by what a request takes: nobody knows that of `{}`, which generates \
                 tokens; leave it out",
                tenant.name
            )));
        }
        (self.chunk, self.chunks) = (chunk, chunks);
        let owner = |(t, &partitions): (usize, &u32)| {
            let tenant = &setup.tenants[t];
            let batch = tenant.model.program(tenant.batch_max).remaining_ns[0] as f64;
            let cus = f64::from(setup.right_size(t, TOLERANCE));
            let work = cus * batch / f64::from(tenant.batch_max.max(1));
            Owner { partitions, work, arrived: 0 }
        };
        self.owners = owners.iter().enumerate().map(owner).collect();
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        let Some(period) = self.knobs.rebalance else { return };
        match event {
            Event::Start => {}
            Event::Timer { .. } => self.rebalance(view, act),
            Event::Repartitioned { .. } => {
                self.repartitions += 1;
                return;
            }
            _ => return,
        }
        act.push(Action::Timer { at: view.now + period, token: 0 });
    }

    fn counters(&self) -> Vec<Count> {
        if self.knobs.rebalance.is_some() { self.counted() } else { vec![] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(partitions: &[u32]) -> Vec<Owner> {
        partitions.iter().map(|&partitions| Owner { partitions, work: 1.0, arrived: 0 }).collect()
    }

    #[test]
    fn chunks_go_by_need_and_nobody_is_left_without() {
        assert_eq!(apportion(12, &owners(&[1, 1]), &[3.0, 1.0]), [9, 3]);
        assert_eq!(apportion(12, &owners(&[1, 1, 1]), &[1.0, 0.0, 1.0]), [6, 1, 5]);
        // Two partitions take two chunks at a time.
        assert_eq!(apportion(7, &owners(&[2, 1]), &[1.0, 1.0]), [2, 3]);
        assert_eq!(apportion(2, &owners(&[1, 1]), &[5.0, 1.0]), [1, 1]);
    }
}
