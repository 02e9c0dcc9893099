//! The device: partitions are green contexts, queues are their streams, and times come from events.

mod merge;
mod pool;
mod run;
mod tile;

use std::collections::BTreeMap;
use std::rc::Rc;

use cotenant_profiles::{Bytes, Nanos};
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUfunction};

use super::blas::{self, Blas, Gemm, Place};
use super::dnn::{Conv, Dnn};
use super::driver::{Atoms, Context, Event, Green, Module, Stream, function_facts};
use super::memory::{Buffer, Pinned};
use super::probe::probe;
use super::ready::{Body, LaunchFacts, Operands, Ready};
use crate::clock::Clock;
use crate::device::{Device, DeviceInfo, Kind, Partition, Prepared, Queue, Ticket};
use crate::error::{DeviceError, Unavailable};
use crate::recipe;
use crate::reference;
use crate::tile::Tile;
use crate::work::{StepTask, Task, Work};

/// How the SMs are partitioned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// The smallest atoms (2 SMs). They rule out large thread-block clusters, which some Hopper kernels
    /// use.
    #[default]
    Fine,
    /// Groups of 8 SMs, which the driver places best.
    Coarse,
}

struct Flight {
    ticket: Ticket,
    queue: Queue,
    start: Event,
    end: Event,
    /// The two ends of a copy, kept until the copy has ended.
    _staging: Option<Rc<Staging>>,
}

struct Lane {
    stream: Rc<Stream>,
    cus: u32,
    /// Number of its partition.
    part: u32,
}

/// A set of atoms. The whole device has no green context.
struct Part {
    green: Option<Rc<Green>>,
    atoms: Vec<u32>,
}

/// Both ends of copies.
struct Staging {
    host: Pinned,
    device: Buffer,
}

/// An event, and when it happened by the host's clock. The times of other events of its context are
/// derived from it.
struct Anchor {
    event: Event,
    at: Nanos,
}

/// A GPU used through the driver. Fields are dropped in this order: work in flight first and the
/// context last, library handles before the streams that they use, and streams before the green
/// contexts that they hold.
pub struct CudaDevice {
    flights: Vec<Flight>,
    /// By queue, for reuse by later launches.
    events: BTreeMap<u32, Vec<Event>>,
    /// By partition, since events of two contexts may not be comparable.
    anchors: BTreeMap<u32, Anchor>,
    /// Number of ends that could not be timed from an anchor.
    as_seen: u64,
    ready: Vec<Option<Ready>>,
    merged: BTreeMap<(u32, Vec<u32>), Prepared>,
    staging: Option<Rc<Staging>>,
    shared: pool::Shared,
    /// The data that the L2 cache is filled with.
    swept: Option<Rc<Buffer>>,
    blas: Option<Rc<Blas>>,
    /// By partition.
    dnn: BTreeMap<u32, Rc<Dnn>>,
    queues: Vec<Lane>,
    /// The streams that anchors are made in, by partition.
    quiet: BTreeMap<u32, Rc<Stream>>,
    parts: Vec<Part>,
    functions: BTreeMap<String, CUfunction>,
    module: Option<Module>,
    /// Code compiled for one tile size each.
    tiles: BTreeMap<Tile, (Module, CUfunction)>,
    /// The atoms, or why there are none: a client of MPS works without them.
    atoms: Result<Atoms, DeviceError>,
    context: Rc<Context>,
    info: DeviceInfo,
    next_ticket: u64,
}

impl CudaDevice {
    /// Opens GPU number `ordinal`.
    ///
    /// # Errors
    /// There is no such GPU, with the reason, or the driver refuses.
    pub fn open(ordinal: u32, granularity: Granularity) -> Result<Self, DeviceError> {
        let probe = probe()?;
        if ordinal >= probe.devices {
            let found = probe.devices;
            return Err(Unavailable::NoSuchDevice { asked: ordinal, found }.into());
        }
        let context = Context::new(ordinal)?;
        let fine = granularity == Granularity::Fine;
        let none = "the driver has none: 550 or newer is needed";
        let atoms = match probe.green_contexts {
            true => Atoms::cut(&context, fine),
            false => Err(DeviceError::unsupported("green contexts", none)),
        };
        let all = atoms.as_ref().map_or(0, Atoms::len);
        let cus = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let info = DeviceInfo {
            name: context.name()?,
            kind: if probe.stand_in { Kind::StandIn } else { Kind::Gpu },
            uuid: context.uuid()?,
            cus,
            grain: atoms.as_ref().map_or(cus, |a| a.grain),
            memory: Bytes(context.memory()?),
            driver: probe.cuda_version(),
        };
        Ok(Self {
            flights: Vec::new(),
            events: BTreeMap::new(),
            anchors: BTreeMap::new(),
            as_seen: 0,
            ready: Vec::new(),
            merged: BTreeMap::new(),
            staging: None,
            shared: pool::Shared::default(),
            swept: None,
            blas: None,
            dnn: BTreeMap::new(),
            queues: Vec::new(),
            quiet: BTreeMap::new(),
            parts: vec![Part { green: None, atoms: (0..all).collect() }],
            functions: BTreeMap::new(),
            module: None,
            tiles: BTreeMap::new(),
            atoms,
            context,
            info,
            next_ticket: 0,
        })
    }

