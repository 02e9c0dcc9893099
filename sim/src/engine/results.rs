//! Results and observers.

use cotenant_profiles::Nanos;
use cotenant_traces::rng::mix;

use super::Engine;
use crate::layout::Discipline;
use crate::observe::Happening;
use crate::pool::{Note, Totals};
use crate::report::{GpuReport, Report};
use crate::view::Status;

impl Engine<'_> {
    /// Tells the observer how grants have changed.
    #[cold]
    pub(super) fn drain_notes(&mut self) {
        let Self { sites, observer: Some(observer), now, .. } = self else { return };
        for (p, site) in sites.iter_mut().enumerate() {
            let (pool, now, busy) = (p as u32, Nanos(*now), site.pool.busy());
            let notes = site.pool.notes();
            if notes.is_empty() && site.spec.discipline != Discipline::Concurrent {
                continue;
            }
            for note in notes.drain(..) {
                let what = match note {
                    Note::Granted { owner, kernel, cus } => {
                        Happening::Granted { worker: owner, kernel, cus }
                    }
                    Note::Switching { lane } => Happening::Switching { pool, lane },
                };
                observer.happened(now, what);
            }
            observer.happened(now, Happening::Busy { pool, cus: busy });
        }
    }

    pub(super) fn open_window(&mut self) {
        self.serving.open_window(Nanos(self.now));
        self.opened = self.totals();
    }

    fn totals(&self) -> Totals {
        self.sites.iter().fold(Totals::default(), |sum, site| sum + site.pool.totals(self.now))
    }

    pub(super) fn report(mut self) -> Report {
        let window = self.end - self.warmup;
        let gpu = GpuReport::of(&self.setup.device, Nanos(window), self.totals() - self.opened);
        // Workers that the end of the run finds down for a resize: down until then.
        for w in self.workers.iter().filter(|w| w.resizing && w.status == Status::Starting) {
            self.serving.stood_still(w.spec.tenant, w.began, Nanos(self.end));
        }
        Report {
            tenants: self.serving.reports(Nanos(self.end)),
            gpu,
            events: self.events,
            digest: mix(self.digest ^ self.events),
            window: Nanos(window),
            counters: self.policy.counters(),
        }
    }
}
