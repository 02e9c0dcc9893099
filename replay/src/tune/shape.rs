//! The products that make up a list of models.

use std::collections::BTreeMap;

use cotenant_profiles::lower::Precision;

use crate::collect::Plan;
use crate::work::{Task, Work};

/// A distinct product and how often it is launched.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The product.
    pub work: Work,
    /// Launches of the product in one pass through every model at every batch size.
    pub launches: u64,
}

/// The product of `work`: its own, or for a convolution the product of filters and patches (im2col),
/// without gathering the columns. `None` for a depthwise convolution, which is never computed that way.
fn product(work: &Work) -> Option<Work> {
    let task = match &work.task {
        Task::Gemm { .. } => work.task.clone(),
        Task::Conv { batch, conv } if !conv.is_depthwise() => {
            let ([height, width], groups) = (conv.output(), conv.groups.max(1));
            Task::Gemm {
                m: conv.out_ch / groups,
                n: batch * height * width,
                k: conv.in_ch / groups * conv.kernel[0] * conv.kernel[1],
                count: groups,
            }
        }
        _ => return None,
    };
    Some(Work::new(task, Precision::Fp32))
}

/// The distinct products of a plan, ordered by their arithmetic over all launches, largest first, so
/// that a budget that runs out leaves out the least.
#[must_use]
pub fn shapes(plan: &Plan) -> Vec<Shape> {
    let mut known: BTreeMap<String, Shape> = BTreeMap::new();
    for &index in plan.models.values().flat_map(BTreeMap::values).flatten() {
        if let Some(work) = product(&plan.works[index]) {
            let entry = known.entry(work.id.clone());
            entry.or_insert(Shape { work, launches: 0 }).launches += 1;
        }
    }
    let mut shapes: Vec<Shape> = known.into_values().collect();
    // The sort is stable, so identifiers decide between equals.
    shapes.sort_by_key(|s| std::cmp::Reverse(s.work.flops().saturating_mul(s.launches)));
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_profiles::zoo::layer::Conv;

    #[test]
    fn a_convolution_is_filters_by_patches() {
        let mut conv = Conv {
            in_ch: 8,
            out_ch: 6,
            kernel: [3, 3],
            stride: [2, 2],
            pad: [1, 1],
            dilation: 1,
            groups: 2,
            input: [10, 14],
            bias: false,
        };
        let of = |conv: &Conv| {
            let work = Work::new(Task::Conv { batch: 4, conv: *conv }, Precision::Fp32);
            product(&work).map(|p| (p.flops(), work.flops(), p.task))
        };
        let (flops, same, task) = of(&conv).unwrap();
        assert_eq!(task, Task::Gemm { m: 3, n: 4 * 5 * 7, k: 4 * 9, count: 2 });
        assert_eq!(flops, same, "the same arithmetic");
        (conv.groups, conv.out_ch) = (8, 8);
        assert!(of(&conv).is_none(), "depthwise");
    }
}
