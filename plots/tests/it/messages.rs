//! What is refused, word for word, and what odd tables must never do: panic.

use std::fs;
use std::path::Path;

use crate::fixture::{self, Fixture};
use cotenant_plots::{PlotError, draw};
use cotenant_results::{Answer, PlotKind, PlotSpec, Table};
use proptest::prelude::*;

fn keys() -> Vec<String> {
    vec!["tenant.vision.arrivals.rate".into()]
}

fn refusal(table: &str) -> String {
    let text = format!("[[plot]]\n{table}");
    fixture::specs(&text)[0].check(0, &keys()).unwrap_err().to_string()
}

#[test]
fn bad_plot_tables_say_what_would_be_accepted() {
    for (table, message) in [
        (
            "kind = 'bars'\ny = 'goodput'",
            "field `y`: unknown column `goodput`; did you mean `goodput_rps`? Known: offered",
        ),
        (
            "kind = 'bars'\nby = 'lable'",
            "plot 1 (bars): field `by`: unknown column `lable`; did you mean `label`? Known: \
             label, policy, tenant, model, \
             tenant.vision.arrivals.rate",
        ),
        (
            "kind = 'lines'\nx = 'rate'",
            "field `x`: unknown sweep key `rate`. Known: tenant.vision.arrivals.rate",
        ),
        (
            "kind = 'heatmap'",
            "plot 1 (heatmap): field `x`: needs 2 sweep keys, the experiment has 1",
        ),
        (
            "kind = 'timeline'\ny = 'energy_j'",
            "unknown column `energy_j`. Known: throughput_rps, latency_p95_ms, sm_active",
        ),
        (
            "kind = 'cdf'\nx = 'latency_ms'",
            "plot 1 (cdf): field `x`: is fixed for this kind; remove `latency_ms`",
        ),
        (
            "kind = 'pareto'\nx = 'offered'",
            "field `x`: has no better and no worse: a frontier needs a direction",
        ),
        (
            "kind = 'bars'\nname = '../x'",
            "field `name`: `../x` is not a valid file name: use letters, digits, `-`, `_` and `.`",
        ),
        (
            "kind = 'bars'\nwhere = { tenent = 'a' }",
            "field `where`: unknown column `tenent`; did you mean `tenant`?",
        ),
        ("kind = 'bars'\nx = 'label'\nby = 'label'", "field `by`: is the same column as `x`"),
    ] {
        let said = refusal(table);
        assert!(said.contains(message), "{table}:\n{said}");
    }
    let none = PlotSpec::new(PlotKind::Lines).check(2, &[]).unwrap_err().to_string();
    assert_eq!(
        none,
        "plot 3 (lines): field `x`: needs a sweep key and the experiment has no [sweep]"
    );
}

#[test]
fn unknown_kinds_and_keys_are_refused_on_reading() {
    let read = |t: &str| toml::from_str::<PlotSpec>(t).unwrap_err().to_string();
    assert!(
        read("kind = 'bar'")
            .contains("unknown plot kind `bar`; did you mean `bars`? Known: bars, cdf,")
    );
    assert!(
        read("kind = 'bars'\nlog = 'z'")
            .contains("`log` is `z`; write \"x\", \"y\", \"xy\" or \"none\"")
    );
    assert!(read("kind = 'bars'\ncolour = 'red'").contains("unknown field `colour`"));
}

/// Draws a folder in which one file was replaced.
fn drawn_with(fixture: &Fixture, file: &str, text: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    fixture.write(dir.path());
    fs::write(dir.path().join(file), text).unwrap();
    let root = format!("{}/", dir.path().display());
    draw(dir.path()).map(|_| ()).map_err(|e| e.to_string().replace(&root, ""))
}

#[test]
fn malformed_files_are_refused_with_file_line_and_column() {
    let plain = Fixture { repeats: 1, ..Fixture::plain("[[plot]]\nkind = 'bars'") };
    let table = plain.results();
    let changed = |from: &str, to: &str| {
        assert!(table.contains(from));
        drawn_with(&plain, "results.csv", &table.replacen(from, to, 1)).unwrap_err()
    };
    assert!(changed("goodput_rps", "goodputs_rps").starts_with(
        "results.csv:1: unknown column `goodputs_rps`; did you mean `goodput_rps`? Known: "
    ));
    assert_eq!(changed(",status\n", "\n"), "results.csv:1: column `status` is missing");
    assert_eq!(
        changed("vision,resnet152,4800", "vision,resnet152,NaN"),
        "results.csv:2: column `offered`: `NaN` is not a finite number; a value that does not exist \
         is empty"
    );
    assert_eq!(
        changed("vision,resnet152,4800", "vision,resnet152"),
        "results.csv:2: 47 fields where the header has 48"
    );
    let bad = drawn_with(&plain, "run.json", "{\n \"name\": 3}").unwrap_err();
    assert_eq!(bad, "run.json:2: invalid type: integer `3`, expected a string");
    assert!(draw(Path::new("/nowhere")).unwrap_err().to_string().contains("run.json"));
}

