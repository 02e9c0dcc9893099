//! Checks one experiment from a text, in memory: for fuzzing, which calls it a million times, and for
//! programs that write experiments.

use std::cell::RefCell;
use std::path::PathBuf;

use cotenant_profiles::Bytes;

use crate::budget::Budget;
use crate::cell;
use crate::config::{Grid, Overrides};
use crate::plan;
use crate::prepare::Preparer;
use crate::text::count;
use crate::watch::Wants;

/// Most points to check: the first ones stand for the rest.
const POINTS: usize = 3;
/// Memory of the cell that is computed.
const MEMORY: Bytes = Bytes(1 << 30);
/// Number of experiments after which the cached profiles are dropped.
const KEPT: u32 = 500;

thread_local! {
    /// Profiles that were read or computed, and the number of experiments that have used them.
    static KNOWN: RefCell<(Preparer, u32)> = RefCell::default();
}

/// Checks an experiment: reads the text, prepares its first points, lays the tenants out as each policy
/// would, and computes the first cell, if it has at most about `events` events.
///
/// Returns the number of points and policies, and how the first cell ended. The first call fixes `events` for
/// the whole process. Paths in the text are relative to the working directory.
///
/// # Errors
/// The messages that `cotenant run` would print for the text, line by line.
///
/// # Example
/// ```
/// let text = r#"
/// name = "one"
/// device = "a100-sxm-80"
/// duration = "10ms"
/// [[tenant]]
/// name = "vision"
/// model = "resnet50"
/// arrivals = { kind = "poisson", rate = 100.0 }
/// [[policy]]
/// name = "mps"
/// "#;
/// assert_eq!(cotenant::inspect(text, 1e6).unwrap(), "1 point, 1 policy: ok");
/// assert!(cotenant::inspect("name = 1", 1e6).is_err());
/// ```
pub fn inspect(text: &str, events: f64) -> Result<String, String> {
    Budget::new(Some(MEMORY), Some(events), 1).set();
    let grid = Grid::parse(text, "experiment", PathBuf::new(), &Overrides::default())?;
    KNOWN.with_borrow_mut(|(preparer, uses)| {
        *uses += 1;
        if *uses > KEPT {
            (*preparer, *uses) = (Preparer::default(), 1);
        }
        through(&grid, preparer)
    })
}

fn through(grid: &Grid, preparer: &mut Preparer) -> Result<String, String> {
    let mut first = None;
    for p in 0..grid.len().min(POINTS) {
        let e = grid.at(p)?;
        let point = &e.point;
        let ready = preparer.facts(&e, point)?.compile(&e.base, point)?;
        for policy in &point.policies {
            for (_, setup, _) in ready.each_gpu() {
                let mut built = (policy.info.build)(&policy.options).map_err(|e| e.to_string())?;
                // An impossible layout is a failure of the cell.
                let _ = built.layout(setup);
            }
        }
        if p == 0 {
            let cell = plan::cell(&e, &ready.meaning, 0);
            let outcome = cell::compute(&e, &ready, &cell, Wants::default());
            first = Some((point.policies.len(), outcome.status));
        }
    }
    let (policies, status) = first.ok_or("no point")?;
    let policies =
        if policies == 1 { "1 policy".to_owned() } else { format!("{policies} policies") };
    Ok(format!("{}, {policies}: {status}", count(grid.len(), "point")))
}
