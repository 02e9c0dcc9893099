//! Writes `tune.csv` and `matrix.csv`.

use std::path::Path;

use cotenant_profiles::files::Measurement;

use super::{Cell, Origin, Outcome, TILES, TuneError, WARM_UP};
use crate::collect::{Request, today};
use crate::nvml::Reading;

/// The shape that stands for all of them.
const ALL: &str = "*";

pub(super) fn write(
    folder: &Path,
    request: &Request,
    outcome: &Outcome,
    origin: &Origin,
) -> Result<(), TuneError> {
    let head = head(request, outcome, origin)?;
    let file = |name: &str, rows: String| {
        let path = folder.join(name);
        let failed = |source| TuneError::Write { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::write(&path, format!("{head}{rows}")).map_err(failed)
    };
    file("tune.csv", timings(outcome))?;
    file("samples.csv", samples(outcome))?;
    file("matrix.csv", matrices(outcome))
}

/// States where the numbers come from. Results of anything but a GPU are marked as not being a
/// measurement.
fn head(request: &Request, outcome: &Outcome, origin: &Origin) -> Result<String, TuneError> {
    let (clocks, date) = (clocks(&origin.readings), today());
    let (device, source, tool) = if outcome.stand_in {
        ("stand-in", "analytic", "stand-in driver of the tests: computed, NOT A MEASUREMENT")
    } else {
        // Refuses a measurement that cannot say when it was made and on which GPU.
        Measurement::of_this_run(&origin.info.uuid, &origin.driver, &clocks, &date)?;
        (request.device.name.as_str(), "measured", "cotenant gpu tiles")
    };
    let [visits, late] = origin.visits;
    let facts = [
        ("device", device.to_owned()),
        ("source", source.to_owned()),
        ("tool", tool.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("gpu", origin.info.uuid.clone()),
        ("gpu_name", origin.info.name.clone()),
        ("driver", origin.driver.clone()),
        ("cuda", origin.info.driver.clone()),
        ("clocks", clocks),
        ("date", date),
        ("precision", request.precision.name().to_owned()),
        ("models", request.models.join(" ")),
        ("batches", list(&request.batches)),
        ("shapes", format!("{}, {} left out", outcome.shapes.len(), outcome.left_out)),
        ("convolutions", "the product that their columns (im2col) give, without gathering".into()),
        (
            "method",
            format!(
                "device events, {} rounds in random order (seed {}), {WARM_UP} launches before {} \
                 that count, queued ahead ({late} of {visits} visits were not); green contexts in \
                 the finest atoms",
                request.rounds, request.seed, request.samples
            ),
        ),
        (
            "events_ns",
            format!(
                "{}: what two events add to a launch, taken off every duration; samples.csv has \
                 the raw ones",
                origin.events_ns
            ),
        ),
        ("licence", "MIT OR Apache-2.0".to_owned()),
    ];
    let line = |(key, value): &(&str, String)| format!("# {key}={value}\n");
    Ok(format!("# cotenant-tune v1\n{}", facts.iter().map(line).collect::<String>()))
}

fn list(values: &[u32]) -> String {
    values.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// The range of clocks seen while measuring; unknown if nothing reported them.
fn clocks(readings: &[Reading]) -> String {
    let range = |of: fn(&Reading) -> Option<u32>| {
        let seen: Vec<u32> = readings.iter().filter_map(of).collect();
        Some(format!("{} to {}", seen.iter().min()?, seen.iter().max()?))
    };
    let known = |r: Option<String>| r.unwrap_or_else(|| "unknown".to_owned());
    format!("SM {} MHz, {} °C", known(range(|r| r.sm_mhz)), known(range(|r| r.celsius)))
}

fn timings(outcome: &Outcome) -> String {
    let mut rows = "shape,launches,variant,cus,duration_ns,p05_ns,p95_ns,samples\n".to_owned();
    for tuned in &outcome.shapes {
        for (tile, of) in TILES.iter().zip(&tuned.timings) {
            for (cus, t) in outcome.cus.iter().zip(of) {
                let (id, launches) = (&tuned.shape.work.id, tuned.shape.launches);
                let (low, high) = (t.p05_ns, t.p95_ns);
                rows += &format!(
                    "{id},{launches},{tile},{cus},{},{low},{high},{}\n",
                    t.median_ns, t.samples
                );
            }
        }
    }
    rows
}

/// One row for every launch that counts, with its duration as measured.
fn samples(outcome: &Outcome) -> String {
    let mut rows = "shape,variant,cus,sample,raw_ns\n".to_owned();
    for tuned in &outcome.shapes {
        for (tile, of) in TILES.iter().zip(&tuned.raw) {
            for (cus, ns) in outcome.cus.iter().zip(of) {
                let id = &tuned.shape.work.id;
                for (i, ns) in ns.iter().enumerate() {
                    rows += &format!("{id},{tile},{cus},{i},{ns}\n");
                }
            }
        }
    }
    rows
}

fn matrices(outcome: &Outcome) -> String {
    let mut rows =
        "shape,tuned_at_cus,run_at_cus,variant,duration_ns,best_ns,slowdown\n".to_owned();
    let mut add = |shape: &str, cells: &[Cell]| {
        for c in cells {
            let (tuned, run) = (outcome.cus[c.tuned_at], outcome.cus[c.run_at]);
            let variant = c.variant.map_or_else(String::new, |v| TILES[v].to_string());
            let (ns, best, slowdown) = (c.ns, c.best_ns, c.slowdown());
            rows += &format!("{shape},{tuned},{run},{variant},{ns},{best},{slowdown:.6}\n");
        }
    };
    for (tuned, cells) in outcome.shapes.iter().zip(&outcome.cells) {
        add(&tuned.shape.work.id, cells);
    }
    add(ALL, &outcome.sum);
    rows
}
