//! Our errors on GPUs of our own: what `replay/first-light/bring-home` installed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::fail::{Done, Failure};

/// Metrics with their targets, percent.
const TARGETS: [(&str, &str, f64); 3] = [
    ("throughput_rps", "throughput", 5.0),
    ("latency_p50_ms", "p50", 10.0),
    ("latency_p99_ms", "p99", 15.0),
];

/// Errors of one policy and metric, percent, over its tenants.
type Errors = BTreeMap<(String, &'static str), Vec<f64>>;

/// The section of the page, from the profiles of the source tree.
pub(super) fn section() -> Done<String> {
    of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../profiles/data")))
}

fn of(data: &Path) -> Done<String> {
    let mut text = "\n## On GPUs of our own\n\n".to_owned();
    let mut devices: Vec<_> = std::fs::read_dir(data).into_iter().flatten().flatten().collect();
    devices.sort_by_key(std::fs::DirEntry::file_name);
    let mut any = false;
    for device in devices {
        let file = device.path().join("validation/run-2/validation.csv");
        if !file.is_file() {
            continue;
        }
        if !any {
            text += "`cotenant validate` with the measured profile and device file: mean absolute error over the tenants, simulated against measured on identical arrivals, and how many lie within the target.\n\n";
            text += "| GPU | policy | throughput (5 %) | p50 (10 %) | p99 (15 %) |\n|---|---|---:|---:|---:|\n";
        }
        any = true;
        rows(&mut text, &device.file_name().to_string_lossy(), &errors(&file)?);
    }
    if !any {
        text += "No GPU has been measured yet: the CUDA path is tested against a stand-in driver. `replay/first-light` has the two calls that measure one.\n";
    }
    Ok(text)
}

fn errors(file: &Path) -> Done<Errors> {
    let bad = |e: csv::Error| Failure::input(format!("{}: {e}", file.display()));
    let mut reader = csv::Reader::from_path(file).map_err(bad)?;
    let columns = reader.headers().map_err(bad)?.clone();
    let at = |name: &str| columns.iter().position(|c| c == name);
    let found = (at("label"), at("metric"), at("error_pct"));
    let (Some(label), Some(metric), Some(error)) = found else {
        let why = "label, metric or error_pct is missing";
        return Err(Failure::input(format!("{}: {why}", file.display())));
    };
    let mut errors = Errors::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let known = TARGETS.iter().find(|t| record.get(metric) == Some(t.0));
        let value = record.get(error).and_then(|e| e.parse::<f64>().ok());
        if let (Some((name, ..)), Some(value), Some(label)) = (known, value, record.get(label)) {
            errors.entry((label.to_owned(), name)).or_default().push(value.abs());
        }
    }
    Ok(errors)
}

fn rows(text: &mut String, device: &str, errors: &Errors) {
    let mut labels: Vec<&str> = errors.keys().map(|(label, _)| label.as_str()).collect();
    labels.dedup();
    for label in labels {
        let cell = |(metric, _, target): &(&'static str, &str, f64)| {
            let all = errors.get(&(label.to_owned(), *metric)).map_or(&[][..], Vec::as_slice);
            if all.is_empty() {
                return "–".to_owned();
            }
            let within = all.iter().filter(|e| *e <= target).count();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            format!("{mean:.1} % ({within} of {})", all.len())
        };
        let cells: Vec<String> = TARGETS.iter().map(cell).collect();
        let _ = writeln!(text, "| {device} | {label} | {} |", cells.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validations_become_rows_and_their_absence_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of(folder.path()).unwrap().contains("No GPU has been measured yet"));
        let at = folder.path().join("h200-sxm/validation/run-2");
        std::fs::create_dir_all(&at).unwrap();
        let rows = "label,tenant,metric,simulated,measured,error_pct,ci_low,ci_high\n\
                    mps,a,latency_p50_ms,1,1,-8,,\nmps,b,latency_p50_ms,1,1,12,,\n\
                    mps,a,throughput_rps,1,1,1,,\nmps,a,queue_mean_ms,1,1,99,,\n";
        std::fs::write(at.join("validation.csv"), rows).unwrap();
        let text = of(folder.path()).unwrap();
        let row = "| h200-sxm | mps | 1.0 % (1 of 1) | 10.0 % (1 of 2) | – |";
        assert!(text.contains(row), "{text}");
    }
}
