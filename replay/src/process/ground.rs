//! What worker processes run on: an emulated GPU that this process keeps, or a real GPU with the
//! mechanism that a layout needs between processes (turns, shares under MPS, hardware instances).

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use cotenant_sim::layout::{Discipline, Host, Layout, PoolSpec, WorkerSpec};
use cotenant_sim::policy::Depth;
use cotenant_sim::scenario::Setup;

use super::messages::On;
use crate::clock::Clock;
use crate::device::{Device, DeviceInfo, Usage};
use crate::drive::HostCosts;
use crate::emulated::{EmulatedDevice, Server};
use crate::error::DeviceError;
use crate::mps::{Daemon, Options};
use crate::work::Work;

/// Whether a policy of this depth, with this layout, needs a process for each worker: contexts that
/// take turns, caps without fixed borders, hardware instances. A policy that launches every kernel
/// itself, or whose workers share a host, runs in one process.
#[must_use]
pub fn needs_processes(depth: Depth, layout: &Layout) -> bool {
    if depth == Depth::Kernel || layout.pools.iter().any(|p| p.host == Host::Shared) {
        return false;
    }
    let sliced = |p: &PoolSpec| matches!(p.discipline, Discipline::TimeSliced { .. });
    let lane = |w: &WorkerSpec| layout.pools[w.pool as usize].lanes[w.lane as usize];
    let capped = |w: &WorkerSpec| w.cap < lane(w);
    layout.pools.len() > 1 || layout.pools.iter().any(sliced) || layout.workers.iter().any(capped)
}

/// Why a GPU cannot carry out a layout, with or without processes.
#[must_use]
pub fn cannot_run_on_a_gpu(depth: Depth, layout: &Layout) -> Option<&'static str> {
    let lane = |w: &WorkerSpec| layout.pools[w.pool as usize].lanes[w.lane as usize];
    let capped = layout.workers.iter().any(|w| w.cap < lane(w));
    let sliced = |p: &PoolSpec| matches!(p.discipline, Discipline::TimeSliced { .. });
    if depth < Depth::Kernel {
        return None;
    }
    if layout.pools.iter().any(sliced) {
        return Some(
            "its workers' contexts take turns and it launches each of their kernels itself: a context \
             of its own takes a process, and a process is given whole batches; it runs on `emulated`, \
             and here with workers side by side (`hami` with `sharing = \"mps\"`)",
        );
    }
    capped.then_some(
        "it caps its workers and launches each of their kernels itself: a cap takes a process under \
         MPS, and a process is given whole batches; it runs on `emulated`",
    )
}

/// What the worker processes run on.
pub struct Ground(Kind);

enum Kind {
    Emulated { device: Box<EmulatedDevice>, server: Box<Server> },
    Cuda(Box<Cuda>),
}

struct Cuda {
    info: DeviceInfo,
    ordinal: u32,
    /// By kernel of the scenario.
    works: Vec<Work>,
    /// MIG instances, by pool of the layout.
    instances: Vec<String>,
    pools: Vec<PoolSpec>,
    options: Options,
    mps: Option<Daemon>,
    checked: Instant,
}

impl Ground {
    /// An emulated GPU that is already arranged as the layout says.
    ///
    /// # Errors
    /// The system provides no thread.
    pub fn emulated(device: EmulatedDevice) -> std::io::Result<Self> {
        let server = Server::new(&device)?;
        let (device, server) = (Box::new(device), Box::new(server));
        Ok(Self(Kind::Emulated { device, server }))
    }

    /// GPU number `ordinal`, which runs the scenario's kernels as `works` says. If a layout needs MPS,
    /// the daemon is started with `options`.
    #[must_use]
    pub fn cuda(ordinal: u32, info: DeviceInfo, works: Vec<Work>, options: Options) -> Self {
        let (pools, instances, mps, checked) = (vec![], vec![], None, Instant::now());
        let cuda = Cuda { info, ordinal, works, instances, pools, options, mps, checked };
        Self(Kind::Cuda(Box::new(cuda)))
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        match &self.0 {
            Kind::Emulated { device, .. } => device.info(),
            Kind::Cuda(cuda) => &cuda.info,
        }
    }

    pub(super) fn clock(&self) -> Clock {
        match &self.0 {
            Kind::Emulated { device, .. } => device.clock(),
            Kind::Cuda(_) => Clock::wall(),
        }
    }

