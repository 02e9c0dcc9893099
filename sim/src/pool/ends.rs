//! When each resident of a pool ends, side by side, so that the first is found without a branch that
//! depends on the data: which kernel ends next is as good as random.

use std::hint::select_unpredictable;

use super::NEVER;

/// Entries looked at together: a pool rarely has more residents, and then there is no loop.
const LANES: usize = 8;

/// Blocks looked at together where there are more.
const GROUP: usize = 16;

/// What is later never comes: 2^61 ns are 73 years.
const LAST: u64 = NEVER >> 3;

/// Instants of eight residents.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Instant × 8 + place within the block, so that the least one says whose it is. From [`LAST`]
    /// on instants are all the same.
    keys: [u64; LANES],
    /// The low halves of the instants again: whether two are equal is a question for half the bits,
    /// which vector instructions of every CPU answer.
    low: [u32; LANES],
    /// The earliest of them as of the last look among several blocks, unless an instant was set
    /// since.
    cached: First,
    stale: bool,
}

/// Instants by resident.
#[derive(Debug, Default)]
pub(super) struct Ends {
    blocks: Vec<Block>,
    /// The earliest of each [`GROUP`] blocks; none while there is one such group at most.
    groups: Vec<Group>,
    len: usize,
}

/// The earliest of some blocks as of the last look, unless an instant was set since.
#[derive(Clone, Copy, Debug)]
struct Group {
    cached: First,
    stale: bool,
}

/// The earliest instant, and who ends then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) at: u64,
    pub(super) index: usize,
    /// Others may end at the same instant; never false if somebody does.
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

    /// At [`NEVER`] the index means nothing.
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

    /// There is a block more or less, behind the others.
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

    /// The earliest of all; at [`NEVER`] if nobody ends.
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
            // Up to several groups of blocks; those that are there come after all others.
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
                    // The instants here are told apart by their low halves, so it is exact.
                    prop_assert_eq!(first.tie, many);
                }
            }
        }
    }
}
