//! What real drivers do that a polite stand-in does not. Each trait is asked for by name in
//! `FAKECUDA_NASTY`, separated by commas:
//!
//! | trait | what happens |
//! |---|---|
//! | `cold=MS` | the first launch of a function, and the first of a library for its sizes, takes the host so long |
//! | `load=MS` | the first launch of a function does, and nothing of a library |
//! | `apart` | two events of different contexts cannot be compared; with `apart=streams`, of different streams |
//! | `dnn=own` | a handle of cuDNN takes streams of the context alone that it was made in |
//! | `cluster=N` | the libraries' first algorithm fails on fewer than N SMs, as large clusters do |
//! | `refuse=NAME` | launches of functions with NAME in their names fail |
//! | `break=NAME` | such a launch fails and takes the context along: every later call of it fails, too |
//! | `beside=NAME` | such a launch fails while a stream of another context is busy, and nothing else does; NAME may be `product` or `convolution`, too |
//! | `create=MS` | a green context or page-locked memory takes the host so long to make |
//! | `teardown=MS` | a context takes so long to go; `FAKECUDA_ENDED` names a file that gets a line then |
//! | `groups=N` | a cut into groups of 8 gives N of them, whatever count was named before |
//! | `record=US` | recording an event takes the host so long |
//! | `gap=NS` | recording an event takes the GPU so long |
//! | `sms=N` | a process with a share of MPS is given N SMs |

use std::time::Duration;

/// The value of a trait, if it was asked for; empty where it has none.
pub(crate) fn nasty(name: &str) -> Option<String> {
    let all = std::env::var("FAKECUDA_NASTY").ok()?;
    all.split(',').find_map(|one| match one.split_once('=') {
        Some((key, value)) => (key == name).then(|| value.to_owned()),
        None => (one == name).then(String::new),
    })
}

/// The number of a trait, if it was asked for.
pub(crate) fn number(name: &str) -> Option<u64> {
    nasty(name)?.parse().ok()
}

/// Takes the host's time, where a trait says so.
pub(crate) fn take(name: &str) {
    if let Some(ms) = number(name) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

/// Whether a function of this name is one that a trait names.
pub(crate) fn names(of: &str, function: &str) -> bool {
    nasty(of).is_some_and(|part| function.contains(&part))
}
