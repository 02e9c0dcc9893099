//! Follows a run and finds what must never happen: a request or a kernel lost or run twice, more CUs
//! in use than there are, CUs idle that a launched kernel could use.

use std::collections::BTreeMap;

use cotenant_profiles::Nanos;
use cotenant_sim::observe::{Happening, Observer};
use cotenant_sim::policy::Depth;
use cotenant_sim::scenario::Setup;
use cotenant_sim::{Layout, Policy};

/// What is known of a batch under way.
struct Batch {
    items: u32,
    /// Kernels of all its passes, and how many have ended.
    kernels: Vec<u32>,
    ended: usize,
    /// CUs of the running one.
    cus: u32,
    /// When each pass's launches were issued, from when the host began, and when that was.
    issued_ns: Vec<u64>,
    host_base: u64,
    /// When the kernel at the head could begin: its input is there, it is issued, and its
    /// predecessor has ended.
    launched: u64,
}

/// Follows a run and finds what must never happen.
pub(crate) struct Auditor<'a> {
    setup: &'a Setup,
    layout: Layout,
    /// Every launched kernel without a block on a CU must see blocks on every CU.
    conserving: bool,
    /// Caps stay what they were laid out to be.
    fixed: bool,
    pub(crate) log: Vec<(u64, Happening)>,
    now: u64,
    pub(crate) arrived: Vec<u64>,
    pub(crate) done: Vec<u64>,
    pub(crate) dropped: Vec<u64>,
    batch: BTreeMap<u32, Batch>,
    /// By pool: when the engine that copies inputs is free again.
    copies: Vec<u64>,
    busy: Vec<u32>,
    merged: bool,
}

impl<'a> Auditor<'a> {
    pub(crate) fn new(setup: &'a Setup, policy: &mut dyn Policy, conserving: bool) -> Self {
        let layout = policy.layout(setup).unwrap();
        let n = setup.tenants.len();
        Self {
            setup,
            conserving: conserving && !layout.workers.is_empty(),
            fixed: policy.depth() == Depth::Layout,
            busy: vec![0; layout.pools.len()],
            copies: vec![0; layout.pools.len()],
            layout,
            log: vec![],
            now: 0,
            arrived: vec![0; n],
            done: vec![0; n],
            dropped: vec![0; n],
            batch: BTreeMap::new(),
            merged: false,
        }
    }

    /// Between two instants, what runs must leave no CU idle that somebody launched could use.
    fn conserved(&self) {
        for (w, batch) in self.batch.iter().filter(|(_, b)| b.launched <= self.now) {
            let spec = &self.layout.workers[*w as usize];
            let pool = &self.layout.pools[spec.pool as usize];
            if batch.kernels.get(batch.ended).is_none() {
                continue;
            }
            let busy = self.busy[spec.pool as usize];
            assert!(
                batch.cus > 0 || busy == pool.cus,
                "at {}: worker {w} waits while {busy} of {} CUs are busy",
                self.now,
                pool.cus
            );
        }
    }

    fn began(&mut self, worker: u32, items: u32) {
        let Some(spec) = self.layout.workers.get(worker as usize) else { return };
        let model = &self.setup.tenants[spec.tenant as usize].model;
        let passes = items.div_ceil(model.max_items()) as usize;
        let program = model.program(items);
        // Requests are of one item here, and hosts are not shared where this is looked at.
        let host_base = self.now + model.host_per_request.0 * u64::from(items);
        let bytes = model.input_per_item.0 * u64::from(items);
        let ns = (bytes as f64 / self.setup.device.pcie.h2d_gbps).ceil() as u64;
        let free = &mut self.copies[spec.pool as usize];
        let copied = if ns > 0 { (*free).max(host_base) + ns } else { host_base };
        *free = (*free).max(copied);
        let batch = Batch {
            items,
            kernels: program.kernels.repeat(passes),
            ended: 0,
            cus: 0,
            issued_ns: program.issued_ns.clone(),
            host_base,
            launched: copied.max(host_base + program.issued_ns[0]),
        };
        let before = self.batch.insert(worker, batch);
        assert!(before.is_none(), "worker {worker} has one batch at a time");
    }

    fn kernel_ended(&mut self, worker: u32, kernel: u32) {
        if kernel as usize >= self.setup.code.kernels.len() {
            self.merged = true;
        }
        if self.merged {
            return;
        }
        let now = self.now;
        let batch = self.batch.get_mut(&worker).expect("a kernel of a batch");
        let expected = batch.kernels.get(batch.ended);
        assert_eq!(expected, Some(&kernel), "worker {worker}, kernel {}", batch.ended);
        batch.ended += 1;
        batch.cus = 0;
        let next = batch.ended % batch.issued_ns.len();
        if next == 0 {
            batch.host_base = now;
        }
        batch.launched = now.max(batch.host_base + batch.issued_ns[next]);
    }
}

impl Observer for Auditor<'_> {
    fn happened(&mut self, now: Nanos, what: Happening) {
        assert!(now.0 >= self.now, "time runs forward");
        if now.0 > self.now && self.conserving {
            self.conserved();
        }
        self.now = now.0;
        self.log.push((now.0, what));
        match what {
            Happening::Arrived { tenant } => self.arrived[tenant as usize] += 1,
            Happening::RequestDone { tenant, .. } => self.done[tenant as usize] += 1,
            Happening::Dropped { tenant } => self.dropped[tenant as usize] += 1,
            Happening::BatchBegan { worker, items } => self.began(worker, items),
            Happening::BatchEnded { worker, items } => {
                if worker as usize >= self.layout.workers.len() {
                    return;
                }
                let batch = self.batch.remove(&worker).expect("it began");
                assert_eq!(batch.items, items);
                let all = batch.kernels.len();
                assert!(self.merged || batch.ended == all, "{} of {all}", batch.ended);
            }
            Happening::KernelEnded { worker, kernel }
                if (worker as usize) < self.layout.workers.len() =>
            {
                self.kernel_ended(worker, kernel);
            }
            Happening::Granted { worker, cus, .. } => {
                if let Some(spec) = self.layout.workers.get(worker as usize) {
                    let cap = if self.fixed { spec.cap } else { self.setup.device.cus() };
                    assert!(cus <= cap, "worker {worker} got {cus} of {cap}");
                }
                if let Some(batch) = self.batch.get_mut(&worker) {
                    batch.cus = cus;
                }
            }
            Happening::Busy { pool, cus } => {
                let pools = &self.layout.pools;
                assert!(cus <= pools[pool as usize].cus, "{cus} CUs busy in pool {pool}");
                self.busy[pool as usize] = cus;
            }
            _ => {}
        }
    }
}