#[test]
fn one_plot_without_data_leaves_the_others_and_says_why() {
    let plots = "[[plot]]\nkind = 'bars'\n[[plot]]\nkind = 'cdf'\nname = 'tails'";
    let fixture = Fixture { repeats: 1, ..Fixture::plain(plots) };
    let dir = tempfile::tempdir().unwrap();
    fixture.write(dir.path());
    fs::write(dir.path().join("cdf.csv"), "cell,label,repeat,tenant,quantile,latency_ms\n")
        .unwrap();
    match draw(dir.path()) {
        Err(PlotError::Some { drawn, failures }) => {
            assert_eq!(drawn.len(), 4, "{drawn:?}");
            let said = "plot `tails`: cdf.csv has no latency to draw: no request completed";
            assert_eq!(failures, [said]);
        }
        other => panic!("{other:?}"),
    }
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("is missing: cdf.csv has no latency to draw"));
}

#[test]
fn a_mean_never_mixes_sweep_points() {
    let sweep = vec![("tenant.vision.arrivals.rate", vec!["60", "120"])];
    let plots = "[[plot]]\nkind = 'bars'\nx = 'tenant'";
    let fixture = Fixture { sweep, repeats: 1, ..Fixture::plain(plots) };
    let dir = tempfile::tempdir().unwrap();
    fixture.write(dir.path());
    let said = draw(dir.path()).unwrap_err().to_string();
    assert!(said.contains("differ in `tenant.vision.arrivals.rate` (60, 120)"), "{said}");
}

#[test]
fn more_than_the_bound_is_wrong_but_for_what_was_under_way() {
    let fixture = Fixture { repeats: 1, ..Fixture::plain("[[plot]]\nkind = 'bars'") };
    // One tenant of `mps` delivers so much more than under the bound, requests/s of 100 in 60 s.
    let said = |more: f64| {
        let text = fixture.results();
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let place = |name: &str| header.iter().position(|h| *h == name).unwrap();
        let line = |line: &str| {
            let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
            let [label, tenant] = ["label", "tenant"].map(|name| fields[place(name)].clone());
            let more = if label == "mps" && tenant == "vision" { more } else { 0.0 };
            let rate = (100.0 + more).to_string();
            for (name, value) in [
                ("goodput_rps", rate.as_str()),
                ("throughput_rps", &rate),
                ("completed", "6000"),
                ("latency_mean_ms", "10"),
            ] {
                if label != "label" {
                    fields[place(name)] = value.to_owned();
                }
            }
            fields.join(",") + "\n"
        };
        let table: String = text.lines().map(line).collect();
        let dir = tempfile::tempdir().unwrap();
        fixture.write(dir.path());
        let file = dir.path().join("results.csv");
        fs::write(&file, table).unwrap();
        let table = Table::results(&file, &[]).unwrap();
        Answer::of(&fixture.run(), &table).sentences().join("\n")
    };
    assert!(!said(0.1).contains("exceeds"), "two requests are under way: {}", said(0.1));
    assert!(said(1.0).contains("`mps` exceeds the bound `ideal`"), "{}", said(1.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn odd_tables_are_an_answer_not_a_panic(
        blanks in proptest::collection::vec((0usize..130, 6usize..29), 0..40),
        value in prop_oneof![
            Just(String::new()), Just("0".into()), Just("1e300".into()), Just("-5".into()),
            Just("1e-300".into()), "[ -~]{0,8}",
        ],
        log in 0usize..4,
    ) {
        let log = ["x", "y", "xy", "none"][log];
        let plots = ["bars", "pareto", "cdf", "timeline"]
            .map(|kind| format!("[[plot]]\nkind = '{kind}'\nlog = '{log}'\n"))
            .concat();
        let fixture = Fixture { repeats: 1, ..Fixture::plain(&plots) };
        let mut lines: Vec<Vec<String>> = fixture
            .results()
            .lines()
            .map(|l| l.split(',').map(str::to_owned).collect())
            .collect();
        let n = lines.len();
        for (row, column) in blanks {
            let width = lines[0].len();
            let safe = value.replace([',', '"'], "");
            lines[1 + row % (n - 1)][column % width] = safe;
        }
        let text: String = lines.iter().map(|l| l.join(",") + "\n").collect();
        let _ = drawn_with(&fixture, "results.csv", &text);
    }
}
