//! How co-running kernels slow each other: kernels on disjoint CUs still share L2 and DRAM.

use cotenant_profiles::Device;

mod pairs;

pub use pairs::Pairs;

/// A contention model. Results name the one that was used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ContentionModel {
    /// Capacity only, which every model includes: kernels take CUs from each other, and share DRAM
    /// bandwidth max-min.
    None,
    /// A penalty when working sets overflow L2.
    Bandwidth {
        /// Slow-down, minus 1, of a fully memory-bound kernel whose L2 share is lost.
        l2_penalty: f64,
    },
    /// A linear function of the pair's L2 and DRAM utilisation (Choi et al., gpu-lets, ATC'22).
    Linear {
        /// Own L2, others' L2, own DRAM, others' DRAM, constant.
        c: [f64; 5],
    },
    /// L2 pressure, launch delay and a clock that falls with the power above the limit (Xu et al.,
    /// iGniter, TPDS'23).
    Igniter {
        /// Growth per unit of the others' L2 utilisation.
        cache: f64,
        /// Extra delay per kernel, ns: slope per co-runner, intercept.
        sched_ns: [f64; 2],
        /// MHz lost per watt above the cap.
        mhz_per_watt: f64,
    },
    /// L2 pressure alone, by measured utilisations.
    Cache {
        /// Growth per unit of the others' L2 utilisation.
        cache: f64,
    },
    /// Measured pairs of kernels (`corun.csv` of the profile); `cache` for missing pairs.
    Measured {
        /// Growth per unit of the others' L2 utilisation.
        cache: f64,
    },
}

/// The names that experiment files use.
pub const NAMES: &[&str] = &["none", "bandwidth", "linear", "igniter", "cache", "measured"];

/// The model of experiments that name none: the one with the smallest error on held-out pairs
/// (docs/accuracy.md).
pub const DEFAULT: &str = "cache";

impl ContentionModel {
    /// The model of this name, with the device's constants.
    #[must_use]
    pub fn from_name(name: &str, device: &Device) -> Option<Self> {
        let c = &device.contention;
        Some(match name {
            "none" => Self::None,
            "bandwidth" => Self::Bandwidth { l2_penalty: c.l2_penalty },
            "linear" => Self::Linear { c: c.linear },
            "igniter" => Self::Igniter {
                cache: c.igniter_cache,
                sched_ns: c.igniter_sched_ns,
                mhz_per_watt: c.igniter_mhz_per_watt,
            },
            "cache" => Self::Cache { cache: c.igniter_cache },
            "measured" => Self::Measured { cache: c.igniter_cache },
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => NAMES[0],
            Self::Bandwidth { .. } => NAMES[1],
            Self::Linear { .. } => NAMES[2],
            Self::Igniter { .. } => NAMES[3],
            Self::Cache { .. } => NAMES[4],
            Self::Measured { .. } => NAMES[5],
        }
    }
}

/// What one running kernel demands of the memory system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Bytes per microsecond while it runs undisturbed on its CUs.
    pub dram: u64,
    /// Bytes that it would keep in L2.
    pub footprint: u64,
    /// Its share of the L2 bandwidth of the whole GPU, parts per million.
    pub l2: u64,
    /// The kernel, as an index into the code.
    pub kernel: u32,
    /// Bytes per microsecond that it asks for while others slow it.
    pub asked: u64,
}

/// The memory system that a pool's kernels share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shared {
    /// DRAM bandwidth, bytes per microsecond.
    pub dram: u64,
    /// DRAM bandwidth of the whole GPU, bytes per microsecond.
    pub board: u64,
    /// L2 bandwidth, in parts per million of that of the whole GPU.
    pub l2_rate: u64,
    /// L2 capacity, bytes.
    pub l2: u64,
}

impl ContentionModel {
    /// Whether no kernel is slowed in a pool with these sums, so that rates need not be computed.
    #[inline]
    pub(crate) fn calm(&self, shared: &Shared, count: usize, dram: u64, footprint: u64) -> bool {
        let calm = match self {
            Self::None => true,
            Self::Bandwidth { .. } => footprint <= shared.l2 || count < 2,
            _ => count < 2,
        };
        calm && dram <= shared.dram
    }

    /// Computes the slowdown of every kernel in `demands`. On entry `slow` holds each kernel's slowdown
    /// from sharing the speed of CUs, at least 1. On return it also includes this model's slowdown and that
    /// from sharing bandwidth. A slowed kernel asks for less bandwidth. The result is a pure function of
    /// the multiset: sums are integers, so order cannot matter.
    pub fn slow_downs(
        &self,
        shared: &Shared,
        pairs: &Pairs,
        demands: &mut [Demand],
        slow: &mut [f64],
    ) {
        self.beyond_capacity(shared, pairs, demands, slow);
        let mut total = 0;
        for (d, &s) in demands.iter_mut().zip(&*slow) {
            d.asked = asked(d, s);
            total += d.asked;
        }
        if total <= shared.dram {
            return;
        }
        let fair = fair_share(shared.dram, demands.iter().map(|d| d.asked));
        for (s, d) in slow.iter_mut().zip(demands) {
            if d.asked > fair {
                *s = s.max(d.dram as f64 / fair as f64);
            }
        }
    }