    pub(super) fn host_costs(&self) -> HostCosts {
        match &self.0 {
            Kind::Emulated { .. } => HostCosts::Kept,
            Kind::Cuda(_) => HostCosts::Real,
        }
    }

    pub(super) fn usage(&mut self) -> Option<Usage> {
        match &mut self.0 {
            Kind::Emulated { device, .. } => device.usage(),
            Kind::Cuda(_) => None,
        }
    }

    /// How late nine in ten batches reach an emulated device at most, ms of its time.
    pub(super) fn late_ms(&self) -> Option<f64> {
        match &self.0 {
            Kind::Emulated { device, .. } => {
                device.lateness().quantile(0.9).map(|l| l.as_millis_f64())
            }
            Kind::Cuda(_) => None,
        }
    }

    /// Sets up what the layout needs between processes.
    pub(super) fn lay_out(&mut self, layout: &Layout) -> Result<(), DeviceError> {
        let Kind::Cuda(cuda) = &mut self.0 else { return Ok(()) };
        cuda.pools.clone_from(&layout.pools);
        if layout.pools.len() > 1 {
            return cuda.find_instances(layout);
        }
        if !matches!(layout.pools[0].discipline, Discipline::TimeSliced { .. }) {
            let refused = |e: crate::mps::MpsError| DeviceError::Refused(e.to_string());
            cuda.mps = Some(Daemon::start(&cuda.options).map_err(refused)?);
        }
        Ok(())
    }

    /// Tells a command where its worker runs, and gives the worker a connection if it needs one.
    pub(super) fn prepare(
        &mut self,
        command: &mut Command,
        setup: &Setup,
        spec: &WorkerSpec,
    ) -> Result<(On, Option<UnixStream>), DeviceError> {
        match &mut self.0 {
            Kind::Emulated { server, .. } => {
                let gone = |e: std::io::Error| DeviceError::Gone(e.to_string());
                Ok((On::Emulated, Some(server.connect().map_err(gone)?)))
            }
            Kind::Cuda(cuda) => Ok((cuda.prepare(command, setup, spec)?, None)),
        }
    }

    /// CUs that a worker's process is to see; `None` if it sees them all, or does not run on a GPU.
    pub(super) fn share(&self, spec: &WorkerSpec) -> Option<u32> {
        match &self.0 {
            Kind::Cuda(cuda) => cuda.mps.as_ref().map(|_| cuda.cap(spec)),
            Kind::Emulated { .. } => None,
        }
    }

    /// Checks that the workers that have started run where they were meant to.
    pub(super) fn require(&mut self) -> Result<(), DeviceError> {
        match &self.0 {
            Kind::Cuda(cuda) => cuda.mps.as_ref().map_or(Ok(()), |mps| {
                mps.require_server().map_err(|e| DeviceError::Refused(e.to_string()))
            }),
            Kind::Emulated { .. } => Ok(()),
        }
    }

    /// Checks that what the workers need is still there.
    pub(super) fn check(&mut self) -> Result<(), DeviceError> {
        /// The end of the daemon shows as a file that appears.
        const ROUND: Duration = Duration::from_millis(200);
        let Kind::Cuda(cuda) = &mut self.0 else { return Ok(()) };
        let Some(mps) = cuda.mps.as_ref().filter(|_| cuda.checked.elapsed() > ROUND) else {
            return Ok(());
        };
        cuda.checked = Instant::now();
        mps.check().map_err(|e| DeviceError::Refused(e.to_string()))
    }
}

/// The MPS share, in percent, for this many CUs of a device; `None` for all of them. The driver rounds
/// down to whole CUs or pairs of them, and an exact share may come out just below the number in its
/// arithmetic. A quarter of a CU is therefore added.
fn percentage(cus: u32, all: u32) -> Option<f64> {
    (cus < all).then(|| 100.0 * (f64::from(cus) + 0.25) / f64::from(all))
}

impl Cuda {
    /// The most CUs that a worker may use.
    fn cap(&self, spec: &WorkerSpec) -> u32 {
        spec.cap.min(self.pools[spec.pool as usize].lanes[spec.lane as usize])
    }

