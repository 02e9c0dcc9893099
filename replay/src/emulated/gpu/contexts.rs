//! Contexts of the emulated GPU: what a process owns there, and what is lost with the process.

use cotenant_profiles::Bytes;
use cotenant_sim::layout::Discipline;

use super::Gpu;
use super::parts::Context;
use crate::device::Completion;
use crate::error::DeviceError;

impl Gpu {
    pub(in crate::emulated) fn open_context(&mut self) -> u32 {
        self.contexts.push(Context::default());
        self.contexts.len() as u32 - 1
    }

    /// The process has gone: its queued work is dropped and its memory freed. A kernel that is on the
    /// CUs runs to its end.
    pub(in crate::emulated) fn close_context(&mut self, now: u64, context: u32) {
        self.run_to(now);
        self.abandon(context);
        let c = &mut self.contexts[context as usize];
        c.closed = true;
        for (pool, bytes) in c.taken.drain(..) {
            self.memory[pool as usize] -= bytes;
        }
    }

    pub(super) fn abandon(&mut self, context: u32) {
        let mut dropped = 0;
        for s in 0..self.streams.len() {
            if self.streams[s].context != context {
                continue;
            }
            let stream = &mut self.streams[s];
            dropped += stream.waiting.len();
            stream.waiting.clear();
            if stream.head.is_none() {
                self.batch(s as u32, false);
            }
        }
        self.contexts[context as usize].outstanding -= dropped;
    }

    /// Ends all batches of a context, so that no other context's turn waits for them.
    pub(in crate::emulated) fn end_batches(&mut self, context: u32) {
        for s in 0..self.streams.len() {
            if self.streams[s].context == context {
                self.batch(s as u32, false);
            }
        }
    }

    pub(in crate::emulated) fn take_memory(
        &mut self,
        context: u32,
        pool: u32,
        bytes: Bytes,
    ) -> Result<(), DeviceError> {
        let used = &mut self.memory[pool as usize];
        let free = self.specs[pool as usize].memory.0 - *used;
        if bytes.0 > free {
            return Err(DeviceError::OutOfMemory { need: bytes, free: Bytes(free) });
        }
        *used += bytes.0;
        self.contexts[context as usize].taken.push((pool, bytes.0));
        Ok(())
    }

    /// Appends what has ended in a context. A lost context is an error.
    pub(in crate::emulated) fn take_ended(
        &mut self,
        context: u32,
        ended: &mut Vec<Completion>,
    ) -> Result<(), DeviceError> {
        let context = &mut self.contexts[context as usize];
        ended.append(&mut context.ended);
        context.lost.clone().map_or(Ok(()), Err)
    }

    /// Whether a context has something to report.
    pub(in crate::emulated) fn has_news(&self, context: u32) -> bool {
        let context = &self.contexts[context as usize];
        !context.ended.is_empty() || context.lost.is_some()
    }

    pub(in crate::emulated) fn outstanding(&self, context: u32) -> usize {
        self.contexts[context as usize].outstanding
    }

    /// Number of ends that have not been taken.
    pub(in crate::emulated) fn untold(&self, context: u32) -> usize {
        self.contexts[context as usize].ended.len()
    }

    /// The kernel at the head of `stream` fails. Its context is lost, and under MPS so is every other
    /// context on the same pool.
    pub(super) fn fail(&mut self, stream: u32) {
        let s = &self.streams[stream as usize];
        let (context, pool) = (s.context, s.site.pool);
        let shot = s.kernel().expect("a kernel fails");
        let id = self.code.kernels[shot.kernel as usize].id.clone();
        let mps = self.specs[pool as usize].discipline == Discipline::Concurrent;
        let spreads = mps && self.fault.is_some_and(|f| f.spreads);
        let neighbours: Vec<u32> = self
            .streams
            .iter()
            .filter(|s| spreads && s.site.pool == pool && s.context != context)
            .map(|s| s.context)
            .collect();
        self.contexts[context as usize].lost = Some(DeviceError::KernelFailed(id));
        self.abandon(context);
        for n in neighbours {
            if self.contexts[n as usize].lost.is_none() {
                self.contexts[n as usize].lost = Some(DeviceError::NeighbourFailed);
                self.abandon(n);
            }
        }
    }
}