    fn beyond_capacity(
        &self,
        shared: &Shared,
        pairs: &Pairs,
        demands: &[Demand],
        slow: &mut [f64],
    ) {
        if demands.len() < 2 {
            return;
        }
        let l2: u64 = demands.iter().map(|d| d.l2).sum();
        let crowding = |me: &Demand, cache: f64| 1.0 + cache * ratio(l2 - me.l2, shared.l2_rate);
        match *self {
            Self::None => {}
            Self::Bandwidth { l2_penalty } => {
                let lost = overflow(shared, demands);
                for (s, d) in slow.iter_mut().zip(demands) {
                    *s *= 1.0 + l2_penalty * lost * ratio(asked(d, *s), shared.dram);
                }
            }
            Self::Linear { c } => {
                let total: u64 = demands.iter().map(|d| d.dram).sum();
                for (slow, me) in slow.iter_mut().zip(demands) {
                    let s = c[0] * ratio(me.l2, shared.l2_rate)
                        + c[1] * ratio(l2 - me.l2, shared.l2_rate)
                        + c[2] * ratio(me.dram, shared.dram)
                        + c[3] * ratio(total - me.dram, shared.dram)
                        + c[4];
                    *slow *= s.max(1.0);
                }
            }
            Self::Igniter { cache, .. } | Self::Cache { cache } => {
                for (slow, me) in slow.iter_mut().zip(demands) {
                    *slow *= crowding(me, cache);
                }
            }
            Self::Measured { cache } => {
                let unknown = |other: &Demand| 1.0 + cache * ratio(other.l2, shared.l2_rate);
                let mut order = vec![];
                for (i, slow) in slow.iter_mut().enumerate() {
                    // Pairs were measured on disjoint CUs: sharing CUs comes on top.
                    *slow *= pairs.beside(i, demands, unknown, &mut order);
                }
            }
        }
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    (a as f64 / b as f64).min(1.0)
}

/// The bandwidth that a kernel asks for at this slowdown.
fn asked(demand: &Demand, slow: f64) -> u64 {
    if slow == 1.0 { demand.dram } else { (demand.dram as f64 / slow) as u64 }
}

/// The share of the working sets that L2 can no longer hold, beyond what each kernel loses alone.
fn overflow(shared: &Shared, demands: &[Demand]) -> f64 {
    let footprint: u64 = demands.iter().map(|d| d.footprint).sum();
    if demands.len() > 1 && footprint > shared.l2 {
        1.0 - shared.l2 as f64 / footprint as f64
    } else {
        0.0
    }
}

/// The max-min fair rate: kernels that ask for less get what they ask for, and the others get this rate.
fn fair_share(capacity: u64, demands: impl Iterator<Item = u64> + Clone) -> u64 {
    let mut left = capacity;
    let mut count = demands.clone().count() as u64;
    let mut floor = 0;
    // Each pass settles every kernel whose demand lies between the last level and the new one.
    loop {
        let share = (left / count).max(1);
        let settled = demands.clone().filter(|&d| d > floor && d <= share);
        let (n, sum) = settled.fold((0, 0), |(n, sum), d| (n + 1, sum + d));
        let zero = if floor == 0 { demands.clone().filter(|&d| d == 0).count() as u64 } else { 0 };
        if n + zero == 0 || n + zero == count {
            return share;
        }
        left -= sum;
        count -= n + zero;
        floor = share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Shared { dram: 900_000, board: 900_000, l2_rate: 1_000_000, l2: 6 << 20 }
    }

    fn slow(model: ContentionModel, dram: &[u64]) -> Vec<f64> {
        let mut demands: Vec<_> =
            dram.iter().map(|&dram| Demand { dram, ..Demand::default() }).collect();
        let mut out = vec![1.0; dram.len()];
        model.slow_downs(&shared(), &Pairs::default(), &mut demands, &mut out);
        out
    }

    #[test]
    fn bandwidth_is_shared_max_min() {
        let model = ContentionModel::None;
        assert_eq!(slow(model, &[400_000, 500_000]), [1.0, 1.0]);
        // 100k is below the fair share; the other two split the remaining 800k.
        assert_eq!(slow(model, &[100_000, 800_000, 800_000]), [1.0, 2.0, 2.0]);
        assert_eq!(slow(model, &[0, 900_000, 900_000]), [1.0, 2.0, 2.0]);
    }

    #[test]
    fn who_is_slowed_asks_for_less_bandwidth() {
        let mut demands = [Demand { dram: 800_000, ..Demand::default() }; 2];
        let mut out = [2.0, 1.0];
        ContentionModel::None.slow_downs(&shared(), &Pairs::default(), &mut demands, &mut out);
        // Half of 800k, and what is left of 900k.
        assert_eq!(out, [2.0, 1.6]);
    }

    #[test]
    fn alone_nobody_is_slowed() {
        for name in NAMES {
            let device = Device::builtin("v100-sxm2-16").unwrap();
            let model = ContentionModel::from_name(name, &device).unwrap();
            assert_eq!(slow(model, &[800_000]), [1.0], "{name}");
        }
    }

    #[test]
    fn two_working_sets_that_overflow_l2_slow_each_other() {
        let model = ContentionModel::Bandwidth { l2_penalty: 1.15 };
        let mut demands = [Demand { dram: 450_000, footprint: 6 << 20, ..Demand::default() }; 2];
        let mut out = [1.0; 2];
        model.slow_downs(&shared(), &Pairs::default(), &mut demands, &mut out);
        assert_eq!(out, [1.0 + 1.15 * 0.5 * 0.5; 2]);
    }
}
