//! Another process's emulated GPU, as a device of this process.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::host::Part;
use cotenant_sim::layout::{PoolSpec, WorkerSpec};

use super::wire::{Ask, Order, Tell, hear, say};
use crate::clock::Clock;
use crate::device::{
    Completion, Device, DeviceInfo, Direction, End, Kind, Launch, Overhead, Partition, Prepared,
    Queue, Ticket,
};
use crate::error::DeviceError;
use crate::work::Work;

/// A context on the emulated GPU that another process keeps ([`super::Server`]).
///
/// Launches are collected, and sent together when the device is next asked for anything.
pub struct RemoteDevice {
    info: DeviceInfo,
    clock: Clock,
    out: BufWriter<UnixStream>,
    news: Receiver<Tell>,
    orders: Vec<Order>,
    ended: Vec<Completion>,
    lost: Option<DeviceError>,
    known: HashMap<(u32, u32), Prepared>,
    next_ticket: u64,
}

impl RemoteDevice {
    /// Opens a context over a connection to the process that keeps the GPU.
    ///
    /// # Errors
    /// The process does not answer.
    pub fn connect(socket: UnixStream) -> Result<Self, DeviceError> {
        let gone = |e: std::io::Error| DeviceError::Gone(e.to_string());
        let reading = socket.try_clone().map_err(gone)?;
        let (letters, news) = channel();
        let listen = move || {
            let mut from = BufReader::new(reading);
            while let Ok(Some(tell)) = hear::<Tell>(&mut from) {
                if letters.send(tell).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("gpu-listen".to_owned()).spawn(listen).map_err(gone)?;
        let mut device = Self {
            info: DeviceInfo {
                name: String::new(),
                kind: Kind::Emulated,
                uuid: String::new(),
                cus: 0,
                grain: 1,
                memory: Bytes(0),
                driver: "none".to_owned(),
            },
            clock: Clock::wall(),
            out: BufWriter::new(socket),
            news,
            orders: Vec::new(),
            ended: Vec::new(),
            lost: None,
            known: HashMap::new(),
            next_ticket: 0,
        };
        match device.ask(&Ask::Hello)? {
            Tell::Facts { name, cus, grain, memory, clock } => {
                let info = &mut device.info;
                (info.name, info.cus, info.grain, info.memory) = (name, cus, grain, Bytes(memory));
                device.clock = clock;
                Ok(device)
            }
            other => Err(DeviceError::Gone(format!("an answer out of place: {other:?}"))),
        }
    }

    fn say(&mut self, what: &Ask) -> Result<(), DeviceError> {
        say(&mut self.out, what).map_err(|e| DeviceError::Gone(e.to_string()))
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        if self.orders.is_empty() {
            return Ok(());
        }
        let orders = Ask::Orders(std::mem::take(&mut self.orders));
        self.say(&orders)
    }

    fn ask(&mut self, what: &Ask) -> Result<Tell, DeviceError> {
        self.flush()?;
        self.say(what)?;
        loop {
            let tell = self.news.recv().map_err(|_| gone())?;
            match tell {
                Tell::Refused(why) => return Err(why.into()),
                Tell::Done(..) | Tell::Facts { .. } => return Ok(tell),
                unasked => self.note(unasked),
            }
        }
    }

    /// The number in the answer to `what`, and the CUs if it is about a partition.
    fn number(&mut self, what: &Ask) -> Result<(u32, u32), DeviceError> {
        match self.ask(what)? {
            Tell::Done(index, cus) => Ok((index, cus)),
            other => Err(DeviceError::Gone(format!("an answer out of place: {other:?}"))),
        }
    }

    fn note(&mut self, tell: Tell) {
        match tell {
            Tell::Ended(rows) => self.ended.extend(rows.into_iter().map(|(t, d, at)| Completion {
                ticket: Ticket(t),
                duration: Nanos(d),
                at: Nanos(at),
                end: End::Done,
            })),
            Tell::Lost(why) => {
                self.lost.get_or_insert(why.into());
            }
            // An answer that no caller waits for is ignored.
            Tell::Facts { .. } | Tell::Done(..) | Tell::Refused(_) => {}
        }
    }

    fn order(&mut self, order: Order) -> Ticket {
        self.orders.push(order);
        self.next_ticket += 1;
        Ticket(self.next_ticket - 1)
    }
}

fn gone() -> DeviceError {
    DeviceError::Gone("its process has closed the connection".to_owned())
}

impl Drop for RemoteDevice {
    fn drop(&mut self) {
        // The listening thread has a copy of the socket, so closing ours alone would end nothing.
        let _ = self.out.get_ref().shutdown(std::net::Shutdown::Both);
    }
}

impl Device for RemoteDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn partition(&mut self, first: u32, cus: u32) -> Result<Partition, DeviceError> {
        let (index, granted) = self.number(&Ask::Partition { first, cus })?;
        Ok(Partition { index, granted })
    }

    fn place(&mut self, _: &[PoolSpec], worker: &WorkerSpec) -> Result<Partition, DeviceError> {
        let WorkerSpec { pool, lane, cap, .. } = *worker;
        let (index, granted) = self.number(&Ask::Place { pool, lane, cap })?;
        Ok(Partition { index, granted })
    }

    fn allocate(&mut self, partition: Partition, bytes: Bytes) -> Result<(), DeviceError> {
        let ask = Ask::Allocate { partition: partition.index, bytes: bytes.0 };
        self.number(&ask).map(|_| ())
    }

    fn queue(&mut self, partition: Partition, priority: i8) -> Result<Queue, DeviceError> {
        self.number(&Ask::Queue { partition: partition.index, priority }).map(|(i, _)| Queue(i))
    }

    fn prepare(&mut self, _: Queue, work: &Work) -> Result<Prepared, DeviceError> {
        let reason = "the GPU of another process knows only the scenario's kernels";
        Err(DeviceError::unsupported(&work.id, reason))
    }

    fn prepare_kernel(&mut self, queue: Queue, kernel: u32) -> Result<Prepared, DeviceError> {
        if let Some(&known) = self.known.get(&(queue.0, kernel)) {
            return Ok(known);
        }
        let (index, _) = self.number(&Ask::Kernel { queue: queue.0, kernel })?;
        self.known.insert((queue.0, kernel), Prepared(index));
        Ok(Prepared(index))
    }

    fn merge(&mut self, queue: Queue, parts: &[Prepared]) -> Result<Prepared, DeviceError> {
        let parts = parts.iter().map(|p| p.0).collect();
        self.number(&Ask::Merge { queue: queue.0, parts }).map(|(i, _)| Prepared(i))
    }

    fn launch(&mut self, work: Prepared) -> Result<Ticket, DeviceError> {
        self.submit(&Launch::of(work))
    }

    fn submit(&mut self, launch: &Launch) -> Result<Ticket, DeviceError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let Launch { work, issued, mask, priority, part, scale, first, last, reported } = *launch;
        if part != Part::WHOLE {
            let reason = "another process keeps this GPU";
            return Err(DeviceError::unsupported("a slice of a kernel", reason));
        }
        if mask.is_some() {
            let reason = "processes have CUs of their own, not masks per kernel";
            return Err(DeviceError::unsupported("a launch with a mask", reason));
        }
        let (work, issued) = (work.0, issued.0);
        Ok(self.order(Order::Launch { work, issued, priority, scale, first, last, reported }))
    }

