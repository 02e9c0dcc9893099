//! `mps-static`: exclusive partitions.
//!
//! Models MPS static partitioning (CUDA 13.1, `-S`): the GPU is cut into chunks of CUs, a partition
//! is a set of chunks that nobody else can touch, and idle CUs cannot be borrowed. CUs that do not
//! fill a chunk are stranded. L2 and DRAM stay shared. On devices without MPS the same is done with
//! one-CU chunks (CU masks). `shares` is `equal` or percentages per tenant; each tenant's workers
//! share its partition unless `per_worker` gives every worker one of its own.
//!
//! Source: NVIDIA's MPS documentation; chunk sizes as in the device files.

use super::{Depth, LayoutError, PerTenant, Policy, PolicyInfo, Properties};
use crate::layout::{Layout, PoolSpec, Role, WorkerSpec};
use crate::scenario::Setup;
use crate::{options, words};

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
    options: MpsStatic::SPECS,
    build: |options| Ok(Box::new(MpsStatic::read(options)?)),
};

options! {
    /// Options of `mps-static`.
    struct MpsStatic {
        /// share of the chunks per tenant (per worker with per_worker)
        shares: PerTenant<Rule> = PerTenant::Word(Rule::Equal), unit("%");
        /// CUs of one chunk
        chunk: Option<u32> = None, whole(1, 320), unit("CUs"), unset("the device's");
        /// a partition per worker instead of one per tenant
        per_worker: bool = false;
    }
}

/// How a share is found.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Equal,
}

words!(Rule { "equal" => Rule::Equal });

impl Policy for MpsStatic {
    fn depth(&self) -> Depth {
        Depth::Layout
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let device = &setup.device;
        let chunk = self.chunk.or(device.mps.map(|m| m.chunk_cus)).unwrap_or(1);
        let chunks = match (self.chunk, device.mps) {
            (None, Some(mps)) => mps.chunks,
            _ => device.cus() / chunk,
        };
        if chunks == 0 {
            return Err(LayoutError(format!(
                "{} has no static partitioning; `chunk = {}` simulates it all the same",
                device.name, chunk
            )));
        }
        // Owners of partitions: (tenant, how many partitions it gets).
        let owners = setup.tenants.iter().map(|t| if self.per_worker { t.workers } else { 1 });
        let owners: Vec<u32> = owners.collect();
        let count: u32 = owners.iter().sum();
        let each: Vec<u32> = match &self.shares {
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
            let lane = first_lane[t] + if self.per_worker { seen[t] } else { 0 };
            seen[t] += 1;
            let cap = lanes[lane as usize];
            let overhead = setup.client_memory();
            WorkerSpec { tenant, pool: 0, lane, cap, priority: 0, overhead, role: Role::Whole }
        });
        setup.check_clients(workers.len())?;
        Ok(Layout { pools: vec![PoolSpec { lanes, ..setup.whole_gpu() }], workers })
    }
}
