//! An MPS control daemon of our own: started in a private folder, queried, and always stopped.
//!
//! The daemon belongs to a keeper, a small shell process in its own process group that waits at the
//! other end of a pipe. When the pipe closes (a drop, a panic, Ctrl-C, SIGTERM, kill -9), the keeper
//! tells the daemon to quit, kills it and its servers if it does not, and removes the folder. No signal
//! handler is therefore needed, and none can be missed. A daemon started by others is in another
//! folder, out of reach of this code.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Names the control program if it is not on the `PATH`.
pub const PROGRAM_VARIABLE: &str = "COTENANT_MPS_CONTROL";
/// Longest path of a Unix socket, including its closing zero (`sockaddr_un`).
const SOCKET_PATH: usize = 108;
/// The longest name of a socket that the daemon makes in its folder.
const LONGEST_SOCKET: &str = "/control_privileged";
const KEEPER: &str = include_str!("mps/keeper.sh");
const STEP: Duration = Duration::from_millis(5);
const PERCENTAGE: &str = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE";

/// Why there is no MPS, or what failed.
#[derive(Debug, thiserror::Error)]
pub enum MpsError {
    /// The control program was not found.
    #[error(
        "nvidia-cuda-mps-control is not on the PATH: it comes with the driver's packages \
         (nvidia-compute-utils, nvidia-cuda-mps); or name it in {PROGRAM_VARIABLE}"
    )]
    Missing,
    /// The folder's path is too long for the daemon's sockets.
    #[error(
        "{}: too long for a socket's path, {SOCKET_PATH} bytes: set TMPDIR to a short folder",
        folder.display()
    )]
    LongPath {
        /// The folder.
        folder: PathBuf,
    },
    /// The system refuses.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system reports.
        source: std::io::Error,
    },
    /// The daemon has ended by itself.
    #[error(
        "the MPS daemon ended with status {status}: {log}; `cotenant gpu` says what is missing"
    )]
    Died {
        /// Its exit status.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The daemon did not answer.
    #[error("the MPS daemon does not answer `{command}` within {limit:?}: {log}")]
    NoAnswer {
        /// What it was asked.
        command: String,
        /// How long the answer was awaited.
        limit: Duration,
        /// The end of its log.
        log: String,
    },
    /// The daemon answered with an error.
    #[error("the MPS daemon refuses `{command}`: {answer}")]
    Refused {
        /// What it was asked.
        command: String,
        /// What it answered.
        answer: String,
    },
    /// Programs ran beside the daemon instead of under it: if the driver gets no server, it carries on
    /// without MPS and does not report it.
    #[error("the MPS daemon has no server: what ran, ran without MPS; {log}")]
    NoServer {
        /// The end of its log.
        log: String,
    },
    /// A percentage that is not a valid share.
    #[error("{0} % is not a share of the GPU: above 0, up to 100")]
    Percentage(f64),
    /// The daemon did not quit when asked, and was killed.
    #[error("the MPS daemon did not quit when it was asked, and was killed")]
    Killed,
}

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The control program; by default the one that [`find_program`] finds.
    pub program: Option<PathBuf>,
    /// Where the private folder is made; the system's folder for temporary files by default.
    pub parent: Option<PathBuf>,
    /// Share of the SMs, in percent, of clients that do not ask for one; all by default.
    pub default_percentage: Option<f64>,
    /// Longest wait for an answer; 10 s by default.
    pub patience: Option<Duration>,
}

/// A running control daemon. Dropping it stops it.
#[derive(Debug)]
pub struct Daemon {
    keeper: Child,
    program: PathBuf,
    folder: PathBuf,
    patience: Duration,
}

