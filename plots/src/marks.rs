//! Marks of a panel, from data to pixels.

use crate::axis::Axis;
use crate::figure::Mark;
use crate::scene::{Anchor, Item, Rect, Scene, Stroke};
use crate::style::{FAINT, INK, Look, PAPER, Rgb, Shape};

/// A plot area with its axes.
pub(crate) struct Frame<'a> {
    pub(crate) area: Rect,
    pub(crate) x: &'a Axis,
    pub(crate) y: &'a Axis,
}

impl Frame<'_> {
    pub(crate) fn x_at(&self, value: f64) -> Option<f64> {
        self.x.place(value).map(|p| self.area.x + p * self.area.w)
    }
    pub(crate) fn y_at(&self, value: f64) -> Option<f64> {
        self.y.place(value).map(|p| self.area.y + (1.0 - p) * self.area.h)
    }
    fn at(&self, p: (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x_at(p.0)?, self.y_at(p.1)?))
    }
    /// What a logarithmic axis cannot show lies at its lower end.
    fn y_or_floor(&self, value: f64) -> f64 {
        self.y_at(value).unwrap_or(self.area.bottom())
    }
}

/// Draws one mark.
pub(crate) fn draw(scene: &mut Scene, frame: &Frame<'_>, mark: &Mark) {
    match mark {
        Mark::Line { points, color, dash, width } => {
            let points: Vec<_> = points.iter().filter_map(|p| frame.at(*p)).collect();
            let stroke = Some(Stroke { color: *color, width: *width, dash });
            scene.items.push(Item::Path {
                points,
                closed: false,
                fill: None,
                stroke,
                clip: Some(frame.area),
            });
        }
        Mark::Band { points, color, opacity } => band(scene, frame, points, *color, *opacity),
        Mark::Point { at, look, hollow } => {
            if let Some(at) = frame.at(*at) {
                marker(scene, at, *look, *hollow);
            }
        }
        Mark::ErrorY { x, low, high, color } => {
            if let Some(x) = frame.x_at(*x) {
                let (low, high) = (frame.y_or_floor(*low), frame.y_or_floor(*high));
                whisker(scene, (x, low), (x, high), (4.0, 0.0), *color);
            }
        }
        Mark::ErrorX { y, low, high, color } => {
            if let Some(y) = frame.y_at(*y) {
                let left = frame.x_at(*low).unwrap_or(frame.area.x);
                let right = frame.x_at(*high).unwrap_or(frame.area.right());
                whisker(scene, (left, y), (right, y), (0.0, 4.0), *color);
            }
        }
        Mark::Bar { from, to, top, color } => {
            if let (Some(left), Some(right)) = (frame.x_at(*from), frame.x_at(*to)) {
                let (zero, end) = (frame.y_or_floor(0.0), frame.y_or_floor(*top));
                let (y, h) = (zero.min(end), (zero - end).abs());
                let bar = Rect { x: left, y, w: right - left, h };
                scene.rect(bar, Some((*color, 1.0)), Some(Stroke::solid(PAPER, 0.6)));
            }
        }
        Mark::Rule { x, label } => rule(scene, frame, *x, label),
        Mark::Tile { x, y, color, text } => tile(scene, frame, (*x, *y), *color, text),
        Mark::Ring { at, color } => {
            if let Some(at) = frame.at(*at) {
                ring(scene, at, *color);
            }
        }
        Mark::Note { at, text } => {
            if let Some((x, y)) = frame.at(*at) {
                scene.text_as((x, y - 4.0), text, 12.0, Anchor::Middle, 0.0, FAINT);
            }
        }
    }
}

fn band(scene: &mut Scene, frame: &Frame<'_>, points: &[(f64, f64, f64)], color: Rgb, share: f64) {
    let edge = |x: f64, y: f64| frame.x_at(x).map(|x| (x, frame.y_or_floor(y)));
    let mut outline: Vec<_> = points.iter().filter_map(|p| edge(p.0, p.2)).collect();
    outline.extend(points.iter().rev().filter_map(|p| edge(p.0, p.1)));
    scene.items.push(Item::Path {
        points: outline,
        closed: true,
        fill: Some((color, share)),
        stroke: None,
        clip: Some(frame.area),
    });
}

