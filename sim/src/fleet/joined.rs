//! What a fleet's GPUs come to.

use cotenant_profiles::Nanos;

use super::{Gpu, NO_GPU};
use crate::counter;
use crate::metrics::Counts;
use crate::report::{GpuReport, Report, TenantReport};

/// What one GPU did over the whole run.
#[derive(Clone, Debug)]
pub struct GpuRun {
    /// Its account, its tenants by their numbers on it; over all of its lives where it failed.
    pub report: Report,
    /// Which tenant of the fleet each of them is.
    pub tenants: Vec<u32>,
}

/// A finished run of a fleet.
#[derive(Clone, Debug)]
pub struct FleetReport {
    /// GPU by GPU.
    pub gpus: Vec<GpuRun>,
    /// By tenant of the fleet: what all GPUs did for it, and what found none.
    pub tenants: Vec<TenantReport>,
    /// The counted window.
    pub window: Nanos,
}

/// Accounts as GPUs end.
pub(super) struct Runs {
    lives: Vec<Vec<(Report, bool)>>,
    not_routed: Vec<u64>,
}

impl Runs {
    pub(super) fn new(gpus: usize, tenants: usize) -> Self {
        Self { lives: (0..gpus).map(|_| vec![]).collect(), not_routed: vec![0; tenants] }
    }

    /// A GPU has ended, for good or for a while. `counts`: its window had opened.
    pub(super) fn ended(&mut self, gpu: u32, report: Report, counts: bool) {
        self.lives[gpu as usize].push((report, counts));
    }

    /// A request within the window has found no GPU.
    pub(super) fn not_routed(&mut self, tenant: u32) {
        self.not_routed[tenant as usize] += 1;
    }

    pub(super) fn report(self, gpus: &[Gpu], window: Nanos) -> FleetReport {
        let mut tenants = vec![nobody(); self.not_routed.len()];
        for (tenant, &n) in tenants.iter_mut().zip(&self.not_routed).filter(|(_, n)| **n > 0) {
            tenant.counts.offered = n;
            tenant.counts.dropped.push((NO_GPU, n));
        }
        let mut runs = vec![];
        for (gpu, lives) in gpus.iter().zip(self.lives) {
            let report = one_gpu(gpu, lives, window);
            for (&t, of) in gpu.tenants.iter().zip(&report.tenants) {
                add(&mut tenants[t as usize], of);
            }
            runs.push(GpuRun { report, tenants: gpu.tenants.clone() });
        }
        FleetReport { gpus: runs, tenants, window }
    }
}

fn nobody() -> TenantReport {
    TenantReport {
        counts: Counts::default(),
        tokens: None,
        in_flight: 0,
        in_flight_late: 0,
        used: None,
    }
}

fn add(sum: &mut TenantReport, part: &TenantReport) {
    sum.counts.add(&part.counts);
    match (&mut sum.tokens, &part.tokens) {
        (Some(sum), Some(part)) => sum.merge(part),
        (sum @ None, Some(part)) => *sum = Some(part.clone()),
        (_, None) => {}
    }
    sum.in_flight += part.in_flight;
    sum.in_flight_late += part.in_flight_late;
    sum.used = match (sum.used, part.used) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
}

/// The lives of one GPU as one account. It draws its idle power whether it serves or not.
fn one_gpu(gpu: &Gpu, lives: Vec<(Report, bool)>, window: Nanos) -> Report {
    let idle_w = gpu.setup.device.power.idle_w;
    let boost_mhz = gpu.setup.device.clock.boost_mhz;
    let idle_j = idle_w * window.as_secs_f64();
    let mut all = Report {
        tenants: vec![nobody(); gpu.tenants.len()],
        gpu: GpuReport {
            energy_j: idle_j,
            power_w: idle_w,
            clock_mhz: boost_mhz,
            ..GpuReport::NOTHING
        },
        events: 0,
        digest: 0,
        window,
        counters: vec![],
        cut: None,
    };
    for (life, counts) in lives {
        all.events += life.events;
        all.digest = all.digest.rotate_left(1) ^ life.digest;
        counter::add(&mut all.counters, life.counters);
        if !counts {
            continue;
        }
        all.tenants.iter_mut().zip(&life.tenants).for_each(|(sum, part)| add(sum, part));
        // Shares of one window: what the lives did adds up.
        let (sum, part) = (&mut all.gpu, &life.gpu);
        sum.cu_utilization += part.cu_utilization;
        sum.sm_active += part.sm_active;
        sum.gpu_util += part.gpu_util;
        sum.dram_utilization += part.dram_utilization;
        sum.energy_j += part.energy_j - idle_j;
        sum.power_w += part.power_w - idle_w;
        sum.clock_mhz += part.clock_mhz - boost_mhz;
        sum.context_switches += part.context_switches;
    }
    all
}
