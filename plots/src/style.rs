//! Colours, markers and dashes: the same for the same policy in every figure of every experiment.
//!
//! Base colours are those of Okabe and Ito ("Color Universal Design", 2008) and of Paul Tol's
//! "muted" scheme ("Colour Schemes", SRON/EPS/TN/09-002), both made for colour-blind readers. Since
//! nobody tells fourteen hues apart, marker shape and dash differ as well.

use cotenant_results::RunInfo;

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Rgb {
    const fn hex(value: u32) -> Self {
        Self((value >> 16) as u8, (value >> 8) as u8, value as u8)
    }

    /// `share` of the way to `other`.
    pub(crate) fn towards(self, other: Self, share: f64) -> Self {
        let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share) as u8;
        Self(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }

    /// Whether black text reads better on it than white.
    pub(crate) fn is_light(self) -> bool {
        0.299 * f64::from(self.0) + 0.587 * f64::from(self.1) + 0.114 * f64::from(self.2) > 140.0
    }
}

/// Text and axes.
pub(crate) const INK: Rgb = Rgb::hex(0x222222);
/// Notes and secondary text.
pub(crate) const FAINT: Rgb = Rgb::hex(0x666666);
/// Grid lines.
pub(crate) const GRID: Rgb = Rgb::hex(0xe4e4e4);
/// Background.
pub(crate) const PAPER: Rgb = Rgb::hex(0xffffff);

/// Marker shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Cross,
    Plus,
    Star,
}

const SHAPES: [Shape; 8] = [
    Shape::Circle,
    Shape::Square,
    Shape::Diamond,
    Shape::Up,
    Shape::Down,
    Shape::Cross,
    Shape::Plus,
    Shape::Star,
];

/// How a series looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    /// Colour.
    pub(crate) color: Rgb,
    /// Marker.
    pub(crate) shape: Shape,
    /// Dash lengths in px; empty: solid.
    pub(crate) dash: &'static [f64],
}

const DASHES: [&[f64]; 4] = [&[], &[7.0, 3.0], &[2.0, 3.0], &[9.0, 3.0, 2.0, 3.0]];

const fn look(hex: u32, shape: Shape, dash: usize) -> Look {
    Look { color: Rgb::hex(hex), shape, dash: DASHES[dash] }
}

/// The fixed assignment. Relatives are near each other in hue: MPS variants are blue.
const POLICIES: [(&str, Look); 14] = [
    ("temporal", look(0x7f7f7f, Shape::Square, 0)),
    ("mps", look(0x0072b2, Shape::Circle, 0)),
    ("mps-percent", look(0x56b4e9, Shape::Up, 0)),
    ("mps-static", look(0x332288, Shape::Down, 0)),
    ("mig", look(0xcc79a7, Shape::Diamond, 0)),
    ("gslice", look(0xe69f00, Shape::Plus, 0)),
    ("krisp", look(0xd55e00, Shape::Star, 0)),
    ("eclip", look(0x882255, Shape::Cross, 0)),
    ("coalesce", look(0x009e73, Shape::Circle, 1)),
    ("dnnscaler", look(0x999933, Shape::Square, 1)),
    ("clipper", look(0xddcc77, Shape::Up, 1)),
    ("dstack", look(0x44aa99, Shape::Down, 1)),
    ("autotune", look(0xaa4499, Shape::Diamond, 1)),
    ("ideal", look(0x111111, Shape::Star, 2)),
];

/// Policies that the fixed assignment does not know; the name picks one, so it stays the same.
const STRANGERS: [Look; 5] = [
    look(0x6699cc, Shape::Cross, 3),
    look(0xee8866, Shape::Plus, 3),
    look(0x117733, Shape::Square, 3),
    look(0x997700, Shape::Circle, 3),
    look(0xcc6677, Shape::Up, 3),
];

/// Series that are no policies: tenants, models, kernels, sweep values.
const OTHERS: [u32; 8] =
    [0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x332288, 0x999933];

/// The look of a policy under its own name.
pub(crate) fn policy_look(policy: &str) -> Look {
    if let Some((_, look)) = POLICIES.iter().find(|(name, _)| *name == policy) {
        return *look;
    }
    // FNV-1a: a name's place must not depend on the program's version or the run.
    let hash = policy
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    STRANGERS[(hash % STRANGERS.len() as u64) as usize]
}

