//! What may happen to a sharded study on real machines, and that its results do not change.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::study::{Study, read, same_results};
use sha2::{Digest as _, Sha256};

/// Exit statuses of the contract.
const INPUT: i32 = 2;
const INCOMPLETE: i32 = 3;
const CONFLICT: i32 = 4;
const IO: i32 = 74;
const STOPPED: i32 = 75;

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin("cotenant")
}

fn spawn(args: &[&str], dir: &Path) -> Child {
    let mut command = Process::new(program());
    command.arg("run").arg(dir).args(args).stderr(Stdio::piped());
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// The journals of a shard.
fn journals(dir: &Path, shard: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir.join(format!("attempts/{shard:05}"))) else {
        return vec![];
    };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|x| x == "jsonl") && p.is_file());
    paths.sort();
    paths
}

fn lines(dir: &Path, shard: usize) -> usize {
    journals(dir, shard).iter().map(|p| read(p).lines().count()).sum()
}

/// Removes what the shard has committed; its journals stay.
fn uncommit(dir: &Path, shard: usize) {
    for entry in fs::read_dir(dir.join("shards")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with(&format!("{shard:05}.")) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// `27 cells, 26 reused` as numbers.
fn reused(told: &str) -> (usize, usize) {
    let line = told.lines().find(|l| l.ends_with(" reused")).unwrap_or_else(|| panic!("{told}"));
    let numbers: Vec<usize> =
        line.split([' ', ',']).filter_map(|word| word.parse().ok()).rev().take(2).collect();
    (numbers[1], numbers[0])
}

fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.to_string_lossy().ends_with(".tmp") => found.push(path),
                false => {}
            }
        }
    }
    found
}

#[test]
fn attempts_at_the_same_shard_at_the_same_time_agree() {
    let study = Study::with_duration("twice", "300ms");
    let plain = study.plain();
    let dir = study.plan(2, &["--requests", "--timeline"]);
    let both: Vec<Child> =
        ["0/2", "0/2", "1/2", "0/2"].iter().map(|k| spawn(&["--shard", k], &dir)).collect();
    for child in both {
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}");
    }
    study.merge(&dir).code(0);
    same_results(&plain.dir, &dir);
}

#[test]
fn killed_fifty_times_at_any_moment_it_ends_in_the_same_bytes() {
    let study = Study::with_duration("kill", "100ms");
    let plain = study.plain();
    let dir = study.plan(2, &["--requests", "--timeline"]);
    let mut state = 12345_u64;
    let mut finished = [0; 2];
    for i in 0..50 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut child = spawn(&["--shard", &format!("{}/2", i % 2), "--jobs", "1"], &dir);
        std::thread::sleep(
            Duration::from_millis(state >> 33).min(Duration::from_millis(20 + (state >> 40) % 300)),
        );
        child.kill().unwrap();
        let killed = child.wait().unwrap().code().is_none();
        finished[i % 2] += usize::from(!killed);
        // What has been journalled is never lost.
        if i % 10 == 9 {
            let code = study.merge(&dir).get_output().status.code();
            assert!(code == Some(INCOMPLETE) || code == Some(0), "{code:?}");
        }
    }
    (0..2).for_each(|k| drop(study.shard(&dir, k, 2).code(0)));
    study.merge(&dir).code(0);
    same_results(&plain.dir, &dir);
}

#[test]
fn a_signal_stops_at_the_next_cell_and_the_next_run_goes_on() {
    let study = Study::with_duration("signal", "2s");
    let dir = study.plan(1, &[]);
    for (n, signal) in ["TERM", "USR1"].iter().enumerate() {
        let child = spawn(&["--shard", "0/1", "--jobs", "1"], &dir);
        let before = lines(&dir, 0);
        let patience = Instant::now();
        while lines(&dir, 0) < before + 2 && patience.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        assert!(
            Process::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success()
        );
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(STOPPED), "{told}");
        assert_eq!(reused(&told), (crate::study::CELLS, before), "attempt {n}: {told}");
        let done = lines(&dir, 0);
        assert!(done >= before + 2 && done < crate::study::CELLS, "{done}");
    }
}

