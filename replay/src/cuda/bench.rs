//! Measures the cost of a GPU's sharing mechanisms one by one: launches, hops between streams and
//! partitions, copies, bandwidths, turns of contexts.

use std::rc::Rc;
use std::time::Instant;

use cotenant_profiles::Bytes;
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUfunction};

use super::driver::{Atoms, Context, Event, Green, Module, Stream};
use super::memory::{Buffer, Pinned};
use super::probe::probe;
use crate::device::{DeviceInfo, Direction, Kind};
use crate::error::{DeviceError, Unavailable};
use crate::recipe;

/// Where the next kernel of a chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// On another stream of the whole device.
    Stream,
    /// On a stream of another green context.
    Partition,
    /// On both of two green contexts, each after the previous kernels of both: they wait for each
    /// other.
    Barrier,
}

/// The memory that serves reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The L2 cache: a quarter of it, read over and over.
    L2,
    /// DRAM: memory many times the size of the cache, read once.
    Dram,
}

/// The observations of a kernel that watched the GPU's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Watch {
    /// First and last look at the clock, ns.
    pub span: [u64; 2],
    /// The smallest step of the clock, ns.
    pub step: u64,
    /// Start and end of every pause, ns.
    pub pauses: Vec<[u64; 2]>,
    /// Pauses that did not fit into the list.
    pub unseen: u64,
}

/// A GPU with the kernels that measure it. Fields are dropped in this order.
pub struct Bench {
    green: bool,
    spin: CUfunction,
    sweep: CUfunction,
    pauses: CUfunction,
    module: Module,
    context: Rc<Context>,
    info: DeviceInfo,
    l2: Bytes,
}

/// Links in a chain of kernels.
const LINKS: u32 = 64;
/// Launches in one burst: fewer than the 1024 that a queue takes before the host must wait.
const BURST: u32 = 256;
/// Threads per block of the reading kernel.
const READERS: u32 = 256;

impl Bench {
    /// Opens GPU number `ordinal`. It is not partitioned until partitions are needed, since a client of
    /// MPS may not be able to do that.
    ///
    /// # Errors
    /// There is no such GPU, with the reason, or the driver refuses.
    pub fn open(ordinal: u32) -> Result<Self, DeviceError> {
        let probe = probe()?;
        if ordinal >= probe.devices {
            let found = probe.devices;
            return Err(Unavailable::NoSuchDevice { asked: ordinal, found }.into());
        }
        let context = Context::new(ordinal)?;
        let cus = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let l2 = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        let module = Module::load(&context, &recipe::PTX)?;
        let info = DeviceInfo {
            name: context.name()?,
            kind: if probe.stand_in { Kind::StandIn } else { Kind::Gpu },
            uuid: context.uuid()?,
            cus,
            grain: cus,
            memory: Bytes(context.memory()?),
            driver: probe.cuda_version(),
        };
        Ok(Self {
            green: probe.green_contexts,
            spin: module.function("spin")?,
            sweep: module.function("sweep")?,
            pauses: module.function("pauses")?,
            module,
            context,
            info,
            l2: Bytes(u64::from(l2)),
        })
    }

