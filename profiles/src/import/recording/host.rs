//! When the host issued the launches of a pass, from its calls and from the gaps on the GPU.
//!
//! The simulator starts a kernel when its predecessor has ended and the host has issued it. So the
//! issue times are chosen such that a request alone takes what the pass took:
//!
//! * A kernel that began after a gap, because the host came late or waited for something (a copy, an
//!   event, a value that it read back), was issued when it began.
//! * A kernel that waited in its stream was issued when its call returned, or, where no call is
//!   recorded, together with its predecessor.
//! * The short gaps between kernels that were all issued in time are the GPU's own. They cannot be
//!   told from host time in a profile, and go to the first launch in one sum.
//!
//! Where kernels ran side by side, on streams or in graphs, they stand behind one another in the model. They fill the
//! gaps in which they ran: gaps are closed as far as the pass then takes longer than it took.
//!
//! Copies before the first and after the last kernel are the input and output of the model. What they
//! took beyond the device's link (pageable memory is staged by the host) is host time.

use super::clean::{Launch, Place, Timeline, call_of};
use super::passes::{Pass, Passes, launches, span_ns};
use super::{Copy, Recording, Way};
use crate::Device;

/// The overhead of a pass besides its kernels.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// Launches in the order in which the model issues them, by their place in the timeline.
    pub order: Vec<Place>,
    /// Host time of each, ns.
    pub host: Vec<u64>,
    /// Bytes copied to the device before the first kernel.
    pub input: u64,
    /// Bytes copied back after the last one.
    pub output: u64,
    /// Copies, memsets and their time in between: part of the gaps.
    pub inside: (usize, u64),
    /// From the first copy or kernel to the end of the last one, ns.
    pub took: u64,
    /// The time of the model alone, ns: more than `took` if streams ran side by side.
    pub alone: u64,
}

/// The longest gap that the GPU leaves between kernels that wait for it.
const GPU_GAP_NS: i64 = 5_000;
/// The longest time from the return of a launch call to the start of the kernel on an idle GPU.
const LAUNCH_LATENCY_NS: i64 = 6_000;

impl Recording {
    /// The timing of pass number `of`; `durations` are the model's durations of its launches.
    pub(super) fn timing(
        &self,
        timeline: &Timeline,
        found: &Passes,
        of: usize,
        duration: impl Fn(Place) -> u64,
        device: &Device,
    ) -> Timing {
        let pass = &found.passes[of];
        // Without calls, the interleaving of streams is unknown: take them one after the other.
        let order =
            if timeline.called { pass.launches.clone() } else { Self::by_stream(timeline, pass) };
        let first = launches(timeline, pass).map(|l| l.kernel.start).min().unwrap_or(0);
        let last = first.saturating_add(span_ns(timeline, pass));
        let mut timing = Timing { order, ..Timing::default() };
        let (mut begin, mut end) = (first, last);
        for copy in self.copies_of(timeline, found, of, first, last) {
            let copied = copy.start.saturating_add_unsigned(copy.duration);
            match copy.way {
                Way::In if copy.start < first => {
                    timing.input = timing.input.saturating_add(copy.bytes);
                    begin = begin.min(copy.start);
                }
                Way::Out if copy.start >= last => {
                    timing.output = timing.output.saturating_add(copy.bytes);
                    end = end.max(copied);
                }
                _ => {
                    timing.inside.0 += 1;
                    timing.inside.1 = timing.inside.1.saturating_add(copy.duration);
                }
            }
        }
        let latency = launches(timeline, pass)
            .next()
            .and_then(|l| {
                Some(l.kernel.start.saturating_sub(l.call?.0).clamp(0, LAUNCH_LATENCY_NS))
            })
            .unwrap_or(0)
            .unsigned_abs();
        timing.took = end.saturating_sub(begin).max(0).unsigned_abs();
        let [copy_in, copy_out] = [
            link_ns(timing.input, device.pcie.h2d_gbps),
            link_ns(timing.output, device.pcie.d2h_gbps),
        ];
        // The host issues copies and launches alike from the start of the request.
        let lead = first.saturating_sub(begin).max(0).unsigned_abs().max(latency);
        let mut issued = issue_times(timeline, &timing.order, first);
        issued.iter_mut().for_each(|at| *at = at.saturating_add(lead));
        let alone_at = |issued: &[u64]| {
            let run =
                |done: u64, (&i, &at): (&Place, &u64)| done.max(at).saturating_add(duration(i));
            timing.order.iter().zip(issued).fold(copy_in, run).saturating_add(copy_out)
        };
        if alone_at(&issued) > timing.took {
            closed_up(&mut issued, lead, |at| alone_at(at) <= timing.took);
        }
        let alone = alone_at(&issued);
        // The GPU's own gaps, and the time of copies beyond the link's.
        let missing = timing.took.saturating_sub(alone);
        timing.alone = alone.saturating_add(missing);
        issued.iter_mut().for_each(|at| *at = at.saturating_add(missing));
        let mut before = 0;
        timing.host = issued
            .into_iter()
            .map(|at| {
                let host = at - before;
                before = at;
                host
            })
            .collect();
        timing
    }

