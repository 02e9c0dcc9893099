//! `earliest`: batches by deadline, the policy of `docs/add-a-policy.md`.

use cotenant_profiles::Nanos;
use cotenant_sim::action::{Action, Event};
use cotenant_sim::policy::{Depth, LayoutError, PolicyInfo, Properties};
use cotenant_sim::scenario::Setup;
use cotenant_sim::view::{Queued, View};
use cotenant_sim::{Layout, Policy};

cotenant_sim::options! {
    /// Options of `earliest`.
    struct Earliest {
        /// requests that can no longer make it are given up
        drops: bool = true;
    }
}

pub(crate) static INFO: PolicyInfo = PolicyInfo {
    name: "earliest",
    summary: "batches by deadline",
    source: "Earliest deadline first (Liu and Layland 1973)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: false,
    },
    options: Earliest::SPECS,
    counters: &[],
    build: |options| Ok(Box::new(Earliest::read(options)?)),
};

impl Earliest {
    fn serve(&self, tenant: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let mut queue: Vec<Queued> = view.queue(tenant).collect();
        let model = &view.setup.tenants[tenant as usize].model;
        if self.drops {
            let least = Nanos(model.program(1).remaining_ns[0]);
            queue.retain(|request| {
                let late = view.now + least > request.deadline;
                if late {
                    act.push(Action::Drop { request: request.id, reason: "too late" });
                }
                !late
            });
        }
        queue.sort_by_key(|request| request.deadline);
        let most = view.tenants[tenant as usize].batch_max as usize;
        for (worker, batch) in view.idle(tenant).zip(queue.chunks(most)) {
            let requests = batch.iter().map(|request| request.id).collect();
            act.push(Action::Form { worker, requests });
        }
    }
}

impl Policy for Earliest {
    fn depth(&self) -> Depth {
        Depth::Batch
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        setup.clients(|_| setup.device.cus())
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::RequestArrived { tenant } => self.serve(tenant, view, act),
            Event::BatchDone { worker, .. } | Event::WorkerUp { worker } => {
                self.serve(view.workers[worker as usize].spec.tenant, view, act);
            }
            _ => {}
        }
    }
}
