//! `cotenant compare`: two result folders, row by row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use cotenant_results::{Estimate, Metric, RunInfo, Table, student_975};
use serde::Serialize;

use crate::fail::{Done, Failure};
use crate::say;
use crate::text::{align, rounded};

/// Say what differs between two result folders, and whether that is more than chance
///
/// Per sweep point, label and tenant: both means, their difference, and its 95 % confidence interval
/// over the repeats. Repeats with the same seed are compared in pairs, which is much sharper: both
/// folders saw the same arrivals. A difference is significant when its interval does not hold 0.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    cotenant compare out/before out/after\n  \
    cotenant compare out/real out/ideal --metric latency_p99_ms --all")]
pub(crate) struct Args {
    /// The first result folder
    #[arg(value_name = "DIR_A")]
    a: PathBuf,
    /// The second result folder
    #[arg(value_name = "DIR_B")]
    b: PathBuf,
    /// Columns of results.csv to compare, separated by commas [default: goodput_rps,
    /// slo_attainment, latency_p99_ms]
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    metric: Vec<String>,
    /// Show the rows without a significant difference, too
    #[arg(long)]
    all: bool,
    /// Print JSON, all rows
    #[arg(long)]
    json: bool,
}

/// What is compared where nothing is asked for.
const DEFAULT: [&str; 3] = ["goodput_rps", "slo_attainment", "latency_p99_ms"];

/// One metric of one tenant under one label at one point.
#[derive(Debug, Serialize)]
struct Difference {
    point: String,
    label: String,
    tenant: String,
    metric: &'static str,
    a: f64,
    b: f64,
    difference: f64,
    /// Half the width of the 95 % interval; none for a single repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    half: Option<f64>,
    significant: Option<bool>,
}

