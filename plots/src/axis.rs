//! Axes: their range, the places of ticks and their labels. plotters maps and draws with them; it has no
//! ticks at 1, 2 and 5 times powers of ten, no axes of names and no tail axes.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::font;
use cotenant_results::format::{fixed, plain, pretty};

/// Size of tick labels, px.
pub(crate) const TICK_SIZE: f64 = 11.0;

/// How values map to positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Linear.
    Linear { lo: f64, hi: f64 },
    /// Logarithmic; both ends are above 0.
    Log { lo: f64, hi: f64 },
    /// Value `i` is the `i`-th name.
    Names(Vec<String>),
    /// Percentages with more room for those near 100: logarithmic in the distance from 100 %, up to 99.9 %.
    Tail,
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    /// The quantity, with its unit.
    pub(crate) title: String,
    /// The mapping.
    pub(crate) scale: Scale,
    /// Values that get ticks if their labels fit.
    pub(crate) at: Vec<f64>,
    /// Ticks with their labels, chosen once the available room is known.
    pub(crate) ticks: Vec<Tick>,
}

/// A tick: its value and its label.
pub(crate) type Tick = (f64, String);

/// End of the tail axis, %.
const TAIL_END: f64 = 99.95;

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        // Values that a logarithmic axis cannot show are put at its lower end.
        let place = self.place(*value).unwrap_or(0.0);
        from + (f64::from(to - from) * place).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => vec![],
            false => self.ticks.iter().map(|t| t.0).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        0.0..1.0
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|t| t.0 == *value).map_or(String::new(), |t| t.1.clone())
    }
}

impl Axis {
    fn of(title: &str, scale: Scale) -> Self {
        Self { title: title.to_owned(), scale, at: vec![], ticks: vec![] }
    }

    /// One position for each name.
    pub(crate) fn names(title: &str, names: Vec<String>) -> Self {
        Self::of(title, Scale::Names(names))
    }

    /// Percentages, with those near 100 spread out.
    pub(crate) fn tail(title: &str) -> Self {
        Self::of(title, Scale::Tail)
    }

    /// A linear axis with exactly these ends.
    pub(crate) fn exact(title: &str, lo: f64, hi: f64) -> Self {
        let hi = if hi > lo { hi } else { lo + 1.0 };
        Self::of(title, Scale::Linear { lo, hi })
    }

    /// An axis that contains `values` and ends at round numbers; a linear one starts at zero.
    pub(crate) fn from_zero(title: &str, values: &[f64], log: bool) -> Self {
        let (lo, hi) = ends(values, log);
        if !log {
            let (lo, hi) = ((lo * 1.04).min(0.0), (hi * 1.04).max(0.0));
            let hi = if hi > lo { hi } else { lo + 1.0 };
            let step = step(hi - lo, 9.0);
            return Self::exact(title, (lo / step).floor() * step, (hi / step).ceil() * step);
        }
        let (lo, hi) = (1.0 / step(1.05 / lo, 1.0), step(hi * 1.05, 1.0));
        let room = if hi / lo < 4.0 { 1.6 } else { 1.0 };
        Self::of(title, Scale::Log { lo: lo / room, hi: hi * room })
    }

    /// An axis that spans `values` with a little room on both sides.
    pub(crate) fn spanning(title: &str, values: &[f64], log: bool) -> Self {
        let (lo, hi) = ends(values, log);
        if log {
            let pad = (hi / lo).powf(0.05).max(1.05);
            return Self::of(title, Scale::Log { lo: lo / pad, hi: hi * pad });
        }
        let pad = if hi > lo { (hi - lo) * 0.04 } else { hi.abs().max(1.0) * 0.5 };
        Self::exact(title, lo - pad, hi + pad)
    }

