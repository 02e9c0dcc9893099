//! Sweeps in shards: the same bytes as the plain run, whatever happens on the way.

use std::fs;

use crate::study::{Study, read};

#[test]
fn any_number_of_shards_gives_the_bytes_of_the_plain_run() {
    let study = Study::new("shards");
    let plain = study.plain();
    for n in [1, 7, 64] {
        let dir = study.plan(n, &["--requests", "--timeline"]);
        // Any order will do.
        for k in (0..n).rev() {
            study.shard(&dir, k, n).success();
        }
        let merged = study.merge(&dir).code(0);
        // The answer is the same; the last line says where the report is.
        let answer = |text: &str| text.lines().filter(|l| !l.starts_with("Report: ")).count();
        let told = String::from_utf8_lossy(&merged.get_output().stdout).into_owned();
        let same = told.lines().zip(plain.summary.lines()).filter(|(a, b)| a == b).count();
        assert_eq!((same, answer(&told)), (answer(&plain.summary), answer(&plain.summary)));
        crate::study::same_results(&plain.dir, &dir);
    }
}

#[test]
fn a_folder_holds_one_plan() {
    let study = Study::new("plans");
    let dir = study.plan(3, &[]);
    let plan = read(dir.join("plan.json"));
    study.try_plan(&dir, 3, &[]).success();
    for (n, args) in [(4, &[][..]), (3, &["--seed", "7"]), (3, &["--requests"])] {
        let done = study.try_plan(&dir, n, args).code(2);
        let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(stderr.contains("plan.json: holds a plan "), "{stderr}");
    }
    assert_eq!(read(dir.join("plan.json")), plan, "the first plan stays");
    study.shard(&dir, 1, 4).code(2);
    let run = study.cotenant().arg("run").arg(study.file()).arg("--out").arg(&dir).assert();
    run.code(2);
    let other = study.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "mine").unwrap();
    study.try_plan(&other, 3, &[]).code(2);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}
