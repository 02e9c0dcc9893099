//! Measured launches. They are queued behind a kernel that keeps the GPU busy, so that the measurement
//! shows the GPU and never the host that feeds it.

use std::time::{Duration, Instant};

use cotenant_profiles::Nanos;
use cotenant_profiles::lower::Precision;

use super::{Plan, Point, WARM_UP};
use crate::cuda::{CudaDevice, Granularity, LaunchFacts};
use crate::device::{Completion, Device, Launch, Prepared, Queue, Ticket};
use crate::error::DeviceError;
use crate::work::{Task, Work};

/// A device with the queues of its partitions.
pub(crate) struct Bench {
    pub(crate) gpu: CudaDevice,
    /// Host time of one launch with its events.
    pub(crate) launch: Nanos,
    queues: Vec<((u32, u32), Queue)>,
    /// Kernels that keep a queue busy, by queue and duration.
    heads: Vec<(Queue, u64, Prepared)>,
}

/// The result of one visit.
#[derive(Default)]
pub(super) struct Samples {
    /// Durations in the order of the launches, ns.
    pub(super) ns: Vec<u64>,
    /// Everything was queued before the first launch began. If not, short kernels may have waited for
    /// the host between the event before them and their start.
    pub(super) queued: bool,
    /// Facts about the kernel.
    pub(super) facts: LaunchFacts,
}

/// Launches behind one head. With their events they fit into the 1024 slots of a queue.
const CHUNK: usize = 200;
/// Longer heads are not tried: the host is too late to catch up.
const LONGEST_HEAD: Duration = Duration::from_millis(200);

impl Bench {
    pub(crate) fn open(granularity: Granularity) -> Result<Self, DeviceError> {
        let gpu = CudaDevice::open(0, granularity)?;
        let launch = Nanos::from_micros(10);
        Ok(Self { gpu, launch, queues: Vec::new(), heads: Vec::new() })
    }

    /// A queue on `cus` CUs starting at `first`, kept for the next visit.
    pub(crate) fn queue(&mut self, first: u32, cus: u32) -> Result<Queue, DeviceError> {
        if let Some((_, queue)) = self.queues.iter().find(|(k, _)| *k == (first, cus)) {
            return Ok(*queue);
        }
        let whole = cus == self.gpu.info().cus;
        let partition = if whole { self.gpu.whole() } else { self.gpu.partition(first, cus)? };
        let queue = self.gpu.queue(partition, 0)?;
        self.queues.push(((first, cus), queue));
        Ok(queue)
    }

    /// Launches a kernel of `ns` that keeps a queue busy while others are queued behind it.
    pub(super) fn head(&mut self, queue: Queue, ns: u64) -> Result<Ticket, DeviceError> {
        let known = self.heads.iter().find(|(q, n, _)| (*q, *n) == (queue, ns));
        let prepared = match known {
            Some((.., prepared)) => *prepared,
            None => {
                let spin = Work::new(Task::Spin { blocks: 1, ns }, Precision::Fp32);
                let prepared = self.gpu.prepare(queue, &spin)?;
                self.heads.push((queue, ns, prepared));
                prepared
            }
        };
        self.gpu.launch(prepared)
    }

    /// Duration of the head for this many launches, ns: four times what it takes to queue them, in
    /// coarse steps so that only a few different heads are made.
    pub(super) fn head_for(&self, launches: usize) -> u64 {
        let queueing = 4 * self.launch.0.max(1000) * launches as u64;
        queueing.next_power_of_two()
    }

    /// Durations of `samples` launches, one after the other.
    pub(super) fn visit(
        &mut self,
        plan: &Plan,
        at: Point,
        samples: usize,
    ) -> Result<Samples, DeviceError> {
        let queue = self.queue(0, at.cus)?;
        let prepared = self.gpu.prepare(queue, &plan.works[at.work])?;
        let facts = self.gpu.facts(prepared)?.clone();
        let cold = plan.works[at.work].starts_cold();
        let measured = self.samples_of(queue, prepared, samples, cold);
        let released = self.gpu.release(prepared);
        let (ns, queued) = measured?;
        released?;
        Ok(Samples { ns, queued, facts })
    }

