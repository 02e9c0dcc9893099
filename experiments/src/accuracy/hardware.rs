//! Our errors on GPUs of our own: what `replay/first-light/bring-home` installed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cotenant_results::RunInfo;

use crate::fail::{Done, Failure};

/// Metrics with their targets, percent.
const TARGETS: [(&str, &str, f64); 3] = [
    ("throughput_rps", "throughput", 5.0),
    ("latency_p50_ms", "p50", 8.0),
    ("latency_p99_ms", "p99", 15.0),
];

/// Errors of one policy and metric, percent, over its tenants.
type Errors = BTreeMap<(String, &'static str), Vec<f64>>;

/// Share of the pairs of policies, told apart by the measurement, that should be in the right order, percent.
const RANKING: f64 = 90.0;

const HEADING: &str = "\n## On GPUs of our own\n";

/// Where the source tree has the profiles of our own GPUs.
pub(crate) fn shipped() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../profiles/data")).to_path_buf()
}

/// The section of the page, from the profiles in `data`.
///
/// # Errors
/// A validation that does not read.
pub(crate) fn section(data: &Path) -> Done<String> {
    let mut text = format!("{HEADING}\n");
    let mut rankings = String::new();
    let mut devices: Vec<_> = std::fs::read_dir(data).into_iter().flatten().flatten().collect();
    devices.sort_by_key(std::fs::DirEntry::file_name);
    let mut any = false;
    for device in devices {
        let folder = device.path().join("validation/run-2");
        if !folder.join("validation.csv").is_file() {
            continue;
        }
        let name = name(&folder, &device.file_name().to_string_lossy())?;
        if !any {
            text += "`cotenant validate` with the measured profile and device file: mean absolute error over the tenants, simulated against measured on identical arrivals, and how many lie within the target.\n\n";
            text += "| GPU | policy | throughput (5 %) | p50 (8 %) | p99 (15 %) |\n|---|---|---:|---:|---:|\n";
        }
        any = true;
        rows(&mut text, &name, &errors(&folder.join("validation.csv"))?);
        let verdict = std::fs::read_to_string(folder.join("verdict.txt")).unwrap_or_default();
        if let Some(said) = verdict.lines().find(|l| l.starts_with("ranking: ")) {
            let _ = writeln!(rankings, "\n{name}: {said}; {RANKING:.0} % is the target.");
        }
    }
    text += &rankings;
    if !any {
        text += "No GPU has been measured yet: the CUDA path is tested against a stand-in driver. `replay/first-light` has the two calls that measure one.\n";
    }
    Ok(text)
}

/// A page with `section` in the place of the one that it has, or at its end.
pub(crate) fn replaced(page: &str, section: &str) -> String {
    let at = page.find(HEADING).unwrap_or(page.len());
    let behind = page.get(at + HEADING.len()..).unwrap_or_default();
    let rest = behind.find("\n## ").map_or("", |next| &behind[next..]);
    [&page[..at], section, rest].concat()
}

/// The device, with a word where a stand-in took its place.
fn name(folder: &Path, device: &str) -> Done<String> {
    let run = RunInfo::read(&folder.join("run.json")).map_err(Failure::input)?;
    let measured = run.replay.is_some_and(|r| r.kind == "measured");
    Ok(if measured { device.to_owned() } else { format!("{device}, NOT A MEASUREMENT") })
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
    use cotenant_results::ReplayInfo;

    use super::*;

    #[test]
    fn validations_become_rows_and_their_absence_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        assert!(section(folder.path()).unwrap().contains("No GPU has been measured yet"));
        let at = folder.path().join("h200-sxm/validation/run-2");
        std::fs::create_dir_all(&at).unwrap();
        let rows = "label,tenant,metric,simulated,measured,error_pct,ci_low,ci_high\n\
                    mps,a,latency_p50_ms,1,1,-8,,\nmps,b,latency_p50_ms,1,1,12,,\n\
                    mps,a,throughput_rps,1,1,1,,\nmps,a,queue_mean_ms,1,1,99,,\n";
        std::fs::write(at.join("validation.csv"), rows).unwrap();
        assert!(section(folder.path()).is_err(), "of which nobody knows what it was run on");
        let kind = |kind: &str| {
            let replay = ReplayInfo { kind: kind.to_owned(), ..ReplayInfo::default() };
            let run = RunInfo { replay: Some(replay), ..RunInfo::default() };
            std::fs::write(at.join("run.json"), run.to_json()).unwrap();
            section(folder.path()).unwrap()
        };
        let row = "mps | 1.0 % (1 of 1) | 10.0 % (1 of 2) | – |";
        let text = kind("stand-in");
        assert!(text.contains(&format!("| h200-sxm, NOT A MEASUREMENT | {row}")), "{text}");
        std::fs::write(at.join("verdict.txt"), "p50: x\nranking: 3 of 4 pairs\n").unwrap();
        let text = kind("measured");
        assert!(text.contains(&format!("| h200-sxm | {row}")), "{text}");
        assert!(text.contains("\nh200-sxm: ranking: 3 of 4 pairs; 90 % is"), "{text}");
    }

    #[test]
    fn the_section_is_replaced_and_the_rest_of_the_page_stays() {
        let new = format!("{HEADING}\nnew\n");
        let page = format!("# Page\n\n## One\n{HEADING}\nold\n");
        assert_eq!(replaced(&page, &new), format!("# Page\n\n## One\n{new}"));
        let more = format!("{page}\n## Behind\n");
        assert_eq!(replaced(&more, &new), format!("# Page\n\n## One\n{new}\n## Behind\n"));
        assert_eq!(replaced("# Page\n", &new), format!("# Page\n{new}"));
        assert_eq!(replaced(&replaced(&page, &new), &new), replaced(&page, &new));
    }
}
