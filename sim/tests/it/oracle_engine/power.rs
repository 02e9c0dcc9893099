//! What kernels draw of L2 and of the power supply, and the clock that the board's limit leaves.

use cotenant_profiles::Device;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::program::KernelCode;

/// A board's supply in mW.
#[derive(Clone, Copy)]
pub(crate) struct Board {
    /// As soon as anything runs, and at most besides.
    base: u64,
    pub(crate) most: u64,
    cu: u64,
    /// 10^-15 J a byte.
    byte: u64,
}

impl Board {
    pub(crate) fn of(device: &Device) -> Self {
        let p = &device.power;
        let base = ((p.idle_w + p.active_w) * 1e3) as u64;
        let most = ((p.cap_w * 1e3) as u64).saturating_sub(base).max(1);
        let memory = (device.memory.dram_gbps * p.dram_pj_per_byte) as u64;
        // Where nothing is known of kernels, all CUs and all of DRAM stay within the limit.
        let share = most.saturating_sub(memory) / u64::from(device.cus());
        Self {
            base,
            most,
            cu: ((p.cu_w * 1e3) as u64).min(share),
            byte: (p.dram_pj_per_byte * 1e3) as u64,
        }
    }

    /// Of the boost clock, for kernels that would draw so much at it.
    pub(crate) fn clock(&self, device: &Device, model: &ContentionModel, drawn: u64) -> f64 {
        if drawn <= self.most {
            1.0
        } else if let ContentionModel::Igniter { mhz_per_watt, .. } = model {
            let per_mw = mhz_per_watt / 1e3 / device.clock.boost_mhz;
            f64::max(0.1, 1.0 - per_mw * (drawn - self.most) as f64)
        } else {
            libm::cbrt(self.most as f64 / drawn as f64)
        }
    }

    /// Of what a kernel draws, what moves its bytes.
    pub(crate) fn for_bytes(&self, rate: u64, power: u64) -> f64 {
        let bytes = u64::min(rate * self.byte / 1_000_000, power);
        bytes as f64 / u64::max(power, 1) as f64
    }

    /// A kernel's L2 utilisation (of the whole GPU's, parts per million), bytes per microsecond and mW
    /// where it takes so long on so many CUs.
    pub(crate) fn drawn(
        &self,
        kernel: &KernelCode,
        cus: u64,
        ns: u64,
        speed: u64,
        (rate, board, l2): (u64, u64, u64),
    ) -> (u64, u64, u64) {
        let bytes = match seen(kernel, cus, |d| d.dram_ppm, board) {
            Some(work) if kernel.drawn.len() > 1 => work / ns,
            _ => kernel.dram_bytes * 1000 / ns,
        };
        let bytes = bytes.min(rate);
        let cache = match seen(kernel, cus, |d| d.l2_ppm, 1_000_000) {
            Some(work) => work / ns,
            None => bytes * 500_000 / board,
        };
        let above = |mw: u32| u64::from(mw).saturating_sub(self.base);
        let milliwatts = match energy(kernel, cus, above) {
            Some(work) => work / ns,
            None => speed * self.cu / 1024 + bytes * self.byte / 1_000_000,
        };
        (cache.min(l2), bytes, milliwatts.min(self.most))
    }
}

/// A share of something, times how long the kernel takes there, at this count of CUs.
fn seen(
    kernel: &KernelCode,
    cus: u64,
    of: impl Fn(&cotenant_profiles::Drawn) -> Option<u32>,
    whole: u64,
) -> Option<u64> {
    let works: Vec<(u64, Option<u64>)> = kernel
        .drawn
        .iter()
        .map(|d| {
            let ns = u128::from(kernel.duration_ns[d.cus as usize]);
            let work = |ppm: u32| (u128::from(whole) * ns * u128::from(ppm) / 1_000_000) as u64;
            (u64::from(d.cus), of(d).map(work))
        })
        .collect();
    at(&works, cus)
}

fn energy(kernel: &KernelCode, cus: u64, above: impl Fn(u32) -> u64) -> Option<u64> {
    let works: Vec<(u64, Option<u64>)> = kernel
        .drawn
        .iter()
        .map(|d| {
            let ns = kernel.duration_ns[d.cus as usize];
            (u64::from(d.cus), d.milliwatts.map(|mw| above(mw) * ns))
        })
        .collect();
    at(&works, cus)
}

/// On a straight line between two counts; the nearest one's beyond.
fn at(works: &[(u64, Option<u64>)], cus: u64) -> Option<u64> {
    let last = works.last()?;
    if let Some(exact) = works.iter().find(|w| w.0 == cus) {
        let before = works.iter().take_while(|w| w.0 < cus).last();
        return exact.1.or_else(|| before.and_then(|w| w.1));
    }
    if cus < works[0].0 {
        return works[0].1;
    }
    if cus > last.0 {
        return last.1;
    }
    let right = works.iter().position(|w| w.0 > cus).unwrap();
    let (a, b) = (works[right - 1], works[right]);
    match (a.1, b.1) {
        (Some(x), Some(y)) => {
            let rise = (i128::from(y) - i128::from(x)) * i128::from(cus - a.0);
            Some((i128::from(x) + rise.div_euclid(i128::from(b.0 - a.0))) as u64)
        }
        (one, other) => one.or(other),
    }
}
