//! Watching a run: hooks that the host and its world call, for timelines and time series. A run without an
//! observer pays one predictable branch per hook.

use cotenant_profiles::Nanos;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // field names say it; units are in the types
pub enum Happening {
    Arrived {
        tenant: u32,
    },
    BatchBegan {
        worker: u32,
        items: u32,
    },
    /// A kernel got `cus` CUs (again, if it already runs); 0: it has to wait.
    Granted {
        worker: u32,
        kernel: u32,
        cus: u32,
    },
    KernelEnded {
        worker: u32,
        kernel: u32,
    },
    BatchEnded {
        worker: u32,
        items: u32,
    },
    RequestDone {
        tenant: u32,
        arrival: Nanos,
    },
    Dropped {
        tenant: u32,
    },
    /// A context switch began; `lane` is the one to come.
    Switching {
        pool: u32,
        lane: u32,
    },
    WorkerUp {
        worker: u32,
    },
    WorkerDown {
        worker: u32,
    },
    /// The number of CUs of a pool in use from now on.
    Busy {
        pool: u32,
        cus: u32,
    },
}

/// Receives all events of a run, in time order.
pub trait Observer {
    /// `what` happened at `now`.
    fn happened(&mut self, now: Nanos, what: Happening);

    /// Whether it wants events on the GPU: kernels, grants, context switches, busy CUs. Otherwise it
    /// receives only those of requests, batches and workers, and the run may skip ahead.
    fn watches_gpu(&self) -> bool {
        true
    }
}
