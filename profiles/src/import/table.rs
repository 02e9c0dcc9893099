//! The table that most people have: whole-model latency by batch and GPU share.
//!
//! `model,batch,share_pct,latency_ms`, or `cus` in place of `share_pct`, and optionally
//! `kernels,width_cus,host_ms,l2_util_pct,dram_util_pct,power_w,weights_mib`. Each model becomes
//! `kernels` equal kernels per batch behind its host part.

mod floor;
mod rows;

use std::collections::BTreeMap;

use super::{Builder, Import, ImportError, Input, bytes_at};
use crate::Device;
use crate::curve::{Curve, Point};
use crate::drawn::Drawn;
use crate::files::{FileError, Problem};
use crate::kernel::{Kernel, Op};
use crate::units::{Bytes, Nanos};
use floor::Split;
use rows::{Key, TableRow};

/// How the host's part of a latency is found where the table has no `host_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LaunchFloor {
    /// There is none: all of a latency is the GPU's.
    #[default]
    None,
    /// Derived from the latencies: what they have in common over shares, by item, is the host's with
    /// the GPU waiting; of the rest, the least is the host's time to issue a batch, if latencies are
    /// flat over batches there.
    Auto,
    /// So much of every batch.
    Given(Nanos),
}

/// How to read a table of latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// The host's part of a latency.
    pub launch_floor: LaunchFloor,
}

/// Two shares of the table that are the same number of CUs on the device.
const SAME_CUS: &str = "another share rounds to the same CUs";

/// The rows of one batch by CUs.
type Batch = BTreeMap<u32, TableRow>;

/// Imports a table of whole-model latencies on `device`.
///
/// A share becomes CUs as MPS rounds it on the device. Where two shares of one model and batch
/// come to the same CUs, the smaller one, which is nearer to them, is kept and the other dropped.
///
/// | column | what it does |
/// |---|---|
/// | `kernels` | launches of a batch; 1 without it: then delays per kernel count once, and a warning says so |
/// | `width_cus` | CUs that the blocks of each kernel fill: more do not help it, and others get them. Without it the blocks are unknown, and kernels share fairly |
/// | `host_ms` | time of the host to issue a batch, in equal parts before its kernels |
/// | `l2_util_pct`, `dram_util_pct` | what the model asks of L2 and DRAM at that share; the widest share also gives the kernels' DRAM bytes |
/// | `power_w` | watts of the board at that share |
/// | `weights_mib` | device memory of a worker's parameters |
///
/// A latency is the longer one of what host and GPU need, and one launch. Where it is the host's, the
/// GPU's part is hidden: it is extended from larger batches of the same share, and is the latency
/// itself where there are none. Warnings say what was assumed.
///
/// # Errors
/// A row that does not read, both or neither of `share_pct` and `cus`, a row twice, more CUs than
/// the device has, values that must agree over a model's rows and do not, or no row.
pub fn table(
    input: &Input<'_>,
    device: &Device,
    options: &TableOptions,
) -> Result<Import, ImportError> {
    let (groups, rows_in, dropped) = read(input, device)?;
    let facts = [
        ("tool", "table of whole-model latencies".to_owned()),
        ("curves", "whole-model latencies, in equal kernels".to_owned()),
    ];
    let mut builder = Builder::new(device, &facts);
    let mut models: BTreeMap<&str, Vec<(u32, &Batch)>> = BTreeMap::new();
    for (key, batch) in &groups {
        models.entry(&key.model).or_default().push((key.batch, batch));
    }
    let mut warnings = vec![];
    for (model, batches) in &models {
        let splits =
            floor::split(model, batches, options.launch_floor, device.cus(), &mut warnings);
        for ((batch, rows), split) in batches.iter().zip(&splits) {
            add(&mut builder, model, *batch, rows, split);
        }
        assumed(model, batches, device, &mut warnings);
        let weights =
            batches.iter().flat_map(|(_, rows)| rows.values()).find_map(|r| r.weights_mib);
        if let (Some(mib), Some(m)) = (weights, builder.profile.models.get_mut(*model)) {
            m.weights = Bytes((mib * f64::from(1 << 20)).round() as u64);
        }
    }
    if groups.values().flat_map(BTreeMap::values).any(|r| r.weights_mib.is_some()) {
        builder.profile.provenance.insert("memory".to_owned(), "weights_mib, else 0".to_owned());
    }
    let mut import = builder.finish(rows_in, dropped);
    for (i, warning) in warnings.iter().enumerate() {
        import.profile.provenance.insert(format!("assumed.{:02}", i + 1), warning.clone());
    }
    import.warnings = warnings;
    Ok(import)
}

type Groups = BTreeMap<Key, Batch>;