    /// An axis that spans `values` with room for markers, but only below 0 if a value is.
    pub(crate) fn around(title: &str, values: &[f64], log: bool) -> Self {
        let mut axis = Self::spanning(title, values, log);
        if let Scale::Linear { lo, hi } = &mut axis.scale {
            let pad = (*hi - *lo) * 0.037;
            let least = ends(values, false).0;
            *lo = (*lo - pad).max(if least >= 0.0 { 0.0 } else { f64::NEG_INFINITY });
            *hi += pad;
        }
        axis
    }

    /// Limits the upper end: a share never exceeds 100 %, so no room is left above it.
    pub(crate) fn capped(mut self, at: f64) -> Self {
        if let Scale::Linear { hi, .. } = &mut self.scale {
            *hi = hi.min(at);
        }
        self
    }

    /// The values at its lower and its upper end.
    pub(crate) fn ends(&self) -> (f64, f64) {
        match &self.scale {
            Scale::Linear { lo, hi } | Scale::Log { lo, hi } => (*lo, *hi),
            Scale::Names(names) => (-0.5, names.len() as f64 - 0.5),
            Scale::Tail => (0.0, TAIL_END),
        }
    }

    /// Prefers ticks at these values; values outside the axis are ignored.
    pub(crate) fn ticks_at(mut self, values: &[f64]) -> Self {
        self.at = values.iter().copied().filter(|v| self.holds(*v)).collect();
        self.at.sort_by(f64::total_cmp);
        self.at.dedup();
        self
    }

    /// Position of `value` in 0..=1, or outside that range beyond the ends; `None` if it has no position.
    pub(crate) fn place(&self, value: f64) -> Option<f64> {
        let tail = |v: f64| -(1.0 - v / 100.0).log10();
        let place = match &self.scale {
            Scale::Linear { lo, hi } => (value - lo) / (hi - lo),
            Scale::Log { .. } if value <= 0.0 => return None,
            Scale::Log { lo, hi } => (value / lo).ln() / (hi / lo).ln(),
            Scale::Names(names) => (value + 0.5) / names.len().max(1) as f64,
            Scale::Tail => tail(value.min(TAIL_END)) / tail(TAIL_END),
        };
        place.is_finite().then(|| place.clamp(-50.0, 50.0))
    }

    /// Whether a value lies between the ends.
    pub(crate) fn holds(&self, value: f64) -> bool {
        self.place(value).is_some_and(|p| (0.0..=1.0).contains(&p))
    }

    /// Chooses the ticks for an axis of `room` px; labels on a horizontal axis must not touch.
    pub(crate) fn settle(&mut self, room: f64, horizontal: bool) {
        self.ticks = self.choose(room, horizontal);
    }

    fn choose(&self, room: f64, horizontal: bool) -> Vec<Tick> {
        let wanted: Vec<Tick> = self.at.iter().map(|v| (*v, plain(*v))).collect();
        if !wanted.is_empty() && self.fits(&wanted, room, horizontal) {
            return wanted;
        }
        let most = (room / if horizontal { 58.0 } else { 34.0 }).clamp(2.0, 10.0);
        let ticks = match &self.scale {
            Scale::Linear { lo, hi } => linear_ticks(*lo, *hi, most),
            Scale::Log { lo, hi } => log_ticks(*lo, *hi, most),
            Scale::Tail => [0.0, 50.0, 90.0, 99.0, 99.9].map(|v| (v, plain(v))).to_vec(),
            Scale::Names(names) => {
                return names.iter().enumerate().map(|(i, n)| (i as f64, n.clone())).collect();
            }
        };
        if self.fits(&ticks, room, horizontal) {
            return ticks;
        }
        ticks.into_iter().step_by(2).collect()
    }

    fn fits(&self, ticks: &[Tick], room: f64, horizontal: bool) -> bool {
        let gap = |t: &Tick| {
            let extent = if horizontal { font::width(&t.1, TICK_SIZE) } else { TICK_SIZE };
            self.place(t.0).map(|p| (p * room, extent))
        };
        ticks.windows(2).all(|pair| match (gap(&pair[0]), gap(&pair[1])) {
            (Some((a, wa)), Some((b, wb))) => (b - a).abs() >= f64::midpoint(wa, wb) + 7.0,
            _ => true,
        })
    }
}

