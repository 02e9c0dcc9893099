//! A crate outside the workspace compiles against the public API, registers a policy of its own and
//! runs it in both worlds. It builds everything anew: only where `COTENANT_OUTSIDE` is set.

use std::path::Path;
use std::process::Command;

#[test]
fn a_policy_of_ones_own_runs_in_both_worlds() {
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