/// Values by repeat, which is named by its seed.
type Values = BTreeMap<String, f64>;
/// Point, label, tenant and metric, in the order of the file.
type Groups = Vec<([String; 3], &'static str, Values)>;

/// `cotenant compare`.
///
/// # Errors
/// A folder without results, folders of different sweeps, no such column.
pub(crate) fn run(args: &Args) -> Done {
    let metrics = metrics(&args.metric)?;
    let (run_a, a) = groups(&args.a, &metrics)?;
    let (run_b, b) = groups(&args.b, &metrics)?;
    if run_a.sweep_keys != run_b.sweep_keys {
        let keys = |run: &RunInfo| match run.sweep_keys.as_slice() {
            [] => "nothing".to_owned(),
            keys => keys.join(", "),
        };
        return Err(Failure::input(format!(
            "{} sweeps {}, {} sweeps {}: only results of the same sweep can be compared",
            args.a.display(),
            keys(&run_a),
            args.b.display(),
            keys(&run_b)
        )));
    }
    let differences: Vec<Difference> = a
        .iter()
        .filter_map(|(names, metric, values)| {
            let other = b.iter().find(|(n, m, _)| n == names && m == metric)?;
            Some(difference(names, metric, values, &other.2))
        })
        .collect();
    if differences.is_empty() {
        return Err(Failure::input("the folders share no label, tenant and sweep point"));
    }
    if args.json {
        let json = serde_json::to_string_pretty(&differences).map_err(Failure::failed)?;
        return say::out(&(json + "\n"));
    }
    say::out(&words(&differences, args.all))
}

fn metrics(asked: &[String]) -> Done<Vec<Metric>> {
    let names = DEFAULT.iter().map(|&name| name.to_owned());
    let names: Vec<String> = if asked.is_empty() { names.collect() } else { asked.to_vec() };
    let find = |name: &String| {
        Metric::find(name).ok_or_else(|| {
            let known: Vec<&str> = Metric::ALL.iter().map(|m| m.name()).collect();
            Failure::input(format!("--metric: {}", crate::config::no_such(name, &known)))
        })
    };
    names.iter().map(find).collect()
}

fn groups(folder: &Path, metrics: &[Metric]) -> Done<(RunInfo, Groups)> {
    let run = RunInfo::read(&folder.join("run.json")).map_err(Failure::input)?;
    let table = Table::results(&folder.join("results.csv"), &run.sweep_keys);
    let table = table.map_err(Failure::input)?;
    let mut groups: Groups = vec![];
    for row in &table.rows {
        let text = |column: &str| table.text(row, column).to_owned();
        let pairs = run.sweep_keys.iter().map(|key| format!("{key}={}", text(key)));
        let point = pairs.collect::<Vec<_>>().join(", ");
        let names = [point, text("label"), text("tenant")];
        for metric in metrics {
            let Some(value) = table.number(row, metric.name()) else { continue };
            let known = groups.iter().position(|(n, m, _)| *n == names && *m == metric.name());
            let at = known.unwrap_or_else(|| {
                groups.push((names.clone(), metric.name(), Values::new()));
                groups.len() - 1
            });
            groups[at].2.insert(text("seed"), value);
        }
    }
    Ok((run, groups))
}

fn difference(names: &[String; 3], metric: &'static str, a: &Values, b: &Values) -> Difference {
    let mean = |values: &Values| values.values().sum::<f64>() / values.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let half = if a.keys().eq(b.keys()) { paired(a, b) } else { welch(a, b) };
    let difference = of_b - of_a;
    let [point, label, tenant] = names.clone();
    let significant = half.map(|half| difference.abs() > half);
    Difference { point, label, tenant, metric, a: of_a, b: of_b, difference, half, significant }
}

/// Half the interval of the mean difference of repeats with equal seeds.
fn paired(a: &Values, b: &Values) -> Option<f64> {
    let differences: Vec<f64> = a.values().zip(b.values()).map(|(a, b)| b - a).collect();
    Estimate::of(&differences)?.half
}

/// Half the interval of a difference of means of unequal variances; the degrees of freedom are the
/// smaller sample's, which is on the safe side.
fn welch(a: &Values, b: &Values) -> Option<f64> {
    let error = |values: &Values| {
        let n = values.len() as f64;
        let mean = values.values().sum::<f64>() / n;
        let squares: f64 = values.values().map(|v| (v - mean) * (v - mean)).sum();
        (values.len() > 1).then(|| squares / (n - 1.0) / n)
    };
    let freedom = a.len().min(b.len()).checked_sub(1).filter(|f| *f > 0)?;
    Some(student_975(freedom) * (error(a)? + error(b)?).sqrt())
}

fn words(differences: &[Difference], all: bool) -> String {
    let shown: Vec<&Difference> =
        differences.iter().filter(|d| all || d.significant != Some(false)).collect();
    let verdict = |d: &Difference| match d.significant {
        Some(true) => "significant",
        Some(false) => "within chance",
        None if d.difference == 0.0 => "equal",
        None => "one repeat",
    };
    let row = |d: &&Difference| {
        let half = d.half.map_or_else(|| "-".to_owned(), |h| rounded(Some(h)));
        let relative = if d.a == 0.0 { None } else { Some(100.0 * d.difference / d.a.abs()) };
        vec![
            d.point.clone(),
            d.label.clone(),
            d.tenant.clone(),
            d.metric.to_owned(),
            rounded(Some(d.a)),
            rounded(Some(d.b)),
            rounded(Some(d.difference)),
            half,
            rounded(relative),
            verdict(d).to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
    let header = ["point", "label", "tenant", "metric", "A", "B", "B - A", "±", "%", "verdict"];
    let significant = differences.iter().filter(|d| d.significant == Some(true)).count();
    let table = if rows.is_empty() { String::new() } else { align(&header, &rows) + "\n" };
    let hidden = differences.len() - shown.len();
    let rest = if hidden == 0 {
        String::new()
    } else {
        format!("; {hidden} within chance are left out (--all shows them)")
    };
    format!(
        "{table}{significant} of {} differences are significant at 95 %{rest}\n",
        differences.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &[(&str, f64)]) -> Values {
        list.iter().map(|&(seed, v)| (seed.to_owned(), v)).collect()
    }

    #[test]
    fn repeats_of_equal_seeds_are_compared_in_pairs() {
        let names = ["".to_owned(), "mps".to_owned(), "a".to_owned()];
        let a = values(&[("1", 100.0), ("2", 200.0), ("3", 300.0)]);
        let b = values(&[("1", 101.0), ("2", 201.0), ("3", 301.5)]);
        let d = difference(&names, "goodput_rps", &a, &b);
        assert_eq!(d.significant, Some(true), "{d:?}");
        let c = values(&[("7", 101.0), ("8", 201.0), ("9", 301.5)]);
        let d = difference(&names, "goodput_rps", &a, &c);
        assert_eq!(d.significant, Some(false), "{d:?}");
        let one = values(&[("1", 100.0)]);
        assert_eq!(difference(&names, "goodput_rps", &one, &one).significant, None);
    }
}
