//! Fits a device's contention constants to measured pairs of kernels.
//!
//! A pair ran on disjoint CUs, so only the memory system slows it. A model need not explain what the
//! sharing of bandwidth already explains: pairs that together ask for more bandwidth than there is are
//! left out of every fit. The rest is `slow-down − 1 = constants × features`, by least squares:
//!
//! | constant | features of one side |
//! |---|---|
//! | `l2_penalty` | share of the working sets that L2 cannot hold × its own DRAM utilisation |
//! | `igniter_cache` | the others' L2 utilisation |
//! | `linear` | own and others' L2 utilisation, own and others' DRAM utilisation, 1 (of the slow-down itself) |
//!
//! A fitted constant replaces the shipped one only if its error is smaller on pairs that it was not
//! fitted to: each pair is predicted from the others.

use cotenant_profiles::{Device, Profile};

/// The fewest sides of pairs needed for a fit.
pub const FEWEST: usize = 8;

/// One side of a measured pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Number of the pair in the profile.
    pub pair: usize,
    /// The kernel of this side, and its neighbour.
    pub kernels: [String; 2],
    /// CUs of the two kernels.
    pub cus: [u32; 2],
    /// Its duration beside the neighbour divided by its duration alone on the same CUs.
    pub slow_down: f64,
    /// Whether both together ask for more bandwidth than there is.
    pub starved: bool,
    features: Features,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Features {
    own: [f64; 2],
    others: [f64; 2],
    lost: f64,
}

/// A constant of a device file, shipped and fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its key in the table `contention`.
    pub key: &'static str,
    /// Its values in the device file.
    pub shipped: Vec<f64>,
    /// Its values fitted to the pairs; `None` if there are too few pairs.
    pub fitted: Option<Vec<f64>>,
    /// Mean absolute error of the predicted slow-down with the shipped constants.
    pub shipped_error: f64,
    /// The same error with constants that were not fitted to the pair.
    pub held_out_error: Option<f64>,
}

impl Constant {
    /// Whether the fitted constant has the smaller error on pairs that it was not fitted to.
    #[must_use]
    pub fn is_better(&self) -> bool {
        self.held_out_error.is_some_and(|e| e < self.shipped_error)
    }

    /// The constant to use.
    #[must_use]
    pub fn value(&self) -> &[f64] {
        self.fitted.as_ref().filter(|_| self.is_better()).unwrap_or(&self.shipped)
    }
}

/// The result of a fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Every side of every pair that has a slow-down.
    pub sides: Vec<Side>,
    /// The constants.
    pub constants: Vec<Constant>,
}

/// The sides of the measured pairs of `profile`.
#[must_use]
pub fn sides(profile: &Profile, device: &Device) -> Vec<Side> {
    let [l2, dram] = [device.memory.l2_gbps, device.memory.dram_gbps].map(|g| g.max(1e-9));
    let capacity = dram * device.analytic.dram_efficiency;
    let mut all = vec![];
    for (pair, p) in profile.corun.iter().enumerate() {
        let both = [(p.a, p.duration_a_ns), (p.b, p.duration_b_ns)];
        let kernels = [p.a.0, p.b.0].map(|k| &profile.kernels[k]);
        let cus = [p.a.1, p.b.1];
        let alone = [0, 1].map(|i| kernels[i].curve.at(cus[i]).max(1));
        // One byte per nanosecond is 10^9 bytes per second.
        let rates = [0, 1].map(|i| kernels[i].dram_bytes as f64 / alone[i] as f64);
        let sets = kernels.map(|k| k.dram_bytes.min(device.memory.l2.0) as f64);
        let held = device.memory.l2.0 as f64;
        let lost = (1.0 - held / sets.iter().sum::<f64>().max(1.0)).max(0.0);
        for (i, (_, beside)) in both.into_iter().enumerate() {
            let of = |rate: f64| [rate / l2, rate / dram].map(|u| u.min(1.0));
            all.push(Side {
                pair,
                kernels: [i, 1 - i].map(|k| kernels[k].id.clone()),
                cus: [cus[i], cus[1 - i]],
                slow_down: beside as f64 / alone[i] as f64,
                starved: rates.iter().sum::<f64>() > capacity,
                features: Features { own: of(rates[i]), others: of(rates[1 - i]), lost },
            });
        }
    }
    all
}

