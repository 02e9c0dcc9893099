//! Measured pairs of kernels.

use super::Demand;

/// What a kernel beside another was measured to take over what it takes alone, by their indices into
/// the code.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs(Vec<((u32, u32), f64)>);

impl Pairs {
    /// From (kernel, beside which other, slow-down): several measurements of a pair count as their
    /// mean, and nothing runs faster beside another than alone.
    #[must_use]
    pub fn new(mut measured: Vec<((u32, u32), f64)>) -> Self {
        measured.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut pairs: Vec<((u32, u32), f64)> = vec![];
        for group in measured.chunk_by(|a, b| a.0 == b.0) {
            let sum: f64 = group.iter().map(|p| p.1).sum();
            pairs.push((group[0].0, (sum / group.len() as f64).max(1.0)));
        }
        Self(pairs)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The slow-down of kernel `a` beside kernel `b`.
    #[must_use]
    pub fn get(&self, a: u32, b: u32) -> Option<f64> {
        let at = self.0.binary_search_by_key(&(a, b), |p| p.0).ok()?;
        Some(self.0[at].1)
    }

    /// The slow-down of the `i`-th of these by all the others, one after the other in an order that
    /// does not depend on theirs; `unknown` says what a kernel costs it that no pair tells of.
    pub(super) fn beside(
        &self,
        i: usize,
        demands: &[Demand],
        unknown: impl Fn(&Demand) -> f64,
        order: &mut Vec<(u32, u64)>,
    ) -> f64 {
        order.clear();
        let others = demands.iter().enumerate().filter(|&(j, _)| j != i);
        order.extend(others.map(|(_, d)| (d.kernel, d.l2)));
        order.sort_unstable();
        order.iter().fold(1.0, |slow, &(kernel, l2)| {
            let other = Demand { kernel, l2, ..Demand::default() };
            slow * self.get(demands[i].kernel, kernel).unwrap_or_else(|| unknown(&other))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_measurements_of_a_pair_are_one() {
        let pairs = Pairs::new(vec![((1, 2), 1.2), ((2, 1), 0.9), ((1, 2), 1.4)]);
        assert!((pairs.get(1, 2).unwrap() - 1.3).abs() < 1e-12);
        assert_eq!((pairs.get(2, 1), pairs.get(1, 1)), (Some(1.0), None));
        assert!(!pairs.is_empty() && Pairs::default().is_empty());
    }
}
