//! The device: partitions are green contexts, queues their streams, times those of events.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Bytes, Nanos};
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUfunction};

use super::blas::{self, Blas, Gemm};
use super::dnn::{Conv, Dnn};
use super::driver::{Atoms, Context, Event, Green, Module, Stream, function_facts};
use super::memory::Buffer;
use super::probe::probe;
use crate::device::{
    Completion, Device, DeviceInfo, Kind, Overhead, Partition, Prepared, Queue, Ticket,
};
use crate::error::{DeviceError, Unavailable};
use crate::recipe::{self, Parameter, Recipe};
use crate::reference;
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

/// What is known of prepared work besides its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchFacts {
    /// Function, or library and algorithm.
    pub name: String,
    /// Blocks and threads of a block; `None` where a library decides.
    pub grid: Option<(u32, u32)>,
    /// Registers of a thread, 0 if unknown.
    pub regs: u32,
    /// Shared memory of a block, bytes.
    pub smem_bytes: u32,
    /// Blocks that fit on one SM, 1 if unknown.
    pub blocks_per_cu: u32,
}

enum Body {
    Ours { function: CUfunction, recipe: Recipe },
    Gemm(Box<Gemm>),
    Conv(Box<Conv>),
}

struct Ready {
    queue: Queue,
    body: Body,
    inputs: Vec<Buffer>,
    output: Buffer,
    facts: LaunchFacts,
}

struct Flight {
    ticket: Ticket,
    start: Event,
    end: Event,
}

struct Lane {
    stream: Rc<Stream>,
    cus: u32,
}

/// A GPU by way of the driver. Fields are dropped in this order: what is in flight first, the
/// context last; streams hold their green contexts.
pub struct CudaDevice {
    flights: Vec<Flight>,
    events: Vec<Event>,
    ready: Vec<Option<Ready>>,
    queues: Vec<Lane>,
    partitions: Vec<Option<Rc<Green>>>,
    functions: BTreeMap<String, CUfunction>,
    module: Option<Module>,
    blas: Option<Rc<Blas>>,
    dnn: Option<Rc<Dnn>>,
    atoms: Option<Atoms>,
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
        let atoms = probe.green_contexts.then(|| Atoms::cut(&context, fine)).transpose()?;
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
            events: Vec::new(),
            ready: Vec::new(),
            queues: Vec::new(),
            partitions: vec![None],
            functions: BTreeMap::new(),
            module: None,
            blas: None,
            dnn: None,
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
        Ok(())
    }

    /// Runs prepared work once and returns the distance of its result from the CPU's in double
    /// precision, as a share of the norm; what is only rounding is [`reference::tolerance`].
    ///
    /// # Errors
    /// Those of launching.
    pub fn check(&mut self, prepared: Prepared, work: &Work) -> Result<f64, DeviceError> {
        let mut ended = Vec::new();
        self.launch(prepared)?;
        self.wait(&mut ended)?;
        let shapes = recipe::shapes(work);
        let bytes = self.ready(prepared)?.output.read()?;
        let mut found = reference::from_bytes(&bytes, work.precision);
        found.truncate(shapes.output as usize);
        let operands = reference::operands(&shapes, work.precision);
        let expected = reference::compute(work, &operands, shapes.output);
        Ok(reference::distance(&found, &expected))
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

    fn plan(&mut self, work: &Work, cus: u32) -> Result<(Body, LaunchFacts), DeviceError> {
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
                let dnn = match &self.dnn {
                    Some(known) => Rc::clone(known),
                    None => Rc::clone(self.dnn.insert(Dnn::new(&self.context)?)),
                };
                let plan = Conv::plan(&dnn, &self.context, (*batch, conv), work.precision)?;
                let facts = library(format!("cudnn_forward_algo{}", plan.algorithm()));
                Ok((Body::Conv(Box::new(plan)), facts))
            }
            Task::Gemm { m, n, k, count } => {
                let blas = match &self.blas {
                    Some(known) => Rc::clone(known),
                    None => Rc::clone(self.blas.insert(Blas::new(&self.context)?)),
                };
                let shape = blas::Shape { m: *m, n: *n, k: *k, count: *count };
                let plan = Gemm::plan(&blas, &self.context, shape, work.precision, cus)?;
                Ok((Body::Gemm(Box::new(plan)), library("cublasLtMatmul".to_owned())))
            }
            _ => Err(DeviceError::unsupported(&work.id, "no kernel and no library runs it")),
        }
    }

    fn operands(&self, work: &Work) -> Result<(Vec<Buffer>, Buffer), DeviceError> {
        let shapes = recipe::shapes(work);
        let mut inputs = Vec::with_capacity(shapes.inputs.len());
        for (i, operand) in shapes.inputs.iter().enumerate() {
            let bytes = reference::operand_bytes(i, operand, work.precision);
            inputs.push(Buffer::filled(&self.context, &bytes)?);
        }
        let bytes = shapes.output * work.precision.bytes();
        let output = Buffer::zeroed(&self.context, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok((inputs, output))
    }

    fn event(&mut self) -> Result<Event, DeviceError> {
        self.events.pop().map_or_else(|| Event::new(&self.context), Ok)
    }

    fn submit(&mut self, ready: &Ready) -> Result<(), DeviceError> {
        let stream = Rc::clone(&self.lane(ready.queue)?.stream);
        let (start, end) = (self.event()?, self.event()?);
        start.record(&stream)?;
        ready.launch(&stream)?;
        end.record(&stream)?;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.flights.push(Flight { ticket, start, end });
        Ok(())
    }
}

