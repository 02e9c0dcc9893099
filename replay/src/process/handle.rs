//! A worker process, as its parent holds it.

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
    /// The arguments that make it a worker.
    pub arguments: Vec<OsString>,
}

impl Launcher {
    /// This program's own file, as `cotenant worker`.
    ///
    /// # Errors
    /// The system does not say where that file is.
    pub fn this_program() -> std::io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec!["worker".into()] })
    }

    /// The command, to which variables may be added.
    #[must_use]
    pub fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}

/// A message from a process, or the end of its connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A message.
    Message(Message),
    /// Its end of the connection is closed: it is ending, or has ended.
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
    /// How long it may take to end by itself before it is killed.
    grace: Duration,
}

impl Process {
    /// Starts `command` as a worker. Its messages go to `inbox` under `token`. `gpu` is its connection
    /// to an emulated GPU.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(
        mut command: std::process::Command,
        mut assignment: Assignment,
        gpu: Option<UnixStream>,
        token: u64,
        inbox: Sender<(u64, Heard)>,
    ) -> std::io::Result<Self> {
        /// A context on an emulated GPU has nothing to give back.
        const EMULATED: Duration = Duration::from_millis(200);
        /// The driver tears a GPU context down, with all of its memory. A process that is killed during
        /// that may take an MPS server down with it.
        const CUDA: Duration = Duration::from_secs(5);
        let grace = if gpu.is_some() { EMULATED } else { CUDA };
        let counters = Counters::new()?;
        assignment.parent = std::process::id();
        assignment.counters = counters.path();
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(gpu.map_or_else(Stdio::null, |s| Stdio::from(OwnedFd::from(s))));
        // Ctrl-C in a terminal is meant for the parent, which ends the worker in good order.
        let child = command.process_group(0).spawn()?;
        // The command holds the worker's ends of the sockets, which only the worker may keep open.
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
            // If the receiver has gone, the message is not missed.
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

    /// Sends it a command.
    ///
    /// # Errors
    /// The process has gone.
    pub fn say(&mut self, command: &Command) -> Result<(), DeviceError> {
        say(&mut self.socket, command).map_err(|e| DeviceError::Gone(e.to_string()))
    }

    /// How long it has shown no sign of life. To be called now and then.
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

    /// Closes the connection, upon which the process ends by itself.
    pub fn hang_up(&self) {
        // A process that has gone has closed it already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Closes all connections and waits until the processes have ended. They end side by side, so this
    /// takes no longer than the longest grace period. Dropping those that have not ended kills them.
    pub fn let_all_go(mut all: Vec<&mut Self>) {
        let began = Instant::now();
        all.iter().for_each(|p| p.hang_up());
        while all.iter_mut().any(|p| p.ended().is_none() && began.elapsed() < p.grace) {
            std::thread::sleep(Duration::from_millis(1));
        }
        all.iter_mut().for_each(|p| p.grace = Duration::ZERO);
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its exit status, if it ends within `limit`.
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

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        self.hang_up();
        // A process that has ended already cannot be killed; its status tells how it ended.
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
