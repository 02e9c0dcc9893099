//! The two published re-implementations of GSLICE's rules, as pure functions, and the divider.

/// Largest batch of both re-implementations.
const MAX_BATCH: u32 = 32;

/// Partitions that gpu-lets hands out, percent.
pub(super) const GLET_PARTITIONS: [f64; 6] = [20.0, 40.0, 50.0, 60.0, 80.0, 100.0];

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Igniter,
    Glet,
}

/// What a function has to achieve, and what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// Latency to stay under, ms: the originals count in milliseconds, some in whole ones.
    pub(super) slo: f64,
    /// Mean latency, ms.
    pub(super) latency: f64,
    /// Requests offered, per second.
    pub(super) rate: f64,
    /// Throughput, requests per second.
    pub(super) throughput: f64,
}

impl Variant {
    /// Both relative residuals above 0 and below this keep the share.
    fn band(self) -> f64 {
        match self {
            Self::Igniter => 0.10,
            Self::Glet => 0.05,
        }
    }

    /// The next share, percent. iGniter's lies in 1 to 100; gpu-lets' may lie outside, its divider
    /// bounds it.
    pub(super) fn resize(self, share: f64, seen: &Seen) -> f64 {
        let latency = seen.slo - seen.latency;
        let throughput = seen.throughput - seen.rate;
        let inside = |residual: f64| residual > 0.0 && residual < self.band();
        if inside(latency / seen.slo) && inside(throughput / seen.rate) {
            return share;
        }
        let step = |of_latency: f64, of_throughput: f64| {
            share * (latency.abs() / of_latency).max(throughput.abs() / of_throughput)
        };
        match self {
            Self::Igniter => {
                let step = step(seen.latency, seen.throughput);
                let next = if latency < 0.0 || throughput < 0.0 {
                    share + step
                } else if latency > 0.0 && throughput > 0.0 {
                    share - step
                } else {
                    // A residual of exactly zero beside one that is not negative: no branch of the
                    // original takes it, and its result stays at the initial 0.
                    0.0
                };
                next.clamp(1.0, 100.0)
            }
            Self::Glet => {
                let step = libm::trunc(step(seen.slo, seen.rate));
                if latency <= 0.0 || throughput <= 0.0 { share + step } else { share - step }
            }
        }
    }

    /// The next batch limit ("SLAB"), 1 to 32.
    pub(super) fn batch(self, batch: u32, slo: f64, latency: f64) -> u32 {
        let b = f64::from(batch);
        let residual = (slo - latency) / slo;
        let next = match self {
            Self::Igniter if residual > 0.0 && residual < self.band() => b,
            Self::Igniter => {
                let step = (slo - latency).abs() / latency * b;
                let next = match residual {
                    r if r > 0.0 => b + step,
                    r if r < 0.0 => b - step,
                    _ => 1.0, // exactly on the target: the original's initial value
                };
                libm::ceil(next.min(f64::from(MAX_BATCH)))
            }
            Self::Glet => libm::trunc(b + residual.max(-1.0) * b),
        };
        next.clamp(1.0, f64::from(MAX_BATCH)) as u32
    }
}

