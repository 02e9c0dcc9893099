//! What `nsys stats` prints as CSV, for people who cannot share the database: `cuda_gpu_trace`, one row
//! per kernel and copy, and `cuda_gpu_kern_sum`, one row per kernel name. `nvprof --print-gpu-trace
//! --csv`, which came before it, has the same rows under other names, and units in a row of their own.

use std::io::Read;

use super::sheet::Sheet;
use super::{Copy, Kernel, Mark, Recording, Shape, StreamOptions, Way, io};
use crate::files::{FileError, Problem};
use crate::import::ImportError;

const WANTED: &str = "an SQLite export (nsys export --type sqlite), or CSV of `nsys stats --report \
                      cuda_gpu_trace` or `cuda_gpu_kern_sum`";

/// One line of `cuda_gpu_kern_sum`.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    name: u32,
    instances: u64,
    /// Time of all instances, ns.
    total: u64,
}

pub(super) fn read(file: &str, mut from: impl Read) -> Result<Recording, ImportError> {
    let failed = |e| io(std::path::Path::new(file), e);
    // The header, which is among the first lines, decides which of the two it is.
    let mut head = Vec::new();
    from.by_ref().take(256 << 10).read_to_end(&mut head).map_err(failed)?;
    let trace = Sheet::open(head.as_slice(), &["start", "duration", "name"]).map_err(failed)?;
    let is_trace = trace.is_some();
    let needed: &[&str] = if is_trace {
        &["start", "duration", "name"]
    } else {
        &["total time", "instances", "name"]
    };
    let refused = |text: &str| {
        let problem = Problem::Value { text: text.to_owned(), wanted: WANTED.to_owned() };
        FileError::bad(file, 1, "file", problem)
    };
    let Some(sheet) = Sheet::open(head.as_slice().chain(from), needed).map_err(failed)? else {
        let ending = std::path::Path::new(file).extension().and_then(|e| e.to_str());
        let report = ending.is_some_and(|e| ["nsys-rep", "qdrep", "qdstrm"].contains(&e));
        return Err(refused(if report { "a report as it was recorded" } else { "no such header" }));
    };
    // Traces of calls, NVTX ranges and the operating system have times and names as well.
    if is_trace && sheet.column(&["grdx", "grid x"]).is_none() {
        return Err(refused("a table of times without grids"));
    }
    let nvprof = sheet.column(&["grid x"]).is_some();
    let mut all = Recording { file: file.to_owned(), ..Recording::default() };
    if is_trace {
        let tool = if nvprof { "nvprof (gpu trace)" } else { "Nsight Systems (cuda_gpu_trace)" };
        all.facts = vec![("tool", tool.to_owned())];
        all.rows_of_trace(sheet, nvprof).map_err(failed)?;
    } else {
        all.facts = vec![("tool", "Nsight Systems (cuda_gpu_kern_sum)".to_owned())];
        all.rows_of_summary(sheet).map_err(failed)?;
    }
    Ok(all)
}

impl Recording {
    fn rows_of_trace<R: Read>(&mut self, mut sheet: Sheet<R>, nvprof: bool) -> std::io::Result<()> {
        let at = |s: &Sheet<R>, names: &[&str]| s.column(names);
        let (start, took) = (at(&sheet, &["start"]), at(&sheet, &["duration"]));
        let grid = [["grdx", "grid x"], ["grdy", "grid y"], ["grdz", "grid z"]];
        let block = [["blkx", "block x"], ["blky", "block y"], ["blkz", "block z"]];
        let (grid, block) = (grid.map(|c| at(&sheet, &c)), block.map(|c| at(&sheet, &c)));
        let regs = at(&sheet, &["reg/trd", "registers per thread"]);
        let smem = [["stcsmem", "static smem"], ["dymsmem", "dynamic smem"]];
        let smem = smem.map(|c| at(&sheet, &c));
        let (bytes, device) = (at(&sheet, &["bytes", "size"]), at(&sheet, &["device"]));
        let (context, stream) = (at(&sheet, &["ctx", "context"]), at(&sheet, &["strm", "stream"]));
        let name = at(&sheet, &["name"]);
        let mut devices = super::Names::default();
        while sheet.next()? {
            let Some(text) = sheet.text(name) else {
                self.drop("rows without a name");
                continue;
            };
            // nvprof numbers its launches: `gemm(float*) [117]`.
            let numbered = text.rsplit_once(" [").filter(|(_, n)| {
                nvprof && n.strip_suffix(']').is_some_and(|n| n.parse::<u64>().is_ok())
            });
            let text = numbered.map_or(text, |(t, _)| t).to_owned();
            let times = sheet.ns(start).zip(sheet.ns(took).and_then(|d| u64::try_from(d).ok()));
            let Some((start, duration)) = times else {
                let line = sheet.line();
                let text = sheet.text(start).unwrap_or("nothing").to_owned();
                let wanted = "a time in the unit of its column".to_owned();
                self.drop_bad(|| format!("line {line}: Start"), Problem::Value { text, wanted });
                continue;
            };
            // `NVIDIA H100 80GB HBM3 (0)`
            let of = sheet.text(device).unwrap_or("");
            let number = of.rsplit(['(', ' ']).next().map(|n| n.trim_end_matches(')'));
            let gpu = number.and_then(|n| n.parse().ok()).unwrap_or_else(|| devices.id(of));
            if self.gpus.iter().all(|g| g.index != gpu) && of.contains('(') {
                let name = of.rsplit_once('(').map_or(of, |(n, _)| n).trim().to_owned();
                self.gpus.push(super::Gpu { index: gpu, name, cus: None, memory: None });
            }
            let sized = |column| size(&sheet, column);
            if text.starts_with("[CUDA mem") {
                let way = match text.as_str() {
                    t if t.contains("HtoD") || t.contains("Host-to-Device") => Way::In,
                    t if t.contains("DtoH") || t.contains("Device-to-Host") => Way::Out,
                    _ => Way::Inside,
                };
                let bytes = sized(bytes);
                let (process, link) = (0, 0);
                self.copies.push(Copy { way, gpu, process, link, bytes, start, duration });
                continue;
            }
            let three = |columns: [Option<usize>; 3]| {
                let one = |c| sheet.count(c).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
                Some([one(columns[0])?, one(columns[1])?, one(columns[2])?])
            };
            let threads =
                three(block).and_then(|b| b.iter().try_fold(1u32, |n, s| n.checked_mul(*s)));
            let shape = Shape {
                grid: three(grid),
                block: threads.unwrap_or(0),
                regs: sheet.count(regs).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                smem_bytes: u32::try_from(sized(smem[0]) + sized(smem[1])).unwrap_or(0),
            };
            let place = |c| sheet.text(c).unwrap_or("");
            let key = format!("{gpu}/{}/{}", place(context), place(stream));
            let stream = self.stream_id(&key, 0);
            let (name, shape) = (self.names.id(&text), self.shape(shape));
            let (link, graph) = (0, false);
            self.kernels.push(Kernel { name, shape, gpu, stream, link, start, duration, graph });
        }
        Ok(())
    }

