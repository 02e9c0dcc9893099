//! `pd-mux`: prefill and decode of one LLM side by side, each on CUs of its own.
//!
//! Models the multiplexing of phases inside one engine: prompts are computed in one stream, sequences
//! that generate in another, both on one copy of the weights and one key-value cache, and green
//! contexts divide the GPU between them while both have something to do. A phase that is alone has the
//! whole GPU. Gives up chunks: a long prompt no longer stretches the steps of sequences that generate,
//! but it takes longer itself.
//!
//! Read in the sources: the divisions leave prefill at least half of the CUs and decode at least 16,
//! prefill in multiples of what a green context can have (H100: 112/20 to 72/60; A100: 84/24 to 54/54);
//! which one follows from the number of sequences that generate, `clamp(n (G - 2) / 36, 1, G - 2)` of
//! `G` groups; it changes only when a prefill begins or ends or when no sequence generates any more.
//! Moving a stream to another context costs an event and a wait.
//!
//! Chosen here, since the sources are silent or the host is another: a change takes effect at a
//! stream's next kernel instead of behind a common barrier; prompts are batched as the engine's rules
//! say. Write `chunked_prefill = false` for prompts that are computed whole, as the sources do. Tenants
//! that do not generate run beside both under MPS, on whatever CUs are free.
//!
//! Source: SGLang 0.5, `srt/multiplex/` and `--enable-pdmux`; MuxWise (ASPLOS 2026), whose static splits
//! are `split = "static"`.

use super::{Depth, LayoutError, Policy, PolicyInfo, Properties};
use crate::action::{Action, Event, Via};
use crate::counter::{Amount, Count};
use crate::layout::{Layout, Role, WorkerSpec};
use crate::mask::CuMask;
use crate::scenario::Setup;
use crate::view::{Status, View};
use crate::{counters, options, words};

/// The registry entry.
pub(super) const INFO: PolicyInfo = PolicyInfo {
    name: "pd-mux",
    summary: "prefill and decode of one LLM on CUs of their own",
    source: "SGLang PD-Mux; MuxWise (ASPLOS 2026)",
    properties: Properties {
        work_conserving: false,
        alone_is_isolated: false,
        starvation_free: true,
    },
    options: Knobs::SPECS,
    counters: PdMux::COUNTERS,
    build: |options| Ok(Box::new(PdMux::new(Knobs::read(options)?))),
};

options! {
    /// Options of `pd-mux`.
    struct Knobs {
        /// the division follows the number of sequences that generate, or is always the same
        split: Split = Split::Adaptive;
        /// with a static split: share of the CUs for decode
        decode_share: f64 = 30.0, within(1.0, 99.0), unit("%");
        /// groups of the adaptive rule, the two with all CUs for one phase included
        groups: u32 = 8, whole(3, 64);
        /// sequences at which the adaptive rule reaches its last division
        divisor: u32 = 36, whole(1, 4096), unit("sequences");
        /// CUs of which prefill has a multiple; not given: the device's step of masks, 8 on Hopper and later
        unit: Option<u32> = None, whole(1, 320), unit("CUs"), unset("the device's");
    }
}

/// How the GPU is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    Adaptive,
    Static,
}

words!(Split { "adaptive" => Split::Adaptive, "static" => Split::Static });

/// Fewest CUs of decode in the adaptive rule (SGLang).
const DECODE_LEAST: u32 = 16;
/// Fewest CUs that a green context has, and multiples of it, where co-scheduling of clusters is kept:
/// compute capability 9.0 and later (CUDA driver API).
const HOPPER_UNIT: u32 = 8;

struct PdMux {
    knobs: Knobs,
    /// The two halves of the generating tenant's worker.
    halves: Option<[u32; 2]>,
    generating: Option<u32>,
    cus: u32,
    /// CUs of prefill in each division, largest first.
    divisions: Vec<u32>,
    /// CUs of prefill while a prefill is under way.
    current: Option<u32>,
    /// By half: the CUs that its stream was last given.
    given: [(u32, u32); 2],
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    switches: u64,
    prefills: u64,
    decodes: u64,
    /// Sum over prefills of their CUs.
    prefill_cus: u64,
}

