//! Numbers that a worker process counts up and its parent reads, without either asking the other. They
//! reveal a process that stands still.
#![allow(unsafe_code)] // a mapping of memory that two processes share

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// One of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Counts every round of the worker's loop.
    Beats,
    /// Passes run.
    Passes,
    /// Kernels handed to the device.
    Kernels,
}

const COUNT: usize = 3;
const BYTES: usize = COUNT * size_of::<AtomicU64>();

/// A block of counters in memory without a file name. It is freed with the last process that holds it.
pub struct Counters {
    memory: NonNull<AtomicU64>,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the value alone and is reached by atomic operations only.
unsafe impl Send for Counters {}

impl Counters {
    /// A new block, all 0.
    ///
    /// # Errors
    /// The system provides no memory.
    pub fn new() -> std::io::Result<Self> {
        let fd = memfd_create("cotenant-counters", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, BYTES as u64)?;
        Self::map(fd)
    }

    /// The block of another process.
    ///
    /// # Errors
    /// It cannot be opened, or is not a block of counters.
    pub fn open(path: &str) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        if file.metadata()?.len() != BYTES as u64 {
            return Err(std::io::Error::other("no block of counters"));
        }
        Self::map(file.into())
    }

    fn map(fd: OwnedFd) -> std::io::Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping of a file that is at least as long; no Rust memory is touched.
        let at =
            unsafe { mmap(std::ptr::null_mut(), BYTES, rights, MapFlags::SHARED, fd.as_fd(), 0)? };
        let memory = NonNull::new(at.cast()).expect("a mapping is not at 0");
        Ok(Self { memory, fd })
    }

    /// A path by which another process of this user can open the block while this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// The value of a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.at(counter).load(Ordering::Relaxed)
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter, n: u64) {
        self.at(counter).fetch_add(n, Ordering::Relaxed);
    }

    fn at(&self, counter: Counter) -> &AtomicU64 {
        // SAFETY: within the mapping, which lives as long as `self`; zero bytes are a valid
        // `AtomicU64`, page boundaries are aligned for it, and both sides use atomics alone.
        unsafe { self.memory.add(counter as usize).as_ref() }
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.memory.as_ptr().cast(), BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours goes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_counts_the_other_reads() {
        let ours = Counters::new().unwrap();
        let theirs = Counters::open(&ours.path()).unwrap();
        theirs.add(Counter::Beats, 2);
        theirs.add(Counter::Kernels, 40);
        let all = [Counter::Beats, Counter::Passes, Counter::Kernels].map(|c| ours.get(c));
        assert_eq!(all, [2, 0, 40]);
        drop(ours);
        theirs.add(Counter::Beats, 1);
        assert_eq!(theirs.get(Counter::Beats), 3);
        assert!(Counters::open("/proc/self/exe").is_err());
    }
}
