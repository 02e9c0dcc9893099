//! `cotenant submit` against a stand-in for Slurm's commands that runs at once what it is given.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::study::{Study, read, same_results};

/// Takes indices below 3, as a `MaxArraySize` of 3 demands, and sets what Slurm would set.
const SBATCH: &str = r#"#!/bin/sh
echo "$@" >>calls
array= first=
for arg; do
    case $arg in
        --array=*) array=${arg#--array=} ;;
        --export=ALL,COTENANT_FIRST_SHARD=*) first=${arg##*=} ;;
    esac
    script=$arg
done
[ -z "$first" ] || export COTENANT_FIRST_SHARD="$first"
# A merge waits for what is in the queue.
[ -n "$array" ] || [ -e queued ] || sh "$script" >&2 || exit 1
for part in $(echo "$array" | tr , ' '); do
    for i in $(seq "${part%-*}" "${part#*-}"); do
        [ "$i" -lt 3 ] || { echo "Invalid job array specification" >&2; exit 1; }
        SLURM_ARRAY_TASK_ID=$i sh "$script" >&2 || exit 1
    done
done
wc -l <calls
"#;
const SCONTROL: &str =
    "#!/bin/sh\necho 'MailProg = /bin/mail'\necho 'MaxArraySize            = 3'\n";
const SQUEUE: &str = "#!/bin/sh\n[ ! -e queued ] || grep -e \" $5 \" queued | cut -d ' ' -f 1\n";

/// The stand-in's folder: its commands, its calls, its queue.
struct Slurm(PathBuf);

impl Slurm {
    fn new(study: &Study) -> Self {
        let dir = study.dir.path().join("slurm");
        fs::create_dir(&dir).unwrap();
        for (name, text) in [("sbatch", SBATCH), ("scontrol", SCONTROL), ("squeue", SQUEUE)] {
            fs::write(dir.join(name), text).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    /// Submits, and returns what was printed and how `sbatch` was called, but for paths.
    fn submit(&self, study: &Study, dir: &Path) -> (String, Vec<String>) {
        let path = std::env::var("PATH").unwrap();
        let mut command = study.cotenant();
        command.current_dir(&self.0).env("PATH", format!("{}:{path}", self.0.display()));
        let done = command.arg("submit").arg(dir).args(["--engine", "slurm"]).assert().success();
        let out = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
        let calls = fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.0.join("calls"));
        let place = format!("{}/", dir.display());
        (out, calls.lines().map(|l| l.replace(&place, "")).collect())
    }
}

#[test]
fn more_shards_than_an_array_may_have_are_several_arrays() {
    let study = Study::new("arrays");
    let plain = study.plain();
    let dir = study.plan(7, &["--requests", "--timeline"]).canonicalize().unwrap();
    let slurm = Slurm::new(&study);
    let plan: serde_json::Value = serde_json::from_str(&read(dir.join("plan.json"))).unwrap();
    let name = format!("cotenant-{}", &plan["plan"].as_str().unwrap()[..8]);
    let array = |indices: &str, first: usize| match first {
        0 => format!("--parsable --array={indices} slurm/array.sbatch"),
        _ => format!(
            "--parsable --array={indices} --job-name={name}-{first} \
             --export=ALL,COTENANT_FIRST_SHARD={first} --output=logs/from-{first:05}-%5a.log \
             slurm/array.sbatch"
        ),
    };
    let merge = |jobs: &str| format!("--parsable --dependency=afterany:{jobs} slurm/merge.sbatch");

    let (out, calls) = slurm.submit(&study, &dir);
    assert_eq!(calls, [array("0-2", 0), array("0-2", 3), array("0", 6), merge("1:2:3")]);
    assert!(out.contains("submitted 7 shards as job 1, 2, 3, the merge as 4"), "{out}");
    // The scripts computed every shard, and the merge behind them.
    same_results(&plain.dir, &dir);

    let (out, calls) = slurm.submit(&study, &dir);
    assert!(out.contains("every shard is finished") && calls.is_empty(), "{out}");

    for shard in [2, 4] {
        fs::remove_file(dir.join(format!("shards/{shard:05}.json"))).unwrap();
    }
    let (_, calls) = slurm.submit(&study, &dir);
    assert_eq!(calls, [array("2", 0), array("1", 3), merge("1:2")]);

    // An index in the queue is one of its own array.
    fs::write(slurm.0.join("queued"), format!("1 {name}-3 \n")).unwrap();
    for shard in [1, 4] {
        fs::remove_file(dir.join(format!("shards/{shard:05}.json"))).unwrap();
    }
    let (_, calls) = slurm.submit(&study, &dir);
    assert_eq!(calls, [array("1", 0), merge("1")]);
    let (out, calls) = slurm.submit(&study, &dir);
    assert!(out.contains("in the queue already") && calls.is_empty(), "{out}");
}
