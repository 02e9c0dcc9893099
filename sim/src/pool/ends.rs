//! The instants at which the residents of a pool end, stored side by side. The first one is found
//! without a data-dependent branch, because which kernel ends next is as good as random.

use std::hint::select_unpredictable;

use super::NEVER;

/// Entries compared together: a pool rarely has more residents, and then no loop is needed.
const LANES: usize = 8;

/// Blocks compared together where there are more residents.
const GROUP: usize = 16;

/// Later than any event: 2^61 ns are 73 years.
const LAST: u64 = NEVER >> 3;

/// The instants of eight residents.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Instant × 8 + position within the block, so that the smallest key also identifies its resident.
    /// Instants from [`LAST`] on are treated as equal.
    keys: [u64; LANES],
    /// The low halves of the instants once more: comparing half the bits is enough to detect possible
    /// ties, and the vector instructions of every CPU can do it.
    low: [u32; LANES],
    /// The earliest of them when several blocks were last searched; valid unless an instant was set
    /// since (`stale`).
    cached: First,
    stale: bool,
}

/// Instants, indexed by resident.
#[derive(Debug, Default)]
pub(super) struct Ends {
    blocks: Vec<Block>,
    /// The earliest of each [`GROUP`] blocks; empty while one such group is enough.
    groups: Vec<Group>,
    len: usize,
}

/// The earliest of some blocks when they were last searched; valid unless an instant was set since.
#[derive(Clone, Copy, Debug)]
struct Group {
    cached: First,
    stale: bool,
}

/// The earliest instant, and the resident that ends then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) at: u64,
    pub(super) index: usize,
    /// Other residents may end at the same instant; never false if one does.
    pub(super) tie: bool,
}

#[inline]
fn min(a: u64, b: u64) -> u64 {
    select_unpredictable(b < a, b, a)
}

impl Block {
    const EMPTY: Self = Self {
        keys: [NEVER; LANES],
        low: [NEVER as u32; LANES],
        cached: First { at: NEVER, index: 0, tie: false },
        stale: true,
    };

    #[inline]
    fn set(&mut self, lane: usize, at: u64) {
        self.keys[lane] = min(at, LAST) << 3 | lane as u64;
        self.low[lane] = at as u32;
        self.stale = true;
    }

    /// The instant of a key.
    #[inline]
    fn at(key: u64) -> u64 {
        if key >> 3 == LAST { NEVER } else { key >> 3 }
    }

    /// If the instant is [`NEVER`], the index means nothing.
    #[inline]
    fn first(&self) -> First {
        let k = &self.keys;
        let halves = [min(min(k[0], k[1]), min(k[2], k[3])), min(min(k[4], k[5]), min(k[6], k[7]))];
        let least = min(halves[0], halves[1]);
        let at = Self::at(least);
        let same: u32 = self.low.iter().map(|&low| u32::from(low == at as u32)).sum();
        First { at, index: (least & 7) as usize, tie: same > 1 }
    }
}

impl Ends {
    #[inline]
    pub(super) fn push(&mut self, at: u64) {
        if self.len == self.blocks.len() * LANES {
            self.blocks.push(Block::EMPTY);
            self.regroup();
        }
        self.len += 1;
        self.set(self.len - 1, at);
    }

    #[inline]
    pub(super) fn set(&mut self, i: usize, at: u64) {
        debug_assert!(i < self.len);
        self.blocks[i / LANES].set(i % LANES, at);
        if let Some(group) = self.groups.get_mut(i / (LANES * GROUP)) {
            group.stale = true;
        }
    }

    /// A block was added or removed at the back.
    #[cold]
    fn regroup(&mut self) {
        let groups = self.blocks.len().div_ceil(GROUP);
        let stale = Group { cached: Block::EMPTY.cached, stale: true };
        self.groups.resize(if groups > 1 { groups } else { 0 }, stale);
        if let Some(last) = self.groups.last_mut() {
            last.stale = true;
        }
    }

    #[inline]
    pub(super) fn get(&self, i: usize) -> u64 {
        Block::at(self.blocks[i / LANES].keys[i % LANES])
    }

    /// Removes entry `i`; the last one takes its place.
    #[inline]
    pub(super) fn swap_remove(&mut self, i: usize) {
        self.set(i, self.get(self.len - 1));
        self.set(self.len - 1, NEVER);
        self.len -= 1;
        if self.len + LANES < self.blocks.len() * LANES {
            self.blocks.pop();
            self.regroup();
        }
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.groups.clear();
        self.len = 0;
    }

    /// The earliest of all; at [`NEVER`] if no resident ends.
    #[inline]
    pub(super) fn first(&mut self) -> First {
        match self.blocks.as_mut_slice() {
            [] => First { at: NEVER, index: 0, tie: false },
            [block] => block.first(),
            blocks if self.groups.is_empty() => Self::first_of(blocks),
            blocks => Self::first_of_groups(&mut self.groups, blocks),
        }
    }

    #[inline(never)]
    fn first_of_groups(groups: &mut [Group], blocks: &mut [Block]) -> First {
        let mut first = First { at: NEVER, index: 0, tie: false };
        for (g, (group, blocks)) in groups.iter_mut().zip(blocks.chunks_mut(GROUP)).enumerate() {
            if group.stale {
                *group = Group { cached: Self::first_of(blocks), stale: false };
            }
            let here = group.cached;
            if here.at < first.at {
                first = First { index: g * GROUP * LANES + here.index, ..here };
            } else if here.at == first.at {
                first.tie = true;
            }
        }
        first
    }

    #[inline(never)]
    fn first_of(blocks: &mut [Block]) -> First {
        let mut first = First { at: NEVER, index: 0, tie: false };
        for (b, block) in blocks.iter_mut().enumerate() {
            if block.stale {
                (block.cached, block.stale) = (block.first(), false);
            }
            let here = block.cached;
            if here.at < first.at {
                first = First { index: b * LANES + here.index, ..here };
            } else if here.at == first.at {
                first.tie = true;
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_the_least_and_knows_of_ties(
            many in 0usize..400,
            ops in proptest::collection::vec((0u8..3, 0usize..400, 0u64..12), 1..120)
        ) {
            let (mut ends, mut plain) = (Ends::default(), Vec::<u64>::new());
            // Up to several groups of blocks; the instants of these entries are later than all others.
            for i in 0..many as u64 {
                ends.push(1000 + i);
                plain.push(1000 + i);
            }
            for (op, i, at) in ops {
                let at = if at == 11 { NEVER } else { at };
                match (op, plain.is_empty()) {
                    (0, _) | (_, true) => {
                        ends.push(at);
                        plain.push(at);
                    }
                    (1, _) => {
                        ends.set(i % plain.len(), at);
                        let n = plain.len();
                        plain[i % n] = at;
                    }
                    _ => {
                        ends.swap_remove(i % plain.len());
                        plain.swap_remove(i % plain.len());
                    }
                }
                let first = ends.first();
                let least = plain.iter().copied().min().unwrap_or(NEVER);
                prop_assert_eq!(first.at, least);
                if least != NEVER {
                    prop_assert_eq!(plain[first.index], least);
                    let many = plain.iter().filter(|&&a| a == least).count() > 1;
                    // The low halves of these instants differ whenever the instants do, so ties are
                    // exact.
                    prop_assert_eq!(first.tie, many);
                }
            }
        }
    }
}
