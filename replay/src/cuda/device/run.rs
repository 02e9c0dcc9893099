//! The operations of a device: partitions, queues, launches, completions.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::counter::Count;
use cotenant_sim::mask::CuMask;

use super::{CudaDevice, Flight, Lane, Staging};
use crate::counted::Made;
use crate::cuda::driver::Stream;
use crate::cuda::memory::{Buffer, Pinned};
use crate::cuda::ready::Ready;
use crate::device::{
    Completion, Device, DeviceInfo, Direction, End, Launch, Overhead, Partition, Prepared, Queue,
    Ticket,
};
use crate::error::DeviceError;
use crate::work::{Task, Work};

impl Device for CudaDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn partition(&mut self, first: u32, cus: u32) -> Result<Partition, DeviceError> {
        let bad = |reason: String| DeviceError::BadPartition { first, cus, reason };
        let atoms = self.atoms.as_ref().map_err(Clone::clone)?;
        let grain = atoms.grain.max(1);
        if cus == 0 || !first.is_multiple_of(grain) || !cus.is_multiple_of(grain) {
            return Err(bad(format!("partitions begin and end at multiples of {grain} SMs")));
        }
        let whole = atoms.len() * grain;
        if first.checked_add(cus).is_none_or(|end| end > whole) {
            return Err(bad(format!("{whole} SMs can be partitioned")));
        }
        self.part((first / grain..(first + cus) / grain).collect())
    }

    fn subset(&mut self, within: Partition, cus: &CuMask) -> Result<Partition, DeviceError> {
        let part = self.known(within)?;
        let (first, count) = (cus.iter().next().unwrap_or(0), cus.count());
        let grain = self.info.grain.max(1);
        let bad = |reason: String| DeviceError::BadPartition { first, cus: count, reason };
        if count == within.granted && cus.iter().all(|c| c < within.granted) {
            return Ok(within);
        }
        let mut atoms = Vec::new();
        for (atom, number) in part.atoms.iter().zip(0u32..) {
            let inside = (0..grain).filter(|i| cus.contains(number * grain + i)).count() as u32;
            match inside {
                0 => {}
                n if n == grain => atoms.push(*atom),
                _ => {
                    let begin = number * grain;
                    return Err(bad(format!(
                        "SMs {begin} to {} come together or not at all",
                        begin + grain - 1
                    )));
                }
            }
        }
        if atoms.is_empty() || atoms.len() as u32 * grain != count {
            let most = part.atoms.len() as u32 * grain;
            return Err(bad(format!("{most} SMs can be partitioned there")));
        }
        self.part(atoms)
    }

    fn queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError> {
        let green = self.known(partition)?.green.clone();
        let [least, greatest] = self.context.priorities()?;
        // For the driver, smaller numbers go first.
        let priority = least.saturating_sub(i32::from(priority)).clamp(greatest, least);
        let cus = green.as_ref().map_or(self.info.cus, |g| g.granted);
        let stream = Stream::new(&self.context, green.as_ref(), priority)?;
        self.queues.push(Lane { stream, cus, part: partition.index });
        Ok(Queue(self.queues.len() as u32 - 1))
    }

    fn prepare(&mut self, queue: Queue, work: &Work) -> Result<Prepared, DeviceError> {
        let (body, facts) = self.plan(work, queue)?;
        let operands = self.operands(work, queue)?;
        let (work, more, last) = (work.clone(), Vec::new(), RefCell::default());
        let mut ready = Ready { queue, work, body, operands, more, facts, last };
        self.try_out(queue, &mut ready)?;
        Ok(self.keep(ready))
    }

    fn merge(&mut self, queue: Queue, parts: &[Prepared]) -> Result<Prepared, DeviceError> {
        for part in parts {
            self.ready(*part)?;
        }
        let mut key: Vec<u32> = parts.iter().map(|p| p.0).collect();
        key.sort_unstable();
        let key = (queue.0, key);
        if let Some(known) = self.merged.get(&key) {
            return Ok(*known);
        }
        let prepared = self.batch(queue, parts)?;
        self.merged.insert(key, prepared);
        Ok(prepared)
    }

    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError> {
        self.submit(&Launch::of(work))
    }

    fn submit(&mut self, launch: &Launch) -> Result<Ticket, DeviceError> {
        let queue = self.ready(launch.work)?.queue;
        self.submit_on(queue, launch)
    }

    fn submit_on(&mut self, queue: Queue, launch: &Launch) -> Result<Ticket, DeviceError> {
        launch.plain()?;
        self.ready(launch.work)?;
        let ready = self.ready[launch.work.0 as usize].take();
        let mut ready = ready.expect("looked at just above");
        let ticket = self.put_in_queue(queue, &mut ready, launch.reported);
        self.ready[launch.work.0 as usize] = Some(ready);
        ticket
    }

    fn copy(
        &mut self,
        queue: Queue,
        direction: Direction,
        bytes: Bytes,
        _issued: Nanos,
    ) -> Result<Ticket, DeviceError> {
        let bytes = usize::try_from(bytes.0).unwrap_or(usize::MAX);
        let staging = match &self.staging {
            Some(known) if known.device.bytes >= bytes => Rc::clone(known),
            _ => {
                let size = bytes.max(1 << 20).next_power_of_two();
                let host = Pinned::new(&self.context, size)?;
                let device = Buffer::zeroed(&self.context, size)?;
                Rc::clone(self.staging.insert(Rc::new(Staging { host, device })))
            }
        };
        let ends = Rc::clone(&staging);
        self.enqueue(queue, Some(staging), |_, stream| {
            ends.host.copy(direction, &ends.device, bytes, stream)
        })
    }

    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        let mut i = 0;
        while i < self.flights.len() {
            if self.flights[i].end.reached()? {
                let Flight { ticket, queue, start, end, .. } = self.flights.remove(i);
                let duration = Nanos(end.since(&start)?);
                let at = self.moment(queue, &end)?;
                ended.push(Completion { ticket, duration, at, end: End::Done });
                self.events.entry(queue.0).or_default().extend([start, end]);
            } else {
                i += 1;
            }
        }
        Ok(())
    }

    fn finish(&mut self, queue: Queue) -> Result<(), DeviceError> {
        self.lane(queue)?.stream.synchronize()
    }

    fn counters(&self) -> Vec<Count> {
        Made { partitions: self.parts.len() as u64 - 1, ends_as_seen: self.as_seen }.counted()
    }

    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        for lane in &self.queues {
            lane.stream.synchronize()?;
        }
        self.poll(ended)
    }

    fn overhead(&mut self) -> Result<Overhead, DeviceError> {
        const ROUNDS: usize = 101;
        let queue = self.queue(self.whole(), 0)?;
        let spin = Work::new(Task::Spin { blocks: 1, ns: 0 }, Precision::Fp32);
        let prepared = self.prepare(queue, &spin)?;
        let plain = Launch { reported: false, ..Launch::of(prepared) };
        let (mut bare, mut launches, mut polls) = (vec![], vec![], vec![]);
        let mut ended = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            self.submit(&plain)?;
            bare.push(nanos(began));
            let began = Instant::now();
            self.launch(prepared)?;
            launches.push(nanos(began));
            self.wait(&mut ended)?;
            let began = Instant::now();
            self.poll(&mut ended)?;
            polls.push(nanos(began));
        }
        let launch = median(launches);
        let events = self.event_gap(queue, prepared, launch)?;
        self.release(prepared)?;
        Ok(Overhead { events, plain: median(bare), launch, poll: median(polls) })
    }
}

