//! The offline table: which stream each kernel of each worker runs in, per set of co-located workers.
//!
//! The published objective: per worker the sum over its kernels of `e = beta(c) (1 + alpha)`, where
//! `beta(c)` is the kernel's time alone on the `c` CUs of its stream and `alpha` the sum over all
//! workers of their average CUs per kernel, divided by the GPU's; at most so many switches between
//! streams per request; equal weights, so the workers' sums are added up. `alpha` is the same for
//! every worker, so the whole is a product, (1 + a) b, of the averages `a` and the times `b`.
//!
//! Such a product is smallest at a corner of the convex hull of all (a, b), and a corner is where some
//! weighted sum of a and b is smallest. A weighted sum falls apart into the workers, and for one
//! worker dynamic programming over (kernel, stream, switches made) finds its minimum exactly. So the
//! corners are looked up one after the other, between two known ones along the line that joins them,
//! and a stretch is left out where the tangents in its ends already rule out anything better. What
//! remains is the exact optimum. Additions, products and comparisons only: the same table on every
//! CPU.

/// One worker's model and streams.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// CUs of each stream.
    pub(super) cus: Vec<u32>,
    /// By kernel and stream: its time alone there, ns.
    pub(super) beta: Vec<Vec<u64>>,
}

/// By kernel, an index of a stream.
pub(super) type Choices = Vec<u8>;

/// A worker's part of the objective.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Score {
    /// Average CUs per kernel over the GPU's.
    a: f64,
    /// Time of all kernels, ns.
    b: f64,
}

impl Problem {
    pub(super) fn score(&self, choices: &Choices, total: u32) -> Score {
        let cus: u64 = choices.iter().map(|&c| u64::from(self.cus[c as usize])).sum();
        let time: u64 = self.beta.iter().zip(choices).map(|(beta, &c)| beta[c as usize]).sum();
        Score { a: cus as f64 / (choices.len().max(1) as f64 * f64::from(total)), b: time as f64 }
    }

    /// The choices that minimise `per_cu × CUs + per_ns × time` with at most `budget` switches.
    fn cheapest(&self, per_cu: f64, per_ns: f64, budget: u32) -> Choices {
        if budget as usize >= self.beta.len() {
            return self.freest(per_cu, per_ns);
        }
        let streams = self.cus.len();
        let budget = budget as usize;
        let states = streams * (budget + 1);
        let at = |c: usize, s: usize| c * (budget + 1) + s;
        let cost =
            |k: usize, c: usize| per_cu * f64::from(self.cus[c]) + per_ns * self.beta[k][c] as f64;
        // By state (stream, switches made): the least cost so far. `from` says whence.
        let mut least = vec![f64::INFINITY; states];
        let mut from: Vec<u8> = Vec::with_capacity(self.beta.len() * states);
        for c in 0..streams {
            least[at(c, 0)] = 0.0;
        }
        for k in 0..self.beta.len() {
            let mut next = vec![f64::INFINITY; states];
            for c in 0..streams {
                let here = cost(k, c);
                for s in 0..=budget {
                    // Prefers staying over switching if both cost the same.
                    let mut best = (least[at(c, s)], c);
                    if k > 0 && s > 0 {
                        for other in (0..streams).filter(|&o| o != c) {
                            let value = least[at(other, s - 1)];
                            if value < best.0 {
                                best = (value, other);
                            }
                        }
                    }
                    next[at(c, s)] = best.0 + here;
                    from.push(best.1 as u8);
                }
            }
            least = next;
        }
        let mut end = 0;
        for state in 1..states {
            if least[state] < least[end] {
                end = state;
            }
        }
        let (mut c, mut s) = (end / (budget + 1), end % (budget + 1));
        let mut choices = vec![0; self.beta.len()];
        for k in (0..self.beta.len()).rev() {
            choices[k] = c as u8;
            let before = from[k * states + at(c, s)] as usize;
            if before != c {
                s -= 1;
            }
            c = before;
        }
        choices
    }