#[test]
fn torn_and_foreign_lines_say_nothing() {
    let study = Study::new("torn");
    let plain = study.plain();
    let dir = study.plan(2, &["--requests", "--timeline"]);
    let other = study.dir.path().join("other");
    study.try_plan(&other, 2, &["--seed", "9"]).success();
    study.shard(&other, 0, 2).success();
    let told = stderr(&study.shard(&dir, 0, 2).success());
    let (cells, _) = reused(&told);
    study.shard(&dir, 1, 2).success();
    uncommit(&dir, 0);
    let journal = journals(&dir, 0).remove(0);
    let mut bytes = fs::read(&journal).unwrap();
    bytes.truncate(bytes.len() - 10);
    bytes[100] ^= 4;
    fs::write(&journal, bytes).unwrap();
    let attempts = dir.join("attempts/00000");
    let noise: Vec<u8> = (0..100_000_u64).map(|i| (i * i % 251) as u8).collect();
    fs::write(attempts.join("noise.jsonl"), noise).unwrap();
    fs::write(attempts.join("empty.jsonl"), "").unwrap();
    fs::write(attempts.join("notes.txt"), "not a journal").unwrap();
    fs::create_dir(attempts.join("folder.jsonl")).unwrap();
    fs::copy(&journals(&other, 0)[0], attempts.join("other.jsonl")).unwrap();
    fs::write(dir.join("shards/00000.csv.77.tmp"), "half").unwrap();
    let told = stderr(&study.shard(&dir, 0, 2).success());
    // A line that tells of one cell is torn, and one is damaged.
    assert_eq!(reused(&told), (cells, cells - 2), "{told}");
    study.merge(&dir).code(0);
    same_results(&plain.dir, &dir);
}

