//! The layer below the host: a GPU and the clock that it runs by.

use cotenant_profiles::Bytes;

use super::{Alarm, Step};
use crate::action::Preemption;
use crate::counter::Count;
use crate::layout::{Layout, WorkerSpec};
use crate::mask::CuMask;
use crate::observe::Happening;
use crate::pool::{Totals, Used};
use crate::view::Gpu;

/// The direction of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the GPU.
    In,
    /// From the GPU.
    Out,
}

/// An event that a world reports to the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// An alarm that the host set, with its index. [`World::next_arrival`] answers an
    /// [`Alarm::Arrival`] before anything else is done.
    Alarm(Alarm, u32),
    /// A worker's copy, kernel, or pass over its model has ended.
    Ended(u32),
    /// A worker's kernel has left the CUs before its end. The number is the share of the kernel that its
    /// last launch was to perform and did not. The launches behind it have already been recalled.
    Preempted(u32, f64),
    /// This many of a worker's launches have been recalled: the last ones, behind a launch that stays for
    /// now.
    Recalled(u32, u32),
    /// A worker was lost, with the cause in one word.
    Lost(u32, &'static str),
    /// A worker's shadow was lost.
    ShadowLost(u32),
}

/// The [`Pass::program`] of a worker that runs launches given by [`World::load`].
pub const LOADED: u32 = u32::MAX;

/// One pass of a batch over its model: copy in, all kernels, copy out, without asking the policy in
/// between. Its end is one [`Signal::Ended`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// The worker.
    pub worker: u32,
    /// Its program, as an index into those of the worker's model, or [`LOADED`].
    pub program: u32,
    /// When the host began to issue its launches.
    pub base: u64,
    /// The host issues launches ahead of the GPU, at the program's times. Otherwise each launch is issued
    /// by [`World::issue`].
    pub ahead: bool,
    /// Bytes to copy in before the kernels.
    pub input: Bytes,
    /// Bytes to copy out after the kernels.
    pub output: Bytes,
    /// The first pass of its batch.
    pub first: bool,
    /// The last pass of its batch.
    pub last: bool,
    /// Factor on the kernels' durations.
    pub work: f64,
    /// Number of the tenant's requests that arrived before the first one of the batch.
    pub ordinal: u64,
}

/// The part of a kernel's work that one launch performs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Share of the kernel's work, above 0.
    pub share: f64,
    /// The kernel ends with this launch.
    pub ends: bool,
    /// It resumes inside its blocks, whose state was saved; otherwise blocks start over.
    pub saved: bool,
    /// Time on the CUs in addition to the work, ns: to restore saved state, or the overhead of the kernel's
    /// form.
    pub extra: u64,
}

impl Default for Part {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl Part {
    /// The whole kernel.
    pub const WHOLE: Self = Self { share: 1.0, ends: true, saved: false, extra: 0 };
}

/// A kernel that the policy launches. Its end is one [`Signal::Ended`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch<'a> {
    /// The worker.
    pub worker: u32,
    /// An index into the setup's kernels.
    pub kernel: u32,
    /// Its position in the batch's program.
    pub position: u32,
    /// The part of the kernel to run.
    pub part: Part,
    /// CUs it may use; `None`: its lane, up to the worker's cap.
    pub mask: Option<&'a CuMask>,
    /// Where blocks compete, the larger priority goes first.
    pub priority: i8,
    /// When the host has issued it and its mechanism has taken effect. It starts no earlier.
    pub issued: u64,
    /// Factor on its duration.
    pub work: f64,
    /// Number of the tenant's requests that arrived before the first one of the batch.
    pub ordinal: u64,
    /// Earlier launches of the worker have not ended: it starts after them.
    pub behind: bool,
}

/// A GPU and a clock. The host decides what to do, and a world does it: in virtual time on the device
/// model, or in real time on a device.
///
/// Calls never fail. A world that cannot continue does nothing from then on and ends the run at the next
/// [`World::next`]. The code that created it can ask it why.
pub trait World {
    /// The current time, in ns since the start of the run.
    fn now(&self) -> u64;

    /// The instant at which the current signal was due. In virtual time, where nothing is late, this is
    /// now.
    fn due(&self) -> u64;

    /// Starts the clock: the run begins.
    fn start(&mut self) {}

