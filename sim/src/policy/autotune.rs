//! `autotune`: tuning jobs side by side on one GPU.
//!
//! Models an autotuner (AutoTVM and the like) whose operators are sharded over several tuning
//! servers that share a GPU. A batch is the tuning of one operator: a series of trials, each some
//! launches of one kernel in a row, as `cotenant-profiles`' tuning workload lays them out. Before a
//! trial, its code is built by one of `build_workers` host workers; after it, the server rests for
//! `cooldown`. One server measures one candidate at a time, so that they do not disturb each other;
//! several servers do disturb each other. With `sharing = "controlled"` each is confined to its
//! share (MPS percentages that add up to the GPU: neighbours meet in L2 and DRAM only), with
//! `"uncontrolled"` each may use the whole GPU and waits for what the others leave over.
//!
//! It reports how long the tuning took, how far measured times lie from the times alone at the same
//! share, and what choosing by them costs. Without `build` and `cooldown` (the defaults) it serves
//! any tenants, a few at a time. It gives up: the search itself (every candidate is tried in a
//! fixed order; a search that learns proposes the next ones from what it has measured).
//!
//! Source: Dhakal et al. (arXiv 2008.03602; SLICE-TUNE, Middleware 2022): controlled shares,
//! several servers, operators sharded over clients. `cooldown` and 13 launches per trial are
//! AutoTVM's defaults (apache/tvm, `LocalRunner`: number 4, repeat 3, cooldown_interval 0.1).
//!
//! Choices, where the abstracts are silent:
//! - An operator goes to the first server that is free, in the order of the tenants.
//! - A build worker that is free takes the next candidate of the server with the fewest built and
//!   not yet measured. `build` is the same for all; a knob, compiling a CUDA kernel takes seconds.
//! - Building goes on while the server measures; in AutoTVM the two alternate.

mod measure;

use cotenant_profiles::{Bytes, Nanos};

use super::{Depth, LayoutError, OptionError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::{Amount, Count};
use crate::layout::{Layout, WorkerSpec};
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options, words};
use measure::{Best, Learnt, Trial};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "autotune",
    summary: "tuning jobs side by side at controlled shares, sharded by operator",
    source: "Dhakal et al. (arXiv 2008.03602); SLICE-TUNE (Middleware 2022)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: Autotune::COUNTERS,
    build: |options| Ok(Box::new(Autotune::new(Knobs::read(options)?)?)),
};

options! {
    /// Options of `autotune`.
    struct Knobs {
        /// tuning servers side by side
        servers: u32 = 4, whole(1, 64);
        /// each server within its share, or all on the whole GPU
        sharing: Sharing = Sharing::Controlled;
        /// controlled: share of one server
        share: Option<f64> = None, within(1.0, 100.0), unit("%"), unset("100 % over all servers");
        /// host workers that build candidates, for all servers together
        build_workers: u32 = 8, whole(1, 1024);
        /// time to build one candidate; compiling a CUDA kernel takes about a second
        build: Nanos = Nanos::ZERO;
        /// rest of a server after each trial; AutoTVM's is 100ms
        cooldown: Nanos = Nanos::ZERO;
    }
}

/// Whether servers are limited to shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Controlled,
    Uncontrolled,
}

words!(Sharing { "controlled" => Sharing::Controlled, "uncontrolled" => Sharing::Uncontrolled });

struct Autotune {
    knobs: Knobs,
    idle_builders: u32,
    servers: Vec<Server>,
    /// By worker.
    server_of: Vec<Option<usize>>,
    /// The first tenant to consider for the next operator.
    turn: usize,
    /// Time on the GPU of all launches, ns.
    gpu_ns: u64,
    /// When the last operator was finished.
    done: u64,
    learnt: Learnt,
}

/// A tuning server, and the operator that it is tuning.
#[derive(Clone, Debug, Default)]
struct Server {
    worker: Option<u32>,
    /// Trials of the current pass: in total, being built, built, begun, over.
    trials: u32,
    building: u32,
    built: u32,
    begun: u32,
    over: u32,
    /// It rests until this instant.
    rests: u64,
    /// It holds the first launch of a trial.
    holds: bool,
    trial: Trial,
    best: Best,
}

/// The purpose of a timer; the rest of the token is the server.
const BUILT: u64 = 0;
const RESTED: u64 = 1;
const ASSIGN: u64 = 2;

