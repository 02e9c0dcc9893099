//! What stands below the host: a GPU, and the clock by which it runs.

use cotenant_profiles::Bytes;

use super::{Alarm, Step};
use crate::action::Preemption;
use crate::counter::Count;
use crate::layout::{Layout, WorkerSpec};
use crate::mask::CuMask;
use crate::observe::Happening;
use crate::pool::{Totals, Used};
use crate::view::Gpu;

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the GPU.
    In,
    /// From the GPU.
    Out,
}

/// What the host waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// An alarm that the host set, with its index. [`World::next_arrival`] answers an
    /// [`Alarm::Arrival`] before anything else is done.
    Alarm(Alarm, u32),
    /// What a worker was given has ended: a copy, a kernel, a pass over its model.
    Ended(u32),
    /// A worker's kernel has left the CUs before its end, with this share of the kernel to be done by
    /// its last launch left. What was launched behind it has been taken back before.
    Preempted(u32, f64),
    /// So many of a worker's launches have been taken back, which were the last ones behind another one
    /// that stays for now.
    Recalled(u32, u32),
    /// A worker has gone without being asked to, for the reason given in a word.
    Lost(u32, &'static str),
    /// A worker's shadow has.
    ShadowLost(u32),
}

/// [`Pass::program`] of a worker whose launches [`World::load`] has brought.
pub const LOADED: u32 = u32::MAX;

/// A pass of a batch over its model: inputs in, all its kernels, results out, with nobody asked in
/// between. Its end is one [`Signal::Ended`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// Whose.
    pub worker: u32,
    /// Its program, among those of the worker's model, or [`LOADED`].
    pub program: u32,
    /// When the host began to issue its launches.
    pub base: u64,
    /// The host issues the launches ahead of the GPU, at the program's times. Otherwise each one is
    /// issued by [`World::issue`].
    pub ahead: bool,
    /// Copied in before.
    pub input: Bytes,
    /// Copied out behind.
    pub output: Bytes,
    /// The first pass of its batch.
    pub first: bool,
    /// The last one.
    pub last: bool,
    /// Multiplies the kernels' durations.
    pub work: f64,
    /// How many requests of its tenant came before the batch's first one.
    pub ordinal: u64,
}

/// How much of a kernel a launch does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Share of the kernel's work, above 0.
    pub share: f64,
    /// The kernel ends with it.
    pub ends: bool,
    /// It goes on inside of its blocks, whose state was saved; otherwise blocks begin anew.
    pub saved: bool,
    /// Time on the CUs besides its work: to restore that state, or what its form costs.
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
    /// Whose.
    pub worker: u32,
    /// An index into the setup's kernels.
    pub kernel: u32,
    /// Its position in the batch's program.
    pub position: u32,
    /// How much of it.
    pub part: Part,
    /// CUs it may use; `None`: its lane, up to the worker's cap.
    pub mask: Option<&'a CuMask>,
    /// Larger goes first where blocks compete.
    pub priority: i8,
    /// When the host has issued it and its mechanism has taken effect: it starts no earlier.
    pub issued: u64,
    /// Multiplies its duration.
    pub work: f64,
    /// How many requests of its tenant came before the batch's first one.
    pub ordinal: u64,
    /// Others of the worker were launched before it and have not ended: it starts behind them.
    pub behind: bool,
}

/// A GPU and a clock. The host decides what is done, a world does it: in virtual time on the device
/// model, or in real time on a device.
///
/// A call never fails. A world that cannot go on does nothing from then on, and ends the run at the
/// next [`World::next`]; whoever made it asks it why.
pub trait World {
    /// Now, in ns since the start of the run.
    fn now(&self) -> u64;

    /// The instant of the signal at hand: now in virtual time, where nothing is late.
    fn due(&self) -> u64;

    /// The run begins: time starts.
    fn start(&mut self) {}

    /// Lets time pass until there is something for the host; `None`: the run is over, and
    /// [`World::now`] is its end.
    ///
    /// At equal instants what the GPU did comes before the host's alarms, and alarms come in the order
    /// in which they were set.
    fn next(&mut self) -> Option<Signal>;