    /// The copies that belong to a pass.
    fn copies_of(
        &self,
        timeline: &Timeline,
        found: &Passes,
        of: usize,
        first: i64,
        last: i64,
    ) -> Vec<Copy> {
        let pass = &found.passes[of];
        let ends = |p: &Pass| launches(timeline, p).map(|l| l.kernel.end()).max();
        let starts = |p: &Pass| launches(timeline, p).map(|l| l.kernel.start).min();
        let before = of.checked_sub(1).and_then(|p| ends(&found.passes[p]));
        let next = found.passes.get(of + 1).and_then(starts);
        let mine = |copy: &&Copy| {
            if found.marked && pass.from > i64::MIN {
                let at = call_of(&self.calls, copy.link, copy.start).map_or(copy.start, |c| c.0);
                return pass.from <= at && at < pass.to;
            }
            match copy.way {
                _ if (first..last).contains(&copy.start) => true,
                Way::In => copy.start < first && before.is_some_and(|b| copy.start >= b),
                Way::Out => copy.start >= last && next.is_some_and(|n| copy.start < n),
                Way::Inside => false,
            }
        };
        timeline.copies.iter().filter(mine).copied().collect()
    }
}

/// When the host issued each launch, ns after the first kernel began; never decreasing.
fn issue_times(timeline: &Timeline, order: &[Place], first: i64) -> Vec<u64> {
    let mut issued = Vec::with_capacity(order.len());
    let (mut free, mut latest) = (i64::MIN, 0u64);
    for &i in order {
        let Launch { kernel, call } = timeline.at(i);
        let begun = kernel.start.saturating_sub(first).max(0);
        let gap = kernel.start.saturating_sub(free);
        let in_time = call.is_some_and(|(_, end)| end.saturating_add(LAUNCH_LATENCY_NS) < free);
        let waited_for_host = free > i64::MIN && gap > 0 && !(in_time && gap <= GPU_GAP_NS);
        let at = if waited_for_host {
            begun
        } else {
            call.map_or(0, |(_, end)| end.saturating_sub(first).clamp(0, begun))
        };
        latest = latest.max(at.unsigned_abs());
        issued.push(latest);
        free = free.max(kernel.end());
    }
    issued
}

/// Shrinks all gaps by one factor, the largest that `fits`: in the recording, kernels of other streams
/// ran in them, which now follow one another. Closes all gaps if no factor fits.
fn closed_up(issued: &mut [u64], lead: u64, fits: impl Fn(&[u64]) -> bool) {
    const WHOLE: u64 = 1 << 16;
    let scaled = |part: u64| -> Vec<u64> {
        let at = |&t: &u64| {
            let rest = u128::from(t - lead.min(t)) * u128::from(part) / u128::from(WHOLE);
            lead.min(t).saturating_add(u64::try_from(rest).unwrap_or(u64::MAX))
        };
        issued.iter().map(at).collect()
    };
    let (mut fitting, mut beyond) = (0, WHOLE + 1);
    while beyond - fitting > 1 {
        let part = u64::midpoint(fitting, beyond);
        if fits(&scaled(part)) {
            fitting = part;
        } else {
            beyond = part;
        }
    }
    let closed = scaled(fitting);
    issued.copy_from_slice(&closed);
}

/// How long the device's link takes for `bytes`, as the simulator computes it.
fn link_ns(bytes: u64, gbps: f64) -> u64 {
    libm::ceil(bytes as f64 / gbps) as u64
}
