//! The part of a measurement that needs processes of its own: what such a process does, and the
//! parent's side of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::Request;
use crate::cuda::{Bench, Watch};
use crate::drive::Stop;
use crate::error::DeviceError;

/// What a child is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Open the GPU, load the kernels, run one, count the SMs.
    Start,
    /// Open the GPU, wait for a moment of the wall clock (ns since 1970), then watch for 400 ms.
    Watch {
        /// The moment.
        at: u64,
    },
}

/// How long contexts are watched that take turns.
const WATCHED_NS: u64 = 400_000_000;
/// A stall of more than this is a turn of another context: ten times what a look at the clock takes.
const PAUSE_NS: u64 = 10_000;

/// What a child found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Moments of the wall clock, ns since 1970: the program runs, the GPU is open with the kernels
    /// loaded, the first kernel has ended.
    pub(super) moments: [u64; 3],
    /// SMs by the driver's attribute, and distinct ones that a large kernel ran on.
    pub(super) sms: [u32; 2],
    /// What was seen of the clock.
    pub(super) watch: Option<Watch>,
    /// Why it failed.
    pub(super) error: Option<String>,
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Ask {
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Start => vec!["start".to_owned()],
            Self::Watch { at } => vec![format!("watch:{at}")],
        }
    }

    /// Reads `start` or `watch:AT`.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "start" => Some(Self::Start),
            Some(("watch", at)) => at.parse().ok().map(|at| Self::Watch { at }),
            _ => None,
        }
    }
}

/// Does what the parent asks for, and writes the answer into a file. The whole of a helper process.
///
/// # Errors
/// The file cannot be written; what the GPU refuses is an answer.
pub fn child(ask: Ask, to: &Path) -> std::io::Result<()> {
    // Nobody waits for the answer when the parent has gone.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut answer = Answer { moments: [now(), 0, 0], ..Answer::default() };
    if let Err(e) = work(ask, &mut answer) {
        answer.error = Some(e.to_string());
    }
    let text = serde_json::to_string(&answer).expect("numbers and strings");
    // Whole or not at all: the parent may look at any time.
    let part = to.with_extension("part");
    std::fs::write(&part, text)?;
    std::fs::rename(part, to)
}

fn work(ask: Ask, answer: &mut Answer) -> Result<(), DeviceError> {
    let bench = Bench::open(0)?;
    answer.moments[1] = now();
    bench.one_kernel()?;
    answer.moments[2] = now();
    match ask {
        Ask::Start => answer.sms = [bench.info().cus, bench.sms_seen()?],
        Ask::Watch { at } => {
            std::thread::sleep(Duration::from_nanos(at.saturating_sub(now())));
            answer.watch = Some(bench.watch(WATCHED_NS, PAUSE_NS)?);
        }
    }
    Ok(())
}

/// A child at work; killed if it is dropped before its end.
pub(super) struct Helper {
    child: Child,
    file: PathBuf,
    /// When it was started, ns since 1970.
    pub(super) started: u64,
}

impl Helper {
    /// Starts one; `prepare` may change its environment. Its answer goes into `folder`.
    pub(super) fn start(
        request: &Request,
        ask: Ask,
        folder: &Path,
        prepare: impl FnOnce(&mut Command) -> Result<(), String>,
    ) -> Result<Self, String> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = folder.join(format!("answer-{number}.json"));
        let (program, first) = request.helper.split_first().ok_or("no helper program")?;
        let mut command = Command::new(program);
        command.args(first).args(ask.arguments()).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Whatever daemon is around: only one that is given to the child may serve it.
        command.env("CUDA_MPS_PIPE_DIRECTORY", folder.join("no-daemon"));
        prepare(&mut command)?;
        let started = now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", program.to_string_lossy()))?;
        Ok(Self { child, file, started })
    }

    /// Waits for its answer, not longer than `limit`, and until somebody wants to stop.
    pub(super) fn answer(mut self, limit: Duration, stop: &Stop) -> Result<Answer, String> {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if stop.wanted() => return Err("stopped".to_owned()),
                Ok(None) if began.elapsed() < limit => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(None) => return Err(format!("a process gave no answer within {limit:?}")),
                Err(e) => return Err(e.to_string()),
            }
        };
        let text = std::fs::read_to_string(&self.file)
            .map_err(|_| format!("a process ended without an answer: {status}"))?;
        let answer: Answer = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        match answer.error {
            Some(why) => Err(why),
            None => Ok(answer),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Ended ones are not there any more, which is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
