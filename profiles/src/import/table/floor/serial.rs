//! The host's time for each item of a batch while the GPU waits.
//!
//! Where a model fills its CUs, the GPU's part of a latency halves when they double, and the host's
//! stays: `latency(c) = host + work / c`. Two shares give both. From small to large batches the host's
//! part grows by the time for an item.

use super::{Batch, FLAT};

/// Latencies above this multiple of the model's least one are the GPU's more than the launches'.
const CLEAR: f64 = 1.5;
/// A host's part below this share of the latency is not told apart from what repeated measurements
/// differ by. Parts of ResNet-50's latencies (A100, ParvaGPU) are 4 %, of BERT's 34 %.
const TOLD_APART: f64 = 0.02;
/// Shares up to this part of the device are ones that a model fills: beyond, latencies stop falling
/// because its kernels are narrow.
const FILLED: f64 = 1.0 / 3.0;
/// Fewest batches that show a line.
const BATCHES: usize = 3;
/// The host's part is at most this share of a latency.
const MOST: f64 = 0.9;

/// The host's time before the first launch, ns, for each batch; 0 if nothing indicates it, or if the
/// table states the host's time.
pub(super) fn of(
    model: &str,
    batches: &[(u32, &Batch)],
    cus: u32,
    warnings: &mut Vec<String>,
) -> Vec<u64> {
    let none = || vec![0; batches.len()];
    let rows = || batches.iter().flat_map(|(_, rows)| rows.values());
    if rows().any(|r| r.host_ns.is_some()) {
        return none();
    }
    let least = rows().map(|r| r.point.duration_ns).min().unwrap_or(0) as f64;
    let found: Vec<Common> =
        batches.iter().filter_map(|b| common(b, least, f64::from(cus) * FILLED)).collect();
    let mut shares: Vec<f64> = found.iter().map(|f| f.ns / f.latency).collect();
    if found.len() < BATCHES || median(&mut shares) < TOLD_APART {
        return none();
    }
    let mut slopes: Vec<f64> = vec![];
    for (i, a) in found.iter().enumerate() {
        slopes.extend(found[i + 1..].iter().map(|b| (b.ns - a.ns) / f64::from(b.batch - a.batch)));
    }
    let each = median(&mut slopes);
    if each <= 0.0 {
        return none();
    }
    let of_batch = |(batch, rows): &(u32, &Batch)| {
        let least = rows.values().map(|r| r.point.duration_ns).min().unwrap_or(0) as f64;
        (each * f64::from(*batch)).min(MOST * least).round() as u64
    };
    let seen: Vec<String> = found.iter().map(|f| f.batch.to_string()).collect();
    warnings.push(format!(
        "{model}: {:.3} ms of every item taken as the host's, with the GPU waiting: so much of a latency \
         does not fall with the share (batches {})",
        each / 1e6,
        seen.join(", ")
    ));
    batches.iter().map(of_batch).collect()
}

/// What a batch's latencies at its two smallest shares have in common.
struct Common {
    batch: u32,
    /// The part that the share does not change, ns.
    ns: f64,
    /// Latency at the smallest share, ns.
    latency: f64,
}

fn common((batch, rows): &(u32, &Batch), least: f64, filled: f64) -> Option<Common> {
    let mut rows = rows.iter().map(|(cus, row)| (f64::from(*cus), row.point.duration_ns as f64));
    let ((few, slow), (many, fast)) = (rows.next()?, rows.next()?);
    if many > filled || fast < CLEAR * least || slow < FLAT * fast {
        return None;
    }
    Some(Common { batch: *batch, ns: (many * fast - few * slow) / (many - few), latency: slow })
}

/// The middle value, or the mean of the two middle ones; 0 if there are none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}
