//! Worker processes for real: started, used, retired, killed, stopped, failing; and nothing of them
//! left behind.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command as Program;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use cotenant_profiles::{Bytes, Device as GpuDescription, Nanos, analytic, zoo};
use cotenant_replay::emulated::{EmulatedDevice, Fault, Server};
use cotenant_replay::process::messages::{
    Assignment, Command, FailureKind, Message, On, Program as Launches, Run, Site,
};
use cotenant_replay::process::{Heard, Launcher, Process};
use cotenant_replay::{Clock, Device};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::{Discipline, PoolSpec};
use cotenant_sim::program::{Code, ModelCode};
use cotenant_sim::scenario::Setup;

/// Nothing here takes as long, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An emulated GPU, and processes on it that run AlexNet at batch 1.
struct World {
    device: EmulatedDevice,
    server: Server,
    model: ModelCode,
    setup: Setup,
    lanes: u32,
    inbox: Sender<(u64, Heard)>,
    letters: Receiver<(u64, Heard)>,
}

impl World {
    fn new(pools: impl FnOnce(&Setup) -> Vec<PoolSpec>) -> Self {
        let device = GpuDescription::builtin("h100-sxm").unwrap();
        let spec = zoo::find("alexnet").unwrap();
        let options = analytic::Options::default();
        let profile = analytic::profile(&device, &[&spec], &[1], &options).unwrap();
        let mut code = Code::default();
        let model = code.compile(&profile, "alexnet", 1, device.cus()).unwrap();
        let costs = device.costs.clone();
        let setup = Setup { device, costs, code: code.into(), tenants: vec![] };
        let pools = pools(&setup);
        let device =
            EmulatedDevice::for_scenario(&setup, &pools, ContentionModel::None, Clock::start(4.0));
        let server = Server::new(&device).unwrap();
        let (inbox, letters) = channel();
        let lanes = pools[0].lanes.len() as u32;
        Self { device, server, model, setup, lanes, inbox, letters }
    }

    fn whole() -> Self {
        Self::new(|setup| vec![setup.whole_gpu()])
    }

    fn start(&mut self, token: u64, lane: u32, memory: Bytes) -> Process {
        let program = |p: &cotenant_sim::program::Program| Launches {
            kernels: p.kernels.clone(),
            issued_ns: p.issued_ns.clone(),
        };
        let assignment = Assignment {
            parent: 0,
            counters: String::new(),
            on: On::Emulated,
            site: Site { pool: 0, lane, cap: self.setup.device.cus(), priority: 0 },
            memory: memory.0,
            programs: self.model.programs.iter().map(program).collect(),
            copies: [0; 2],
        };
        let command = launcher().command();
        let gpu = self.server.connect().unwrap();
        Process::start(command, assignment, Some(gpu), token, self.inbox.clone()).unwrap()
    }

    fn up(&mut self, token: u64) -> Process {
        let process = self.start(token, self.lanes.min(token as u32 + 1) - 1, Bytes(1 << 30));
        let (from, heard) = self.hear();
        assert!(from == token && matches!(heard, Heard::Message(Message::Up { .. })));
        process
    }

    fn hear(&self) -> (u64, Heard) {
        self.letters.recv_timeout(PATIENCE).unwrap()
    }

    fn run(&self, process: &mut Process, number: u64) {
        let base = self.device.clock().now().0;
        let (first, last) = (true, true);
        let (input, output) = (0, 0);
        let (program, loaded, scales) = (0, None, vec![]);
        let run = Run { number, program, loaded, base, scales, input, output, first, last };
        process.say(&Command::Run(run)).unwrap();
    }

    /// GPU time of a batch that nobody disturbs.
    fn alone(&self) -> u64 {
        self.model.program(1).remaining_ns[0]
    }
}

fn launcher() -> Launcher {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_cotenant"));
    Launcher { program, arguments: vec!["worker".into()] }
}

/// Whether a process of that number exists, be it as a zombie.
fn exists(id: u32) -> bool {
    PathBuf::from(format!("/proc/{id}")).exists()
}

fn signal(id: u32, name: &str) {
    let killed = Program::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
    assert!(killed.unwrap().success());
}

/// Waits for something that comes by itself.
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !there() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_runs_what_it_is_asked_and_retires() {
    let mut world = World::whole();
    let mut worker = world.up(0);
    for number in 1..=3 {
        world.run(&mut worker, number);
        let (_, Heard::Message(Message::Ended { number: n, began, at, .. })) = world.hear() else {
            panic!("a pass ends")
        };
        assert_eq!(n, number);
        assert!(at - began >= world.alone(), "{at} - {began} < {}", world.alone());
    }
    let kernels = world.model.program(1).kernels.len() as u64;
    assert_eq!(worker.kernels(), 3 * kernels);
    // Retired in the middle of a pass, it ends the pass first.
    world.run(&mut worker, 4);
    worker.say(&Command::Retire).unwrap();
    assert!(matches!(world.hear().1, Heard::Message(Message::Ended { number: 4, .. })));
    assert_eq!(world.hear(), (0, Heard::Closed));
    let id = worker.id();
    until("a retired worker ends", || worker.ended().is_some_and(|s| s.success()));
    drop(worker);
    assert!(!exists(id));
    let busy = world.device.usage().unwrap().busy_cu_ns;
    assert!(busy > 0);
}

