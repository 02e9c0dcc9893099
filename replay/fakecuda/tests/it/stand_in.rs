//! A process whose loader finds the stand-in under the driver's name, and what it tells.
#![allow(unsafe_code)] // asks the stand-in for its log

use std::path::{Path, PathBuf};
use std::process::Command;

use cotenant_replay::cuda::Loader;
use tempfile::TempDir;

/// The libraries that the stand-in takes the place of.
pub(crate) const LIBRARIES: [&str; 5] =
    ["libcuda.so", "libcuda.so.1", "libcublasLt.so.13", "libcublasLt.so", "libcudnn.so"];

/// The stand-in: beside this program, or where `COTENANT_STAND_IN_OBJECT` says.
fn object() -> PathBuf {
    let named = std::env::var_os("COTENANT_STAND_IN_OBJECT").map(PathBuf::from);
    named.unwrap_or_else(|| std::env::current_exe().unwrap().with_file_name("libfakecuda.so"))
}

/// A folder in which the loader finds the stand-in under these names.
pub(crate) fn libraries(names: &[&str]) -> TempDir {
    let object = object();
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        std::os::unix::fs::symlink(&object, folder.path().join(name)).unwrap();
    }
    folder
}

/// This program again, to run the one test of the module `of` that is named so.
pub(crate) fn again(of: &str, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let of = of.strip_prefix("it::").unwrap_or(of);
    command.args([&format!("{of}::{test}"), "--exact", "--nocapture"]);
    command
}

/// Runs `body` in a child process with the stand-in on the loader's path.
pub(crate) fn with_stand_in_of(
    (of, test): (&str, &str),
    variables: &[(&str, &str)],
    body: impl FnOnce(),
) {
    if std::env::var_os("COTENANT_STAND_IN").is_some() {
        return body();
    }
    let folder = libraries(&LIBRARIES);
    let mut child = again(of, test);
    child.env("COTENANT_STAND_IN", "1");
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
    let read = read.unwrap();
    let mut text = vec![0u8; unsafe { read(std::ptr::NonNull::dangling().as_ptr(), 0) }];
    let n = unsafe { read(text.as_mut_ptr(), text.len()) };
    String::from_utf8_lossy(&text[..n.min(text.len())]).lines().map(str::to_owned).collect()
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

/// [`with_stand_in_of`] for a test of the module where it is written.
macro_rules! with_stand_in {
    ($test:expr, $variables:expr, $body:expr) => {
        crate::stand_in::with_stand_in_of((module_path!(), $test), $variables, $body)
    };
}
pub(crate) use with_stand_in;
