//! iGniter (Xu et al., TPDS 2023), after its published code (icloud-ecnu/igniter, `igniter-algorithm.py`).
//!
//! Half of a tenant's goal is for the GPU; the other half is for a batch to fill, which fixes the batch size
//! from the rate. Its share is the smallest, in steps, that runs such a batch in that time when alone. In
//! order of decreasing share, each tenant goes to the GPU on which the sum of all shares grows least once
//! every tenant that the newcomer slows beyond half of its goal has been given more; if the sum would exceed
//! the whole GPU, the newcomer gets a GPU of its own. A tenant that no share of one GPU serves gets several
//! GPUs to itself.
//!
//! Our version differs in two ways: it looks the profile up, while theirs fits five constants to it; and its
//! slowdown has the L2 and launch terms of their model with the device file's constants, but not the clock
//! term.

use std::collections::BTreeMap;

use cotenant_deploy::Sharing;

use super::super::lab::{Candidate, Lab};
use super::saturated::Saturated;
use super::{Part, Wanted, batches, candidates, utilization};

/// Share of the capacity of a dedicated GPU that is planned for.
const DEDICATED: f64 = 0.9;

/// A tenant on a GPU.
#[derive(Clone)]
struct Server {
    percent: u32,
    part: Part,
    /// Longest allowed time of a batch, ns.
    most: f64,
}

/// Batch times by tenant, batch and percentage.
type Known = BTreeMap<(usize, u32, u32), Option<Saturated>>;

struct Profiler<'a> {
    lab: &'a Lab,
    known: Known,
    /// Percent of one step.
    step: u32,
}

impl Profiler<'_> {
    fn at(&mut self, tenant: usize, batch: u32, percent: u32) -> Option<Saturated> {
        let run = || self.lab.saturated(tenant, Sharing::Mps { percent: vec![percent] }, batch, 1);
        *self.known.entry((tenant, batch, percent)).or_insert_with(run)
    }

    /// Time of a batch next to others, ns.
    fn beside(&mut self, own: &Server, others: &[&Server]) -> f64 {
        let p = &own.part;
        let Some(alone) = self.at(p.tenant, p.batch, own.percent) else { return f64::INFINITY };
        let c = &self.lab.setup.device.contention;
        let l2: f64 = others.iter().map(|o| utilization(self.lab, &o.part, o.percent).0).sum();
        let program = self.lab.setup.tenants[p.tenant].model.program(p.batch);
        let [slope, start] = c.igniter_sched_ns;
        let delay = if others.is_empty() { 0.0 } else { slope * (others.len() + 1) as f64 + start };
        alone.batch.0 as f64 * (1.0 + c.igniter_cache * l2)
            + delay.max(0.0) * program.kernels.len() as f64
    }

    /// The smallest share, starting at `from`, at which `own` keeps its time next to others.
    fn enough(&mut self, own: &Server, from: u32, others: &[&Server]) -> Option<u32> {
        let steps = (from.div_ceil(self.step).max(1)..).map(|i| (i * self.step).min(100));
        let mut steps: Vec<u32> = steps.take_while(|&p| p < 100).collect();
        steps.push(100);
        // Times fall as the share grows: bisection finds the first that is enough.
        let (mut low, mut high) = (0, steps.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let one = Server { percent: steps[middle], ..own.clone() };
            if self.beside(&one, others) <= own.most { high = middle } else { low = middle + 1 }
        }
        steps.get(low).copied()
    }
}