#[test]
fn processes_take_turns_on_a_gpu_without_mps() {
    let quantum = Nanos::from_micros(50);
    let discipline = Discipline::TimeSliced {
        quantum,
        switch: Nanos::from_micros(5),
        make_way: Nanos::from_micros(5),
        run_to_completion: false,
    };
    let mut world = World::new(|setup| {
        let cus = setup.device.cus();
        vec![PoolSpec { discipline, lanes: vec![cus; 2], ..setup.whole_gpu() }]
    });
    let (mut a, mut b) = (world.up(0), world.up(1));
    world.run(&mut a, 1);
    world.run(&mut b, 1);
    for _ in 0..2 {
        assert!(matches!(world.hear().1, Heard::Message(Message::Ended { .. })));
    }
    assert!(world.device.usage().unwrap().switches >= 1);
}

#[test]
fn a_killed_worker_is_noticed_and_its_memory_is_free_again() {
    let mut world = World::whole();
    let mut worker = world.up(0);
    world.run(&mut worker, 1);
    signal(worker.id(), "KILL");
    loop {
        match world.hear().1 {
            Heard::Closed => break,
            // It may have been quicker.
            Heard::Message(Message::Ended { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(worker.kill().unwrap().signal(), Some(9));
    let id = worker.id();
    drop(worker);
    assert!(!exists(id));
    // Everything there is fits again, once the GPU has noticed.
    let all = world.setup.device.memory.capacity;
    let mut context = world.device.context();
    let whole = cotenant_replay::Partition { index: 0, granted: 0 };
    until("the memory is free", || context.allocate(whole, all).is_ok());
}

#[test]
fn a_stopped_worker_falls_silent_and_holds_nobody_up() {
    let mut world = World::whole();
    let (mut hung, mut other) = (world.up(0), world.up(1));
    signal(hung.id(), "STOP");
    world.run(&mut hung, 1);
    until("silence", || hung.silent() > Duration::from_millis(400));
    world.run(&mut other, 2);
    assert!(matches!(world.hear(), (1, Heard::Message(Message::Ended { number: 2, .. }))));
    // Alive, a worker that has nothing to do is not silent.
    until("a sign of life", || other.silent() < Duration::from_millis(200));
    assert_eq!(hung.kill().unwrap().signal(), Some(9));
    assert!(!exists(hung.id()));
}

#[test]
fn a_worker_says_why_it_cannot_go_on() {
    let mut world = World::whole();
    let all = world.setup.device.memory.capacity;
    let _big = world.start(0, 0, all);
    assert!(matches!(world.hear().1, Heard::Message(Message::Up { .. })));
    let mut none = world.start(1, 0, Bytes(1));
    let (1, Heard::Message(Message::Failed { kind, reason })) = world.hear() else {
        panic!("no memory is left")
    };
    assert_eq!(kind, FailureKind::OutOfMemory);
    assert!(reason.starts_with("out of GPU memory"), "{reason}");
    assert_eq!(world.hear(), (1, Heard::Closed));
    until("it ends", || none.ended().is_some_and(|s| s.code() == Some(1)));
}

#[test]
fn a_kernel_that_fails_under_mps_takes_the_neighbours_along() {
    let mut world = World::whole();
    world.device.inject(Some(Fault { launch: 5, spreads: true }));
    let (mut a, _b) = (world.up(0), world.up(0));
    world.run(&mut a, 1);
    let mut kinds = vec![];
    while kinds.len() < 2 {
        if let Heard::Message(Message::Failed { kind, .. }) = world.hear().1 {
            kinds.push(kind);
        }
    }
    assert!(kinds.contains(&FailureKind::KernelFailed), "{kinds:?}");
    assert!(kinds.contains(&FailureKind::NeighbourFailed), "{kinds:?}");
}

#[test]
fn a_worker_started_by_hand_says_what_it_is_for() {
    let mut by_hand = assert_cmd::Command::cargo_bin("cotenant").unwrap();
    let told = by_hand.arg("worker").write_stdin("").assert().code(2);
    let text = String::from_utf8(told.get_output().stderr.clone()).unwrap();
    assert!(text.contains("is started by `cotenant replay`"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}
