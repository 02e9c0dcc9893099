//! `mps-static`: exclusive partitions.
//!
//! Models MPS static partitioning (CUDA 13.1, `-S`): the GPU is cut into chunks of CUs, a partition
//! is a set of chunks that nobody else can touch, and idle CUs cannot be borrowed. CUs that do not
//! fill a chunk are stranded. L2 and DRAM stay shared. On devices without MPS the same is done with
//! one-CU chunks (CU masks). `shares` is `equal` or percentages per tenant; each tenant's workers
//! share its partition unless `per_worker` gives every worker one of its own.
//!
//! Source: NVIDIA's MPS documentation; chunk sizes as in the device files.

use super::options::option;
use super::{
    Depth, Kind, LayoutError, OptionError, OptionSpec, Options, Policy, PolicyInfo, Properties,
    Value,
};
use crate::layout::{Layout, PoolSpec, WorkerSpec};
use crate::scenario::Setup;

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
    options: OPTIONS,
    build: |options| Ok(Box::new(MpsStatic::new(options)?)),
};

#[rustfmt::skip] // one option, two lines
const OPTIONS: &[OptionSpec] = &[
    option("shares", Kind::PerTenant(&["equal"]), "%", "equal",
        "share of the chunks per tenant (per worker with per_worker)"),
    option("chunk", Kind::Integer(1, 320), "CUs", "",
        "CUs of one chunk; default: the device's"),
    option("per_worker", Kind::Bool, "", "false",
        "a partition per worker instead of one per tenant"),
];

struct MpsStatic {
    shares: Option<Value>,
    chunk: Option<u32>,
    per_worker: bool,
}

impl MpsStatic {
    fn new(options: &Options) -> Result<Self, OptionError> {
        let shares = match options.get("shares") {
            None | Some(Value::Text(_)) => None,
            given => given.cloned(),
        };
        Ok(Self {
            shares,
            chunk: options.integer("chunk").map(|c| c as u32),
            per_worker: options.flag("per_worker").unwrap_or(false),
        })
    }
}

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
            None => vec![chunks / count.max(1); owners.len()],
            Some(value) => {
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
            WorkerSpec { tenant, pool: 0, lane, cap, priority: 0, overhead }
        });
        setup.check_clients(workers.len())?;
        Ok(Layout { pools: vec![PoolSpec { lanes, ..setup.whole_gpu() }], workers })
    }
}