pub(super) fn plan(lab: &Lab, wanted: &[Wanted]) -> Result<Vec<Candidate>, String> {
    let device = &lab.setup.device;
    if device.mps.is_none() {
        return Err(format!("{} has no MPS", device.title));
    }
    // Their step is two SMs; percentages are whole numbers.
    let step = 200_u32.div_ceil(device.cus()).max(1);
    let mut profiler = Profiler { lab, known: Known::new(), step };
    let mut gpus: Vec<Vec<Server>> = vec![];
    let mut servers: Vec<Server> = vec![];
    for w in wanted {
        let most = w.goal.0 as f64 / 2.0;
        // The number of requests that arrive in the half of the goal that is not the GPU's.
        let fill = (most / 1e9 * w.rate).ceil().max(1.0);
        let sizes = batches(lab, w.tenant);
        let batch = sizes.iter().find(|&&b| f64::from(b) >= fill).or(sizes.last());
        let part = Part { tenant: w.tenant, batch: *batch.unwrap_or(&1), workers: 1, rps: w.rate };
        let server = Server { percent: 100, part, most };
        // A batch must complete while the next one fills.
        let most = most.min(f64::from(server.part.batch) * 1e9 / w.rate);
        let server = Server { most, ..server };
        match profiler.enough(&server, 1, &[]) {
            Some(percent) => servers.push(Server { percent, ..server }),
            None => gpus.extend(dedicated(&mut profiler, w, &sizes)?),
        }
    }
    servers.sort_by_key(|s| std::cmp::Reverse(s.percent));
    for server in servers {
        let mut best: Option<(u32, usize, Vec<Server>)> = None;
        for (i, gpu) in gpus.iter().enumerate() {
            let Some(grown) = joined(&mut profiler, gpu, &server) else { continue };
            let before: u32 = gpu.iter().map(|s| s.percent).sum();
            let growth = grown.iter().map(|s| s.percent).sum::<u32>() - before;
            if best.as_ref().is_none_or(|(least, ..)| growth < *least) {
                best = Some((growth, i, grown));
            }
        }
        match best {
            Some((_, i, grown)) => gpus[i] = grown,
            None => gpus.push(vec![server]),
        }
    }
    let shared = gpus.iter().map(|servers| {
        let percent = servers.iter().map(|s| s.percent).collect();
        (servers.iter().map(|s| s.part.clone()).collect(), Sharing::Mps { percent })
    });
    Ok(candidates(lab, shared))
}

/// A GPU with one more tenant, where each tenant's share has grown to make up for its neighbours; `None` if
/// there is no room.
fn joined(profiler: &mut Profiler<'_>, gpu: &[Server], more: &Server) -> Option<Vec<Server>> {
    let mut all: Vec<Server> = gpu.iter().chain([more]).cloned().collect();
    loop {
        if all.iter().map(|s| s.percent).sum::<u32>() > 100 {
            return None;
        }
        let mut changed = false;
        for i in 0..all.len() {
            let others: Vec<&Server> =
                all.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, s)| s).collect();
            let enough = profiler.enough(&all[i], all[i].percent, &others)?;
            changed |= enough > all[i].percent;
            all[i].percent = enough.max(all[i].percent);
        }
        if !changed {
            return Some(all);
        }
    }
}

/// Whole GPUs for a tenant that no share of one GPU serves.
fn dedicated(
    profiler: &mut Profiler<'_>,
    w: &Wanted,
    sizes: &[u32],
) -> Result<Vec<Vec<Server>>, String> {
    let most = w.goal.0 as f64 / 2.0;
    let mut fits = sizes.iter().rev().filter_map(|&b| Some((b, profiler.at(w.tenant, b, 100)?)));
    let Some((batch, s)) = fits.find(|(_, s)| s.batch.0 as f64 <= most) else {
        let (name, goal) = (profiler.lab.name(w.tenant), w.goal.as_millis_f64());
        return Err(format!("a whole GPU does not serve `{name}` within half of {goal} ms"));
    };
    let each = DEDICATED * f64::from(batch) * 1e9 / s.batch.0 as f64;
    let n = (w.rate / each).ceil().max(1.0) as usize;
    let part = Part { tenant: w.tenant, batch, workers: 1, rps: w.rate / n as f64 };
    Ok(vec![vec![Server { percent: 100, part, most }]; n])
}
