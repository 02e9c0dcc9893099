//! Random numbers with the same bits on every CPU: Xoshiro256++ seeded from (seed, names), and
//! samplers whose logarithms and exponentials come from `libm`.

use std::sync::LazyLock;

/// A stream of random numbers. Each purpose of each tenant has its own, derived from the
/// experiment's seed and names, so that adding a tenant never moves another one's draws.
#[derive(Clone, Debug)]
pub struct Rng {
    s: [u64; 4],
    exp: &'static Ziggurat,
}

/// Where the exponential ziggurat's tail begins, and the area of each of its 256 layers (Marsaglia
/// and Tsang 2000).
const EXP_TAIL: f64 = 7.697_117_470_131_05;
const EXP_AREA: f64 = 3.949_659_822_581_557e-3;

/// Layers of a decreasing density: right edges, widest first, and the density at them.
#[derive(Debug)]
struct Ziggurat {
    x: [f64; 257],
    f: [f64; 257],
}

static EXPONENTIAL: LazyLock<Ziggurat> = LazyLock::new(|| {
    let mut x = [0.0; 257];
    x[0] = EXP_AREA * libm::exp(EXP_TAIL);
    x[1] = EXP_TAIL;
    for i in 2..256 {
        x[i] = -libm::log(EXP_AREA / x[i - 1] + libm::exp(-x[i - 1]));
    }
    Ziggurat { x, f: x.map(|x| libm::exp(-x)) }
});

/// The SplitMix64 finaliser (Steele, Lea, Flood 2014): a bijection of u64 that mixes well.
#[inline]
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Rng {
    /// The stream of `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let s = std::array::from_fn(|_| {
            state = state.wrapping_add(GOLDEN);
            mix(state)
        });
        Self { s, exp: &EXPONENTIAL }
    }

    /// The stream of `seed` for a chain of names, such as `[tenant, "arrivals"]`.
    #[must_use]
    pub fn for_names(seed: u64, names: &[&str]) -> Self {
        let mut hash = mix(seed ^ GOLDEN);
        for name in names {
            for byte in name.bytes().chain([0xFF]) {
                hash = mix(hash ^ u64::from(byte)).wrapping_add(GOLDEN);
            }
        }
        Self::new(hash)
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.s;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1), 53 bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n, without bias. Panics on n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "no number lies below 0");
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let x = self.next_u64();
            if x < limit {
                return x % n;
            }
        }
    }

    /// Exponential with mean 1 (the ziggurat of Marsaglia and Tsang 2000, 256 layers).
    #[inline]
    pub fn exp1(&mut self) -> f64 {
        loop {
            let bits = self.next_u64();
            let layer = (bits & 0xFF) as usize;
            let x = (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64) * self.exp.x[layer];
            // 98.9 % of the draws end here, without a logarithm.
            if x < self.exp.x[layer + 1] {
                return x;
            }
            if let Some(x) = self.exp1_edge(layer, x) {
                return x;
            }
        }
    }

    /// The tail, or the part of a layer that lies above the density.
    #[cold]
    fn exp1_edge(&mut self, layer: usize, x: f64) -> Option<f64> {
        let u = self.uniform();
        if layer == 0 {
            // 1 - u lies in (0, 1]: the logarithm is finite.
            return Some(EXP_TAIL - libm::log(1.0 - u));
        }
        let (low, high) = (self.exp.f[layer], self.exp.f[layer + 1]);
        (low + (high - low) * u < libm::exp(-x)).then_some(x)
    }

    /// Standard normal (Marsaglia's polar method).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let r = u * u + v * v;
            if r > 0.0 && r < 1.0 {
                return u * libm::sqrt(-2.0 * libm::log(r) / r);
            }
        }
    }

    /// Gamma with the given shape and scale 1 (Marsaglia and Tsang 2000; below shape 1 by
    /// boosting).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = libm::pow(1.0 - self.uniform(), 1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            let u = 1.0 - self.uniform();
            if libm::log(u) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let n = 200_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = draw();
            sum += x;
            squares += x * x;
        }
        let mean = sum / f64::from(n);
        (mean, squares / f64::from(n) - mean * mean)
    }

    #[test]
    fn samplers_have_their_moments() {
        // 200,000 draws: the standard error of every mean below is under 0.008 of its unit.
        let mut rng = Rng::new(1);
        for (name, (mean, variance), want) in [
            ("uniform", moments(|| rng.uniform()), (0.5, 1.0 / 12.0)),
            ("exp1", moments(|| rng.exp1()), (1.0, 1.0)),
            ("normal", moments(|| rng.normal()), (0.0, 1.0)),
            ("gamma 0.25", moments(|| rng.gamma(0.25)), (0.25, 0.25)),
            ("gamma 4", moments(|| rng.gamma(4.0)), (4.0, 4.0)),
        ] {
            assert!((mean - want.0).abs() < 0.02, "{name}: mean {mean}");
            assert!((variance - want.1).abs() < 0.06 * want.1, "{name}: variance {variance}");
        }
    }

    #[test]
    fn exponential_draws_follow_their_distribution_into_the_tail() {
        // A million draws: each share below has a standard error of at most 0.0005.
        let (mut rng, n) = (Rng::new(5), 1_000_000);
        let draws: Vec<f64> = (0..n).map(|_| rng.exp1()).collect();
        for x in [0.01, 0.1, 0.7, 2.0, 5.0, EXP_TAIL, 9.0] {
            let share = draws.iter().filter(|&&d| d > x).count() as f64 / f64::from(n);
            let want = libm::exp(-x);
            let error = (want * (1.0 - want) / f64::from(n)).sqrt();
            assert!((share - want).abs() < 4.0 * error, "beyond {x}: {share}, not {want}");
        }
        assert!(draws.iter().all(|&d| d >= 0.0 && d.is_finite()));
        // The layers close: the last one reaches the density's peak.
        let last = EXPONENTIAL.x[255];
        let top = EXP_AREA / last + libm::exp(-last);
        assert!((top - 1.0).abs() < 1e-9, "{top}");
    }

    #[test]
    fn streams_depend_on_every_name_and_nothing_else() {
        let first = |names: &[&str]| Rng::for_names(7, names).next_u64();
        assert_eq!(first(&["a", "arrivals"]), first(&["a", "arrivals"]));
        assert_ne!(first(&["a", "arrivals"]), first(&["b", "arrivals"]));
        assert_ne!(first(&["ab", "c"]), first(&["a", "bc"]));
    }

    #[test]
    fn below_covers_its_range() {
        let mut rng = Rng::new(3);
        let mut seen = [0u32; 7];
        (0..7000).for_each(|_| seen[rng.below(7) as usize] += 1);
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
    }
}