    /// Whether the device can still be used after a failure. Discards whatever was under way.
    pub(crate) fn survives(&mut self) -> bool {
        self.gpu.wait(&mut vec![]).is_ok()
    }

    /// Keeps all of the GPU busy for this long, so that its clocks have risen before anything is
    /// measured.
    pub(crate) fn ramp(&mut self, time: Duration) -> Result<(), DeviceError> {
        /// Short enough that the host checks the time now and then.
        const PIECE_NS: u64 = 5_000_000;
        let cus = self.gpu.info().cus;
        let queue = self.queue(0, cus)?;
        let load = Work::new(Task::Gemm { m: 2048, n: 2048, k: 2048, count: 1 }, Precision::Fp32);
        // Without a library for the product, blocks that wait raise the clocks as well.
        let spin = Work::new(Task::Spin { blocks: 8 * cus, ns: PIECE_NS }, Precision::Fp32);
        let prepared = match self.gpu.prepare(queue, &load) {
            Ok(prepared) => prepared,
            Err(_) => self.gpu.prepare(queue, &spin)?,
        };
        let began = Instant::now();
        while began.elapsed() < time {
            for _ in 0..8 {
                self.gpu.submit(&Launch { reported: false, ..Launch::of(prepared) })?;
            }
            self.gpu.finish(queue)?;
        }
        self.gpu.release(prepared)
    }

    /// Durations of this many launches on `queue`, one after the other, ns; and whether each chunk of
    /// them was queued before the first launch began.
    pub(crate) fn samples(
        &mut self,
        queue: Queue,
        prepared: Prepared,
        samples: usize,
    ) -> Result<(Vec<u64>, bool), DeviceError> {
        self.samples_of(queue, prepared, samples, false)
    }

    /// As [`Bench::samples`]; for launches that start `cold`, the L2 cache is filled with other data
    /// before each.
    fn samples_of(
        &mut self,
        queue: Queue,
        prepared: Prepared,
        samples: usize,
        cold: bool,
    ) -> Result<(Vec<u64>, bool), DeviceError> {
        let (mut ns, mut queued) = (Vec::with_capacity(samples), true);
        while ns.len() < samples {
            let n = (samples - ns.len()).min(CHUNK);
            let mut head = self.head_for((WARM_UP + n) * if cold { 2 } else { 1 });
            loop {
                let (found, in_time) = self.behind_a_head(queue, prepared, (head, cold), n)?;
                head *= 2;
                if in_time || u128::from(head) > LONGEST_HEAD.as_nanos() {
                    ns.extend(found);
                    queued &= in_time;
                    break;
                }
            }
        }
        Ok((ns, queued))
    }

    /// One chunk, and whether all of it was queued before the head ended.
    fn behind_a_head(
        &mut self,
        queue: Queue,
        prepared: Prepared,
        (head, cold): (u64, bool),
        n: usize,
    ) -> Result<(Vec<u64>, bool), DeviceError> {
        let first = self.head(queue, head)?;
        for _ in 0..WARM_UP + n {
            if cold {
                self.gpu.sweep_cache(queue)?;
            }
            self.gpu.submit_on(queue, &Launch::of(prepared))?;
        }
        let mut ended: Vec<Completion> = Vec::new();
        self.gpu.poll(&mut ended)?;
        let in_time = ended.iter().all(|c| c.ticket != first);
        self.gpu.wait(&mut ended)?;
        ended.sort_by_key(|c| c.ticket);
        let counted = ended.iter().skip(1 + WARM_UP).map(|c| c.duration.0.max(1));
        Ok((counted.collect(), in_time))
    }
}
