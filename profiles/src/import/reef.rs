//! Kernel profiles of REEF (OSDI 2022, github.com/SJTU-IPADS/reef-artifacts): TVM-fused kernels on
//! an MI50, as one CSV with a row per launch and `lat_by_occupancy_us`, the latency of one wave
//! with 1, 2, … blocks on every CU, separated by `|`.
//!
//! Kernels were timed one by one with a timer of 2 µs steps and a floor of 12 to 16 µs, so their
//! sum is not the time of the model: more for models of many short kernels (densenet 6132 against
//! 3743 µs), less for alexnet. Sums are kept as they are unless [`ReefOptions::rescale`] is set;
//! the profiled model time is in the provenance either way.

use std::collections::BTreeMap;

use super::{Builder, Import, ImportError, Input, op_of, scaled, staircase};
use crate::Device;
use crate::files::table::{Columns, Row, Table};
use crate::files::{FileError, MODEL_NAME, Problem, is_model_name};
use crate::kernel::Kernel;

/// How to read REEF's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReefOptions {
    /// Scale the kernels of a model so that they add up to its profiled time.
    pub rescale: bool,
}

/// Profiled time of one inference, µs: the total of each model's profile in REEF's artifact.
pub const MODEL_TIMES_US: [(&str, u64); 9] = [
    ("alexnet", 8851),
    ("bert", 5426),
    ("densenet", 3743),
    ("inception", 8273),
    ("mobilenet", 1188),
    ("resnet", 10958),
    ("resnet152", 13233),
    ("resnet18", 2189),
    ("vgg", 4824),
];

const COLUMNS: Columns = Columns {
    needed: &["model", "order", "kernel", "blocks", "threads_per_block", "solo_us"],
    optional: &[
        "grid_x",
        "grid_y",
        "grid_z",
        "block_x",
        "block_y",
        "block_z",
        "lat_occ1_us",
        "lat_by_occupancy_us",
    ],
};

/// A microsecond count up to ten minutes.
const LONGEST_US: f64 = 6e8;

struct KernelRow {
    model: String,
    name: String,
    grid: [u32; 3],
    threads: u32,
    solo_ns: u64,
    /// Latency of one wave at 1, 2, … blocks per CU, ns; empty if unknown.
    by_occupancy: Vec<u64>,
}

/// Imports REEF's kernels, all models of the file at batch 1, measured on `device`.
///
/// With the latency by occupancy, a kernel of `n` blocks takes on `c` CUs the time of its full
/// waves and of its last one at the occupancy that it leaves, scaled so that all CUs give the
/// measured time. Without, 14 µs are taken as a floor, and the rest is flat while the busiest CU has no
/// more than ten wavefronts, then proportional to them.
///
/// # Errors
/// A row that does not read, launches of a model out of order, or no row.
pub fn reef(
    input: &Input<'_>,
    device: &Device,
    options: &ReefOptions,
) -> Result<Import, ImportError> {
    let table = Table::parse(input.text, input.file, COLUMNS, false)?;
    let mut models: BTreeMap<String, Vec<KernelRow>> = BTreeMap::new();
    for row in table.rows() {
        let read = read_row(row)?;
        let stream = models.entry(read.model.clone()).or_default();
        let order: u32 = row.int("order", 0, u32::MAX)?;
        if order as usize != stream.len() {
            let wanted = format!("{}, the next launch of `{}`", stream.len(), read.model);
            let problem = Problem::Value { text: order.to_string(), wanted };
            return Err(row.bad("order", problem));
        }
        stream.push(read);
    }
    if models.is_empty() {
        return Err(FileError::bad(input.file, 1, "file", Problem::NoRows("kernel")));
    }
    let facts = [
        ("tool", "reef kernel profiles (OSDI 2022)".to_owned()),
        ("framework", "TVM, fused kernels".to_owned()),
        ("curves", "derived-from-latency-by-occupancy, else assumed: 14 us floor, flat up to 10 wavefronts per CU".to_owned()),
        ("dram_bytes", "unknown: 0".to_owned()),
        ("host_ns", format!("assumed: {} per launch", device.costs.launch)),
        ("timer", "2 us steps, floor of 12 to 16 us per kernel".to_owned()),
        ("rescaled", options.rescale.to_string()),
    ];
    let mut builder = Builder::new(device, &facts);
    for (model, stream) in models {
        add_model(&mut builder, &model, stream, options);
    }
    Ok(builder.finish(table.len(), BTreeMap::new()))
}

fn add_model(
    builder: &mut Builder<'_>,
    model: &str,
    mut stream: Vec<KernelRow>,
    options: &ReefOptions,
) {
    let sum: u64 = stream.iter().map(|k| k.solo_ns).sum();
    let known = MODEL_TIMES_US.iter().find(|(name, _)| *name == model);
    let mut fact = |key: &str, value: String| {
        builder.profile.provenance.insert(format!("{key}.{model}"), value);
    };
    fact("kernel_sum_us", (sum as f64 / 1e3).to_string());
    match known {
        Some((_, us)) => fact("model_time_us", us.to_string()),
        None => fact("model_time_us", "unknown".to_owned()),
    }
    if let Some((_, us)) = known.filter(|_| options.rescale) {
        for kernel in &mut stream {
            kernel.solo_ns = scaled(kernel.solo_ns, u128::from(*us) * 1000, u128::from(sum)).max(1);
        }
    }
    let launch = builder.device.costs.launch;
    for row in stream {
        let index = add(builder, model, row);
        builder.launch(model, 1, index, launch);
    }
}

