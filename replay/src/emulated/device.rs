//! The emulated GPU as a device.

use std::time::Duration;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::CuMask;
use cotenant_sim::action::Preemption;
use cotenant_sim::layout::{PoolSpec, WorkerSpec};

use super::gpu::{Shot, Site};
use super::{EmulatedDevice, QueueState, Ready, spin};
use crate::clock::Clock;
use crate::device::{
    Completion, Device, DeviceInfo, Direction, Launch, Overhead, Partition, Prepared, Queue,
    Ticket, Usage,
};
use crate::error::DeviceError;
use crate::work::{Task, Work};

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
        let site = self.sites[0];
        let capacity = self.common.lock().specs()[0].lanes[0];
        if first.checked_add(cus).is_none_or(|end| end > capacity) {
            return bad(format!("the device has {capacity}"));
        }
        let mask = CuMask::first(first + cus).without(&CuMask::first(first));
        Ok(self.add_site(Site { mask: Some(mask), ..site }, mask.count()))
    }

    fn subset(&mut self, within: Partition, cus: &CuMask) -> Result<Partition, DeviceError> {
        let site = self.site(within)?;
        let capacity = self.common.lock().specs()[site.pool as usize].lanes[site.lane as usize];
        let outer = site.mask.unwrap_or(CuMask::first(capacity));
        let (first, count) = (cus.iter().next().unwrap_or(0), cus.count());
        let mask: CuMask = outer
            .iter()
            .enumerate()
            .filter(|&(i, _)| cus.contains(i as u32))
            .map(|(_, c)| c)
            .collect();
        if mask.is_empty() || mask.count() != count {
            let reason = format!("the partition has {} CUs", outer.count());
            return Err(DeviceError::BadPartition { first, cus: count, reason });
        }
        Ok(self.add_site(Site { mask: Some(mask), ..site }, count))
    }

    fn place(&mut self, _: &[PoolSpec], worker: &WorkerSpec) -> Result<Partition, DeviceError> {
        let WorkerSpec { pool, lane, cap, .. } = *worker;
        let found = self.common.lock().specs().get(pool as usize).cloned();
        let lanes = found.map(|p| p.lanes).unwrap_or_default();
        let no_such = DeviceError::NoSuch { what: "lane", index: lane };
        let capacity = *lanes.get(lane as usize).ok_or(no_such)?;
        Ok(self.add_site(Site { pool, lane, mask: None, cap }, cap.min(capacity)))
    }

    fn allocate(&mut self, partition: Partition, bytes: Bytes) -> Result<(), DeviceError> {
        let pool = self.site(partition)?.pool;
        self.common.lock().take_memory(self.context, pool, bytes)
    }

    fn queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError> {
        let site = self.site(partition)?;
        let stream = self.common.lock().add_stream(self.context, site);
        self.queues.push(QueueState { stream, priority });
        Ok(Queue(self.queues.len() as u32 - 1))
    }

    fn prepare(&mut self, queue: Queue, work: &Work) -> Result<Prepared, DeviceError> {
        self.queue_state(queue)?;
        let known = self.ids.get(&work.id).or_else(|| self.spins.get(&work.id));
        let kernel = match (&work.task, known) {
            (_, Some(&known)) => known,
            (Task::Spin { blocks, ns }, None) => {
                let kernel = spin(&work.id, *blocks, *ns, self.info.cus);
                let number = self.common.lock().add_kernel(kernel);
                self.spins.insert(work.id.clone(), number);
                number
            }
            _ => return Err(self.no_kernel(&work.id)),
        };
        Ok(self.make_ready(queue, kernel))
    }

    fn prepare_kernel(&mut self, queue: Queue, kernel: u32) -> Result<Prepared, DeviceError> {
        self.queue_state(queue)?;
        if kernel as usize >= self.common.lock().kernels().len() {
            return Err(DeviceError::NoSuch { what: "kernel", index: kernel });
        }
        Ok(self.make_ready(queue, kernel))
    }

    fn merge(&mut self, queue: Queue, parts: &[Prepared]) -> Result<Prepared, DeviceError> {
        self.queue_state(queue)?;
        let kernels = parts.iter().map(|&p| self.ready(p).map(|r| r.kernel));
        let kernels = kernels.collect::<Result<Vec<_>, _>>()?;
        if kernels.is_empty() {
            return Err(DeviceError::unsupported("nothing", "a merge takes kernels"));
        }
        let merged = self.common.lock().merge(kernels);
        Ok(self.make_ready(queue, merged))
    }

    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError> {
        self.submit(&Launch::of(work))
    }

    fn submit(&mut self, launch: &Launch) -> Result<Ticket, DeviceError> {
        let &Ready { queue, kernel } = self.ready(launch.work)?;
        let &QueueState { stream, priority, .. } = self.queue_state(queue)?;
        let ticket = self.ticket();
        let shot = Shot {
            kernel,
            mask: launch.mask,
            priority: launch.priority.unwrap_or(priority),
            part: launch.part,
            scale: launch.scale,
            first: launch.first,
            last: launch.last,
        };
        let now = self.now();
        let mut gpu = self.common.lock();
        gpu.launch(now, stream, ticket, launch.issued, launch.reported, shot)?;
        drop(gpu);
        self.common.changed.notify_all();
        Ok(ticket)
    }

    fn batch(&mut self, queue: Queue, began: bool) -> Result<(), DeviceError> {
        let stream = self.queue_state(queue)?.stream;
        self.common.lock().batch(stream, began);
        Ok(())
    }

    fn repartition(&mut self, pool: u32, lanes: &[u32]) -> Result<(), DeviceError> {
        let now = self.now();
        self.common.lock().repartition(now, pool, lanes);
        Ok(())
    }

    fn held(&self, queue: Queue) -> Option<u32> {
        let stream = self.queue_state(queue).ok()?.stream;
        Some(self.common.lock().held(stream))
    }

    fn set_clock(&mut self, mhz: u32) -> Result<(), DeviceError> {
        let now = self.now();
        self.common.lock().set_clock(now, mhz);
        self.common.changed.notify_all();
        Ok(())
    }

    fn preempt(&mut self, queue: Queue, how: Preemption, at: Nanos) -> Result<(), DeviceError> {
        let stream = self.queue_state(queue)?.stream;
        let now = self.now();
        self.common.lock().preempt(now, stream, how, at.0);
        self.common.changed.notify_all();
        Ok(())
    }

    fn masks_launches(&self) -> bool {
        true
    }

    fn copy(
        &mut self,
        queue: Queue,
        direction: Direction,
        bytes: Bytes,
        issued: Nanos,
    ) -> Result<Ticket, DeviceError> {
        let stream = self.queue_state(queue)?.stream;
        let ticket = self.ticket();
        let now = self.now();
        self.common.lock().copy(now, stream, ticket, issued, direction, bytes)?;
        self.common.changed.notify_all();
        Ok(ticket)
    }

    fn clock(&self) -> Clock {
        self.common.clock
    }

    fn next_event(&mut self) -> Option<Nanos> {
        let mut gpu = self.common.lock();
        if gpu.has_news(self.context) { Some(Nanos::ZERO) } else { gpu.next_event().map(Nanos) }
    }

    fn usage(&mut self) -> Option<Usage> {
        let now = self.now();
        let mut gpu = self.common.lock();
        gpu.run_before(now);
        Some(gpu.usage())
    }

    fn doze(&mut self, most: Duration) {
        let mut gpu = self.common.lock();
        if gpu.has_news(self.context) {
            return;
        }
        let until =
            gpu.next_event().map_or(most, |at| self.common.clock.until(Nanos(at)).min(most));
        // Waking early does no harm: the caller looks and comes back.
        let _ = self.common.changed.wait_timeout(gpu, until);
    }

    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        let now = self.now();
        let mut gpu = self.common.lock();
        if self.common.clock.is_virtual() {
            // The host answers an end at the same instant, so its answer comes before the next end.
            gpu.run_to_news(now, self.context);
        } else {
            gpu.run_to(now);
        }
        gpu.take_ended(self.context, ended)
    }

    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        loop {
            self.poll(ended)?;
            let mut gpu = self.common.lock();
            if gpu.outstanding(self.context) == 0 {
                return Ok(());
            }
            // Other contexts' turns end by themselves, but our own batches may be left unfinished.
            let Some(next) = gpu.next_event() else {
                gpu.end_batches(self.context);
                continue;
            };
            drop(gpu);
            self.common.clock.move_to(Nanos(next));
            std::thread::sleep(self.common.clock.until(Nanos(next)));
        }
    }

    /// Events cost nothing here; the costs of launching and polling are those of the host.
    fn overhead(&mut self) -> Result<Overhead, DeviceError> {
        const ROUNDS: u64 = 64;
        let mut nothing = Vec::new();
        let began = Clock::wall().now();
        for _ in 0..ROUNDS {
            self.poll(&mut nothing)?;
        }
        let poll = Nanos(Clock::wall().now().since(began).0 / ROUNDS);
        Ok(Overhead { events: Nanos::ZERO, plain: poll, launch: poll, poll })
    }
}
