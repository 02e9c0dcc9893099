//! A device that keeps the time of a profile.
//!
//! It runs the simulator's own pools: lanes, caps, masks, priorities, even groups, contention,
//! contexts that take turns, merged kernels, copy engines and hardware queues are those of
//! [`cotenant_sim::pool`]. Only the clock differs: it is the wall clock, slowed down by a factor so
//! that small and busy machines can keep to kernels of a few microseconds. Several processes can share
//! one emulated GPU, each with a context of its own: one process keeps the GPU and is the [`Server`],
//! the others have a [`RemoteDevice`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use cotenant_profiles::{Device as GpuDescription, Profile, text};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::PoolSpec;
use cotenant_sim::metrics::Latencies;
use cotenant_sim::program::{Code, CompileError, KernelCode};
use cotenant_sim::scenario::Setup;

use crate::clock::Clock;
use crate::device::{DeviceInfo, Kind, Partition, Prepared, Queue, Ticket};
use crate::error::DeviceError;

mod device;
mod gpu;
mod remote;
mod server;
pub(crate) mod wire;

use gpu::{Gpu, Site};
pub use remote::RemoteDevice;
pub use server::Server;

/// The reason why the GPU's lock is never poisoned.
const SOUND: &str = "nobody panics while changing the GPU";

/// A kernel that is made to fail, to test the consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kernel to end on the GPU fails, counting from 1.
    pub launch: u64,
    /// Whether, under MPS, the failure also destroys the contexts of other processes, as it may on real
    /// GPUs.
    pub spreads: bool,
}

impl Fault {
    /// The fault that the environment asks for, such as `COTENANT_EMULATED_FAULT=500` or `500,spreads`.
    /// `500,spreads`.
    ///
    /// # Errors
    /// The variable has another form.
    pub fn from_environment() -> Result<Option<Self>, String> {
        const VARIABLE: &str = "COTENANT_EMULATED_FAULT";
        let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
        let (number, rest) = text.split_once(',').unwrap_or((&text, ""));
        match (number.parse(), rest) {
            (Ok(launch), "" | "spreads") => Ok(Some(Self { launch, spreads: !rest.is_empty() })),
            _ => Err(format!("{VARIABLE}: `{text}` is neither `500` nor `500,spreads`")),
        }
    }
}

/// The GPU, and the means to wait for it.
struct Common {
    clock: Clock,
    gpu: Mutex<Gpu>,
    /// Something was submitted or has ended.
    changed: Condvar,
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, Gpu> {
        self.gpu.lock().expect(SOUND)
    }
}

struct QueueState {
    stream: u32,
    priority: i8,
}

struct Ready {
    queue: Queue,
    kernel: u32,
}

/// A context on an emulated GPU.
pub struct EmulatedDevice {
    info: DeviceInfo,
    common: Arc<Common>,
    context: u32,
    ids: Arc<BTreeMap<String, u32>>,
    spins: BTreeMap<String, u32>,
    sites: Vec<Site>,
    queues: Vec<QueueState>,
    ready: Vec<Ready>,
    /// By queue and kernel.
    known: HashMap<(u32, u32), Prepared>,
    next_ticket: u64,
}

impl EmulatedDevice {
    /// The whole GPU as described, with the kernels of `profile` as its work, on the wall clock.
    ///
    /// # Errors
    /// The profile has a model that the simulator could not compile either.
    pub fn new(
        device: &GpuDescription,
        profile: &Profile,
        contention: ContentionModel,
    ) -> Result<Self, CompileError> {
        let mut code = Code::default();
        for (name, model) in &profile.models {
            if let Some((&largest, _)) = model.batches.last_key_value() {
                code.compile(profile, name, largest, device.cus())?;
            }
        }
        let costs = device.costs.clone();
        let setup = Setup { device: device.clone(), costs, code: code.into(), tenants: vec![] };
        let whole = [setup.whole_gpu()];
        Ok(Self::for_scenario(&setup, &whole, contention, Clock::wall()))
    }