/// The control program: the one named in the environment, on the `PATH`, or where the driver's
/// containers have it.
#[must_use]
pub fn find_program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE) {
        return Some(PathBuf::from(named)).filter(|p| executable(p));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/nvidia/bin", "/usr/bin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(more);
    folders.find_map(|f| Some(f.join("nvidia-cuda-mps-control")).filter(|p| executable(p)))
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

impl Daemon {
    /// Starts a daemon and waits until it answers.
    ///
    /// # Errors
    /// The program is missing, ends at once or does not answer. In these cases nothing is left behind.
    pub fn start(options: &Options) -> Result<Self, MpsError> {
        let program = match &options.program {
            Some(given) => Some(given.clone()).filter(|p| executable(p)),
            None => find_program(),
        };
        let program = program.ok_or(MpsError::Missing)?;
        let patience = options.patience.unwrap_or(Duration::from_secs(10));
        let folder = private_folder(options.parent.as_deref())?;
        let mut keeper = Command::new("sh");
        keeper.arg("-c").arg(KEEPER).arg("cotenant-mps-keeper");
        keeper.arg(&program).arg(&folder).arg(patience.as_secs().clamp(1, 60).to_string());
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        keeper.envs(environment(&folder)).env_remove(PERCENTAGE).process_group(0);
        let keeper = keeper.spawn().map_err(|source| {
            let _ = std::fs::remove_dir_all(&folder);
            MpsError::Io { what: "cannot start sh".to_owned(), source }
        })?;
        let daemon = Self { keeper, program, folder, patience };
        daemon.await_answer()?;
        if let Some(percentage) = options.default_percentage {
            daemon.set_default_percentage(percentage)?;
        }
        Ok(daemon)
    }

    fn await_answer(&self) -> Result<(), MpsError> {
        const QUESTION: &str = "get_default_active_thread_percentage";
        let began = Instant::now();
        loop {
            self.check()?;
            let left = self.patience.saturating_sub(began.elapsed());
            match self.ask(QUESTION, left.max(STEP)) {
                // It may answer before its keeper has written down its process id.
                Ok(_) if self.pid().is_some() => return Ok(()),
                _ if began.elapsed() < self.patience => std::thread::sleep(STEP),
                _ => {
                    let (command, limit, log) = (QUESTION.to_owned(), self.patience, self.log());
                    self.check()?;
                    return Err(MpsError::NoAnswer { command, limit, log });
                }
            }
        }
    }

    /// The variables that make a program a client of this daemon.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        environment(&self.folder)
    }

    /// Makes a program a client of this daemon, on at most `percentage` of the SMs.
    ///
    /// If the daemon gives a program no server, the driver runs it without MPS and does not report it;
    /// [`Self::require_server`] detects that.
    ///
    /// # Errors
    /// The percentage is not valid.
    pub fn client(&self, command: &mut Command, percentage: Option<f64>) -> Result<(), MpsError> {
        command.envs(self.environment()).env_remove(PERCENTAGE);
        if let Some(percentage) = percentage {
            command.env(PERCENTAGE, share(percentage)?);
        }
        Ok(())
    }

    /// Sends one line to the daemon and returns its answer, without the final newline.
    ///
    /// # Errors
    /// The daemon has ended, does not answer in time, or refuses.
    pub fn command(&self, line: &str) -> Result<String, MpsError> {
        self.check()?;
        self.ask(line, self.patience).inspect_err(|_| std::thread::sleep(STEP)).or_else(|e| {
            // If an answer fails because the daemon has gone, report its end instead.
            self.check().and(Err(e))
        })
    }

    /// Sets the share of the SMs, in percent, for clients that start from now on and do not ask for
    /// one.
    ///
    /// # Errors
    /// The percentage is not valid, or those of [`Self::command`].
    pub fn set_default_percentage(&self, percentage: f64) -> Result<(), MpsError> {
        let share = share(percentage)?;
        let command = format!("set_default_active_thread_percentage {share}");
        let answer = self.command(&command)?;
        // The daemon answers with the value that it set.
        match answer.trim().parse::<f64>() {
            Ok(taken) if (taken - percentage).abs() < 0.51 => Ok(()),
            _ => Err(MpsError::Refused { command, answer }),
        }
    }

    /// Process ids of its servers; the first client causes one to start.
    ///
    /// # Errors
    /// Those of [`Self::command`].
    pub fn servers(&self) -> Result<Vec<u32>, MpsError> {
        let answer = self.command("get_server_list")?;
        Ok(answer.lines().filter_map(|l| l.trim().parse().ok()).collect())
    }

    /// Checks that the clients that have started ran under this daemon.
    ///
    /// # Errors
    /// It has no server, or those of [`Self::command`].
    pub fn require_server(&self) -> Result<(), MpsError> {
        if self.servers()?.is_empty() {
            return Err(MpsError::NoServer { log: self.log() });
        }
        Ok(())
    }

    /// Checks that the daemon is still running.
    ///
    /// # Errors
    /// How the daemon ended.
    pub fn check(&self) -> Result<(), MpsError> {
        match std::fs::read_to_string(self.folder.join("exit")) {
            Err(_) if self.folder.exists() => Ok(()),
            status => {
                let status = status.map_or_else(|_| "unknown".to_owned(), |s| s.trim().to_owned());
                Err(MpsError::Died { status, log: self.log() })
            }
        }
    }

    /// The daemon's process id, once it has one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()
    }

    /// The private folder: pipes and logs. It goes with the daemon.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops the daemon and waits until it and its folder are gone.
    ///
    /// # Errors
    /// The daemon had to be killed, or had already ended.
    pub fn quit(mut self) -> Result<(), MpsError> {
        let before = self.check();
        match self.stop() {
            Some(0) => before,
            _ => Err(MpsError::Killed),
        }
    }

    /// Closes the keeper's pipe, waits for the keeper, and returns its status.
    fn stop(&mut self) -> Option<i32> {
        drop(self.keeper.stdin.take());
        // The keeper bounds its own waits; after twice their sum it must be stuck itself.
        let limit = 2 * (self.patience + Duration::from_secs(8));
        let status = wait(&mut self.keeper, limit).and_then(|s| s.code());
        if status.is_none() {
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
        status
    }

    /// Runs the control program as a client with one line.
    fn ask(&self, line: &str, limit: Duration) -> Result<String, MpsError> {
        let io = |source| MpsError::Io { what: self.program.display().to_string(), source };
        let mut client = Command::new(&self.program);
        client.envs(environment(&self.folder));
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.process_group(0).spawn().map_err(io)?;
        if let Some(mut input) = client.stdin.take() {
            // A client that has already ended reads nothing; its status tells.
            let _ = writeln!(input, "{line}");
        }
        let Some(status) = wait(&mut client, limit) else {
            let _ = client.kill();
            let _ = client.wait();
            let (command, log) = (line.to_owned(), self.log());
            return Err(MpsError::NoAnswer { command, limit, log });
        };
        let mut answer = String::new();
        if let Some(mut output) = client.stdout.take() {
            let _ = output.read_to_string(&mut answer);
        }
        if let Some(mut output) = client.stderr.take() {
            let _ = output.read_to_string(&mut answer);
        }
        let answer = answer.trim_end().to_owned();
        if status.success() {
            return Ok(answer);
        }
        Err(MpsError::Refused { command: line.to_owned(), answer })
    }

    /// The last lines of the daemon's output.
    fn log(&self) -> String {
        let mut text = String::new();
        for name in ["output", "control.log", "server.log"] {
            let path = self.folder.join("log").join(name);
            text += &std::fs::read_to_string(path).unwrap_or_default();
        }
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" | ");
        if last.is_empty() { "its log is empty".to_owned() } else { last }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.keeper.stdin.is_some() {
            self.stop();
        }
    }
}

