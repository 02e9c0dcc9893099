//! A device that keeps the time of a profile, on the wall clock.
//!
//! Its rules are the simulator's: a kernel takes what its curve says at the CUs it gets; where
//! partitions overlap, the higher priority goes first, then the earlier launch, and who comes later
//! takes what is left; a kernel whose blocks are all on CUs keeps them; and kernels side by side
//! slow each other by the simulator's own contention model. Only the clock differs.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use cotenant_profiles::{Device as GpuDescription, Nanos, Profile, text};
use cotenant_sim::CuMask;
use cotenant_sim::contention::{ContentionModel, Demand, Shared};
use cotenant_sim::program::{Code, CompileError, KernelCode};

use crate::device::{
    Completion, Device, DeviceInfo, Kind, Overhead, Partition, Prepared, Queue, Ticket,
};
use crate::error::DeviceError;
use crate::work::{Task, Work};

/// A profile played in real time.
pub struct EmulatedDevice {
    info: DeviceInfo,
    start: Instant,
    gpu: VirtualGpu,
    partitions: Vec<CuMask>,
    prepared: Vec<(Queue, usize)>,
    kernels: Vec<KernelCode>,
    ids: BTreeMap<String, usize>,
    next_ticket: u64,
}

impl EmulatedDevice {
    /// A device as described, with the kernels of `profile` as its work.
    ///
    /// # Errors
    /// A model of the profile that the simulator could not compile either.
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
        let ids = code.kernels.iter().enumerate().map(|(i, k)| (k.id.clone(), i)).collect();
        let info = DeviceInfo {
            name: format!("{} (emulated)", device.name),
            kind: Kind::Emulated,
            uuid: String::new(),
            cus: device.cus(),
            grain: device.mask.step_cus.max(1),
            memory: device.memory.capacity,
            driver: "none".to_owned(),
        };
        Ok(Self {
            partitions: vec![CuMask::first(info.cus)],
            info,
            start: Instant::now(),
            gpu: VirtualGpu::new(shared(device), contention),
            prepared: Vec::new(),
            kernels: code.kernels,
            ids,
            next_ticket: 0,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn no_kernel(&self, id: &str) -> DeviceError {
        let near = text::closest(id, self.ids.keys().map(String::as_str));
        let near = near.map_or_else(String::new, |n| format!("; the closest is `{n}`"));
        DeviceError::unsupported(id, format!("the profile has no such kernel{near}"))
    }
}

/// The memory system as the simulator's contention models see it.
fn shared(device: &GpuDescription) -> Shared {
    Shared {
        dram: (device.memory.dram_gbps * 1000.0) as u64,
        l2_rate: (device.memory.l2_gbps * 1000.0).max(1.0) as u64,
        l2: device.memory.l2.0,
        power: [device.power.idle_w, device.power.cu_w, device.power.cap_w],
        pj_per_byte: device.power.dram_pj_per_byte,
        mhz: device.clock.boost_mhz,
    }
}

impl Device for EmulatedDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn partition(&mut self, first: u32, cus: u32) -> Result<Partition, DeviceError> {
        let grain = self.info.grain;
        let bad = |reason: String| Err(DeviceError::BadPartition { first, cus, reason });
        if cus == 0 || !first.is_multiple_of(grain) || !cus.is_multiple_of(grain) {
            return bad(format!("partitions begin and end at multiples of {grain} CUs"));
        }
        if first.checked_add(cus).is_none_or(|end| end > self.info.cus) {
            return bad(format!("the device has {}", self.info.cus));
        }
        let mask = CuMask::first(first + cus).without(&CuMask::first(first));
        self.partitions.push(mask);
        Ok(Partition { index: self.partitions.len() as u32 - 1, granted: mask.count() })
    }

    fn queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError> {
        let index = partition.index;
        let no_such = DeviceError::NoSuch { what: "partition", index };
        let mask = *self.partitions.get(index as usize).ok_or(no_such)?;
        Ok(Queue(self.gpu.add_queue(mask, priority)))
    }

    fn prepare(&mut self, queue: Queue, work: &Work) -> Result<Prepared, DeviceError> {
        if queue.0 as usize >= self.gpu.queues.len() {
            return Err(DeviceError::NoSuch { what: "queue", index: queue.0 });
        }
        let kernel = match (&work.task, self.ids.get(&work.id)) {
            (_, Some(&known)) => known,
            (Task::Spin { blocks, ns }, None) => {
                self.kernels.push(spin(&work.id, *blocks, *ns, self.info.cus));
                self.ids.insert(work.id.clone(), self.kernels.len() - 1);
                self.kernels.len() - 1
            }
            _ => return Err(self.no_kernel(&work.id)),
        };
        self.prepared.push((queue, kernel));
        Ok(Prepared(self.prepared.len() as u32 - 1))
    }

    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError> {
        let no_such = DeviceError::NoSuch { what: "prepared work", index: work.0 };
        let (queue, kernel) = *self.prepared.get(work.0 as usize).ok_or(no_such)?;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let now = self.now();
        self.gpu.launch(now, queue.0, ticket, kernel, &self.kernels);
        Ok(ticket)
    }

    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        let now = self.now();
        self.gpu.run_to(now, &self.kernels);
        ended.append(&mut self.gpu.ended);
        Ok(())
    }

    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        while let Some(next) = self.gpu.next_end() {
            let now = self.now();
            if next > now {
                std::thread::sleep(Duration::from_nanos(next - now));
            }
            let now = self.now();
            self.gpu.run_to(now, &self.kernels);
        }
        ended.append(&mut self.gpu.ended);
        Ok(())
    }

    /// Events cost nothing here; what launching and polling cost is the host's.
    fn overhead(&mut self) -> Result<Overhead, DeviceError> {
        const ROUNDS: u32 = 64;
        let mut nothing = Vec::new();
        let began = Instant::now();
        for _ in 0..ROUNDS {
            self.poll(&mut nothing)?;
        }
        let poll = began.elapsed() / ROUNDS;
        let poll = Nanos(u64::try_from(poll.as_nanos()).unwrap_or(u64::MAX));
        Ok(Overhead { events: Nanos::ZERO, launch: poll, poll })
    }
}