fn token(what: u64, server: usize) -> u64 {
    (server as u64) << 2 | what
}

impl Autotune {
    fn new(knobs: Knobs) -> Result<Self, OptionError> {
        if knobs.share.is_some() && knobs.sharing == Sharing::Uncontrolled {
            let why = "without control every server has the whole GPU; remove it";
            return Err(OptionError::new("share", why));
        }
        Ok(Self {
            idle_builders: knobs.build_workers,
            servers: vec![Server::default(); knobs.servers as usize],
            knobs,
            server_of: vec![],
            turn: 0,
            gpu_ns: 0,
            done: 0,
            learnt: Learnt::default(),
        })
    }

    /// CUs of one server.
    fn cap(&self, setup: &Setup) -> u32 {
        if self.knobs.sharing == Sharing::Uncontrolled {
            return setup.device.cus();
        }
        setup.device.mps_cus(self.knobs.share.unwrap_or(100.0 / self.servers.len() as f64))
    }

    /// Gives every idle server an operator, at most one per tenant: the rest of a queue is known only
    /// when the first operator has been taken off it.
    fn assign(&mut self, view: &View<'_>, act: &mut Vec<Action>) {
        let n = view.tenants.len();
        let mut taken = vec![false; n];
        // A step does not begin if there is no memory for it.
        for server in &mut self.servers {
            if let Some(w) =
                server.worker.take_if(|w| view.workers[*w as usize].status == Status::Idle)
            {
                self.server_of[w as usize] = None;
            }
        }
        for server in 0..self.servers.len() {
            if self.servers[server].worker.is_some() {
                continue;
            }
            let next = (0..n).map(|i| (self.turn + i) % n).find(|&t| {
                !taken[t] && view.tenants[t].queued > 0 && self.idle_worker(t, view).is_some()
            });
            let Some(t) = next else { break };
            let Some(worker) = self.idle_worker(t, view) else { break };
            taken[t] = true;
            self.turn = (t + 1) % n;
            self.servers[server] = Server {
                worker: Some(worker),
                rests: self.servers[server].rests,
                ..Server::default()
            };
            self.server_of[worker as usize] = Some(server);
            act.push(Action::Dispatch { worker, items: view.tenants[t].batch_max });
        }
        let more = |t: usize| taken[t] && view.tenants[t].queued > 1;
        if self.servers.iter().any(|s| s.worker.is_none()) && (0..n).any(more) {
            act.push(Action::Timer { at: view.now, token: ASSIGN });
        }
    }

    fn idle_worker(&self, t: usize, view: &View<'_>) -> Option<u32> {
        view.idle(t as u32).find(|&w| self.server_of[w as usize].is_none())
    }

    fn ready(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let server = self.server_of[worker as usize].expect("a batch runs on a server");
        let w = &view.workers[worker as usize];
        let program = view.program(worker);
        let at = w.position as usize;
        let s = &mut self.servers[server];
        if at == 0 {
            let changes = program.kernels.windows(2).filter(|k| k[0] != k[1]).count();
            s.trials = changes as u32 + 1;
            (s.building, s.built, s.begun, s.over) = (0, 0, 0, 0);
            self.build_more(view.now, act);
        }
        let s = &mut self.servers[server];
        if at == 0 || program.kernels[at - 1] != program.kernels[at] {
            s.holds = true;
            self.begin_trial(server, view, act);
        } else {
            s.trial.launch(view.now.0);
            act.push(launch(worker));
        }
    }

    /// Begins the trial that a server holds, if its code is built and the server has rested.
    fn begin_trial(&mut self, server: usize, view: &View<'_>, act: &mut Vec<Action>) {
        let s = &mut self.servers[server];
        let (Some(worker), true) = (s.worker, s.holds) else { return };
        if s.begun == s.built {
            return; // The end of a build comes back here.
        }
        if s.rests > view.now.0 {
            act.push(Action::Timer { at: Nanos(s.rests), token: token(RESTED, server) });
            return;
        }
        s.holds = false;
        s.begun += 1;
        s.trial = Trial::default();
        s.trial.launch(view.now.0);
        act.push(launch(worker));
    }