    /// The GPU of a scenario, arranged as a policy's layout says, on the given clock. Its kernels are
    /// known by number.
    ///
    /// # Panics
    /// There is no pool.
    #[must_use]
    pub fn for_scenario(
        setup: &Setup,
        pools: &[PoolSpec],
        contention: ContentionModel,
        clock: Clock,
    ) -> Self {
        assert!(!pools.is_empty(), "a GPU has a pool");
        let device = &setup.device;
        let info = DeviceInfo {
            name: format!("{} (emulated)", device.name),
            kind: Kind::Emulated,
            uuid: String::new(),
            cus: device.cus(),
            grain: device.mask.step_cus.max(1),
            memory: device.memory.capacity,
            driver: "none".to_owned(),
        };
        let kernels = setup.code.kernels.iter().enumerate();
        let ids = kernels.map(|(i, k)| (k.id.clone(), i as u32)).collect();
        let gpu =
            Gpu::new(device, setup.costs.clone(), Code::clone(&setup.code), pools, contention);
        let common = Common { clock, gpu: Mutex::new(gpu), changed: Condvar::new() };
        Self::open(Arc::new(common), info, Arc::new(ids))
    }

    fn open(common: Arc<Common>, info: DeviceInfo, ids: Arc<BTreeMap<String, u32>>) -> Self {
        let mut gpu = common.lock();
        let context = gpu.open_context();
        let capacity = |s: &PoolSpec| s.lanes.first().copied().unwrap_or(s.cus);
        let whole = Site { pool: 0, lane: 0, mask: None, cap: capacity(&gpu.specs()[0]) };
        drop(gpu);
        Self {
            info,
            common,
            context,
            ids,
            spins: BTreeMap::new(),
            sites: vec![whole],
            queues: Vec::new(),
            ready: Vec::new(),
            known: HashMap::new(),
            next_ticket: 0,
        }
    }

    /// Another context on the same GPU, such as another process would have.
    #[must_use]
    pub fn context(&self) -> Self {
        Self::open(Arc::clone(&self.common), self.info.clone(), Arc::clone(&self.ids))
    }

    /// Makes the streams of a pool share this many hardware queues, assigned in the order in which the
    /// streams were made.
    pub fn limit_hardware_queues(&mut self, pool: u32, hardware: u32) {
        self.common.lock().limit_queues(pool, hardware.max(1));
    }

    /// How long after its issue time by the host work reached an idle queue, over all contexts: the
    /// delay that the path to the device adds, in the device's time.
    #[must_use]
    pub fn lateness(&self) -> Latencies {
        self.common.lock().late().clone()
    }

    /// Makes a kernel fail, for tests.
    pub fn inject(&mut self, fault: Option<Fault>) {
        self.common.lock().set_fault(fault);
    }

    /// Launches and copies that have not ended, or whose end has not been taken.
    fn outstanding(&self) -> u32 {
        let now = self.now();
        let mut gpu = self.common.lock();
        gpu.run_to(now);
        (gpu.outstanding(self.context) + gpu.untold(self.context)) as u32
    }

    fn now(&self) -> u64 {
        self.common.clock.now().0
    }

    fn no_kernel(&self, id: &str) -> DeviceError {
        let near = text::closest(id, self.ids.keys().map(String::as_str));
        let near = near.map_or_else(String::new, |n| format!("; the closest is `{n}`"));
        DeviceError::unsupported(id, format!("the profile has no such kernel{near}"))
    }

    fn site(&self, partition: Partition) -> Result<Site, DeviceError> {
        let index = partition.index;
        let no_such = DeviceError::NoSuch { what: "partition", index };
        self.sites.get(index as usize).copied().ok_or(no_such)
    }

    fn queue_state(&self, queue: Queue) -> Result<&QueueState, DeviceError> {
        let no_such = DeviceError::NoSuch { what: "queue", index: queue.0 };
        self.queues.get(queue.0 as usize).ok_or(no_such)
    }

