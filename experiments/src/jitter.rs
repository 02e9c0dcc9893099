//! Random factors for kernel times: log-normal with mean 1. A factor depends only on seed, tenant, request
//! and kernel, so that every policy draws the same one for the same kernel.

use cotenant_sim::scenario::Jitter;
use cotenant_traces::Rng;
use cotenant_traces::rng::mix;

/// Log-normal factors.
pub(crate) struct LogNormal {
    sigma: f64,
    tenants: Vec<u64>,
}

impl LogNormal {
    /// Factors with coefficient of variation `cv`; `None` if it is 0.
    pub(crate) fn boxed(cv: f64, seed: u64, tenants: &[&str]) -> Option<Box<dyn Jitter>> {
        if cv <= 0.0 {
            return None;
        }
        let sigma = libm::sqrt(libm::log1p(cv * cv));
        let base = |name: &&str| Rng::for_names(seed, &[name, "jitter"]).next_u64();
        Some(Box::new(Self { sigma, tenants: tenants.iter().map(base).collect() }))
    }
}

impl Jitter for LogNormal {
    fn factor(&mut self, tenant: u32, request: u64, position: u32) -> f64 {
        let base = self.tenants[tenant as usize];
        let seed = mix(mix(base ^ request).wrapping_add(u64::from(position)));
        let z = Rng::new(seed).normal();
        libm::exp(self.sigma * z - self.sigma * self.sigma / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_have_mean_one_and_the_variation_asked_for() {
        let mut jitter = LogNormal::boxed(0.3, 1, &["a"]).unwrap();
        let draws: Vec<f64> =
            (0..100_000).map(|r| jitter.factor(0, r / 7, (r % 7) as u32)).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / 1e5;
        // Standard errors: 0.001 of the mean, under 0.003 of the deviation.
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
        assert!((libm::sqrt(variance) - 0.3).abs() < 0.01, "{variance}");
        assert_eq!(jitter.factor(0, 3, 2), jitter.factor(0, 3, 2));
        assert!(LogNormal::boxed(0.0, 1, &["a"]).is_none());
    }
}
