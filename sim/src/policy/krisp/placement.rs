//! Which CUs a kernel gets: the shape of its mask over groups, and the live counters of resident
//! kernels that choose the groups and the CUs. Nothing here allocates after [`Board::new`].

use cotenant_profiles::Device;
use cotenant_profiles::device::DispatchRule;

use crate::mask::CuMask;

/// How a mask of `n` CUs is laid over the groups (the authors' `CU_POLICY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Fills one group before opening the next.
    Packed,
    /// One CU (one step) from each group in turn.
    Distributed,
    /// The fewest groups that hold `n` CUs, evenly filled (`MINSE`).
    Conserved,
}

/// What becomes of a kernel for which too few CUs may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shrink {
    /// It gets what the groups chosen for its full size have.
    Stop,
    /// Groups and CUs are chosen anew, so that an even split over groups wastes none.
    Balance,
}

/// A granted mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) mask: CuMask,
    /// CUs of the mask on which other kernels are resident.
    pub(super) overlap: u32,
}

/// Live counters of resident kernels per CU, kept bit by bit: word-wide operations instead of one
/// per CU.
pub(super) struct Board {
    groups: Vec<CuMask>,
    sizes: Vec<u32>,
    step: u32,
    rule: DispatchRule,
    /// CUs with more than `k` resident kernels.
    above: Vec<CuMask>,
    /// Resident kernels summed over each group's CUs.
    load: Vec<u32>,
    /// Groups by load, then by how many CUs they give.
    order: Vec<u32>,
    quota: Vec<u32>,
    free: Vec<u32>,
}

impl Board {
    /// An idle GPU on which up to `kernels` kernels are resident at once.
    pub(super) fn new(device: &Device, kernels: u32) -> Self {
        let step = device.mask.step_cus.max(1);
        let mut start = 0;
        let mut groups = vec![];
        for &n in &device.topology.groups {
            // CUs that no legal mask reaches are left out.
            let usable = n / step * step;
            groups.push((start..start + usable).collect::<CuMask>());
            start += n;
        }
        let sizes: Vec<u32> = groups.iter().map(CuMask::count).collect();
        let n = groups.len();
        Self {
            groups,
            sizes,
            step,
            rule: device.dispatch.rule,
            above: vec![CuMask::EMPTY; kernels as usize + 1],
            load: vec![0; n],
            order: Vec::with_capacity(n),
            quota: vec![0; n],
            free: vec![0; n],
        }
    }

    /// CUs that masks can name.
    pub(super) fn cus(&self) -> u32 {
        self.sizes.iter().sum()
    }

    /// CUs that decide how fast a kernel is under a mask with so many CUs in each group.
    fn effective(&self, counts: impl Iterator<Item = u32> + Clone) -> u32 {
        match self.rule {
            DispatchRule::LeastLoaded => counts.sum(),
            DispatchRule::EvenGroups => {
                let used = counts.filter(|&c| c > 0);
                used.clone().count() as u32 * used.min().unwrap_or(0)
            }
        }
    }

    /// The same for a mask of `n` CUs on an idle GPU.
    pub(super) fn effective_of(&mut self, shape: Shape, n: u32) -> u32 {
        self.rank(&[]);
        self.lay(shape, n);
        self.effective(self.quota.iter().copied())
    }

    /// A legal number of CUs, at least `n` where there are so many.
    pub(super) fn legal(&self, n: u32) -> u32 {
        n.next_multiple_of(self.step).min(self.cus())
    }

    /// Sorts the groups: least `load` first, then in order of their index.
    fn rank(&mut self, load: &[u32]) {
        self.order.clear();
        self.order.extend(0..self.groups.len() as u32);
        if !load.is_empty() {
            self.order.sort_unstable_by_key(|&g| (load[g as usize], g));
        }
    }

