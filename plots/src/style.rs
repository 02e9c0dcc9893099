//! Colours, markers and dashes: a policy has the same ones in every figure of every experiment.
//!
//! The colours are based on those of Okabe and Ito ("Color Universal Design", 2008) and of Paul Tol's "muted"
//! scheme ("Colour Schemes", SRON/EPS/TN/09-002). A search then moved them apart until any two policies
//! differed by at least 10 (CIEDE2000) in normal and in deuteranope vision; a test checks that they still do.
//! Since two dozen hues are hard to remember, marker shape and dash differ as well.

use cotenant_results::RunInfo;

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Rgb {
    const fn of(value: u32) -> Self {
        Self((value >> 16) as u8, (value >> 8) as u8, value as u8)
    }

    /// Reads `#rrggbb`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        u32::from_str_radix(text.strip_prefix('#')?, 16).ok().map(Self::of)
    }

    /// `#rrggbb`.
    pub(crate) fn hex(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    /// The same hue for dark mode: lightened until it is visible on a dark background.
    pub(crate) fn on_dark(self) -> Self {
        let steps = (0..=10).map(|i| self.towards(PAPER, f64::from(i) * 0.08));
        steps.into_iter().find(|c| c.luma() > 105.0).unwrap_or(PAPER)
    }

    /// Luma of ITU-R BT.601, 0 to 255.
    fn luma(self) -> f64 {
        0.299 * f64::from(self.0) + 0.587 * f64::from(self.1) + 0.114 * f64::from(self.2)
    }

    /// The colour at `share` of the way to `other`.
    pub(crate) fn towards(self, other: Self, share: f64) -> Self {
        let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share) as u8;
        Self(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }

    /// Whether black text is easier to read on it than white text.
    pub(crate) fn is_light(self) -> bool {
        self.luma() > 140.0
    }
}

/// Text and axes.
pub(crate) const INK: Rgb = Rgb::of(0x222222);
/// Notes and secondary text.
pub(crate) const FAINT: Rgb = Rgb::of(0x666666);
/// Grid lines.
pub(crate) const GRID: Rgb = Rgb::of(0xe4e4e4);
/// Background.
pub(crate) const PAPER: Rgb = Rgb::of(0xffffff);

/// Text on light and on dark tiles: unchanged in dark mode, so they are not [`INK`] and [`PAPER`].
pub(crate) const ON_LIGHT: Rgb = Rgb::of(0x1b1b1b);
/// See [`ON_LIGHT`].
pub(crate) const ON_DARK: Rgb = Rgb::of(0xf7f7f7);

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
    Look { color: Rgb::of(hex), shape, dash: DASHES[dash] }
}

/// The fixed assignment of looks to policies.
const POLICIES: [(&str, Look); 24] = [
    ("temporal", look(0x7f745f, Shape::Square, 0)),
    ("mps", look(0x045d8f, Shape::Circle, 0)),
    ("mps-percent", look(0x52afe1, Shape::Up, 0)),
    ("mps-static", look(0x302087, Shape::Down, 0)),
    ("mig", look(0xff9ff9, Shape::Diamond, 0)),
    ("gslice", look(0xe69f00, Shape::Plus, 0)),
    ("krisp", look(0xce5800, Shape::Star, 0)),
    ("eclip", look(0x851e51, Shape::Cross, 0)),
    ("coalesce", look(0x009b97, Shape::Square, 1)),
    ("dnnscaler", look(0x12806c, Shape::Circle, 1)),
    ("clipper", look(0xd6c77e, Shape::Up, 1)),
    ("dstack", look(0x65c0a8, Shape::Down, 1)),
    ("autotune", look(0xa64298, Shape::Diamond, 1)),
    ("streams", look(0x96acbe, Shape::Plus, 1)),
    ("orion", look(0xe5795a, Shape::Star, 1)),
    ("reef", look(0x006b3e, Shape::Cross, 1)),
    ("tally", look(0x856b2e, Shape::Square, 2)),
    ("lithos", look(0xc46388, Shape::Circle, 2)),
    ("xsched", look(0x5569cd, Shape::Up, 2)),
    ("hami", look(0xa98c77, Shape::Down, 2)),
    ("serve", look(0x24da9b, Shape::Diamond, 2)),
    ("overlap", look(0x405d00, Shape::Plus, 2)),
    ("pd-mux", look(0x9273ff, Shape::Star, 2)),
    ("ideal", look(0x111111, Shape::Cross, 2)),
];

/// For policies without a fixed assignment; the name selects one, so that it stays the same.
const STRANGERS: [Look; 5] = [
    look(0x6699cc, Shape::Cross, 3),
    look(0xee8866, Shape::Plus, 3),
    look(0x117733, Shape::Square, 3),
    look(0x997700, Shape::Circle, 3),
    look(0xcc6677, Shape::Up, 3),
];

