//! Sets of compute units.

/// Words of a mask: up to 320 CUs.
const WORDS: usize = 5;

/// A set of compute units, by index. Groups (GPCs, shader engines) are consecutive: group 0 holds
/// the first CUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CuMask([u64; WORDS]);

impl CuMask {
    /// The most CUs that a mask can name.
    pub const CAPACITY: u32 = 64 * WORDS as u32;

    /// The empty mask.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// The first `n` CUs.
    #[must_use]
    pub fn first(n: u32) -> Self {
        assert!(n <= Self::CAPACITY, "a mask names at most {} CUs", Self::CAPACITY);
        let mut words = [0; WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            let left = n.saturating_sub(64 * i as u32).min(64);
            *word = if left == 64 { u64::MAX } else { (1 << left) - 1 };
        }
        Self(words)
    }

    /// Adds CU `i`.
    #[inline]
    pub fn insert(&mut self, i: u32) {
        self.0[(i / 64) as usize] |= 1 << (i % 64);
    }

    /// Adds the CUs, from `start` on, whose bit is set in `bits`.
    #[inline]
    pub fn insert_bits(&mut self, start: u32, bits: u64) {
        let (word, shift) = ((start / 64) as usize, start % 64);
        self.0[word] |= bits << shift;
        if shift > 0 && word + 1 < WORDS {
            self.0[word + 1] |= bits >> (64 - shift);
        }
    }

    /// One bit for each of the `n` CUs from `start` on, at most 64.
    #[inline]
    #[must_use]
    pub fn bits(&self, start: u32, n: u32) -> u64 {
        let (word, shift) = ((start / 64) as usize, start % 64);
        let mut bits = self.0[word] >> shift;
        if shift > 0 && word + 1 < WORDS {
            bits |= self.0[word + 1] << (64 - shift);
        }
        if n == 0 { 0 } else { bits & u64::MAX >> (64 - n.min(64)) }
    }

    /// Whether it contains CU `i`.
    #[inline]
    #[must_use]
    pub fn contains(&self, i: u32) -> bool {
        self.0[(i / 64) as usize] >> (i % 64) & 1 == 1
    }

    /// The number of CUs.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|&w| count(w)).sum()
    }

    /// Whether it contains no CU.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&w| w == 0)
    }

    /// CUs in both.
    #[inline]
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// CUs in either.
    #[inline]
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// CUs in `self` and not in `other`.
    #[inline]
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// Its `n` lowest CUs, or all of them if there are fewer.
    #[must_use]
    pub fn lowest(&self, n: u32) -> Self {
        self.lowest_counted(n).0
    }

    /// Its `n` lowest CUs, or all of them if there are fewer, and their number.
    #[inline]
    pub(crate) fn lowest_counted(&self, n: u32) -> (Self, u32) {
        let mut left = n;
        let mut out = Self::EMPTY;
        for (from, to) in self.0.iter().zip(&mut out.0) {
            let mut word = *from;
            let count = count(word);
            if count <= left {
                *to = word;
                left -= count;
                continue;
            }
            while left > 0 {
                let bit = word & word.wrapping_neg();
                *to |= bit;
                word ^= bit;
                left -= 1;
            }
            break;
        }
        (out, n - left)
    }

    /// The CU indices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..Self::CAPACITY).filter(|&i| self.contains(i))
    }

    /// At most `n` of its CUs, chosen to make the most of an even split over groups: the same number in
    /// each group used, the fewest groups on a tie, and the lowest CUs of each.
    #[must_use]
    pub fn evenly(&self, n: u32, groups: &[u32]) -> Self {
        let mut have: Vec<Self> = Self::each_group(groups).map(|group| self.and(&group)).collect();
        have.sort_by_key(|group| std::cmp::Reverse(group.count()));
        let (mut opened, mut each) = (0, 0);
        for (k, group) in (1..).zip(&have) {
            let here = group.count().min(n / k);
            if k * here > opened * each {
                (opened, each) = (k, here);
            }
        }
        let used = have[..opened as usize].iter();
        used.fold(Self::EMPTY, |out, group| out.or(&group.lowest(each)))
    }

    /// The groups of consecutive CUs.
    pub(crate) fn each_group(groups: &[u32]) -> impl Iterator<Item = Self> + '_ {
        groups.iter().scan(0, |start, &n| {
            let before = Self::first(*start);
            *start += n;
            Some(Self::first(*start).without(&before))
        })
    }

    /// CUs of the mask within each group of consecutive CUs.
    pub fn per_group<'a>(&'a self, groups: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let mut start = 0;
        groups.iter().map(move |&n| {
            if n <= 64 {
                start += n;
                return self.bits(start - n, n).count_ones();
            }
            let group = Self::first(start + n).without(&Self::first(start));
            start += n;
            self.and(&group).count()
        })
    }

    /// The effective number of CUs when blocks are split evenly over the groups in use: the number of
    /// groups in use times the CUs of the smallest one (the slowest group decides when the kernel ends).
    #[must_use]
    pub fn even_groups(&self, groups: &[u32]) -> u32 {
        let used = self.per_group(groups).filter(|&n| n > 0);
        let (count, least) = used.fold((0, u32::MAX), |(c, l), n| (c + 1, l.min(n)));
        if count == 0 { 0 } else { count * least }
    }
}

