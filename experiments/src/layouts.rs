//! `layouts.csv`: the layout of a policy at the start, worker by worker, and how to set it up.

use cotenant_profiles::Device;
use cotenant_profiles::device::Vendor;
use cotenant_sim::layout::{Discipline, Layout, PoolSpec, WorkerSpec};
use cotenant_sim::policy::Depth;
use cotenant_sim::scenario::Setup;

use crate::config::{Point, PolicyRow};
use crate::metrics::number;
use crate::prepare::Prepared;

/// The fields of each worker's row after the sweep keys; empty if the policy cannot lay the tenants out.
pub(crate) fn rows(point: &Point, row: &PolicyRow, ready: &Prepared) -> Vec<Vec<String>> {
    let gpus = ready.each_gpu().into_iter();
    gpus.flat_map(|(gpu, setup, tenants)| on_gpu(point, row, gpu, setup, &tenants)).collect()
}

/// The rows of one GPU.
fn on_gpu(
    point: &Point,
    row: &PolicyRow,
    gpu: Option<usize>,
    setup: &Setup,
    tenants: &[usize],
) -> Vec<Vec<String>> {
    let Ok(mut policy) = (row.info.build)(&row.options) else { return vec![] };
    let depth = policy.depth();
    let Ok(layout) = policy.layout(setup) else { return vec![] };
    let all = f64::from(setup.device.cus());
    let fields = |(i, w): (usize, &WorkerSpec)| {
        let pool = &layout.pools[w.pool as usize];
        let tenant = &point.tenants[tenants[w.tenant as usize]];
        let lane = pool.lanes.get(w.lane as usize).copied().unwrap_or(pool.cus);
        let turns = matches!(pool.discipline, Discipline::TimeSliced { .. });
        let cap = w.cap.min(lane);
        let numbers = [
            f64::from(w.pool),
            f64::from(pool.cus),
            f64::from(lane),
            f64::from(cap),
            (f64::from(cap) / all * 1000.0).round() / 10.0,
            f64::from(u8::from(turns)),
            f64::from(tenant.batch_max),
            tenant.batch_timeout.as_millis_f64(),
        ];
        let mut fields = vec![i.to_string(), tenant.name.clone(), tenant.model.clone()];
        let setting = setting(&setup.device, row, depth, &layout, w);
        fields.push(match gpu {
            Some(gpu) => format!("GPU {gpu}: {setting}"),
            None => setting,
        });
        fields.extend(numbers.map(|n| number(Some(n))));
        fields
    };
    layout.workers.iter().enumerate().map(fields).collect()
}

/// How to set up a worker.
fn setting(
    device: &Device,
    row: &PolicyRow,
    depth: Depth,
    layout: &Layout,
    w: &WorkerSpec,
) -> String {
    let pool = &layout.pools[w.pool as usize];
    let lane = pool.lanes.get(w.lane as usize).copied().unwrap_or(pool.cus);
    let cap = w.cap.min(lane);
    let shared = pool.host == cotenant_sim::layout::Host::Shared;
    let place = if shared { "a stream of one shared process" } else { "a process of its own" };
    if layout.pools.len() > 1 {
        return format!("{place} in {}", instance(device, pool));
    }
    if depth > Depth::Layout {
        let share =
            if cap < device.cus() { format!(", {cap} CUs at the start") } else { String::new() };
        return format!("{place}{share}; the scheduler `{}` decides from there", row.info.name);
    }
    if matches!(pool.discipline, Discipline::TimeSliced { .. }) {
        return format!("{place}; contexts take turns, as without MPS");
    }
    if shared {
        return format!("{place}, no cap");
    }
    if device.vendor != Vendor::Nvidia {
        let share = if cap < device.cus() {
            format!(" on {cap} of {} CUs", device.cus())
        } else {
            String::new()
        };
        return format!("{place}{share}");
    }
    if lane < pool.cus {
        return format!("MPS daemon, static partition of {lane} SMs");
    }
    match cap < device.cus() {
        true => {
            let percent = (100.0 * f64::from(cap) / f64::from(device.cus())).round();
            format!("MPS daemon, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={percent}")
        }
        false => "MPS daemon (nvidia-cuda-mps-control -d), no cap".to_owned(),
    }
}

/// The hardware instance that a pool corresponds to.
fn instance(device: &Device, pool: &PoolSpec) -> String {
    let profiles = device.mig.iter().flat_map(|m| &m.profiles);
    let same =
        |p: &&cotenant_profiles::device::MigProfile| p.cus == pool.cus && p.capacity == pool.memory;
    match profiles.clone().find(same) {
        Some(p) => format!("a MIG instance {}", p.name),
        None => format!("an instance of {} CUs", pool.cus),
    }
}