/// Max-min division of one GPU: demands in ascending order, each gets at most an equal part (in
/// whole percent) of what is left, rounded up to the next of `partitions` (ascending). Who comes
/// when nothing is left gets 0.
///
/// Equal demands are served in the order given; the original leaves their order open.
pub(super) fn divide(demands: &[f64], partitions: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by(|&a, &b| demands[a].total_cmp(&demands[b]));
    let mut grants = vec![0.0; demands.len()];
    let mut left = 100.0;
    for (served, &i) in order.iter().enumerate() {
        let part = libm::floor(f64::max(left, 0.0) / (order.len() - served) as f64);
        let wanted = demands[i].min(part);
        if wanted > 0.0 {
            let enough = partitions.iter().find(|&&p| p >= wanted);
            grants[i] = enough.or(partitions.last()).copied().unwrap_or(wanted);
            left -= grants[i];
        }
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::Variant::{Glet, Igniter};
    use super::*;

    fn seen(slo: f64, latency: f64, rate: f64, throughput: f64) -> Seen {
        Seen { slo, latency, rate, throughput }
    }

    /// One function of SLO 20 ms at 100 requests/s, followed by hand. The observations are chosen
    /// so that every branch is taken.
    #[test]
    fn igniter_step_by_step() {
        // 1. 30 %, L 32 ms, X 50/s. r_L = -12 ms, r_X = -50/s. Steps relative to what was seen:
        //    12/32 = 0.375 and 50/50 = 1; the larger, 1, doubles the share.
        assert_eq!(Igniter.resize(30.0, &seen(20.0, 32.0, 100.0, 50.0)), 60.0);
        // 2. 60 %, L 16 ms, X 80/s. r_L = +4 ms (0.25 of L), r_X = -20/s (0.25 of X): grows by a
        //    quarter, although the latency has room: either residual below 0 grows.
        let share = Igniter.resize(60.0, &seen(20.0, 16.0, 100.0, 80.0));
        assert!((share - 75.0).abs() < 1e-9, "{share}");
        // 3. 75 %, L 16 ms, X 125/s. Both above 0: 4/16 = 0.25, 25/125 = 0.2; shrinks by 0.25.
        let share = Igniter.resize(75.0, &seen(20.0, 16.0, 100.0, 125.0));
        assert!((share - 56.25).abs() < 1e-9, "{share}");
        // 4. 56.25 %, L 19 ms (5 % below the SLO), X 108/s (8 % above the rate): inside the band.
        assert_eq!(Igniter.resize(56.25, &seen(20.0, 19.0, 100.0, 108.0)), 56.25);
        // 5. The same, but X 111/s (11 %): outside, shrinks by max(1/19, 11/111) = 11/111.
        let share = Igniter.resize(56.25, &seen(20.0, 19.0, 100.0, 111.0));
        assert!((share - 56.25 * 100.0 / 111.0).abs() < 1e-9, "{share}");
        // 6. 80 % and twice as slow as allowed: 80 + 0.5·80 = 120, clamped.
        assert_eq!(Igniter.resize(80.0, &seen(20.0, 40.0, 100.0, 100.0)), 100.0);
    }

    /// The same observations under the other rule: steps relative to the target, whole percent.
    #[test]
    fn glet_step_by_step() {
        // 1. 12/20 = 0.6 and 50/100 = 0.5: 30 + int(0.6·30) = 48.
        assert_eq!(Glet.resize(30.0, &seen(20.0, 32.0, 100.0, 50.0)), 48.0);
        // 2. 48 %: 4/20 = 0.2 and 20/100 = 0.2; 48 + int(9.6) = 57.
        assert_eq!(Glet.resize(48.0, &seen(20.0, 16.0, 100.0, 80.0)), 57.0);
        // 3. 57 %: 4/20 = 0.2 and 25/100 = 0.25; 57 - int(14.25) = 43.
        assert_eq!(Glet.resize(57.0, &seen(20.0, 16.0, 100.0, 125.0)), 43.0);
        // 4. L 5 % below, X 8 % above: outside this band of 5 %; 43 - int(0.08·43) = 43 - 3.
        assert_eq!(Glet.resize(43.0, &seen(20.0, 19.0, 100.0, 108.0)), 40.0);
        // 5. L 2.5 % below, X 4 % above: inside.
        assert_eq!(Glet.resize(40.0, &seen(20.0, 19.5, 100.0, 104.0)), 40.0);
        // 6. The SLO met to the nanosecond: not above 0, so it grows, by 25/100 of the throughput
        //    residual; 40 + int(10).
        assert_eq!(Glet.resize(40.0, &seen(20.0, 20.0, 100.0, 125.0)), 50.0);
    }

    /// The step is proportional: a lightly loaded function drops to next to nothing at once.
    #[test]
    fn light_load_drops_to_the_floor() {
        // L 5 of 20 ms: r_L/L = 3, and 30 - 3·30 = -60, clamped to 1.
        assert_eq!(Igniter.resize(30.0, &seen(20.0, 5.0, 100.0, 400.0)), 1.0);
        // Exactly on the SLO, or exactly at the rate: neither branch, so 0, clamped to 1.
        assert_eq!(Igniter.resize(30.0, &seen(20.0, 20.0, 100.0, 125.0)), 1.0);
        assert_eq!(Igniter.resize(30.0, &seen(20.0, 16.0, 100.0, 100.0)), 1.0);
        // The other rule's step is relative to the target: X at 4 times the rate is a step of 3.
        assert_eq!(Glet.resize(30.0, &seen(20.0, 5.0, 100.0, 400.0)), -60.0);
    }

    /// "Grow" takes the larger residual whatever its sign: room in latency makes the step larger.
    #[test]
    fn growth_is_by_the_larger_residual_even_if_that_one_is_slack() {
        // X 1 % below the rate, L a quarter of the SLO: 25 + 3·25 = 100 for a lack of 1 %.
        assert_eq!(Igniter.resize(25.0, &seen(20.0, 5.0, 100.0, 99.0)), 100.0);
        // A batch that takes twice the SLO: the share grows by half; the batch rule, run first,
        // would have halved the batch.
        assert_eq!(Igniter.resize(40.0, &seen(20.0, 40.0, 100.0, 120.0)), 60.0);
        assert_eq!(Igniter.batch(16, 20.0, 40.0), 8);
    }

    #[test]
    fn igniter_batch_is_proportional_and_rounds_up() {
        // b·SLO/L, whichever side: 4 + (20-16)/16·4 = 5; 8 - (32-20)/32·8 = 5.
        assert_eq!(Igniter.batch(4, 20.0, 16.0), 5);
        assert_eq!(Igniter.batch(8, 20.0, 32.0), 5);
        // 3 + (20-16)/16·3 = 3.75, up to 4.
        assert_eq!(Igniter.batch(3, 20.0, 16.0), 4);
        // Inside the band of 10 %: 19 of 20 ms. Outside: 9·20/17.9 = 10.06, up to 11.
        assert_eq!(Igniter.batch(9, 20.0, 19.0), 9);
        assert_eq!(Igniter.batch(9, 20.0, 17.9), 11);
        assert_eq!(Igniter.batch(1, 20.0, 1.0), 20);
        assert_eq!(Igniter.batch(16, 20.0, 1.0), 32);
        assert_eq!(Igniter.batch(2, 20.0, 2000.0), 1);
        assert_eq!(Igniter.batch(8, 20.0, 20.0), 1, "exactly on the target");
    }

    #[test]
    fn glet_batch_truncates_and_never_leaves_one() {
        // 8 + 0.25·8 = 10; 9 + 0.25·9 = 11.25, down to 11; 8 - 0.5·8 = 4.
        assert_eq!(Glet.batch(8, 20.0, 15.0), 10);
        assert_eq!(Glet.batch(9, 20.0, 15.0), 11);
        assert_eq!(Glet.batch(8, 20.0, 30.0), 4);
        // No dead band: 24 + 0.0625·24 = 25.5.
        assert_eq!(Glet.batch(24, 32.0, 30.0), 25);
        assert_eq!(Glet.batch(32, 20.0, 15.0), 32);
        // Clipped at -1: 16 - 16 = 0, clamped to 1.
        assert_eq!(Glet.batch(16, 20.0, 1000.0), 1);
        // From 1 it cannot grow: 1 + d < 2 is cut to 1, however light the load.
        assert_eq!(Glet.batch(1, 20.0, 0.001), 1);
    }

    #[test]
    fn max_min_by_hand() {
        let glet = |demands: &[f64]| divide(demands, &GLET_PARTITIONS);
        // 20 is below 33 and gets its 20; 45 is above 80/2 = 40 and gets 40; 90 gets the last 40.
        assert_eq!(glet(&[90.0, 20.0, 45.0]), [40.0, 20.0, 40.0]);
        // 33 rounds up to 40, then 60/2 = 30 up to 40, then 20.
        assert_eq!(glet(&[40.0, 40.0, 40.0]), [40.0, 40.0, 20.0]);
        // 5 rounds up to 20; 100 wants more than 80 and gets it.
        assert_eq!(glet(&[100.0, 5.0]), [80.0, 20.0]);
        assert_eq!(glet(&[100.0]), [100.0]);
        // Six functions, five partitions of 20: the last one is left without.
        assert_eq!(glet(&[20.0; 6]), [20.0, 20.0, 20.0, 20.0, 20.0, 0.0]);
        assert_eq!(glet(&[-60.0, 30.0]), [0.0, 40.0]);
        // In steps of 2.5 %: 31 goes up to 32.5, then 67.5/2 = 33, up to 35; 32.5 is left.
        let fine: Vec<f64> = (1..=40).map(|i| f64::from(i) * 2.5).collect();
        assert_eq!(divide(&[80.0, 31.0, 70.0], &fine), [32.5, 32.5, 35.0]);
    }
}
