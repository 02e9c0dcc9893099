//! A program of one's own against the public API: it registers a policy and runs it in both worlds.

use std::path::Path;
use std::process::Command;

/// Its source is an example of this crate, too, which sees no more of it than a stranger does.
#[test]
fn a_policy_of_ones_own_runs_in_both_worlds() {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/outside");
    if !program.exists() {
        assert!(
            std::env::var_os("COTENANT_LONG_TESTS").is_none(),
            "{} is absent",
            program.display()
        );
        eprintln!("skipped: `cargo test` builds the example, `cargo test --test it` does not");
        return;
    }
    assert!(Command::new(program).status().unwrap().success());
}

/// It builds everything anew: only where `COTENANT_OUTSIDE` is set.
#[test]
fn a_crate_outside_of_the_workspace_builds_and_runs() {
    if std::env::var_os("COTENANT_OUTSIDE").is_none() {
        eprintln!("skipped: COTENANT_OUTSIDE is not set");
        return;
    }
    let crate_of_ones_own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--target-dir"])
        .arg(target)
        .current_dir(crate_of_ones_own)
        .status();
    assert!(status.unwrap().success());
}
