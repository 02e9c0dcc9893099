//! The device: partitions are green contexts, queues their streams, times those of events.

mod merge;
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
use crate::tune::Tile;
use crate::work::{Task, Work};

/// How the SMs are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// The smallest atoms (2 SMs): no large thread-block clusters, which some Hopper kernels use.
    #[default]
    Fine,
    /// Groups of 8 SMs, as the driver places them best.
    Coarse,
}

struct Flight {
    ticket: Ticket,
    queue: Queue,
    start: Event,
    end: Event,
    /// What a copy goes from and to, kept until it has ended.
    _staging: Option<Rc<Staging>>,
}

struct Lane {
    stream: Rc<Stream>,
    cus: u32,
}

/// A set of atoms; the whole device has no green context.
struct Part {
    green: Option<Rc<Green>>,
    atoms: Vec<u32>,
}

/// Both ends of copies.
struct Staging {
    host: Pinned,
    device: Buffer,
}

/// An event and when it happened by the host's clock: other events are told from it.
struct Anchor {
    event: Event,
    at: Nanos,
}

/// A GPU by way of the driver. Fields are dropped in this order: what is in flight first, the
/// context last; handles of libraries before the streams that they use, streams before the green
/// contexts that they hold.
pub struct CudaDevice {
    flights: Vec<Flight>,
    /// By queue, for the next launches.
    events: BTreeMap<u32, Vec<Event>>,
    anchor: Option<Anchor>,
    ready: Vec<Option<Ready>>,
    merged: BTreeMap<(u32, Vec<u32>), Prepared>,
    staging: Option<Rc<Staging>>,
    blas: Option<Rc<Blas>>,
    /// By queue: a handle belongs to one stream.
    dnn: BTreeMap<u32, Rc<Dnn>>,
    queues: Vec<Lane>,
    quiet: Option<Rc<Stream>>,
    parts: Vec<Part>,
    functions: BTreeMap<String, CUfunction>,
    module: Option<Module>,
    /// Code compiled for one size of tiles each.
    tiles: BTreeMap<Tile, (Module, CUfunction)>,
    /// Or why there are none: a client of MPS works without them.
    atoms: Result<Atoms, DeviceError>,
    context: Rc<Context>,
    info: DeviceInfo,
    next_ticket: u64,
}

impl CudaDevice {
    /// Opens GPU number `ordinal`.
    ///
    /// # Errors
    /// Why there is none, or what the driver refuses.
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
            anchor: None,
            ready: Vec::new(),
            merged: BTreeMap::new(),
            staging: None,
            blas: None,
            dnn: BTreeMap::new(),
            queues: Vec::new(),
            quiet: None,
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

    /// CUs that partitions can be cut from: the rest of an uneven cut belongs to the whole alone.
    #[must_use]
    pub fn divisible_cus(&self) -> u32 {
        self.atoms.as_ref().map_or(0, |a| a.len() * a.grain)
    }

    /// Makes sure that partitions can be made.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn require_partitions(&self) -> Result<(), DeviceError> {
        self.atoms.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// What is known of prepared work.
    ///
    /// # Errors
    /// No such work.
    pub fn facts(&self, work: Prepared) -> Result<&LaunchFacts, DeviceError> {
        self.ready(work).map(|r| &r.facts)
    }

    /// Frees prepared work, its operands and plans, once everything launched has ended.
    ///
    /// # Errors
    /// No such work, or a failed launch.
    pub fn release(&mut self, work: Prepared) -> Result<(), DeviceError> {
        self.ready(work)?;
        self.context.synchronize()?;
        self.ready[work.0 as usize] = None;
        self.merged.retain(|_, known| *known != work);
        Ok(())
    }

    /// Runs prepared work once and returns the distance of its result from the CPU's in double
    /// precision, as a share of the norm; what is only rounding is [`reference::tolerance`].
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

    /// Runs prepared work once; its result.
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