/// The model of one constant: the features of a side, and the offset that is added to their sum to give
/// the slow-down.
struct Model {
    key: &'static str,
    offset: f64,
    features: fn(&Features) -> Vec<f64>,
}

const MODELS: [Model; 3] = [
    Model { key: "l2_penalty", offset: 1.0, features: |f| vec![f.lost * f.own[1]] },
    Model { key: "igniter_cache", offset: 1.0, features: |f| vec![f.others[0]] },
    Model {
        key: "linear",
        offset: 0.0,
        features: |f| vec![f.own[0], f.others[0], f.own[1], f.others[1], 1.0],
    },
];

impl Model {
    fn predict(&self, constants: &[f64], side: &Side) -> f64 {
        let features = (self.features)(&side.features);
        let sum: f64 = features.iter().zip(constants).map(|(f, c)| f * c).sum();
        (self.offset + sum).max(1.0)
    }

    fn error(&self, constants: &[f64], sides: &[&Side]) -> f64 {
        let off = |s: &&Side| (self.predict(constants, s) - s.slow_down).abs();
        sides.iter().map(off).sum::<f64>() / sides.len().max(1) as f64
    }

    fn fit(&self, sides: &[&Side]) -> Option<Vec<f64>> {
        let rows: Vec<Vec<f64>> = sides.iter().map(|s| (self.features)(&s.features)).collect();
        let target: Vec<f64> = sides.iter().map(|s| s.slow_down - self.offset).collect();
        if sides.len() < FEWEST {
            return None;
        }
        // A single constant that scales a pressure cannot be negative.
        let fitted = least_squares(&rows, &target)?;
        Some(if fitted.len() == 1 { vec![fitted[0].max(0.0)] } else { fitted })
    }

    /// The error on each pair of constants that were fitted to the other pairs.
    fn held_out(&self, sides: &[&Side]) -> Option<f64> {
        let mut pairs: Vec<usize> = sides.iter().map(|s| s.pair).collect();
        pairs.dedup();
        let (mut sum, mut n) = (0.0, 0);
        for pair in pairs {
            let others: Vec<&Side> = sides.iter().filter(|s| s.pair != pair).copied().collect();
            let these: Vec<&Side> = sides.iter().filter(|s| s.pair == pair).copied().collect();
            sum += self.error(&self.fit(&others)?, &these) * these.len() as f64;
            n += these.len();
        }
        (n > 0).then(|| sum / n as f64)
    }
}

/// Fits the constants of `device` to the pairs of `profile`.
#[must_use]
pub fn fit(profile: &Profile, device: &Device) -> Fit {
    let sides = sides(profile, device);
    let free: Vec<&Side> = sides.iter().filter(|s| !s.starved).collect();
    let c = &device.contention;
    let constants = MODELS.iter().map(|model| {
        let shipped = match model.key {
            "l2_penalty" => vec![c.l2_penalty],
            "igniter_cache" => vec![c.igniter_cache],
            _ => c.linear.to_vec(),
        };
        Constant {
            key: model.key,
            shipped_error: model.error(&shipped, &free),
            fitted: model.fit(&free),
            held_out_error: model.held_out(&free),
            shipped,
        }
    });
    let constants = constants.collect();
    Fit { sides, constants }
}

