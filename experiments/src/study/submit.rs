//! `cotenant submit DIR --engine slurm`: submits the unfinished shards as a job array, and the merge after
//! it.
//!
//! The scheduler is asked only to save work: the files tell which shards are missing, and those already in
//! the scheduler's queue are not submitted again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::advice::THREADS;
use super::inputs::absolute;
use super::merge::{Proof, compact};
use super::plan_file::PlanFile;
use super::tables::write_synced;
use crate::fail::{Done, Failure};
use crate::say;
use crate::text::count;

/// The options of `cotenant submit`.
pub(crate) struct Options<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) dry_run: bool,
    /// Options for the scheduler, passed on unchanged.
    pub(crate) options: &'a [String],
}

/// One past the highest array index if the scheduler does not report it: Slurm's own default.
const MAX_ARRAY: usize = 1001;

/// `cotenant submit`.
///
/// # Errors
/// No plan; a file cannot be written; the scheduler refuses.
pub(crate) fn submit(options: &Options<'_>) -> Done {
    let dir = absolute(options.dir).map_err(|_| no_folder(options.dir))?;
    if dir.display().to_string().contains(char::is_control) {
        let dir = dir.display().to_string();
        return Err(Failure::input(format!(
            "{dir:?}: a control character in this path would end a line of the scripts; rename \
             the folder"
        )));
    }
    let plan = PlanFile::read(&dir)?;
    let study = plan.listed()?;
    let name = format!("cotenant-{}", &plan.plan[..8]);
    let mut lacking: BTreeSet<usize> =
        Proof::of(&study, &dir, plan.shards)?.lacking().into_iter().collect();
    if lacking.is_empty() {
        return say::out("every shard is finished: `cotenant merge` makes the results\n");
    }
    let limit = max_array();
    let offsets = || (0..plan.shards).step_by(limit);
    for offset in offsets() {
        for shard in queued(&job_name(&name, offset)) {
            if lacking.remove(&(offset + shard)) {
                say::note(&format!("shard {} is in the queue already", offset + shard));
            }
        }
    }
    let scripts = write_scripts(&dir, &plan, &name)?;
    for script in &scripts {
        let text = fs::read_to_string(script).map_err(|e| Failure::io(script, e))?;
        say::out(&format!("# {}\n{text}\n", script.display()))?;
    }
    if lacking.is_empty() {
        return say::out("every shard that is not finished is in the queue already\n");
    }
    let mut jobs = vec![];
    for offset in offsets() {
        let part = lacking.range(offset..(offset + limit).min(plan.shards));
        let indices: Vec<usize> = part.map(|shard| shard - offset).collect();
        if indices.is_empty() {
            continue;
        }
        let mut args = vec![format!("--array={}", compact(&indices))];
        if offset > 0 {
            // Array indices are limited: the script adds the first shard of this array.
            args.push(format!("--job-name={}", job_name(&name, offset)));
            args.push(format!("--export=ALL,COTENANT_FIRST_SHARD={offset}"));
            args.push(format!("--output={}", log(&dir, &format!("from-{offset:05}-%5a.log"))));
        }
        args.extend_from_slice(options.options);
        jobs.push(sbatch(args, &scripts[0], options.dry_run)?);
    }
    let mut args = vec![format!("--dependency=afterany:{}", jobs.join(":"))];
    args.extend_from_slice(options.options);
    let merge = sbatch(args, &scripts[1], options.dry_run)?;
    let shards: Vec<usize> = lacking.into_iter().collect();
    let what = count(shards.len(), "shard");
    if options.dry_run {
        return say::out(&format!("nothing is submitted: {what} would be\n"));
    }
    remember(&dir, &jobs, &merge, &compact(&shards))?;
    say::out(&format!("submitted {what} as job {}, the merge as {merge}\n", jobs.join(", ")))
}

fn no_folder(dir: &Path) -> Failure {
    Failure::input(format!("{}: no such folder", dir.display()))
}

/// The name of the array that begins at shard `offset`.
fn job_name(name: &str, offset: usize) -> String {
    if offset == 0 { name.to_owned() } else { format!("{name}-{offset}") }
}

/// Path of a log file, escaped: the scheduler expands percent signs.
fn log(dir: &Path, name: &str) -> String {
    format!("{}/logs/{name}", dir.display().to_string().replace('%', "%%"))
}