    /// How many CUs each group gives to a mask of `n`, groups in the order of their rank.
    fn lay(&mut self, shape: Shape, n: u32) {
        let Self { order, quota, sizes, step, .. } = self;
        quota.fill(0);
        let mut left = n.min(sizes.iter().sum());
        match shape {
            Shape::Packed => {
                for &g in &*order {
                    let q = left.min(sizes[g as usize]);
                    quota[g as usize] = q;
                    left -= q;
                }
            }
            Shape::Distributed => {
                while left > 0 {
                    for &g in &*order {
                        let more = left.min(*step).min(sizes[g as usize] - quota[g as usize]);
                        quota[g as usize] += more;
                        left -= more;
                    }
                }
            }
            Shape::Conserved => {
                let (mut groups, mut room) = (0, 0);
                while room < left {
                    room += sizes[order[groups] as usize];
                    groups += 1;
                }
                let open = &order[..groups];
                let holds = |each: u32| open.iter().map(|&g| sizes[g as usize].min(each)).sum();
                let mut each = left.div_ceil(groups.max(1) as u32).next_multiple_of(*step);
                // Only where groups differ in size does the smaller one leave more to the others.
                while left > holds(each) {
                    each += *step;
                }
                for &g in open {
                    let q = left.min(each).min(sizes[g as usize]);
                    quota[g as usize] = q;
                    left -= q;
                }
            }
        }
    }

    /// Chooses the CUs of a kernel that asks for `n`, of which at most `limit` may already run other
    /// kernels, and counts it as resident on them. At least one CU (one step) is always granted.
    pub(super) fn acquire(&mut self, n: u32, shape: Shape, limit: u32, shrink: Shrink) -> Grant {
        let load = std::mem::take(&mut self.load);
        self.rank(&load);
        self.load = load;
        self.lay(shape, n);
        let mut mask = self.fill(limit / self.step * self.step);
        if shrink == Shrink::Balance && mask.count() < n {
            mask = self.balanced(n, mask);
        }
        if mask.is_empty() {
            let least = self.order[0] as usize;
            self.quota.fill(0);
            self.quota[least] = self.step;
            mask = self.fill(self.step);
        }
        let overlap = mask.and(&self.above[0]).count();
        self.occupy(&mask);
        Grant { mask, overlap }
    }

    /// Takes each group's quota: CUs with fewest resident kernels first, then in order of their
    /// index, until `limit` of them are not free.
    fn fill(&self, limit: u32) -> CuMask {
        let mut mask = CuMask::EMPTY;
        let mut budget = limit;
        for &g in &self.order {
            let mut left = self.quota[g as usize];
            if left == 0 {
                continue;
            }
            let group = &self.groups[g as usize];
            let free = group.without(&self.above[0]).lowest(left);
            left -= free.count();
            mask = mask.or(&free);
            let mut k = 0;
            while left > 0 && budget > 0 {
                let level = group.and(&self.above[k]).without(&self.above[k + 1]);
                let take = level.lowest(left.min(budget));
                left -= take.count();
                budget -= take.count();
                mask = mask.or(&take);
                k += 1;
            }
        }
        mask
    }

    /// The best mask of at most `n` free CUs under an even split: `g` groups with equally many CUs
    /// each; `plain`, cut to that form, where it is better.
    fn balanced(&mut self, n: u32, plain: CuMask) -> CuMask {
        if self.rule == DispatchRule::LeastLoaded {
            self.quota.copy_from_slice(&self.sizes);
            let free = self.fill(0);
            // Overlap that the limit granted is kept; free CUs elsewhere come on top.
            return plain.or(&free.without(&plain).lowest(n - plain.count()));
        }
        let (groups, each) = self.evenly(n, |b, g| b.groups[g].and(&plain).count());
        let kept = groups * each;
        let (groups, each) = self.evenly(n, |b, g| b.groups[g].without(&b.above[0]).count());
        if groups * each > kept {
            self.take_evenly(groups, each);
            return self.fill(0);
        }
        let (groups, each) = self.evenly(n, |b, g| b.groups[g].and(&plain).count());
        self.take_evenly(groups, each);
        let cut = |g: &u32| self.groups[*g as usize].and(&plain).lowest(self.quota[*g as usize]);
        self.order.iter().map(cut).fold(CuMask::EMPTY, |all, part| all.or(&part))
    }