    fn ready(&self, work: Prepared) -> Result<&Ready, DeviceError> {
        let no_such = DeviceError::NoSuch { what: "prepared work", index: work.0 };
        self.ready.get(work.0 as usize).ok_or(no_such)
    }

    fn add_site(&mut self, site: Site, granted: u32) -> Partition {
        // Policies ask for the same few sites again and again.
        let index = self.sites.iter().position(|s| *s == site).unwrap_or_else(|| {
            self.sites.push(site);
            self.sites.len() - 1
        });
        Partition { index: index as u32, granted }
    }

    fn make_ready(&mut self, queue: Queue, kernel: u32) -> Prepared {
        let Self { known, ready, .. } = self;
        *known.entry((queue.0, kernel)).or_insert_with(|| {
            ready.push(Ready { queue, kernel });
            Prepared(ready.len() as u32 - 1)
        })
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket - 1)
    }
}

impl Drop for EmulatedDevice {
    fn drop(&mut self) {
        // If a panic elsewhere has poisoned the GPU, it is never used again.
        if let Ok(mut gpu) = self.common.gpu.lock() {
            gpu.close_context(self.common.clock.now().0, self.context);
        }
        self.common.changed.notify_all();
    }
}

/// A calibration kernel: a CU runs one of its blocks at a time.
fn spin(id: &str, blocks: u32, ns: u64, cus: u32) -> KernelCode {
    let at = |c: u32| ns.max(1) * u64::from(blocks.max(1).div_ceil(c));
    KernelCode {
        id: id.to_owned(),
        name: "spin".to_owned(),
        op: cotenant_profiles::kernel::Op::Other,
        duration_ns: std::iter::once(u64::MAX).chain((1..=cus).map(at)).collect(),
        want: blocks.clamp(1, cus),
        blocks: u64::from(blocks.max(1)),
        threads: 128,
        blocks_per_cu: 1,
        flops: 0,
        dram_bytes: 0,
        fair: false,
        tile: cotenant_sim::program::Tile::default(),
        drawn: vec![],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::device::Device as _;
    use crate::work::{Task, Work};
    use std::time::Instant;

    #[test]
    fn a_profile_runs_in_real_time_and_unknown_work_is_named() {
        let device = GpuDescription::builtin("h100-sxm").unwrap();
        let spec = cotenant_profiles::zoo::find("alexnet").unwrap();
        let options = cotenant_profiles::analytic::Options::default();
        let profile =
            cotenant_profiles::analytic::profile(&device, &[&spec], &[1], &options).unwrap();
        let mut gpu = EmulatedDevice::new(&device, &profile, ContentionModel::None).unwrap();
        let part = gpu.partition(0, 2 * gpu.info().grain).unwrap();
        assert_eq!(part.granted, 2 * gpu.info().grain);
        let queue = gpu.queue(part, 0).unwrap();
        let spin = Work::new(Task::Spin { blocks: 1, ns: 200_000 }, Default::default());
        let spin = gpu.prepare(queue, &spin).unwrap();
        gpu.launch(spin).unwrap();
        gpu.launch(spin).unwrap();
        let began = Instant::now();
        let mut ended = Vec::new();
        gpu.wait(&mut ended).unwrap();
        assert_eq!(ended.iter().map(|c| c.duration.0).collect::<Vec<_>>(), [200_000; 2]);
        assert!(began.elapsed() >= Duration::from_micros(200));
        let kernel = &profile.kernels[0].id;
        let other = Work { id: format!("{kernel}x"), task: Task::Copy { elements: 1 }, ..known() };
        let error = gpu.prepare(queue, &other).unwrap_err().to_string();
        assert!(error.contains(&format!("the closest is `{kernel}`")), "{error}");
        assert!(gpu.partition(1, 3).is_err());
        assert!(gpu.partition(0, 10_000).is_err());
        assert!(gpu.info().require_gpu().is_err());
    }

    fn known() -> Work {
        Work::new(Task::Copy { elements: 1 }, Default::default())
    }
}
