//! What worker processes stand on: an emulated GPU that this process keeps, or a real one, with the
//! mechanism that a layout needs between them (turns, shares under MPS, hardware instances).

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

/// Whether a policy of that depth, with that layout, needs a process for each worker: contexts that
/// take turns, caps without borders, hardware instances. Who launches every kernel itself, or whose
/// workers share a host, is one process.
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

/// Under everybody.
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
    instances: Vec<String>,
    pools: Vec<PoolSpec>,
    mps: Option<Daemon>,
    checked: Instant,
}

impl Ground {
    /// An emulated GPU, which is arranged as the layout says already.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn emulated(device: EmulatedDevice) -> std::io::Result<Self> {
        let server = Server::new(&device)?;
        let (device, server) = (Box::new(device), Box::new(server));
        Ok(Self(Kind::Emulated { device, server }))
    }

    /// GPU number `ordinal`, which runs the scenario's kernels as `works` says; `instances` are the
    /// UUIDs of its MIG instances, if it is cut into some.
    #[must_use]
    pub fn cuda(ordinal: u32, info: DeviceInfo, works: Vec<Work>, instances: Vec<String>) -> Self {
        let (pools, mps, checked) = (vec![], None, Instant::now());
        let cuda = Cuda { info, ordinal, works, instances, pools, mps, checked };
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

    /// Nine in ten batches come no later than this to an emulated device, ms of its time.
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
            return cuda.check_instances(layout);
        }
        if !matches!(layout.pools[0].discipline, Discipline::TimeSliced { .. }) {
            let refused = |e: crate::mps::MpsError| DeviceError::Refused(e.to_string());
            cuda.mps = Some(Daemon::start(&Options::default()).map_err(refused)?);
        }
        Ok(())
    }

    /// Tells a command where its worker runs, and gives it a connection if it needs one.
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

    /// Whether what the workers need is still there.
    pub(super) fn check(&mut self) -> Result<(), DeviceError> {
        /// The daemon's end is a file that appears.
        const ROUND: Duration = Duration::from_millis(200);
        let Kind::Cuda(cuda) = &mut self.0 else { return Ok(()) };
        let Some(mps) = cuda.mps.as_ref().filter(|_| cuda.checked.elapsed() > ROUND) else {
            return Ok(());
        };
        cuda.checked = Instant::now();
        mps.check().map_err(|e| DeviceError::Refused(e.to_string()))
    }
}

impl Cuda {
    fn check_instances(&self, layout: &Layout) -> Result<(), DeviceError> {
        let (need, have) = (layout.pools.len(), self.instances.len());
        if need <= have {
            return Ok(());
        }
        let reason = format!(
            "the layout needs {need} MIG instances, the GPU has {have}: create them with \
             `nvidia-smi mig -cgi ... -C`"
        );
        Err(DeviceError::unsupported("hardware instances", reason))
    }

    fn prepare(
        &self,
        command: &mut Command,
        setup: &Setup,
        spec: &WorkerSpec,
    ) -> Result<On, DeviceError> {
        let mut ordinal = self.ordinal;
        if let Some(mps) = &self.mps {
            let lane = self.pools[spec.pool as usize].lanes[spec.lane as usize];
            let share = 100.0 * f64::from(spec.cap.min(lane)) / f64::from(setup.device.cus());
            let share = (share < 100.0).then_some(share);
            let refused = |e: crate::mps::MpsError| DeviceError::Refused(e.to_string());
            mps.client(command, share).map_err(refused)?;
        } else {
            // A daemon that others run would take the workers in.
            command.env("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent");
        }
        if let Some(instance) = self.instances.get(spec.pool as usize)
            && self.pools.len() > 1
        {
            command.env("CUDA_VISIBLE_DEVICES", instance);
            ordinal = 0;
        }
        let model = &setup.tenants[spec.tenant as usize].model;
        let mut kernels: Vec<u32> =
            model.programs.iter().flat_map(|p| p.kernels.iter().copied()).collect();
        kernels.sort_unstable();
        kernels.dedup();
        let works = kernels.into_iter().map(|k| (k, self.works[k as usize].clone())).collect();
        Ok(On::Cuda { ordinal, works })
    }
}
