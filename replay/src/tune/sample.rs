//! The elements of a product's result that are compared with the CPU's result.

use crate::recipe::shapes;
use crate::reference;
use crate::work::Work;

/// Number of elements compared in a large result.
const PICKS: u64 = 4096;
/// Results of up to this many elements are compared in full.
const WHOLE: u64 = 16 * PICKS;

/// The indices of some elements, and their values as the CPU computes them.
pub(super) struct Sample {
    elements: u64,
    picks: Vec<u64>,
    expected: Vec<f64>,
}

impl Sample {
    /// Elements spread over the whole result of `work`, including the last; all elements of a small
    /// result.
    pub(super) fn of(work: &Work) -> Self {
        let elements = shapes(work).output;
        let picks: Vec<u64> = if elements <= WHOLE {
            (0..elements).collect()
        } else {
            // An odd step: if the row length is a power of two, every row is sampled at different
            // columns.
            let step = (elements / PICKS) | 1;
            (0..PICKS).map(|i| elements - 1 - i * step % elements).collect()
        };
        let expected = reference::product_at(work, &picks);
        Self { elements, picks, expected }
    }

    /// The distance of a result, as a share of the norm; infinite if its size differs.
    pub(super) fn distance(&self, result: &[f64]) -> f64 {
        if result.len() as u64 != self.elements {
            return f64::INFINITY;
        }
        let found: Vec<f64> = self.picks.iter().map(|&i| result[i as usize]).collect();
        reference::distance(&found, &self.expected)
    }
}

#[cfg(test)]
mod tests {
    use cotenant_profiles::lower::Precision;

    use super::*;
    use crate::work::Task;

    #[test]
    fn rounding_passes_and_a_wrong_tile_does_not() {
        for (m, n) in [(150, 201), (300, 512)] {
            let work = Work::new(Task::Gemm { m, n, k: 7, count: 2 }, Precision::Fp32);
            let (of, limit) = (shapes(&work), reference::tolerance(&work));
            let operands = reference::operands(&of, work.precision);
            let exact = reference::compute(&work, &operands, of.output);
            let rounded: Vec<f64> = exact.iter().map(|v| f64::from(*v as f32)).collect();
            let sample = Sample::of(&work);
            assert!(sample.picks.contains(&(of.output - 1)));
            assert!(sample.distance(&rounded) <= limit);
            // Wrong in the last rows of the last product, which a tile without edge handling would
            // leave out.
            let mut wrong = rounded.clone();
            let from = wrong.len() - 4 * n as usize;
            wrong[from..].fill(0.0);
            assert!(sample.distance(&wrong) > limit);
            assert!(sample.distance(&vec![0.0; exact.len()]) > 0.99, "nothing was written");
            assert!(sample.distance(&rounded[1..]).is_infinite());
        }
    }
}
