//! A device on which everything ends at once: what remains is the dispatcher.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // a test and a bench use parts of it

use std::sync::Arc;

use cotenant_profiles::{Bytes, Device as Gpu, Nanos, analytic, zoo};
use cotenant_replay::clock::Clock;
use cotenant_replay::device::{self, Direction};
use cotenant_replay::drive::{self, Kernels, ReplayError, Stop, Streams};
use cotenant_replay::{
    Completion, Device, DeviceError, DeviceInfo, Kind, Overhead, Partition, Prepared, Queue,
    Ticket, Work,
};
use cotenant_sim::Class;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::{PoolSpec, WorkerSpec};
use cotenant_sim::policy::{Options, find};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Load, Scenario, Setup, Tenant, Think};

/// Ends what it is given when it is asked; stops the run after so many launches.
pub struct Instant<'a> {
    info: DeviceInfo,
    clock: Clock,
    pending: Vec<Ticket>,
    queues: u32,
    pub launches: u64,
    most: u64,
    stop: Stop,
    /// Called at every launch with its number.
    watch: &'a mut dyn FnMut(u64),
}

impl Instant<'_> {
    fn ticket(&mut self) -> Ticket {
        self.launches += 1;
        (self.watch)(self.launches);
        if self.launches == self.most {
            self.stop.now();
        }
        Ticket(self.launches)
    }
}

impl Device for Instant<'_> {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn partition(&mut self, _: u32, cus: u32) -> Result<Partition, DeviceError> {
        Ok(Partition { index: 1, granted: cus })
    }

    fn place(&mut self, _: &[PoolSpec], worker: &WorkerSpec) -> Result<Partition, DeviceError> {
        Ok(Partition { index: 1, granted: worker.cap })
    }

    fn queue(&mut self, _: Partition, _: i8) -> Result<Queue, DeviceError> {
        self.queues += 1;
        Ok(Queue(self.queues - 1))
    }

    fn prepare(&mut self, _: Queue, _: &Work) -> Result<Prepared, DeviceError> {
        Ok(Prepared(0))
    }

    fn prepare_kernel(&mut self, _: Queue, kernel: u32) -> Result<Prepared, DeviceError> {
        Ok(Prepared(kernel))
    }

    fn merge(&mut self, _: Queue, parts: &[Prepared]) -> Result<Prepared, DeviceError> {
        Ok(parts[0])
    }

    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError> {
        self.submit(&device::Launch::of(work))
    }

    fn submit(&mut self, launch: &device::Launch) -> Result<Ticket, DeviceError> {
        let ticket = self.ticket();
        if launch.reported {
            self.pending.push(ticket);
        }
        Ok(ticket)
    }

    fn copy(&mut self, _: Queue, _: Direction, _: Bytes, _: Nanos) -> Result<Ticket, DeviceError> {
        let ticket = self.ticket();
        self.pending.push(ticket);
        Ok(ticket)
    }

    fn masks_launches(&self) -> bool {
        true
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn next_event(&mut self) -> Option<Nanos> {
        (!self.pending.is_empty()).then_some(Nanos::ZERO)
    }

    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        let at = self.clock.now();
        let done = self.pending.drain(..);
        ended.extend(done.map(|ticket| Completion {
            ticket,
            duration: Nanos::ZERO,
            at,
            end: device::End::Done,
        }));
        Ok(())
    }

    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        self.poll(ended)
    }

    fn overhead(&mut self) -> Result<Overhead, DeviceError> {
        Ok(Overhead::default())
    }
}

/// Two models without host costs, four workers each, always busy.
fn scenario() -> Scenario {
    let device = Gpu::builtin("a100-sxm-40").unwrap();
    let options = analytic::Options::default();
    let specs = ["alexnet", "squeezenet1_1"].map(|m| zoo::find(m).unwrap());
    let specs: Vec<_> = specs.iter().collect();
    let profile = analytic::profile(&device, &specs, &[1], &options).unwrap();
    let mut code = Code::default();
    let tenants = ["alexnet", "squeezenet1_1"].map(|name| {
        let mut model = code.compile(&profile, name, 1, device.cus()).unwrap();
        (model.input_per_item, model.output_per_item) = (Bytes(0), Bytes(0));
        model.host_per_request = Nanos::ZERO;
        Arc::make_mut(&mut model.programs)
            .iter_mut()
            .for_each(|p| p.issued_ns.iter_mut().for_each(|ns| *ns = 0));
        Tenant {
            name: name.to_owned(),
            model,
            class: Class::Latency,
            slo: None,
            workers: 4,
            batch_max: 1,
            batch_timeout: Nanos::ZERO,
            generates: None,
            per_request_batches: false,
            drop_after: None,
        }
    });
    let think = || Think::Constant(Nanos::ZERO);
    let load =
        || Load::Closed { concurrency: 4, think: think(), items: 1, limit: None, tokens: None };
    Scenario {
        loads: vec![load(), load()],
        contention: ContentionModel::None,
        setup: Arc::new(Setup {
            costs: device.costs.ideal(),
            device,
            code: code.into(),
            tenants: tenants.to_vec(),
        }),
        warmup: Nanos::ZERO,
        duration: Nanos::from_secs(3600),
        jitter: None,
    }
}

/// Drives `policy` for so many launches.
pub fn dispatch(policy: &str, launches: u64, watch: &mut dyn FnMut(u64)) {
    let scenario = scenario();
    let mut policy = (find(policy).unwrap().build)(&Options::default()).unwrap();
    let layout = policy.layout(&scenario.setup).unwrap();
    let stop = Stop::new();
    let count = scenario.setup.code.kernels.len();
    let mut device = Instant {
        info: DeviceInfo {
            name: "instant".to_owned(),
            kind: Kind::Emulated,
            uuid: String::new(),
            cus: scenario.setup.device.cus(),
            grain: 1,
            memory: Bytes(0),
            driver: String::new(),
        },
        clock: Clock::start(1.0),
        pending: Vec::with_capacity(64),
        queues: 0,
        launches: 0,
        most: launches,
        stop: stop.clone(),
        watch,
    };
    let mut streams = Streams::new(&mut device, Kernels::Numbered, count);
    let ended = drive::run(scenario, &mut *policy, &layout, &mut streams, None, &stop);
    assert!(matches!(ended, Err(ReplayError::Stopped)));
}
