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
    /// CUs of the mask.
    pub(super) count: u32,
    /// CUs of the mask on which other kernels are resident.
    pub(super) overlap: u32,
}

/// CUs of one group that masks may name.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Index of its first CU.
    start: u32,
    size: u32,
    /// CUs that it gives to the mask being laid out.
    quota: u32,
}

/// Bits of a key that hold a group's index.
const INDEX_BITS: u32 = 8;

/// Live counters of resident kernels per CU, one bit per CU and level. Groups lie side by side, and
/// what is done to all of them is done without branches: which CUs are taken is as good as random.
pub(super) struct Board {
    groups: Vec<Group>,
    step: u32,
    cus: u32,
    rule: DispatchRule,
    /// By group, one bit per CU: those there are, those without a kernel, those chosen for the mask
    /// being laid out.
    all: Vec<u64>,
    free: Vec<u64>,
    chosen: Vec<u64>,
    /// By group: resident kernels summed over its CUs.
    load: Vec<u32>,
    /// CUs of each group with more than `k` resident kernels, level after level.
    above: Vec<u64>,
    /// Levels in use: no CU runs more kernels than this.
    levels: usize,
    /// Groups by rank, least first.
    order: Vec<u32>,
    /// While ranking: rank × 2^8 + index, filled up to whole eights with the largest number.
    keys: Vec<i32>,
}

impl Board {
    /// An idle GPU on which up to `kernels` kernels are resident at once; `None` if its groups have
    /// more CUs than a word has bits, or fewer than a legal mask.
    pub(super) fn new(device: &Device, kernels: u32) -> Option<Self> {
        let step = device.mask.step_cus.max(1);
        let mut start = 0;
        let (mut groups, mut all) = (vec![], vec![]);
        for &n in &device.topology.groups {
            // CUs that no legal mask reaches are left out.
            let size = n / step * step;
            if size > u64::BITS {
                return None;
            }
            all.push(if size == 0 { 0 } else { u64::MAX >> (u64::BITS - size) });
            groups.push(Group { start: if size == 0 { 0 } else { start }, size, quota: 0 });
            start += n;
        }
        let n = groups.len();
        let cus = groups.iter().map(|g| g.size).sum();
        assert!(n < 1 << INDEX_BITS && kernels < 1 << 16, "a group's load and index fit a key");
        Some(Self {
            free: all.clone(),
            chosen: vec![0; n],
            load: vec![0; n],
            above: vec![0; n * (kernels as usize + 1)],
            levels: 0,
            order: (0..n as u32).collect(),
            keys: vec![i32::MAX; n.next_multiple_of(8)],
            groups,
            step,
            cus,
            rule: device.dispatch.rule,
            all,
        })
        .filter(|b| b.cus > 0)
    }

    /// CUs that masks can name.
    pub(super) fn cus(&self) -> u32 {
        self.cus
    }

    /// CUs that decide how fast a kernel is under a mask of `n` CUs, on an idle GPU.
    pub(super) fn effective(&mut self, shape: Shape, n: u32) -> u32 {
        self.lay(shape, n);
        let given = self.groups.iter().map(|g| g.quota).filter(|&q| q > 0);
        match self.rule {
            DispatchRule::LeastLoaded => given.sum(),
            DispatchRule::EvenGroups => {
                given.clone().count() as u32 * given.min().unwrap_or_default()
            }
        }
    }

    /// A legal number of CUs, at least `n` where there are so many.
    pub(super) fn legal(&self, n: u32) -> u32 {
        n.next_multiple_of(self.step).min(self.cus)
    }

    /// Sorts the groups, least `of` first, then in order of their index. They are few: counting who
    /// goes before each takes no branch.
    fn rank(&mut self, of: impl Fn(&Self, usize) -> u32) {
        for g in 0..self.groups.len() {
            self.keys[g] = (of(self, g) << INDEX_BITS) as i32 | g as i32;
        }
        for (g, &key) in self.keys[..self.groups.len()].iter().enumerate() {
            let mut before = 0i32;
            for eight in self.keys.as_chunks::<8>().0 {
                before += eight.iter().fold(0, |n: i32, &k| n.wrapping_add(i32::from(k < key)));
            }
            self.order[before as usize] = g as u32;
        }
    }

    /// The groups by rank.
    fn ranked(order: &[u32]) -> impl Iterator<Item = usize> {
        order.iter().map(|&g| g as usize)
    }