#[test]
fn a_full_disk_costs_nothing_that_is_finished() {
    let study = Study::new("full");
    let plain = study.plain();
    let dir = study.plan(1, &[]);
    let limited = |blocks: u32| {
        let text = format!("ulimit -f {blocks}; exec \"$@\"");
        let mut command = Process::new("sh");
        command.args(["-c", &text, "sh"]).arg(program()).arg("run").arg(&dir);
        let output = command.args(["--shard", "0/1", "--jobs", "1"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Blocks of 512 bytes: some cells fit into the journal.
    let (code, told) = limited(300);
    assert_eq!(code, Some(IO), "{told}");
    assert!(told.contains("error: ") && told.contains("attempts/00000/"), "{told}");
    assert!(!dir.join("shards/00000.json").exists());
    assert_eq!(leftovers(&dir), Vec::<PathBuf>::new());
    let told = stderr(&study.shard(&dir, 0, 1).success());
    assert!(reused(&told).1 > 0, "{told}");
    // And where there is room for the journal alone.
    uncommit(&dir, 0);
    let (code, told) = limited(8);
    assert_eq!(code, Some(IO), "{told}");
    assert_eq!(reused(&told), (crate::study::CELLS, crate::study::CELLS));
    assert!(!dir.join("shards/00000.json").exists());
    assert_eq!(leftovers(&dir), Vec::<PathBuf>::new());
    study.shard(&dir, 0, 1).success();
    study.merge(&dir).code(0);
    for name in ["results.csv", "cdf.csv", "series.csv", "counters.csv", "curves.csv"] {
        assert_eq!(read(plain.dir.join(name)), read(dir.join(name)), "{name}");
    }
}

type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn damaged_shards_are_named_and_repaired() {
    let study = Study::new("damage");
    let plain = study.plain();
    let dir = study.plan(7, &["--requests", "--timeline"]);
    (0..7).for_each(|k| drop(study.shard(&dir, k, 7).success()));
    let request = || {
        // A cell that failed has no requests.
        let rows = read(dir.join("shards/00005.csv"));
        let cells = rows.lines().skip(1).map(|row| row.split(',').nth(1).unwrap());
        let mut files = cells.map(|cell| format!("requests/{cell}.csv.zst"));
        files.find(|file| dir.join(file).is_file()).unwrap()
    };
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let halve = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    // Of a cell's first repeat alone: which shard has one is the hash's affair.
    let layouts = |k: &usize| dir.join(format!("shards/{k:05}.layouts.csv")).is_file();
    let laid_out = (0..7).find(layouts).unwrap();
    let damages: [(usize, String, Damage<'_>); 7] = [
        (0, "shards/00000.csv".to_owned(), &flip),
        (1, "shards/00001.cdf.csv".to_owned(), &halve),
        (2, "shards/00002.series.csv".to_owned(), &Vec::clear),
        (3, "shards/00003.json".to_owned(), &flip),
        (4, "shards/00004.json".to_owned(), &Vec::clear),
        (5, request(), &flip),
        (laid_out, format!("shards/{laid_out:05}.layouts.csv"), &|bytes| bytes.push(b'\n')),
    ];
    for (shard, file, damage) in damages {
        let path = dir.join(&file);
        let mut bytes = fs::read(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let status = study.cotenant().arg("status").arg(&dir).assert().code(INCOMPLETE);
        let table = String::from_utf8_lossy(&status.get_output().stdout).into_owned();
        let states: Vec<&str> =
            table.lines().skip(1).take(7).map(|l| l.split_whitespace().nth(1).unwrap()).collect();
        let expected: Vec<&str> =
            (0..7).map(|k| if k == shard { "corrupt" } else { "ok" }).collect();
        assert_eq!(states, expected, "{file}: {table}");
        let merged = stderr(&study.merge(&dir).code(INCOMPLETE));
        assert!(merged.contains(&format!("--array={shard}\n")), "{file}: {merged}");
        study.shard(&dir, shard, 7).success();
        study.merge(&dir).code(0);
    }
    same_results(&plain.dir, &dir);
}

#[test]
fn missing_shards_are_named_and_may_be_allowed() {
    let study = Study::new("missing");
    let dir = study.plan(7, &[]);
    let told = stderr(&study.merge(&dir).code(INCOMPLETE));
    assert!(told.contains("0 of 54 cells; not finished: --array=0-6"), "{told}");
    [0, 2, 3, 6].iter().for_each(|&k| drop(study.shard(&dir, k, 7).success()));
    let told = stderr(&study.merge(&dir).code(INCOMPLETE));
    assert!(told.contains("--array=1,4-5"), "{told}");
    assert!(!dir.join("results.csv").exists());
    let dry = ["--engine", "slurm", "--dry-run", "--", "--partition=cpu"];
    let dry = study.cotenant().arg("submit").arg(&dir).args(dry).assert().success();
    let text = String::from_utf8_lossy(&dry.get_output().stdout).into_owned();
    assert!(text.contains("sbatch --parsable --array=1,4-5 --partition=cpu "), "{text}");
    assert!(text.contains("--dependency=afterany:"), "{text}");
    let mut merge = study.cotenant();
    let told = stderr(&merge.arg("merge").arg(&dir).arg("--allow-missing").assert().code(0));
    assert!(told.contains(" of 54 cells; not finished: --array=1,4-5"), "{told}");
    let run: serde_json::Value = serde_json::from_str(&read(dir.join("run.json"))).unwrap();
    let cells = run["cells"].as_array().unwrap().len();
    assert!(run["warnings"].to_string().contains(&format!("incomplete: {cells} of 54 cells")));
    assert!(read(dir.join("report.html")).contains(&format!("incomplete: {cells} of 54 cells")));
    assert_eq!(read(dir.join("results.csv")).lines().count(), 1 + 3 * cells);
}

#[test]
fn another_build_and_a_changed_trace_are_refused() {
    let study = Study::new("refuse");
    let dir = study.plan(2, &[]);
    let other = study.dir.path().join("cotenant");
    fs::copy(program(), &other).unwrap();
    File::options().append(true).open(&other).unwrap().write_all(b"\0").unwrap();
    let output = Process::new(&other).arg("run").arg(&dir).args(["--shard", "0/2"]).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(INPUT), "{told}");
    assert!(told.contains("the same executable"), "{told}");
    let trace = read(study.trace());
    fs::write(study.trace(), trace.replacen("2000000,", "2000001,", 1)).unwrap();
    let told = stderr(&study.shard(&dir, 0, 2).code(INPUT));
    assert!(told.contains("trace.csv: changed since the plan was made"), "{told}");
    fs::remove_file(study.trace()).unwrap();
    study.shard(&dir, 0, 2).code(INPUT);
    fs::write(study.trace(), trace).unwrap();
    study.shard(&dir, 0, 2).success();
    let plan = dir.join("plan.json");
    fs::write(&plan, read(&plan).replacen("\"shards\": 2", "\"shards\": 3", 1)).unwrap();
    let told = stderr(&study.shard(&dir, 0, 3).code(INPUT));
    assert!(told.contains("plan.json: damaged"), "{told}");
}

#[test]
fn clocks_and_the_machine_do_not_matter() {
    let study = Study::new("clock");
    let plain = study.plain();
    let dir = study.plan(3, &["--requests", "--timeline"]);
    let age = |time: SystemTime| {
        for path in (0..3).flat_map(|k| journals(&dir, k)).chain([dir.join("plan.json")]) {
            File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        }
    };
    study.shard(&dir, 0, 3).success();
    uncommit(&dir, 0);
    age(SystemTime::UNIX_EPOCH);
    study.cotenant().arg("status").arg(&dir).assert().code(INCOMPLETE);
    let (cells, kept) = reused(&stderr(&study.shard(&dir, 0, 3).success()));
    assert_eq!(cells, kept, "old journals count");
    // As on a processor that lacks these instructions.
    let mut command = study.cotenant();
    command.env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F");
    command.arg("run").arg(&dir).args(["--shard", "1/3"]).assert().success();
    age(SystemTime::now() + Duration::from_secs(10 * 365 * 86_400));
    uncommit(&dir, 1);
    let (cells, kept) = reused(&stderr(&study.shard(&dir, 1, 3).success()));
    assert_eq!(cells, kept, "journals of the future count");
    study.shard(&dir, 2, 3).success();
    study.merge(&dir).code(0);
    same_results(&plain.dir, &dir);
}

/// A line with the checksum that journals and commit records carry.
fn sealed(line: &str) -> String {
    let rest = line.split_at("{\"check\":\"".len() + 16).1;
    let digest = Sha256::digest(rest.as_bytes());
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{{\"check\":\"{hex}{rest}")
}

#[test]
fn attempts_that_disagree_are_kept_and_told() {
    let study = Study::new("disagree");
    let dir = study.plan(2, &[]);
    (0..2).for_each(|k| drop(study.shard(&dir, k, 2).success()));
    let journal = read(&journals(&dir, 0)[0]);
    let line = journal.lines().next().unwrap();
    assert_eq!(sealed(line), line);
    let events = line.split_once("\"events\":").unwrap().1.split(',').next().unwrap();
    let other = line.replacen(&format!("\"events\":{events}"), "\"events\":7", 1);
    fs::write(dir.join("attempts/00000/zz.jsonl"), sealed(&other) + "\n").unwrap();
    let told = stderr(&study.merge(&dir).code(CONFLICT));
    assert!(told.contains("two attempts disagree on cell "), "{told}");
    assert_eq!(fs::read_dir(dir.join("conflicts")).unwrap().count(), 1);
    uncommit(&dir, 0);
    study.shard(&dir, 0, 2).code(CONFLICT);
    fs::remove_file(dir.join("attempts/00000/zz.jsonl")).unwrap();
    study.shard(&dir, 0, 2).success();
    let told = stderr(&study.merge(&dir).code(CONFLICT));
    assert!(told.contains("nothing is merged until it is removed"), "{told}");
    fs::remove_dir_all(dir.join("conflicts")).unwrap();
    study.merge(&dir).code(0);
}

#[test]
fn a_plain_run_that_was_killed_goes_on_and_mixes_nothing() {
    let study = Study::with_duration("plain", "400ms");
    let out = study.dir.path().join("out");
    let start = |args: &[&str]| {
        let mut command = Process::new(program());
        command.arg("run").arg(study.file()).arg("--out").arg(&out).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let all = ["--requests", "--timeline", "--jobs", "1"];
    let killed = |args: &[&str]| {
        let mut child = start(args);
        let patience = Instant::now();
        while lines(&out, 0) < 3 && patience.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    // What another experiment left in the folder is not part of this one.
    killed(&["--seed", "5", "--jobs", "1"]);
    let foreign: usize = lines(&out, 0);
    fs::remove_dir_all(out.join("requests")).ok();
    let mut child = start(&all);
    let patience = Instant::now();
    while lines(&out, 0) < foreign + 4 && patience.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept: usize = lines(&out, 0) - foreign;
    let output = start(&all).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let line = told.lines().find(|l| l.contains(" reused from an interrupted run")).unwrap();
    let reused: usize = line.split(' ').next().unwrap().parse().unwrap();
    // The last line may be torn.
    assert!(reused == kept || reused + 1 == kept, "{reused} of {kept}: {told}");
    assert!(!out.join("attempts").exists(), "a run that is done leaves no journal");
    same_results(&study.plain().dir, &out);
}
