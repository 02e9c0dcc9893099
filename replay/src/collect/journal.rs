//! The visits made so far, one line each, from which a killed collection resumes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::CollectError;
use super::bench::Samples;
use super::plan::{Planned, Point};
use crate::nvml::Reading;

/// A visit that was made.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Visit {
    /// Number of the kernel in the plan.
    pub work: usize,
    /// CUs.
    pub cus: u32,
    /// Partitioned in groups of 8.
    pub coarse: bool,
    /// Which visit of the point it is.
    pub round: usize,
    /// Durations in order, ns.
    pub ns: Vec<u64>,
    /// All launches were queued before the first one began: see `collect/bench.rs`.
    pub queued: bool,
    /// Indices of the samples beyond three interquartile ranges: marked, not removed.
    pub outliers: Vec<usize>,
    /// The function, or the library and its algorithm.
    pub name: String,
    /// Blocks, and threads per block, for kernels that we launch ourselves.
    pub grid: Option<(u32, u32)>,
    /// Registers, shared memory, blocks on one CU.
    pub shape: [u32; 3],
    /// Clock of the SMs after the visit, MHz.
    pub sm_mhz: Option<u32>,
    /// Temperature, °C.
    pub celsius: Option<u32>,
    /// Power, mW.
    pub milliwatt: Option<u32>,
    /// Overhead of the events around a launch on each of the durations, ns. The durations stand here as
    /// measured.
    #[serde(default)]
    pub events_ns: u64,
    /// Why there are no durations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Visit {
    /// Durations less the overhead of measuring them, ns.
    pub(super) fn durations(&self) -> impl Iterator<Item = u64> {
        self.ns.iter().map(|ns| ns.saturating_sub(self.events_ns).max(1))
    }
}

#[derive(Deserialize, Serialize)]
struct Head {
    cotenant_collect: u32,
    identity: String,
}

/// A file of lines. A kill leaves all of them intact except perhaps the last.
pub(super) struct Lines {
    file: File,
    path: PathBuf,
}

impl Lines {
    /// Opens `name` in `folder` with the lines that an earlier run left. A kill can leave an incomplete
    /// last line, which is overwritten.
    pub(super) fn open<T: DeserializeOwned>(
        folder: &Path,
        name: &str,
        identity: &str,
    ) -> Result<(Self, Vec<T>), CollectError> {
        let path = folder.join(name);
        let failed = |e: std::io::Error| CollectError::Journal(format!("{}: {e}", path.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(failed(e)),
        };
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let mut known: Vec<T> = Vec::new();
        for (i, line) in text[..whole].lines().enumerate() {
            let bad = |what: String| {
                CollectError::Journal(format!("{}:{}: {what}", path.display(), i + 1))
            };
            if i == 0 {
                let head: Head = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
                if head.identity != identity {
                    let found = head.identity;
                    return Err(bad(format!(
                        "identity: visits of `{found}`, this is `{identity}`: choose another folder"
                    )));
                }
            } else {
                known.push(serde_json::from_str(line).map_err(|e| bad(e.to_string()))?);
            }
        }
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(failed)?;
        let mut lines = Self { file, path };
        if whole == 0 {
            lines.add(&Head { cotenant_collect: 1, identity: identity.to_owned() })?;
        }
        Ok((lines, known))
    }

    pub(super) fn add(&mut self, what: &impl Serialize) -> Result<(), CollectError> {
        let failed = |e: &dyn std::fmt::Display| {
            CollectError::Journal(format!("{}: {e}", self.path.display()))
        };
        let mut line = serde_json::to_string(what).map_err(|e| failed(&e))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|e| failed(&e))
    }
}

/// `visits.jsonl` of a folder.
pub struct Journal {
    lines: Lines,
    visits: Vec<Visit>,
    known: BTreeSet<(Point, usize)>,
}

impl Journal {
    /// Opens the journal of `folder` with the visits that an earlier run left.
    ///
    /// # Errors
    /// The journal belongs to another GPU or request, cannot be parsed, or the system refuses access.
    pub fn open(folder: &Path, identity: &str) -> Result<Self, CollectError> {
        let (lines, visits) = Lines::open(folder, "visits.jsonl", identity)?;
        let known = visits.iter().map(key).collect();
        Ok(Self { lines, visits, known })
    }

    /// Whether this visit has been made.
    #[must_use]
    pub fn has(&self, visit: &Planned) -> bool {
        self.known.contains(&(visit.point, visit.round))
    }

    /// Every visit made.
    #[must_use]
    pub fn visits(&self) -> &[Visit] {
        &self.visits
    }

    pub(super) fn add(
        &mut self,
        planned: Planned,
        samples: Result<Samples, String>,
        events_ns: u64,
        reading: Reading,
    ) -> Result<(), CollectError> {
        let (Samples { ns, queued, facts }, failed) = match samples {
            Ok(samples) => (samples, None),
            Err(why) => (Samples::default(), Some(why)),
        };
        let Planned { point: Point { work, cus, coarse }, round } = planned;
        let visit = Visit {
            work,
            cus,
            coarse,
            round,
            outliers: outliers(&ns),
            ns,
            queued,
            grid: facts.grid,
            shape: [facts.regs, facts.smem_bytes, facts.blocks_per_cu],
            name: facts.name,
            sm_mhz: reading.sm_mhz,
            celsius: reading.celsius,
            milliwatt: reading.milliwatt,
            events_ns,
            failed,
        };
        self.lines.add(&visit)?;
        self.known.insert(key(&visit));
        self.visits.push(visit);
        Ok(())
    }
}

fn key(v: &Visit) -> (Point, usize) {
    (Point { work: v.work, cus: v.cus, coarse: v.coarse }, v.round)
}

/// Samples outside three interquartile ranges of the quartiles (Tukey's far out).
fn outliers(ns: &[u64]) -> Vec<usize> {
    let mut sorted = ns.to_vec();
    sorted.sort_unstable();
    let quartile = |q: usize| sorted.get(sorted.len() * q / 4).copied().unwrap_or(0);
    let (low, high) = (quartile(1), quartile(3));
    let reach = 3 * (high - low);
    let far = |v: u64| v > high.saturating_add(reach) || v < low.saturating_sub(reach);
    (0..ns.len()).filter(|&i| far(ns[i])).collect()
}