    /// How many CUs each group gives to a mask of `n`, groups in the order of their rank.
    fn lay(&mut self, shape: Shape, n: u32) {
        let Self { order, groups, step, .. } = self;
        for group in groups.iter_mut() {
            group.quota = 0;
        }
        let mut left = n.min(self.cus);
        match shape {
            Shape::Packed => {
                for g in Self::ranked(order) {
                    let group = &mut groups[g];
                    group.quota = left.min(group.size);
                    left -= group.quota;
                }
            }
            Shape::Distributed => {
                while left > 0 {
                    for g in Self::ranked(order) {
                        let group = &mut groups[g];
                        let more = left.min(*step).min(group.size - group.quota);
                        group.quota += more;
                        left -= more;
                    }
                }
            }
            Shape::Conserved => {
                let (mut opened, mut room) = (0, 0);
                while room < left {
                    room += groups[order[opened] as usize].size;
                    opened += 1;
                }
                let open = &order[..opened];
                let mut each = left.div_ceil(opened.max(1) as u32).next_multiple_of(*step);
                // Only where groups differ in size does the smaller one leave more to the others.
                while left > Self::ranked(open).map(|g| groups[g].size.min(each)).sum() {
                    each += *step;
                }
                for g in Self::ranked(open) {
                    let group = &mut groups[g];
                    group.quota = left.min(each).min(group.size);
                    left -= group.quota;
                }
            }
        }
    }

    /// Chooses the CUs of a kernel that asks for `n`, of which at most `limit` may already run other
    /// kernels, and counts it as resident on them. At least one CU (one step) is always granted.
    pub(super) fn acquire(&mut self, n: u32, shape: Shape, limit: u32, shrink: Shrink) -> Grant {
        let limit = limit / self.step * self.step;
        if n >= self.cus && limit >= self.cus {
            // Everything, whoever is there: nothing to choose.
            self.chosen.copy_from_slice(&self.all);
            return self.occupy(self.cus);
        }
        self.rank(|b, g| b.load[g]);
        self.lay(shape, n);
        let mut count = self.fill(limit);
        if shrink == Shrink::Balance && count < n {
            count = self.balance(n, count);
        }
        if count == 0 {
            self.rank(|b, g| b.load[g]);
            for group in &mut self.groups {
                group.quota = 0;
            }
            // Not every group need hold a legal mask.
            let least = Self::ranked(&self.order).find(|&g| self.groups[g].size > 0);
            self.groups[least.expect("masks can name a CU")].quota = self.step;
            count = self.fill(self.step);
        }
        self.occupy(count)
    }

    /// Chooses each group's quota: CUs with fewest resident kernels first, then in order of their
    /// index, until `limit` of them are not free. How many in all.
    fn fill(&mut self, limit: u32) -> u32 {
        let n = self.groups.len();
        let (mut budget, mut count) = (limit, 0);
        for g in Self::ranked(&self.order) {
            let quota = self.groups[g].quota;
            let (mut chosen, taken) = lowest(self.free[g], quota);
            let mut left = quota - taken;
            let mut k = 0;
            while left > 0 && budget > 0 {
                // Those with exactly `k + 1` resident kernels.
                let these = self.above[k * n + g] & !self.above[(k + 1) * n + g];
                let (more, taken) = lowest(these, left.min(budget));
                left -= taken;
                budget -= taken;
                chosen |= more;
                k += 1;
            }
            self.chosen[g] = chosen;
            count += quota - left;
        }
        count
    }

    /// Chooses the best mask of at most `n` CUs from those free and the `count` chosen: under an even
    /// split as many CUs in each of its groups, else as many as there are. How many in all.
    fn balance(&mut self, n: u32, count: u32) -> u32 {
        if self.rule == DispatchRule::LeastLoaded {
            let mut left = n - count;
            for g in Self::ranked(&self.order) {
                let (more, taken) = lowest(self.free[g] & !self.chosen[g], left);
                left -= taken;
                self.chosen[g] |= more;
            }
            return n - left;
        }
        let free = self.evenly(n, |b, g| b.free[g]);
        let kept = self.evenly(n, |b, g| b.chosen[g]);
        let from_free = free.0 * free.1 > kept.0 * kept.1;
        let (opened, each) = if from_free { free } else { kept };
        let usable = |b: &Self, g: usize| if from_free { b.free[g] } else { b.chosen[g] };
        self.rank(|b, g| u64::BITS - usable(b, g).count_ones());
        for i in 0..self.order.len() {
            let g = self.order[i] as usize;
            let quota = if (i as u32) < opened { each } else { 0 };
            self.chosen[g] = lowest(usable(self, g), quota).0;
        }
        opened * each
    }

    /// How many groups, with how many CUs each, make the most of at most `n` where group `g` has
    /// those of `have`; fewest groups among equals.
    fn evenly(&mut self, n: u32, have: impl Fn(&Self, usize) -> u64) -> (u32, u32) {
        self.rank(|b, g| u64::BITS - have(b, g).count_ones());
        let mut best = (0, 0);
        for (opened, g) in (1..).zip(Self::ranked(&self.order)) {
            let each = have(self, g).count_ones().min(n / opened);
            if opened * each > best.0 * best.1 {
                best = (opened, each);
            }
        }
        best
    }