    /// A function of our kernels; they are loaded at the first use.
    fn function(&mut self, name: &str) -> Result<CUfunction, DeviceError> {
        if let Some(known) = self.functions.get(name) {
            return Ok(*known);
        }
        let module = match self.module.take() {
            Some(module) => module,
            None => Module::load(&self.context, recipe::PTX)?,
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
            return Ok((Body::Ours { function, recipe }, facts));
        }
        match &work.task {
            Task::Conv { batch, conv } => {
                let dnn = match self.dnn.get(&queue.0) {
                    Some(known) => Rc::clone(known),
                    None => {
                        let made = Dnn::new(&self.lane(queue)?.stream)?;
                        self.dnn.insert(queue.0, Rc::clone(&made));
                        made
                    }
                };
                let plan = Conv::plan(&dnn, &self.context, (*batch, conv), work.precision)?;
                let facts = library(format!("cudnn_forward_algo{}", plan.algorithm()));
                Ok((Body::Conv(Box::new(plan)), facts))
            }
            Task::Gemm { m, n, k, count } => {
                let blas = self.blas()?;
                let shape = blas::Shape { m: *m, n: *n, k: *k, count: *count };
                let context = &self.context;
                let plan = Gemm::plan(&blas, context, shape, work.precision, cus, Place::Strided)?;
                Ok((Body::Gemm(Box::new(plan)), library("cublasLtMatmul".to_owned())))
            }
            _ => Err(DeviceError::unsupported(&work.id, "no kernel and no library runs it")),
        }
    }

    fn blas(&mut self) -> Result<Rc<Blas>, DeviceError> {
        Ok(match &self.blas {
            Some(known) => Rc::clone(known),
            None => Rc::clone(self.blas.insert(Blas::new(&self.context)?)),
        })
    }

    fn operands(&self, work: &Work) -> Result<Rc<Operands>, DeviceError> {
        self.operands_with(work, self.inputs(work)?)
    }

    /// Operands with inputs that are there already, and a result of their own.
    fn operands_with(
        &self,
        work: &Work,
        inputs: Vec<Rc<Buffer>>,
    ) -> Result<Rc<Operands>, DeviceError> {
        let bytes = recipe::shapes(work).output * work.precision.bytes();
        let output = Buffer::zeroed(&self.context, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok(Rc::new(Operands { work: work.clone(), inputs, output }))
    }

    fn inputs(&self, work: &Work) -> Result<Vec<Rc<Buffer>>, DeviceError> {
        let shapes = recipe::shapes(work);
        let mut inputs = Vec::with_capacity(shapes.inputs.len());
        for (i, operand) in shapes.inputs.iter().enumerate() {
            let bytes = reference::operand_bytes(i, operand, work.precision);
            inputs.push(Rc::new(Buffer::filled(&self.context, &bytes)?));
        }
        Ok(inputs)
    }

    /// An event for a queue: one that has been used there, or a new one.
    fn event(&mut self, queue: Queue) -> Result<Event, DeviceError> {
        let stream = Rc::clone(&self.lane(queue)?.stream);
        let used = self.events.get_mut(&queue.0).and_then(Vec::pop);
        used.map_or_else(|| Event::new(&stream), Ok)
    }

    /// Puts something into a queue between two events.
    fn enqueue(
        &mut self,
        queue: Queue,
        staging: Option<Rc<Staging>>,
        what: impl FnOnce(&Stream) -> Result<(), DeviceError>,
    ) -> Result<Ticket, DeviceError> {
        let stream = Rc::clone(&self.lane(queue)?.stream);
        let (start, end) = (self.event(queue)?, self.event(queue)?);
        start.record(&stream)?;
        what(&stream)?;
        end.record(&stream)?;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.flights.push(Flight { ticket, queue, start, end, _staging: staging });
        Ok(ticket)
    }

    /// When an event that was reached happened, by the host's clock.
    fn moment(&mut self, event: &Event) -> Result<Nanos, DeviceError> {
        /// Single-precision milliseconds tell 60 ns apart up to here.
        const STALE: u64 = 1_000_000_000;
        let now = Clock::wall().now();
        if self.anchor.as_ref().is_none_or(|a| now.0 - a.at.0 > STALE) {
            let stream = match &self.quiet {
                Some(stream) => Rc::clone(stream),
                None => Rc::clone(self.quiet.insert(Stream::new(&self.context, None, 0)?)),
            };
            let event = Event::new(&stream)?;
            event.record(&stream)?;
            stream.synchronize()?;
            self.anchor = Some(Anchor { event, at: Clock::wall().now() });
        }
        let anchor = self.anchor.as_ref().expect("made just above");
        // Events of two contexts may not be comparable: when it was seen must do then.
        let Ok(after) = event.after(&anchor.event) else { return Ok(Clock::wall().now()) };
        // Nothing has ended later than it was seen to have.
        Ok(Nanos(anchor.at.0.saturating_add_signed(after).min(Clock::wall().now().0)))
    }

    /// A green context of these atoms; the one that is there already where there is one.
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
        // Operands must not go while kernels read them; a context that has failed frees itself.
        let _ = self.context.synchronize();
    }
}
