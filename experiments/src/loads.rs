//! Scaling of loads.

use cotenant_traces::ArrivalSpec;
use cotenant_traces::spec::Process;

/// Arrivals with their rates multiplied; `None` for closed loops.
pub(crate) fn scaled(arrivals: &ArrivalSpec, factor: f64) -> Option<ArrivalSpec> {
    let mut arrivals = arrivals.clone();
    match &mut arrivals.process {
        Process::Constant { rate, .. }
        | Process::Poisson { rate }
        | Process::Gamma { rate, .. }
        | Process::Lognormal { rate, .. }
        | Process::Weibull { rate, .. }
        | Process::Pareto { rate, .. }
        | Process::Diurnal { rate, .. } => *rate *= factor,
        Process::Mmpp { rates, .. } => rates.iter_mut().for_each(|rate| *rate *= factor),
        Process::Onoff { base, peak, .. } => {
            *base *= factor;
            *peak *= factor;
        }
        Process::Piecewise { points, .. } => {
            points.iter_mut().for_each(|(_, rate)| *rate *= factor);
        }
        Process::Counts(trace) | Process::Trace(trace) => trace.rate_scale *= factor,
        Process::Mlperf(settings) => *settings.target_qps.as_mut()? *= factor,
        _ => return None,
    }
    Some(arrivals)
}

/// A share of the requests, above 0 and at most 1, drawn at random as a load balancer does; for a closed
/// loop, a share of its clients. Arrivals without a rate stay as they are.
pub(crate) fn part(arrivals: &ArrivalSpec, share: f64) -> ArrivalSpec {
    if share >= 1.0 {
        return arrivals.clone();
    }
    let mut part = arrivals.clone();
    match &mut part.process {
        Process::Closed(closed) => {
            closed.concurrency = (f64::from(closed.concurrency) * share).round().max(1.0) as u32;
        }
        // A trace at a lower rate would be a different trace: rows are left out instead.
        Process::Trace(trace) => trace.transforms.push(format!("thin:{share}")),
        _ => return scaled(arrivals, share).unwrap_or(part),
    }
    part
}
