//! Kernels in stream order: issued by the host, handed to the GPU, ended.

use cotenant_profiles::Bytes;

use super::VirtualWorld;
use super::skip::Armed;
use crate::action::Preemption;
use crate::host::{Alarm, Direction, LOADED, Launch, Part, Pass, Signal};
use crate::layout::WorkerSpec;
use crate::mask::CuMask;
use crate::pool::{Job, Taken};

/// A worker's stream on the GPU: the fields that every kernel needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) tenant: u32,
    pub(super) pool: u32,
    pub(super) lane: u32,
    cap: u32,
    /// Its program, among those of the worker's model, or [`LOADED`].
    pub(super) program: u32,
    /// The number of streams opened before it, which selects its hardware queue.
    pub(super) number: u32,
    /// Index of the first launch of its program, and the number of its launches.
    pub(super) first: u32,
    pub(super) count: u32,
    /// The launch at the head of the stream, and its kernel.
    pub(super) position: u32,
    pub(super) kernel: u32,
    pub(super) priority: i8,
    /// The host issues launches ahead of the GPU, at the program's times.
    pub(super) ahead: bool,
    /// The policy launches its kernels.
    pub(super) asked: bool,
    /// The launch at the head does a part of its kernel, and not the last part.
    pub(super) slice: bool,
    /// Other launches wait behind it.
    followed: bool,
    /// When the host began to issue the pass.
    pub(super) base: u64,
    /// Multiplies kernel times.
    pub(super) work: f64,
    ordinal: u64,
}

/// The rest of a stream: fields needed only per pass, or by a launch on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parcel {
    /// Number of launches that a shared host has issued so far, and whether the head waits for its own
    /// issue.
    issued: u32,
    unissued: bool,
    /// Between the first and the last kernel of a batch.
    in_batch: bool,
    /// Whether the pass is the last of its batch, and the size of its results.
    last: bool,
    output: Bytes,
    /// The mask and priority of the launch on its way.
    mask: Option<CuMask>,
    priority: i8,
    /// The part of its kernel that the launch performs.
    part: Part,
    /// How and when the kernel is to be taken off the CUs.
    pub(super) preempt: Option<(Preemption, u64)>,
    /// When its alarm was set, and when the alarm for the preemption was.
    pub(super) armed: Armed,
    pub(super) ordered: Armed,
}

impl Parcel {
    /// When this alarm of the GPU was set.
    pub(super) fn armed_for(&self, alarm: Alarm) -> Armed {
        if alarm == Alarm::Preempt { self.ordered } else { self.armed }
    }
}

impl Stream {
    /// Maximum number of CUs that its kernels may use.
    pub(super) fn cap(&self) -> u32 {
        self.cap
    }

    /// Whether it runs launches that were put together for it.
    pub(super) fn loaded(&self) -> bool {
        self.program == LOADED
    }

    pub(super) fn new(spec: &WorkerSpec, number: u32) -> Self {
        let WorkerSpec { tenant, pool, lane, cap, priority, .. } = *spec;
        let (first, count, position, kernel) = (0, 0, 0, 0);
        let (ahead, asked, base, work, ordinal) = (true, false, 0, 1.0, 0);
        let (slice, followed) = (false, false);
        Self {
            tenant,
            pool,
            lane,
            cap,
            program: LOADED,
            number,
            first,
            count,
            position,
            kernel,
            priority,
            ahead,
            asked,
            slice,
            followed,
            base,
            work,
            ordinal,
        }
    }
}

