//! The choice of the clock: the lowest one that slows no tenant beyond its slip.
//!
//! At a share `f` of the boost clock, a kernel that keeps a part `d` of DRAM's bandwidth busy takes
//! `1 + (1/f − 1) (1 − d)` times as long: memory has a clock of its own. With the mean of `d` over a
//! tenant's kernels, weighted by their time, the lowest clock for a slip is
//! `f = 1 / (1 + (slip − 1) / (1 − d))`.

use crate::scenario::Setup;

/// NVIDIA's clocks come in steps of this many MHz.
const STEP_MHZ: f64 = 15.0;

/// The properties of a kernel that matter to the clock.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// Its time on the whole GPU at the boost clock, ns.
    ns: f64,
    /// The fraction of DRAM bandwidth that it keeps busy.
    dram: f64,
}

/// The work launched since the last choice, and the clock that was chosen.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// By kernel; empty if no clock is to be chosen.
    needs: Vec<Need>,
    /// By tenant: kernel time, and the part of it that DRAM takes.
    seen: Vec<(f64, f64)>,
    boost_mhz: f64,
    slip: f64,
    least: f64,
    /// The clock that was last chosen, MHz.
    chosen: u32,
    pub(super) changes: u64,
}

impl Clock {
    /// A chooser for these kernels: no tenant slower than `slip` times, no clock below `least` of the
    /// boost clock.
    pub(super) fn new(setup: &Setup, slip: f64, least: f64) -> Self {
        let cus = setup.device.cus();
        let need = |k: &crate::program::KernelCode| {
            let ns = k.at(cus).max(1) as f64;
            let bytes = k.dram_bytes as f64 / ns / setup.device.memory.dram_gbps;
            let seen = k.drawn.last().and_then(|d| d.dram_ppm);
            let dram = seen.map_or(bytes, |ppm| f64::from(ppm) / 1e6);
            Need { ns, dram: dram.clamp(0.0, 1.0) }
        };
        let boost_mhz = setup.device.clock.boost_mhz;
        Self {
            needs: setup.code.kernels.iter().map(need).collect(),
            seen: vec![(0.0, 0.0); setup.tenants.len()],
            boost_mhz,
            slip,
            least,
            chosen: boost_mhz as u32,
            changes: 0,
        }
    }

    /// Records that a tenant launches this share of a kernel, or of the rest of it.
    pub(super) fn saw(&mut self, tenant: usize, kernel: u32, share: f64) {
        let Some(need) = self.needs.get(kernel as usize) else { return };
        let (time, dram) = &mut self.seen[tenant];
        *time += need.ns * share;
        *dram += need.ns * share * need.dram;
    }

    /// A new clock, MHz, if another one is better than the current one. If nothing was launched, there
    /// is no basis for a choice.
    pub(super) fn choose(&mut self) -> Option<u32> {
        let mut share = 0.0_f64;
        for (time, dram) in &mut self.seen {
            if *time > 0.0 {
                let compute = (1.0 - *dram / *time).max(1e-9);
                share = share.max(1.0 / (1.0 + (self.slip - 1.0) / compute));
            }
            (*time, *dram) = (0.0, 0.0);
        }
        if share == 0.0 {
            return None;
        }
        let mhz = share.clamp(self.least, 1.0) * self.boost_mhz;
        // Rounds up to the next step; a millionth of a step is rounding error.
        let mhz = (libm::ceil(mhz / STEP_MHZ - 1e-6) * STEP_MHZ).min(self.boost_mhz) as u32;
        if mhz == self.chosen {
            return None;
        }
        self.chosen = mhz;
        self.changes += 1;
        Some(mhz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(needs: Vec<Need>) -> Clock {
        let seen = vec![(0.0, 0.0); 2];
        let (boost_mhz, slip, least, chosen) = (1_500.0, 1.1, 0.6, 1_500);
        Clock { needs, seen, boost_mhz, slip, least, chosen, changes: 0 }
    }

    #[test]
    fn the_most_sensitive_tenant_decides() {
        let needs = vec![Need { ns: 100.0, dram: 0.0 }, Need { ns: 100.0, dram: 0.9 }];
        let mut clock = clock(needs);
        assert_eq!(clock.choose(), None);
        clock.saw(0, 0, 1.0);
        clock.saw(1, 1, 1.0);
        // 1500 / 1.1 = 1363.6, a step up.
        assert_eq!(clock.choose(), Some(1_365));
        clock.saw(1, 0, 1.0);
        assert_eq!(clock.choose(), None);
        // The clock does not affect memory traffic: the lowest clock there is.
        clock.saw(1, 1, 1.0);
        assert_eq!(clock.choose(), Some(900));
        // Half of its time compute, and half bytes that are 0.9 of it: 1 / (1 + 0.1 / 0.55).
        clock.saw(0, 0, 0.5);
        clock.saw(0, 1, 0.5);
        assert_eq!(clock.choose(), Some(1_275));
        assert_eq!(clock.changes, 3);
    }
}