    /// Lets time pass until the next event for the host. `None`: the run is over, and [`World::now`] is its
    /// end.
    ///
    /// At equal instants, events of the GPU come before the host's alarms, and alarms come in the order in
    /// which they were set.
    fn next(&mut self) -> Option<Signal>;

    /// Sets an alarm.
    fn arm(&mut self, at: u64, alarm: Alarm, index: u32);

    /// Sets the next arrival, if any, of the tenant whose [`Alarm::Arrival`] is being handled.
    fn next_arrival(&mut self, at: Option<u64>, tenant: u32);

    /// How much of a modelled cost of `ns`, of the host or a mechanism, has to be waited for. With real
    /// hardware none of it: there the work takes its actual time.
    fn charged(&self, ns: u64) -> u64;

    /// Sets the layout in which workers that are opened later have their places.
    fn lay_out(&mut self, layout: &Layout);

    /// Gives the lanes of a pool new sizes from now on. The workers in lanes that change have nothing to do
    /// at this time, and are reopened ([`World::open`]) afterwards.
    fn repartition(&mut self, pool: u32, lanes: &[u32]);

    /// Opens a worker, or reopens it with another share. Worker numbers count up from 0; the numbers of
    /// workers that found no memory are skipped.
    fn open(&mut self, worker: u32, spec: &WorkerSpec);

    /// Starts to load a shadow of a worker beside it, with `memory` of its own. The next [`World::open`]
    /// with the same place lets the shadow take over.
    fn open_shadow(&mut self, worker: u32, spec: &WorkerSpec, memory: Bytes);

    /// Closes a worker that has nothing to do.
    fn close(&mut self, worker: u32);

    /// Loads the launches of a worker's next pass, in place of its model's programs.
    fn load(&mut self, worker: u32, steps: &[Step]);

    /// Runs a pass over a worker's model.
    fn run(&mut self, pass: &Pass);

    /// The host has issued the next launch of a worker's pass, at `position` of its program.
    fn issue(&mut self, worker: u32, position: u32);

    /// Starts a copy of a worker that its host issued at `issued`. Returns whether the host has to wait for
    /// its end.
    fn copy(&mut self, worker: u32, direction: Direction, bytes: Bytes, issued: u64) -> bool;

    /// Launches a kernel.
    fn launch(&mut self, launch: &Launch<'_>);

    /// Launches several kernels as one; `launch.kernel` is the first of them.
    fn merge(&mut self, launch: &Launch<'_>, kernels: &[u32]);

    /// Preempts a worker's launched kernel, from `at` on. One [`Signal::Preempted`] follows, or the usual
    /// [`Signal::Ended`] if that comes first. Launches behind the first one are recalled: together with it,
    /// or as [`Signal::Recalled`] says.
    fn preempt(&mut self, worker: u32, how: Preemption, at: u64);

    /// The kernel that was last to be preempted has ended on its own.
    fn spare(&mut self, worker: u32) {
        let _ = worker;
    }

    /// A worker whose kernels the policy launches begins or ends a batch. A context that runs to completion
    /// keeps its turn in between.
    fn batch(&mut self, worker: u32, began: bool);

    /// Limits the board's clock to at most `mhz` from now on.
    fn set_clock(&mut self, mhz: u32);

    /// The number of CUs that hold blocks of a worker's kernel right now. `None`: the GPU does not report
    /// it.
    fn held(&self, worker: u32) -> Option<u32> {
        let _ = worker;
        None
    }

    /// Called before the totals are read. A world that simulates undisturbed stretches in one go brings its
    /// totals up to now.
    fn catch_up(&mut self) {}

    /// The counted window opens.
    fn open_window(&mut self);

    /// What the GPU did in the window. `None`: it does not report it.
    fn used(&self) -> Option<Totals>;

    /// What each tenant used of the GPU in the window, by tenant number. Empty: the GPU does not report it.
    fn used_by_tenant(&self) -> Vec<Used> {
        vec![]
    }

    /// The number of events so far.
    fn events(&self) -> u64;

    /// A digest of the event stream; 0 where runs are not reproducible.
    fn digest(&self) -> u64;

    /// Counters of where the world deviated from what was asked of it.
    fn counters(&self) -> Vec<Count> {
        vec![]
    }

    /// Reports to the observer, if there is one.
    fn observe(&mut self, what: Happening);
}

impl<W: World> Gpu for W {
    fn held(&self, worker: u32) -> Option<u32> {
        World::held(self, worker)
    }
}
