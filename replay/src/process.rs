//! Workers as processes of their own, for mechanisms that need them: contexts that take turns, shares
//! under MPS, a shadow beside the worker that it replaces, several instances of a model.
//!
//! A worker is this program again, started as `cotenant worker` ([`child`]). Its standard input tells
//! it what to be and what to run ([`messages`]); it runs that on its own device and shows in shared
//! memory that it is alive ([`Counters`]). An emulated GPU stays with the process that started the
//! workers, and each worker has a context on it over its standard output; on a real GPU each worker
//! opens its own context.
//!
//! No worker outlives its parent: the system kills it with the parent (`PR_SET_PDEATHSIG`), and it ends
//! by itself when its connection closes.

pub mod child;
mod counters;
mod ground;
mod handle;
pub mod messages;
mod workers;

pub use counters::{Counter, Counters};
pub use ground::{Ground, cannot_run_on_a_gpu, needs_processes};
pub use handle::{Heard, Launcher, Process};
pub use workers::{Patience, Processes};