    /// Larger pools get larger instances. The workers check that an instance has the pool's number of
    /// CUs.
    fn find_instances(&mut self, layout: &Layout) -> Result<(), DeviceError> {
        let listed = Command::new("nvidia-smi").arg("-L").output();
        let listed = listed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        let mut found = instances(&listed.unwrap_or_default(), self.ordinal);
        let (need, have) = (layout.pools.len(), found.len());
        if need != have {
            let reason = format!(
                "the layout needs {need} MIG instances, the GPU has {have}: create them with \
                 `nvidia-smi mig -cgi ... -C`"
            );
            return Err(DeviceError::unsupported("hardware instances", reason));
        }
        found.sort_by_key(|(slices, _)| std::cmp::Reverse(*slices));
        let mut pools: Vec<usize> = (0..need).collect();
        pools.sort_by_key(|&p| std::cmp::Reverse(layout.pools[p].cus));
        self.instances = vec![String::new(); need];
        for (pool, (_, uuid)) in pools.into_iter().zip(found) {
            self.instances[pool] = uuid;
        }
        Ok(())
    }

    fn prepare(
        &self,
        command: &mut Command,
        setup: &Setup,
        spec: &WorkerSpec,
    ) -> Result<On, DeviceError> {
        let (mut ordinal, mut instance) = (self.ordinal, None);
        if let Some(mps) = &self.mps {
            let share = percentage(self.cap(spec), setup.device.cus());
            let refused = |e: crate::mps::MpsError| DeviceError::Refused(e.to_string());
            mps.client(command, share).map_err(refused)?;
        } else {
            // A daemon run by others would otherwise take the workers in.
            command.env("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent");
        }
        if let Some(uuid) = self.instances.get(spec.pool as usize) {
            command.env("CUDA_VISIBLE_DEVICES", uuid);
            (ordinal, instance) = (0, Some(self.pools[spec.pool as usize].cus));
        }
        let tenant = &setup.tenants[spec.tenant as usize];
        let mut kernels: Vec<u32> =
            tenant.model.programs.iter().flat_map(|p| p.kernels.iter().copied()).collect();
        kernels.extend(tenant.generates.iter().flat_map(|g| g.steps.kernels()));
        kernels.sort_unstable();
        kernels.dedup();
        let works = kernels.into_iter().map(|k| (k, self.works[k as usize].clone())).collect();
        Ok(On::Cuda { ordinal, instance, works })
    }
}

/// Compute slices and UUIDs of the MIG instances of GPU `ordinal`, parsed from the output of
/// `nvidia-smi -L`.
fn instances(listed: &str, ordinal: u32) -> Vec<(u32, String)> {
    let mut of_gpu = false;
    let mut found = vec![];
    for line in listed.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("GPU ") {
            of_gpu = rest.split(':').next().and_then(|n| n.parse().ok()) == Some(ordinal);
        } else if let Some(rest) = line.strip_prefix("MIG ").filter(|_| of_gpu) {
            let slices = rest.split('g').next().and_then(|n| n.parse().ok());
            let uuid = rest.split("UUID: ").nth(1).map(|u| u.trim_end_matches(')').to_owned());
            found.extend(slices.zip(uuid));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_not_rounded_down() {
        for all in [108, 114, 132] {
            for cus in (2..all).step_by(2) {
                let share = percentage(cus, all).unwrap();
                // As a driver that computes in single precision, or with two digits of the share.
                let single = (all as f32 * share as f32 / 100.0) as u32;
                let digits = (f64::from(all) * (share * 100.0).floor() / 1e4) as u32;
                assert_eq!((single, digits), (cus, cus), "{share} %");
            }
        }
        assert_eq!(percentage(132, 132), None);
    }

    #[test]
    fn instances_are_those_of_the_gpu() {
        // As in NVIDIA's MIG user guide, with a second GPU.
        let listed = "\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)
  MIG 3g.20gb     Device  0: (UUID: MIG-7df0f88f)
  MIG 1c.3g.20gb  Device  1: (UUID: MIG-dc2c0d4e)
  MIG 1g.5gb+me   Device  2: (UUID: MIG-a1b2c3d4)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-00000000)
  MIG 7g.40gb     Device  0: (UUID: MIG-11111111)
";
        let first = [(3, "MIG-7df0f88f".to_owned()), (1, "MIG-a1b2c3d4".to_owned())];
        assert_eq!(instances(listed, 0), first);
        assert_eq!(instances(listed, 1), [(7, "MIG-11111111".to_owned())]);
        assert_eq!(instances("", 0), []);
    }
}
