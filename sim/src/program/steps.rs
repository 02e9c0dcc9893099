//! Steps of generating models: what a step computes determines which kernels it launches.
//!
//! The kernels of all steps are compiled before the run, on grids: layers by the number of tokens, the
//! kernels after the layers by the number of sequences, attention by sequences and by the tokens attended
//! to. A step composes its launches from these grids. So every policy finds every kernel in the setup, and
//! a run of millions of steps takes no more memory than a short one.

use std::collections::BTreeMap;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::decoder::StepLayer;

use super::Step;

/// What a step computes, as sums over its sequences, which determine the cost of its kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Sequences with new prompt tokens.
    pub prefill_sequences: u32,
    /// Their new tokens.
    pub prefill_tokens: u32,
    /// Keys that the new tokens attend to, each up to and including its own.
    pub prefill_seen: u64,
    /// Sequences that generate one token.
    pub decode_sequences: u32,
    /// The total tokens of those sequences, the new ones included.
    pub decode_context: u64,
}

impl Shape {
    /// Adds `tokens` new tokens of a prompt. Including them, `context` tokens of the sequence are in the
    /// cache.
    pub fn add_prefill(&mut self, tokens: u32, context: u32) {
        let (new, all) = (u64::from(tokens), u64::from(context));
        self.prefill_sequences += 1;
        self.prefill_tokens += tokens;
        self.prefill_seen += new * (all - new) + new * (new + 1) / 2;
    }

    /// Adds a sequence that generates one token. Including it, the sequence has `context` tokens.
    pub fn add_decode(&mut self, context: u32) {
        self.decode_sequences += 1;
        self.decode_context += u64::from(context);
    }

    /// Rows of the layers' matrix products.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.prefill_tokens + self.decode_sequences
    }

    /// Sequences for which a token is sampled.
    #[must_use]
    pub fn sequences(&self) -> u32 {
        self.prefill_sequences + self.decode_sequences
    }
}

/// What determines the size of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The step's tokens; the number is the row of [`StepCode::by_tokens`].
    Tokens(u8),
    /// Its sequences; the number is the row of [`StepCode::by_sequences`].
    Sequences(u8),
    /// Attention of new prompt tokens; absent in a step that has none.
    Prefill,
    /// Attention of generating sequences; absent in a step that has none.
    Decode,
}

/// Kernels indexed by one size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Sizes, ascending.
    pub sizes: Vec<u32>,
    /// By row and size: the kernel, an index into the setup's kernels.
    pub kernels: Vec<Vec<u32>>,
}

/// Attention kernels indexed by two sizes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// Numbers of new tokens or of sequences, ascending.
    pub sizes: Vec<u32>,
    /// Average numbers of keys that each attends to, ascending.
    pub lengths: Vec<u32>,
    /// By size: the kernel for each length, up to the longest possible one.
    pub kernels: Vec<Vec<u32>>,
}

/// Host time to issue the launches of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTimes {
    /// Before the first launch of a captured graph, ns.
    pub graph_ns: u64,
    /// For each further kernel of the graph, ns.
    pub graph_kernel_ns: u64,
    /// Before a launch outside a graph, ns.
    pub launch_ns: u64,
    /// Steps that only generate are one graph up to this many sequences; 0: no graphs at all.
    pub largest_graph: u32,
}

/// A generating model's steps, ready for the event loop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepCode {
    /// The launches of a step that contains every kind of launch, in stream order.
    pub launches: Vec<Follows>,
    /// Kernels whose size is the number of tokens, rounded up to the next size, as for blocks and captured
    /// graphs.
    pub by_tokens: Table,
    /// Kernels whose size is the number of sequences.
    pub by_sequences: Table,
    /// Attention of new tokens, by their number and the keys that each attends to.
    pub prefill: Grid,
    /// Attention of one token per sequence, by sequences and their mean length.
    pub decode: Grid,
    /// Host times.
    pub host: HostTimes,
    /// The layer that each kernel computes, for code that runs the kernels. A kernel may stand for two
    /// layers whose kernels are alike.
    pub layers: BTreeMap<u32, StepLayer>,
    /// The numeric precision.
    pub precision: Precision,
}