    fn rows_of_summary<R: Read>(&mut self, mut sheet: Sheet<R>) -> std::io::Result<()> {
        let total = sheet.column(&["total time"]);
        let (instances, name) = (sheet.column(&["instances"]), sheet.column(&["name"]));
        let mut rows = Vec::new();
        while sheet.next()? {
            let read = sheet.text(name).zip(sheet.count(instances).filter(|n| *n > 0));
            let time = sheet.ns(total).and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0);
            match read.zip(time) {
                Some(((text, instances), total)) => {
                    let name = self.names.id(text);
                    rows.push(Summary { name, instances, total });
                }
                None => self.drop("rows that do not read"),
            }
        }
        self.summary = Some(rows);
        Ok(())
    }

    /// One pass of a summary, with the longest kernels first: the summary does not tell their order.
    pub(super) fn of_summary(
        &self,
        rows: &[Summary],
        options: &StreamOptions,
    ) -> Result<Self, ImportError> {
        let all: u64 = rows.iter().fold(0, |s, r| s.saturating_add(r.total));
        let heavy = rows.iter().filter(|r| r.total.saturating_mul(1000) >= all);
        let common = heavy.map(|r| r.instances).reduce(gcd).unwrap_or(0);
        let passes = match options.passes {
            Some(given) => u64::from(given),
            None if common > 1 => common,
            None if rows.is_empty() => return Err(self.empty()),
            None => {
                let text = "a summary, which does not say how often the model ran".to_owned();
                return Err(self.bad("file", text, "enough by itself: give --passes N"));
            }
        };
        let mut one = Self {
            file: self.file.clone(),
            facts: self.facts.clone(),
            dropped: self.dropped.clone(),
            ..Self::default()
        };
        let stream = one.stream_id("0", 0);
        let shape = one.shape(Shape { grid: None, block: 0, regs: 0, smem_bytes: 0 });
        let (mut at, mut in_all) = (0i64, 0u64);
        for row in rows {
            let name = one.names.id(self.names.text(row.name));
            // To the nearest whole number, without a sum that could overflow.
            let rest = row.instances % passes;
            let launches = row.instances / passes + u64::from(rest >= passes - passes / 2);
            if launches == 0 {
                one.drop("kernels that run in fewer than half of the passes");
            }
            in_all = in_all.saturating_add(launches);
            if launches > LAUNCHES || in_all > LAUNCHES_IN_ALL {
                return Err(self.bad(
                    "Instances",
                    row.instances.to_string(),
                    "of so few passes: give --passes N",
                ));
            }
            // Each launch gets its share of the time of all launches in a pass.
            let each = row.total / passes / launches.max(1);
            for _ in 0..launches {
                let (start, duration) = (at, each.max(1));
                let (gpu, link, graph) = (0, 0, false);
                one.kernels.push(Kernel { name, shape, gpu, stream, link, start, duration, graph });
                at = at.saturating_add_unsigned(duration);
            }
        }
        let name = one.names.id("step of a summary");
        one.marks.push(Mark {
            name,
            process: 0,
            start: 0,
            end: at.saturating_add(1),
            on_gpu: false,
        });
        let how = if options.passes.is_some() {
            "as given"
        } else {
            "the common factor of the instances"
        };
        one.warnings.push(format!(
            "a summary has neither order nor shapes nor gaps: {passes} passes ({how}), kernels in the order \
             of the file, launched by the device's host time; prefer `--report cuda_gpu_trace`"
        ));
        Ok(one)
    }
}

/// Most launches of one kernel in one pass.
const LAUNCHES: u64 = 100_000;
/// Most launches of all kernels in one pass. Each launch takes memory, although its row is only a few
/// bytes.
const LAUNCHES_IN_ALL: u64 = 2_000_000;

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Bytes, from the unit of the column: megabytes where it is `MB`.
fn size<R: Read>(sheet: &Sheet<R>, column: Option<usize>) -> u64 {
    let scale = match sheet.unit(column) {
        "mb" => 1e6,
        "mib" => f64::from(1u32 << 20),
        "kb" => 1e3,
        "gb" => 1e9,
        _ => 1.0,
    };
    let bytes = sheet.number(column).unwrap_or(0.0) * scale;
    if (0.0..1e18).contains(&bytes) { bytes.round() as u64 } else { 0 }
}
