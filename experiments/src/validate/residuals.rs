//! Which term of the device model the errors follow.
//!
//! Each pair of a simulated and a measured mean latency leaves a residual, in milliseconds per
//! request. Each suspect predicts its shape: a launch that costs more than the model says grows with
//! the kernels of a batch, wrong contention with the time spent beside others. A suspect explains
//! the share of the squared residuals that goes when the best multiple of its shape is taken off.

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspect {
    Durations,
    Launches,
    Mechanisms,
    Contention,
    Turns,
    Reconfigurations,
    Driver,
}

/// How a suspect would show in one residual: its shape there, in any unit.
pub(crate) type Shape = [f64; Suspect::ALL.len()];

impl Suspect {
    pub(crate) const ALL: [Self; 7] = [
        Self::Durations,
        Self::Launches,
        Self::Mechanisms,
        Self::Contention,
        Self::Turns,
        Self::Reconfigurations,
        Self::Driver,
    ];

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Durations => "the kernels' own durations (error in proportion to GPU time)",
            Self::Launches => "launches and the host's floor (constant error per kernel)",
            Self::Mechanisms => "masks and hops between queues (constant error per change)",
            Self::Contention => "contention (error grows with the time beside other tenants)",
            Self::Turns => "quantum and context switches (error per turn)",
            Self::Reconfigurations => "restarts and shadows (error in proportion to downtime)",
            Self::Driver => "the dispatcher's own lateness (no fault of the device model)",
        }
    }
}

/// One residual with its shapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Residual {
    /// Measured minus simulated, ms per request.
    pub(crate) ms: f64,
    /// Measured, ms per request.
    pub(crate) measured_ms: f64,
    pub(crate) shape: Shape,
}

/// A suspect, the share of the squared residuals that it explains, and the multiple that does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Explained {
    pub(crate) suspect: Suspect,
    pub(crate) share: f64,
    pub(crate) factor: f64,
}

/// Every suspect that shows at all, the best explanation first.
pub(crate) fn explain(residuals: &[Residual]) -> Vec<Explained> {
    let total: f64 = residuals.iter().map(|r| r.ms * r.ms).sum();
    let mut all: Vec<Explained> = Suspect::ALL
        .iter()
        .enumerate()
        .filter_map(|(i, &suspect)| {
            let xx: f64 = residuals.iter().map(|r| r.shape[i] * r.shape[i]).sum();
            let xy: f64 = residuals.iter().map(|r| r.shape[i] * r.ms).sum();
            (xx > 0.0 && total > 0.0).then(|| Explained {
                suspect,
                share: xy * xy / (xx * total),
                factor: xy / xx,
            })
        })
        .collect();
    all.sort_by(|a, b| b.share.total_cmp(&a.share));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residuals that follow one suspect's shape, among shapes that differ.
    fn following(suspect: usize) -> Vec<Residual> {
        (1..40u32)
            .map(|i| {
                let shape: Shape =
                    std::array::from_fn(|s| f64::from(i * (s as u32 + 3) * 7919 % 31) / 31.0);
                let noise = f64::from(i * 104_729 % 17) / 17.0 - 0.5;
                Residual { ms: 2.0 * shape[suspect] + 0.1 * noise, measured_ms: 10.0, shape }
            })
            .collect()
    }

    #[test]
    fn the_term_that_the_errors_follow_is_found_with_its_factor() {
        for (i, &suspect) in Suspect::ALL.iter().enumerate() {
            let best = explain(&following(i))[0];
            assert_eq!(best.suspect, suspect);
            assert!(best.share > 0.95 && (best.factor - 2.0).abs() < 0.1, "{best:?}");
        }
    }

    #[test]
    fn nothing_explains_nothing() {
        assert_eq!(explain(&[]), []);
        let exact = Residual { ms: 0.0, measured_ms: 1.0, shape: [1.0; 7] };
        assert_eq!(explain(&[exact]), []);
    }
}
