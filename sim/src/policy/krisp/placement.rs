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

/// What happens to a kernel for which too few CUs may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shrink {
    /// It gets the usable CUs of the groups chosen for its full size.
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
    /// CUs that it contributes to the mask being laid out.
    quota: u32,
}

/// Bits of a key that hold a group's index.
const INDEX_BITS: u32 = 8;

/// Live counters of resident kernels per CU, one bit per CU and level. Groups are stored side by side,
/// and operations on all of them are branch-free: which CUs are taken is as good as random.
pub(super) struct Board {
    groups: Vec<Group>,
    step: u32,
    cus: u32,
    rule: DispatchRule,
    /// By group, one bit per CU: the CUs there are, the CUs without a kernel, and the CUs chosen for
    /// the mask being laid out.
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

    /// A legal number of CUs, at least `n` if there are that many.
    pub(super) fn legal(&self, n: u32) -> u32 {
        n.next_multiple_of(self.step).min(self.cus)
    }

    /// Sorts the groups by `of`, least first, then by index. There are few groups: counting how many go
    /// before each one takes no branch.
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
            // All CUs, whichever kernels are on them: there is nothing to choose.
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
        // No mask is being laid out now, so this scratch space can hold the mask by group.
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

/// Number of bits set. Many words are empty, and not every CPU counts bits in one instruction.
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
mod tests;
