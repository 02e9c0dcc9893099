//! A worker process, as the one that started it holds it.

use std::ffi::OsString;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::counters::{Counter, Counters};
use super::messages::{Assignment, Command, Message};
use crate::emulated::wire::{hear, say};
use crate::error::DeviceError;

/// How worker processes are started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program, `cotenant` itself.
    pub program: PathBuf,
    /// What makes it a worker.
    pub arguments: Vec<OsString>,
}

impl Launcher {
    /// This program's own file, as `cotenant worker`.
    ///
    /// # Errors
    /// The system does not tell where it is.
    pub fn this_program() -> std::io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec!["worker".into()] })
    }

    /// The command; variables may be added to it.
    #[must_use]
    pub fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}

/// What a process had to say, or that it says nothing any more.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A message.
    Message(Message),
    /// Its end of the connection is closed: it ends, or has ended.
    Closed,
}

/// A running worker process. Dropping it ends the process and waits for it.
///
/// The system ends it with the thread that started it, so that thread must outlive it.
pub struct Process {
    child: Child,
    socket: UnixStream,
    counters: Counters,
    beats: u64,
    seen: Instant,
    /// How long it may take to end by itself.
    grace: Duration,
}

impl Process {
    /// Starts `command` as a worker; what it says goes to `inbox` under `token`. `gpu` is its
    /// connection to an emulated GPU.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn start(
        mut command: std::process::Command,
        mut assignment: Assignment,
        gpu: Option<UnixStream>,
        token: u64,
        inbox: Sender<(u64, Heard)>,
    ) -> std::io::Result<Self> {
        /// A context on an emulated GPU has nothing to give back.
        const EMULATED: Duration = Duration::from_millis(200);
        /// A GPU's is given back by its driver, with all of its memory; who is killed meanwhile may take
        /// an MPS server along.
        const CUDA: Duration = Duration::from_secs(5);
        let grace = if gpu.is_some() { EMULATED } else { CUDA };
        let counters = Counters::new()?;
        assignment.parent = std::process::id();
        assignment.counters = counters.path();
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(gpu.map_or_else(Stdio::null, |s| Stdio::from(OwnedFd::from(s))));
        // A terminal's Ctrl-C is for the one that started it, which ends it in good order.
        let child = command.process_group(0).spawn()?;
        // The command holds the worker's ends of the sockets, which must be the worker's alone.
        drop(command);
        let (beats, seen) = (0, Instant::now());
        let mut process = Self { child, socket: ours, counters, beats, seen, grace };
        say(&mut process.socket, &assignment)?;
        let mut from = BufReader::new(process.socket.try_clone()?);
        let listen = move || {
            while let Ok(Some(message)) = hear::<Message>(&mut from) {
                if inbox.send((token, Heard::Message(message))).is_err() {
                    return;
                }
            }
            // Where nobody listens any more, nobody misses it.
            let _ = inbox.send((token, Heard::Closed));
        };
        std::thread::Builder::new().name(format!("worker-{token}")).spawn(listen)?;
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it for something.
    ///
    /// # Errors
    /// It is gone.
    pub fn say(&mut self, command: &Command) -> Result<(), DeviceError> {
        say(&mut self.socket, command).map_err(|e| DeviceError::Gone(e.to_string()))
    }

    /// For how long it has not shown that it lives. To be asked now and then.
    pub fn silent(&mut self) -> Duration {
        let beats = self.counters.get(Counter::Beats);
        if beats != self.beats {
            (self.beats, self.seen) = (beats, Instant::now());
        }
        self.seen.elapsed()
    }

    /// Kernels that it has handed to its device.
    #[must_use]
    pub fn kernels(&self) -> u64 {
        self.counters.get(Counter::Kernels)
    }

    /// Closes the connection: it ends by itself.
    pub fn hang_up(&self) {
        // One that has gone has closed it.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Closes the connections of all, and waits until they have ended: they go side by side, so that
    /// no more than the longest time of one passes. Dropping those that have not gone kills them.
    pub fn let_all_go(mut all: Vec<&mut Self>) {
        let began = Instant::now();
        all.iter().for_each(|p| p.hang_up());
        while all.iter_mut().any(|p| p.ended().is_none() && began.elapsed() < p.grace) {
            std::thread::sleep(Duration::from_millis(1));
        }
        all.iter_mut().for_each(|p| p.grace = Duration::ZERO);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// How it ended, if it does so soon.
    pub fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            let status = self.ended();
            if status.is_some() || began.elapsed() >= limit {
                return status;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it at once, and waits for that.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        self.hang_up();
        // One that has ended already cannot be killed; its status tells how.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.hang_up();
        if self.ends_within(self.grace).is_none() {
            self.kill();
        }
    }
}