/// The `n`-th of several variants of one policy: the same hue, lighter or darker in turn.
fn variant(look: Look, n: usize) -> Look {
    if n == 0 {
        return look;
    }
    let (toward, share) = match n % 3 {
        1 => (PAPER, 0.42),
        2 => (Rgb::hex(0x000000), 0.38),
        _ => (PAPER, 0.66),
    };
    let start = SHAPES.iter().position(|s| *s == look.shape).unwrap_or(0);
    Look {
        color: look.color.towards(toward, share),
        shape: SHAPES[(start + n) % SHAPES.len()],
        dash: DASHES[n % DASHES.len()],
    }
}

/// The look of the `n`-th series that is no policy.
pub(crate) fn other_look(n: usize) -> Look {
    let color = Rgb::hex(OTHERS[n % OTHERS.len()]);
    let round = n / OTHERS.len();
    Look { color, shape: SHAPES[(n + round) % SHAPES.len()], dash: DASHES[round % DASHES.len()] }
}

/// Looks of all labels of one run.
#[derive(Clone, Debug)]
pub(crate) struct Looks {
    labels: Vec<(String, Look)>,
}

impl Looks {
    /// Assigns looks: the label that equals its policy's name gets the policy's own, the first
    /// label of a policy does too where there is none, further ones are variants in file order.
    pub(crate) fn of(run: &RunInfo) -> Self {
        let mut labels = Vec::new();
        for (i, policy) in run.policies.iter().enumerate() {
            let same = |other: &&cotenant_results::PolicyInfo| other.name == policy.name;
            let own = run.policies.iter().filter(same).any(|p| p.label == p.name);
            let before = run.policies[..i].iter().filter(same);
            let n = if policy.label == policy.name {
                0
            } else {
                let variants = before.filter(|p| p.label != p.name).count();
                variants + usize::from(own)
            };
            labels.push((policy.label.clone(), variant(policy_look(&policy.name), n)));
        }
        Self { labels }
    }

    /// The look of a label; a label that the run does not list looks like the policy of its name.
    pub(crate) fn label(&self, label: &str) -> Look {
        self.labels.iter().find(|(l, _)| l == label).map_or_else(|| policy_look(label), |l| l.1)
    }

    /// The look of the `n`-th value `value` of the column `by`.
    pub(crate) fn series(&self, by: &str, value: &str, n: usize) -> Look {
        match by {
            "label" => self.label(value),
            "policy" => policy_look(value),
            _ => other_look(n),
        }
    }
}

/// Anchors of cividis (Nuñez, Anderton and Renslow, PLOS ONE 2018), a map that is perceptually
/// uniform with and without colour-vision deficiency.
const CIVIDIS: [u32; 10] = [
    0x00224e, 0x123570, 0x3b496c, 0x575d6d, 0x707173, 0x8a8678, 0xa59c74, 0xc3b369, 0xe1cc55,
    0xfee838,
];

/// The map's colour at `share` in 0..=1.
pub(crate) fn map_color(share: f64) -> Rgb {
    let place = share.clamp(0.0, 1.0) * (CIVIDIS.len() - 1) as f64;
    let i = (place as usize).min(CIVIDIS.len() - 2);
    Rgb::hex(CIVIDIS[i]).towards(Rgb::hex(CIVIDIS[i + 1]), place - i as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_results::PolicyInfo;

    fn run(labels: &[(&str, &str)]) -> RunInfo {
        let policy = |&(label, name): &(&str, &str)| PolicyInfo {
            label: label.into(),
            name: name.into(),
            options: String::new(),
        };
        RunInfo { policies: labels.iter().map(policy).collect(), ..RunInfo::default() }
    }

    #[test]
    fn a_policy_looks_the_same_whatever_stands_beside_it() {
        let alone = Looks::of(&run(&[("krisp", "krisp")]));
        let many = Looks::of(&run(&[("a", "mps"), ("KRISP-I", "krisp"), ("krisp", "krisp")]));
        assert_eq!(alone.label("krisp"), many.label("krisp"));
        assert_eq!(alone.label("krisp"), policy_look("krisp"));
        assert_ne!(many.label("KRISP-I"), many.label("krisp"));
        assert_eq!(many.label("a"), policy_look("mps"));
        assert_eq!(policy_look("orion"), policy_look("orion"));
    }

    #[test]
    fn known_policies_differ_pairwise_also_as_variants() {
        for (i, (_, a)) in POLICIES.iter().enumerate() {
            for (_, b) in &POLICIES[i + 1..] {
                assert_ne!(a.color, b.color);
                assert_ne!((a.shape, a.dash), (b.shape, b.dash));
            }
            for n in 1..4 {
                assert_ne!(variant(*a, n).color, a.color);
            }
        }
    }
}