/// A calibration kernel, one block on a CU at a time.
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
        dram_bytes: 0,
        fair: false,
        tile: cotenant_sim::program::Tile::default(),
    }
}

/// One queue: the launch at its head runs, the others wait for it.
struct VirtualQueue {
    mask: CuMask,
    priority: i8,
    waiting: VecDeque<(Ticket, usize)>,
    busy: bool,
}

/// A kernel at the head of its queue.
struct Running {
    queue: usize,
    ticket: Ticket,
    kernel: usize,
    priority: i8,
    allowed: CuMask,
    used: CuMask,
    grant: u32,
    began: u64,
    /// Undisturbed time left at `grant` CUs, ns.
    left: f64,
    slow: f64,
}

/// The rules without a clock: time is given at every call.
struct VirtualGpu {
    now: u64,
    queues: Vec<VirtualQueue>,
    running: Vec<Running>,
    ended: Vec<Completion>,
    shared: Shared,
    contention: ContentionModel,
}

impl VirtualGpu {
    fn new(shared: Shared, contention: ContentionModel) -> Self {
        let (queues, running, ended) = (Vec::new(), Vec::new(), Vec::new());
        Self { now: 0, queues, running, ended, shared, contention }
    }

    fn add_queue(&mut self, mask: CuMask, priority: i8) -> u32 {
        let waiting = VecDeque::new();
        self.queues.push(VirtualQueue { mask, priority, waiting, busy: false });
        self.queues.len() as u32 - 1
    }

    fn launch(&mut self, now: u64, queue: u32, t: Ticket, kernel: usize, code: &[KernelCode]) {
        self.run_to(now, code);
        self.queues[queue as usize].waiting.push_back((t, kernel));
        if self.start_head(queue as usize, now) {
            self.regrant(code);
        }
    }

    /// Puts the head of an idle queue on the GPU.
    fn start_head(&mut self, queue: usize, now: u64) -> bool {
        let q = &mut self.queues[queue];
        if q.busy {
            return false;
        }
        let Some((ticket, kernel)) = q.waiting.pop_front() else { return false };
        q.busy = true;
        let (allowed, priority) = (q.mask, q.priority);
        let (used, grant, left, slow) = (CuMask::EMPTY, 0, 0.0, 1.0);
        let r = Running {
            queue,
            ticket,
            kernel,
            priority,
            allowed,
            used,
            grant,
            began: now,
            left,
            slow,
        };
        // Kept in the order in which CUs are handed out.
        let at = self.running.partition_point(|o| o.priority >= priority);
        self.running.insert(at, r);
        true
    }

    fn next_end(&self) -> Option<u64> {
        self.running.iter().filter(|r| r.grant > 0).map(|r| self.now + r.rest()).min()
    }

    fn run_to(&mut self, until: u64, code: &[KernelCode]) {
        while let Some(next) = self.next_end().filter(|&n| n <= until) {
            self.age(next);
            while let Some(i) = self.running.iter().position(|r| r.grant > 0 && r.rest() == 0) {
                let r = self.running.remove(i);
                let duration = Nanos(next - r.began);
                self.ended.push(Completion { ticket: r.ticket, duration });
                self.queues[r.queue].busy = false;
                self.start_head(r.queue, next);
            }
            self.regrant(code);
        }
        self.age(until);
    }

    fn age(&mut self, to: u64) {
        let passed = to.saturating_sub(self.now) as f64;
        self.now = self.now.max(to);
        for r in self.running.iter_mut().filter(|r| r.grant > 0) {
            r.left = (r.left - passed / r.slow).max(0.0);
        }
    }

