//! The board's power limit. All kernels on the board share one clock, across hardware instances.

use cotenant_profiles::Device;

use crate::contention::ContentionModel;

/// A board's power limit and the clock that it allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Supply {
    /// The power that kernels may draw together, on top of `base`, mW.
    pub limit: u64,
    /// The power that the board draws as soon as anything runs, mW.
    pub base: u64,
    law: Law,
    /// The upper limit that was set for the clock, as a share of the boost clock.
    ceiling: f64,
}

/// How the clock depends on the power demanded at the boost clock.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    /// Voltage follows the clock, so power grows with the cube of the clock.
    Cube,
    /// The share of the boost clock that is lost per mW above the limit (iGniter).
    Linear(f64),
}

/// The iGniter fit covers a few hundred watts: never below a tenth of the clock.
const LEAST: f64 = 0.1;

impl Supply {
    /// The supply of a device, with the clock law that `contention` implies.
    #[must_use]
    pub fn new(device: &Device, contention: &ContentionModel) -> Self {
        let p = &device.power;
        let milli = |watts: f64| (watts.max(0.0) * 1e3) as u64;
        let base = milli(p.idle_w + p.active_w);
        let law = match contention {
            ContentionModel::Igniter { mhz_per_watt, .. } => {
                Law::Linear(mhz_per_watt / 1e3 / device.clock.boost_mhz)
            }
            _ => Law::Cube,
        };
        let limit = milli(p.cap_w).saturating_sub(base).max(1);
        Self { limit, base, law, ceiling: 1.0 }
    }

    /// The share of the boost clock at which kernels run that would draw `drawn` at the boost clock, mW
    /// above the base.
    #[must_use]
    pub fn clock(&self, drawn: u64) -> f64 {
        self.limited(drawn).min(self.ceiling)
    }

    /// Limits the clock from now on to this share of the boost clock.
    pub fn hold(&mut self, share: f64) {
        self.ceiling = share.min(1.0);
    }

    /// Whether kernels that draw this much run at the boost clock.
    #[inline]
    #[must_use]
    pub fn boosts(&self, drawn: u64) -> bool {
        drawn <= self.limit && self.ceiling >= 1.0
    }

    /// The energy of a kernel's work, relative to that at the boost clock. `longer`: its time relative to
    /// that at the boost clock. `memory`: the part of its power that moves bytes, which costs the same at
    /// any clock. Beyond the limit kernels draw the limit; below it voltage follows the clock.
    #[must_use]
    pub fn heat(&self, clock: f64, drawn: u64, longer: f64, memory: f64) -> f64 {
        let limited = longer * (self.limit as f64 / drawn.max(1) as f64);
        if clock < self.ceiling || self.ceiling >= 1.0 {
            return limited;
        }
        limited.min(memory + (1.0 - memory) * longer * (clock * clock * clock))
    }

    fn limited(&self, drawn: u64) -> f64 {
        if drawn <= self.limit {
            return 1.0;
        }
        match self.law {
            Law::Cube => libm::cbrt(self.limit as f64 / drawn as f64),
            Law::Linear(each) => (1.0 - each * (drawn - self.limit) as f64).max(LEAST),
        }
    }
}

/// The slowdown that a lower clock causes for a kernel that uses the share `dram` (0 to 1) of the DRAM
/// bandwidth: memory has its own clock.
#[inline]
#[must_use]
pub fn throttled(clock: f64, dram: f64) -> f64 {
    1.0 + (1.0 / clock - 1.0) * (1.0 - dram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_saves_what_compute_draws() {
        let device = Device::builtin("a100-sxm-80").unwrap();
        let mut supply = Supply::new(&device, &ContentionModel::None);
        assert!(supply.boosts(supply.limit));
        supply.hold(0.8);
        assert!(!supply.boosts(0) && (supply.clock(0) - 0.8).abs() < 1e-12);
        // Compute alone: 1.25 times as long at 0.512 of the power; bytes alone: the same.
        let heat = |memory| supply.heat(0.8, 1, throttled(0.8, memory), memory);
        assert!((heat(0.0) - 0.64).abs() < 1e-12 && (heat(1.0) - 1.0).abs() < 1e-12);
        // Where the power limit requires an even lower clock, the kernels draw the limit.
        let clock = supply.clock(8 * supply.limit);
        assert!((clock - 0.5).abs() < 1e-12);
        assert!((supply.heat(clock, 8 * supply.limit, 2.0, 0.0) - 0.25).abs() < 1e-12);
        supply.hold(3.0);
        assert!(supply.boosts(supply.limit));
    }

    /// iGniter (TPDS 2023), repository data: two copies of a model at half of a V100 each. Watts of
    /// one alone, and the clock of both, MHz of 1530.
    const PAIRS: [(&str, f64, f64); 4] = [
        ("alexnet", 184.6, 1513.6),
        ("resnet50", 186.8, 1509.4),
        ("vgg19", 206.4, 1409.7),
        ("ssd", 196.8, 1457.8),
    ];

    #[test]
    fn the_clock_of_pairs_on_a_v100() {
        let device = Device::builtin("v100-sxm2-16").unwrap();
        let supply = Supply::new(&device, &ContentionModel::None);
        for (model, watts, measured) in PAIRS {
            let each = (watts * 1e3) as u64 - supply.base;
            let mhz = device.clock.boost_mhz * supply.clock(2 * each);
            assert!((mhz / measured - 1.0).abs() < 0.03, "{model}: {mhz} MHz, not {measured}");
        }
    }

    #[test]
    fn within_the_limit_the_clock_is_the_boost_clock() {
        let device = Device::builtin("h200-sxm").unwrap();
        let supply = Supply::new(&device, &ContentionModel::None);
        assert!(supply.clock(supply.limit) >= 1.0);
        assert!((supply.clock(8 * supply.limit) - 0.5).abs() < 1e-12);
        assert!(throttled(0.5, 0.0) >= 2.0 && throttled(0.5, 1.0) <= 1.0);
    }
}
