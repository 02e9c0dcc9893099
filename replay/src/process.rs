//! Workers as processes of their own, where the mechanism needs one: contexts that take turns,
//! shares under MPS, a shadow beside the worker that it replaces, several instances of a model.
//!
//! A worker is this program again, as `cotenant worker` ([`child`]). It is told over its standard
//! input what it is to be and what to run ([`messages`]), runs that on its own device, and shows in
//! shared memory that it lives ([`Counters`]). With an emulated GPU, that GPU stays with the process
//! that started the workers, and each has a context on it over its standard output; on a real one
//! each opens a context of its own.
//!
//! No worker outlives the process that started it: the system kills it with its parent
//! (`PR_SET_PDEATHSIG`), and it ends by itself when its connection closes.

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
