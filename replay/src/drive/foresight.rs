//! Predicts which masks a policy will use, so that what a GPU takes long to make is ready before the
//! run.

use std::collections::BTreeMap;

use cotenant_sim::action::Action;
use cotenant_sim::policy::Around;
use cotenant_sim::{CuMask, Policy, Scenario};

use super::workers::Foreseen;

/// The masks that `policy` uses most when `scenario` is simulated, at most `most` of them. Its use on a
/// device comes close to that, since the arrivals and the policy are the same.
#[must_use]
pub fn foresee(scenario: Scenario, policy: &mut dyn Policy, most: usize) -> Vec<Foreseen> {
    let mut used: BTreeMap<(u32, CuMask, i8), u64> = BTreeMap::new();
    let mut watched = Around::new(policy, |policy, event, view, act| {
        policy.event(event, view, act);
        for action in act.iter() {
            if let Action::Launch { worker, mask: Some(mask), priority, .. } = action {
                *used.entry((*worker, *mask, *priority)).or_default() += 1;
            }
        }
    });
    // A scenario that cannot be simulated cannot be replayed either, and the replay reports why.
    if cotenant_sim::run(scenario, &mut watched, None).is_err() {
        return vec![];
    }
    let mut all: Vec<_> = used.into_iter().collect();
    all.sort_by_key(|(key, n)| (std::cmp::Reverse(*n), *key));
    all.truncate(most);
    all.into_iter()
        .map(|((worker, mask, priority), _)| Foreseen { worker, mask, priority })
        .collect()
}
