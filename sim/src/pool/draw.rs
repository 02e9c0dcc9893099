//! The bandwidth and power that a kernel draws: as measured where the profile says so, otherwise
//! derived from its bytes and from the CUs that it keeps busy.

use cotenant_profiles::Device;

use super::shape::PARTS;
use crate::contention::Shared;
use crate::program::KernelCode;
use crate::supply::Supply;

/// L2 utilisation per DRAM utilisation, used where only the latter is known: CNNs and BERT on an RTX
/// 2080 Ti have 0.32 to 0.55 (gpu-lets, ATC 2022, repository data).
const L2_PER_DRAM_PPM: u64 = 500_000;

/// DRAM bandwidth, bytes per microsecond; L2 bandwidth, parts per million; power, mW.
type Drawn = [u64; 3];

/// The power that a device's parts draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Electric {
    /// A busy CU, mW: capped so that all CUs and all of DRAM together stay within the limit, because a
    /// kernel whose power is unknown must never be the cause of throttling.
    cu: u64,
    /// DRAM traffic, picojoules per byte, in thousandths.
    byte: u64,
    /// What the board draws as soon as anything runs, and its limit on the power beyond that, mW.
    base: u64,
    limit: u64,
}

impl Electric {
    pub(super) fn new(device: &Device, supply: &Supply) -> Self {
        let power = &device.power;
        let milli = |x: f64| (x.max(0.0) * 1e3) as u64;
        // 10^9 bytes per second at a picojoule each are a milliwatt.
        let memory = (device.memory.dram_gbps * power.dram_pj_per_byte) as u64;
        let most = supply.limit.saturating_sub(memory) / u64::from(device.cus().max(1));
        Self {
            cu: milli(power.cu_w).min(most),
            byte: milli(power.dram_pj_per_byte),
            base: supply.base,
            limit: supply.limit,
        }
    }
}

impl Electric {
    /// The share of a kernel's power that goes into moving its bytes, 0 to 1.
    pub(super) fn memory(&self, dram: u64, power: u64) -> f64 {
        (dram * self.byte / 1_000_000).min(power) as f64 / power.max(1) as f64
    }
}

/// Work of one launch, so that its draw is inversely proportional to its duration: DRAM bytes in
/// thousandths, L2 in parts per million × ns, energy in picojoules. `None`: not known.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    cus: u32,
    dram: Option<u64>,
    l2: Option<u64>,
    energy: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Draw {
    /// As measured, in ascending order of CUs.
    seen: Vec<Work>,
    dram_bytes: u64,
    electric: Electric,
}

impl Draw {
    pub(super) fn new(kernel: &KernelCode, shared: &Shared, electric: &Electric) -> Self {
        let several = kernel.drawn.len() > 1;
        let seen = kernel.drawn.iter().map(|d| {
            let ns = kernel.at(d.cus);
            let of = |ppm: u32, whole: u64| {
                (u128::from(ppm) * u128::from(whole) * u128::from(ns) / 1_000_000) as u64
            };
            let power = d.milliwatts.map(|mw| u64::from(mw).saturating_sub(electric.base));
            Work {
                cus: d.cus,
                // Measured at only one CU count, the draw follows from the kernel's bytes.
                dram: d.dram_ppm.filter(|_| several).map(|ppm| of(ppm, shared.board)),
                l2: d.l2_ppm.map(|ppm| of(ppm, 1_000_000)),
                energy: power.map(|mw| mw.saturating_mul(ns)),
            }
        });
        Self { seen: seen.collect(), dram_bytes: kernel.dram_bytes, electric: *electric }
    }

    /// The draw on `cus` CUs, where the kernel takes `ns` and uses `speed` of the CUs (in [`PARTS`]).
    #[inline]
    pub(super) fn on(&self, cus: u32, ns: u64, speed: u64, shared: &Shared) -> Drawn {
        let ns = ns.max(1);
        let work = self.work(cus);
        let dram = work.dram.unwrap_or_else(|| self.dram_bytes.saturating_mul(1000)) / ns;
        // Alone, a kernel never draws more bandwidth than the memory system has, whatever its profile
        // says.
        let dram = dram.min(shared.dram);
        let l2 = match work.l2 {
            Some(area) => area / ns,
            None => dram * L2_PER_DRAM_PPM / shared.board.max(1),
        };
        let power = match work.energy {
            Some(energy) => energy / ns,
            // Bytes per microsecond × thousandths of pJ per byte are 10^-6 mW.
            None => {
                speed * self.electric.cu / u64::from(PARTS) + dram * self.electric.byte / 1_000_000
            }
        };
        // Alone, a kernel runs at the clock at which it was profiled.
        [dram, l2.min(shared.l2_rate), power.min(self.electric.limit)]
    }

    fn work(&self, cus: u32) -> Work {
        match self.seen.as_slice() {
            [] => Work::default(),
            [only] => *only,
            many => between(many, cus),
        }
    }
}

/// Interpolates linearly between two CU counts; outside the measured range, uses the nearest count.
fn between(seen: &[Work], cus: u32) -> Work {
    let right = seen.partition_point(|w| w.cus < cus);
    let (Some(a), Some(b)) = (right.checked_sub(1).map(|i| seen[i]), seen.get(right)) else {
        return seen[right.min(seen.len() - 1)];
    };
    let part = |x: Option<u64>, y: Option<u64>| match (x, y) {
        (Some(x), Some(y)) => {
            let (x, y) = (i128::from(x), i128::from(y));
            let (over, of) = (i128::from(cus - a.cus), i128::from(b.cus - a.cus));
            Some((x + ((y - x) * over).div_euclid(of)) as u64)
        }
        (known, None) | (None, known) => known,
    };
    Work { cus, dram: part(a.dram, b.dram), l2: part(a.l2, b.l2), energy: part(a.energy, b.energy) }
}