/// The smallest and the largest value; on a logarithmic axis only of those above 0.
fn ends(values: &[f64], log: bool) -> (f64, f64) {
    let shown = || values.iter().copied().filter(|v| !log || *v > 0.0);
    let (lo, hi) =
        (shown().fold(f64::INFINITY, f64::min), shown().fold(f64::NEG_INFINITY, f64::max));
    match (lo.is_finite() && hi.is_finite(), log) {
        (true, _) => (lo, hi),
        (false, true) => (1.0, 10.0),
        (false, false) => (0.0, 1.0),
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides `span` into about `parts` parts at most.
fn step(span: f64, parts: f64) -> f64 {
    let raw = (span / parts).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= raw * 0.999);
    factor.unwrap_or(10.0) * power
}

fn linear_ticks(lo: f64, hi: f64, most: f64) -> Vec<Tick> {
    let step = step(hi - lo, most);
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let first = (lo / step - 1e-6).ceil();
    (0..64)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|v| *v <= hi + step * 1e-6)
        .map(|v| (v, if hi.abs().max(lo.abs()) >= 1e9 { pretty(v) } else { fixed(v, decimals) }))
        .collect()
}

fn log_ticks(lo: f64, hi: f64, most: f64) -> Vec<Tick> {
    let decades = (hi / lo).log10();
    let every = (decades / most).ceil().max(1.0) as i32;
    let powers = lo.log10().floor() as i32..=hi.log10().ceil() as i32;
    let ticks = |factors: &[f64]| -> Vec<Tick> {
        let powers = powers.clone().filter(|e| e.rem_euclid(every) == 0);
        let all = powers.flat_map(|e| factors.iter().map(move |f| f * 10_f64.powi(e)));
        all.filter(|v| (lo * 0.9999..=hi * 1.0001).contains(v)).map(|v| (v, plain(v))).collect()
    };
    // On an axis that contains only one power of ten, that tick alone would tell nothing.
    let coarse = usize::from(decades * 3.0 > most + 1.0) * 2;
    let factors: [&[f64]; 3] = [&[1.0], &[1.0, 5.0], &[1.0, 2.0, 5.0]];
    let found = factors[2 - coarse..].iter().map(|f| ticks(f)).find(|ticks| ticks.len() >= 2);
    found.unwrap_or_else(|| linear_ticks(lo, hi, most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.choose(300.0, false).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_stand_at_round_values() {
        assert_eq!(
            labels(&Axis::from_zero("", &[93.0], false)),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            labels(&Axis::from_zero("", &[2.0, 45_000.0], true)),
            ["1", "10", "100", "1,000", "10,000"]
        );
        // In a narrow panel.
        let narrow = Axis::spanning("", &[1.7, 72.0], true);
        let narrow: Vec<String> = narrow.choose(220.0, true).into_iter().map(|t| t.1).collect();
        assert_eq!(narrow, ["5", "10", "50"]);
        let sweep = Axis::spanning("", &[1.0, 8.0], true).ticks_at(&[4.0, 1.0, 2.0, 8.0]);
        assert_eq!(labels(&sweep), ["1", "2", "4", "8"]);
    }

    proptest! {
        #[test]
        fn any_values_give_an_axis(
            values in proptest::collection::vec(-1e12..1e12f64, 0..6), log: bool,
        ) {
            for axis in [Axis::from_zero("", &values, log), Axis::spanning("", &values, log)] {
                for room in [5.0, 100.0, 900.0] {
                    let ticks = axis.choose(room, true);
                    prop_assert!(ticks.len() <= 64);
                }
                for v in &values {
                    if let Some(place) = axis.place(*v) {
                        prop_assert!((-1e-6..=1.0 + 1e-6).contains(&place), "{} {:?}", v, axis);
                    }
                }
            }
        }
    }
}
