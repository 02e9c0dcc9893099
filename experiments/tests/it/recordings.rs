//! `cotenant profile import` of recordings, and a run of what came in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn cotenant(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cotenant")).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/tests/fixtures").join(name)
}

fn import(from: &str, file: &Path, out: &Path, more: &[&str]) -> Output {
    let mut args = vec!["profile", "import", "--from", from, "--model", "m"];
    args.extend(more);
    args.extend([file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    cotenant(&args)
}

/// A fact of the imported profile.
fn fact(profile: &Path, key: &str) -> String {
    let text = fs::read_to_string(profile.join("kernels.csv")).unwrap();
    let start = format!("# {key}=");
    text.lines().find_map(|l| l.strip_prefix(&start)).unwrap().to_owned()
}

/// What a request of tenant `a` takes in a folder of results, by row, ms.
fn latencies(results: &Path) -> Vec<f64> {
    let text = fs::read_to_string(results.join("results.csv")).unwrap();
    let mut rows =
        text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(',').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    let column = |name: &str| header.iter().position(|c| *c == name).unwrap();
    let (tenant, p50) = (column("tenant"), column("latency_p50_ms"));
    rows.filter(|r| r[tenant] == "a").map(|r| r[p50].parse().unwrap()).collect()
}

/// What a request alone takes under each policy, ms.
fn alone(profile: &Path, folder: &Path) -> Vec<f64> {
    let text = format!(
        "name = \"alone\"\ndevice = \"h100-sxm\"\nprofiles = [\"{}\"]\nduration = \"1s\"\nwarmup = \"0s\"\n\
         [[tenant]]\nname = \"a\"\nmodel = \"m\"\narrivals = {{ kind = \"constant\", rate = 10.0 }}\n\
         [[policy]]\nname = \"mps\"\n[[policy]]\nname = \"temporal\"\n",
        profile.display()
    );
    fs::write(folder.join("alone.toml"), text).unwrap();
    let (file, out) = (folder.join("alone.toml"), folder.join("alone"));
    let output = cotenant(&["-q", "run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    latencies(&out)
}

fn takes_what_was_recorded(from: &str, file: &Path, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile");
    let output = import(from, file, &profile, more);
    assert!(output.status.success(), "{}: {}", file.display(), said(&output));
    let took: f64 = fact(&profile, "took_ns").parse::<f64>().unwrap() / 1e6;
    for ms in alone(&profile, folder.path()) {
        // The way of the first launch to the GPU, and a context's turn, in tiny recordings.
        let off = (ms - took).abs();
        assert!(
            off <= took * 0.05 + 0.012,
            "{}: {ms} ms alone, recorded {took} ms",
            file.display()
        );
    }
}

#[test]
fn a_request_alone_takes_what_the_recording_took() {
    // It names its GPU: no device is given.
    takes_what_was_recorded("torch", &fixture("torch_real.json.gz"), &[]);
    takes_what_was_recorded("nsys", &fixture("nsys.sqlite"), &["--device", "h100-sxm"]);
}

#[test]
fn the_public_cases_run() {
    let Some(data) = std::env::var_os("COTENANT_PUBLIC_DATA") else {
        eprintln!("skipped: COTENANT_PUBLIC_DATA names no folder of public data");
        return;
    };
    let cases = PathBuf::from(data).join("cases");
    for file in [
        "torch-grid-one.json",
        "nsys-small-grid.sqlite",
        "torch-three-iterations.json.gz",
        "nsys-schema-comments.sqlite",
        "torch-one-step-layers.json",
        "torch-two-steps-layers.json",
        "torch-dynamic-grid.json",
        "torch-side-stream.json",
        "torch-same-shape-different-work.json",
        "torch-graph-no-grid.json",
        "torch-some-no-grid.json",
        "torch-zero-times.json",
        "torch-overflow-dur.json",
        "torch-memcpy.json",
        "nsys-graph-level.sqlite",
        "torch-string-times.json",
        "torch-latin1.json",
        "torch-bad-escape.json",
        "torch-control-char.json",
        "torch-inf-bandwidth.json",
        "torch-array-unclosed.json",
        "torch-three-iterations.json",
        "torch-Infinity-bandwidth.json",
        "torch-nan-arg.json",
        "torch-18-kernel.json",
        "torch-absolute-us.json",
        "torch-pause-inside.json",
        "nsys-schema-plain.sqlite",
    ] {
        let from = if file.starts_with("nsys") { "nsys" } else { "torch" };
        takes_what_was_recorded(from, &cases.join(file), &["--device", "h100-sxm"]);
    }
    for (from, file) in [("torch", "torch-two-devices.json"), ("nsys", "nsys-two-devices.sqlite")] {
        for gpu in ["0", "1"] {
            let more = ["--device", "h100-sxm", "--gpu-index", gpu];
            takes_what_was_recorded(from, &cases.join(file), &more);
        }
    }
}

#[test]
fn the_other_rows_of_the_public_table_run() {
    let Some(data) = std::env::var_os("COTENANT_PUBLIC_DATA") else {
        eprintln!("skipped: COTENANT_PUBLIC_DATA names no folder of public data");
        return;
    };
    let cases = PathBuf::from(data).join("cases");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run =
        |file: &Path| cotenant(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    for name in ["alone-equals-curve.toml", "ladder-from-two.toml"] {
        let ran = run(&cases.join("runs").join(name));
        assert!(ran.status.success(), "{name}: {}", said(&ran));
        assert_eq!(latencies(&out), [1.0; 3], "{name}");
        fs::remove_dir_all(&out).unwrap();
    }
    let file = folder.path().join("t.toml");
    for (trace, code, words) in [
        ("burst2-offset.csv", 0, "no request falls into the run of 1min"),
        ("mooncake-epoch.jsonl", 0, "no request falls into the run of 1min"),
        ("mooncake-seconds.jsonl", 0, "timestamp `0.2` is a fraction"),
        ("burst-restart.csv", 2, "the clock restarts"),
    ] {
        let text = format!(
            "name = \"t\"\ndevice = \"h100-sxm\"\nduration = \"60s\"\nwarmup = \"0s\"\n[[tenant]]\nname = \"a\"\n\
             model = \"resnet50\"\narrivals = {{ kind = \"trace\", file = \"{}\" }}\n[[policy]]\nname = \"mps\"\n",
            cases.join(trace).display()
        );
        fs::write(&file, text).unwrap();
        let ran = run(&file);
        assert_eq!(ran.status.code(), Some(code), "{trace}: {}", said(&ran));
        assert!(said(&ran).contains(words), "{trace}: {}", said(&ran));
        let _ = fs::remove_dir_all(&out);
    }
}

/// What stands in the code blocks of one language of docs/recordings.md.
fn blocks(language: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recordings.md");
    let page = fs::read_to_string(page).unwrap();
    let begin = format!("```{language}\n");
    page.split(begin.as_str()).skip(1).map(|b| b.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_page_about_recordings_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture("torch_real.json.gz"), folder.path().join("trace.json.gz")).unwrap();
    fs::write(folder.path().join("bert.toml"), &blocks("toml")[0]).unwrap();
    let shell = blocks("sh");
    let lines = shell.iter().flat_map(|b| b.lines());
    let ours: Vec<&str> = lines.filter(|l| l.starts_with("cotenant ")).collect();
    assert_eq!(ours.len(), 4, "{ours:?}");
    for line in ours.into_iter().filter(|l| !l.contains("--from nsys") && !l.contains("rocprof")) {
        let args: Vec<&str> = line.split_whitespace().skip(1).collect();
        let ran = Command::new(env!("CARGO_BIN_EXE_cotenant"))
            .args(&args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{line}: {}", said(&ran));
    }
    let results = fs::read_to_string(folder.path().join("out/bert/results.csv")).unwrap();
    let served = results.lines().filter(|l| l.contains(",bert,bert,")).count();
    assert!(served > 0 && results.contains(",ok"), "{results}");
}

#[test]
fn another_gpu_and_a_second_import_are_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("p");
    let real = fixture("torch_real.json.gz");
    let other = import("torch", &real, &profile, &["--device", "a100-sxm-80"]);
    assert_eq!(other.status.code(), Some(2));
    let why =
        "--device a100-sxm-80: NVIDIA H100 80GB HBM3 has 132 CUs, a100-sxm-80 has 108; --force";
    assert!(said(&other).contains(why), "{}", said(&other));
    assert!(import("torch", &real, &profile, &[]).status.success());
    let again = import("torch", &real, &profile, &["--step", "5"]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("--replace puts the new one in its place"), "{}", said(&again));
    let replaced = import("torch", &real, &profile, &["--step", "5", "--replace"]);
    assert!(replaced.status.success(), "{}", said(&replaced));
    assert_eq!(fact(&profile, "taken"), "ProfilerStep#5, as given");
    let forced = folder.path().join("forced");
    let output = import("torch", &real, &forced, &["--device", "a100-sxm-80", "--force"]);
    assert!(
        output.status.success() && said(&output).contains("warning: --force: "),
        "{}",
        said(&output)
    );
    let bare = import("nsys", &fixture("nsys.sqlite"), &folder.path().join("n"), &[]);
    assert!(
        said(&bare).contains("--device: the recording does not name its GPU"),
        "{}",
        said(&bare)
    );
}

#[test]
fn a_large_trace_is_read_as_a_stream() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.json");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    write!(file, "{{\"traceEvents\": [").unwrap();
    for i in 0..700_000u32 {
        let at = f64::from(i) * 1.5;
        if i % 10_000 == 0 {
            writeln!(file, r#"{{"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#{}", "pid": 1, "tid": 1, "ts": {at}, "dur": 14999}},"#, i / 10_000).unwrap();
        }
        if i % 100 == 0 {
            writeln!(file, r#"{{"ph": "X", "cat": "kernel", "name": "k{}", "pid": 0, "tid": 7, "ts": {at}, "dur": 20, "args": {{"device": 0, "stream": 7, "grid": [200, 1, 1], "block": [128, 1, 1]}}}},"#, i % 10_000).unwrap();
        }
        writeln!(file, r#"{{"ph": "X", "cat": "cpu_op", "name": "aten::add", "pid": 1, "tid": 1, "ts": {at}, "dur": 1.0, "args": {{"External id": {i}, "Ev Idx": {i}}}}},"#).unwrap();
    }
    write!(file, "{{}}]}}").unwrap();
    file.into_inner().unwrap().sync_all().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    // 80 MB of address space, program and libraries included: the file alone has more.
    assert!(size > 80_000 << 10, "{size}");
    let line = format!(
        "ulimit -v 80000; exec '{}' profile import --from torch --device h100-sxm --model m '{}' --out '{}'",
        env!("CARGO_BIN_EXE_cotenant"),
        path.display(),
        folder.path().join("p").display()
    );
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("the median of 70 by GPU time: 100 launches, 2.000 ms"), "{text}");
}