impl Ready {
    fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        let addresses: Vec<u64> = self.inputs.iter().map(|b| b.address).collect();
        match &self.body {
            Body::Gemm(plan) => plan.launch(stream, &addresses, self.output.address),
            Body::Conv(plan) => plan.launch(stream, &addresses, self.output.address),
            Body::Ours { function, recipe } => {
                let value = |p: &Parameter| match p {
                    Parameter::Input(i) => addresses[*i],
                    Parameter::Null => 0,
                    Parameter::Output => self.output.address,
                    Parameter::Number(n) => *n,
                };
                let mut values: Vec<u64> = recipe.parameters.iter().map(value).collect();
                stream.launch(*function, [recipe.blocks, 1, 1], recipe.block, &mut values)
            }
        }
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // Operands must not go while kernels read them; a context that has failed frees itself.
        let _ = self.context.synchronize();
    }
}

impl Device for CudaDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn partition(&mut self, first: u32, cus: u32) -> Result<Partition, DeviceError> {
        let bad = |reason: String| DeviceError::BadPartition { first, cus, reason };
        let atoms = self.atoms.as_ref().ok_or_else(|| {
            bad("the driver has no green contexts: CUDA 12.4 or newer is needed".to_owned())
        })?;
        let grain = atoms.grain.max(1);
        if cus == 0 || !first.is_multiple_of(grain) || !cus.is_multiple_of(grain) {
            return Err(bad(format!("partitions begin and end at multiples of {grain} SMs")));
        }
        let whole = atoms.len() * grain;
        if first.checked_add(cus).is_none_or(|end| end > whole) {
            return Err(bad(format!("{whole} SMs can be partitioned")));
        }
        let green = Green::new(&self.context, atoms, first / grain, cus / grain)?;
        let granted = green.granted;
        if granted != cus {
            return Err(DeviceError::NotGranted { asked: cus, granted });
        }
        self.partitions.push(Some(green));
        Ok(Partition { index: self.partitions.len() as u32 - 1, granted })
    }

    fn queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError> {
        let index = partition.index;
        let no_such = DeviceError::NoSuch { what: "partition", index };
        let green = self.partitions.get(index as usize).ok_or(no_such)?;
        let [least, greatest] = self.context.priorities()?;
        // The driver's smaller numbers go first.
        let priority = least.saturating_sub(i32::from(priority)).clamp(greatest, least);
        let cus = green.as_ref().map_or(self.info.cus, |g| g.granted);
        let stream = Stream::new(&self.context, green.as_ref(), priority)?;
        self.queues.push(Lane { stream, cus });
        Ok(Queue(self.queues.len() as u32 - 1))
    }

    fn prepare(&mut self, queue: Queue, work: &Work) -> Result<Prepared, DeviceError> {
        let cus = self.lane(queue)?.cus;
        let (body, facts) = self.plan(work, cus)?;
        let (inputs, output) = self.operands(work)?;
        self.ready.push(Some(Ready { queue, body, inputs, output, facts }));
        Ok(Prepared(self.ready.len() as u32 - 1))
    }

    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError> {
        self.ready(work)?;
        let ready = self.ready[work.0 as usize].take();
        let ready = ready.expect("looked at just above");
        let submitted = self.submit(&ready);
        self.ready[work.0 as usize] = Some(ready);
        submitted.map(|()| Ticket(self.next_ticket - 1))
    }

    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        let mut i = 0;
        while i < self.flights.len() {
            if self.flights[i].end.reached()? {
                let Flight { ticket, start, end } = self.flights.remove(i);
                let (duration, at) = (Nanos(end.since(&start)?), self.clock().now());
                ended.push(Completion { ticket, duration, at });
                self.events.extend([start, end]);
            } else {
                i += 1;
            }
        }
        Ok(())
    }

    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        for lane in &self.queues {
            lane.stream.synchronize()?;
        }
        self.poll(ended)
    }

    fn overhead(&mut self) -> Result<Overhead, DeviceError> {
        const ROUNDS: usize = 101;
        let whole = self.whole();
        let queue = self.queue(whole, 0)?;
        let spin = Work::new(Task::Spin { blocks: 1, ns: 0 }, Precision::Fp32);
        let prepared = self.prepare(queue, &spin)?;
        let stream = Rc::clone(&self.lane(queue)?.stream);
        let (mut gaps, mut launches, mut polls) = (vec![], vec![], vec![]);
        let mut ended = Vec::new();
        for _ in 0..ROUNDS {
            let (start, end) = (self.event()?, self.event()?);
            start.record(&stream)?;
            end.record(&stream)?;
            stream.synchronize()?;
            gaps.push(end.since(&start)?);
            self.events.extend([start, end]);
            let began = Instant::now();
            self.launch(prepared)?;
            launches.push(nanos(began));
            self.wait(&mut ended)?;
            let began = Instant::now();
            self.poll(&mut ended)?;
            polls.push(nanos(began));
        }
        self.release(prepared)?;
        Ok(Overhead { events: median(gaps), launch: median(launches), poll: median(polls) })
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn median(mut values: Vec<u64>) -> Nanos {
    values.sort_unstable();
    Nanos(values.get(values.len() / 2).copied().unwrap_or(0))
}
