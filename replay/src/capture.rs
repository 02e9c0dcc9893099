//! Runs an unmodified program with the injection library, and reads what it recorded.

mod shares;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use cotenant_profiles::import::Record;
use serde::Deserialize;

use crate::mps::{Daemon, MpsError};

pub use shares::{Matched, Share, merge};

/// The file name of the injection library.
pub const LIBRARY: &str = "libcotenant_inject.so";

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The injection library was not found where it is looked for.
    #[error(
        "{LIBRARY} is not beside the program ({}): build it with `cargo build --release -p \
         cotenant-inject`, or name it in COTENANT_INJECT_LIB", folder.display()
    )]
    NoLibrary {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system reports.
        source: std::io::Error,
    },
    /// MPS failed.
    #[error(transparent)]
    Mps(#[from] MpsError),
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: std::io::Error,
    },
    /// A line of a recording could not be parsed.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// The kernels of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Kernels in the order of their start.
    pub records: Vec<Record>,
    /// Stream of each kernel.
    pub streams: Vec<u32>,
    /// Kernels that CUPTI had no room to record.
    pub dropped: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Head {
        #[serde(rename = "cotenant_capture")]
        _version: u32,
    },
    Dropped {
        dropped: u64,
    },
    Kernel {
        name: String,
        start_ns: u64,
        end_ns: u64,
        stream: u32,
        grid: [u32; 3],
        block: [u32; 3],
        regs: u32,
        smem_bytes: u32,
    },
}

/// The injection library: named in `COTENANT_INJECT_LIB`, or beside this program.
///
/// # Errors
/// The library is not there.
pub fn library() -> Result<PathBuf, CaptureError> {
    if let Some(path) = std::env::var_os("COTENANT_INJECT_LIB").map(PathBuf::from) {
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        return if path.is_file() { Ok(path) } else { Err(CaptureError::NoLibrary { folder }) };
    }
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().map(Path::to_path_buf).unwrap_or_default();
    let places = [folder.join(LIBRARY), folder.join("deps").join(LIBRARY)];
    places.into_iter().find(|p| p.is_file()).ok_or(CaptureError::NoLibrary { folder })
}

/// Runs `command` to its end, with the injection library if one is given. Every process of the command
/// that starts CUDA writes `kernels.<pid>.jsonl` into `folder`. With a `share`, the program is a client
/// of that MPS daemon, on that percentage of the SMs.
///
/// # Errors
/// The program could not be started, or it ran without the daemon that should have served it.
pub fn run(
    command: &[OsString],
    library: Option<&Path>,
    folder: &Path,
    share: Option<(&Daemon, f64)>,
) -> Result<ExitStatus, CaptureError> {
    let (program, arguments) = command.split_first().ok_or_else(|| CaptureError::Start {
        program: "nothing".to_owned(),
        source: std::io::ErrorKind::InvalidInput.into(),
    })?;
    let mut child = Command::new(program);
    child.args(arguments);
    if let Some(library) = library {
        child.env("CUDA_INJECTION64_PATH", library);
        child.env("COTENANT_TRACE_OUT", folder.join("kernels.%p.jsonl"));
    }
    if let Some((daemon, percent)) = share {
        daemon.client(&mut child, Some(percent))?;
    }
    let status = child.status().map_err(|source| CaptureError::Start {
        program: program.to_string_lossy().into_owned(),
        source,
    })?;
    if let Some((daemon, _)) = share.filter(|_| status.success()) {
        daemon.require_server()?;
    }
    Ok(status)
}

/// The recordings in `folder`, by file name.
///
/// # Errors
/// A file that cannot be read.
pub fn recordings(folder: &Path) -> Result<Vec<(PathBuf, Recording)>, CaptureError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CaptureError::Io { path, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if name.starts_with("kernels.") && name.ends_with(".jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(io(&path))?;
        recording(&text, &path).map(|r| (path, r))
    };
    paths.into_iter().map(read).collect()
}

