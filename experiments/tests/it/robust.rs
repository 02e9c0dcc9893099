//! Nothing that a stranger types brings the command down: it ends within its contract, in bounded
//! memory and time, and loses nothing.
//!
//! The swarm runs for `COTENANT_SWARM_SECONDS` (default 10), from `COTENANT_SWARM_SEED` (default 1); a
//! failure prints the seed of its case and keeps the experiment.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cotenant_profiles::Nanos;
use cotenant_sim::policy::{self, Kind};
use cotenant_traces::Rng;
use tempfile::TempDir;

/// Address space of a run, KiB: 4 GiB.
const MEMORY_KIB: u64 = 4 << 20;
/// No run of these takes so long, even on a machine that is shared.
const LONGEST: Duration = Duration::from_secs(120);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_cotenant");
    let line = format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"");
    command.args(["-c", line.as_str(), program]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Output and exit status; a run that does not end is killed and fails.
fn finished(mut child: Child, what: &str) -> (Option<i32>, Output) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("{what}: no end in {LONGEST:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), output)
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let (code, output) = finished(command(args).spawn().unwrap(), &args.join(" "));
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn experiment(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("e.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Runs an experiment into `out`. Cells of more than a few million events, minutes on a machine that
/// is shared, fail by their estimate.
fn run_text(folder: &TempDir, text: &str) -> (Option<i32>, String) {
    let file = experiment(folder.path(), text);
    let out = folder.path().join("out");
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    run(&["-q", "run", file, "--out", out, "--max-events", "3e6"])
}

/// A small experiment with `arrivals` of one tenant, and more lines.
fn one_tenant(arrivals: &str, more: &str) -> String {
    format!(
        "name = \"m\"\ndevice = \"a30\"\nduration = \"1ms\"\n[[tenant]]\nname = \"a\"\n\
         model = \"alexnet\"\narrivals = {arrivals}\n{more}"
    )
}

fn column<'a>(results: &'a str, row: &'a str, name: &str) -> &'a str {
    let mut lines = results.lines().filter(|l| !l.starts_with('#'));
    let at = lines.next().unwrap().split(',').position(|c| c == name).unwrap();
    row.split(',').nth(at).unwrap()
}

#[test]
fn a_sweep_value_that_stands_twice_is_refused_at_its_line() {
    for values in ["[100, 100.0]", "[\"50ms\", \"50000us\"]", "[[\"1s\", 1], [\"1000ms\", 1.0]]"] {
        let key = if values.starts_with("[[") {
            "\"duration, seed\""
        } else if values.contains("ms") {
            "duration"
        } else {
            "\"tenant.a.arrivals.rate\""
        };
        let more = format!("[[policy]]\nname = \"mps\"\n[sweep]\n{key} = {values}\n");
        let folder = tempfile::tempdir().unwrap();
        let (code, said) =
            run_text(&folder, &one_tenant("{ kind = \"poisson\", rate = 9 }", &more));
        assert_eq!(code, Some(2), "{said}");
        let refused = said.contains("e.toml:11: sweep.") && said.contains("is there already");
        assert!(refused || said.contains("are the same in all cells"), "{said}");
    }
}

#[test]
fn a_cell_beyond_its_budget_fails_with_its_estimate_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let text = one_tenant(
        "{ kind = \"closed\", concurrency = 1 }",
        "[[policy]]\nname = \"mps\"\n[sweep]\n\
         \"tenant.a.arrivals.concurrency\" = [1, 4294967295]\n",
    );
    let (code, said) = run_text(&folder, &text);
    assert_eq!(code, Some(1), "{said}");
    let results = std::fs::read_to_string(folder.path().join("out/results.csv")).unwrap();
    let statuses: Vec<&str> = results
        .lines()
        .filter(|l| l.starts_with("m,"))
        .map(|row| column(&results, row, "status"))
        .collect();
    assert!(statuses.contains(&"ok"), "{results}");
    assert!(results.contains("over-budget: at tenant `a` 4.3e9 requests would wait"), "{results}");
    // A billion small events are too many where the command line says so.
    let file = experiment(
        folder.path(),
        &one_tenant("{ kind = \"poisson\", rate = 1000.0 }", "[[policy]]\nname = \"mps\"\n"),
    );
    let out = folder.path().join("few");
    let (code, _) = run(&[
        "-q",
        "run",
        file.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--max-events",
        "3",
    ]);
    assert_eq!(code, Some(1));
    let results = std::fs::read_to_string(out.join("results.csv")).unwrap();
    assert!(results.contains("shorten `duration`"), "{results}");
}

#[test]
fn values_that_took_all_memory_or_never_ended_are_refused() {
    for (arrivals, policy, want) in [
        (
            "{ kind = \"mmpp\", rates = [1, 2], dwell = [\"1ns\", \"1ns\"] }",
            "name = \"mps\"",
            "dwell",
        ),
        ("{ kind = \"closed\", items = 4294967295 }", "name = \"mps\"", "items"),
        ("{ kind = \"poisson\", rate = 10 }", "name = \"gslice\"\nwindow = \"1ns\"", "window"),
        ("{ kind = \"poisson\", rate = 10 }", "name = \"dstack\"\nsession = \"1ns\"", "session"),
        ("{ kind = \"trace\", file = \"/dev/zero\" }", "name = \"mps\"", "/dev/zero"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (code, said) =
            run_text(&folder, &one_tenant(arrivals, &format!("[[policy]]\n{policy}\n")));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(want), "{said}");
    }
}

#[test]
fn a_mistyped_file_names_its_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("quickstart.toml"), "").unwrap();
    let run_of = |name: &str| run(&["run", folder.path().join(name).to_str().unwrap()]);
    let (code, said) = run_of("quikstart.toml");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("did you mean `") && said.contains("/quickstart.toml`?"), "{said}");
    let (code, said) = run_of("zzz.toml");
    assert!(code == Some(2) && !said.contains("did you mean"), "{said}");
}