/// The number of bits set. Most words of a mask are empty, and not every CPU counts bits in one
/// instruction.
#[inline]
fn count(word: u64) -> u32 {
    if word == 0 { 0 } else { word.count_ones() }
}

impl FromIterator<u32> for CuMask {
    fn from_iter<I: IntoIterator<Item = u32>>(cus: I) -> Self {
        let mut mask = Self::EMPTY;
        cus.into_iter().for_each(|i| mask.insert(i));
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_slowest_group_decides() {
        let groups = [15, 15, 15, 15];
        // 16 CUs packed: one group full, one CU in the next; 16 spread: four in each.
        assert_eq!(CuMask::first(16).even_groups(&groups), 2);
        let spread = (0..4).flat_map(|g| (0..4).map(move |i| g * 15 + i)).collect::<CuMask>();
        assert_eq!(spread.even_groups(&groups), 16);
        assert_eq!(CuMask::EMPTY.even_groups(&groups), 0);
    }

    #[test]
    fn an_even_choice_wastes_no_group() {
        let groups = [13; 8];
        let all = CuMask::first(104);
        // 93 lowest CUs count as 16: seven full groups, two in the eighth.
        assert_eq!(all.lowest(93).even_groups(&groups), 16);
        let even = all.evenly(93, &groups);
        assert_eq!((even.count(), even.even_groups(&groups)), (91, 91));
        // Of one full group and one CU of another: the full one.
        assert_eq!(CuMask::first(14).evenly(14, &groups), CuMask::first(13));
        assert!(all.evenly(0, &groups).is_empty() && CuMask::EMPTY.evenly(5, &groups).is_empty());
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(a in proptest::collection::btree_set(0u32..320, 0..80),
                              b in proptest::collection::btree_set(0u32..320, 0..80), n in 0u32..90) {
            let (ma, mb): (CuMask, CuMask) = (a.iter().copied().collect(), b.iter().copied().collect());
            let set = |m: CuMask| m.iter().collect::<BTreeSet<u32>>();
            prop_assert_eq!(ma.count() as usize, a.len());
            prop_assert_eq!(set(ma.and(&mb)), a.intersection(&b).copied().collect());
            prop_assert_eq!(set(ma.or(&mb)), a.union(&b).copied().collect());
            prop_assert_eq!(set(ma.without(&mb)), a.difference(&b).copied().collect());
            prop_assert_eq!(set(ma.lowest(n)), a.iter().copied().take(n as usize).collect());
            prop_assert_eq!(CuMask::first(n).count(), n);
            let (start, width) = (n * 2, n.min(64));
            let window = ma.bits(start, width);
            let inside = |i: &u32| (start..start + width).contains(i);
            prop_assert_eq!(window.count_ones() as usize, a.iter().copied().filter(inside).count());
            let mut back = CuMask::EMPTY;
            back.insert_bits(start, window);
            prop_assert_eq!(set(back), a.iter().copied().filter(inside).collect());
        }
    }
}