    /// Sets an alarm.
    fn arm(&mut self, at: u64, alarm: Alarm, index: u32);

    /// When the tenant whose [`Alarm::Arrival`] is at hand sees its next arrival, if ever.
    fn next_arrival(&mut self, at: Option<u64>, tenant: u32);

    /// How much of `ns` that the host or a mechanism is said to cost has to be waited for. Beside real
    /// hardware nothing: there it takes the time it takes.
    fn charged(&self, ns: u64) -> u64;

    /// Workers to come have their places in this layout.
    fn lay_out(&mut self, layout: &Layout);

    /// The lanes of a pool have other sizes from now on. Those of lanes that change have nothing to do,
    /// and come back ([`World::open`]) behind it.
    fn repartition(&mut self, pool: u32, lanes: &[u32]);

    /// A worker comes, or comes back with another share. Numbers count up from 0; those that found no
    /// memory are left out.
    fn open(&mut self, worker: u32, spec: &WorkerSpec);

    /// Another self of a worker begins to load beside it, with `memory` of its own. The next
    /// [`World::open`] with the same place puts it in the worker's.
    fn open_shadow(&mut self, worker: u32, spec: &WorkerSpec, memory: Bytes);

    /// A worker that has nothing to do goes.
    fn close(&mut self, worker: u32);

    /// The launches of a worker's next pass, in the place of its model's programs.
    fn load(&mut self, worker: u32, steps: &[Step]);

    /// Gives a worker a pass over its model.
    fn run(&mut self, pass: &Pass);

    /// The host has issued the next launch of a worker's pass, which is at `position` of its program.
    fn issue(&mut self, worker: u32, position: u32);

    /// Gives a worker a copy that its host has issued at that instant; whether its end is to be waited
    /// for.
    fn copy(&mut self, worker: u32, direction: Direction, bytes: Bytes, issued: u64) -> bool;

    /// Gives a worker a kernel.
    fn launch(&mut self, launch: &Launch<'_>);

    /// Gives a worker several kernels as one; `launch.kernel` is the first of them.
    fn merge(&mut self, launch: &Launch<'_>, kernels: &[u32]);

    /// Takes the kernel that a worker was given off the CUs, from `at` on. One
    /// [`Signal::Preempted`] follows, or the usual [`Signal::Ended`] if that comes first. Of several
    /// kernels those behind the first are taken back: with it, or as [`Signal::Recalled`] says.
    fn preempt(&mut self, worker: u32, how: Preemption, at: u64);

    /// The last kernel that was to be preempted has ended by itself.
    fn spare(&mut self, worker: u32) {
        let _ = worker;
    }

    /// A worker whose kernels the policy launches begins or ends a batch: contexts that run to
    /// completion keep their turn in between.
    fn batch(&mut self, worker: u32, began: bool);

    /// From now on the board's clock is at most that.
    fn set_clock(&mut self, mhz: u32);

    /// CUs on which blocks of a worker's kernel lie at this instant; `None`: the GPU does not tell.
    fn held(&self, worker: u32) -> Option<u32> {
        let _ = worker;
        None
    }

    /// The account is about to be read: a world that runs ahead where nobody interferes brings it up to
    /// now.
    fn catch_up(&mut self) {}

    /// The counted window opens.
    fn open_window(&mut self);

    /// What the GPU did in the window; `None`: it does not tell.
    fn used(&self) -> Option<Totals>;

    /// What each tenant used of it in the window, by number; empty: it does not tell.
    fn used_by_tenant(&self) -> Vec<Used> {
        vec![]
    }

    /// Events so far.
    fn events(&self) -> u64;

    /// A digest of the event stream; 0 where runs differ by themselves.
    fn digest(&self) -> u64;

    /// Where it deviated from what was asked of it, with numbers.
    fn counters(&self) -> Vec<Count> {
        vec![]
    }

    /// Tells the observer, if there is one.
    fn observe(&mut self, what: Happening);
}

impl<W: World> Gpu for W {
    fn held(&self, worker: u32) -> Option<u32> {
        World::held(self, worker)
    }
}
