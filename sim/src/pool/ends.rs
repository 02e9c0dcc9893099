//! When each resident of a pool ends, side by side, so that the first is found without a branch that
//! depends on the data: which kernel ends next is as good as random.

use std::hint::select_unpredictable;

use super::NEVER;

/// Entries looked at together: a pool rarely has more residents, and then the trip count of every
/// loop here is constant.
const LANES: usize = 8;

/// Instants by resident, padded with [`NEVER`] to whole blocks.
#[derive(Debug, Default)]
pub(super) struct Ends {
    at: Vec<u64>,
    len: usize,
}

/// The earliest instant, and who ends then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) at: u64,
    pub(super) index: usize,
    /// Others end at the same instant.
    pub(super) tie: bool,
}

#[inline]
fn min(a: u64, b: u64) -> u64 {
    select_unpredictable(b < a, b, a)
}

impl Ends {
    #[inline]
    pub(super) fn push(&mut self, at: u64) {
        if self.len == self.at.len() {
            self.at.resize(self.len + LANES, NEVER);
        }
        self.at[self.len] = at;
        self.len += 1;
    }

    #[inline]
    pub(super) fn set(&mut self, i: usize, at: u64) {
        debug_assert!(i < self.len);
        self.at[i] = at;
    }

    #[inline]
    pub(super) fn get(&self, i: usize) -> u64 {
        self.at[i]
    }

    /// Removes entry `i`; the last one takes its place.
    #[inline]
    pub(super) fn swap_remove(&mut self, i: usize) {
        self.len -= 1;
        self.at[i] = self.at[self.len];
        self.at[self.len] = NEVER;
        if self.len + LANES < self.at.len() {
            self.at.truncate(self.at.len() - LANES);
        }
    }

    pub(super) fn clear(&mut self) {
        self.at.clear();
        self.len = 0;
    }

    /// The earliest of all; at [`NEVER`] if nobody ends.
    #[inline]
    pub(super) fn first(&self) -> First {
        let mut first = First { at: NEVER, index: 0, tie: false };
        for (b, block) in self.at.as_chunks::<LANES>().0.iter().enumerate() {
            // Instants below 2^61 ns (73 years) leave room for the index.
            let p: [u64; LANES] = std::array::from_fn(|i| block[i] << 3 | i as u64);
            let halves =
                [min(min(p[0], p[1]), min(p[2], p[3])), min(min(p[4], p[5]), min(p[6], p[7]))];
            let who = (min(halves[0], halves[1]) & 7) as usize;
            let least = block[who];
            if least > first.at || least == NEVER {
                continue;
            }
            let same: u32 = block.iter().map(|&at| u32::from(at == least)).sum();
            let tie = least == first.at || same > 1;
            let index = if least < first.at { b * LANES + who } else { first.index };
            first = First { at: least, index, tie };
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
            ops in proptest::collection::vec((0u8..3, 0usize..40, 0u64..12), 1..120)
        ) {
            let (mut ends, mut plain) = (Ends::default(), Vec::<u64>::new());
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
                    prop_assert_eq!(first.tie, many);
                }
            }
        }
    }
}
