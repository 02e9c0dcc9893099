//! `cotenant validate`: simulation and replay on identical arrivals, and how far they are apart.

use clap::Args as ClapArgs;
use cotenant_results::{PlotKind, PlotSpec};

use super::replay::Common;
use crate::cell;
use crate::fail::Done;
use crate::results;
use crate::session::Session;
use crate::validate::{compare, verdict};
use crate::watch::Wants;

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
    let mut session = Session::play(&args.common.ask(), "validate", false)?;
    cell::keep_panics();
    for play in &mut session.plays {
        let slice = &session.slices[play.slice];
        play.simulated = cell::compute(&slice.e, &slice.ready, &play.cell, Wants::default());
    }
    let _ = std::panic::take_hook();
    let mut table = results::header(session.keys());
    for play in &session.plays {
        table.extend(results::rows(&session.slices[play.slice].e, &play.cell, &play.simulated));
    }
    session.folder.put("simulated.csv", &table)?;
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
    session.write()?;
    session.show(&format!("\n{}\n{text}", compare::summary(&rows)))
}