impl StepCode {
    /// Writes the launches of a step to `steps`.
    pub fn compose(&self, shape: &Shape, steps: &mut Vec<Step>) {
        steps.clear();
        let graph = shape.prefill_tokens == 0 && shape.decode_sequences <= self.host.largest_graph;
        let by_tokens = up(&self.by_tokens.sizes, shape.tokens());
        let by_sequences = up(&self.by_sequences.sizes, shape.sequences());
        let decode = self.decode.at(shape.decode_sequences, shape.decode_context);
        let prefill = self.prefill.at(shape.prefill_tokens, shape.prefill_seen);
        let (pieces, host) = (self.host.largest_graph > 0, self.host);
        let mut issued_ns = 0;
        // The next launch is the first of a graph, or of a piece of a graph: pieces end at attention.
        let mut first = true;
        for follows in &self.launches {
            let attention = matches!(follows, Follows::Prefill | Follows::Decode);
            let kernel = match *follows {
                Follows::Tokens(row) => self.by_tokens.kernels[usize::from(row)][by_tokens],
                Follows::Sequences(row) => {
                    self.by_sequences.kernels[usize::from(row)][by_sequences]
                }
                Follows::Prefill if shape.prefill_tokens == 0 => continue,
                Follows::Prefill => prefill,
                Follows::Decode if shape.decode_sequences == 0 => continue,
                Follows::Decode => decode,
            };
            issued_ns += match () {
                () if !pieces || attention && !graph => host.launch_ns,
                () if first => host.graph_ns,
                () => host.graph_kernel_ns,
            };
            first = attention && !graph;
            steps.push(Step { kernel, issued_ns });
        }
    }

    /// Every kernel that a step can launch, some of them more than once.
    pub fn kernels(&self) -> impl Iterator<Item = u32> + '_ {
        let tables = [&self.by_tokens, &self.by_sequences].map(|t| &t.kernels);
        let grids = [&self.prefill, &self.decode].map(|g| &g.kernels);
        tables.into_iter().chain(grids).flatten().flatten().copied()
    }
}

impl Grid {
    /// The kernel for `size` tokens or sequences that attend to `keys` keys in total. The size is rounded
    /// up. The length is the nearest to the one at which size times length gives the right total.
    fn at(&self, size: u32, keys: u64) -> u32 {
        if size == 0 {
            return u32::MAX;
        }
        let row = up(&self.sizes, size);
        let length = keys.div_ceil(u64::from(self.sizes[row])).max(1);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let lengths = &self.kernels[row];
        lengths[nearest(&self.lengths, length).min(lengths.len() - 1)]
    }
}

/// The index of the first size that is at least `n`, or of the last one.
fn up(sizes: &[u32], n: u32) -> usize {
    sizes.partition_point(|&s| s < n).min(sizes.len() - 1)
}

/// The index of the size nearest to `n`, by ratio.
fn nearest(sizes: &[u32], n: u32) -> usize {
    let above = up(sizes, n);
    if above == 0 {
        return 0;
    }
    let (low, high, n) = (u64::from(sizes[above - 1]), u64::from(sizes[above]), u64::from(n));
    if n * n < low * high { above - 1 } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> StepCode {
        StepCode {
            launches: [Follows::Tokens(0), Follows::Decode, Follows::Prefill, Follows::Tokens(1)]
                .into_iter()
                .chain([Follows::Sequences(0)])
                .collect(),
            by_tokens: Table { sizes: vec![1, 8, 64], kernels: vec![vec![0, 1, 2], vec![3, 4, 5]] },
            by_sequences: Table { sizes: vec![4], kernels: vec![vec![6]] },
            prefill: Grid { sizes: vec![64], lengths: vec![16, 64], kernels: vec![vec![7, 8]] },
            decode: Grid {
                sizes: vec![2, 4],
                lengths: vec![100, 200],
                kernels: vec![vec![9, 10], vec![11, 12]],
            },
            host: HostTimes { graph_ns: 100, graph_kernel_ns: 1, launch_ns: 10, largest_graph: 2 },
            ..StepCode::default()
        }
    }

    #[test]
    fn a_step_has_the_kernels_of_its_size() {
        let (code, mut steps) = (code(), vec![]);
        let mut shape = Shape::default();
        shape.add_decode(120);
        shape.add_decode(130);
        code.compose(&shape, &mut steps);
        let kernels = |steps: &[Step]| steps.iter().map(|s| s.kernel).collect::<Vec<_>>();
        assert_eq!(kernels(&steps), [1, 9, 4, 6]);
        // One captured graph.
        assert_eq!(steps.iter().map(|s| s.issued_ns).collect::<Vec<_>>(), [100, 101, 102, 103]);
        shape.add_prefill(30, 50);
        assert_eq!((shape.tokens(), shape.sequences(), shape.prefill_seen), (32, 3, 30 * 20 + 465));
        code.compose(&shape, &mut steps);
        assert_eq!(kernels(&steps), [2, 9, 7, 5, 6]);
        // Pieces between attention calls, which the host launches itself.
        assert_eq!(
            steps.iter().map(|s| s.issued_ns).collect::<Vec<_>>(),
            [100, 110, 120, 220, 221]
        );
    }

    #[test]
    fn sizes_round_up_and_lengths_to_the_nearest() {
        assert_eq!([1, 2, 8, 9, 64, 99].map(|n| up(&[1, 8, 64], n)), [0, 1, 1, 2, 2, 2]);
        assert_eq!([1, 99, 141, 142, 999].map(|n| nearest(&[100, 200], n)), [0, 0, 0, 1, 1]);
    }
}
