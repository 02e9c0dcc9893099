//! Which masks a policy will use: what a GPU takes long to make should be there before the run.

use std::collections::BTreeMap;

use cotenant_sim::action::{Action, Event};
use cotenant_sim::layout::Layout;
use cotenant_sim::policy::{Depth, LayoutError};
use cotenant_sim::scenario::Setup;
use cotenant_sim::view::View;
use cotenant_sim::{CuMask, Policy, Scenario};

use super::workers::Foreseen;

/// A policy whose masks are noted.
struct Watched<'a> {
    policy: &'a mut dyn Policy,
    used: BTreeMap<(u32, CuMask, i8), u64>,
}

impl Policy for Watched<'_> {
    fn depth(&self) -> Depth {
        self.policy.depth()
    }

    fn tenant_depth(&self, tenant: u32) -> Depth {
        self.policy.tenant_depth(tenant)
    }

    fn outstanding(&self, tenant: u32) -> u32 {
        self.policy.outstanding(tenant)
    }

    fn forms_batches(&self) -> bool {
        self.policy.forms_batches()
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.policy.layout(setup)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        self.policy.event(event, view, act);
        for action in act.iter() {
            if let Action::Launch { worker, mask: Some(mask), priority, .. } = action {
                *self.used.entry((*worker, *mask, *priority)).or_default() += 1;
            }
        }
    }
}

/// The masks that `policy` uses most when `scenario` is simulated, `most` of them at most. What it
/// uses on a device comes close to that: the arrivals are the same, and so is the policy.
#[must_use]
pub fn foresee(scenario: Scenario, policy: &mut dyn Policy, most: usize) -> Vec<Foreseen> {
    let mut watched = Watched { policy, used: BTreeMap::new() };
    // What cannot be simulated cannot be replayed either, which says why.
    if cotenant_sim::run(scenario, &mut watched, None).is_err() {
        return vec![];
    }
    let mut all: Vec<_> = watched.used.into_iter().collect();
    all.sort_by_key(|(key, n)| (std::cmp::Reverse(*n), *key));
    all.truncate(most);
    all.into_iter()
        .map(|((worker, mask, priority), _)| Foreseen { worker, mask, priority })
        .collect()
}
