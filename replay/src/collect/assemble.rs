//! Turns visits into a profile.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cotenant_profiles::curve::{Curve, Point as CurvePoint};
use cotenant_profiles::files::{self, Measurement};
use cotenant_profiles::kernel::{CoRun, Kernel, Launch, Model, Profile, Source};
use cotenant_profiles::steps::LayerTimes;
use cotenant_profiles::zoo::decoder::StepLayer;
use cotenant_profiles::{Nanos, stats};

use super::corun::{Pair, Pairs};
use super::journal::{Journal, Visit};
use super::plan::{Plan, Request, Sizes};
use super::{CollectError, Measured};
use crate::device::Kind;
use crate::recipe::shapes;
use crate::steps;

/// The result of a collection.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The profile as it was written.
    pub profile: Profile,
    /// Models and batches left out because the budget ended before all of their kernels were measured.
    pub incomplete: Vec<String>,
    /// Pairs of kernels left out because the budget ended.
    pub pairs_left: usize,
    /// Points and pairs that failed, with the reason. Failures of one kernel for one reason share a
    /// line.
    pub failed: Vec<String>,
    /// Visits with SM clocks below [`SLOW`] of the highest clock seen.
    pub slow: usize,
    /// Why measuring ended early: a fault that destroyed the GPU's context.
    pub broken: Option<String>,
    /// The device is the stand-in used in tests, so nothing here is a measurement.
    pub stand_in: bool,
}

/// The share of the highest SM clock below which a visit might as well have been measured on another
/// GPU: it was throttled, or had not yet clocked up.
pub const SLOW: f64 = 0.95;

/// Kernels by their share of the models' time on the whole device, longest first.
pub(super) fn heaviest(plan: &Plan, journal: &Journal, count: usize) -> Vec<usize> {
    let mut time = vec![0u64; plan.works.len()];
    let each: Vec<u64> = (0..plan.works.len()).map(|work| alone(journal, work)).collect();
    for &work in plan.models.values().flat_map(BTreeMap::values).flatten() {
        time[work] = time[work].saturating_add(each[work]);
    }
    // Two kernels side by side find in L2 what their own earlier launches left there, so kernels that
    // start cold would appear to gain from a neighbour.
    let warm = |w: &usize| time[*w] > 0 && !plan.works[*w].starts_cold();
    let mut order: Vec<usize> = (0..time.len()).filter(warm).collect();
    order.sort_by_key(|&w| (std::cmp::Reverse(time[w]), w));
    order.truncate(count);
    order
}

/// Visits with clocks below [`SLOW`] of the highest.
fn slow(journal: &Journal) -> usize {
    slow_of(journal.visits().iter().filter_map(|v| v.sm_mhz))
}

fn slow_of(clocks: impl Iterator<Item = u32> + Clone) -> usize {
    let clocks = || clocks.clone();
    let highest = clocks().max().unwrap_or(0);
    clocks().filter(|mhz| f64::from(*mhz) < SLOW * f64::from(highest)).count()
}

/// The failures: one line for every kernel and reason, with its CU counts.
fn failed(plan: &Plan, journal: &Journal, pairs: &Pairs) -> Vec<String> {
    let mut lines: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for v in journal.visits() {
        if let Some(why) = &v.failed {
            let of = lines.entry((&plan.works[v.work].id, why)).or_default();
            of.push(format!("{}{}", v.cus, if v.coarse { " in groups" } else { "" }));
        }
    }
    let lines = lines.into_iter();
    let visits = lines.map(|((id, why), cus)| format!("{id} on {} CUs: {why}", cus.join(", ")));
    let pairs = pairs.all.iter().filter_map(|p| {
        let [a, b] = p.works.map(|w| &plan.works[w].id);
        p.failed.as_ref().map(|why| format!("{a} beside {b}: {why}"))
    });
    visits.chain(pairs).collect()
}