fn read(
    input: &Input<'_>,
    device: &Device,
) -> Result<(Groups, usize, BTreeMap<&'static str, usize>), ImportError> {
    let table = rows::parse(input)?;
    let mut groups = Groups::new();
    let mut dropped = BTreeMap::new();
    for row in table.rows() {
        let (key, read) = rows::read(row, device)?;
        if let Some(field) =
            groups.iter().filter(|(k, _)| k.model == key.model).find_map(|(k, known)| {
                known.values().find_map(|other| read.disagrees(other, k.batch == key.batch))
            })
        {
            let what = format!("the one of the other rows of {}", key.words(field));
            let text = row.get(field).unwrap_or("nothing").to_owned();
            return Err(row.bad(field, Problem::Value { text, wanted: what }));
        }
        let group = groups.entry(key.clone()).or_default();
        match group.get(&read.point.cus) {
            None => {
                group.insert(read.point.cus, read);
            }
            Some(other) if other.share == read.share => {
                let what = format!("{} at the same batch and share", key.model);
                return Err(row.bad("model", Problem::Duplicate(what)));
            }
            Some(other) => {
                *dropped.entry(SAME_CUS).or_default() += 1;
                if read.share < other.share {
                    group.insert(read.point.cus, read);
                }
            }
        }
    }
    if groups.is_empty() {
        return Err(FileError::bad(input.file, 1, "file", Problem::NoRows("latency")));
    }
    let rows_in = table.len();
    Ok((groups, rows_in, dropped))
}

/// Launches of a batch.
fn kernels(rows: &Batch) -> u32 {
    rows.values().find_map(|r| r.kernels).unwrap_or(1)
}

fn add(builder: &mut Builder<'_>, model: &str, batch: u32, rows: &Batch, split: &Split) {
    let device = builder.device;
    let Some((_, widest)) = rows.last_key_value() else { return };
    let kernels = kernels(rows);
    let width = rows.values().find_map(|r| r.width_cus);
    // Blocks that fill so many CUs. Without a width their number is unknown, and kernels share
    // fairly whatever the others are.
    let fit = if width.is_some() { device.topology.blocks_per_cu } else { 1 };
    let blocks = width.unwrap_or(device.cus()) * fit;
    let each = |ns: u64| (ns / u64::from(kernels)).max(1);
    let points = rows.keys().zip(&split.gpu_ns).map(|(&cus, &ns)| Point::exact(cus, each(ns)));
    let points: Vec<Point> = points.collect();
    let part = |percent: Option<f64>| percent.map(|p| p / 100.0);
    let drawn = rows.values().zip(&split.gpu_ns).filter(|(r, _)| r.draws()).map(|(row, &ns)| {
        // Means over the latency; kernels run for a part of it, and draw nothing in the rest.
        let idle = (row.point.duration_ns as f64 / ns as f64).max(1.0);
        let while_running = |share: Option<f64>| part(share).map(|s| (s * idle).min(1.0));
        let power = &device.power;
        let watts = row.power_w.map(|w| {
            let above = (w - power.idle_w).max(0.0) * idle;
            w.max((power.idle_w + above).min(power.cap_w))
        });
        Drawn::new(row.point.cus, while_running(row.l2_util), while_running(row.dram_util), watts)
    });
    let share = widest.dram_util.unwrap_or(0.0) / 100.0;
    let dram_bytes =
        bytes_at(device.memory.dram_gbps, widest.point.duration_ns, share) / u64::from(kernels);
    let id = format!("{model}-b{batch}");
    let drawn: Vec<Drawn> = drawn.collect();
    let kernel = builder.kernel(id.clone(), |_| Kernel {
        name: id.clone(),
        id,
        op: if width.is_some() { Op::Other } else { Op::Pseudo },
        grid: [blocks, 1, 1],
        block: 0,
        regs: 0,
        smem_bytes: 0,
        blocks_per_cu: fit,
        flops: 0,
        dram_bytes,
        curve: Curve::new(points)
            .expect("read with at least one CU and 1 ns, once per count")
            .with_drawn(drawn),
    });
    let host = split.host_ns / u64::from(kernels);
    for i in 0..kernels {
        let before = if i == 0 { split.serial_ns } else { 0 };
        builder.launch(model, batch, kernel, Nanos(before + host));
    }
}

/// What the table leaves open.
fn assumed(model: &str, batches: &[(u32, &Batch)], device: &Device, warnings: &mut Vec<String>) {
    let rows = || batches.iter().flat_map(|(_, rows)| rows.values());
    if rows().all(|r| r.kernels.is_none()) {
        warnings.push(format!(
            "{model}: one kernel per batch; costs per kernel (masks, switches, delays beside others) \
             count once: give `kernels`"
        ));
    }
    let narrow = batches.iter().filter(|(_, rows)| rows.len() == 1).map(|(b, _)| b.to_string());
    let narrow: Vec<String> = narrow.collect();
    if !narrow.is_empty() {
        warnings.push(format!(
            "{model}: one share alone at batch {}: nothing is known of others, and work is taken to \
             divide evenly below it",
            narrow.join(", ")
        ));
    }
    let widest = rows().map(|r| r.point.cus).max().unwrap_or(0);
    if widest < device.cus() {
        warnings.push(format!(
            "{model}: measured up to {widest} of {} CUs: nothing is known beyond, where the latency at \
             {widest} is used",
            device.cus()
        ));
    }
}
