//! The report.

use cotenant_profiles::Nanos;

use super::{Host, World};
use crate::pool::Used;
use crate::report::{GpuReport, Report};
use crate::view::Status;

impl<W: World> Host<'_, W> {
    pub(super) fn report(&mut self) -> Report {
        self.world.catch_up();
        let (world, end) = (&self.world, Nanos(self.world.now()));
        if self.cut {
            self.window = end.since(self.warmup);
        }
        // Workers still down for a resize when the run ends count as down until the end.
        for w in self.workers.iter().filter(|w| w.resizing && w.status == Status::Starting) {
            self.serving.stood_still(w.spec.tenant, w.began, end);
        }
        let device = &self.setup.device;
        let gpu = world
            .used()
            .map_or(GpuReport::UNKNOWN, |used| GpuReport::of(device, self.window, used));
        let mut counters = self.policy.counters();
        counters.extend(world.counters());
        let mut tenants = self.serving.reports(end);
        let used = world.used_by_tenant();
        if !used.is_empty() {
            // A tenant that never launched a kernel has used nothing.
            let all = used.into_iter().chain(std::iter::repeat(Used::default()));
            tenants.iter_mut().zip(all).for_each(|(tenant, used)| tenant.used = Some(used));
        }
        Report {
            tenants,
            gpu,
            events: world.events(),
            digest: world.digest(),
            window: self.window,
            counters,
            cut: self.cut.then_some(end),
        }
    }
}