    /// Like [`cheapest`](Self::cheapest), with as many switches as there are kernels.
    fn freest(&self, per_cu: f64, per_ns: f64) -> Choices {
        let cost =
            |beta: &[u64], c: usize| per_cu * f64::from(self.cus[c]) + per_ns * beta[c] as f64;
        let least = |beta: &Vec<u64>| {
            (0..self.cus.len()).fold(
                0,
                |best, c| {
                    if cost(beta, c) < cost(beta, best) { c } else { best }
                },
            )
        };
        self.beta.iter().map(|beta| least(beta) as u8).collect()
    }
}

/// What several workers contribute together.
pub(super) fn sum(scores: &[Score]) -> Score {
    scores.iter().fold(Score::default(), |all, s| Score { a: all.a + s.a, b: all.b + s.b })
}

impl Score {
    fn product(self, others: Self) -> f64 {
        (1.0 + self.a + others.a) * (self.b + others.b)
    }
}

/// A corner of the hull: no choices lie below the line `wa × a + wb × b = value` through it.
#[derive(Clone, Copy, Debug)]
struct Corner {
    at: Score,
    wa: f64,
    wb: f64,
}

impl Corner {
    fn value(&self) -> f64 {
        self.wa * self.at.a + self.wb * self.at.b
    }

    /// Where its line meets another one's. A hull between the two is above and to the right of this
    /// point.
    fn meets(&self, other: &Self) -> Score {
        let det = self.wa * other.wb - other.wa * self.wb;
        let (v, w) = (self.value(), other.value());
        Score { a: (v * other.wb - w * self.wb) / det, b: (self.wa * w - other.wa * v) / det }
    }
}

/// The table of workers beside `others` on a GPU of `total` CUs, and each worker's part of the
/// objective.
pub(super) fn plan(
    problems: &[Problem],
    others: Score,
    budget: u32,
    total: u32,
) -> (Vec<Choices>, Vec<Score>) {
    let solve = |wa: f64, wb: f64| {
        let one = |p: &Problem| {
            let kernels = p.beta.len().max(1) as f64 * f64::from(total);
            p.cheapest(wa / kernels, wb, budget)
        };
        let choices: Vec<Choices> = problems.iter().map(one).collect();
        let pairs = problems.iter().zip(&choices);
        let scores: Vec<Score> = pairs.map(|(p, c)| p.score(c, total)).collect();
        let corner = Corner { at: sum(&scores), wa, wb };
        (corner.at.product(others), corner, choices, scores)
    };
    let (fewest, fastest) = (solve(1.0, 0.0), solve(0.0, 1.0));
    let mut open = vec![(fewest.1, fastest.1)];
    let mut best = if fewest.0 < fastest.0 { fewest } else { fastest };
    while let Some((left, right)) = open.pop() {
        let (wa, wb) = (left.at.b - right.at.b, right.at.a - left.at.a);
        // A point on the line must not become a corner through rounding.
        let least = |bound: f64| bound * (1.0 - 1e-12);
        if wa <= 0.0 || wb <= 0.0 || left.meets(&right).product(others) >= least(best.0) {
            continue;
        }
        let found = solve(wa, wb);
        let middle = found.1;
        if middle.value() < least(Corner { at: left.at, wa, wb }.value()) {
            open.push((left, middle));
            open.push((middle, right));
        }
        if found.0 < best.0 {
            best = found;
        }
    }
    (best.2, best.3)
}

