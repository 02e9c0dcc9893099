//! Names next to points, each on a side where it touches neither a point nor another name.

use crate::figure::{Mark, Side};
use crate::font;

/// Size of the text next to points, px.
pub(crate) const LABEL_SIZE: f64 = 10.5;
/// Half the side of the square that a marker with its ring covers.
const MARKER: f64 = 8.5;
/// Distance of a name from its point, px: at the side, and above or below.
pub(crate) const ASIDE: f64 = 9.0;
pub(crate) const OVER: f64 = 6.0;

/// Left, top, right, bottom, px.
type Area = [f64; 4];

/// The occupied areas of a panel.
pub(crate) struct Taken {
    frame: Area,
    areas: Vec<Area>,
}

impl Taken {
    /// The areas of the markers among `marks`, in a panel with frame `frame`.
    pub(crate) fn by(
        marks: &[Mark],
        place: impl Fn((f64, f64)) -> (f64, f64),
        frame: Area,
    ) -> Self {
        let marker = |m: &Mark| match m {
            Mark::Point { at, .. } => Some(place(*at)),
            _ => None,
        };
        let around = |(x, y)| [x - MARKER, y - MARKER, x + MARKER, y + MARKER];
        Self { frame, areas: marks.iter().filter_map(marker).map(around).collect() }
    }

    /// The side of the point on which a name is free of overlaps; that area is then occupied. `None` if the
    /// name would hide something on every side.
    pub(crate) fn side(&mut self, (x, y): (f64, f64), name: &str) -> Option<Side> {
        let (w, h) = (font::width(name, LABEL_SIZE), LABEL_SIZE * 1.1);
        let at = |side| match side {
            Side::Left => [x - ASIDE - w, y - h / 2.0],
            Side::Right => [x + ASIDE, y - h / 2.0],
            Side::Over => [x - w / 2.0, y - OVER - h],
            Side::Under => [x - w / 2.0, y + OVER],
            Side::Free => [x, y],
        };
        let sides = [Side::Over, Side::Right, Side::Left, Side::Under];
        let mut areas = sides.map(at).map(|[l, t]| [l, t, l + w, t + h]).into_iter();
        let [left, top, right, bottom] = self.frame;
        let inside = |a: &Area| a[0] >= left && a[1] >= top && a[2] <= right && a[3] <= bottom;
        let own = |b: &Area| (b[0] + MARKER - x).abs() < 0.5 && (b[1] + MARKER - y).abs() < 0.5;
        let meet = |a: &Area, b: &Area| a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
        let free = |a: &Area| inside(a) && !self.areas.iter().any(|b| !own(b) && meet(a, b));
        let n = areas.position(|a| free(&a))?;
        let [l, t] = at(sides[n]);
        self.areas.push([l, t, l + w, t + h]);
        Some(sides[n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_turns_around_a_point_until_no_side_is_left() {
        let mut taken = Taken { frame: [0.0, 0.0, 200.0, 100.0], areas: vec![] };
        let sides: Vec<_> = (0..5).map(|_| taken.side((100.0, 50.0), "mps")).collect();
        let all = [Side::Over, Side::Right, Side::Left, Side::Under].map(Some);
        assert_eq!(sides[..4], all);
        assert_eq!(sides[4], None);
        // At the right edge of the panel.
        assert_eq!(taken.side((195.0, 30.0), "mps-static"), Some(Side::Left));
    }
}
