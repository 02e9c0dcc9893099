//! Stopping at the next cell.

use std::sync::Arc;

use cotenant_replay::drive;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};

use crate::fail::{Done, Failure};

/// Set when the process is asked to stop: by whatever runs, simulation or replay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(drive::Stop);

impl Stop {
    /// Listens for Ctrl-C, of which a second one ends at once; for SIGTERM, which schedulers send before
    /// they kill; and for SIGUSR1, which a user may have them send some time before the limit. A limit
    /// on file sizes becomes an error of the write that exceeds it instead of a silent end.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> Done<Self> {
        let stop = Self::default();
        let heard = |e: std::io::Error| Failure::failed(format!("cannot listen for signals: {e}"));
        signal_hook::flag::register_conditional_shutdown(SIGINT, 75, stop.0.flag())
            .map_err(heard)?;
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            signal_hook::flag::register(signal, stop.0.flag()).map_err(heard)?;
        }
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(heard)?;
        Ok(stop)
    }

    /// Asks to stop.
    pub(crate) fn set(&self) {
        self.0.now();
    }

    /// Whether somebody asked.
    pub(crate) fn is_set(&self) -> bool {
        self.0.wanted()
    }

    /// For the driver of a device, which looks at every event.
    pub(crate) fn driver(&self) -> &drive::Stop {
        &self.0
    }
}
