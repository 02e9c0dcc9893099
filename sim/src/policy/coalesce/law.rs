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
    /// Time that its batch needs after it, host and GPU, with the guard, ns.
    pub(super) rest_ns: u64,
    /// Of its batch; [`u64::MAX`] if none.
    pub(super) deadline: u64,
    /// Rank among the heads: when it must be launched, alone, for its batch to meet the deadline.
    pub(super) latest: u64,
    /// When it came to the head.
    pub(super) ready: u64,
    /// Since when it has been waiting for partners ([`u64::MAX`]: it is not), and how long it had
    /// waited before that.
    pub(super) since: u64,
    pub(super) waited: u64,
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

/// Settings that decide in addition to the law.
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

/// What was decided about the heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// This many heads at the front of the group become one launch; 1: the first alone.
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
                // The first one must go now, and so goes alone.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Code, KernelCode, Tile};
    use cotenant_profiles::Op;
    use proptest::prelude::*;

    /// One block per CU, `blocks` of them, `wave` ns per wave.
    fn gemm(blocks: u32, wave: u64) -> KernelCode {
        let at = |c: u32| wave * u64::from(blocks.div_ceil(c));
        KernelCode {
            id: "gemm".to_owned(),
            name: "sgemm_128x64".to_owned(),
            op: Op::Gemm,
            duration_ns: std::iter::once(u64::MAX).chain((1..=80).map(at)).collect(),
            want: blocks.min(80),
            blocks: u64::from(blocks),
            threads: 128,
            blocks_per_cu: 1,
            flops: 0,
            dram_bytes: 0,
            fair: false,
            tile: Tile::default(),
            drawn: vec![],
        }
    }

    const RULES: Rules = Rules { gate: true, wave_cap: true, padding: 0.25, max_group: 1024 };

    fn head(worker: u32, kernel: u32, deadline: u64) -> Head {
        Head {
            worker,
            kernel,
            class: 0,
            launch_ns: 56_260,
            rest_ns: 0,
            deadline,
            latest: deadline,
            ready: 0,
            since: u64::MAX,
            waited: 0,
            due: 0,
        }
    }

    fn heads(n: u32) -> Vec<Head> {
        (0..n).map(|w| head(w, 0, u64::MAX)).collect()
    }

    fn workers(group: &[Head]) -> Vec<u32> {
        group.iter().map(|h| h.worker).collect()
    }

    /// Four blocks of 146.4 us on a V100, the GEMM of the published figure; and others beside it.
    fn with_law<T>(kernels: Vec<KernelCode>, f: impl FnOnce(&Law<'_>) -> T) -> T {
        let device = Device::builtin("v100-sxm2-16").unwrap();
        let code = Code::of(kernels);
        f(&Law { kernels: &code.kernels, device: &device, costs: &device.costs })
    }

    #[test]
    fn the_law_by_hand() {
        with_law(vec![gemm(4, 146_400)], |law| {
            // 148 + 2 R + 1.24 × 146.4 us per wave of 20.
            assert_eq!(law.merged_ns(&heads(1)), 150_000 + 181_536);
            assert_eq!(law.merged_ns(&heads(20)), 188_000 + 181_536);
            assert_eq!(law.merged_ns(&heads(21)), 190_000 + 2 * 181_536);
            assert_eq!(law.merged_ns(&heads(118)), 384_000 + 6 * 181_536);
            // The host takes 56.26 us per launch, the GPU keeps up.
            assert_eq!(law.separate_ns(&heads(1)), 56_260 + 146_400);
            assert_eq!(law.separate_ns(&heads(20)), 20 * 56_260 + 146_400);
        });
    }

    #[test]
    fn merging_starts_where_the_law_says_so() {
        with_law(vec![gemm(4, 146_400)], |law| {
            let choose = |n| law.choose(0, &mut heads(n), &RULES);
            // 335.5 us against 258.9 and 337.5 against 315.2; then 339.5 against 371.4.
            for n in [2, 3] {
                assert_eq!(choose(n), Choice { merge: 1, capped: false, refused: true });
            }
            assert_eq!(choose(4), Choice { merge: 4, capped: false, refused: false });
            let always = Rules { gate: false, ..RULES };
            assert_eq!(law.choose(0, &mut heads(2), &always).merge, 2);
        });
    }

    #[test]
    fn a_wave_is_not_opened_for_a_few() {
        with_law(vec![gemm(4, 146_400)], |law| {
            let choose = |n, rules| law.choose(0, &mut heads(n), &rules);
            // 20 and then two alone: 370 + 146 us; all 22 at once: 555 us.
            assert_eq!(choose(22, RULES), Choice { merge: 20, capped: true, refused: false });
            // Twenty more: launched alone they would take the host 1.1 ms.
            assert_eq!(choose(40, RULES).merge, 40);
            assert_eq!(choose(22, Rules { wave_cap: false, ..RULES }).merge, 22);
            assert_eq!(choose(22, Rules { max_group: 8, ..RULES }).merge, 8);
        });
    }

    #[test]
    fn unequal_members_waste_only_so_much() {
        // A block of the second takes twice, one of the third three times as long.
        let kernels = vec![gemm(4, 100_000), gemm(4, 200_000), gemm(4, 300_000)];
        with_law(kernels, |law| {
            let always = Rules { gate: false, ..RULES };
            let mut group = [head(0, 0, u64::MAX), head(1, 2, u64::MAX), head(2, 1, u64::MAX)];
            // 0 with 2 wastes a third, 0 with 1 a quarter: the third goes to the end.
            assert_eq!(law.choose(0, &mut group, &always).merge, 2);
            assert_eq!(workers(&group), [0, 2, 1]);
            let strict = Rules { padding: 0.1, ..always };
            let mut group = [head(0, 0, u64::MAX), head(1, 1, u64::MAX), head(2, 0, u64::MAX)];
            assert_eq!(law.choose(0, &mut group, &strict).merge, 2);
            assert_eq!(workers(&group), [0, 2, 1]);
        });
    }

    #[test]
    fn nobody_is_made_late_by_the_others() {
        with_law(vec![gemm(4, 146_400)], |law| {
            let always = Rules { gate: false, ..RULES };
            // Alone 202.66 us, three merged 335.5 us at least.
            let mut group = [head(0, 0, 900_000), head(1, 0, 250_000), head(2, 0, 400_000)];
            assert_eq!(law.choose(0, &mut group, &always).merge, 2);
            assert_eq!(workers(&group), [0, 2, 1]);
            // The first one is the one in a hurry: alone.
            let mut group = [head(0, 0, 250_000), head(1, 0, 900_000)];
            assert_eq!(law.choose(0, &mut group, &always).merge, 1);
            // Late whatever happens: no reason to leave it out.
            let mut group = [head(0, 0, 900_000), head(1, 0, 150_000)];
            assert_eq!(law.choose(0, &mut group, &always).merge, 2);
        });
    }

    proptest! {
        #[test]
        fn a_choice_keeps_everybody_and_makes_nobody_late(
            heads in prop::collection::vec((0u32..3, 100_000u64..2_000_000, 0u64..300_000), 1..40),
            gate: bool,
            wave_cap: bool,
            padding in 0.0f64..1.0,
        ) {
            let kernels = vec![gemm(4, 146_400), gemm(7, 90_000), gemm(100, 50_000)];
            with_law(kernels, |law| {
                let of = |(i, &(kernel, deadline, rest_ns)): (usize, &(u32, u64, u64))| {
                    Head { rest_ns, ..head(i as u32, kernel, deadline) }
                };
                let mut group: Vec<Head> = heads.iter().enumerate().map(of).collect();
                let rules = Rules { gate, wave_cap, padding, ..RULES };
                let choice = law.choose(0, &mut group, &rules);
                prop_assert!(choice.merge >= 1 && choice.merge <= group.len());
                let mut all = workers(&group);
                prop_assert_eq!(all[0], 0, "the most urgent stays in front");
                all.sort_unstable();
                prop_assert_eq!(all, (0..heads.len() as u32).collect::<Vec<_>>());
                if choice.merge > 1 {
                    let merged = law.merged_ns(&group[..choice.merge]);
                    for h in &group[..choice.merge] {
                        prop_assert!(!law.makes_late(0, h, merged));
                    }
                    if gate && !choice.capped {
                        prop_assert!(merged < law.separate_ns(&group[..choice.merge]));
                    }
                }
                Ok(())
            })?;
        }
    }
}
