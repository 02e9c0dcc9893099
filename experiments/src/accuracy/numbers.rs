//! Pairs of measured and predicted numbers, and what they say.

/// What a comparison's rows were to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    /// Constants were calibrated on these rows.
    Training,
    /// No constant has seen them.
    Test,
}

impl Set {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Test => "test",
        }
    }
}

/// A simple predictor beside ours.
pub(crate) struct Naive {
    pub(crate) name: &'static str,
    /// Its predictions, one per row.
    pub(crate) predicted: Vec<f64>,
}

/// One source's measurements of one kind beside our predictions.
pub(crate) struct Comparison {
    /// Whose measurements.
    pub(crate) source: &'static str,
    /// How the GPU is shared.
    pub(crate) policy: &'static str,
    /// What runs, and where.
    pub(crate) model: String,
    pub(crate) set: Set,
    /// Measured, predicted.
    pub(crate) rows: Vec<(f64, f64)>,
    /// Rows without a prediction.
    pub(crate) failed: usize,
    pub(crate) naive: Vec<Naive>,
}

impl Comparison {
    pub(crate) fn new(source: &'static str, policy: &'static str, model: String, set: Set) -> Self {
        Self { source, policy, model, set, rows: vec![], failed: 0, naive: vec![] }
    }

    /// One more row, with the simple predictors' numbers.
    pub(crate) fn push(&mut self, measured: f64, ours: f64, naive: &[(&'static str, f64)]) {
        self.rows.push((measured, ours));
        for (name, predicted) in naive {
            match self.naive.iter_mut().find(|n| n.name == *name) {
                Some(known) => known.predicted.push(*predicted),
                None => self.naive.push(Naive { name, predicted: vec![*predicted] }),
            }
        }
    }

    pub(crate) fn errors(&self) -> Errors {
        Errors::of(self.rows.iter().map(|(measured, ours)| ours / measured - 1.0))
    }

    /// Mean absolute error of every simple predictor.
    pub(crate) fn naive_errors(&self) -> Vec<(&'static str, f64)> {
        self.naive
            .iter()
            .map(|n| {
                let pairs = self.rows.iter().zip(&n.predicted);
                (n.name, Errors::of(pairs.map(|((measured, _), p)| p / measured - 1.0)).mean)
            })
            .collect()
    }
}

/// Relative errors: of absolute values, but for the bias.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Errors {
    pub(crate) n: usize,
    pub(crate) mean: f64,
    pub(crate) bias: f64,
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) largest: f64,
}

impl Errors {
    pub(crate) fn of(errors: impl Iterator<Item = f64>) -> Self {
        let all: Vec<f64> = errors.collect();
        if all.is_empty() {
            return Self::default();
        }
        let n = all.len();
        let mut sorted: Vec<f64> = all.iter().map(|e| e.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |q: f64| sorted[(((n - 1) as f64) * q).round() as usize];
        Self {
            n,
            mean: sorted.iter().sum::<f64>() / n as f64,
            bias: all.iter().sum::<f64>() / n as f64,
            median: rank(0.5),
            p95: rank(0.95),
            largest: rank(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_of_the_measured_value() {
        let mut c = Comparison::new("a", "alone", "b".to_owned(), Set::Test);
        c.push(100.0, 110.0, &[("half", 50.0)]);
        c.push(10.0, 8.0, &[("half", 5.0)]);
        let e = c.errors();
        assert_eq!(e.n, 2);
        assert!((e.mean - 0.15).abs() < 1e-12 && (e.bias + 0.05).abs() < 1e-12, "{e:?}");
        assert!((e.largest - 0.2).abs() < 1e-12);
        assert_eq!(c.naive_errors(), [("half", 0.5)]);
        assert_eq!(Errors::of(std::iter::empty()), Errors::default());
    }
}
