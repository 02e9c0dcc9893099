//! Stopping before the next cell.

use std::sync::Arc;

use cotenant_replay::drive;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};

use crate::fail::{Done, Failure};

/// Set when the process is asked to stop; both simulations and replays obey it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(drive::Stop);

impl Stop {
    /// Listens for Ctrl-C, of which a second one ends the process at once; for SIGTERM, which schedulers send
    /// before they kill; and for SIGUSR1, which users can have the scheduler send some time before the limit.
    /// A limit on file sizes makes the write that exceeds it fail, instead of ending the process silently.
    ///
    /// # Errors
    /// The system refuses to register a handler.
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

    /// Whether a stop has been requested.
    pub(crate) fn is_set(&self) -> bool {
        self.0.wanted()
    }

    /// The flag for the driver of a device, which checks it at every event.
    pub(crate) fn driver(&self) -> &drive::Stop {
        &self.0
    }
}
