//! What a tuner learns from its trials, and how the kernels that run beside it distort that.

use crate::counter::Amount;
use crate::program::KernelCode;

/// One trial under way: launches of one kernel in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Trial {
    /// When the current launch was given to the GPU, ns.
    launched: u64,
    launches: u64,
    /// Time of the launches that count, ns.
    measured: u64,
    alone: u64,
}

impl Trial {
    pub(super) fn launch(&mut self, now: u64) {
        self.launched = now;
    }

    /// A launch has ended, after this many ns. The first one is a warm-up and does not count, unless it
    /// is the only one.
    pub(super) fn ended(&mut self, now: u64, kernel: &KernelCode, cap: u32) -> u64 {
        let alone = kernel.at(cap.min(kernel.want));
        let measured = now - self.launched;
        if self.launches < 2 {
            (self.measured, self.alone) = (0, 0);
        }
        self.launches += 1;
        self.measured += measured;
        self.alone += alone;
        measured
    }
}

/// The best candidate for one operator that a tuner has measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Best {
    /// Measured and true time of the choice, per launch, ns.
    choice: Option<(f64, f64)>,
    /// The least true time of all, ns.
    least: f64,
}

/// Over all operators.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Learnt {
    pub(super) trials: u64,
    error: f64,
    error_max: f64,
    pub(super) operators: u64,
    pub(super) mistuned: u64,
    loss: f64,
    loss_max: f64,
}

impl Learnt {
    /// A trial is over.
    pub(super) fn trial(&mut self, trial: Trial, best: &mut Best) {
        let counted = trial.launches.saturating_sub(1).max(1) as f64;
        let (measured, alone) = (trial.measured as f64 / counted, trial.alone as f64 / counted);
        let error = (measured / alone - 1.0).abs();
        self.trials += 1;
        self.error += error;
        self.error_max = self.error_max.max(error);
        if best.choice.is_none_or(|(m, _)| measured < m) {
            best.choice = Some((measured, alone));
        }
        best.least = if best.least > 0.0 { best.least.min(alone) } else { alone };
    }

    /// An operator is tuned.
    pub(super) fn operator(&mut self, best: Best) {
        let Some((_, alone)) = best.choice else { return };
        let loss = alone / best.least - 1.0;
        self.operators += 1;
        self.mistuned += u64::from(loss > 0.0);
        self.loss += loss;
        self.loss_max = self.loss_max.max(loss);
    }

    /// Mean and largest `|measured / alone - 1|` of the trials, percent.
    pub(super) fn errors(&self) -> (Amount, Amount) {
        let mean = Amount::Mean { sum: 100.0 * self.error, of: self.trials as f64 };
        (mean, Amount::Most(100.0 * self.error_max))
    }

    /// Mean and largest slowdown caused by choosing the wrong kernel, percent.
    pub(super) fn losses(&self) -> (Amount, Amount) {
        let mean = Amount::Mean { sum: 100.0 * self.loss, of: self.operators as f64 };
        (mean, Amount::Most(100.0 * self.loss_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_profiles::Op;

    fn kernel(ns: u64) -> KernelCode {
        KernelCode {
            id: "k".to_owned(),
            name: "k".to_owned(),
            op: Op::Gemm,
            duration_ns: vec![u64::MAX, 2 * ns, ns].into(),
            want: 2,
            blocks: 2,
            threads: 256,
            blocks_per_cu: 1,
            flops: 0,
            dram_bytes: 0,
            fair: false,
            tile: crate::program::Tile::default(),
            drawn: vec![],
        }
    }

    fn trial(kernel: &KernelCode, cap: u32, times: &[u64]) -> Trial {
        let mut trial = Trial::default();
        for &ns in times {
            trial.launch(1_000);
            trial.ended(1_000 + ns, kernel, cap);
        }
        trial
    }

    #[test]
    fn a_disturbed_trial_hides_the_best_kernel() {
        let (fast, slow) = (kernel(100), kernel(150));
        let (mut learnt, mut best) = (Learnt::default(), Best::default());
        // The warm-up does not count: 200 and 240 measured, 100 true.
        learnt.trial(trial(&fast, 2, &[900, 200, 240]), &mut best);
        learnt.trial(trial(&slow, 2, &[150, 150, 150]), &mut best);
        learnt.operator(best);
        assert_eq!((learnt.trials, learnt.operators, learnt.mistuned), (2, 1, 1));
        let (mean, max) = learnt.errors();
        let (mean, max) = (mean.value(), max.value());
        assert!((mean - 60.0).abs() < 1e-9 && (max - 120.0).abs() < 1e-9);
        assert!((learnt.losses().1.value() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn the_truth_is_that_of_the_share() {
        let (mut learnt, mut best) = (Learnt::default(), Best::default());
        learnt.trial(trial(&kernel(100), 1, &[200]), &mut best);
        learnt.operator(best);
        assert_eq!((learnt.errors().1.value(), learnt.mistuned), (0.0, 0));
    }
}