/// Passes over a model, whose kernels are launched without asking the policy.
impl VirtualWorld<'_> {
    pub(super) fn begin_pass(&mut self, pass: &Pass) {
        let worker = pass.worker;
        if pass.program == LOADED {
            self.tracks.reload(worker);
        }
        let stream = &mut self.streams[worker as usize];
        (stream.first, stream.count) = match pass.program {
            LOADED => self.programs.loaded(worker),
            program => self.programs.span(stream.tenant, program),
        };
        stream.program = pass.program;
        (stream.position, stream.base, stream.ahead) = (0, pass.base, pass.ahead);
        (stream.asked, stream.slice) = (false, false);
        (stream.work, stream.ordinal) = (pass.work, pass.ordinal);
        let parcel = &mut self.parcels[worker as usize];
        (parcel.issued, parcel.unissued) = (0, false);
        (parcel.last, parcel.output) = (pass.last, pass.output);
        if !self.begin_copy(worker, Direction::In, pass.input) {
            self.copied_in(worker);
        }
    }

    pub(super) fn copied_in(&mut self, worker: u32) {
        if self.streams[worker as usize].ahead {
            self.open_batch(worker);
        }
        self.head(worker);
    }

    /// Marks the beginning of a batch: its first kernel is the next in the stream.
    fn open_batch(&mut self, worker: u32) {
        if !std::mem::replace(&mut self.parcels[worker as usize].in_batch, true) {
            self.mark_batch(worker, true);
        }
    }

    /// The next kernel is at the head of the stream: waits for the host to issue it, or submits it.
    #[inline(always)]
    fn head(&mut self, worker: u32) {
        let stream = &mut self.streams[worker as usize];
        if !stream.ahead {
            self.head_of_shared(worker);
            return;
        }
        let step = self.programs.step(stream.first, stream.position);
        stream.kernel = step.kernel;
        let issued = stream.base + step.issued_ns;
        if issued > self.now {
            self.arm_gpu(issued, Alarm::Issued, worker);
        } else {
            self.go(worker);
        }
    }

    #[inline(never)]
    fn head_of_shared(&mut self, worker: u32) {
        let stream = &mut self.streams[worker as usize];
        stream.kernel = self.programs.step(stream.first, stream.position).kernel;
        let parcel = &mut self.parcels[worker as usize];
        if parcel.issued > stream.position {
            self.open_batch(worker);
            self.go(worker);
        } else {
            parcel.unissued = true;
        }
    }

    /// A shared host has issued a launch.
    pub(super) fn issued(&mut self, worker: u32, position: u32) {
        let parcel = &mut self.parcels[worker as usize];
        parcel.issued = position + 1;
        if std::mem::take(&mut parcel.unissued) {
            self.open_batch(worker);
            self.go(worker);
        }
    }

    /// The kernel at the head wants CUs.
    #[inline(always)]
    pub(super) fn go(&mut self, worker: u32) {
        if self.begin_stretch(worker) {
            return;
        }
        let Stream { kernel, priority, .. } = self.streams[worker as usize];
        self.submit(worker, kernel, None, priority, &Part::WHOLE);
    }

    #[inline(always)] // the path of almost every event
    pub(super) fn kernel_ended(&mut self, worker: u32) -> Option<Signal> {
        let stream = &mut self.streams[worker as usize];
        if stream.asked {
            if stream.followed {
                self.next_launch(worker);
            }
            return Some(Signal::Ended(worker));
        }
        stream.position += 1;
        if stream.position < stream.count {
            self.head(worker);
            return None;
        }
        self.pass_ended(worker)
    }

    #[inline(never)]
    pub(super) fn pass_ended(&mut self, worker: u32) -> Option<Signal> {
        let parcel = &mut self.parcels[worker as usize];
        let output = parcel.output;
        if parcel.last {
            parcel.in_batch = false;
            self.mark_batch(worker, false);
        }
        let awaited = self.begin_copy(worker, Direction::Out, output);
        (!awaited).then_some(Signal::Ended(worker))
    }
}

/// The common part of both kinds of batches.
impl VirtualWorld<'_> {
    /// Reserves a copy engine. Returns whether the copy takes any time.
    pub(super) fn begin_copy(&mut self, worker: u32, direction: Direction, bytes: Bytes) -> bool {
        let pool = self.streams[worker as usize].pool as usize;
        let Some(done) = self.sites[pool].copy(self.now, &self.pcie, direction, bytes.0) else {
            return false;
        };
        let alarm = match direction {
            Direction::In => Alarm::CopiedIn,
            Direction::Out => Alarm::CopiedOut,
        };
        self.arm_gpu(done, alarm, worker);
        true
    }

    /// Marks the beginning or the end of a batch: contexts that run to completion keep their turn in
    /// between.
    pub(super) fn mark_batch(&mut self, worker: u32, began: bool) {
        let Stream { pool, lane, .. } = self.streams[worker as usize];
        if self.sites[pool as usize].pool.takes_turns() {
            self.touch(pool as usize);
        }
        self.sites[pool as usize].pool.batch(lane, began);
    }
}

