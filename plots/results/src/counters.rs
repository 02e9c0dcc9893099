//! What policies and devices count: every name in `counters.csv` with its unit and its meaning, once.

use crate::columns::{Field, field};

/// Counts of requests given up begin so; the tenant and the reason follow.
pub const DROPPED: &str = "dropped: ";

/// The unit of a counter; empty of one that is not listed.
#[must_use]
pub fn unit(name: &str) -> &'static str {
    if name.starts_with(DROPPED) {
        return "requests";
    }
    find(name).map_or("", |c| c.unit)
}

/// The counter of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Field> {
    COUNTERS.iter().find(|c| c.name == name)
}

/// All of them, by who counts.
pub const COUNTERS: &[Field] = &[
    // Several policies.
    field("kernels", "kernels", "that the policy was asked about"),
    field("launches", "launches", "that the policy made of them"),
    field("whole_kernels", "kernels", "launched in one piece"),
    field("granted_cus_mean", "CUs", "granted to a launch, mean"),
    field("switches", "changes", "of the CUs that a stream launches on"),
    field("preempted", "kernels", "taken off the CUs before their end"),
    field(
        "best_effort_alone",
        "kernels",
        "of best-effort tenants, launched while nobody else's ran",
    ),
    field("changes of the knob", "changes", "of a batch limit or of the number of instances"),
    field("batch limits at the end, sum", "items", "over tenants"),
    // coalesce
    field("merged_kernels", "kernels", "that shared a launch with others"),
    field("largest_group", "kernels", "in one launch, most"),
    field("wave_capped", "launches", "kept smaller so that they fill whole waves"),
    field("gate_refused", "launches", "not merged, because together they would have taken longer"),
    field("waiting_kernels", "kernels", "held for others to merge with"),
    field("wait_mean_us", "us", "time that such a kernel was held, mean"),
    field("late_by_waiting", "kernels", "held beyond what their deadline allowed"),
    // orion, reef, tally, lithos
    field(
        "best_effort_beside",
        "kernels",
        "of best-effort tenants, launched beside a latency-critical one",
    ),
    field("refused_by_class", "decisions", "that held a kernel for its class"),
    field("refused_by_cus", "decisions", "that held a kernel for the CUs that it needs"),
    field(
        "throttled",
        "decisions",
        "that held a kernel because enough best-effort time was outstanding",
    ),
    field("padded", "kernels", "launched beside others, on CUs that those left free"),
    field("killed", "kernels", "killed, to start over"),
    field("slices", "launches", "of a part of a kernel"),
    field("persistent_kernels", "kernels", "launched as persistent threads"),
    field("atoms", "launches", "of a part of a kernel"),
    field("stolen_share", "0 to 1", "of the launches, those on CUs of another tenant"),
    field("clocks_set", "changes", "of the board's clock"),
    // eclip, krisp
    field("switches_per_request", "changes", "of queue per request"),
    field("planned_switches", "changes", "of queue that the plan has"),
    field("default_stream_share", "0 to 1", "of the kernels, those on the queue without a mask"),
    field("default_queue_waits", "kernels", "that waited for that queue"),
    field("unknown_kernels", "kernels", "without a curve in the profile"),
    field("shrunk_kernels", "kernels", "that got fewer CUs than they asked for"),
    field("overlapped_kernels", "kernels", "that got CUs which others had, too"),
    field("asked_cus_mean", "CUs", "that a kernel asked for, mean"),
    field("shared_keys", "kernels", "whose table entry another kernel has, too"),
    // pd-mux
    field("prefill_steps", "steps", "of prompts"),
    field("decode_steps", "steps", "of sequences that generate"),
    field("prefill_cus_mean", "CUs", "at the begin of a prefill, mean"),
    // clipper, dnnscaler, gslice, mps-static
    field("periods over the SLO", "periods", "whose latency was above it"),
    field("tenants on batching", "tenants", "for which batching was chosen, at the end"),
    field("tenants on multi-tenancy", "tenants", "for which instances were chosen, at the end"),
    field("gain of batching in the probe, %, sum", "%", "of throughput, over tenants"),
    field("gain of multi-tenancy in the probe, %, sum", "%", "of throughput, over tenants"),
    field("instances at the end, sum", "instances", "over tenants"),
    field("last latency held against the SLO, ms, sum", "ms", "over tenants"),
    field("instances started", "instances", "in all"),
    field("instances retired", "instances", "in all"),
    field("instances refused", "instances", "for which there was no memory"),
    field("looks over the SLO", "looks", "at a latency that was above it"),
    field("resizes asked for", "changes", "of a worker's share"),
    field("resizes refused", "changes", "for which there was no memory"),
    field("batch limits changed", "changes", "in all"),
    field("repartitions", "changes", "of the partitions that took effect"),
    // serve, overlap, hami
    field("decisions", "decisions", "in all"),
    field("decisions that started nothing", "decisions", "after which everybody waited"),
    field("groups", "groups", "of operators that ran together"),
    field("groups of several queries", "groups", "with operators of more than one query"),
    field("operators beside the most urgent query", "operators", "in such groups"),
    field("groups led by a late query", "groups", "whose most urgent query was late already"),
    field("groups of several queries: predicted, ms, sum", "ms", "that such groups were to last"),
    field("groups of several queries: lasted, ms, sum", "ms", "that they lasted"),
    field("launches held for tokens", "launches", "of a container that had spent its own"),
    field("shares at the end, tokens", "tokens", "over containers"),
    // dstack
    field("sessions", "sessions", "planned"),
    field("runs planned", "runs", "of a batch"),
    field("runs planned too late", "runs", "whose plan ends behind the deadline"),
    field("runs left to the next session", "runs", "for which there was no place"),
    field("planned runs begun", "runs", "at their planned place"),
    field("planned runs without a request", "runs", "that had nothing to do"),
    field("gaps filled", "runs", "in CUs that the plan left free"),
    field("gaps filled below the knee", "runs", "of those, on fewer CUs than the knee"),
    // autotune
    field("operators tuned", "operators", "to their end"),
    field("trials", "trials", "in all"),
    field("tuning time (s)", "s", "until the last operator was done"),
    field("trials per second", "1/s", "of that time"),
    field("server's time on the GPU (%)", "%", "of a server's time, mean"),
    field("measurement error, mean (%)", "%", "of a trial beside others against alone"),
    field("measurement error, largest (%)", "%", "the same"),
    field("operators mistuned", "operators", "for which a slower kernel won"),
    field("loss by the wrong kernel, mean (%)", "%", "of time, over operators"),
    field("loss by the wrong kernel, largest (%)", "%", "the same"),
    // Devices, in `replay` and `validate`.
    field("gpu_launches", "launches", "of kernels on the device"),
    field("queue_changes", "changes", "of the queue that a worker launches on"),
    field("masks_rounded", "launches", "on CUs that come closest to the mask asked for"),
    field("copies_left_out", "copies", "that the device does not do"),
    field("merges_one_by_one", "merges", "launched one kernel after the other"),
    field("queues_made", "queues", "since the run began"),
    field("partitions_made", "partitions", "since the run began"),
    field("ends_told_as_seen", "launches", "whose end the device did not tell"),
    field("processes_started", "processes", "of workers"),
    field(
        "late_at_device_p90_ms",
        "ms",
        "from when work was to be issued until it was at the device, p90",
    ),
    field("workers_on_other_cus", "workers", "whose process was granted another number of CUs"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_and_has_a_unit() {
        for (i, counter) in COUNTERS.iter().enumerate() {
            assert!(!counter.unit.is_empty() && !counter.doc.is_empty(), "{}", counter.name);
            assert!(COUNTERS[..i].iter().all(|c| c.name != counter.name), "{}", counter.name);
        }
        assert_eq!(unit("dropped: vision, too late"), "requests");
        assert_eq!((unit("atoms"), unit("nobody's")), ("launches", ""));
    }
}