    fn copy(
        &mut self,
        queue: Queue,
        direction: Direction,
        bytes: Bytes,
        issued: Nanos,
    ) -> Result<Ticket, DeviceError> {
        let (queue, bytes, issued) = (queue.0, bytes.0, issued.0);
        Ok(self.order(Order::Copy { queue, direction, bytes, issued }))
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn doze(&mut self, most: Duration) {
        // The next poll reports a connection that is gone.
        if self.flush().is_err() || !self.ended.is_empty() || self.lost.is_some() {
            return;
        }
        match self.news.recv_timeout(most) {
            Ok(tell) => self.note(tell),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.lost = Some(gone()),
        }
    }

    fn poll(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        self.flush()?;
        loop {
            match self.news.try_recv() {
                Ok(tell) => self.note(tell),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.lost.get_or_insert_with(gone);
                    break;
                }
            }
        }
        ended.append(&mut self.ended);
        self.lost.clone().map_or(Ok(()), Err)
    }

    fn wait(&mut self, ended: &mut Vec<Completion>) -> Result<(), DeviceError> {
        /// How often to ask whether unreported work has ended.
        const AGAIN: Duration = Duration::from_millis(1);
        while self.number(&Ask::Outstanding)?.0 > 0 {
            self.doze(AGAIN);
            self.poll(ended)?;
        }
        // Answers come after whatever ended before them.
        self.poll(ended)
    }

    /// The overhead of a question and its answer; events cost nothing here.
    fn overhead(&mut self) -> Result<Overhead, DeviceError> {
        const ROUNDS: u64 = 64;
        let began = Clock::wall().now();
        for _ in 0..ROUNDS {
            self.number(&Ask::Outstanding)?;
        }
        let launch = Nanos(Clock::wall().now().since(began).0 / ROUNDS);
        Ok(Overhead { events: Nanos::ZERO, plain: launch, launch, poll: launch })
    }
}
