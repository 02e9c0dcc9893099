//! A process whose loader finds the stand-in under the driver's name, and what it tells.
#![allow(unsafe_code, clippy::unwrap_used)] // asks the stand-in for its log; helpers of tests

use std::path::Path;
use std::process::Command;

use cotenant_replay::cuda::Loader;

/// Runs `body` in a child process with the stand-in on the loader's path.
pub(crate) fn with_stand_in(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os("COTENANT_STAND_IN").is_some() {
        return body();
    }
    let me = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let object = me.parent().unwrap().join("libfakecuda.so");
    for name in ["libcuda.so", "libcuda.so.1", "libcublasLt.so.13", "libcublasLt.so", "libcudnn.so"]
    {
        std::os::unix::fs::symlink(&object, folder.path().join(name)).unwrap();
    }
    let mut child = Command::new(me);
    child.args([test, "--exact", "--nocapture"]).env("COTENANT_STAND_IN", "1");
    child.env("LD_LIBRARY_PATH", folder.path()).envs(variables.iter().copied());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{text}");
}

fn stand_in() -> Loader {
    Loader::open(Path::new("libcuda.so.1")).unwrap()
}

/// The calls so far, in order.
pub(crate) fn calls() -> Vec<String> {
    // SAFETY: the stand-in's own signature.
    let read = unsafe {
        stand_in().function::<unsafe extern "C" fn(*mut u8, usize) -> usize>("cotenant_calls")
    };
    let mut text = vec![0u8; 1 << 24];
    let n = unsafe { read.unwrap()(text.as_mut_ptr(), text.len()) };
    String::from_utf8_lossy(&text[..n]).lines().map(str::to_owned).collect()
}

/// Handles alive, and wrong destructions.
pub(crate) fn alive() -> (usize, usize) {
    // SAFETY: the stand-in's own signature.
    let read = unsafe {
        stand_in().function::<unsafe extern "C" fn(*mut usize, *mut usize)>("cotenant_live")
    };
    let (mut alive, mut wrong) = (0, 0);
    unsafe { read.unwrap()(&raw mut alive, &raw mut wrong) };
    (alive, wrong)
}