fn add(builder: &mut Builder<'_>, model: &str, row: KernelRow) -> usize {
    let cus = builder.device.cus();
    let limit = builder.device.topology.blocks_per_cu;
    let content = format!(
        "{model}/{}/{:?}/{}/{}/{:?}",
        row.name, row.grid, row.threads, row.solo_ns, row.by_occupancy
    );
    builder.kernel(content, |number| {
        let blocks: u64 = row.grid.iter().map(|&n| u64::from(n)).product();
        let whole = waves(blocks, cus, &row.by_occupancy);
        let occupancy = u32::try_from(row.by_occupancy.len()).unwrap_or(limit).clamp(1, limit);
        Kernel {
            id: format!("{model}/{number}"),
            op: op_of(&row.name),
            name: row.name,
            grid: row.grid,
            block: row.threads,
            regs: 0,
            smem_bytes: 0,
            blocks_per_cu: occupancy,
            flops: 0,
            dram_bytes: 0,
            curve: staircase(cus, |c| {
                if row.by_occupancy.is_empty() {
                    assumed(row.solo_ns, blocks, row.threads, [c, cus])
                } else {
                    scaled(row.solo_ns, waves(blocks, c, &row.by_occupancy), whole)
                }
            }),
        }
    })
}

/// Part of every duration that does not depend on CUs: launch and timer.
const FLOOR_NS: u64 = 14_000;
/// Wavefronts that a CU runs in the time of one: latencies hide each other. Where REEF's artifact has
/// latencies by occupancy, curves from these two numbers lie within 18 % of those from the latencies.
const FLAT_WAVEFRONTS: u64 = 10;

/// Time on `cus` of all `all` CUs, ns, of a kernel whose latency by occupancy is unknown: the floor,
/// and the rest in proportion to the wavefronts of the busiest CU, flat while they are few.
fn assumed(solo_ns: u64, blocks: u64, threads: u32, [cus, all]: [u32; 2]) -> u64 {
    let each = u64::from(threads.div_ceil(64));
    let load = |c: u32| (blocks.div_ceil(u64::from(c)) * each).max(FLAT_WAVEFRONTS);
    let floor = solo_ns.min(FLOOR_NS);
    floor + scaled(solo_ns - floor, u128::from(load(cus)), u128::from(load(all)))
}

/// Time of `blocks` on `cus` CUs, in the unit of `by_occupancy`: full waves at the highest
/// occupancy, and a last one at the occupancy it needs.
fn waves(blocks: u64, cus: u32, by_occupancy: &[u64]) -> u128 {
    let cus = u64::from(cus);
    let Some(&full) = by_occupancy.last() else { return u128::from(blocks.div_ceil(cus)) };
    let per_wave = cus * by_occupancy.len() as u64;
    let (waves, rest) = (blocks / per_wave, blocks % per_wave);
    let mut time = u128::from(waves) * u128::from(full);
    if rest > 0 {
        let occupancy = usize::try_from(rest.div_ceil(cus)).expect("at most the list's length");
        time += u128::from(by_occupancy[occupancy - 1]);
    }
    time
}

fn read_row(row: Row<'_>) -> Result<KernelRow, ImportError> {
    let model = row.text("model");
    if !is_model_name(model) {
        let problem = Problem::Value { text: model.to_owned(), wanted: MODEL_NAME.to_owned() };
        return Err(row.bad("model", problem));
    }
    let name = super::one_line(row.text("kernel"));
    if name.is_empty() {
        let wanted = "a kernel's name".to_owned();
        return Err(row.bad("kernel", Problem::Value { text: name, wanted }));
    }
    Ok(KernelRow {
        model: model.to_owned(),
        name,
        grid: read_grid(row)?,
        threads: row.int("threads_per_block", 1, 1 << 16)?,
        solo_ns: (row.decimal("solo_us", 0.0, LONGEST_US)? * 1e3).round().max(1.0) as u64,
        by_occupancy: read_occupancy(row)?,
    })
}

/// The grid, whose product must be the number of blocks; the blocks alone where it is not given.
fn read_grid(row: Row<'_>) -> Result<[u32; 3], ImportError> {
    let blocks: u32 = row.int("blocks", 1, 1 << 30)?;
    if ["grid_x", "grid_y", "grid_z"].iter().any(|c| row.get(c).is_none()) {
        return Ok([blocks, 1, 1]);
    }
    let grid = [
        row.int("grid_x", 1, 1 << 30)?,
        row.int("grid_y", 1, 1 << 16)?,
        row.int("grid_z", 1, 1 << 16)?,
    ];
    let product: u64 = grid.iter().map(|&n: &u32| u64::from(n)).product();
    if product == u64::from(blocks) {
        return Ok(grid);
    }
    let wanted = format!("{product}, the product of the grid");
    Err(row.bad("blocks", Problem::Value { text: blocks.to_string(), wanted }))
}

fn read_occupancy(row: Row<'_>) -> Result<Vec<u64>, ImportError> {
    let Some(text) = row.get("lat_by_occupancy_us") else { return Ok(Vec::new()) };
    text.split('|')
        .map(|part| {
            let us = part.trim().parse::<f64>().ok().filter(|us| *us > 0.0 && *us <= LONGEST_US);
            us.map(|us| (us * 1e3).round().max(1.0) as u64).ok_or_else(|| {
                let wanted = "microseconds above 0, separated by `|`".to_owned();
                row.bad("lat_by_occupancy_us", Problem::Value { text: part.to_owned(), wanted })
            })
        })
        .collect()
}
