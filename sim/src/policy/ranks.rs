//! Which workers are urgent, and which take what is left: the common part of the kernel schedulers.

use crate::scenario::{Class, Setup};
use crate::view::{Status, View};

/// Latency-critical workers, and best-effort workers in turn.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    /// By tenant.
    urgent: Vec<bool>,
    /// The best-effort worker that is considered first.
    next: usize,
}

impl Ranks {
    pub(super) fn new(setup: &Setup) -> Self {
        let urgent = setup.tenants.iter().map(|t| t.class == Class::Latency).collect();
        Self { urgent, next: 0 }
    }

    /// Which of `n` workers is considered first: another one every time.
    pub(super) fn turn(&mut self, n: u32) -> u32 {
        let start = self.next;
        self.next = if start + 1 < n as usize { start + 1 } else { 0 };
        start as u32
    }

    /// Whether a worker's tenant is latency-critical.
    pub(super) fn urgent(&self, view: &View<'_>, worker: u32) -> bool {
        self.urgent[view.workers[worker as usize].spec.tenant as usize]
    }

    /// Whether a latency-critical worker has a batch under way.
    pub(super) fn busy(&self, view: &View<'_>) -> bool {
        view.workers.iter().any(|w| {
            let batch = matches!(w.status, Status::Host | Status::Held | Status::Launched);
            batch && self.urgent[w.spec.tenant as usize]
        })
    }

    /// Whether a latency-critical kernel is on the CUs, waits for them, or is held.
    pub(super) fn on_gpu(&self, view: &View<'_>) -> bool {
        view.workers.iter().any(|w| {
            let here = w.status == Status::Held || w.status == Status::Launched && w.cus > 0;
            here && self.urgent[w.spec.tenant as usize]
        })
    }

    /// Whether a latency-critical worker is between the first and the last kernel of a batch.
    pub(super) fn computing(&self, view: &View<'_>) -> bool {
        view.workers.iter().any(|w| {
            let kernels = matches!(w.status, Status::Held | Status::Launched) || w.position > 0;
            kernels && w.status != Status::Idle && self.urgent[w.spec.tenant as usize]
        })
    }

    /// Whether any latency-critical request is in progress or waits.
    pub(super) fn pressed(&self, view: &View<'_>) -> bool {
        let waits = |(t, urgent): (&crate::view::TenantView, &bool)| *urgent && t.queued > 0;
        self.busy(view) || view.tenants.iter().zip(&self.urgent).any(waits)
    }

    /// Whether a tenant is latency-critical.
    pub(super) fn urgent_tenant(&self, tenant: u32) -> bool {
        self.urgent[tenant as usize]
    }

    /// The latency-critical workers whose kernels are on the CUs or wait for them.
    pub(super) fn resident<'a>(&'a self, view: &View<'a>) -> impl Iterator<Item = u32> + 'a {
        let on = |w: &crate::view::Worker| w.status == Status::Launched && w.cus > 0;
        let workers = (0..).zip(view.workers);
        let urgent = workers.filter(move |(_, w)| on(w) && self.urgent[w.spec.tenant as usize]);
        urgent.map(|(i, _)| i)
    }

    /// Best-effort workers with a kernel that may follow those they have launched.
    pub(super) fn followers<'a>(&'a self, view: &View<'a>) -> impl Iterator<Item = u32> + 'a {
        let workers = (0..).zip(view.workers);
        let may = |w: &crate::view::Worker| w.next.is_some();
        let effort = workers.filter(move |(_, w)| may(w) && !self.urgent[w.spec.tenant as usize]);
        effort.map(|(i, _)| i)
    }

    /// Best-effort workers with a kernel that `is`, beginning with another one every time.
    pub(super) fn effort<'a>(
        &mut self,
        view: &View<'a>,
        is: Status,
    ) -> impl Iterator<Item = u32> + use<'a, '_> {
        let (workers, n) = (view.workers, view.workers.len());
        let start = self.turn(n as u32) as usize;
        let urgent = &self.urgent;
        (0..n).map(move |i| (start + i) % n).filter_map(move |i| {
            let w = &workers[i];
            let on = is != Status::Launched || w.cus > 0;
            (w.status == is && on && !urgent[w.spec.tenant as usize]).then_some(i as u32)
        })
    }
}
