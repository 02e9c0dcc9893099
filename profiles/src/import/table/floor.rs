//! Divides a latency into the host's part and the GPU's part.
//!
//! The host issues a batch's kernels while the GPU runs the earlier ones, so that a latency is the
//! longer of the two, and one launch or one kernel more. Small batches on many CUs are the host's:
//! their latencies do not change with the batch. What a process does for each item of a batch while
//! the GPU waits for it (tokens, copies, answers) is in every latency, whatever the share.

use std::collections::BTreeMap;

use super::{Batch, LaunchFloor, TableRow, kernels};

mod serial;

/// Latencies within this factor of the least one are the host's.
const FLAT: f64 = 1.1;

/// A batch's latency, divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Time of the host before the first launch, with nothing of the batch on the GPU.
    pub(super) serial_ns: u64,
    /// Time of the host to issue the batch.
    pub(super) host_ns: u64,
    /// Time of its kernels alone, by CUs, in the order of the rows.
    pub(super) gpu_ns: Vec<u64>,
}

/// Divides the latencies of a model, in ascending order of batches, on a device of this many CUs.
pub(super) fn split(
    model: &str,
    batches: &[(u32, &Batch)],
    rule: LaunchFloor,
    cus: u32,
    warnings: &mut Vec<String>,
) -> Vec<Split> {
    let serial = match rule {
        LaunchFloor::Auto => serial::of(model, batches, cus, warnings),
        _ => vec![0; batches.len()],
    };
    // The rest of each latency, for launches and kernels.
    let rest: Vec<BTreeMap<u32, u64>> = batches
        .iter()
        .zip(&serial)
        .map(|((_, rows), serial)| {
            let less = |row: &TableRow| row.point.duration_ns.saturating_sub(*serial).max(1);
            rows.iter().map(|(cus, row)| (*cus, less(row))).collect()
        })
        .collect();
    let common = match rule {
        LaunchFloor::None => None,
        LaunchFloor::Given(ns) => Some(ns.0),
        LaunchFloor::Auto => flat(model, batches, &rest, warnings),
    };
    let hosts: Vec<u64> = batches
        .iter()
        .map(|(_, rows)| rows.values().find_map(|r| r.host_ns).or(common).unwrap_or(0))
        .collect();
    // The GPU's known times, by CUs and batch: those of latencies well above the host's part.
    let mut known: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
    for (((batch, rows), rest), &host) in batches.iter().zip(&rest).zip(&hosts) {
        for (&cus, &latency) in rest {
            if latency as f64 > host as f64 * FLAT || host == 0 {
                let first = host / u64::from(kernels(rows));
                known.entry(cus).or_default().push((*batch, latency.saturating_sub(first).max(1)));
            }
        }
    }
    let mut unknown = false;
    let splits =
        batches.iter().zip(&rest).zip(&hosts).zip(&serial).map(|(((row, rest), host), serial)| {
            let ((batch, rows), &host) = (row, host);
            let gpu = rest.iter().map(|(cus, &latency)| {
                let known = known.get(cus).map_or(&[][..], Vec::as_slice);
                match known.iter().find(|(b, _)| b == batch) {
                    Some((_, ns)) => *ns,
                    None => match extended(known, *batch) {
                        Some(ns) => ns.min(latency),
                        None => {
                            unknown = true;
                            latency
                        }
                    },
                }
            });
            let gpu_ns: Vec<u64> = gpu.collect();
            // Host and one kernel are the latency where the host decides.
            let given = rows.values().any(|r| r.host_ns.is_some());
            let host_ns = match rest.values().zip(&gpu_ns).next_back() {
                Some((&latency, gpu)) if !given && host > 0 => {
                    let kernels = u64::from(kernels(rows));
                    let bound = latency as f64 <= host as f64 * FLAT;
                    if bound { latency.saturating_sub(gpu / kernels).max(1) } else { host }
                }
                _ => host,
            };
            Split { serial_ns: *serial, host_ns, gpu_ns }
        });
    let splits: Vec<Split> = splits.collect();
    if unknown {
        warnings.push(format!(
            "{model}: some latencies are the host's at every batch of their share: how long the GPU \
             takes is not in the table, and the latency is used"
        ));
    }
    splits
}

/// The host's part: the least of what is left of the model's latencies, if that of another batch is as
/// small.
fn flat(
    model: &str,
    batches: &[(u32, &Batch)],
    rest: &[BTreeMap<u32, u64>],
    warnings: &mut Vec<String>,
) -> Option<u64> {
    let least: Vec<u64> = rest.iter().filter_map(|rows| rows.values().copied().min()).collect();
    let floor = *least.iter().min()?;
    let level = |ns: u64| ns as f64 <= floor as f64 * FLAT;
    let flat: Vec<String> = batches
        .iter()
        .zip(&least)
        .filter(|(_, ns)| level(**ns))
        .map(|((b, _), _)| b.to_string())
        .collect();
    if flat.len() < 2 {
        warnings.push(format!(
            "{model}: no latency is flat over batches, so that no host time is taken to issue them"
        ));
        return None;
    }
    warnings.push(format!(
        "{model}: {:.3} ms of a batch taken as the host's: latencies are flat over batches {}",
        floor as f64 / 1e6,
        flat.join(", ")
    ));
    Some(floor)
}

/// The GPU's time of a batch from those of larger ones at the same CUs: their line, and no less
/// than in proportion to the smallest.
fn extended(known: &[(u32, u64)], batch: u32) -> Option<u64> {
    let mut larger = known.iter().filter(|(b, _)| *b > batch);
    let &(b1, ns1) = larger.next()?;
    let proportion = ns1 as f64 * f64::from(batch) / f64::from(b1);
    let line = larger.next().map_or(proportion, |&(b2, ns2)| {
        let slope = (ns2 as f64 - ns1 as f64) / f64::from(b2 - b1);
        ns1 as f64 - slope * f64::from(b1 - batch)
    });
    Some(line.max(proportion).round().max(1.0) as u64)
}
