//! The cost law, and what it chooses: which of the kernels at the heads of streams go into one launch.

use cotenant_profiles::Device;
use cotenant_profiles::device::Costs;

use crate::program::KernelCode;

/// A kernel at the head of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) worker: u32,
    /// Index into the kernels.
    pub(super) kernel: u32,
    /// Its shape class; [`ALONE`] if it never merges.
    pub(super) class: u32,
    /// Host time of launching it alone, ns.
    pub(super) launch_ns: u64,
    /// What its batch needs after it, host and GPU, with the guard, ns.
    pub(super) rest_ns: u64,
    /// Of its batch; [`u64::MAX`] if none.
    pub(super) deadline: u64,
    /// Rank among the heads: when it must be launched, alone, for its batch to meet the deadline.
    pub(super) latest: u64,
    /// When it came to the head.
    pub(super) ready: u64,
    /// When it is launched without further partners.
    pub(super) due: u64,
}

/// The class of kernels that never merge.
pub(super) const ALONE: u32 = u32::MAX;

/// Durations and costs of the device at hand.
#[derive(Clone, Copy)]
pub(super) struct Law<'a> {
    pub(super) kernels: &'a [KernelCode],
    pub(super) device: &'a Device,
    pub(super) costs: &'a Costs,
}

/// What decides besides the law.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    /// Merge only what is predicted to end sooner than separate launches.
    pub(super) gate: bool,
    /// Stop at the wave boundary where that is predicted to end sooner.
    pub(super) wave_cap: bool,
    /// Most of a merged launch's block time that may be padding, as a share.
    pub(super) padding: f64,
    /// Most kernels in one launch.
    pub(super) max_group: usize,
}

/// What became of the heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// The first so many of the group become one launch; 1: the first alone.
    pub(super) merge: usize,
    /// Some were left out because of the wave boundary.
    pub(super) capped: bool,
    /// Separate launches are predicted to end sooner.
    pub(super) refused: bool,
}

impl Law<'_> {
    fn code(&self, head: &Head) -> &KernelCode {
        &self.kernels[head.kernel as usize]
    }

    /// Duration of a kernel alone on the whole GPU, ns.
    pub(super) fn alone_ns(&self, kernel: u32) -> u64 {
        self.kernels[kernel as usize].at(self.device.cus())
    }

    /// Host time of one merged launch of `n` kernels, ns.
    pub(super) fn merge_host_ns(&self, n: usize) -> u64 {
        self.costs.merge_fixed.0 + self.costs.merge_each.0 * n as u64
    }

    /// Time from now until a merged launch of these ends on an idle GPU, ns.
    pub(super) fn merged_ns(&self, group: &[Head]) -> u64 {
        let parts = group.iter().map(|h| self.code(h));
        let gpu = KernelCode::merged_ns(parts, self.device.cus(), self.device, self.costs);
        self.merge_host_ns(group.len()) + gpu
    }

    /// Time until separate launches of these end on an idle GPU, ns: the host issues one after the
    /// other, and they run side by side as far as the CUs go.
    pub(super) fn separate_ns(&self, group: &[Head]) -> u64 {
        let (mut host, mut first, mut longest, mut area) = (0, u64::MAX, 0, 0);
        for h in group {
            let k = self.code(h);
            let alone = k.at(self.device.cus());
            host += h.launch_ns;
            first = first.min(h.launch_ns);
            longest = longest.max(alone);
            area += u64::from(k.want) * k.at(k.want);
        }
        let gpu = longest.max(area / u64::from(self.device.cus()));
        (host + longest).max(first + gpu)
    }

    /// Full or partial waves of these, as the staircase counts them.
    fn waves(&self, blocks: u64, per_cu: u32) -> u64 {
        blocks.div_ceil(u64::from(per_cu) * u64::from(self.device.cus()))
    }

    /// The longest prefix with one wave less; 0 if there is none of two or more.
    fn boundary(&self, group: &[Head]) -> usize {
        let per_cu = self.code(&group[0]).blocks_per_cu;
        let mut blocks: u64 = group.iter().map(|h| self.code(h).blocks).sum();
        let waves = self.waves(blocks, per_cu);
        for n in (2..group.len()).rev() {
            blocks -= self.code(&group[n]).blocks;
            if self.waves(blocks, per_cu) < waves {
                return n;
            }
        }
        0
    }

    /// Whether launching `group` as one, now, makes a member late that would be in time alone.
    fn makes_late(&self, now: u64, head: &Head, merged_ns: u64) -> bool {
        let end = |ns: u64| now.saturating_add(ns).saturating_add(head.rest_ns);
        let alone = head.launch_ns + self.alone_ns(head.kernel);
        head.deadline != u64::MAX && end(alone) <= head.deadline && end(merged_ns) > head.deadline
    }

    /// Orders `group` (heads of one class, the one to launch first in front) and says how many of it
    /// become one launch. Those that would be padded too much, or would be late because of the
    /// others, go to the end.
    pub(super) fn choose(&self, now: u64, group: &mut [Head], rules: &Rules) -> Choice {
        let mut n = self.fit(group, rules);
        while n > 1 {
            let merged = self.merged_ns(&group[..n]);
            match (0..n).find(|&i| self.makes_late(now, &group[i], merged)) {
                // The first must go now: alone, then.
                Some(0) => n = 1,
                Some(i) => {
                    group[i..n].rotate_left(1);
                    n -= 1;
                }
                None => break,
            }
        }
        if n < 2 {
            return Choice { merge: 1, ..Choice::default() };
        }
        let whole = self.merged_ns(&group[..n]);
        let mut choice = Choice { merge: n, ..Choice::default() };
        let mut best = whole;
        let cut = if rules.wave_cap { self.boundary(&group[..n]) } else { 0 };
        if cut > 1 {
            let rest = &group[cut..n];
            let rest_host = rest.iter().map(|h| h.launch_ns).sum::<u64>();
            let rest_gpu = rest.iter().map(|h| self.alone_ns(h.kernel)).max().unwrap_or(0);
            let head = self.merged_ns(&group[..cut]);
            let both = head.max(self.merge_host_ns(cut) + rest_host) + rest_gpu;
            if both < best {
                best = both;
                choice = Choice { merge: cut, capped: true, refused: false };
            }
        }
        if rules.gate && best >= self.separate_ns(&group[..n]) {
            return Choice { merge: 1, capped: false, refused: true };
        }
        choice
    }

    /// Moves to the front those that fit the first one within the bounds on size and padding.
    fn fit(&self, group: &mut [Head], rules: &Rules) -> usize {
        let (mut n, mut blocks, mut work, mut longest) = (0, 0, 0u64, 0u64);
        for i in 0..group.len() {
            if n == rules.max_group {
                break;
            }
            let k = self.code(&group[i]);
            let wave = k.wave_ns();
            let (b, w, l) = (blocks + k.blocks, work + k.blocks * wave, longest.max(wave));
            let waste = 1.0 - w as f64 / (b as f64 * l.max(1) as f64);
            if n > 0 && waste > rules.padding {
                continue;
            }
            (blocks, work, longest) = (b, w, l);
            // Keeps the order of those that fit.
            group[n..=i].rotate_right(1);
            n += 1;
        }
        n
    }
}