    /// Hands the CUs out afresh, then sets everybody's speed.
    fn regrant(&mut self, code: &[KernelCode]) {
        let mut taken = CuMask::EMPTY;
        for r in self.running.iter().filter(|r| r.settled(code)) {
            taken = taken.or(&r.used);
        }
        let fair = self.running.iter().filter(|r| code[r.kernel].fair).count().max(1) as u32;
        for r in &mut self.running {
            if r.settled(code) {
                continue;
            }
            let k = &code[r.kernel];
            let most = if k.fair { r.allowed.count().div_ceil(fair).max(1) } else { k.want };
            r.used = r.allowed.without(&taken).lowest(most);
            taken = taken.or(&r.used);
            r.regrant(r.used.count(), k);
        }
        let (mut demands, mut slow) = (Vec::new(), Vec::new());
        for r in self.running.iter().filter(|r| r.grant > 0) {
            let k = &code[r.kernel];
            let dram = k.dram_bytes.saturating_mul(1000) / k.at(r.grant).max(1);
            let footprint = k.dram_bytes.min(self.shared.l2);
            demands.push(Demand { dram: dram.min(self.shared.dram), footprint, cus: r.grant });
        }
        self.contention.slow_downs(&self.shared, &demands, &mut slow);
        for (r, slow) in self.running.iter_mut().filter(|r| r.grant > 0).zip(slow) {
            r.slow = slow;
        }
    }
}

impl Running {
    /// All its blocks are on CUs: they end there, whoever comes.
    fn settled(&self, code: &[KernelCode]) -> bool {
        let k = &code[self.kernel];
        !k.fair && self.grant > 0 && k.blocks <= u64::from(self.grant) * u64::from(k.blocks_per_cu)
    }

    fn regrant(&mut self, grant: u32, kernel: &KernelCode) {
        if self.grant == grant {
            return;
        }
        if self.grant == 0 {
            // Preempted or new: `left` is time on the whole of `allowed` while it has no CU.
            let fresh = self.left == 0.0;
            let full = kernel.at(self.allowed.count()) as f64;
            let share = if fresh { 1.0 } else { self.left / full };
            self.left = kernel.at(grant) as f64 * share;
        } else {
            let to = if grant == 0 { self.allowed.count() } else { grant };
            self.left *= kernel.at(to) as f64 / kernel.at(self.grant) as f64;
        }
        self.grant = grant;
    }

    /// Time to its end at the present speed, ns.
    fn rest(&self) -> u64 {
        (self.left * self.slow).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 CUs; kernels 0 and 1 want all of them for 800 ns of work each, kernel 2 wants 2.
    fn world() -> (VirtualGpu, Vec<KernelCode>) {
        let device = GpuDescription::builtin("h100-sxm").unwrap();
        let kernel = |blocks: u32, ns: u64| spin("k", blocks, ns, 8);
        let kernels = vec![kernel(80, 100), kernel(80, 100), kernel(2, 400)];
        (VirtualGpu::new(shared(&device), ContentionModel::None), kernels)
    }

    fn ends(gpu: &VirtualGpu) -> Vec<(u64, u64)> {
        gpu.ended.iter().map(|c| (c.ticket.0, c.duration.0)).collect()
    }

    #[test]
    fn a_partition_stretches_a_kernel_as_its_curve_says() {
        let (mut gpu, code) = world();
        let whole = gpu.add_queue(CuMask::first(8), 0);
        gpu.launch(0, whole, Ticket(0), 0, &code);
        gpu.run_to(10_000, &code);
        let half = gpu.add_queue(CuMask::first(4), 0);
        gpu.launch(10_000, half, Ticket(1), 0, &code);
        gpu.run_to(20_000, &code);
        assert_eq!(ends(&gpu), [(0, 1000), (1, 2000)]);
    }

    #[test]
    fn disjoint_partitions_do_not_touch_and_a_queue_is_in_order() {
        let (mut gpu, code) = world();
        let low = gpu.add_queue(CuMask::first(4), 0);
        let high = gpu.add_queue(CuMask::first(8).without(&CuMask::first(4)), 0);
        gpu.launch(0, low, Ticket(0), 0, &code);
        gpu.launch(0, low, Ticket(1), 2, &code);
        gpu.launch(0, high, Ticket(2), 1, &code);
        gpu.run_to(2399, &code);
        assert_eq!(ends(&gpu), [(0, 2000), (2, 2000)]);
        gpu.run_to(2400, &code);
        assert_eq!(ends(&gpu).last(), Some(&(1, 400)));
    }

    #[test]
    fn on_the_same_cus_the_later_takes_what_is_left_and_priority_goes_first() {
        let (mut gpu, code) = world();
        let all = CuMask::first(8);
        let (first, urgent) = (gpu.add_queue(all, 0), gpu.add_queue(all, 1));
        gpu.launch(0, first, Ticket(0), 0, &code);
        // Takes every CU away for 1000 ns: the other goes on where it stopped.
        gpu.launch(500, urgent, Ticket(1), 1, &code);
        gpu.run_to(1500, &code);
        assert_eq!(ends(&gpu), [(1, 1000)]);
        gpu.run_to(2000, &code);
        assert_eq!(ends(&gpu), [(1, 1000), (0, 2000)]);
    }

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