fn environment(folder: &Path) -> [(&'static str, OsString); 2] {
    [
        ("CUDA_MPS_PIPE_DIRECTORY", folder.as_os_str().to_owned()),
        ("CUDA_MPS_LOG_DIRECTORY", folder.join("log").into_os_string()),
    ]
}

/// A percentage in the form that the daemon reads.
fn share(percentage: f64) -> Result<String, MpsError> {
    let possible = percentage > 0.0 && percentage <= 100.0;
    if possible { Ok(percentage.to_string()) } else { Err(MpsError::Percentage(percentage)) }
}

/// A fresh folder for this user alone, whose path is short enough for sockets.
fn private_folder(parent: Option<&Path>) -> Result<PathBuf, MpsError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("cotenant-mps-{}-{number}", std::process::id()));
        if folder.as_os_str().len() + LONGEST_SOCKET.len() + 1 > SOCKET_PATH {
            return Err(MpsError::LongPath { folder });
        }
        let mut private = std::fs::DirBuilder::new();
        private.mode(0o700);
        match private.create(&folder).and_then(|()| private.create(folder.join("log"))) {
            Ok(()) => return Ok(folder),
            // Left behind by an earlier process with the same id.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                let what = folder.display().to_string();
                return Err(MpsError::Io { what, source });
            }
        }
    }
}

/// Waits at most `limit`; `None` if the process has not ended by then.
fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if began.elapsed() < limit => std::thread::sleep(STEP),
            _ => return None,
        }
    }
}