    /// Facts about the GPU.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn stream(&self, green: Option<&Rc<Green>>) -> Result<Rc<Stream>, DeviceError> {
        Stream::new(&self.context, green, 0)
    }

    fn spin(&self, stream: &Stream, ns: u64) -> Result<(), DeviceError> {
        stream.launch(self.spin, [1, 1, 1], 32, &mut [ns, 0])
    }

    /// Host time of one launch, ns, over a burst of launches of the empty kernel.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn launch(&self) -> Result<f64, DeviceError> {
        let stream = self.stream(None)?;
        self.spin(&stream, 0)?;
        stream.synchronize()?;
        let began = Instant::now();
        for _ in 0..BURST {
            self.spin(&stream, 0)?;
        }
        let host = began.elapsed();
        stream.synchronize()?;
        Ok(host.as_nanos() as f64 / f64::from(BURST))
    }

    /// GPU time from one kernel of a chain to the next, ns: all in one stream, or with hops.
    ///
    /// # Errors
    /// The driver refuses, there are no partitions, or the host is slower than the GPU.
    pub fn chain(&self, hop: Option<Hop>) -> Result<f64, DeviceError> {
        let streams = match hop {
            None | Some(Hop::Stream) => [self.stream(None)?, self.stream(None)?],
            Some(Hop::Partition | Hop::Barrier) => {
                if !self.green {
                    let why = "the driver has none: 550 or newer";
                    return Err(DeviceError::unsupported("green contexts", why));
                }
                let atoms = &Atoms::cut(&self.context, true)?;
                let half = atoms.len() / 2;
                let side = |from: u32| (from..from + half).collect::<Vec<u32>>();
                let left = Green::new(&self.context, atoms, &side(0))?;
                let right = Green::new(&self.context, atoms, &side(half))?;
                [self.stream(Some(&left))?, self.stream(Some(&right))?]
            }
        };
        // The whole chain must be queued before it starts, or else the host would be measured.
        let mut head = 2_000_000;
        while head <= 200_000_000 {
            if let Some(ns) = self.queued_chain(hop, &streams, head)? {
                return Ok(ns);
            }
            head *= 4;
        }
        let why = format!("the host does not queue {LINKS} launches within 200 ms");
        Err(DeviceError::unsupported("a chain of kernels", why))
    }

    /// Runs the chain behind a kernel of `head` ns; `None` if that kernel ended before the chain was
    /// queued.
    fn queued_chain(
        &self,
        hop: Option<Hop>,
        [a, b]: &[Rc<Stream>; 2],
        head: u64,
    ) -> Result<Option<f64>, DeviceError> {
        let (start, end) = (Event::new(a)?, Event::new(a)?);
        let mut events = Vec::new();
        let mut pass = |from: &Stream, to: &Stream| {
            let event = Event::untimed(from)?;
            event.record(from)?;
            to.wait(&event)?;
            events.push(event);
            Ok::<_, DeviceError>(())
        };
        self.spin(a, head)?;
        start.record(a)?;
        b.wait(&start)?;
        for i in 0..LINKS {
            match hop {
                None => self.spin(a, 0)?,
                Some(Hop::Stream | Hop::Partition) => {
                    let (from, to) = if i % 2 == 0 { (a, b) } else { (b, a) };
                    self.spin(from, 0)?;
                    pass(from, to)?;
                }
                Some(Hop::Barrier) => {
                    self.spin(a, 0)?;
                    self.spin(b, 0)?;
                    pass(a, b)?;
                    pass(b, a)?;
                }
            }
        }
        end.record(a)?;
        let in_time = !start.reached()?;
        a.synchronize()?;
        b.synchronize()?;
        let ns = end.since(&start)? as f64 / f64::from(LINKS);
        Ok(in_time.then_some(ns))
    }

    /// Time to load our kernels as PTX and find one of them, ns. The driver keeps compiled code in a
    /// cache on disk unless `CUDA_CACHE_DISABLE` is set.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn module_load(&self) -> Result<f64, DeviceError> {
        let began = Instant::now();
        let module = Module::load(&self.context, &recipe::PTX)?;
        module.function("spin")?;
        Ok(began.elapsed().as_nanos() as f64)
    }

    /// Bandwidth of a copy from or to pinned memory, 10^9 bytes per second.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn copy(&self, direction: Direction) -> Result<Vec<f64>, DeviceError> {
        let bytes = if self.info.kind == Kind::Gpu { 256 << 20 } else { 1 << 20 };
        let stream = self.stream(None)?;
        let host = Pinned::new(&self.context, bytes)?;
        let device = Buffer::zeroed(&self.context, bytes)?;
        self.rates(bytes as u64, &stream, || host.copy(direction, &device, bytes, &stream))
    }

    /// Bandwidth of reads by all SMs, 10^9 bytes per second.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn read(&self, level: Level) -> Result<Vec<f64>, DeviceError> {
        let l2 = if self.l2.0 == 0 { 32 << 20 } else { self.l2.0 };
        let (bytes, rounds) = match level {
            _ if self.info.kind != Kind::Gpu => (1 << 20, 4),
            Level::L2 => (l2 / 4, 1000),
            Level::Dram => ((self.info.memory.0 / 8).min(4 << 30).max(16 * l2), 1),
        };
        let stream = self.stream(None)?;
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory = Buffer::zeroed(&self.context, size)?;
        let sink = Buffer::zeroed(&self.context, 4)?;
        let grid = [self.info.cus * 8, 1, 1];
        self.rates(bytes * rounds, &stream, || {
            let values = &mut [memory.address, bytes / 16, rounds, sink.address];
            stream.launch(self.sweep, grid, READERS, values)
        })
    }

    /// Rates of an operation on this many bytes, after one run that does not count.
    fn rates(
        &self,
        bytes: u64,
        stream: &Stream,
        mut once: impl FnMut() -> Result<(), DeviceError>,
    ) -> Result<Vec<f64>, DeviceError> {
        const SAMPLES: usize = 15;
        once()?;
        let mut rates = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            let (start, end) = (Event::new(stream)?, Event::new(stream)?);
            start.record(stream)?;
            once()?;
            end.record(stream)?;
            stream.synchronize()?;
            rates.push(bytes as f64 / end.since(&start)?.max(1) as f64);
        }
        Ok(rates)
    }

    /// Distinct SMs that ran blocks of a kernel large enough to fill the GPU many times over.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn sms_seen(&self) -> Result<u32, DeviceError> {
        let blocks = 32 * self.info.cus.max(1);
        let stream = self.stream(None)?;
        let places = Buffer::zeroed(&self.context, 8 * blocks as usize)?;
        stream.launch(self.spin, [blocks, 1, 1], 128, &mut [200_000, places.address])?;
        stream.synchronize()?;
        let mut seen = places.read_words()?;
        seen.sort_unstable();
        seen.dedup();
        Ok(u32::try_from(seen.len()).unwrap_or(u32::MAX))
    }

    /// Watches the GPU's clock for `ns`, noting pauses of more than `least` ns.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn watch(&self, ns: u64, least: u64) -> Result<Watch, DeviceError> {
        const ROOM: usize = 4096;
        let stream = self.stream(None)?;
        let out = Buffer::zeroed(&self.context, 8 * (4 + 2 * ROOM))?;
        let values = &mut [ns, least, out.address, ROOM as u64];
        stream.launch(self.pauses, [1, 1, 1], 1, values)?;
        stream.synchronize()?;
        let words = out.read_words()?;
        let (head, pairs) = words.split_at(4);
        let kept = usize::try_from(head[0]).unwrap_or(usize::MAX).min(ROOM);
        let (pairs, _) = pairs.as_chunks::<2>();
        Ok(Watch {
            span: [head[1], head[2]],
            step: head[3],
            pauses: pairs[..kept].to_vec(),
            unseen: head[0] - kept as u64,
        })
    }

    /// Runs one kernel and waits for it.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn one_kernel(&self) -> Result<(), DeviceError> {
        let _ = &self.module;
        let stream = self.stream(None)?;
        self.spin(&stream, 0)?;
        stream.synchronize()
    }
}
