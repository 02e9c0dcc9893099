//! Counters of a real world besides those of the policy, each with its unit, meaning and value.

use cotenant_sim::counter::{Amount, Count, Counter};
use cotenant_sim::counters;

/// All of these counters, in the order in which they follow the policy's in `counters.csv`.
pub const COUNTERS: [&[Counter]; 5] =
    [Issued::COUNTERS, Deviations::COUNTERS, Made::COUNTERS, Started::COUNTERS, Late::COUNTERS];

/// Launches from this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Issued {
    pub(crate) launches: u64,
    pub(crate) hops: u64,
}

counters! {
    Issued |issued|
    /// of kernels on the device
    "gpu_launches", unit("launches") = issued.launches;
    /// of the queue that a worker launches on
    "queue_changes", unit("changes") = issued.hops;
}

/// Deviations from what was asked for. Counters that are 0 are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deviations {
    pub(crate) rounded: u64,
    pub(crate) copies_left_out: u64,
    pub(crate) merges_refused: u64,
    pub(crate) queues: u64,
    pub(crate) other_cus: u64,
}

counters! {
    Deviations |seen|
    /// on CUs that come closest to the mask asked for
    "masks_rounded", unit("launches") = seen.rounded;
    /// that the device does not do
    "copies_left_out", unit("copies") = seen.copies_left_out;
    /// launched one kernel after the other
    "merges_one_by_one", unit("merges") = seen.merges_refused;
    /// since the run began
    "queues_made", unit("queues") = seen.queues;
    /// whose process was granted another number of CUs
    "workers_on_other_cus", unit("workers") = seen.other_cus;
}

/// What a device has made and observed since it was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made {
    pub(crate) partitions: u64,
    pub(crate) ends_as_seen: u64,
}

counters! {
    Made |made|
    /// since the run began
    "partitions_made", unit("partitions") = made.partitions;
    /// whose end the device did not tell
    "ends_told_as_seen", unit("launches") = made.ends_as_seen;
}

/// Worker processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Started {
    pub(crate) processes: u64,
}

counters! {
    Started |started|
    /// of workers
    "processes_started", unit("processes") = started.processes;
}

/// How late work reached a device in worker processes, ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Late(pub(crate) f64);

counters! {
    Late |late|
    /// from when work was to be issued until it was at the device, p90
    "late_at_device_p90_ms", unit("ms") = Amount::Most(late.0);
}

/// The counters that are not 0.
pub(crate) fn seen(counts: Vec<Count>) -> impl Iterator<Item = Count> {
    counts.into_iter().filter(|count| count.amount.value() != 0.0)
}

/// The increase since `before`.
pub(crate) fn since(mut counts: Vec<Count>, before: &[Count]) -> Vec<Count> {
    for count in &mut counts {
        let known = before.iter().find(|known| known.counter == count.counter);
        let already = known.map_or(0.0, |known| known.amount.value());
        count.amount = Amount::Sum(count.amount.value() - already);
    }
    counts
}