#[test]
fn control_characters_and_files_as_folders_are_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let text = one_tenant("{ kind = \"poisson\", rate = 9 }", "[[policy]]\nname = \"mps\"\n");
    let file = experiment(folder.path(), &text);
    let file = file.to_str().unwrap();
    for out in [format!("{}/a\nb", folder.path().display()), file.to_owned(), format!("{file}/x")] {
        let (code, said) = run(&["-q", "run", file, "--out", &out]);
        assert_eq!(code, Some(2), "{out:?}: {said}");
    }
}

/// Two plain runs at once into one folder, one of them killed or stopped on the way: one computes,
/// the other waits its turn, and in the end the results are those of a run alone.
#[test]
fn two_runs_share_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = \"k\"\ndevice = \"a30\"\nduration = \"1s\"\nrepeats = 3\n[[tenant]]\n\
         name = \"a\"\nmodel = \"alexnet\"\narrivals = { kind = \"poisson\", rate = 300 }\n\
         [[policy]]\nname = \"mps\"\n[[policy]]\nname = \"temporal\"\n[sweep]\n\
         \"tenant.a.arrivals.rate\" = [200, 300]\n";
    let file = experiment(folder.path(), text);
    let file = file.to_str().unwrap();
    let results = |out: &Path| std::fs::read(out.join("results.csv")).unwrap();
    let alone = folder.path().join("alone");
    assert_eq!(run(&["-q", "run", file, "--out", alone.to_str().unwrap()]).0, Some(0));
    let mut rng = Rng::new(20);
    for round in 0..4 {
        let out = folder.path().join(format!("two-{round}"));
        let args = ["-q", "run", file, "--out", out.to_str().unwrap()];
        let mut children: Vec<Child> = (0..3).map(|_| command(&args).spawn().unwrap()).collect();
        std::thread::sleep(Duration::from_millis(rng.below(400)));
        // The shell has become the program: the signal reaches it.
        children[rng.below(3) as usize].kill().unwrap();
        for child in children {
            let (code, output) = finished(child, "one of three");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(code, None | Some(0 | 75)), "{code:?}: {said}");
            assert!(code != Some(75) || said.contains("another run is writing"), "{said}");
        }
        // Whatever was left, the same command completes it.
        assert_eq!(run(&args).0, Some(0));
        assert_eq!(results(&out), results(&alone), "round {round}");
    }
}

