//! One emulated GPU for several processes, each with its own connection and context.
//!
//! One thread per connection carries out questions and orders and another one writes, so that a process
//! that stands still does not hold up the others. A single thread advances the GPU's time. A connection
//! is an unnamed pair of sockets: nothing is left in the file system, and a process that dies closes
//! its end.

use std::io::{BufReader, BufWriter};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::layout::{Role, WorkerSpec};

use super::wire::{Ask, Order, Tell, hear, say};
use super::{Common, EmulatedDevice};
use crate::device::{Device, Launch, Partition, Prepared, Queue};
use crate::error::DeviceError;

struct Connection {
    context: u32,
    outbox: Sender<Tell>,
    socket: UnixStream,
    /// Whether the process knows that its context is lost.
    told: bool,
}

/// Serves an emulated GPU to other processes until it is dropped. The connections end with it.
pub struct Server {
    device: EmulatedDevice,
    connections: Arc<Mutex<Vec<Connection>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves the GPU behind `device`.
    ///
    /// # Errors
    /// The system provides no thread.
    pub fn new(device: &EmulatedDevice) -> std::io::Result<Self> {
        let device = device.context();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let pace = {
            let common = Arc::clone(&device.common);
            let (connections, stop) = (Arc::clone(&connections), Arc::clone(&stop));
            thread("gpu-pace", move || pace(&common, &connections, &stop))?
        };
        Ok(Self { device, connections, stop, threads: vec![pace] })
    }

    /// Makes a new context and returns the other end of its connection.
    ///
    /// # Errors
    /// The system provides no socket or thread.
    pub fn connect(&mut self) -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let device = self.device.context();
        let context = device.context;
        let (outbox, letters) = channel();
        let writing = ours.try_clone()?;
        self.threads.push(thread("gpu-write", move || write(writing, &letters))?);
        let reading = ours.try_clone()?;
        let (replies, connections) = (outbox.clone(), Arc::clone(&self.connections));
        self.threads.push(thread("gpu-read", move || {
            let device = read(device, reading, &replies);
            let others = |c: &Connection| c.context != context;
            connections.lock().unwrap_or_else(PoisonError::into_inner).retain(others);
            // Drop it only now: a thread that holds the GPU may be waiting for the list.
            drop(device);
        })?);
        let connection = Connection { context, outbox, socket: ours, told: false };
        self.lock().push(connection);
        Ok(theirs)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for connection in self.lock().drain(..) {
            // A peer that has gone has already closed it.
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        self.device.common.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has already reported it.
            let _ = thread.join();
        }
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Advances time, and reports what has ended to the processes that wait for it.
fn pace(common: &Common, connections: &Mutex<Vec<Connection>>, stop: &AtomicBool) {
    let mut gpu = common.lock();
    while !stop.load(Ordering::Acquire) {
        gpu.run_to(common.clock.now().0);
        for c in connections.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if c.told || !gpu.has_news(c.context) {
                continue;
            }
            let mut ended = Vec::new();
            let lost = gpu.take_ended(c.context, &mut ended).err();
            // A process that has gone does not miss the message.
            if !ended.is_empty() {
                let rows = ended.iter().map(|c| (c.ticket.0, c.duration.0, c.at.0));
                let _ = c.outbox.send(Tell::Ended(rows.collect()));
            }
            if let Some(lost) = lost {
                c.told = true;
                let _ = c.outbox.send(Tell::Lost(lost.into()));
            }
        }
        gpu = match gpu.next_event().map(|at| common.clock.until(Nanos(at))) {
            Some(wait) if wait.is_zero() => gpu,
            Some(wait) => common.changed.wait_timeout(gpu, wait).expect(super::SOUND).0,
            None => common.changed.wait(gpu).expect(super::SOUND),
        };
    }
}

fn write(socket: UnixStream, letters: &Receiver<Tell>) {
    let mut out = BufWriter::new(socket);
    for letter in letters {
        if say(&mut out, &letter).is_err() {
            return; // The process has gone; its reader sees the same.
        }
    }
}

/// Serves one process until it goes; its context goes with it.
fn read(mut device: EmulatedDevice, socket: UnixStream, replies: &Sender<Tell>) -> EmulatedDevice {
    let mut from = BufReader::new(socket);
    // A process that sends something other than these messages is as good as gone.
    while let Ok(Some(ask)) = hear::<Ask>(&mut from) {
        let reply = match ask {
            Ask::Orders(orders) => {
                // A lost context reports that by itself.
                let carried = orders.iter().try_for_each(|o| carry_out(&mut device, o));
                match carried {
                    Ok(()) => continue,
                    Err(e) => Tell::Lost(e.into()),
                }
            }
            other => answer(&mut device, other).unwrap_or_else(|e| Tell::Refused(e.into())),
        };
        if replies.send(reply).is_err() {
            break;
        }
    }
    device
}

fn carry_out(device: &mut EmulatedDevice, order: &Order) -> Result<(), DeviceError> {
    match *order {
        Order::Launch { work, issued, priority, scale, first, last, reported } => {
            let (work, issued) = (Prepared(work), Nanos(issued));
            let whole = Launch { work, issued, ..Launch::of(work) };
            device.submit(&Launch { priority, scale, first, last, reported, ..whole })?;
        }
        Order::Copy { queue, direction, bytes, issued } => {
            device.copy(Queue(queue), direction, Bytes(bytes), Nanos(issued))?;
        }
    }
    Ok(())
}

fn answer(device: &mut EmulatedDevice, ask: Ask) -> Result<Tell, DeviceError> {
    let place = |p: Partition| Tell::Done(p.index, p.granted);
    // Only the number of a partition is known here.
    let partition = |index| Partition { index, granted: 0 };
    Ok(match ask {
        Ask::Hello => {
            let clock = device.clock();
            let info = device.info();
            let (name, memory) = (info.name.clone(), info.memory.0);
            Tell::Facts { name, cus: info.cus, grain: info.grain, memory, clock }
        }
        Ask::Place { pool, lane, cap } => {
            let overhead = Bytes(0);
            let spec =
                WorkerSpec { tenant: 0, pool, lane, cap, priority: 0, overhead, role: Role::Whole };
            place(device.place(&[], &spec)?)
        }
        Ask::Partition { first, cus } => place(device.partition(first, cus)?),
        Ask::Allocate { partition: index, bytes } => {
            device.allocate(partition(index), Bytes(bytes))?;
            Tell::Done(0, 0)
        }
        Ask::Queue { partition: index, priority } => {
            Tell::Done(device.queue(partition(index), priority)?.0, 0)
        }
        Ask::Kernel { queue, kernel } => {
            Tell::Done(device.prepare_kernel(Queue(queue), kernel)?.0, 0)
        }
        Ask::Merge { queue, parts } => {
            let parts: Vec<_> = parts.into_iter().map(Prepared).collect();
            Tell::Done(device.merge(Queue(queue), &parts)?.0, 0)
        }
        Ask::Outstanding => Tell::Done(device.outstanding(), 0),
        Ask::Orders(_) => unreachable!("orders are carried out, not answered"),
    })
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
