//! A policy without any sense: it lays out what it was given, and does at random whatever a policy
//! may do, also what the GPU will refuse.

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::CuMask;
use cotenant_sim::action::{Action, Closes, Event, Preemption, Resize, Via};
use cotenant_sim::layout::{Discipline, Layout, Role, WorkerSpec};
use cotenant_sim::policy::{Depth, LayoutError, Policy};
use cotenant_sim::scenario::Setup;
use cotenant_sim::view::{Status, View};
use cotenant_traces::Rng;

use super::{Shape, laid_out};

/// Workers in all, gone ones included.
const MOST: usize = 14;
/// Timers at once.
const TIMERS: u32 = 4;
/// The timer that keeps it awake.
const AWAKE: u64 = u64::MAX;

/// How deep the senseless policy looks, and whether it starts batches.
pub(crate) const DEPTHS: [(Depth, bool); 5] = [
    (Depth::Layout, false),
    (Depth::Request, false),
    (Depth::Batch, true),
    (Depth::Kernel, false),
    (Depth::Kernel, true),
];

pub(crate) struct Script {
    shape: Shape,
    depth: Depth,
    forms: bool,
    rng: Rng,
    layout: Option<Layout>,
    /// By worker: it is about to launch its kernel.
    about_to: Vec<bool>,
    timers: u32,
    /// What it did, by kind of action.
    pub(crate) done: [u64; 16],
}

