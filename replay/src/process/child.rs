//! A worker process: what `cotenant worker` runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::layout::{Role, WorkerSpec};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::counters::{Counter, Counters};
use super::messages::{Assignment, Command, FailureKind, Message, On, Run, Site};
use crate::cuda::{CudaDevice, Granularity};
use crate::device::{Completion, Device, Direction, Launch, Partition, Prepared, Queue, Ticket};
use crate::emulated::RemoteDevice;
use crate::emulated::wire::{hear, say};
use crate::error::DeviceError;
use crate::recipe;
use crate::work::Work;

/// A worker shows at least this often that it is alive.
const BEAT: Duration = Duration::from_millis(50);

/// Why a worker process ends early.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It was started by hand.
    #[error("a worker is started by `cotenant replay`, which speaks to it: {0}")]
    NotAWorker(String),
    /// The process that started it has gone.
    #[error("the process that started this worker has gone")]
    Orphan,
    /// The device refused. The process that started the worker has been told.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Runs what the process at the other end of the standard input asks for, until that process retires
/// the worker or goes.
///
/// # Errors
/// The process at the other end does not speak to workers, or the device fails.
pub fn run() -> Result<(), WorkerError> {
    let odd = |e: std::io::Error| WorkerError::NotAWorker(e.to_string());
    // However the parent ends, even by kill -9, no worker stays behind.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| odd(e.into()))?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(odd)?;
    let mut out = UnixStream::from(socket);
    let mut from = BufReader::new(out.try_clone().map_err(odd)?);
    let assignment = hear::<Assignment>(&mut from).map_err(odd)?;
    let assignment = assignment
        .ok_or_else(|| WorkerError::NotAWorker("nothing is at the standard input".to_owned()))?;
    let parent = getppid().map(|p| p.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(assignment.parent) {
        // The parent died before the system was told to take this process along.
        return Err(WorkerError::Orphan);
    }
    let counters = Counters::open(&assignment.counters).map_err(odd)?;
    let (asked, inbox) = channel();
    let mut commands = Commands { inbox, backlog: VecDeque::new() };
    let listen = move || {
        while let Ok(Some(command)) = hear::<Command>(&mut from) {
            if asked.send(command).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("commands".to_owned()).spawn(listen).map_err(odd)?;
    let done = work(&assignment, counters, &mut commands, &mut out);
    if let Err(WorkerError::Device(e)) = &done {
        let failed = Message::Failed { kind: FailureKind::from(e), reason: e.to_string() };
        // If the parent no longer listens, the message is not missed.
        let _ = say(&mut out, &failed);
    }
    done
}

fn work(
    assignment: &Assignment,
    counters: Counters,
    commands: &mut Commands,
    out: &mut UnixStream,
) -> Result<(), WorkerError> {
    match &assignment.on {
        On::Emulated => {
            let gpu = std::io::stdout().as_fd().try_clone_to_owned();
            let gpu = gpu.map_err(|e| WorkerError::NotAWorker(e.to_string()))?;
            let mut device = RemoteDevice::connect(UnixStream::from(gpu))?;
            let Site { pool, lane, cap, priority } = assignment.site;
            let overhead = Bytes(0);
            let spec =
                WorkerSpec { tenant: 0, pool, lane, cap, priority, overhead, role: Role::Whole };
            let partition = device.place(&[], &spec)?;
            device.allocate(partition, Bytes(assignment.memory))?;
            let queue = device.queue(partition, priority)?;
            let cus = partition.granted;
            let make = |device: &mut RemoteDevice, k| device.prepare_kernel(queue, k);
            let known = BTreeMap::new();
            let mut worker = Worker { device, queue, make, known, assignment, counters, out };
            worker.prepare(commands)?;
            worker.serve(cus, commands)
        }
        On::Cuda { ordinal, instance, works } => {
            let mut device = CudaDevice::open(*ordinal, Granularity::Fine)?;
            let granted = device.info().cus;
            if let Some(asked) = instance.filter(|&cus| cus != granted) {
                return Err(DeviceError::NotGranted { asked, granted }.into());
            }
            let whole = Partition { index: 0, granted };
            let queue = device.queue(whole, assignment.site.priority)?;
            let by_number: BTreeMap<u32, &Work> =
                works.iter().map(|(n, work)| (*n, work)).collect();
            let make = |device: &mut CudaDevice, kernel| {
                let none = DeviceError::NoSuch { what: "kernel", index: kernel };
                device.prepare(queue, by_number.get(&kernel).ok_or(none)?)
            };
            let known = BTreeMap::new();
            let mut worker = Worker { device, queue, make, known, assignment, counters, out };
            worker.prepare(commands)?;
            worker.warm(commands)?;
            worker.warm_steps(works, commands)?;
            worker.serve(granted, commands)
        }
    }
}

struct Worker<'a, D, F> {
    device: D,
    queue: Queue,
    /// Makes a kernel of the scenario ready on the device.
    make: F,
    known: BTreeMap<u32, Prepared>,
    assignment: &'a Assignment,
    counters: Counters,
    out: &'a mut UnixStream,
}

impl<D: Device, F: FnMut(&mut D, u32) -> Result<Prepared, DeviceError>> Worker<'_, D, F> {
    /// Makes the kernels of all programs ready, unless the worker is retired meanwhile.
    fn prepare(&mut self, commands: &mut Commands) -> Result<(), WorkerError> {
        let assignment = self.assignment;
        for &kernel in assignment.programs.iter().flat_map(|p| &p.kernels) {
            if !commands.want_it()? {
                return Ok(());
            }
            self.ready(kernel)?;
        }
        Ok(())
    }

    fn ready(&mut self, kernel: u32) -> Result<Prepared, DeviceError> {
        if let Some(&known) = self.known.get(&kernel) {
            return Ok(known);
        }
        self.counters.add(Counter::Beats, 1);
        let made = (self.make)(&mut self.device, kernel)?;
        self.known.insert(kernel, made);
        Ok(made)
    }

    /// Makes every kernel that steps may launch ready, and runs one of every kind: the others have the
    /// same code.
    fn warm_steps(
        &mut self,
        works: &[(u32, Work)],
        commands: &mut Commands,
    ) -> Result<(), WorkerError> {
        let mut warm = BTreeSet::new();
        for (kernel, work) in works.iter().filter(|(_, work)| work.step) {
            if !commands.want_it()? {
                return Ok(());
            }
            let ready = self.ready(*kernel)?;
            if warm.insert(recipe::family(work)) {
                self.device.submit(&Launch { reported: false, ..Launch::of(ready) })?;
            }
        }
        Ok(self.device.finish(self.queue)?)
    }

    /// Runs every program once, with the largest copies: first launches load code, and first copies
    /// allocate the memory that they go through. It ends between two launches as soon as the worker is
    /// retired.
    fn warm(&mut self, commands: &mut Commands) -> Result<(), WorkerError> {
        let assignment = self.assignment;
        let [input, output] = assignment.copies;
        for program in &assignment.programs {
            for &kernel in &program.kernels {
                if !commands.want_it()? {
                    return Ok(());
                }
                let work = self.ready(kernel)?;
                self.device.submit(&Launch { reported: false, ..Launch::of(work) })?;
                self.counters.add(Counter::Beats, 1);
            }
        }
        for (way, bytes) in [(Direction::In, input), (Direction::Out, output)] {
            self.copied(way, bytes, 0, &mut 0)?;
        }
        Ok(self.device.wait(&mut vec![])?)
    }

    fn serve(mut self, cus: u32, commands: &mut Commands) -> Result<(), WorkerError> {
        self.tell(&Message::Up { cus })?;
        loop {
            self.counters.add(Counter::Beats, 1);
            match commands.next(BEAT)? {
                Some(Command::Run(run)) => self.pass(&run, commands)?,
                Some(Command::Retire) => return Ok(()),
                // A context may be lost while it is idle.
                None => self.device.poll(&mut vec![])?,
            }
        }
    }

    fn tell(&mut self, message: &Message) -> Result<(), WorkerError> {
        say(&mut self.out, message).map_err(|_| WorkerError::Orphan)
    }

    fn pass(&mut self, run: &Run, commands: &mut Commands) -> Result<(), WorkerError> {
        let began = self.device.clock().now();
        let (last, copies_left_out) = self.submit(run)?;
        let mut ended = Vec::new();
        let at = loop {
            self.counters.add(Counter::Beats, 1);
            self.device.poll(&mut ended)?;
            let found = ended.drain(..).find(|c: &Completion| c.ticket == last);
            if let Some(found) = found {
                break found.at;
            }
            commands.look()?;
            self.device.doze(BEAT);
        };
        self.counters.add(Counter::Passes, 1);
        let (number, began, at) = (run.number, began.0, at.0);
        self.tell(&Message::Ended { number, began, at, copies_left_out })
    }

    /// Hands a copy to the device, and counts those that the device cannot do.
    fn copied(
        &mut self,
        way: Direction,
        bytes: u64,
        base: u64,
        left_out: &mut u32,
    ) -> Result<Option<Ticket>, DeviceError> {
        if bytes == 0 {
            return Ok(None);
        }
        match self.device.copy(self.queue, way, Bytes(bytes), Nanos(base)) {
            Ok(ticket) => Ok(Some(ticket)),
            Err(DeviceError::Unsupported { .. }) => {
                *left_out += 1;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Hands a pass to the device. Returns its last ticket, and how many copies the device cannot do.
    fn submit(&mut self, run: &Run) -> Result<(Ticket, u32), DeviceError> {
        let index = run.program;
        let no_such = DeviceError::NoSuch { what: "program", index };
        let assignment = self.assignment;
        let program = match &run.loaded {
            Some(step) => step,
            None => assignment.programs.get(index as usize).ok_or(no_such)?,
        };
        let mut left_out = 0;
        let mut last = self.copied(Direction::In, run.input, run.base, &mut left_out)?;
        let n = program.kernels.len();
        for (i, (&kernel, &issued)) in program.kernels.iter().zip(&program.issued_ns).enumerate() {
            let work = self.ready(kernel)?;
            let scale = run.scales.get(i).or(run.scales.first()).copied().unwrap_or(1.0);
            let end = i + 1 == n;
            last = Some(self.device.submit(&Launch {
                issued: Nanos(run.base + issued),
                scale,
                first: i == 0 && run.first,
                last: end && run.last,
                reported: end,
                ..Launch::of(work)
            })?);
            self.counters.add(Counter::Kernels, 1);
        }
        let out = self.copied(Direction::Out, run.output, run.base, &mut left_out)?;
        let none = DeviceError::unsupported(format!("program {index}"), "it launches nothing");
        Ok((out.or(last).ok_or(none)?, left_out))
    }
}

/// The commands received, in order.
struct Commands {
    inbox: Receiver<Command>,
    /// Commands that came while a pass was running.
    backlog: VecDeque<Command>,
}

impl Commands {
    /// Collects commands without waiting; an error if the other end is closed.
    fn look(&mut self) -> Result<(), WorkerError> {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.backlog.push_back(command),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(WorkerError::Orphan),
            }
        }
    }

    /// Checks without waiting whether a loading worker is still wanted: false if it is to retire, an
    /// error if the other end is closed.
    fn want_it(&mut self) -> Result<bool, WorkerError> {
        self.look()?;
        Ok(!self.backlog.iter().any(|c| matches!(c, Command::Retire)))
    }

    /// The next command, if one comes within `most`.
    fn next(&mut self, most: Duration) -> Result<Option<Command>, WorkerError> {
        if let Some(command) = self.backlog.pop_front() {
            return Ok(Some(command));
        }
        match self.inbox.recv_timeout(most) {
            Ok(command) => Ok(Some(command)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(WorkerError::Orphan),
        }
    }
}
