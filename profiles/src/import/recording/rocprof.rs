//! What rocprofv3 writes (rocprofiler-sdk): `kernel_trace.csv`, its JSON, and the rocpd database; and the
//! CSV of rocprof and rocprofv2, which came before it. Grids count work-items there; blocks are the grid
//! over the workgroup.

use std::io::Read;
use std::path::Path;

use super::sheet::Sheet;
use super::{Kernel, Progress, Recording, Shape, bytes, io, rocprof_json};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

pub(super) const WANTED: &str =
    "what rocprofv3 writes: kernel_trace.csv, its JSON, or a rocpd database";

pub(super) fn read(path: &Path, progress: Progress<'_>) -> Result<Recording, ImportError> {
    let file = path.display().to_string();
    let failed = |e| io(path, e);
    if bytes::begins_with(path, b"SQLite format 3").map_err(failed)? {
        return super::rocpd::read(&file, path, progress);
    }
    of_text(&file, bytes::open(path, progress).map_err(failed)?)
}

/// Reads the formats that are text, not a database.
pub(super) fn of_text(file: &str, mut from: impl Read) -> Result<Recording, ImportError> {
    let failed = |e| io(Path::new(file), e);
    let mut head = Vec::new();
    from.by_ref().take(64).read_to_end(&mut head).map_err(failed)?;
    let json = head.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let whole = std::io::BufReader::new(std::io::Cursor::new(head).chain(from));
    if json { rocprof_json::read(file, whole) } else { of_csv(file, whole) }
}

pub(super) fn empty(file: &str) -> Recording {
    let facts = vec![("tool", "rocprofv3".to_owned())];
    Recording { file: file.to_owned(), facts, ..Recording::default() }
}

/// Blocks of a grid of work-items.
pub(super) fn blocks(grid: [u64; 3], group: [u64; 3]) -> (Option<[u32; 3]>, u32) {
    let n = |i: usize| {
        let blocks =
            grid[i].checked_div(group[i]).map(|n| n + u64::from(!grid[i].is_multiple_of(group[i])));
        blocks.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
    };
    let three = n(0).zip(n(1)).zip(n(2)).map(|((x, y), z)| [x, y, z]);
    let threads = group.iter().try_fold(1u64, |all, g| all.checked_mul(*g));
    (three, threads.and_then(|t| u32::try_from(t).ok()).unwrap_or(0))
}

pub(super) fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The columns without which it is not a trace of kernels, as rocprofv3 and rocprofv2 call them, and as
/// rocprof did.
const NEEDED: [[&str; 3]; 2] =
    [["kernel_name", "start_timestamp", "end_timestamp"], ["kernelname", "beginns", "endns"]];

fn of_csv(file: &str, mut from: impl Read) -> Result<Recording, ImportError> {
    let failed = |e| io(Path::new(file), e);
    let refused = |text: &str, wanted: &str| {
        let problem = Problem::Value { text: text.to_owned(), wanted: wanted.to_owned() };
        FileError::bad(file, 1, "file", problem)
    };
    // The header is among the first lines, and decides which tool's columns these are.
    let mut head = Vec::new();
    from.by_ref().take(256 << 10).read_to_end(&mut head).map_err(failed)?;
    let mut needed = NEEDED[0];
    for names in NEEDED {
        if Sheet::open(head.as_slice(), &names).map_err(failed)?.is_some() {
            needed = names;
            break;
        }
    }
    let Some(mut sheet) = Sheet::open(head.as_slice().chain(from), &needed).map_err(failed)? else {
        return Err(refused("no such header", WANTED));
    };
    if sheet.column(&["counter_name"]).is_some() {
        let text = "counters, a row for each of a launch";
        return Err(refused(text, "kernel_trace.csv: counting slows kernels down"));
    }
    let mut all = empty(file);
    let begin = if needed == NEEDED[0] { "Start_Timestamp" } else { "BeginNs" };
    let [name, start, end] = needed.map(|c| sheet.column(&[c]));
    let agent = sheet.column(&["agent_id", "gpu_id", "gpu-id"]);
    let stream = sheet.column(&["stream_id"]);
    let queue = sheet.column(&["queue_id", "queue-id"]);
    let process = sheet.column(&["pid", "process_id"]);
    let group =
        ["workgroup_size_x", "workgroup_size_y", "workgroup_size_z"].map(|c| sheet.column(&[c]));
    let grid = ["grid_size_x", "grid_size_y", "grid_size_z"].map(|c| sheet.column(&[c]));
    // Total numbers of work-items and threads, for files without the three dimensions.
    let in_all =
        [["grid_size", "grd"], ["workgroup_size", "wgr"]].map(|names| sheet.column(&names));
    let smem = sheet.column(&["group_segment_size", "lds_block_size", "lds_per_workgroup", "lds"]);
    let regs = sheet.column(&["vgpr_count", "arch_vgpr_count", "arch_vgpr", "vgpr"]);
    let mut processes = super::Names::default();
    while sheet.next().map_err(failed)? {
        let times = sheet.ns(start).zip(sheet.ns(end));
        let took = times.and_then(|(s, e)| u64::try_from(e.checked_sub(s)?).ok());
        let (Some((start, _)), Some(duration)) = (times, took) else {
            let line = sheet.line();
            let text = sheet.text(start).unwrap_or("nothing").to_owned();
            let wanted = "a time in ns, the end after the start".to_owned();
            all.drop_bad(|| format!("line {line}: {begin}"), Problem::Value { text, wanted });
            continue;
        };
        let Some(text) = sheet.text(name).map(|n| n.trim_end_matches(".kd").to_owned()) else {
            all.drop("kernels without a name");
            continue;
        };
        // `Agent 4`, `GPU 0`, or a number.
        let agent = sheet.text(agent).and_then(|a| a.rsplit(' ').next()?.parse().ok()).unwrap_or(0);
        let three = |columns: [Option<usize>; 3], in_all| {
            let [x, y, z] = columns.map(|c| sheet.count(c).unwrap_or(0));
            match sheet.count(in_all) {
                Some(n) if columns[0].is_none() => [n, 1, 1],
                _ => [x, y, z],
            }
        };
        let (grid, block) = blocks(three(grid, in_all[0]), three(group, in_all[1]));
        let smem_bytes = small(sheet.count(smem).unwrap_or(0));
        let shape = Shape { grid, block, regs: small(sheet.count(regs).unwrap_or(0)), smem_bytes };
        let process = processes.id(sheet.text(process).unwrap_or(""));
        // Without streams, the stream number is 0; queues tell launches apart then.
        let [stream, queue] = [stream, queue].map(|c| sheet.text(c).unwrap_or(""));
        let key = format!("{process}/{agent}/{queue}/{stream}");
        let stream = all.stream_id(&key, process);
        let (name, shape) = (all.names.id(&text), all.shape(shape));
        let (link, graph) = (0, false);
        all.kernels.push(Kernel { name, shape, gpu: agent, stream, link, start, duration, graph });
    }
    Ok(all)
}
