//! What of a latency is the host's, and what the GPU's.
//!
//! The host issues a batch's kernels while the GPU runs the earlier ones, so that a latency is the
//! longer of the two, and one launch or one kernel more. Small batches on many CUs are the host's:
//! their latencies do not change with the batch.

use std::collections::BTreeMap;

use super::{Batch, LaunchFloor, kernels};

/// Latencies within this factor of the least one are the host's.
const FLAT: f64 = 1.1;

/// A batch's latency, divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Time of the host to issue the batch.
    pub(super) host_ns: u64,
    /// Time of its kernels alone, by CUs, in the order of the rows.
    pub(super) gpu_ns: Vec<u64>,
}

/// Divides the latencies of a model, whose batches ascend.
pub(super) fn split(
    model: &str,
    batches: &[(u32, &Batch)],
    rule: LaunchFloor,
    warnings: &mut Vec<String>,
) -> Vec<Split> {
    let common = match rule {
        LaunchFloor::None => None,
        LaunchFloor::Given(ns) => Some(ns.0),
        LaunchFloor::Auto => flat(model, batches, warnings),
    };
    let hosts: Vec<u64> = batches
        .iter()
        .map(|(_, rows)| rows.values().find_map(|r| r.host_ns).or(common).unwrap_or(0))
        .collect();
    // What the GPU is known to take, by CUs and batch: where the latency is well above the host's.
    let mut known: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
    for ((batch, rows), &host) in batches.iter().zip(&hosts) {
        for (&cus, row) in rows.iter() {
            let latency = row.point.duration_ns;
            if latency as f64 > host as f64 * FLAT || host == 0 {
                let first = host / u64::from(kernels(rows));
                known.entry(cus).or_default().push((*batch, latency.saturating_sub(first).max(1)));
            }
        }
    }
    let mut unknown = false;
    let splits = batches.iter().zip(&hosts).map(|((batch, rows), &host)| {
        let gpu = rows.iter().map(|(cus, row)| {
            let known = known.get(cus).map_or(&[][..], Vec::as_slice);
            let latency = row.point.duration_ns;
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
        let host_ns = match rows.iter().zip(&gpu_ns).next_back() {
            Some(((_, row), gpu)) if row.host_ns.is_none() && host > 0 => {
                let kernels = u64::from(kernels(rows));
                let latency = row.point.duration_ns;
                let bound = latency as f64 <= host as f64 * FLAT;
                if bound { latency.saturating_sub(gpu / kernels).max(1) } else { host }
            }
            _ => host,
        };
        Split { host_ns, gpu_ns }
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

/// The host's part: the least latency of the model, if that of another batch is as small.
fn flat(model: &str, batches: &[(u32, &Batch)], warnings: &mut Vec<String>) -> Option<u64> {
    let least = |rows: &Batch| rows.values().map(|r| r.point.duration_ns).min();
    let floor = batches.iter().filter_map(|(_, rows)| least(rows)).min()?;
    let level = |rows: &Batch| least(rows).is_some_and(|ns| ns as f64 <= floor as f64 * FLAT);
    let flat: Vec<String> =
        batches.iter().filter(|(_, rows)| level(rows)).map(|(b, _)| b.to_string()).collect();
    if flat.len() < 2 {
        warnings.push(format!(
            "{model}: no latency is flat over batches, so that all of it is taken as the GPU's"
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