/// Kernels that the policy launches.
impl VirtualWorld<'_> {
    /// Queues a launch behind those before it, until they have ended.
    pub(super) fn queue_up(&mut self, launch: &Launch<'_>) {
        let worker = launch.worker as usize;
        self.streams[worker].followed = true;
        // A launch that waits has no mask of its own.
        self.behind[worker].push_back(Launch { mask: None, behind: false, ..*launch });
    }

    /// Places the launch that waited behind one that has ended.
    #[inline(never)]
    fn next_launch(&mut self, worker: u32) {
        let waiting = &mut self.behind[worker as usize];
        let next = waiting.pop_front().expect("a launch waits");
        self.streams[worker as usize].followed = !waiting.is_empty();
        self.place(&next, next.kernel);
    }

    /// Hands a launch to the GPU, now or once the host and the mechanism have finished with it.
    #[inline]
    pub(super) fn place(&mut self, launch: &Launch<'_>, kernel: u32) {
        let Launch { worker, mask, priority, issued, ref part, .. } = *launch;
        let stream = &mut self.streams[worker as usize];
        (stream.work, stream.ordinal) = (launch.work, launch.ordinal);
        (stream.position, stream.slice) = (launch.position, !part.ends);
        if issued > self.now {
            stream.kernel = kernel;
            let parcel = &mut self.parcels[worker as usize];
            (parcel.mask, parcel.priority, parcel.part) = (mask.copied(), priority, *part);
            self.arm_gpu(issued, Alarm::Placed, worker);
        } else {
            self.submit(worker, kernel, mask, priority, part);
        }
    }

    pub(super) fn placed(&mut self, worker: u32) {
        let Parcel { mask, priority, part, .. } = self.parcels[worker as usize];
        let kernel = self.streams[worker as usize].kernel;
        self.submit(worker, kernel, mask.as_ref(), priority, &part);
    }

    /// The order to take a worker's kernel off the CUs takes effect, unless it has become void.
    pub(super) fn preempt_due(&mut self, worker: u32) -> Option<Signal> {
        let parcel = &mut self.parcels[worker as usize];
        let (how, _) = parcel.preempt.take_if(|(_, at)| *at == self.now)?;
        let stream = &mut self.streams[worker as usize];
        stream.followed = false;
        let waiting = &mut self.behind[worker as usize];
        let recalled = waiting.len() as u32;
        waiting.clear();
        let p = stream.pool as usize;
        self.touch(p);
        match self.sites[p].pool.preempt(self.now, worker, how, &self.code) {
            Taken::Now(left) => Some(Signal::Preempted(worker, left)),
            Taken::Later | Taken::Nothing => {
                (recalled > 0).then_some(Signal::Recalled(worker, recalled))
            }
        }
    }

    #[inline(always)]
    pub(super) fn submit(
        &mut self,
        worker: u32,
        kernel: u32,
        mask: Option<&CuMask>,
        priority: i8,
        part: &Part,
    ) {
        let stream = &self.streams[worker as usize];
        let Stream { tenant, lane, cap, pool, number, .. } = *stream;
        let mut scale = stream.work;
        if let Some(jitter) = &mut self.jitter {
            scale *= jitter.factor(tenant, stream.ordinal, stream.position);
        }
        let job = Job {
            owner: worker,
            tenant,
            kernel,
            lane,
            cap,
            priority,
            scale,
            extra_ns: part.extra,
            part: part.share,
            saved: part.saved,
        };
        self.touch(pool as usize);
        self.joins = pool;
        self.sites[pool as usize].submit(self.now, number, job, mask, &self.code);
    }

    /// Sets an alarm for something that the GPU does on its own.
    #[inline]
    fn arm_gpu(&mut self, at: u64, alarm: Alarm, worker: u32) {
        self.parcels[worker as usize].armed = self.armed_now();
        self.timers.arm_gpu(at, alarm, worker);
    }
}
