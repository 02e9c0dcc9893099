//! Generates `docs/results.md` from the tables of columns.

use std::fmt::Write as _;

use crate::columns::{self, Better, Field, METRICS, Rows};

/// The page that documents every column of every table, and every counter by the policy or device that counts
/// it.
#[must_use]
pub fn markdown(counters: &[(&str, Vec<Field>)]) -> String {
    let mut out = String::from(HEAD);
    out += "\n## results.csv\n\nOne row per cell and tenant, and one per cell with tenant `*` for \
            the whole GPU.\n\n| column | unit | better | has a value | meaning |\n|---|---|---|---|---|\n";
    fields(&mut out, &columns::LEADING_FIELDS, " – | all rows |");
    let _ = writeln!(
        out,
        "| one column per sweep key | as in the experiment file | – | all rows | its value; empty where it does not concern the row's policy |"
    );
    fields(&mut out, &columns::NAME_FIELDS, " – | all rows |");
    for c in &METRICS {
        let better = match c.better {
            Better::Lower => "lower",
            Better::Higher => "higher",
            Better::Neither => "–",
        };
        let rows = match c.rows {
            Rows::All => "all rows",
            Rows::Gpu => "only `*`",
            Rows::Generating => "generating tenants, `*`",
        };
        let _ =
            writeln!(out, "| `{}` | {} | {better} | {rows} | {} |", c.name, c.file_unit(), c.doc);
    }
    fields(&mut out, &[columns::STATUS_FIELD], " – | all rows |");
    let sections: [(&str, &str, bool, &[Field]); 8] = [
        (
            "cdf.csv",
            "A quantile of a tenant's latency; written where a plot needs it.",
            true,
            &columns::CDF_FIELDS,
        ),
        (
            "series.csv",
            "A time bin of a tenant or of the whole GPU; written where a plot needs it.",
            true,
            &columns::TIMELINE_FIELDS,
        ),
        ("counters.csv", "What a policy counted in a cell.", true, &columns::COUNTER_FIELDS),
        (
            "layouts.csv",
            "A worker as a policy laid it out at the start; one group of rows per policy and sweep point (the repeats resolve alike).",
            true,
            &columns::LAYOUT_FIELDS,
        ),
        (
            "gpus.csv",
            "What one of several GPUs did for a tenant; written where an experiment has `gpus` or `down`. Requests that found no GPU (`no-gpu`) are in results.csv alone.",
            true,
            &columns::GPU_FIELDS,
        ),
        (
            "curves.csv",
            "A point of a latency curve; written where a plot needs it.",
            false,
            &columns::CURVE_FIELDS,
        ),
        (
            "validation.csv",
            "A metric simulated and measured; written by `cotenant validate`.",
            false,
            &columns::VALIDATION_FIELDS,
        ),
        (
            "matrix.csv",
            "What was tuned at one share and run at another; written by `cotenant gpu tiles`.",
            false,
            &columns::MATRIX_FIELDS,
        ),
    ];
    for (file, what, side, list) in sections {
        let _ =
            write!(out, "\n## {file}\n\n{what}\n\n| column | unit | meaning |\n|---|---|---|\n");
        if side {
            fields(&mut out, &columns::SIDE_FIELDS, "");
            out += "| one column per sweep key | as in the experiment file | its value |\n";
        }
        fields(&mut out, list, "");
        if file == "counters.csv" {
            out += "\n| counted by | counter | unit | meaning |\n|---|---|---|---|\n";
            for (who, list) in counters {
                for f in list {
                    let _ = writeln!(out, "| {who} | `{}` | {} | {} |", f.name, f.unit, f.doc);
                }
            }
        }
    }
    out
}

fn fields(out: &mut String, list: &[Field], between: &str) {
    for f in list {
        let unit = if f.unit.is_empty() { "–" } else { f.unit };
        let _ = writeln!(out, "| `{}` | {unit} |{between} {} |", f.name, f.doc);
    }
}

const HEAD: &str = "\
# Result files

`cotenant run EXP.toml` leaves these tables in its output folder, beside `run.json` (what was run, \
with digests), `plots/` and `report.html`. `cotenant metrics` prints the metrics of `results.csv`. \
This page is generated from `plots/results/src/columns.rs` and from what policies and devices \
declare to count; a test compares the two.

* Shares and utilisations are fractions from 0 to 1 in files and percent in pictures.
* A value that does not exist (a percentile of no request) is an empty field, never 0 or NaN.
* Latency counts from the scheduled arrival `a` to the end `e`, at which the result is back at the \
host. A request starts at `s`, when its batch begins on a worker.
* Counting opens when the warm-up ends and lasts `duration`. A request that waits or runs when it \
opens counts as offered in it. `offered = completed + dropped + in_flight` always holds.
* On rows of tenant `*`, counts are sums, and latency quantiles are those of all requests together.
";