/// Solves `rows × x = target` in the least-squares sense, by the normal equations with a slight
/// preference for small constants, since columns may be alike. `None` if a number is not finite.
fn least_squares(rows: &[Vec<f64>], target: &[f64]) -> Option<Vec<f64>> {
    let n = rows.first()?.len();
    let mut a = vec![vec![0.0; n + 1]; n];
    for (row, y) in rows.iter().zip(target) {
        for i in 0..n {
            for j in 0..n {
                a[i][j] += row[i] * row[j];
            }
            a[i][n] += row[i] * y;
        }
    }
    let scale = (0..n).map(|i| a[i][i]).fold(0.0, f64::max).max(1e-12);
    for (i, row) in a.iter_mut().enumerate() {
        row[i] += 1e-9 * scale;
    }
    for i in 0..n {
        let pivot = (i..n).max_by(|&x, &y| a[x][i].abs().total_cmp(&a[y][i].abs()))?;
        a.swap(i, pivot);
        let lead = a[i].clone();
        for (j, row) in a.iter_mut().enumerate() {
            if j != i {
                let by = row[i] / lead[i];
                row.iter_mut().zip(&lead).for_each(|(v, l)| *v -= by * l);
            }
        }
    }
    let x: Vec<f64> = (0..n).map(|i| a[i][n] / a[i][i]).collect();
    x.iter().all(|v| v.is_finite()).then_some(x)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cotenant_profiles::curve::Point;
    use cotenant_profiles::kernel::{CoRun, Op};
    use cotenant_profiles::{Curve, Kernel, Source};

    use super::*;

    /// Kernels of rising bandwidth, and every pair of them slowed down according to `law`.
    fn profile(law: impl Fn(&Side) -> f64) -> (Profile, Device) {
        let device = Device::builtin("h200-sxm").unwrap();
        let kernel = |i: u64| Kernel {
            id: format!("k{i}"),
            name: format!("k{i}"),
            op: Op::Other,
            grid: [1000, 1, 1],
            block: 256,
            regs: 32,
            smem_bytes: 0,
            blocks_per_cu: 4,
            flops: 0,
            dram_bytes: (40 << 20) * (i + 1),
            curve: Curve::new(vec![Point::exact(66, 100_000), Point::exact(132, 60_000)]).unwrap(),
        };
        let mut profile = Profile {
            device: device.name.clone(),
            source: Source::Analytic,
            provenance: BTreeMap::new(),
            kernels: (0..6).map(kernel).collect(),
            models: BTreeMap::new(),
            corun: vec![],
        };
        for a in 0..6 {
            for b in a..6 {
                let (duration_a_ns, duration_b_ns) = (100_000, 100_000);
                let (a, b, samples) = ((a, 66), (b, 66), 10);
                profile.corun.push(CoRun { a, b, duration_a_ns, duration_b_ns, samples });
            }
        }
        for side in sides(&profile, &device) {
            let ns = (100_000.0 * law(&side)).round() as u64;
            let pair = &mut profile.corun[side.pair];
            let first = profile.kernels[pair.a.0].id == side.kernels[0];
            if first {
                pair.duration_a_ns = ns
            } else {
                pair.duration_b_ns = ns
            }
            if pair.a.0 == pair.b.0 {
                (pair.duration_a_ns, pair.duration_b_ns) = (ns, ns);
            }
        }
        (profile, device)
    }

    #[test]
    fn the_constant_behind_the_pairs_is_found() {
        let (profile, device) = profile(|s| 1.0 + 0.5 * s.features.others[0]);
        let fit = fit(&profile, &device);
        let of = |key: &str| fit.constants.iter().find(|c| c.key == key).unwrap();
        let cache = of("igniter_cache");
        assert!((cache.value()[0] - 0.5).abs() < 1e-3, "{cache:?}");
        assert!(cache.is_better() && cache.held_out_error.unwrap() < 1e-4, "{cache:?}");
        // The linear model includes that one.
        assert!(of("linear").held_out_error.unwrap() < 1e-3);
        assert!(fit.sides.iter().any(|s| s.starved), "the largest ask for more than there is");
    }

    #[test]
    fn too_few_pairs_leave_the_shipped_constants() {
        let (mut profile, device) = profile(|_| 1.3);
        profile.corun.truncate(2);
        let fit = fit(&profile, &device);
        for c in &fit.constants {
            assert_eq!(c.value(), c.shipped, "{c:?}");
        }
    }
}