fn whisker(scene: &mut Scene, a: (f64, f64), b: (f64, f64), cap: (f64, f64), color: Rgb) {
    // A white edge, so that it shows on a dark bar as well.
    for stroke in [Stroke::solid(PAPER, 3.0), Stroke::solid(color, 1.2)] {
        scene.line(a, b, stroke);
        for end in [a, b] {
            scene.line((end.0 - cap.0, end.1 - cap.1), (end.0 + cap.0, end.1 + cap.1), stroke);
        }
    }
}

fn rule(scene: &mut Scene, frame: &Frame<'_>, x: f64, label: &str) {
    let area = frame.area;
    let Some(x) = frame.x_at(x).filter(|x| (area.x..=area.right()).contains(x)) else { return };
    let stroke = Stroke { color: FAINT, width: 1.2, dash: &[4.0, 3.0] };
    scene.line((x, area.y), (x, area.bottom()), stroke);
    // On whichever side has room.
    let (at, anchor) = match x > area.x + area.w / 2.0 {
        true => (x - 5.0, Anchor::End),
        false => (x + 5.0, Anchor::Start),
    };
    scene.text_as((at, area.bottom() - 8.0), label, 10.5, anchor, 0.0, FAINT);
}

fn tile(scene: &mut Scene, frame: &Frame<'_>, at: (f64, f64), color: Option<Rgb>, text: &str) {
    let corners = (
        frame.x_at(at.0 - 0.5),
        frame.x_at(at.0 + 0.5),
        frame.y_at(at.1 + 0.5),
        frame.y_at(at.1 - 0.5),
    );
    let (Some(left), Some(right), Some(top), Some(bottom)) = corners else { return };
    let cell = Rect { x: left, y: top, w: right - left, h: bottom - top };
    let fill = color.unwrap_or(PAPER);
    scene.rect(cell, Some((fill, 1.0)), Some(Stroke::solid(PAPER, 1.0)));
    let ink = if fill.is_light() { INK } else { PAPER };
    let size = 11.0;
    if crate::font::width(text, size) <= cell.w - 4.0 && cell.h > size + 2.0 {
        let middle = (f64::midpoint(left, right), f64::midpoint(top, bottom) + size * 0.36);
        scene.text_as(middle, text, size, Anchor::Middle, 0.0, ink);
    }
}

/// A ring around a marker.
pub(crate) fn ring(scene: &mut Scene, at: (f64, f64), color: Rgb) {
    let stroke = Some(Stroke::solid(color, 1.3));
    scene.items.push(Item::Circle { at, radius: 8.0, fill: None, stroke });
}

/// A marker.
pub(crate) fn marker(scene: &mut Scene, at: (f64, f64), look: Look, hollow: bool) {
    let r = 4.2;
    let fill = Some((if hollow { PAPER } else { look.color }, 1.0));
    let edge = if hollow { look.color } else { PAPER };
    let stroke = Some(Stroke::solid(edge, if hollow { 1.6 } else { 0.8 }));
    let polygon: Vec<(f64, f64)> = match look.shape {
        Shape::Circle => {
            scene.items.push(Item::Circle { at, radius: r, fill, stroke });
            return;
        }
        Shape::Cross | Shape::Plus => {
            let arms: [(f64, f64); 2] = if look.shape == Shape::Plus {
                [(5.0, 0.0), (0.0, 5.0)]
            } else {
                [(r, r), (r, -r)]
            };
            let stroke = Stroke::solid(look.color, 2.4);
            for (dx, dy) in arms {
                scene.line((at.0 - dx, at.1 - dy), (at.0 + dx, at.1 + dy), stroke);
            }
            return;
        }
        Shape::Square => vec![(-r, -r), (r, -r), (r, r), (-r, r)],
        Shape::Diamond => vec![(0.0, -5.6), (5.2, 0.0), (0.0, 5.6), (-5.2, 0.0)],
        Shape::Up => vec![(0.0, -5.4), (5.2, 4.0), (-5.2, 4.0)],
        Shape::Down => vec![(0.0, 5.4), (5.2, -4.0), (-5.2, -4.0)],
        Shape::Star => (0..10)
            .map(|i| {
                let radius = if i % 2 == 0 { 6.4 } else { 2.7 };
                let (sin, cos) = (f64::from(i) * 36.0).to_radians().sin_cos();
                (radius * sin, -radius * cos)
            })
            .collect(),
    };
    let points = polygon.into_iter().map(|(x, y)| (at.0 + x, at.1 + y)).collect();
    scene.items.push(Item::Path { points, closed: true, fill, stroke, clip: None });
}
