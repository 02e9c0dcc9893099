//! Workers that come, change and go, and the memory they take.

use cotenant_profiles::Bytes;
use cotenant_profiles::device::Mechanism;
use cotenant_sim::Refusal;
use cotenant_sim::action::{Event, Resize, Via};
use cotenant_sim::layout::WorkerSpec;
use cotenant_sim::observe::Happening;
use cotenant_sim::view::Status;

use super::{Change, Oracle, Timer, Worker};

impl Oracle<'_> {
    /// A model instance: weights, activations of its largest batch, context.
    pub(super) fn memory_of(&self, spec: &WorkerSpec) -> u64 {
        let model = &self.setup.tenants[spec.tenant as usize].model;
        let largest = model.programs.len() as u64;
        model.weights.0 + model.activations_per_item.0 * largest + spec.overhead.0
    }

    pub(super) fn check_memory(&self, spec: &WorkerSpec, more: u64) -> Result<(), Refusal> {
        let here = self.workers.iter().filter(|w| w.spec.pool == spec.pool);
        let shadows = |w: &Worker| w.change.as_ref().and_then(|c| c.shadow).unwrap_or(0);
        let need = here.map(|w| w.memory + shadows(w)).sum::<u64>() + more;
        let have = self.pools[spec.pool as usize].spec.memory;
        if need <= have.0 {
            return Ok(());
        }
        let who = format!("a worker of tenant `{}`", self.setup.tenants[spec.tenant as usize].name);
        Err(Refusal::OutOfMemory { who, need: Bytes(need), have })
    }

    /// Process and model; free and at once where mechanisms cost nothing.
    fn start_ns(&self, spec: &WorkerSpec) -> u64 {
        let m = self.setup.costs.process_start;
        if m == Mechanism::FREE {
            return 0;
        }
        m.cost.0 + m.delay.0 + self.setup.tenants[spec.tenant as usize].model.load.0
    }

    pub(super) fn start(&mut self, spec: WorkerSpec) {
        let (w, need) = (self.workers.len(), self.memory_of(&spec));
        if self.check_memory(&spec, need).is_ok() {
            self.workers.push(Worker::new(spec, Status::Starting, need));
            self.new_stream(w);
            self.set(self.now + self.start_ns(&spec), Timer::Up(w));
        } else {
            self.workers.push(Worker::new(spec, Status::Retired, 0));
            self.tell(Event::WorkerDown { worker: w as u32 });
        }
    }

    pub(super) fn resize(&mut self, w: usize, cap: u32, how: Resize) {
        let worker = &self.workers[w];
        let absent = matches!(worker.status, Status::Starting | Status::Retired);
        if worker.retiring || absent || worker.change.is_some() {
            return;
        }
        let spec = worker.spec;
        let mut change = Change { cap, shadow: None, ready: true, cut: false, down: None };
        if let Resize::Shadow { shared_weights } = how {
            let weights = self.setup.tenants[spec.tenant as usize].model.weights.0;
            let need = self.memory_of(&spec) - if shared_weights { weights } else { 0 };
            if self.check_memory(&spec, need).is_err() {
                return;
            }
            (change.shadow, change.ready) = (Some(need), false);
            let delay = self.setup.costs.shadow_switch.delay.0;
            self.set(self.now + self.start_ns(&spec) + delay, Timer::ShadowLoaded(w));
        }
        self.workers[w].change = Some(change);
        self.take_down_between_batches(w);
    }

    pub(super) fn shadow_loaded(&mut self, w: usize) {
        if let Some(change) = &mut self.workers[w].change {
            change.ready = true;
            self.take_down_between_batches(w);
        }
    }

    /// Begins a change that nothing stands in the way of. Whether it did.
    fn take_down_between_batches(&mut self, w: usize) -> bool {
        let worker = &mut self.workers[w];
        let Some(change) = worker.change.as_mut().filter(|c| c.ready) else { return false };
        if worker.status != Status::Idle {
            return false;
        }
        change.down = Some(self.now);
        worker.status = Status::Starting;
        let (spec, restart, cut) = (worker.spec, change.shadow.is_none(), change.cut);
        self.sources[spec.tenant as usize].idle.retain(|&i| i != w);
        if cut {
            self.out.log.push((self.now, Happening::WorkerDown { worker: w as u32 }));
            self.begin_cut(spec.pool as usize);
            return true;
        }
        let ns = if restart { self.start_ns(&spec) } else { self.setup.costs.shadow_switch.cost.0 };
        self.out.log.push((self.now, Happening::WorkerDown { worker: w as u32 }));
        self.set(self.now + ns, Timer::Up(w));
        self.new_stream(w);
        true
    }

    /// Its batch is over: it goes, changes, or waits for the next one.
    pub(super) fn idle_again(&mut self, w: usize) {
        self.workers[w].status = Status::Idle;
        if self.workers[w].retiring {
            self.gone(w);
        } else if !self.take_down_between_batches(w) {
            let t = self.workers[w].spec.tenant as usize;
            self.sources[t].idle.push(w);
        }
    }

    pub(super) fn retire(&mut self, w: usize) {
        self.workers[w].retiring = true;
        if self.workers[w].status == Status::Idle {
            self.gone(w);
        }
    }

    /// Its memory, and its shadow's, is free.
    fn gone(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.status = Status::Retired;
        worker.memory = 0;
        worker.change = None;
        let (t, worker) = (worker.spec.tenant as usize, w as u32);
        self.sources[t].idle.retain(|&i| i != w);
        self.out.log.push((self.now, Happening::WorkerDown { worker }));
        let p = self.workers[w].spec.pool as usize;
        self.tell(Event::WorkerDown { worker });
        self.begin_cut(p);
    }

    /// Workers of a pool whose lane is to have another size.
    fn moved(&self, p: usize) -> Vec<usize> {
        let Some((lanes, ..)) = &self.pools[p].cut else { return vec![] };
        let here = |w: &Worker| w.spec.pool as usize == p && w.status != Status::Retired;
        let moves = |l: u32| lanes[l as usize] != self.pools[p].spec.lanes[l as usize];
        let workers = self.workers.iter().enumerate();
        workers.filter(|(_, w)| here(w) && moves(w.spec.lane)).map(|(i, _)| i).collect()
    }

    pub(super) fn repartition(&mut self, p: usize, lanes: Vec<u32>, via: Via) {
        if self.pools[p].cut.is_some() || self.pools[p].spec.lanes == lanes {
            return;
        }
        self.pools[p].cut = Some((lanes, via, false));
        let moved = self.moved(p);
        let away = |w: &Worker| w.change.is_some() || w.status == Status::Starting;
        if moved.iter().any(|&w| away(&self.workers[w])) {
            self.pools[p].cut = None;
            return;
        }
        for &w in &moved {
            let cap = self.workers[w].spec.cap;
            let change = Change { cap, shadow: None, ready: true, cut: true, down: None };
            self.workers[w].change = Some(change);
            self.take_down_between_batches(w);
        }
        self.begin_cut(p);
    }

    /// The mechanism is at work as soon as nobody else is.
    fn begin_cut(&mut self, p: usize) {
        let moved = self.moved(p);
        let states = || moved.iter().map(|&w| &self.workers[w]);
        let Some((_, via, false)) = self.pools[p].cut else { return };
        if states().any(|w| w.status != Status::Starting) {
            return;
        }
        let standing = states().filter(|w| w.change.is_some()).count() as u64;
        let m = via.mechanism(&self.setup.costs);
        self.set(self.now + m.cost.0 * standing + m.delay.0, Timer::Cut(p));
        self.pools[p].cut.as_mut().unwrap().2 = true;
    }

    pub(super) fn cut(&mut self, p: usize) {
        let moved = self.moved(p);
        let (lanes, ..) = self.pools[p].cut.take().unwrap();
        let before = std::mem::replace(&mut self.pools[p].spec.lanes, lanes.clone());
        for l in (0..lanes.len()).filter(|&l| before[l] != lanes[l]) {
            self.pools[p].masked[l] = false;
        }
        let mut standing = vec![];
        for w in moved {
            let worker = &mut self.workers[w];
            let l = worker.spec.lane as usize;
            let whole = worker.spec.cap >= before[l];
            worker.spec.cap = if whole { lanes[l] } else { worker.spec.cap.min(lanes[l]) };
            if let Some(change) = &mut worker.change {
                change.cap = worker.spec.cap;
                standing.push(w);
            }
            self.new_stream(w);
        }
        self.tell(Event::Repartitioned { pool: p as u32 });
        for w in standing {
            if self.workers[w].change.as_ref().is_some_and(|c| c.cut) {
                self.up(w);
            }
        }
    }

    /// A worker has started, or a changed one is back.
    pub(super) fn up(&mut self, w: usize) {
        let t = self.workers[w].spec.tenant as usize;
        let worker = &self.workers[w];
        if !worker.retiring
            && worker.change.is_none()
            && self.moved(worker.spec.pool as usize).contains(&w)
        {
            let (cap, down) = (worker.spec.cap, Some(self.now));
            self.workers[w].change =
                Some(Change { cap, shadow: None, ready: true, cut: true, down });
            return;
        }
        self.workers[w].status = Status::Idle;
        if let Some(change) = self.workers[w].change.take() {
            self.workers[w].spec.cap = change.cap;
            self.out.counts[t].downtime_ns += self.now - self.in_window(change.down);
        }
        if self.workers[w].retiring {
            self.gone(w);
            return;
        }
        self.out.counts[t].reconfigurations += 1;
        self.sources[t].idle.push(w);
        let worker = w as u32;
        self.out.log.push((self.now, Happening::WorkerUp { worker }));
        self.tell(Event::WorkerUp { worker });
        self.form(t, false);
    }

    fn in_window(&self, since: Option<u64>) -> u64 {
        let since = since.expect("a change takes its worker down");
        if self.now >= self.warmup { since.max(self.warmup) } else { since }
    }

    /// Who stands still for a change when the run ends has done so until then.
    pub(super) fn count_down_workers(&mut self) {
        for w in 0..self.workers.len() {
            let down = self.workers[w].change.as_ref().and_then(|c| c.down);
            if down.is_some() {
                let t = self.workers[w].spec.tenant as usize;
                self.out.counts[t].downtime_ns += self.now - self.in_window(down);
            }
        }
    }
}
