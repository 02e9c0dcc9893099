//! A policy with a listener: for tests, benches, and look-ahead.

use super::{Bound, Depth, LayoutError, Policy};
use crate::action::{Action, Event};
use crate::counter::Count;
use crate::layout::Layout;
use crate::scenario::Setup;
use crate::view::View;

/// A wrapper around another policy, whose events go through a function that passes them on.
pub struct Around<'a, F> {
    policy: &'a mut dyn Policy,
    event: F,
}

impl<'a, F> Around<'a, F>
where
    F: FnMut(&mut dyn Policy, Event, &View<'_>, &mut Vec<Action>) + Send,
{
    /// Calls `event` in place of [`Policy::event`] of `policy`, and hands it that policy.
    pub fn new(policy: &'a mut dyn Policy, event: F) -> Self {
        Self { policy, event }
    }
}

// Every method of the trait, including those with a default: a wrapper that answers differently would
// be a different policy.
impl<F> Policy for Around<'_, F>
where
    F: FnMut(&mut dyn Policy, Event, &View<'_>, &mut Vec<Action>) + Send,
{
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
        (self.event)(self.policy, event, view, act);
    }

    fn bound(&self) -> Option<Bound> {
        self.policy.bound()
    }

    fn counters(&self) -> Vec<Count> {
        self.policy.counters()
    }
}