impl Script {
    pub(crate) fn new(shape: &Shape, depth: Depth, forms: bool) -> Self {
        Self {
            shape: shape.clone(),
            depth,
            forms,
            rng: Rng::for_names(shape.seed, &["script"]),
            layout: None,
            about_to: vec![],
            timers: 0,
            done: [0; 16],
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn pick(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    fn lane_cus(&self, spec: &WorkerSpec) -> u32 {
        let layout = self.layout.as_ref().expect("it is laid out");
        layout.pools[spec.pool as usize].lanes[spec.lane as usize]
    }

    fn priority(&mut self) -> i8 {
        if self.shape.flags.priorities { self.rng.below(3) as i8 } else { 0 }
    }

    fn mask(&mut self, spec: &WorkerSpec) -> Option<CuMask> {
        if !self.shape.flags.masks || self.one_in(4) {
            return None;
        }
        let cus = self.lane_cus(spec);
        let mut mask: CuMask = (0..cus).filter(|_| self.rng.below(2) == 0).collect();
        mask.insert(self.rng.below(u64::from(cus)) as u32);
        Some(mask)
    }

    fn via(&mut self) -> Via {
        use Via::{Barrier, Hop, Intercept, InterceptMaskTpc, Persistent};
        use Via::{MaskFirmware, MaskIoctl, MaskTpc, Stream};
        if self.one_in(3) {
            return Stream;
        }
        let placed = [Hop, Barrier, MaskIoctl, MaskTpc, MaskFirmware];
        let all = [&placed[..], &[Intercept, InterceptMaskTpc, Persistent]].concat();
        all[self.pick(all.len())]
    }

    fn launch(&mut self, worker: u32, view: &View<'_>) -> Action {
        self.about_to[worker as usize] = true;
        let spec = view.workers[worker as usize].spec;
        let (mask, priority, via) = (self.mask(&spec), self.priority(), self.via());
        if self.one_in(6) {
            let blocks = 1 + self.rng.below(8);
            return Action::Slice { worker, blocks, mask, priority, via };
        }
        Action::Launch { worker, mask, priority, via }
    }

    /// Takes some kernel off the CUs, if one is there.
    fn preempt(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let worker = self.pick(view.workers.len()) as u32;
        use Preemption::{Blocks, Reset, Save, Unstarted};
        let how = [Reset, Blocks, Save, Unstarted][self.pick(4)];
        if view.workers[worker as usize].status == Status::Launched {
            act.push(Action::Preempt { worker, how });
        }
    }

    /// Kernels at the head of their streams that nobody has spoken for.
    fn held(&self, view: &View<'_>) -> Vec<u32> {
        let mine = |w: usize| view.workers[w].status == Status::Held && !self.about_to[w];
        (0..view.workers.len()).filter(|&w| mine(w)).map(|w| w as u32).collect()
    }

    /// Launches some of what is held, some of it merged.
    fn let_go(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let mut held = self.held(view);
        while let Some(first) = held.pop() {
            if self.one_in(3) {
                continue;
            }
            let home = |w: u32| {
                let spec = view.workers[w as usize].spec;
                (spec.pool, spec.lane)
            };
            let whole = |w: u32| view.workers[w as usize].left == 1.0;
            let (here, elsewhere): (Vec<u32>, Vec<u32>) =
                held.iter().partition(|&&w| home(w) == home(first) && whole(w) && whole(first));
            if here.is_empty() || self.one_in(40) {
                act.push(self.launch(first, view));
                continue;
            }
            held = elsewhere;
            let workers: Vec<u32> = std::iter::once(first).chain(here).collect();
            workers.iter().for_each(|&w| self.about_to[w as usize] = true);
            act.push(Action::Merge { workers, priority: self.priority() });
        }
    }

    /// Takes something off a queue. It comes first: what is queued and who is idle is true then.
    fn serve(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let t = self.pick(view.tenants.len());
        if view.tenants[t].queued == 0 {
            return;
        }
        let idle: Vec<u32> = view.idle(t as u32).collect();
        let mut queued: Vec<_> = view.queue(t as u32).map(|q| q.id).collect();
        if self.one_in(12) {
            let request = queued[self.pick(queued.len())];
            act.push(Action::Drop { request, reason: "a whim" });
        } else if self.forms && !idle.is_empty() {
            let worker = idle[self.pick(idle.len())];
            if self.one_in(2) {
                // Any of them, in any order.
                let most = 1 + self.pick(queued.len().min(4));
                let chosen = |_| {
                    let at = self.pick(queued.len());
                    queued.swap_remove(at)
                };
                act.push(Action::Form { worker, requests: (0..most).map(chosen).collect() });
                return;
            }
            act.push(Action::Dispatch { worker, items: self.rng.below(5) as u32 });
        }
    }

    fn spec(&mut self, view: &View<'_>) -> WorkerSpec {
        let layout = self.layout.as_ref().expect("it is laid out");
        let pools: Vec<usize> = layout.pools.iter().map(|p| p.lanes.len()).collect();
        let pool = self.pick(pools.len());
        let mut spec = WorkerSpec {
            tenant: self.pick(view.tenants.len()) as u32,
            pool: pool as u32,
            lane: self.pick(pools[pool]) as u32,
            cap: 1,
            priority: if self.shape.flags.priorities { self.rng.below(2) as i8 } else { 0 },
            overhead: Bytes(self.rng.below(20)),
            role: Role::Whole,
        };
        spec.cap = 1 + self.rng.below(u64::from(self.lane_cus(&spec))) as u32;
        spec
    }

    /// Workers come, change and go.
    fn disturb(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let worker = self.pick(view.workers.len()) as u32;
        match self.rng.below(6) {
            5 => self.repartition(view, act),
            0 if view.workers.len() < MOST => {
                let spec = self.spec(view);
                act.push(Action::Start { spec });
            }
            1 if self.one_in(2) => act.push(Action::Retire { worker }),
            2 => {
                let tenant = self.pick(view.tenants.len()) as u32;
                let timeout = Nanos([0, 500, 5_000][self.pick(3)]);
                act.push(Action::SetBatch { tenant, max: self.rng.below(7) as u32, timeout });
            }
            _ => {
                let spec = view.workers[worker as usize].spec;
                let cap = 1 + self.rng.below(u64::from(self.lane_cus(&spec))) as u32;
                let shared_weights = self.one_in(2);
                let how = if self.one_in(2) {
                    Resize::Restart
                } else {
                    Resize::Shadow { shared_weights }
                };
                act.push(Action::Resize { worker, cap, how });
            }
        }
    }

    /// The lanes of a pool get each other's sizes, or one gives another some of its CUs.
    fn repartition(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let pool = self.pick(view.pools.len());
        let mut lanes = view.pools[pool].lanes.clone();
        if view.pools[pool].discipline != Discipline::Concurrent || lanes.len() < 2 {
            return;
        }
        let (a, b) = (self.pick(lanes.len()), self.pick(lanes.len()));
        if self.one_in(2) {
            lanes.swap(a, b);
        } else if a != b {
            let given = self.rng.below(u64::from(lanes[a])) as u32;
            (lanes[a], lanes[b]) = (lanes[a] - given, lanes[b] + given);
        }
        let via = self.via();
        act.push(Action::Repartition { pool: pool as u32, lanes, via });
    }

    fn arm(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        if self.timers < TIMERS {
            self.timers += 1;
            let at = Nanos((view.now.0 + self.rng.below(3_000)).saturating_sub(200));
            act.push(Action::Timer { at, token: self.rng.below(100) });
        }
    }

    fn count(&mut self, act: &[Action]) {
        for action in act {
            let kind = match action {
                Action::Dispatch { .. } => 0,
                Action::SetBatch { .. } => 1,
                Action::Launch { .. } => 2,
                Action::Merge { .. } => 3,
                Action::Start { .. } => 4,
                Action::Resize { .. } => 5,
                Action::Retire { .. } => 6,
                Action::Timer { .. } => 7,
                Action::Drop { .. } => 8,
                Action::Form { .. } => 9,
                Action::Slice { .. } => 10,
                Action::Preempt { .. } => 11,
                Action::OpenWindow { .. } => 12,
                Action::Follow { .. } => 13,
                Action::SetClock { .. } => 14,
                Action::Repartition { .. } => 15,
            };
            self.done[kind] += 1;
        }
    }
}

impl Policy for Script {
    fn depth(&self) -> Depth {
        self.depth
    }

    /// Every third tenant's streams hold several.
    fn outstanding(&self, tenant: u32) -> u32 {
        let one = (u64::from(tenant) + self.shape.seed).is_multiple_of(3);
        let several = self.depth == Depth::Kernel && one;
        if several { 2 + (self.shape.seed / 2 % 3) as u32 } else { 1 }
    }

    fn forms_batches(&self) -> bool {
        self.forms
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        let layout = laid_out(&self.shape, setup);
        self.layout = Some(layout.clone());
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        if let Some(layout) = &mut self.layout {
            layout.pools.clone_from_slice(view.pools);
        }
        self.about_to.resize(view.workers.len(), false);
        if let Event::KernelReady { worker }
        | Event::SliceDone { worker }
        | Event::KernelPreempted { worker } = event
        {
            self.about_to[worker as usize] = false;
        }
        if self.forms || self.one_in(6) {
            self.serve(view, act);
        }
        match event {
            // Held until some other event.
            Event::KernelReady { .. } | Event::SliceDone { .. } | Event::KernelPreempted { .. }
                if self.one_in(3) => {}
            Event::KernelReady { worker }
            | Event::SliceDone { worker }
            | Event::KernelPreempted { worker } => act.push(self.launch(worker, view)),
            Event::KernelNext { worker } if !self.one_in(3) => {
                let via = self.via();
                act.push(Action::Follow { worker, via });
            }
            Event::Start => act.push(Action::Timer { at: Nanos(800), token: AWAKE }),
            Event::Timer { token: AWAKE } => {
                act.push(Action::Timer { at: view.now + Nanos(800), token: AWAKE });
                self.let_go(view, act);
            }
            Event::Timer { .. } => self.timers -= 1,
            Event::KernelDone { .. } if self.one_in(4) => self.let_go(view, act),
            _ => {}
        }
        if self.one_in(15) {
            self.disturb(view, act);
        }
        if self.depth == Depth::Kernel && self.one_in(8) {
            self.preempt(view, act);
        }
        if self.one_in(10) {
            self.arm(view, act);
        }
        if self.one_in(25) {
            let boost = view.setup.device.clock.boost_mhz as u32;
            let mhz = boost / 4 + self.rng.below(u64::from(boost)) as u32;
            act.push(Action::SetClock { mhz });
        }
        if self.one_in(12) {
            let tenant = self.pick(view.tenants.len()) as u32;
            let length = Nanos(self.rng.below(20_000));
            let closes = if self.one_in(2) { Closes::OnTime } else { Closes::WithBatch };
            act.push(Action::OpenWindow { tenant, length, closes });
        }
        self.count(act);
    }
}