    /// Ranks the groups by the CUs they `have`, most first, and says how many of them, with how many
    /// CUs each, make the most of at most `n`; fewest groups among equals.
    fn evenly(&mut self, n: u32, have: impl Fn(&Self, usize) -> u32) -> (u32, u32) {
        for g in 0..self.groups.len() {
            self.free[g] = have(self, g);
        }
        let Self { order, free, .. } = self;
        order.sort_unstable_by_key(|&g| (std::cmp::Reverse(free[g as usize]), g));
        let mut best = (0, 0);
        for (i, &g) in order.iter().enumerate() {
            let groups = i as u32 + 1;
            let each = free[g as usize].min(n / groups);
            if groups * each > best.0 * best.1 {
                best = (groups, each);
            }
        }
        best
    }

    fn take_evenly(&mut self, groups: u32, each: u32) {
        self.quota.fill(0);
        for &g in &self.order[..groups as usize] {
            self.quota[g as usize] = each;
        }
    }

    fn occupy(&mut self, mask: &CuMask) {
        assert!(self.above.last() == Some(&CuMask::EMPTY), "room for one more resident kernel");
        for k in (1..self.above.len()).rev() {
            self.above[k] = self.above[k].or(&self.above[k - 1].and(mask));
        }
        self.above[0] = self.above[0].or(mask);
        for (load, group) in self.load.iter_mut().zip(&self.groups) {
            *load += group.and(mask).count();
        }
    }