    /// The whole device as a partition.
    #[must_use]
    pub fn whole(&self) -> Partition {
        Partition { index: 0, granted: self.info.cus }
    }

    /// CUs that partitions can be made from. The remainder of an uneven split belongs to the whole
    /// device alone.
    #[must_use]
    pub fn divisible_cus(&self) -> u32 {
        self.atoms.as_ref().map_or(0, |a| a.len() * a.grain)
    }

    /// Checks that partitions can be made.
    ///
    /// # Errors
    /// The reason why they cannot.
    pub fn require_partitions(&self) -> Result<(), DeviceError> {
        self.atoms.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// Facts about prepared work.
    ///
    /// # Errors
    /// There is no such work.
    pub fn facts(&self, work: Prepared) -> Result<&LaunchFacts, DeviceError> {
        self.ready(work).map(|r| &r.facts)
    }

    /// Frees prepared work with its operands and plans, once all launches have ended.
    ///
    /// # Errors
    /// There is no such work, or a launch failed.
    pub fn release(&mut self, work: Prepared) -> Result<(), DeviceError> {
        self.ready(work)?;
        self.context.synchronize()?;
        self.ready[work.0 as usize] = None;
        self.merged.retain(|_, known| *known != work);
        Ok(())
    }

    /// Runs prepared work once and returns the distance of its result from the CPU's in double
    /// precision, as a share of the norm. [`reference::tolerance`] is the distance that rounding alone
    /// explains.
    ///
    /// # Errors
    /// Those of launching.
    pub fn check(&mut self, prepared: Prepared, work: &Work) -> Result<f64, DeviceError> {
        let shapes = recipe::shapes(work);
        let found = self.result(prepared)?;
        let operands = reference::operands(&shapes, work.precision);
        let expected = reference::compute(work, &operands, shapes.output);
        Ok(reference::distance(&found, &expected))
    }

    /// Runs prepared work once and returns its result.
    ///
    /// # Errors
    /// Those of launching.
    pub fn result(&mut self, prepared: Prepared) -> Result<Vec<f64>, DeviceError> {
        self.launch(prepared)?;
        self.wait(&mut Vec::new())?;
        let ready = self.ready(prepared)?;
        let mut found = reference::from_bytes(&ready.operands.output.read()?, ready.work.precision);
        found.truncate(recipe::shapes(&ready.work).output as usize);
        Ok(found)
    }

    fn ready(&self, work: Prepared) -> Result<&Ready, DeviceError> {
        let no_such = DeviceError::NoSuch { what: "prepared work", index: work.0 };
        self.ready.get(work.0 as usize).and_then(Option::as_ref).ok_or(no_such)
    }

    fn lane(&self, queue: Queue) -> Result<&Lane, DeviceError> {
        let no_such = DeviceError::NoSuch { what: "queue", index: queue.0 };
        self.queues.get(queue.0 as usize).ok_or(no_such)
    }

    /// A function of our kernels, which are loaded at the first use.
    fn function(&mut self, name: &str) -> Result<CUfunction, DeviceError> {
        if let Some(known) = self.functions.get(name) {
            return Ok(*known);
        }
        let module = match self.module.take() {
            Some(module) => module,
            None => Module::load(&self.context, &recipe::PTX)?,
        };
        let module = self.module.insert(module);
        let function = module.function(name)?;
        self.functions.insert(name.to_owned(), function);
        Ok(function)
    }

    fn plan(&mut self, work: &Work, queue: Queue) -> Result<(Body, LaunchFacts), DeviceError> {
        let cus = self.lane(queue)?.cus;
        let library = |name: String| LaunchFacts {
            name,
            grid: None,
            regs: 0,
            smem_bytes: 0,
            blocks_per_cu: 1,
        };
        if let Some(recipe) = recipe::recipe(work)? {
            let function = self.function(&recipe.function)?;
            let facts = function_facts(function, recipe.block)?;
            let facts = LaunchFacts {
                name: recipe.function.clone(),
                grid: Some((recipe.blocks, recipe.block)),
                regs: facts.regs,
                smem_bytes: facts.smem_bytes,
                blocks_per_cu: facts.blocks_per_cu,
            };
            let scratch = match usize::try_from(recipe.scratch).unwrap_or(usize::MAX) {
                0 => None,
                n => Some(self.shared.take(
                    &self.context,
                    (queue.0, pool::Place::Own),
                    Vec::new,
                    n,
                )?),
            };
            return Ok((Body::Ours { function, recipe, scratch }, facts));
        }
        match &work.task {
            Task::Conv { batch, conv } => {
                let dnn = self.dnn(queue)?;
                let plan = Conv::plan(&dnn, &self.context, (*batch, conv), work.precision)?;
                Ok((Body::Conv(Box::new(plan)), library(String::new())))
            }
            Task::Gemm { .. } | Task::Step(StepTask::Biased { .. }) => {
                let blas = self.blas()?;
                let shape = match work.task {
                    Task::Gemm { m, n, k, count } => blas::Shape { m, n, k, count, bias: false },
                    Task::Step(StepTask::Biased { m, n, k }) => {
                        blas::Shape { m, n, k, count: 1, bias: true }
                    }
                    _ => unreachable!("the arm has no other"),
                };
                let mut plan = Gemm::plan(&blas, shape, work.precision, cus, Place::Strided)?;
                let needs = plan.workspace_bytes();
                let of = (queue.0, pool::Place::Workspace);
                plan.give_workspace(match work.step {
                    true => self.shared.take(&self.context, of, Vec::new, needs)?,
                    false => Rc::new(Buffer::zeroed(&self.context, needs)?),
                });
                Ok((Body::Gemm(Box::new(plan)), library(String::new())))
            }
            _ => Err(DeviceError::unsupported(&work.id, "no kernel and no library runs it")),
        }
    }

    /// The cuDNN handle for a queue's partition, made at its first use there.
    fn dnn(&mut self, queue: Queue) -> Result<Rc<Dnn>, DeviceError> {
        let lane = self.lane(queue)?;
        let (part, stream) = (lane.part, Rc::clone(&lane.stream));
        if let Some(known) = self.dnn.get(&part) {
            return Ok(Rc::clone(known));
        }
        let made = Dnn::new(&stream)?;
        self.dnn.insert(part, Rc::clone(&made));
        Ok(made)
    }

    /// Runs a library's work once. The library's best algorithm may not run in this partition, since
    /// thread-block clusters do not fit into small ones. In that case this tries the next algorithm.
    fn try_out(&mut self, queue: Queue, ready: &mut Ready) -> Result<(), DeviceError> {
        if ready.body.is_of_a_library() {
            let stream = Rc::clone(&self.lane(queue)?.stream);
            loop {
                let run = self.put(queue, ready, &stream).and_then(|()| stream.synchronize());
                let Err(why) = run else { break };
                if !ready.body.next(&self.context)? {
                    return Err(why);
                }
            }
        }
        if let Some(name) = ready.body.name() {
            ready.facts.name = name;
        }
        Ok(())
    }

    /// Launches into a stream of `queue`. If a library refuses, tries its next algorithm.
    fn put(
        &mut self,
        queue: Queue,
        ready: &mut Ready,
        stream: &Rc<Stream>,
    ) -> Result<(), DeviceError> {
        let dnn = match ready.body {
            Body::Conv(_) => Some(self.dnn(queue)?),
            _ => None,
        };
        loop {
            let Err(why) = ready.launch(stream, dnn.as_deref()) else { return Ok(()) };
            if !ready.body.next(&self.context)? {
                return Err(why);
            }
        }
    }

    fn blas(&mut self) -> Result<Rc<Blas>, DeviceError> {
        Ok(match &self.blas {
            Some(known) => Rc::clone(known),
            None => Rc::clone(self.blas.insert(Blas::new(&self.context)?)),
        })
    }

    /// Operands of work on a queue. The works of a serving engine's steps share operands across sizes
    /// for as long as they are in use: the weights are the same, and inputs and results lie where the
    /// engine's allocator has them.
    fn operands(&mut self, work: &Work, queue: Queue) -> Result<Rc<Operands>, DeviceError> {
        if !work.step {
            return self.operands_with(work, self.inputs(work)?);
        }
        let shapes = recipe::shapes(work);
        let mut inputs = Vec::with_capacity(shapes.inputs.len());
        for (i, operand) in shapes.inputs.iter().enumerate() {
            let bytes = reference::operand_size(operand, work.precision);
            let once = || reference::operand_once(i, operand, work.precision).0;
            let place = pool::Place::of_input(i, operand, work, bytes);
            inputs.push(self.shared.take(&self.context, (queue.0, place), once, bytes)?);
        }
        let bytes = usize::try_from(shapes.output * work.precision.bytes()).unwrap_or(usize::MAX);
        let place = (queue.0, pool::Place::Result);
        let output = self.shared.take(&self.context, place, Vec::new, bytes)?;
        Ok(Rc::new(Operands { work: work.clone(), inputs, output }))
    }

    /// Operands with existing inputs, and a result of their own.
    fn operands_with(
        &self,
        work: &Work,
        inputs: Vec<Rc<Buffer>>,
    ) -> Result<Rc<Operands>, DeviceError> {
        let bytes = recipe::shapes(work).output * work.precision.bytes();
        let output = Buffer::zeroed(&self.context, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok(Rc::new(Operands { work: work.clone(), inputs, output: Rc::new(output) }))
    }

    fn inputs(&self, work: &Work) -> Result<Vec<Rc<Buffer>>, DeviceError> {
        let shapes = recipe::shapes(work);
        let mut inputs = Vec::with_capacity(shapes.inputs.len());
        for (i, operand) in shapes.inputs.iter().enumerate() {
            let (once, bytes) = reference::operand_once(i, operand, work.precision);
            inputs.push(Rc::new(Buffer::repeated(&self.context, &once, bytes)?));
        }
        Ok(inputs)
    }

    /// An event for a queue: a used one of that queue, or a new one.
    fn event(&mut self, queue: Queue) -> Result<Event, DeviceError> {
        let stream = Rc::clone(&self.lane(queue)?.stream);
        let used = self.events.get_mut(&queue.0).and_then(Vec::pop);
        used.map_or_else(|| Event::new(&stream), Ok)
    }

    /// Queues work between two events.
    fn enqueue(
        &mut self,
        queue: Queue,
        staging: Option<Rc<Staging>>,
        what: impl FnOnce(&mut Self, &Rc<Stream>) -> Result<(), DeviceError>,
    ) -> Result<Ticket, DeviceError> {
        let stream = Rc::clone(&self.lane(queue)?.stream);
        let (start, end) = (self.event(queue)?, self.event(queue)?);
        start.record(&stream)?;
        what(self, &stream)?;
        end.record(&stream)?;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.flights.push(Flight { ticket, queue, start, end, _staging: staging });
        Ok(ticket)
    }

    /// When an event of a queue that has been reached happened, by the host's clock. Events of two
    /// contexts may not be comparable, so the time is derived from an event of the same partition.
    fn moment(&mut self, queue: Queue, event: &Event) -> Result<Nanos, DeviceError> {
        /// Up to this age, single-precision milliseconds resolve 60 ns.
        const STALE: u64 = 1_000_000_000;
        let part = self.lane(queue)?.part;
        let now = Clock::wall().now();
        if self.anchors.get(&part).is_none_or(|a| now.0 - a.at.0 > STALE) {
            let anchor = self.anchor(part)?;
            self.anchors.insert(part, anchor);
        }
        let anchor = &self.anchors[&part];
        let Ok(after) = event.after(&anchor.event) else {
            self.as_seen += 1;
            return Ok(Clock::wall().now());
        };
        // Work cannot have ended later than its end was seen.
        Ok(Nanos(anchor.at.0.saturating_add_signed(after).min(Clock::wall().now().0)))
    }

    fn anchor(&mut self, part: u32) -> Result<Anchor, DeviceError> {
        let stream = match self.quiet.get(&part) {
            Some(stream) => Rc::clone(stream),
            None => {
                let green = self.parts[part as usize].green.clone();
                let stream = Stream::new(&self.context, green.as_ref(), 0)?;
                self.quiet.insert(part, Rc::clone(&stream));
                stream
            }
        };
        let event = Event::new(&stream)?;
        event.record(&stream)?;
        stream.synchronize()?;
        Ok(Anchor { event, at: Clock::wall().now() })
    }

    /// A green context of these atoms; an existing one if there is one.
    fn part(&mut self, atoms: Vec<u32>) -> Result<Partition, DeviceError> {
        let known = self.parts.iter().position(|p| p.green.is_some() && p.atoms == atoms);
        if let Some(index) = known {
            let granted = atoms.len() as u32 * self.info.grain;
            return Ok(Partition { index: index as u32, granted });
        }
        let cut = self.atoms.as_ref().map_err(Clone::clone)?;
        let asked = atoms.len() as u32 * cut.grain;
        let green = Green::new(&self.context, cut, &atoms)?;
        let granted = green.granted;
        if granted != asked {
            return Err(DeviceError::NotGranted { asked, granted });
        }
        self.parts.push(Part { green: Some(green), atoms });
        Ok(Partition { index: self.parts.len() as u32 - 1, granted })
    }

    fn known(&self, partition: Partition) -> Result<&Part, DeviceError> {
        let index = partition.index;
        self.parts.get(index as usize).ok_or(DeviceError::NoSuch { what: "partition", index })
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // Operands must not be freed while kernels read them; a context that has failed frees itself.
        let _ = self.context.synchronize();
    }
}