/// Changes of stream from one kernel to the next.
pub(super) fn switches(choices: &Choices) -> u32 {
    choices.windows(2).filter(|w| w[0] != w[1]).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every sequence of choices within the budget.
    fn all(kernels: usize, streams: usize, budget: u32) -> Vec<Choices> {
        let mut list: Vec<Choices> = vec![vec![]];
        for _ in 0..kernels {
            list = list
                .into_iter()
                .flat_map(|c| (0..streams).map(move |s| [c.clone(), vec![s as u8]].concat()))
                .collect();
        }
        list.retain(|c| switches(c) <= budget);
        list
    }

    fn problem(cus: &[u32], beta: Vec<Vec<u64>>) -> Problem {
        Problem { cus: cus.to_vec(), beta }
    }

    #[test]
    fn kernels_that_gain_nothing_from_more_cus_take_fewer() {
        // The first half needs one engine, the second all of them.
        let flat = vec![100, 100, 100, 100];
        let steep = vec![400, 200, 134, 100];
        let beta = vec![flat.clone(), flat.clone(), steep.clone(), steep];
        let p = problem(&[15, 30, 45, 60], beta);
        let (chosen, _) = plan(&[p.clone(), p.clone()], Score::default(), 14, 60);
        assert_eq!(chosen, vec![vec![0, 0, 3, 3]; 2]);
        // Without a switch: one size for the whole request.
        let (fixed, scores) = plan(&[p.clone(), p.clone()], Score::default(), 0, 60);
        let best = (0..4u8)
            .flat_map(|a| (0..4u8).map(move |b| (a, b)))
            .map(|(a, b)| [p.score(&vec![a; 4], 60), p.score(&vec![b; 4], 60)])
            .map(|s| sum(&s).product(Score::default()))
            .fold(f64::INFINITY, f64::min);
        assert_eq!(sum(&scores).product(Score::default()), best);
        assert!(fixed.iter().all(|c| switches(c) == 0));
    }

    proptest! {
        /// The minimum found is the minimum over every sequence.
        #[test]
        fn dynamic_programming_finds_the_minimum(
            beta in proptest::collection::vec(proptest::collection::vec(1u64..50, 3), 1..6),
            budget in 0u32..4, per_cu in 0.0f64..3.0, per_ns in 0.1f64..3.0,
        ) {
            let p = problem(&[15, 30, 60], beta);
            let value = |c: &Choices| -> f64 {
                let parts = c.iter().zip(&p.beta).map(|(&c, b)| {
                    per_cu * f64::from(p.cus[c as usize]) + per_ns * b[c as usize] as f64
                });
                parts.sum()
            };
            let found = p.cheapest(per_cu, per_ns, budget);
            prop_assert!(switches(&found) <= budget);
            let best = all(p.beta.len(), 3, budget).iter().map(value).fold(f64::INFINITY, f64::min);
            prop_assert!((value(&found) - best).abs() <= 1e-9 * best, "{} {best}", value(&found));
        }

        /// The joint plan is as good as the best of every pair of sequences.
        #[test]
        fn the_plan_is_the_best_of_all(
            one in proptest::collection::vec(proptest::collection::vec(1u64..50, 3), 1..5),
            two in proptest::collection::vec(proptest::collection::vec(1u64..50, 3), 1..4),
            budget in 0u32..4, a in 0.0f64..2.0, b in 0.0f64..100.0,
        ) {
            let (p, q) = (problem(&[15, 30, 60], one), problem(&[15, 30, 60], two));
            let others = Score { a, b };
            let (choices, scores) = plan(&[p.clone(), q.clone()], others, budget, 60);
            prop_assert!(choices.iter().all(|c| switches(c) <= budget));
            let every = |p: &Problem| -> Vec<Score> {
                all(p.beta.len(), 3, budget).iter().map(|c| p.score(c, 60)).collect()
            };
            let (p, q) = (every(&p), every(&q));
            let pairs = p.iter().flat_map(|a| q.iter().map(move |b| sum(&[*a, *b])));
            let best = pairs.map(|s| s.product(others)).fold(f64::INFINITY, f64::min);
            let found = sum(&scores).product(others);
            prop_assert!((found - best).abs() <= 1e-9 * best, "{found} {best}");
        }
    }
}
