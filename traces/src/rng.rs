//! Random numbers with the same bits on every CPU: xoshiro256++ seeded from (seed, names), the
//! distributions of `rand_distr`, and mathematics from `libm` ([`Real`]).

use std::convert::Infallible;

use rand::distr::{Open01, OpenClosed01, StandardUniform};
use rand::{RngExt as _, SeedableRng as _, TryRng};
use rand_distr::{Distribution, Exp1, Gamma, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

mod real;

pub use real::Real;

/// A stream of random numbers. Each purpose of each tenant has its own, derived from the
/// experiment's seed and names, so that adding a tenant never moves another one's draws.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

/// The SplitMix64 finaliser (Steele, Lea, Flood 2014): a bijection of u64 that mixes well.
#[inline]
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Where the tails begin in the ziggurats of `rand_distr` (Doornik 2005).
const EXP_TAIL: f64 = 7.697_117_470_131_05;
const NORMAL_TAIL: f64 = 3.654_152_885_361_009;

impl Rng {
    /// The stream of `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
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
        let Ok(bits) = self.0.try_next_u64();
        bits
    }

    /// Uniform in [0, 1), 53 bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// Uniform in 0..n. Panics on n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.random_range(0..n)
    }

    /// One draw of a distribution over [`Real`].
    #[inline]
    pub fn sample(&mut self, distribution: impl Distribution<Real>) -> f64 {
        distribution.sample(&mut self.0).0
    }

    /// Exponential with mean 1.
    #[inline]
    pub fn exp1(&mut self) -> f64 {
        self.sample(Exp1)
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        self.sample(StandardNormal)
    }

    /// Gamma with the given shape, above 0, and scale 1.
    ///
    /// # Panics
    /// On a shape that is not above 0.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        let gamma = Gamma::new(Real(shape), Real(1.0)).expect("a shape above 0");
        self.sample(gamma)
    }
}

/// A generator that remembers the last two draws.
struct Remembering<'a, R: ?Sized> {
    rng: &'a mut R,
    before: u64,
    last: u64,
}

impl<'a, R: rand::Rng + ?Sized> Remembering<'a, R> {
    #[inline]
    fn new(rng: &'a mut R) -> Self {
        Self { rng, before: 0, last: 0 }
    }
}

impl<R: rand::Rng + ?Sized> TryRng for Remembering<'_, R> {
    type Error = Infallible;
    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng.next_u32())
    }
    #[inline]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        (self.before, self.last) = (self.last, self.rng.next_u64());
        Ok(self.last)
    }
    #[inline]
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.rng.fill_bytes(bytes);
        Ok(())
    }
}

/// The ziggurat of `rand_distr`. It uses the system's `exp` to reject, which another rounding
/// changes once in 1e18 draws, and the system's `ln` for the tail, where another rounding shows in
/// the value: there the logarithm is taken again from the same draw.
impl Distribution<Real> for Exp1 {
    #[inline]
    fn sample<R: rand::Rng + ?Sized>(&self, rng: &mut R) -> Real {
        let mut rng = Remembering::new(rng);
        let x: f64 = Exp1.sample(&mut rng);
        if x < EXP_TAIL {
            return Real(x);
        }
        let u = (rng.last >> 11).max(1) as f64 * (1.0 / (1u64 << 53) as f64);
        Real(EXP_TAIL - libm::log(u))
    }
}

/// As for [`Exp1`]: the tail's logarithm, of the last draw but one, is taken again.
impl Distribution<Real> for StandardNormal {
    #[inline]
    fn sample<R: rand::Rng + ?Sized>(&self, rng: &mut R) -> Real {
        let mut rng = Remembering::new(rng);
        let x: f64 = StandardNormal.sample(&mut rng);
        if x.abs() < NORMAL_TAIL {
            return Real(x);
        }
        // The midpoint of one of 2^52 steps, as `Open01` draws it.
        let u = ((rng.before >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64);
        Real((NORMAL_TAIL - libm::log(u) / NORMAL_TAIL).copysign(x))
    }
}

macro_rules! uniform {
    ($($interval:ident),*) => {$(
        impl Distribution<Real> for $interval {
            #[inline]
            fn sample<R: rand::Rng + ?Sized>(&self, rng: &mut R) -> Real {
                Real($interval.sample(rng))
            }
        }
    )*};
}
uniform!(StandardUniform, Open01, OpenClosed01);

#[cfg(test)]
mod tests {
    use rand_distr::{LogNormal, Pareto, Poisson, Weibull, Zipf};

    use super::*;