/// A random experiment: mostly sensible, with an extreme value now and then.
pub(super) fn random(rng: &mut Rng) -> String {
    let pick = |rng: &mut Rng, all: &[&str]| all[rng.below(all.len() as u64) as usize].to_owned();
    let odd = |rng: &mut Rng| rng.below(12) == 0;
    let device = pick(rng, &["a30", "v100-sxm2-16", "h100-sxm", "mi50", "p40", "rtx-4050-laptop"]);
    let duration = match rng.below(8) {
        0 => "1us".to_owned(),
        1 => "1s".to_owned(),
        _ => format!("{}us", 1 + rng.below(100_000)),
    };
    let mut text = format!("name = \"s\"\ndevice = \"{device}\"\nduration = \"{duration}\"\n");
    let _ = writeln!(text, "warmup = \"{}us\"\nseed = {}", rng.below(50_000), rng.below(1 << 40));
    if rng.below(3) == 0 {
        let _ = writeln!(text, "costs = \"ideal\"");
    }
    if rng.below(3) == 0 {
        let _ = writeln!(text, "jitter = {}", rng.uniform() * if odd(rng) { 50.0 } else { 0.5 });
    }
    if rng.below(2) == 0 {
        let model = pick(rng, &["none", "bandwidth", "linear", "igniter", "cache", "measured"]);
        let _ = writeln!(text, "contention = \"{model}\"");
    }
    for t in 0..1 + rng.below(3) {
        let rate =
            if odd(rng) { 10f64.powi(rng.below(19) as i32 - 9) } else { rng.uniform() * 2e3 + 1.0 };
        let arrivals = match rng.below(8) {
            0 => format!(
                "{{ kind = \"closed\", concurrency = {} }}",
                if odd(rng) { 1 << 31 } else { 1 + rng.below(40) }
            ),
            1 => format!("{{ kind = \"gamma\", rate = {rate}, cv = {} }}", rng.uniform() * 9.0),
            2 => format!(
                "{{ kind = \"mmpp\", rates = [{rate}, {}], dwell = [\"{}us\", \"{}ns\"] }}",
                rate / 7.0,
                1 + rng.below(9000),
                1 + rng.below(1 << 30)
            ),
            3 => format!(
                "{{ kind = \"onoff\", base = {}, peak = {rate}, len = \"{}us\", period = \"1s\" }}",
                rng.uniform(),
                1 + rng.below(900_000)
            ),
            4 => format!(
                "{{ kind = \"mlperf\", scenario = \"offline\", samples = {} }}",
                if odd(rng) { u64::from(u32::MAX) } else { rng.below(3000) }
            ),
            5 => format!(
                "{{ kind = \"weibull\", rate = {rate}, cv = {} }}",
                0.03 + rng.uniform() * 40.0
            ),
            _ => format!("{{ kind = \"poisson\", rate = {rate} }}"),
        };
        let model = pick(
            rng,
            &["alexnet", "mobilenet_v2", "resnet50", "bert-base", "squeezenet1_1", "vgg16"],
        );
        let _ = writeln!(
            text,
            "[[tenant]]\nname = \"t{t}\"\nmodel = \"{model}\"\narrivals = {arrivals}"
        );
        if rng.below(3) == 0 {
            let _ = writeln!(text, "slo = {{ isolated = {} }}", 1.0 + rng.uniform() * 5.0);
        }
        if rng.below(3) == 0 {
            let _ = writeln!(
                text,
                "batch = {{ max = {}, timeout = \"{}us\" }}",
                1 + rng.below(16),
                rng.below(9000)
            );
        }
        if rng.below(4) == 0 {
            let _ = writeln!(text, "workers = {}", if odd(rng) { 1024 } else { 1 + rng.below(3) });
        }
        if rng.below(4) == 0 {
            let _ = writeln!(text, "class = \"best-effort\"");
        }
    }
    for _ in 0..1 + rng.below(2) {
        let info = &policy::ALL[rng.below(policy::ALL.len() as u64) as usize];
        let _ = writeln!(
            text,
            "[[policy]]\nname = \"{0}\"\nlabel = \"{0} {1}\"",
            info.name,
            rng.below(1 << 30)
        );
        for option in info.options {
            if rng.below(3) > 0 {
                continue;
            }
            let value = match option.kind {
                Kind::Duration(least) => {
                    let width = if odd(rng) { 1 << 40 } else { 5_000_000 };
                    format!("\"{}\"", Nanos(least.0 + rng.below(width)))
                }
                Kind::Integer(low, high) => (low
                    + rng.below((high.saturating_sub(low) as u64).min(50) + 1) as i64)
                    .to_string(),
                Kind::Float(low, high) => {
                    format!("{:?}", low + rng.uniform() * (high.min(1e3) - low))
                }
                Kind::Bool => (rng.below(2) == 0).to_string(),
                Kind::Choice(words) => format!("\"{}\"", pick(rng, words)),
                _ => continue,
            };
            let _ = writeln!(text, "{} = {value}", option.name);
        }
    }
    text
}

