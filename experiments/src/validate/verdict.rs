//! The verdict in words: how far apart, in which order, and which term of the device model is the
//! weakest.

use cotenant_results::Metric;
use cotenant_sim::policy::Depth;

use super::compare::{Row, ranking};
use super::residuals::{Residual, Suspect, explain};
use crate::session::Session;
use crate::study::figures::Figures;
use crate::study::slice::Slice;
use crate::text::rounded;

/// Targets: throughput, median and 99th percentile, percent.
const TARGETS: [(Metric, &str, f64); 3] = [
    (Metric::Throughput, "throughput", 5.0),
    (Metric::LatencyP50, "p50", 8.0),
    (Metric::LatencyP99, "p99", 15.0),
];

/// The text of `verdict.txt`.
pub(crate) fn text(session: &Session, rows: &[Row]) -> String {
    let mut text = String::new();
    if let Some(caution) = session.stage.caution() {
        text += &format!("{caution}.\n");
    }
    for (metric, name, target) in TARGETS {
        let of: Vec<&Row> = rows.iter().filter(|r| r.metric == metric).collect();
        let within = of.iter().filter(|r| r.error.abs() <= target).count();
        let worst = of.iter().max_by(|a, b| a.error.abs().total_cmp(&b.error.abs()));
        if let Some(worst) = worst {
            text += &format!(
                "{name}: {within} of {} within {target} %; worst {:+.2} % ({}, {})\n",
                of.len(),
                worst.error,
                worst.label,
                worst.tenant
            );
        }
    }
    let order = ranking(rows);
    text += &match order.told_apart {
        0 if session.run.seeds.len() < 2 => {
            "ranking: not judged, confidence intervals need at least two repeats\n".to_owned()
        }
        0 => "ranking: the measurement tells no two policies apart\n".to_owned(),
        n => format!(
            "ranking: {} of {n} pairs that the measurement tells apart are in the right order \
             ({:.0} %)\n",
            order.right,
            order.right as f64 / n as f64 * 100.0
        ),
    };
    text + &weakest(&residuals(session))
}

/// Which term the errors follow, and how much there is to explain at all.
fn weakest(residuals: &[Residual]) -> String {
    let n = residuals.len() as f64;
    let rms = |f: &dyn Fn(&Residual) -> f64| {
        (residuals.iter().map(|r| f(r).powi(2)).sum::<f64>() / n.max(1.0)).sqrt()
    };
    let (error, size) = (rms(&|r| r.ms), rms(&|r| r.measured_ms));
    let share = if size > 0.0 { error / size * 100.0 } else { 0.0 };
    let explained = explain(residuals);
    let Some(best) = explained.first() else {
        return "weakest part: none, simulated and measured latencies are equal\n".to_owned();
    };
    let sign = if best.factor > 0.0 { "too little" } else { "too much" };
    let mut text = format!(
        "weakest part of the device model: {}: it explains {:.0} % of the squared errors of mean \
         latency, by charging {sign}; all errors together are {} ms or {share:.1} % of the \
         latencies (root mean square)\n",
        best.suspect.words(),
        best.share * 100.0,
        rounded(Some(error)),
    );
    if best.suspect == Suspect::Driver {
        text += "the dispatcher itself is what the errors follow: run slower, or on a machine with \
                 less to do, before the device model is blamed\n";
    }
    if let Some(next) = explained.get(1).filter(|e| e.share > 0.2) {
        text += &format!("next: {}, {:.0} %\n", next.suspect.words(), next.share * 100.0);
    }
    text
}

/// One residual for each tenant of each cell.
fn residuals(session: &Session) -> Vec<Residual> {
    let mut all = vec![];
    for play in &session.plays {
        let (s, m) = (&play.simulated, &play.measured);
        let Some(lateness) = play.lateness.as_ref().filter(|_| s.is_ok() && m.is_ok()) else {
            continue;
        };
        let Slice { e, ready } = &*session.slices[play.slice];
        let (point, row) = (&e.point, session.slices[play.slice].row(&play.cell));
        let Ok(policy) = (row.info.build)(&row.options) else { continue };
        let deep = policy.depth() == Depth::Kernel;
        let late_ms = |l| lateness.in_run(l, 0.5).map_or(0.0, |l| l.as_millis_f64());
        let (late, seen) = (late_ms(&lateness.arrivals), late_ms(&lateness.completions));
        let get = |o: &Figures, t: usize, metric| o.metrics.get(t).and_then(|x| x.get(metric));
        let whole = point.tenants.len();
        let completed = get(m, whole, Metric::Completed).unwrap_or(0.0).max(1.0);
        let busy_ms = |t: usize| {
            let program = ready.setup.tenants[t].model.program(1);
            let rate = get(s, t, Metric::Completed).unwrap_or(0.0);
            program.remaining_ns[0] as f64 / 1e6 * rate
        };
        let span_ms = point.duration.0 as f64 / 1e6;
        for t in 0..whole {
            let latency = |o| get(o, t, Metric::LatencyMean);
            let (Some(simulated_ms), Some(measured_ms)) = (latency(s), latency(m)) else {
                continue;
            };
            let program = ready.setup.tenants[t].model.program(1);
            let kernels = program.kernels.len() as f64;
            let gpu_ms = program.remaining_ns[0] as f64 / 1e6;
            let others: f64 = (0..whole).filter(|&o| o != t).map(busy_ms).sum();
            let masks = if deep { kernels } else { 0.0 };
            let steps = if deep { kernels } else { 1.0 };
            all.push(Residual {
                ms: measured_ms - simulated_ms,
                measured_ms,
                shape: [
                    gpu_ms,
                    kernels,
                    masks,
                    gpu_ms * (others / span_ms).min(1.0),
                    s.context_switches as f64 / completed,
                    get(m, t, Metric::Downtime).unwrap_or(0.0) / completed,
                    late + steps * seen,
                ],
            });
        }
    }
    all
}