/// Reads a recording. A killed program leaves an incomplete last line, which is skipped.
///
/// # Errors
/// Any other line that cannot be parsed.
pub fn recording(text: &str, path: &Path) -> Result<Recording, CaptureError> {
    let mut out = Recording::default();
    let mut kernels = Vec::new();
    for (i, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str::<Line>(line) {
            Ok(Line::Head { .. }) => {}
            Ok(Line::Dropped { dropped }) => out.dropped += dropped,
            Ok(Line::Kernel { name, start_ns, end_ns, stream, grid, block, regs, smem_bytes }) => {
                let block = block.iter().fold(1u32, |all, &n| all.saturating_mul(n.max(1)));
                let grid = grid.map(|n| n.max(1));
                let duration_ns = end_ns.saturating_sub(start_ns);
                let r = Record { name, grid, block, regs, smem_bytes, start_ns, duration_ns };
                kernels.push((r, stream));
            }
            Err(_) if !line.ends_with('\n') => {}
            Err(e) => {
                let (path, problem) = (path.to_path_buf(), e.to_string());
                return Err(CaptureError::Line { path, line: i + 1, problem });
            }
        }
    }
    kernels.sort_by_key(|(r, _)| r.start_ns);
    (out.records, out.streams) = kernels.into_iter().unzip();
    Ok(out)
}

/// The recording as a Chrome trace for Perfetto: one row per stream, times in microseconds.
#[must_use]
pub fn timeline(recording: &Recording) -> String {
    let origin = recording.records.first().map_or(0, |r| r.start_ns);
    let micros = |ns: u64| ns as f64 / 1e3;
    let event = |(r, stream): (&Record, &u32)| {
        serde_json::json!({
            "ph": "X", "cat": "kernel", "name": r.name, "pid": 0, "tid": stream,
            "ts": micros(r.start_ns - origin), "dur": micros(r.duration_ns),
            "args": {
                "grid": r.grid, "block": [r.block, 1, 1], "registers per thread": r.regs,
                "shared memory": r.smem_bytes, "stream": stream,
            },
        })
    };
    let events: Vec<_> = recording.records.iter().zip(&recording.streams).map(event).collect();
    serde_json::json!({ "traceEvents": events }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KERNEL: &str = r#"{"name":"k\"","start_ns":5000,"end_ns":7500,"device":0,"context":1,"stream":7,"grid":[4, 1, 1],"block":[128, 2, 1],"regs":32,"smem_bytes":64,"correlation":9}"#;

    #[test]
    fn a_recording_reads_in_the_order_of_time_and_survives_a_kill() {
        let later = KERNEL.replace("5000", "9000").replace("7500", "9100");
        let text = format!(
            "{{\"cotenant_capture\":1,\"cupti\":24,\"pid\":7}}\n{later}\n{KERNEL}\n{{\"dropped\":3}}\n{{\"name\":\"cu"
        );
        let r = recording(&text, Path::new("k.jsonl")).unwrap();
        assert_eq!((r.records.len(), r.dropped), (2, 3));
        assert_eq!((r.records[0].start_ns, r.records[0].duration_ns), (5000, 2500));
        assert_eq!((r.records[0].block, r.records[0].grid), (256, [4, 1, 1]));
        let trace: serde_json::Value = serde_json::from_str(&timeline(&r)).unwrap();
        assert_eq!(trace["traceEvents"][1]["ts"], 4.0);
        assert_eq!(trace["traceEvents"][0]["tid"], 7);
        let error = recording("{}\n", Path::new("k.jsonl")).unwrap_err().to_string();
        assert!(error.starts_with("k.jsonl:1: "), "{error}");
    }

    #[test]
    fn a_program_runs_with_the_library_and_keeps_its_exit_status() {
        let folder = tempfile::tempdir().unwrap();
        let command = ["sh", "-c", "test -n \"$CUDA_INJECTION64_PATH\" && exit 7"];
        let command = command.map(OsString::from);
        let status = run(&command, Some(Path::new("/lib.so")), folder.path(), None).unwrap();
        assert_eq!(status.code(), Some(7));
        assert!(recordings(folder.path()).unwrap().is_empty());
        let nothing = run(&[OsString::from("/no/such")], None, folder.path(), None).unwrap_err();
        assert!(nothing.to_string().starts_with("cannot start /no/such"), "{nothing}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_not_a_panic(text in "\\PC{0,200}") {
            let _ = recording(&text, Path::new("x"));
        }
    }
}