/// The text with a number replaced by an extreme one, or a byte of it changed.
pub(super) fn mutated(text: &str, rng: &mut Rng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let numbers: Vec<usize> = (1..bytes.len())
        .filter(|&i| bytes[i].is_ascii_digit() && !bytes[i - 1].is_ascii_alphanumeric())
        .collect();
    if rng.below(3) > 0 && !numbers.is_empty() {
        let at = numbers[rng.below(numbers.len() as u64) as usize];
        let end = (at..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
        let extremes =
            ["0", "-1", "4294967295", "18446744073709551616", "1e308", "5e-324", "nan", ""];
        let with = extremes[rng.below(extremes.len() as u64) as usize];
        bytes.splice(at..end, with.bytes());
    } else {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = rng.below(256) as u8;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What holds of every result.
fn check(results: &str) -> Result<(), String> {
    for row in results.lines().filter(|l| l.starts_with("s,")) {
        let value = |name: &str| column(results, row, name).parse::<f64>().ok();
        if row.contains("internal-error") {
            return Err(format!("a bug: {row}"));
        }
        let counts = ["offered", "completed", "dropped", "in_flight"].map(value);
        if let [Some(offered), Some(completed), Some(dropped), Some(in_flight)] = counts
            && offered != completed + dropped + in_flight
        {
            return Err(format!("requests are lost: {row}"));
        }
        if value("cu_utilization").is_some_and(|u| !(0.0..=1.0005).contains(&u)) {
            return Err(format!("a utilisation above 1: {row}"));
        }
        let order = ["latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_p999_ms"];
        let order: Vec<f64> = order.iter().filter_map(|name| value(name)).collect();
        if !order.is_sorted() {
            return Err(format!("quantiles out of order: {row}"));
        }
    }
    Ok(())
}

#[test]
fn random_experiments_end_within_the_contract() {
    let setting = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (first, seconds) =
        (setting("COTENANT_SWARM_SEED", 1), setting("COTENANT_SWARM_SECONDS", 10));
    let start = Instant::now();
    let mut counts = std::collections::BTreeMap::<i32, u32>::new();
    for seed in first.. {
        if start.elapsed() > Duration::from_secs(seconds) {
            break;
        }
        let mut rng = Rng::for_names(seed, &["swarm"]);
        let text = random(&mut rng);
        let text = if rng.below(4) == 0 { mutated(&text, &mut rng) } else { text };
        let folder = tempfile::tempdir().unwrap();
        let (code, said) = run_text(&folder, &text);
        let results = folder.path().join("out/results.csv");
        let results = std::fs::read_to_string(results).unwrap_or_default();
        let verdict = if matches!(code, Some(0..=2)) && !said.contains("panicked") {
            check(&results)
        } else {
            Err(format!("exit {code:?}: {said}"))
        };
        if let Err(why) = verdict {
            panic!("COTENANT_SWARM_SEED={seed}: {why}\n{text}");
        }
        if code == Some(0) && rng.below(5) == 0 {
            let again = tempfile::tempdir().unwrap();
            run_text(&again, &text);
            let again = std::fs::read_to_string(again.path().join("out/results.csv")).unwrap();
            assert_eq!(again, results, "COTENANT_SWARM_SEED={seed}: not the same twice\n{text}");
        }
        *counts.entry(code.unwrap_or(-1)).or_default() += 1;
    }
    eprintln!("random experiments by exit status: {counts:?}");
}
