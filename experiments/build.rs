//! Hands the commit to the program, where there is one to hand.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A commit moves the log of HEAD; a checkout without one is read as it is at this build.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=COTENANT_COMMIT={commit}");
    }
    if is_dist() == Some(true) {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// Whether this is the small program of releases, and the linker can make functions of the same code one:
/// that of rustc 1.90 and later for this target can.
fn is_dist() -> Option<bool> {
    let var = |name| std::env::var(name).ok();
    let out = var("OUT_DIR")?;
    // TARGET/PROFILE/build/PACKAGE/out
    let profile = Path::new(&out).ancestors().nth(3)?.file_name()?;
    let version = Command::new(var("RUSTC")?).arg("--version").output().ok()?.stdout;
    let version = String::from_utf8(version).ok()?;
    let minor: u32 = version.split('.').nth(1)?.parse().ok()?;
    Some(profile == "dist" && minor >= 90 && var("TARGET")? == "x86_64-unknown-linux-gnu")
}