/// Colours of series that are not policies: tenants, models, kernels, sweep values.
const OTHERS: [u32; 8] =
    [0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x332288, 0x999933];

/// The look of a policy under its own name.
pub(crate) fn policy_look(policy: &str) -> Look {
    if let Some((_, look)) = POLICIES.iter().find(|(name, _)| *name == policy) {
        return *look;
    }
    // FNV-1a: the look of a name must not depend on the program's version or the run.
    let hash = policy
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    STRANGERS[(hash % STRANGERS.len() as u64) as usize]
}

/// The `n`-th of several variants of one policy: the same hue, alternately lighter and darker.
fn variant(look: Look, n: usize) -> Look {
    if n == 0 {
        return look;
    }
    let (toward, share) = match n % 3 {
        1 => (PAPER, 0.42),
        2 => (Rgb::of(0x000000), 0.38),
        _ => (PAPER, 0.66),
    };
    let start = SHAPES.iter().position(|s| *s == look.shape).unwrap_or(0);
    Look {
        color: look.color.towards(toward, share),
        shape: SHAPES[(start + n) % SHAPES.len()],
        dash: DASHES[n % DASHES.len()],
    }
}

/// The look of the `n`-th series that is not a policy.
pub(crate) fn other_look(n: usize) -> Look {
    let color = Rgb::of(OTHERS[n % OTHERS.len()]);
    let round = n / OTHERS.len();
    Look { color, shape: SHAPES[(n + round) % SHAPES.len()], dash: DASHES[round % DASHES.len()] }
}

/// The looks of all labels of one run.
#[derive(Clone, Debug)]
pub(crate) struct Looks {
    labels: Vec<(String, Look)>,
}

impl Looks {
    /// Assigns looks: the label that equals its policy's name gets the policy's own look; if there is none,
    /// the policy's first label does. Further labels are variants, in file order.
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

    /// The look of a label; a label that the run does not list looks like the policy with its name.
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

/// Sample colours of cividis (Nuñez, Anderton and Renslow, PLOS ONE 2018), a map that is perceptually uniform
/// with and without colour-vision deficiency.
const CIVIDIS: [u32; 10] = [
    0x00224e, 0x123570, 0x3b496c, 0x575d6d, 0x707173, 0x8a8678, 0xa59c74, 0xc3b369, 0xe1cc55,
    0xfee838,
];

/// Whether a colour belongs to the map, or to the text on its tiles: these are unchanged in dark mode.
pub(crate) fn stays(color: Rgb) -> bool {
    let of_policy = POLICIES.iter().any(|(_, l)| l.color == color);
    let near = |i: u32| {
        let c = map_color(f64::from(i) / 512.0);
        let d = |a: u8, b: u8| i32::from(a).abs_diff(i32::from(b));
        d(c.0, color.0).max(d(c.1, color.1)).max(d(c.2, color.2)) <= 1
    };
    [ON_LIGHT, ON_DARK].contains(&color) || (!of_policy && (0..=512).any(near))
}

/// The map's colour at `share` in 0..=1.
pub(crate) fn map_color(share: f64) -> Rgb {
    let place = share.clamp(0.0, 1.0) * (CIVIDIS.len() - 1) as f64;
    let i = (place as usize).min(CIVIDIS.len() - 2);
    Rgb::of(CIVIDIS[i]).towards(Rgb::of(CIVIDIS[i + 1]), place - i as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cotenant_results::PolicyInfo;

    fn run(labels: &[(&str, &str)]) -> RunInfo {
        let policy = |&(label, name): &(&str, &str)| PolicyInfo {
            label: label.into(),
            name: name.into(),
            ..PolicyInfo::default()
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

    /// Lab coordinates in normal and in deuteranope vision (Machado, Oliveira and Fernandes, "A
    /// Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1).
    fn seen(c: Rgb) -> [palette::Lab; 2] {
        use palette::{FromColor, Lab, LinSrgb, Srgb};
        let l: LinSrgb = Srgb::new(c.0, c.1, c.2).into_format::<f32>().into_linear();
        let mix = |a: f32, b: f32, d: f32| (a * l.red + b * l.green + d * l.blue).clamp(0.0, 1.0);
        let deuteranope = LinSrgb::new(
            mix(0.367_322, 0.860_646, -0.227_968),
            mix(0.280_085, 0.672_501, 0.047_413),
            mix(-0.011_820, 0.042_940, 0.968_881),
        );
        [Lab::from_color(l), Lab::from_color(deuteranope)]
    }

    #[test]
    fn any_two_policies_are_ten_apart_for_everybody() {
        use palette::color_difference::Ciede2000;
        for (i, (one, a)) in POLICIES.iter().enumerate() {
            for (other, b) in &POLICIES[i + 1..] {
                for (p, q) in seen(a.color).into_iter().zip(seen(b.color)) {
                    let apart = p.difference(q);
                    assert!(apart >= 10.0, "{one} and {other}: {apart}");
                }
            }
        }
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