impl PdMux {
    fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            halves: None,
            generating: None,
            cus: 0,
            divisions: vec![],
            current: None,
            given: [(0, 0); 2],
            counts: Counts::default(),
        }
    }

    /// The unit of green contexts.
    fn unit(&self, setup: &Setup) -> u32 {
        let device = &setup.device;
        let cluster = if device.mask.min_cus == 2 { HOPPER_UNIT } else { 1 };
        self.knobs.unit.unwrap_or(device.mask.step_cus.max(cluster)).max(1)
    }

    /// CUs of prefill in each division, largest first.
    fn divide(&self, unit: u32) -> Vec<u32> {
        let all = self.cus;
        if self.knobs.split == Split::Static {
            let decode = f64::from(all) * self.knobs.decode_share / 100.0;
            let prefill = ((f64::from(all) - decode) as u32 / unit * unit).max(unit);
            return vec![prefill.min(all.saturating_sub(1)).max(1)];
        }
        let most = all.saturating_sub(DECODE_LEAST.min(all / 2));
        let candidates: Vec<u32> =
            (1..=most / unit).map(|i| i * unit).filter(|&p| 2 * p >= all).collect();
        let wanted = self.knobs.groups as usize - 2;
        let stride = (candidates.len() / wanted).max(1);
        let mut divisions: Vec<u32> = candidates.into_iter().step_by(stride).take(wanted).collect();
        divisions.reverse();
        if divisions.is_empty() {
            divisions.push((all / 2).max(1));
        }
        divisions
    }

    /// CUs of prefill while this many sequences generate.
    fn prefill_cus(&self, sequences: u32) -> u32 {
        let n = self.divisions.len() as u32;
        let index = (sequences * n / self.knobs.divisor).clamp(1, n);
        self.divisions[index as usize - 1]
    }

    fn ready(&mut self, worker: u32, view: &View<'_>, act: &mut Vec<Action>) {
        let Some(halves) = self.halves.filter(|h| h.contains(&worker)) else {
            act.push(Action::Launch { worker, mask: None, priority: 0, via: Via::Stream });
            return;
        };
        let half = usize::from(worker == halves[1]);
        let [prefill, decode] = halves.map(|w| &view.workers[w as usize]);
        let [prefills, decodes] = [prefill, decode].map(|w| w.status != Status::Idle);
        let first = view.workers[worker as usize].position == 0;
        if first && half == 0 {
            self.counts.prefills += 1;
            self.current = None;
        } else if first {
            self.counts.decodes += 1;
        }
        if prefills && decodes && self.current.is_none() {
            self.current = Some(self.prefill_cus(decode.items));
        }
        // A phase that runs alone has all CUs.
        let span = match (half, self.current) {
            (0, Some(cus)) if decodes => (0, cus),
            (1, Some(cus)) if prefills => (cus, self.cus),
            _ => (0, self.cus),
        };
        if first && half == 0 {
            self.counts.prefill_cus += u64::from(span.1);
        }
        let moved = std::mem::replace(&mut self.given[half], span) != span;
        self.counts.switches += u64::from(moved);
        let via = if moved { Via::Hop } else { Via::Stream };
        let mask: CuMask = (span.0..span.1).collect();
        act.push(Action::Launch { worker, mask: Some(mask), priority: 0, via });
    }
}

counters! {
    PdMux |mux|
    /// of prompts
    "prefill_steps", unit("steps") = mux.counts.prefills;
    /// of sequences that generate
    "decode_steps", unit("steps") = mux.counts.decodes;
    /// of the CUs that a stream launches on
    "switches", unit("changes") = mux.counts.switches;
    /// at the begin of a prefill, mean
    "prefill_cus_mean", unit("CUs") = Amount::mean(mux.counts.prefill_cus, mux.counts.prefills);
}

impl Policy for PdMux {
    fn depth(&self) -> Depth {
        Depth::Kernel
    }

    fn tenant_depth(&self, tenant: u32) -> Depth {
        if self.generating == Some(tenant) { Depth::Kernel } else { Depth::Layout }
    }

    fn forms_batches(&self) -> bool {
        false
    }

    fn layout(&mut self, setup: &Setup) -> Result<Layout, LayoutError> {
        self.cus = setup.device.cus();
        let mut generating = (0..).zip(&setup.tenants).filter(|(_, t)| t.generates.is_some());
        let one = generating.next();
        if let (Some((_, one)), Some((_, other))) = (one, generating.next()) {
            return Err(LayoutError(format!(
                "pd-mux divides the GPU between the phases of one tenant that generates: `{}` and `{}` do",
                one.name, other.name
            )));
        }
        let mut layout = setup.clients(|_| self.cus)?;
        let Some((tenant, t)) = one else { return Ok(layout) };
        if t.workers != 1 {
            return Err(LayoutError(format!(
                "pd-mux has one engine: `{}` has {} workers",
                t.name, t.workers
            )));
        }
        self.generating = Some(tenant);
        self.divisions = self.divide(self.unit(setup));
        let at = layout.workers.iter().position(|w| w.tenant == tenant);
        let at = at.expect("every tenant has workers");
        layout.workers[at].role = Role::Prefill;
        let decode = WorkerSpec { role: Role::Decode, ..layout.workers[at] };
        layout.workers.insert(at + 1, decode);
        self.halves = Some([at as u32, at as u32 + 1]);
        Ok(layout)
    }

    fn event(&mut self, event: Event, view: &View<'_>, act: &mut Vec<Action>) {
        match event {
            Event::KernelReady { worker } => self.ready(worker, view, act),
            Event::BatchDone { worker, .. } if self.halves.is_some_and(|h| h[0] == worker) => {
                self.current = None;
            }
            _ => {}
        }
    }

    fn counters(&self) -> Vec<Count> {
        self.counted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divisions(cus: u32, unit: u32) -> Vec<u32> {
        let knobs = Knobs::read(&crate::policy::Options::default()).unwrap();
        PdMux { cus, ..PdMux::new(knobs) }.divide(unit)
    }

    #[test]
    fn divisions_are_those_that_were_published() {
        assert_eq!(divisions(132, 8), [112, 104, 96, 88, 80, 72]);
        assert_eq!(divisions(108, 2), [84, 78, 72, 66, 60, 54]);
    }

    #[test]
    fn decode_gets_more_of_them_the_more_sequences_generate() {
        let knobs = Knobs::read(&crate::policy::Options::default()).unwrap();
        let mut mux = PdMux { cus: 132, ..PdMux::new(knobs) };
        mux.divisions = mux.divide(8);
        let decode = |n| 132 - mux.prefill_cus(n);
        assert_eq!([1, 11, 12, 18, 35, 36, 200].map(decode), [20, 20, 28, 36, 52, 60, 60]);
    }
}