impl CudaDevice {
    /// Puts work into a queue, between two events if its end is to be reported.
    fn put_in_queue(
        &mut self,
        queue: Queue,
        ready: &mut Ready,
        reported: bool,
    ) -> Result<Ticket, DeviceError> {
        let stream = Rc::clone(&self.lane(queue)?.stream);
        if ready.body.has_a_workspace() {
            ready.follow(&stream)?;
        }
        if reported {
            return self.enqueue(queue, None, |gpu, stream| gpu.put(queue, ready, stream));
        }
        // A launch whose end is not reported needs no events and no tracking.
        self.put(queue, ready, &stream)?;
        self.next_ticket += 1;
        Ok(Ticket(self.next_ticket - 1))
    }

    /// How much two events add to a duration. Launches with two events each take longer by this amount
    /// than their share of equally many launches between two events in all. The launches are queued
    /// behind a kernel that keeps the GPU busy, so that the host is not measured. If the host was too
    /// late, the kernel is made longer and the measurement repeated.
    fn event_gap(
        &mut self,
        queue: Queue,
        empty: Prepared,
        launch: Nanos,
    ) -> Result<Nanos, DeviceError> {
        const LAUNCHES: usize = 100;
        const WARM: usize = 5;
        const TRIES: u32 = 5;
        let first = 8 * launch.0.max(1000) * (LAUNCHES + WARM) as u64;
        let mut least: Option<Nanos> = None;
        for try_ in 0..TRIES {
            let ns = (first << try_).min(200_000_000);
            let work = Work::new(Task::Spin { blocks: 1, ns }, Precision::Fp32);
            let head = self.prepare(queue, &work)?;
            let (each, in_time) = self.launches_apart(head, empty, [WARM, LAUNCHES])?;
            let (all, also) = self.launches_together(queue, head, empty, [WARM, LAUNCHES])?;
            self.release(head)?;
            // The two events around all of the launches are one gap as well.
            let many = LAUNCHES as u64;
            let gap = Nanos((each.0 * many).saturating_sub(all) / (many - 1));
            if in_time && also {
                return Ok(gap);
            }
            least = Some(least.map_or(gap, |l| l.min(gap)));
        }
        // A late host makes the gap too large, if anything.
        Ok(least.unwrap_or_default())
    }

