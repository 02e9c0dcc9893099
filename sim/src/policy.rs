//! Sharing policies: the trait, the options, and the registry.
//!
//! A policy is one file in `policy/`: what it models and what it gives up, its options, its state,
//! its decisions, its tests. It has no clock, no thread and no GPU. To add one, write the file, then
//! add its `mod` line and its line in [`ALL`] below; nothing else names it. What options are made of
//! is in `policy/options.rs`.

use std::sync::{PoisonError, RwLock};

use crate::action::{Action, Event};
use crate::counter::{Count, Counter};
use crate::layout::Layout;
use crate::observe::Observer;
use crate::report::Report;
use crate::scenario::{Scenario, Setup};
use crate::view::View;

mod around;
mod autotune;
mod clipper;
mod coalesce;
mod dnnscaler;
mod dstack;
mod eclip;
mod gslice;
mod hami;
mod ideal;
mod krisp;
mod lithos;
mod mig;
mod mps;
mod mps_percent;
mod mps_static;
mod options;
mod orion;
mod overlap;
mod pd_mux;
mod ranks;
mod reef;
mod serve;
mod streams;
mod tally;
mod temporal;
mod xsched;

pub use crate::layout::{Depth, LayoutError};
pub use around::Around;
pub use options::{
    Kind, OptionError, OptionSpec, OptionType, Options, PerTenant, Places, Value, Words,
};

/// Every policy.
#[rustfmt::skip] // one line each: adding a policy adds a line
pub const ALL: &[&PolicyInfo] = &[
    &temporal::INFO,
    &mps::INFO,
    &mps_percent::INFO,
    &mps_static::INFO,
    &mig::INFO,
    &gslice::INFO,
    &krisp::INFO,
    &eclip::INFO,
    &dstack::INFO,
    &autotune::INFO,
    &dnnscaler::INFO,
    &clipper::INFO,
    &streams::INFO,
    &coalesce::INFO,
    &serve::INFO,
    &overlap::INFO,
    &hami::INFO,
    &orion::INFO,
    &reef::INFO,
    &tally::INFO,
    &lithos::INFO,
    &xsched::INFO,
    &pd_mux::INFO,
    &ideal::INFO,
];

/// Computes what no policy can beat on a scenario.
pub type Bound = fn(Scenario, Option<&mut dyn Observer>) -> Report;

/// Decides; the host acts.
pub trait Policy: Send {
    /// How deep it looks.
    fn depth(&self) -> Depth;

    /// How deep it looks at one tenant, at most [`Self::depth`]: only those whose kernels it launches
    /// cost it a decision at each of them. Below a tenant's depth its streams run free.
    fn tenant_depth(&self, tenant: u32) -> Depth {
        let _ = tenant;
        self.depth()
    }

    /// How many kernels of one stream of a tenant may be outstanding: launched, and not ended. With
    /// more than one it is told of kernels that may follow ([`Event::KernelNext`]).
    fn outstanding(&self, tenant: u32) -> u32 {
        let _ = tenant;
        1
    }

    /// Whether it starts batches itself ([`Action::Dispatch`]); otherwise the host does, when a
    /// batch is full or has waited long enough.
    fn forms_batches(&self) -> bool {
        self.depth() >= Depth::Batch
    }

    /// Where tenants go before the first request.
    ///
    /// # Errors
    /// The device cannot do it (no instance fits, more clients than it admits).
    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError>;

    /// Something happened; `act` takes what to do about it, in order.
    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        let _ = (event, view, act);
    }

    /// A bound instead of decisions: computed from a scenario, never carried out.
    fn bound(&self) -> Option<Bound> {
        None
    }

    /// What it counted, for the results (kernels without a profile, merges…): of the counters that its
    /// registry entry lists, those that its options make count.
    fn counters(&self) -> Vec<Count> {
        vec![]
    }
}

/// A registry entry.
#[derive(Debug)]
pub struct PolicyInfo {
    /// The name that experiment files use.
    pub name: &'static str,
    /// One line: what it does.
    pub summary: &'static str,
    /// Who described it.
    pub source: &'static str,
    /// What it promises; the conformance tests hold it to that.
    pub properties: Properties,
    /// Its options.
    pub options: &'static [OptionSpec],
    /// What it counts.
    pub counters: &'static [Counter],
    /// Makes one from checked options.
    pub build: fn(&Options) -> Result<Box<dyn Policy>, OptionError>,
}

/// Promises that tests check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// No CU idles while a launched kernel could use it.
    pub work_conserving: bool,
    /// A tenant alone runs as if it were isolated.
    pub alone_is_isolated: bool,
    /// Every tenant makes progress whatever the others do: of equal tenants none gets less than four
    /// fifths of the mean, and of unlike ones that always have something waiting none less than a quarter
    /// of its even part. That says nothing of goals: under overload every answer may be late.
    pub starvation_free: bool,
}

impl PolicyInfo {
    /// Whether it is a bound: nothing can carry it out.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        (self.build)(&Options::default()).is_ok_and(|policy| policy.bound().is_some())
    }

    /// The option of that name.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        self.options.iter().find(|o| o.name == name)
    }
}

/// Policies that a program has brought along.
static REGISTERED: RwLock<Vec<&'static PolicyInfo>> = RwLock::new(vec![]);

fn registered() -> Vec<&'static PolicyInfo> {
    REGISTERED.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Makes a program's own policy known by its name, to [`find`] and [`all`].
///
/// # Errors
/// The name is taken; by whom is handed back.
pub fn register(info: &'static PolicyInfo) -> Result<(), &'static PolicyInfo> {
    if let Some(known) = find(info.name) {
        return Err(known);
    }
    REGISTERED.write().unwrap_or_else(PoisonError::into_inner).push(info);
    Ok(())
}

/// Every policy: those of this crate, then those registered.
#[must_use]
pub fn all() -> Vec<&'static PolicyInfo> {
    ALL.iter().copied().chain(registered()).collect()
}

/// The policy of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static PolicyInfo> {
    ALL.iter().copied().chain(registered()).find(|p| p.name == name)
}
