//! A million dispatches allocate nothing that stays. A program of its own: its allocator counts for the
//! whole process.
#![allow(unsafe_code, clippy::print_stderr)] // an allocator that counts; the test prints its numbers

mod instant;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

static LIVE: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: the system's allocator does the work; the count is not part of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_million_dispatches_allocate_nothing_that_stays() {
    for policy in ["mps", "krisp", "coalesce"] {
        let (mut early, mut late) = (0, 0);
        instant::dispatch(policy, 1_000_000, &mut |n| match n {
            // By then every queue, table and histogram has its size.
            100_000 => early = LIVE.load(Ordering::Relaxed),
            1_000_000 => late = LIVE.load(Ordering::Relaxed),
            _ => {}
        });
        eprintln!("{policy}: {early} bytes after 10^5 launches, {late} after 10^6");
        assert!(late - early < 16 << 10, "{policy}: {} bytes more", late - early);
    }
}