/// The longest median among a kernel's visits, ns: that of the fewest CUs it was measured at.
pub(super) fn alone(journal: &Journal, work: usize) -> u64 {
    let visits = journal.visits().iter().filter(|v| v.work == work && !v.coarse);
    visits.map(|v| quantile(&sorted(&v.ns), 50)).max().unwrap_or(0)
}

pub(super) fn assemble(
    request: &Request,
    plan: &Plan,
    journal: &Journal,
    pairs: Pairs,
    on: &Measured,
    folder: &Path,
) -> Result<Collected, CollectError> {
    let stand_in = on.info.kind != Kind::Gpu;
    let mut profile = Profile {
        device: if stand_in { "stand-in".to_owned() } else { request.device.name.clone() },
        source: if stand_in { Source::Analytic } else { Source::Measured },
        provenance: provenance(request, journal, on, stand_in),
        kernels: Vec::new(),
        models: BTreeMap::new(),
        corun: Vec::new(),
    };
    let mut place = vec![None; plan.works.len()];
    for (work, place) in place.iter_mut().enumerate() {
        if let Some(kernel) = kernel(plan, journal, work, on.info.cus) {
            *place = Some(profile.kernels.len());
            profile.kernels.push(kernel);
        }
    }
    let host = on.overhead.plain;
    let mut incomplete = Vec::new();
    for (name, batches) in &plan.models {
        for (batch, works) in batches {
            let launches: Option<Vec<Launch>> =
                works.iter().map(|&w| place[w].map(|kernel| Launch { kernel, host })).collect();
            match launches {
                None => incomplete.push(format!("{name} at batch {batch}")),
                Some(launches) => {
                    let model = profile.models.entry(name.clone());
                    let model = model.or_insert_with(|| empty_model(request, plan, name));
                    model.batches.insert(*batch, launches);
                }
            }
        }
    }
    let failed = failed(plan, journal, &pairs);
    if profile.kernels.is_empty() {
        return Err(CollectError::Nothing(failed.into_iter().next()));
    }
    profile.corun = pairs.all.iter().filter_map(|p| pair(p, &place)).collect();
    let layers = layers(request, plan, &profile, on.info.cus);
    if stand_in {
        files::write(folder, &profile)?;
        layers.iter().try_for_each(|times| files::write_layers(folder, times, true))?;
    } else {
        let (clocks, date) = (clocks(journal), today());
        let driver = if on.driver.is_empty() { &on.info.driver } else { &on.driver };
        let evidence = Measurement::of_this_run(&on.info.uuid, driver, &clocks, &date)?;
        files::write_measured(folder, &profile, &evidence)?;
        let write = |times| files::write_measured_layers(folder, times, &evidence);
        layers.iter().try_for_each(write)?;
    }
    files::write_coarse(folder, on.group, &coarse_points(plan, journal, &profile))?;
    let (pairs_left, slow, broken) = (pairs.left, slow(journal), None);
    Ok(Collected { profile, incomplete, pairs_left, failed, slow, broken, stand_in })
}

/// How long the layers of decoders take on the whole device, by decoder. The steps of generating
/// tenants are scaled by these times.
fn layers(request: &Request, plan: &Plan, profile: &Profile, cus: u32) -> Vec<LayerTimes> {
    let mut all: BTreeMap<&str, LayerTimes> = BTreeMap::new();
    let known: BTreeMap<&str, u64> =
        profile.kernels.iter().map(|k| (k.id.as_str(), k.curve.at(cus))).collect();
    for (decoder, shape) in &plan.timed {
        let times = all.entry(&decoder.name).or_insert_with(|| LayerTimes {
            model: decoder.name.to_string(),
            device: profile.device.clone(),
            source: profile.source,
            provenance: profile.provenance.clone(),
            ..LayerTimes::default()
        });
        let ns = |layer: &StepLayer| {
            known.get(steps::work(layer, request.precision).id.as_str()).copied()
        };
        times.add_step(decoder, shape, ns);
    }
    all.into_values().filter(|times| !times.is_empty()).collect()
}