    /// A kernel is resident on the `count` chosen CUs from now on.
    fn occupy(&mut self, count: u32) -> Grant {
        let n = self.groups.len();
        let (mut mask, mut overlap) = (CuMask::EMPTY, 0);
        for (group, &bits) in self.groups.iter().zip(&self.chosen) {
            mask.insert_bits(group.start, bits);
        }
        for (g, &bits) in self.chosen.iter().enumerate() {
            self.load[g] += ones(bits);
            overlap += ones(bits & !self.free[g]);
            self.free[g] &= !bits;
        }
        // What was above a level already rises to the next one.
        let mut rising = count;
        let mut k = 0;
        while rising > 0 {
            rising = 0;
            for (level, bits) in self.above[k * n..][..n].iter_mut().zip(&mut self.chosen) {
                (*level, *bits) = (*level | *bits, *level & *bits);
                rising |= u32::from(*bits != 0);
            }
            k += 1;
        }
        self.levels = self.levels.max(k);
        assert!(n * self.levels < self.above.len(), "room for one more resident kernel");
        Grant { mask, count, overlap }
    }

    /// A kernel is no longer resident on `mask`.
    pub(super) fn release(&mut self, mask: &CuMask) {
        if mask.is_empty() {
            return;
        }
        let n = self.groups.len();
        // Nothing is being chosen now: the mask by group.
        for (bits, group) in self.chosen.iter_mut().zip(&self.groups) {
            *bits = mask.bits(group.start, group.size);
        }
        for (load, bits) in self.load.iter_mut().zip(&self.chosen) {
            *load -= ones(*bits);
        }
        for k in 0..self.levels {
            let (level, higher) = self.above[k * n..][..2 * n].split_at_mut(n);
            for ((level, higher), bits) in level.iter_mut().zip(higher).zip(&self.chosen) {
                *level &= !bits | *higher;
            }
        }
        for ((free, all), busy) in self.free.iter_mut().zip(&self.all).zip(&self.above) {
            *free = all & !busy;
        }
        while self.levels > 0
            && self.above[(self.levels - 1) * n..][..n].iter().fold(0, |any, l| any | l) == 0
        {
            self.levels -= 1;
        }
    }
}

/// Bits set. Many words are empty, and not every CPU counts bits in one instruction.
fn ones(bits: u64) -> u32 {
    if bits == 0 { 0 } else { bits.count_ones() }
}

/// The `n` lowest bits that are set, or all of them if there are fewer, and how many these are.
fn lowest(bits: u64, n: u32) -> (u64, u32) {
    if bits == 0 || n == 0 {
        return (0, 0);
    }
    let count = bits.count_ones();
    if count <= n {
        return (bits, count);
    }
    // One after the other they would end here; every gap between them moves the end.
    let mut end = bits.trailing_zeros() + n;
    loop {
        let low = bits & ((1 << end) - 1);
        let missing = n - low.count_ones();
        if missing == 0 {
            return (low, n);
        }
        end += missing;
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
        Board::new(&device, kernels).unwrap()
    }

    fn counts(b: &Board, mask: &CuMask) -> Vec<u32> {
        b.groups.iter().map(|g| mask.bits(g.start, g.size).count_ones()).collect()
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
                assert_eq!(b.effective(shape, n), effective, "{shape:?} {n}");
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
        assert!(b.above.iter().all(|&level| level == 0) && b.levels == 0);
        assert!(b.load == [0, 0] && b.free == [0b1111, 0b1111]);
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
            let groups: Vec<u32> = groups.iter().map(|g| g * step).collect();
            let mut b = board(&groups, rule, step, resident as u32);
            let mut live: Vec<CuMask> = vec![];
            for (n, limit, shape, stop) in asks {
                if live.len() == resident {
                    b.release(&live.remove(0));
                }
                let n = b.legal(n);
                let shape = [Packed, Distributed, Conserved][shape];
                let shrink = if stop { Shrink::Stop } else { Shrink::Balance };
                let busy = live.iter().fold(CuMask::EMPTY, |all, m| all.or(m));
                let free = b.cus() - busy.count();
                let grant = b.acquire(n, shape, limit, shrink);
                let count = grant.mask.count();
                prop_assert_eq!(grant.count, count);
                prop_assert!(count >= step && count <= n.max(step));
                prop_assert_eq!(grant.overlap, grant.mask.and(&busy).count());
                prop_assert!(grant.overlap <= limit || count == step && grant.overlap == step);
                if free >= n && matches!(shrink, Shrink::Balance) && rule == DispatchRule::LeastLoaded {
                    prop_assert_eq!(count, n);
                }
                live.push(grant.mask);
                let total: u32 = live.iter().map(CuMask::count).sum();
                prop_assert_eq!(b.load.iter().sum::<u32>(), total);
                for (g, group) in b.groups.iter().enumerate() {
                    for i in 0..group.size {
                        let resident = live.iter().filter(|m| m.contains(group.start + i)).count();
                        let levels = (0..=live.len()).map(|k| b.above[k * b.groups.len() + g]);
                        let counted = levels.filter(|l| l >> i & 1 == 1).count();
                        prop_assert_eq!(resident, counted);
                        prop_assert_eq!(resident == 0, b.free[g] >> i & 1 == 1);
                    }
                }
            }
        }
    }
}
