//! Stopping at the next cell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGTERM, SIGUSR1, SIGXFSZ};

use crate::fail::{Done, Failure};

/// Set when the process is asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for SIGTERM, which schedulers send before they kill, and for SIGUSR1, which a user may
    /// have them send some time before the limit. A limit on file sizes becomes an error of the write
    /// that exceeds it instead of a silent end.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> Done<Self> {
        let stop = Self::default();
        let heard = |e: std::io::Error| Failure::failed(format!("cannot listen for signals: {e}"));
        for signal in [SIGTERM, SIGUSR1] {
            signal_hook::flag::register(signal, stop.0.clone()).map_err(heard)?;
        }
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(heard)?;
        Ok(stop)
    }

    /// Asks to stop.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
