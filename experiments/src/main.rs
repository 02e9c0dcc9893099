//! The `cotenant` command: experiments, profiles, traces and plots of GPU sharing.

mod accuracy;
mod advise;
mod cell;
mod cli;
mod commands;
mod config;
mod curves;
mod digest;
mod fail;
mod folder;
mod info;
mod isolated;
mod jitter;
mod layouts;
mod models;
mod on;
mod plan;
mod prepare;
mod progress;
mod results;
mod run;
mod say;
mod session;
mod study;
mod summary;
mod text;
mod validate;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
