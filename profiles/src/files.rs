//! Profiles on disk: a folder of plain CSV and TOML files that describe themselves.
//!
//! `kernels.csv`, `curves.csv`, `models/<model>.csv`, `models/<model>.toml` and, where pairs were
//! measured, `corun.csv`; `layers/<model>.csv` for a generating model whose layers were timed;
//! `curves_coarse.csv` where whole groups of CUs were measured too. Every CSV opens with
//! `# cotenant-profile v1` and `# key=value` lines.

mod coarse;
mod error;
mod layers;
mod merge;
mod read;
mod store;
pub(crate) mod table;
mod write;

pub use coarse::{Both, CoarseCurves, both, read_coarse, write_coarse};
pub use error::{FileError, Problem};
pub use layers::{layers_text, read_layers, write_layers, write_measured_layers};
pub use merge::{merge, without};
pub use read::{read, read_for};
pub use store::Store;
pub(crate) use write::{MODEL_NAME, is_model_name};
pub use write::{Measurement, text, write, write_measured};