fn provenance(
    request: &Request,
    journal: &Journal,
    on: &Measured,
    stand_in: bool,
) -> BTreeMap<String, String> {
    let tool = if stand_in {
        "stand-in driver of the tests: computed, NOT A MEASUREMENT"
    } else {
        "cotenant profile collect"
    };
    let visits = journal.visits();
    let outliers: usize = visits.iter().map(|v| v.outliers.len()).sum();
    let samples: usize = visits.iter().map(|v| v.ns.len()).sum();
    let measured = visits.iter().filter(|v| v.failed.is_none()).count();
    let late = visits.iter().filter(|v| v.failed.is_none() && !v.queued).count();
    [
        ("tool", tool.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("gpu_name", on.info.name.clone()),
        ("cuda", on.info.driver.clone()),
        ("precision", request.precision.name().to_owned()),
        ("framework", "cuBLASLt, cuDNN and own kernels, one per layer".to_owned()),
        (
            "method",
            format!(
                "device events, launches queued ahead ({late} of {measured} visits were not), operands \
                 as warm in L2 as the launch before left them, but for weights, caches and \
                 tables of decoders, which are swept out before each; green contexts in the finest \
                 atoms"
            ),
        ),
        (
            "events_ns",
            format!(
                "{}: what two events add to a launch, taken off every duration; visits.jsonl has \
                 them as measured",
                on.overhead.events.0
            ),
        ),
        ("host_ns", "measured: a launch without events".to_owned()),
        ("slow_visits", format!("{} below {SLOW} of the highest SM clock", slow(journal))),
        ("failed_visits", format!("{}, with the reasons in visits.jsonl", visits.len() - measured)),
        ("grid", "of library kernels: unknown, the fewest CUs at the shortest duration".to_owned()),
        ("outliers", format!("{outliers} of {samples} samples, marked in visits.jsonl and kept")),
        ("licence", "MIT OR Apache-2.0".to_owned()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

fn empty_model(request: &Request, plan: &Plan, name: &str) -> Model {
    let Sizes { weights, per_item } = plan.sizes[name];
    let [activations_per_item, input_per_item, output_per_item] = per_item;
    let rate = u64::from(request.device.costs.load_mbps.max(1));
    Model {
        name: name.to_owned(),
        weights,
        activations_per_item,
        input_per_item,
        output_per_item,
        load: Nanos((weights.0 * 1000).div_ceil(rate)),
        host_per_request: Nanos::ZERO,
        batches: BTreeMap::new(),
    }
}

/// The kernel with its curve, if it was measured on the whole device.
fn kernel(plan: &Plan, journal: &Journal, work: usize, cus: u32) -> Option<Kernel> {
    let mut by_cus: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut last: Option<&Visit> = None;
    for v in journal.visits().iter().filter(|v| v.work == work && !v.coarse && !v.ns.is_empty()) {
        by_cus.entry(v.cus).or_default().extend(v.durations());
        last = if v.cus == cus { Some(v) } else { last };
    }
    let last = last?;
    let points: Vec<CurvePoint> = by_cus.into_iter().map(|(cus, ns)| point(cus, &ns)).collect();
    let shortest = points.iter().min_by_key(|p| (p.duration_ns, p.cus)).map_or(cus, |p| p.cus);
    let (blocks, block) = last.grid.unwrap_or((shortest, 0));
    let w = &plan.works[work];
    let shapes = shapes(w);
    let elements = shapes.inputs.iter().map(|i| i.elements).sum::<u64>() + shapes.output;
    Some(Kernel {
        id: w.id.clone(),
        name: last.name.clone(),
        op: w.op(),
        grid: [blocks, 1, 1],
        block,
        regs: last.shape[0],
        smem_bytes: last.shape[1],
        blocks_per_cu: last.shape[2].max(1),
        flops: w.flops(),
        // Every operand once: the traffic that a perfect cache leaves.
        dram_bytes: elements.saturating_mul(w.precision.bytes()),
        curve: Curve::new(points).ok()?,
    })
}

/// The samples of one CU count.
pub(crate) fn point(cus: u32, ns: &[u64]) -> CurvePoint {
    let ns = sorted(ns);
    CurvePoint {
        cus,
        duration_ns: quantile(&ns, 50),
        p05_ns: quantile(&ns, 5),
        p95_ns: quantile(&ns, 95),
        samples: u32::try_from(ns.len()).unwrap_or(u32::MAX),
    }
}

/// The points that were measured in whole groups of CUs.
fn coarse_points(
    plan: &Plan,
    journal: &Journal,
    profile: &Profile,
) -> BTreeMap<String, Vec<CurvePoint>> {
    let mut samples: BTreeMap<(&str, u32), Vec<u64>> = BTreeMap::new();
    for v in journal.visits().iter().filter(|v| v.coarse && !v.ns.is_empty()) {
        let id = &plan.works[v.work].id;
        if profile.kernels.iter().any(|k| k.id == *id) {
            samples.entry((id, v.cus)).or_default().extend(v.durations());
        }
    }
    let mut points: BTreeMap<String, Vec<CurvePoint>> = BTreeMap::new();
    for ((id, cus), ns) in samples {
        points.entry(id.to_owned()).or_default().push(point(cus, &ns));
    }
    points
}

fn pair(p: &Pair, place: &[Option<usize>]) -> Option<CoRun> {
    let [a, b] = [place[p.works[0]]?, place[p.works[1]]?];
    let median = |ns: &[u64]| {
        let without = |ns: u64| ns.saturating_sub(p.events_ns).max(1);
        (!ns.is_empty()).then(|| without(quantile(&sorted(ns), 50)))
    };
    Some(CoRun {
        a: (a, p.cus[0]),
        b: (b, p.cus[1]),
        duration_a_ns: median(&p.ns[0])?,
        duration_b_ns: median(&p.ns[1])?,
        samples: u32::try_from(p.ns[0].len().min(p.ns[1].len())).unwrap_or(u32::MAX),
    })
}

fn sorted(ns: &[u64]) -> Vec<u64> {
    let mut ns = ns.to_vec();
    ns.sort_unstable();
    ns
}

/// As [`stats::quantile`], but 0 if there are no values.
fn quantile(ns: &[u64], percent: usize) -> u64 {
    stats::quantile(ns, percent).unwrap_or(0)
}

/// The range of clocks seen, as stated in the provenance.
fn clocks(journal: &Journal) -> String {
    let range = |of: fn(&Visit) -> Option<u32>, unit: &str| {
        let seen: Vec<u32> = journal.visits().iter().filter_map(of).collect();
        match (seen.iter().min(), seen.iter().max()) {
            (Some(low), Some(high)) => format!("{low} to {high} {unit}"),
            _ => format!("unknown {unit}"),
        }
    };
    format!("SM {}, {}", range(|v| v.sm_mhz, "MHz"), range(|v| v.celsius, "°C"))
}

/// The date in UTC, ISO 8601.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    // Converts days to a civil date (Hinnant, "chrono-compatible low-level date algorithms").
    let z = seconds / 86_400 + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (d, m) =
        (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year_of_era + era * 400 + u64::from(m <= 2);
    format!("{year:04}-{m:02}-{d:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_at_low_clocks_are_counted() {
        // The highest clock of an H200, one step below it, and throttled clocks.
        assert_eq!(slow_of([1980, 1965, 1980, 1410, 345].into_iter()), 2);
        assert_eq!(slow_of([1980, 1881].into_iter()), 0);
        assert_eq!(slow_of(std::iter::empty()), 0);
    }
}
