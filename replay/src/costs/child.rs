//! The part of a measurement that needs separate processes: the work of such a process, and the
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

/// What a child is asked to do.
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

/// How long contexts that take turns are watched.
const WATCHED_NS: u64 = 400_000_000;
/// A stall longer than this is a turn of another context: ten times the duration of one look at the
/// clock.
const PAUSE_NS: u64 = 10_000;

/// The answer of a child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Moments of the wall clock, ns since 1970: when the program started to run, when the GPU was open
    /// and the kernels loaded, and when the first kernel ended.
    pub(super) moments: [u64; 3],
    /// SMs according to the driver's attribute, and the number of distinct SMs that a large kernel ran
    /// on.
    pub(super) sms: [u32; 2],
    /// What it observed of the clock.
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

/// Does what the parent asks for and writes the answer into a file. This is all that a helper process
/// does.
///
/// # Errors
/// The file cannot be written. If the GPU refuses, that is an answer, not an error.
pub fn child(ask: Ask, to: &Path) -> std::io::Result<()> {
    // If the parent has gone, the answer is no longer needed.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut answer = Answer { moments: [now(), 0, 0], ..Answer::default() };
    if let Err(e) = work(ask, &mut answer) {
        answer.error = Some(e.to_string());
    }
    let text = serde_json::to_string(&answer).expect("numbers and strings");
    // Written completely or not at all, since the parent may look at any time.
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

/// A running child. It is killed if it is dropped before its end.
pub(super) struct Helper {
    child: Child,
    file: PathBuf,
    /// When it was started, ns since 1970.
    pub(super) started: u64,
}

impl Helper {
    /// Starts a child, whose environment `prepare` may change. Its answer goes into `folder`.
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
        // Whatever daemons are running, only one that is given to the child may serve it.
        command.env("CUDA_MPS_PIPE_DIRECTORY", folder.join("no-daemon"));
        prepare(&mut command)?;
        let started = now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", program.to_string_lossy()))?;
        Ok(Self { child, file, started })
    }

    /// Waits for the answer, but no longer than `limit` or until a stop is requested.
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
        // A child that has already ended cannot be killed, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