    /// 1,000 draws of every distribution, digested; the first of each is written out.
    fn draws() -> Vec<(&'static str, f64, u64)> {
        let r = Real;
        let mut all = Vec::new();
        let mut add = |name, distribution: &dyn Fn(&mut Rng) -> f64| {
            let mut rng = Rng::for_names(7, &[name]);
            let values: Vec<f64> = (0..1000).map(|_| distribution(&mut rng)).collect();
            let digest = values.iter().fold(0, |d, x| mix(d ^ x.to_bits()).wrapping_add(GOLDEN));
            all.push((name, values[0], digest));
        };
        add("uniform", &|g| g.uniform());
        add("below 1000", &|g| g.below(1000) as f64);
        add("exponential", &|g| g.exp1());
        // Tails alone: the parts that call a logarithm.
        add("exponential tail", &|g| tail(|| g.exp1(), EXP_TAIL));
        add("normal tail", &|g| tail(|| g.normal(), NORMAL_TAIL));
        add("normal", &|g| g.normal());
        add("gamma 0.25", &|g| g.gamma(0.25));
        add("gamma 4", &|g| g.gamma(4.0));
        add("lognormal", &|g| g.sample(LogNormal::new(r(1.0), r(0.8)).unwrap()));
        add("weibull", &|g| g.sample(Weibull::new(r(1.0), r(0.7)).unwrap()));
        add("pareto", &|g| g.sample(Pareto::new(r(1.0), r(2.5)).unwrap()));
        add("poisson 3", &|g| g.sample(Poisson::new(r(3.0)).unwrap()));
        add("poisson 300", &|g| g.sample(Poisson::new(r(300.0)).unwrap()));
        add("zipf", &|g| g.sample(Zipf::new(r(50.0), r(1.1)).unwrap()));
        all
    }

    fn tail(mut draw: impl FnMut() -> f64, from: f64) -> f64 {
        loop {
            let x = draw();
            if x.abs() >= from {
                return x;
            }
        }
    }

    /// Name, first draw, digest of a thousand. A release of `rand`, `rand_distr` or `libm` that
    /// draws other values changes every seeded result: it must not come unseen.
    const WRITTEN: &[(&str, f64, u64)] = &[
        ("uniform", 0.9265074502716304, 0x29864a7690d3d1a7),
        ("below 1000", 640.0, 0x2ac5bd4033b3c169),
        ("exponential", 1.6040344677932983, 0x1c261f0f3741833a),
        ("exponential tail", 8.018639854344325, 0x1d0f16853a26f9c8),
        ("normal tail", -4.4069415481562215, 0xb3c59b4e74de550a),
        ("normal", -0.43220513044996, 0x3a30cfb08b9ae626),
        ("gamma 0.25", 0.0076658355491654945, 0xb2ecddfed0d7bf48),
        ("gamma 4", 3.7758973050713927, 0xac3e99d4498238ae),
        ("lognormal", 1.0569009210464795, 0x743e3a257cc47da6),
        ("weibull", 0.06905739306044216, 0xc3ff012e99826172),
        ("pareto", 1.6854546414954954, 0x240e9687a3388a2e),
        ("poisson 3", 4.0, 0x766e840257177885),
        ("poisson 300", 336.0, 0x14af5c0d42acd611),
        ("zipf", 47.0, 0xac7537e1264f81de),
    ];

    #[test]
    fn the_first_draws_are_the_written_ones() {
        for (drawn, written) in draws().into_iter().zip(WRITTEN) {
            let (name, first, digest) = drawn;
            assert_eq!(drawn, *written, "now (\"{name}\", {first:?}, 0x{digest:016x})");
        }
    }

    /// The same in a process whose C library is told that the CPU has neither AVX2 nor FMA: the
    /// system's `ln`, `exp` and `pow` then give other bits, ours must not.
    #[test]
    fn draws_do_not_depend_on_what_the_cpu_can_do() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["rng::tests::the_first_draws_are_the_written_ones", "--exact"])
            .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    fn the_tails_are_where_rand_distr_puts_them() {
        // Both ways of taking the logarithm agree to the last few bits.
        let (mut ours, mut theirs) = (Rng::new(3), Xoshiro256PlusPlus::seed_from_u64(3));
        for _ in 0..300_000 {
            let (a, b): (f64, f64) = (ours.exp1(), Exp1.sample(&mut theirs));
            assert!((a - b).abs() <= 1e-14 * b, "{a} {b}");
            let (a, b): (f64, f64) = (ours.normal(), StandardNormal.sample(&mut theirs));
            assert!((a - b).abs() <= 1e-14 * b.abs(), "{a} {b}");
        }
    }

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

    /// Survival functions, far into the tails, where a million draws resolve them.
    #[test]
    fn draws_follow_their_distribution_into_the_tail() {
        let (mut rng, n) = (Rng::new(5), 1_000_000);
        let mut check = |draw: &dyn Fn(&mut Rng) -> f64, points: &[(f64, f64)]| {
            let draws: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
            for &(x, want) in points {
                let share = draws.iter().filter(|&&d| d > x).count() as f64 / f64::from(n);
                let error = (want * (1.0 - want) / f64::from(n)).sqrt();
                assert!((share - want).abs() < 4.0 * error, "beyond {x}: {share}, not {want}");
            }
            assert!(draws.iter().all(|d| d.is_finite()));
        };
        let exponential = [0.01, 0.1, 0.7, 2.0, 5.0, EXP_TAIL, 9.0].map(|x| (x, libm::exp(-x)));
        check(&|g| g.exp1(), &exponential);
        let beyond = |x: f64| libm::erfc(x / std::f64::consts::SQRT_2) / 2.0;
        let normal = [-3.8, -2.0, -0.1, 0.3, 1.0, 3.0, NORMAL_TAIL, 4.2].map(|x| (x, beyond(x)));
        check(&|g| g.normal(), &normal);
        let lognormal = |g: &mut Rng| g.sample(LogNormal::new(Real(0.0), Real(1.0)).unwrap());
        check(&lognormal, &normal.map(|(x, share)| (libm::exp(x), share)));
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