    /// The median duration of launches behind `head`, each between two events, and whether the head was
    /// still running when the last launch was queued.
    fn launches_apart(
        &mut self,
        head: Prepared,
        empty: Prepared,
        [warm, launches]: [usize; 2],
    ) -> Result<(Nanos, bool), DeviceError> {
        let mut ended = Vec::new();
        let first = self.launch(head)?;
        for _ in 0..warm + launches {
            self.launch(empty)?;
        }
        self.poll(&mut ended)?;
        let in_time = ended.iter().all(|c| c.ticket != first);
        self.wait(&mut ended)?;
        ended.sort_by_key(|c| c.ticket);
        let each = ended.drain(..).skip(1 + warm).map(|c| c.duration.0).collect();
        Ok((median(each), in_time))
    }

    /// Duration of equally many launches between only two events, ns.
    fn launches_together(
        &mut self,
        queue: Queue,
        head: Prepared,
        empty: Prepared,
        [warm, launches]: [usize; 2],
    ) -> Result<(u64, bool), DeviceError> {
        let plain = Launch { reported: false, ..Launch::of(empty) };
        let stream = Rc::clone(&self.lane(queue)?.stream);
        let (start, end) = (self.event(queue)?, self.event(queue)?);
        let busy = self.event(queue)?;
        self.submit(&Launch { reported: false, ..Launch::of(head) })?;
        busy.record(&stream)?;
        for _ in 0..warm {
            self.submit(&plain)?;
        }
        start.record(&stream)?;
        for _ in 0..launches {
            self.submit(&plain)?;
        }
        end.record(&stream)?;
        let in_time = !busy.reached()?;
        stream.synchronize()?;
        Ok((end.since(&start)?, in_time))
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn median(mut values: Vec<u64>) -> Nanos {
    values.sort_unstable();
    Nanos(values.get(values.len() / 2).copied().unwrap_or(0))
}
