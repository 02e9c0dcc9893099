//! The `cotenant` command: experiments, profiles, traces and plots of GPU sharing.
//!
//! [`main`] is the whole command. [`inspect`] checks one experiment without a file or a folder. For your own
//! simulations with your own policies, start with `cotenant_sim` instead.

mod accuracy;
mod advise;
mod budget;
mod canonical;
mod capacity;
mod cell;
mod cli;
mod commands;
mod config;
mod curves;
mod digest;
mod dry;
mod ends;
mod fail;
mod folder;
mod generate;
mod info;
mod inspect;
mod isolated;
mod jitter;
mod layouts;
mod loads;
mod metrics;
mod models;
mod on;
mod panics;
mod plan;
mod prepare;
mod progress;
mod results;
mod run;
mod say;
mod session;
mod show;
mod study;
mod summary;
mod text;
mod validate;
mod watch;

pub use inspect::inspect;

/// The exit status of a bug: `EX_SOFTWARE` of sysexits.h.
const BUG: u8 = 70;

/// Runs the command with the arguments of this process.
///
/// Status 0: success. 1: a failure. 2: bad input. 75: stopped, or busy; run the same command again to go on.
/// 70: a bug.
pub fn main() -> std::process::ExitCode {
    // The panic hook has reported the place; finished cells are in the journal.
    std::panic::catch_unwind(cli::main).unwrap_or_else(|_| {
        say::error(&format!(
            "this is a bug in cotenant {}: please report it with the command and its files at \
             {}/issues. Finished cells are kept: the same command goes on from them",
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_REPOSITORY"),
        ));
        BUG.into()
    })
}
