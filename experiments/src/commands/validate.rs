//! `cotenant validate`: simulation and replay on identical arrivals, and how far they are apart.

use clap::Args as ClapArgs;
use cotenant_results::{PlotKind, PlotSpec};

use super::replay::Common;
use crate::fail::{Done, Failure};
use crate::session::Session;
use crate::validate::{compare, verdict};

/// Simulate and replay on identical arrivals, and say how wrong the simulator is
///
/// Policies are the same code on both sides: the difference is the error of the device model. Besides
/// what `replay` writes: validation.csv (error per policy, tenant and metric, with confidence
/// intervals over the repeats), simulated.csv, verdict.txt and a parity plot.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    cotenant validate experiments/quickstart.toml --on cuda:0\n  \
    cotenant validate experiments/quickstart.toml --on emulated --set duration=200ms")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

/// `cotenant validate`.
///
/// # Errors
/// As `replay`'s.
pub(crate) fn run(args: &Args) -> Done {
    compared(args).map_err(Failure::into_failed)
}

fn compared(args: &Args) -> Done {
    let mut session = Session::play(&args.common.ask(true, false))?;
    let rows = compare::rows(&session);
    session.folder.put("validation.csv", &compare::table(&rows))?;
    let text = verdict::text(&session, &rows);
    session.folder.put("verdict.txt", text.as_bytes())?;
    let run = &mut session.run;
    if !run.plots.iter().any(|p| p.kind == PlotKind::Parity) {
        // An empty list stands for the defaults, which stay.
        if run.plots.is_empty() {
            run.plots = PlotSpec::defaults(&run.sweep_keys);
        }
        run.plots.insert(0, PlotSpec::new(PlotKind::Parity));
    }
    session.show(&format!("\n{}\n{text}", compare::summary(&rows)))
}