/// The scripts of the array and of the merge, written if they do not exist yet.
fn write_scripts(dir: &Path, plan: &PlanFile, name: &str) -> Done<[std::path::PathBuf; 2]> {
    let program =
        std::env::current_exe().map_err(|e| Failure::failed(format!("no program: {e}")))?;
    let (program, folder) = (quoted(&program), quoted(dir));
    let head = |name: &str, output: &str, cpus: usize, time: &str| {
        format!(
            "#!/bin/sh\n\
             # Edit at will: `cotenant submit` does not write this file again.\n\
             #SBATCH --job-name={name}\n\
             #SBATCH --output={output}\n\
             #SBATCH --open-mode=append\n\
             #SBATCH --cpus-per-task={cpus}\n\
             #SBATCH --mem=4G\n\
             #SBATCH --time={time}\n"
        )
    };
    let array = head(name, &quoted_option(&log(dir, "%5a.log")), THREADS, "01:00:00")
        + "#SBATCH --requeue\n\
           # Two minutes before the limit: stop at the next cell, so that nothing is lost.\n\
           #SBATCH --signal=B:USR1@120\n\
           shard=$((SLURM_ARRAY_TASK_ID + ${COTENANT_FIRST_SHARD:-0}))\n\
           # exec: the scheduler's signals reach cotenant itself.\n"
        + &format!("exec {program} run {folder} --shard \"$shard/{}\"\n", plan.shards);
    let output = quoted_option(&log(dir, "merge.log"));
    let merge = head(&format!("{name}-merge"), &output, 1, "00:30:00")
        + "# Shared file systems show new files late: look again for a minute.\n"
        + &format!("exec {program} merge {folder} --wait 60\n");
    let scripts = ["array.sbatch", "merge.sbatch"].map(|n| dir.join("slurm").join(n));
    for (script, text) in scripts.iter().zip([array, merge]) {
        if !script.exists() {
            write_synced(script, text.as_bytes())?;
        }
    }
    let logs = dir.join("logs");
    fs::create_dir_all(&logs).map_err(|e| Failure::io(&logs, e))?;
    Ok(scripts)
}

/// A path, quoted for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// A value, quoted for a line of options.
fn quoted_option(text: &str) -> String {
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text.to_owned() }
}

/// How many indices an array of this scheduler may have.
fn max_array() -> usize {
    let told = Command::new("scontrol").args(["show", "config"]).output().ok();
    let told = told.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let line = told.lines().find_map(|l| l.trim().strip_prefix("MaxArraySize"));
    let size = line.and_then(|l| l.trim_start_matches([' ', '=']).trim().parse().ok());
    size.filter(|&n| n > 0).unwrap_or(MAX_ARRAY)
}

/// Array indices that the scheduler has in its queue; empty if it cannot be asked.
fn queued(name: &str) -> Vec<usize> {
    let output = Command::new("squeue")
        .args(["--noheader", "--array", "--me", "--name", name, "--format", "%K"])
        .output();
    let Ok(output) = output else { return vec![] };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|l| l.trim().parse().ok()).collect()
}

/// Submits a script and returns the job's number.
fn sbatch(args: Vec<String>, script: &Path, dry_run: bool) -> Done<String> {
    let shown = format!("sbatch --parsable {} {}", args.join(" "), script.display());
    say::out(&format!("{shown}\n"))?;
    if dry_run {
        return Ok("JOB".to_owned());
    }
    let output = Command::new("sbatch").arg("--parsable").args(&args).arg(script).output();
    let output = output.map_err(|e| {
        Failure::failed(format!("cannot start sbatch: {e}; is Slurm installed on this machine?"))
    })?;
    let (said, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(Failure::failed(format!("{shown}: {}", error.trim())));
    }
    // `JOB` or `JOB;CLUSTER`.
    let job = said.trim().split(';').next().unwrap_or_default();
    Ok(job.to_owned())
}

/// Records which job got which shards, for users to read.
fn remember(dir: &Path, jobs: &[String], merge: &str, shards: &str) -> Done {
    let path = dir.join("submissions.jsonl");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let line = serde_json::json!({
        "engine": "slurm", "jobs": jobs, "merge": merge, "shards": shards, "unix_time": now,
    });
    let file = fs::File::options().create(true).append(true).open(&path);
    let written = file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
    written.map_err(|e| Failure::io(&path, e))
}
