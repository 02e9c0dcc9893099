//! What a device is asked for: partitions, queues, launches, what has ended.

use std::rc::Rc;
use std::time::Instant;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::mask::CuMask;

use super::{CudaDevice, Flight, Lane, Staging};
use crate::cuda::driver::Stream;
use crate::cuda::memory::{Buffer, Pinned};
use crate::cuda::ready::Ready;
use crate::device::{
    Completion, Device, DeviceInfo, Direction, Launch, Overhead, Partition, Prepared, Queue, Ticket,
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
        // The driver's smaller numbers go first.
        let priority = least.saturating_sub(i32::from(priority)).clamp(greatest, least);
        let cus = green.as_ref().map_or(self.info.cus, |g| g.granted);
        let stream = Stream::new(&self.context, green.as_ref(), priority)?;
        self.queues.push(Lane { stream, cus });
        Ok(Queue(self.queues.len() as u32 - 1))
    }

    fn prepare(&mut self, queue: Queue, work: &Work) -> Result<Prepared, DeviceError> {
        let (body, facts) = self.plan(work, queue)?;
        let operands = self.operands(work)?;
        let (work, more) = (work.clone(), Vec::new());
        Ok(self.keep(Ready { queue, work, body, operands, more, facts }))
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
        let ready = ready.expect("looked at just above");
        let ticket = if launch.reported {
            self.enqueue(queue, None, |stream| ready.launch(stream))
        } else {
            // A launch whose end nobody wants to know needs no events, and nothing to look after.
            let launched = self.lane(queue).and_then(|lane| ready.launch(&lane.stream));
            launched.map(|()| {
                self.next_ticket += 1;
                Ticket(self.next_ticket - 1)
            })
        };
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
        self.enqueue(queue, Some(staging), |stream| {
            ends.host.copy(direction, &ends.device, bytes, stream)
        })
    }

    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        let mut i = 0;
        while i < self.flights.len() {
            if self.flights[i].end.reached()? {
                let Flight { ticket, queue, start, end, .. } = self.flights.remove(i);
                let duration = Nanos(end.since(&start)?);
                let at = self.moment(&end)?;
                ended.push(Completion { ticket, duration, at, left: None });
                self.events.entry(queue.0).or_default().extend([start, end]);
            } else {
                i += 1;
            }
        }
        Ok(())
    }

    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        for lane in &self.queues {
            lane.stream.synchronize()?;
        }
        self.poll(ended)
    }

    fn overhead(&mut self) -> Result<Overhead, DeviceError> {
        const ROUNDS: usize = 101;
        let whole = self.whole();
        let queue = self.queue(whole, 0)?;
        let spin = Work::new(Task::Spin { blocks: 1, ns: 0 }, Precision::Fp32);
        let prepared = self.prepare(queue, &spin)?;
        let stream = Rc::clone(&self.lane(queue)?.stream);
        let (mut gaps, mut launches, mut polls) = (vec![], vec![], vec![]);
        let mut ended = Vec::new();
        for _ in 0..ROUNDS {
            let (start, end) = (self.event(queue)?, self.event(queue)?);
            start.record(&stream)?;
            end.record(&stream)?;
            stream.synchronize()?;
            gaps.push(end.since(&start)?);
            self.events.entry(queue.0).or_default().extend([start, end]);
            let began = Instant::now();
            self.launch(prepared)?;
            launches.push(nanos(began));
            self.wait(&mut ended)?;
            let began = Instant::now();
            self.poll(&mut ended)?;
            polls.push(nanos(began));
        }
        self.release(prepared)?;
        Ok(Overhead { events: median(gaps), launch: median(launches), poll: median(polls) })
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn median(mut values: Vec<u64>) -> Nanos {
    values.sort_unstable();
    Nanos(values.get(values.len() / 2).copied().unwrap_or(0))
}