    fn kernel_done(&mut self, worker: u32, view: &View<'_>) {
        let server = self.server_of[worker as usize].expect("a batch runs on a server");
        let w = &view.workers[worker as usize];
        let program = view.program(worker);
        let kernel = &view.setup.code.kernels[w.kernel as usize];
        let s = &mut self.servers[server];
        self.gpu_ns += s.trial.ended(view.now.0, kernel, w.spec.cap);
        let next = program.kernels.get(w.position as usize + 1);
        if next != Some(&program.kernels[w.position as usize]) {
            s.over += 1;
            s.rests = view.now.0 + self.knobs.cooldown.0;
            self.learnt.trial(s.trial, &mut s.best);
        }
    }

    fn build_more(&mut self, now: Nanos, act: &mut Vec<Action>) {
        while self.idle_builders > 0 {
            let wants = |s: &Server| s.worker.is_some() && s.built + s.building < s.trials;
            let of = |s: &Server| s.built + s.building - s.over;
            let fewest = (0..self.servers.len())
                .filter(|&i| wants(&self.servers[i]))
                .min_by_key(|&i| of(&self.servers[i]));
            let Some(server) = fewest else { return };
            self.idle_builders -= 1;
            self.servers[server].building += 1;
            act.push(Action::Timer { at: now + self.knobs.build, token: token(BUILT, server) });
        }
    }

    fn timer(&mut self, token: u64, view: &View<'_>, act: &mut Vec<Action>) {
        let server = (token >> 2) as usize;
        match token & 3 {
            BUILT => {
                self.idle_builders += 1;
                self.servers[server].building -= 1;
                self.servers[server].built += 1;
                self.build_more(view.now, act);
                self.begin_trial(server, view, act);
            }
            RESTED => self.begin_trial(server, view, act),
            _ => self.assign(view, act),
        }
    }
}

fn launch(worker: u32) -> Action {
    Action::Launch { worker, mask: None, priority: 0, via: Via::Stream }
}

counters! {
    Autotune |tuner|
    /// to their end
    "operators tuned", unit("operators") = tuner.learnt.operators;
    /// in all
    "trials", unit("trials") = tuner.learnt.trials;
    /// until the last operator was done
    "tuning time (s)", unit("s") = Amount::Most(tuner.done as f64 / 1e9);
    /// of that time
    "trials per second", unit("1/s") =
        tuner.learnt.trials as f64 * 1e9 / (tuner.done as f64).max(1.0);
    /// of a server's time, mean
    "server's time on the GPU (%)", unit("%") = Amount::Mean {
        sum: 100.0 * tuner.gpu_ns as f64,
        of: tuner.done as f64 * tuner.servers.len() as f64,
    };
    /// of a trial beside others against alone
    "measurement error, mean (%)", unit("%") = tuner.learnt.errors().0;
    /// the same
    "measurement error, largest (%)", unit("%") = tuner.learnt.errors().1;
    /// for which a slower kernel won
    "operators mistuned", unit("operators") = tuner.learnt.mistuned;
    /// of time, over operators
    "loss by the wrong kernel, mean (%)", unit("%") = tuner.learnt.losses().0;
    /// the same
    "loss by the wrong kernel, largest (%)", unit("%") = tuner.learnt.losses().1;
}

impl Policy for Autotune {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        setup.check_clients(self.servers.len())?;
        let cap = self.cap(setup);
        let mut workers = setup
            .workers(|tenant, _| WorkerSpec { overhead: Bytes(0), ..setup.client(tenant, cap) });
        // Servers are the clients; an operator's measurements run inside one.
        for worker in workers.iter_mut().take(self.servers.len()) {
            worker.overhead = setup.client_memory();
        }
        self.server_of = vec![None; workers.len()];
        Ok(Layout { pools: vec![setup.whole_gpu()], workers })
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::RequestArrived { .. } => self.assign(view, act),
            Event::KernelReady { worker } => self.ready(worker, view, act),
            Event::KernelDone { worker } => self.kernel_done(worker, view),
            Event::BatchDone { worker, .. } => {
                let server = self.server_of[worker as usize].take();
                let server = &mut self.servers[server.expect("a batch runs on a server")];
                server.worker = None;
                self.learnt.operator(server.best);
                self.done = view.now.0;
                self.assign(view, act);
            }
            Event::Timer { token } => self.timer(token, view, act),
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}