    /// A kernel is no longer resident on `mask`.
    pub(super) fn release(&mut self, mask: &CuMask) {
        for k in 0..self.above.len() {
            let higher = self.above.get(k + 1).copied().unwrap_or(CuMask::EMPTY);
            self.above[k] = self.above[k].without(&mask.without(&higher));
        }
        for (load, group) in self.load.iter_mut().zip(&self.groups) {
            *load -= group.and(mask).count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Shape::{Conserved, Distributed, Packed};
    use proptest::prelude::*;

    fn board(groups: &[u32], rule: DispatchRule, step: u32, kernels: u32) -> Board {
        let mut device = Device::builtin("mi50").unwrap();
        device.topology.groups = groups.to_vec();
        device.dispatch.rule = rule;
        device.mask.step_cus = step;
        Board::new(&device, kernels)
    }

    fn counts(b: &Board, mask: &CuMask) -> Vec<u32> {
        b.groups.iter().map(|g| g.and(mask).count()).collect()
    }

    /// CUs per shader engine and effective CUs of an MI50, cell by cell.
    #[test]
    fn masks_have_the_shapes_that_the_authors_code_gives_them() {
        type Cell = ([u32; 4], u32);
        #[rustfmt::skip]
        let golden: [(u32, Cell, Cell, Cell); 10] = [
            (8,  ([8, 0, 0, 0], 8),      ([2, 2, 2, 2], 8),      ([8, 0, 0, 0], 8)),
            (15, ([15, 0, 0, 0], 15),    ([4, 4, 4, 3], 12),     ([15, 0, 0, 0], 15)),
            (16, ([15, 1, 0, 0], 2),     ([4, 4, 4, 4], 16),     ([8, 8, 0, 0], 16)),
            (17, ([15, 2, 0, 0], 4),     ([5, 4, 4, 4], 16),     ([9, 8, 0, 0], 16)),
            (20, ([15, 5, 0, 0], 10),    ([5, 5, 5, 5], 20),     ([10, 10, 0, 0], 20)),
            (30, ([15, 15, 0, 0], 30),   ([8, 8, 7, 7], 28),     ([15, 15, 0, 0], 30)),
            (31, ([15, 15, 1, 0], 3),    ([8, 8, 8, 7], 28),     ([11, 11, 9, 0], 27)),
            (45, ([15, 15, 15, 0], 45),  ([12, 11, 11, 11], 44), ([15, 15, 15, 0], 45)),
            (46, ([15, 15, 15, 1], 4),   ([12, 12, 11, 11], 44), ([12, 12, 12, 10], 40)),
            (60, ([15, 15, 15, 15], 60), ([15, 15, 15, 15], 60), ([15, 15, 15, 15], 60)),
        ];
        for (n, packed, distributed, conserved) in golden {
            for (shape, (want, effective)) in
                [(Packed, packed), (Distributed, distributed), (Conserved, conserved)]
            {
                let mut b = board(&[15; 4], DispatchRule::EvenGroups, 1, 1);
                assert_eq!(b.effective_of(shape, n), effective, "{shape:?} {n}");
                let mask = b.acquire(n, shape, 0, Shrink::Stop).mask;
                assert_eq!(counts(&b, &mask), want, "{shape:?} {n}");
                assert_eq!(mask.even_groups(&[15; 4]), effective, "{shape:?} {n}");
            }
        }
    }

    #[test]
    fn groups_of_unequal_size_and_masks_in_steps() {
        // Seven groups of an A100; legal masks are whole pairs of SMs.
        let groups = [16, 16, 16, 16, 16, 14, 14];
        let mut b = board(&groups, DispatchRule::LeastLoaded, 2, 1);
        assert_eq!((b.cus(), b.legal(17), b.legal(200)), (108, 18, 108));
        for (n, want) in [
            (18, [10, 8, 0, 0, 0, 0, 0]),
            (34, [12, 12, 10, 0, 0, 0, 0]),
            (100, [16, 16, 16, 16, 16, 14, 6]),
            (108, groups),
        ] {
            let mask = b.acquire(n, Conserved, 0, Shrink::Stop).mask;
            assert_eq!(counts(&b, &mask), want, "{n}");
            b.release(&mask);
        }
    }

    /// Two engines of four CUs, worked by hand; CU 0 to 3 and 4 to 7.
    #[test]
    fn allocation_on_a_small_gpu_by_hand() {
        let cus = |list: &[u32]| list.iter().copied().collect::<CuMask>();
        let mut b = board(&[4, 4], DispatchRule::EvenGroups, 1, 5);
        let take = |b: &mut Board, n, limit| b.acquire(n, Conserved, limit, Shrink::Stop);
        // Idle: both engines at load 0, the first one; its three lowest CUs.
        let a = take(&mut b, 3, 0);
        assert_eq!((a.mask, a.overlap), (cus(&[0, 1, 2]), 0));
        // The second engine is less loaded.
        let second = take(&mut b, 2, 0);
        assert_eq!((second.mask, second.overlap), (cus(&[4, 5]), 0));
        // Five CUs take two engines, three each: 6 and 7 are free on the second (load 2), 3 on the
        // first (load 3). Without oversubscription it stays at three.
        let third = take(&mut b, 5, 0);
        assert_eq!((third.mask, third.overlap), (cus(&[3, 6, 7]), 0));
        // Nothing is free: one CU all the same, the lowest of the least loaded engine (both 4).
        let fourth = take(&mut b, 4, 0);
        assert_eq!((fourth.mask, fourth.overlap), (cus(&[0]), 1));
        // With all CUs allowed: the second engine (load 4 against 5), whole.
        let fifth = take(&mut b, 4, 8);
        assert_eq!((fifth.mask, fifth.overlap), (cus(&[4, 5, 6, 7]), 4));
        // At the limit: 0, 3 (load 5 against 8) are asked first, CUs with fewest kernels first.
        b.release(&fourth.mask);
        b.release(&a.mask);
        let limited = take(&mut b, 6, 1);
        // First engine: 0, 1, 2 free. Second: one of 4 to 7, which all run two kernels.
        assert_eq!((limited.mask, limited.overlap), (cus(&[0, 1, 2, 4]), 1));
        for grant in [second, third, fifth, limited] {
            b.release(&grant.mask);
        }
        assert!(b.above.iter().all(CuMask::is_empty) && b.load == [0, 0]);
    }

    #[test]
    fn a_shrunk_mask_wastes_nothing_under_an_even_split() {
        let mut b = board(&[15; 4], DispatchRule::EvenGroups, 1, 4);
        // Leaves 2, 9, 15 and 15 CUs free.
        for n in [13, 6] {
            b.acquire(n, Packed, 0, Shrink::Stop);
        }
        let mask = b.acquire(60, Conserved, 0, Shrink::Balance).mask;
        // 2 × 15 beats 4 × 2 and 3 × 9.
        assert_eq!(counts(&b, &mask), [0, 0, 15, 15]);
        b.release(&mask);
        let mask = b.acquire(60, Conserved, 0, Shrink::Stop).mask;
        assert_eq!((counts(&b, &mask), mask.even_groups(&[15; 4])), (vec![2, 9, 15, 15], 8));
    }

    #[test]
    fn a_shrunk_mask_takes_every_free_sm_where_blocks_go_to_the_emptiest() {
        let mut b = board(&[4, 4], DispatchRule::LeastLoaded, 2, 3);
        b.acquire(2, Conserved, 0, Shrink::Stop);
        let mask = b.acquire(8, Conserved, 0, Shrink::Balance).mask;
        assert_eq!(counts(&b, &mask), [2, 4]);
        let last = b.acquire(8, Conserved, 0, Shrink::Balance);
        assert_eq!((last.mask.count(), last.overlap), (2, 2));
    }

    proptest! {
        /// Whatever comes and goes: at least a step, at most what was asked for, no more overlap
        /// than allowed unless nothing is free, counters that add up and return to zero.
        #[test]
        fn counters_and_limits_hold(
            asks in proptest::collection::vec((1u32..70, 0u32..70, 0usize..3, any::<bool>()), 1..40),
            groups in proptest::collection::vec(1u32..12, 1..7),
            even in any::<bool>(), step in 1u32..3, resident in 1usize..6,
        ) {
            let rule = if even { DispatchRule::EvenGroups } else { DispatchRule::LeastLoaded };
            let mut b = board(&groups, rule, step, resident as u32);
            prop_assume!(b.cus() > 0 && b.sizes.iter().all(|&s| s > 0));
            let mut live: Vec<CuMask> = vec![];
            for (n, limit, shape, stop) in asks {
                if live.len() == resident {
                    b.release(&live.remove(0));
                }
                let n = b.legal(n);
                let shape = [Packed, Distributed, Conserved][shape];
                let shrink = if stop { Shrink::Stop } else { Shrink::Balance };
                let free = b.cus() - b.above[0].count();
                let busy = b.above[0];
                let grant = b.acquire(n, shape, limit, shrink);
                let count = grant.mask.count();
                prop_assert!(count >= step && count <= n.max(step));
                prop_assert_eq!(grant.overlap, grant.mask.and(&busy).count());
                prop_assert!(grant.overlap <= limit || count == step && grant.overlap == step);
                if free >= n && matches!(shrink, Shrink::Balance) && rule == DispatchRule::LeastLoaded {
                    prop_assert_eq!(count, n);
                }
                live.push(grant.mask);
                let total: u32 = live.iter().map(CuMask::count).sum();
                prop_assert_eq!(b.load.iter().sum::<u32>(), total);
                for cu in 0..b.groups.iter().flat_map(CuMask::iter).max().unwrap_or(0) {
                    let resident = live.iter().filter(|m| m.contains(cu)).count();
                    let counted = b.above.iter().filter(|m| m.contains(cu)).count();
                    prop_assert_eq!(resident, counted);
                }
            }
        }
    }
}
