//! The kernels of NeuSight (ASPLOS 2025): one CSV per operator, one row per shape and GPU, with the
//! time of the operator and the launch shape of its main kernel.

use std::collections::BTreeMap;

use super::{Builder, Gpu, Import, ImportError, Input, op_of};
use crate::Device;
use crate::curve::{Curve, Point};
use crate::files::{FileError, Problem};
use crate::kernel::Kernel;

const COLUMNS: [&str; 3] = ["OPName", "Latency", "Device"];

/// Imports the rows that were measured on `device`: the operator is the model, every row one launch.
///
/// The time is the operator's, which may be several kernels; all of it goes to the one whose shape the
/// row gives. Without a shape the kernel is taken to fill the device.
///
/// # Errors
/// A column that is missing, a cell that does not read, or no row of this device.
pub fn neusight(inputs: &[Input<'_>], device: &Device) -> Result<Import, ImportError> {
    let facts = [
        ("tool", "NeuSight kernel dataset (ASPLOS 2025)".to_owned()),
        ("framework", "PyTorch".to_owned()),
        ("curves", "one point, on all CUs".to_owned()),
        (
            "host_ns",
            format!("assumed: {} per launch, costs.launch of {}", device.costs.launch, device.name),
        ),
    ];
    let mut builder = Builder::new(device, &facts);
    let (mut rows_in, mut other) = (0, BTreeMap::<String, usize>::new());
    for input in inputs {
        let text = input.text.trim_start_matches('\u{feff}');
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().cloned().unwrap_or_default();
        let place = |name: &str| {
            let same = |h: &str| h.trim() == name || h.trim() == format!("{name}(ms)");
            header.iter().position(same)
        };
        for name in COLUMNS {
            if place(name).is_none() {
                let problem = Problem::MissingColumn(COLUMNS.join(", "));
                return Err(FileError::bad(input.file, 1, name, problem));
            }
        }
        let (op, latency, on) = (place("OPName"), place("Latency"), place("Device"));
        let grid = ["Grid x", "Grid y", "Grid z"].map(place);
        let block = ["Block x", "Block y", "Block z"].map(place);
        let kernel_name = place("Kernel Name");
        for record in reader.records().filter_map(Result::ok) {
            let line = record.position().map_or(1, |p| usize::try_from(p.line()).unwrap_or(1));
            rows_in += 1;
            let text = |c: Option<usize>| record.get(c?).map(str::trim).filter(|t| !t.is_empty());
            let gpu =
                Gpu { index: 0, name: text(on).unwrap_or("").to_owned(), cus: None, memory: None };
            if gpu.mismatch(device).is_some() {
                *other.entry(gpu.name).or_default() += 1;
                continue;
            }
            let ms = text(latency).and_then(|t| t.parse().ok());
            let Some(ms) = ms.filter(|ms: &f64| *ms > 0.0 && *ms < 3.6e6) else {
                let problem = Problem::Value {
                    text: text(latency).unwrap_or("nothing").to_owned(),
                    wanted: "milliseconds above 0".to_owned(),
                };
                return Err(FileError::bad(input.file, line, "Latency", problem));
            };
            let size = |c| text(c).and_then(|t| t.parse::<u32>().ok()).filter(|n| *n > 0);
            let three = |c: [Option<usize>; 3]| Some([size(c[0])?, size(c[1])?, size(c[2])?]);
            let model: String = text(op)
                .unwrap_or("op")
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
                .collect();
            let model = if model.starts_with('.') { format!("op{model}") } else { model };
            let name = text(kernel_name).unwrap_or(&model).to_owned();
            let ns = (ms * 1e6).round().max(1.0) as u64;
            let point = Point { samples: 1, ..Point::exact(device.cus(), ns) };
            let grid = three(grid);
            let threads =
                three(block).map_or(0, |b| b.iter().fold(1u32, |n, s| n.saturating_mul(*s)));
            let content = format!("{}:{line}", input.file);
            let kernel = builder.kernel(content, |number| Kernel {
                id: format!("{model}/{number}"),
                op: op_of(&name),
                name: super::one_line(&name),
                grid: grid.unwrap_or([device.cus(), 1, 1]),
                block: threads,
                regs: 0,
                smem_bytes: 0,
                // Its `Blocks per SM` is the grid over the SMs, not what fits on one: threads decide.
                blocks_per_cu: fits(device, threads),
                flops: 0,
                dram_bytes: 0,
                curve: Curve::new(vec![point]).expect("one point of at least 1 CU and 1 ns"),
            });
            builder.launch(&model, 1, kernel, device.costs.launch);
        }
    }
    if builder.profile.kernels.is_empty() {
        let file = inputs.first().map_or("neusight", |i| i.file);
        let names = other.into_keys().collect::<Vec<_>>().join(", ");
        let problem = Problem::Value {
            text: if names.is_empty() { "a file without rows".to_owned() } else { names },
            wanted: format!("measured on {}", device.title),
        };
        return Err(FileError::bad(file, 1, "Device", problem));
    }
    let dropped = match other.values().sum::<usize>() {
        0 => BTreeMap::new(),
        n => BTreeMap::from([("on other GPUs", n)]),
    };
    Ok(builder.finish(rows_in, dropped))
}

/// Blocks of so many threads that fit on one CU by threads alone; 1 where they are not known.
fn fits(device: &Device, threads: u32) -> u32 {
    if threads == 0 { 1 } else { device.topology.residency(threads, 0, 0) }
}
