//! A panel's marks as plotters elements, at positions that plotters' coordinates determine.

use std::convert::Infallible;

use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::element::{Circle, PathElement, Polygon, Rectangle};
use plotters::prelude::DrawingArea;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, VPos};

use crate::axis::Axis;
use crate::figure::{Mark, Side};
use crate::labels::{ASIDE, LABEL_SIZE, OVER};
use crate::pen::{ink, rgb, stroke};
use crate::style::{FAINT, INK, Look, ON_DARK, ON_LIGHT, PAPER, Rgb, Shape};
use crate::svg::{Canvas, Pen, px};

/// The error type of plotters; nothing here can fail.
pub(crate) type Fault = DrawingAreaErrorKind<Infallible>;

type Page = DrawingArea<Canvas, Shift>;
type Plot = DrawingArea<Canvas, Cartesian2d<Axis, Axis>>;

/// Draws one mark; lines and bands are clipped to `clip`.
pub(crate) fn draw(canvas: &Canvas, plot: &Plot, clip: [f64; 4], mark: &Mark) -> Result<(), Fault> {
    let (page, clip) = (canvas.area(), Some(clip));
    let (x_axis, y_axis) = (plot.as_coord_spec().x_spec(), plot.as_coord_spec().y_spec());
    let place = |x: f64, y: f64| plot.map_coordinate(&(x, y));
    canvas.pen(match mark {
        Mark::Line { dash, .. } => Pen { dash, clip, halo: false },
        Mark::Band { .. } => Pen { clip, ..Pen::default() },
        Mark::Rule { .. } => Pen { dash: &[4.0, 3.0], ..Pen::default() },
        Mark::Note { .. } => Pen { halo: true, ..Pen::default() },
        _ => Pen::default(),
    });
    let edged = |corners: [(i32, i32); 2], fill: Rgb, edge: f64| {
        page.draw(&Rectangle::new(corners, rgb(fill).filled()))?;
        page.draw(&Rectangle::new(corners, stroke(PAPER, edge)))
    };
    match mark {
        Mark::Line { points, color, width, .. } => {
            let placed = |p: &&(f64, f64)| x_axis.place(p.0).and(y_axis.place(p.1)).is_some();
            let points: Vec<_> = points.iter().filter(placed).map(|p| place(p.0, p.1)).collect();
            page.draw(&PathElement::new(points, stroke(*color, *width)))
        }
        Mark::Band { points, color, opacity } => {
            let upper = points.iter().map(|p| place(p.0, p.2));
            let lower = points.iter().rev().map(|p| place(p.0, p.1));
            let outline: Vec<_> = upper.chain(lower).collect();
            page.draw(&Polygon::new(outline, rgb(*color).mix(*opacity)))
        }
        Mark::Point { at, look, hollow } => marker(&page, place(at.0, at.1), *look, *hollow),
        Mark::ErrorY { x, low, high, color } => {
            let ends = [place(*x, *low), place(*x, *high)];
            // With a white edge, so that it is visible on a dark bar, too.
            whisker(&page, ends, (px(3.0), 0), stroke(PAPER, 3.0))?;
            whisker(&page, ends, (px(3.0), 0), stroke(*color, 1.2))
        }
        Mark::ErrorX { y, low, high, color } => {
            let ends = [place(*low, *y), place(*high, *y)];
            whisker(&page, ends, (0, px(3.0)), stroke(*color, 1.2))
        }
        Mark::Bar { from, to, top, color } => {
            edged([place(*from, 0.0), place(*to, *top)], *color, 0.6)
        }
        Mark::Rule { x, label } if x_axis.holds(*x) => {
            let (low, high) = y_axis.ends();
            let ends = [place(*x, low), place(*x, high)];
            page.draw(&PathElement::new(ends, stroke(FAINT, 1.2)))?;
            canvas.pen(Pen { halo: true, ..Pen::default() });
            let right = x_axis.place(*x).is_some_and(|p| p > 0.62);
            let (dx, h) = if right { (-9.0, HPos::Right) } else { (9.0, HPos::Left) };
            let at = (ends[1].0 + px(dx), ends[1].1 + px(9.0));
            page.draw_text(label, &ink(LABEL_SIZE, FAINT, h, VPos::Center), at)
        }
        Mark::Rule { .. } => Ok(()),
        Mark::Tile { x, y, color, text } => {
            let corners = [place(x - 0.5, y - 0.5), place(x + 0.5, y + 0.5)];
            edged(corners, color.unwrap_or(PAPER), 1.0)?;
            let color = match color {
                None => INK,
                Some(c) if c.is_light() => ON_LIGHT,
                Some(_) => ON_DARK,
            };
            page.draw_text(text, &ink(11.0, color, HPos::Center, VPos::Center), place(*x, *y))
        }
        Mark::Ring { at, color } => ring(&page, place(at.0, at.1), *color),
        Mark::Note { at, text, side } => {
            let (x, y) = place(at.0, at.1);
            let (at, h, v) = match side {
                Side::Left => ((x - px(ASIDE), y), HPos::Right, VPos::Center),
                Side::Right => ((x + px(ASIDE), y), HPos::Left, VPos::Center),
                Side::Over => ((x, y - px(OVER)), HPos::Center, VPos::Bottom),
                Side::Under | Side::Free => ((x, y + px(OVER)), HPos::Center, VPos::Top),
            };
            page.draw_text(text, &ink(LABEL_SIZE, INK, h, v), at)
        }
    }
}

/// An interval: a line with a cap at each end, drawn in one stroke.
fn whisker(
    page: &Page,
    ends: [(i32, i32); 2],
    (dx, dy): (i32, i32),
    style: plotters::style::ShapeStyle,
) -> Result<(), Fault> {
    let cap = |(x, y): (i32, i32)| [(x, y), (x - dx, y - dy), (x + dx, y + dy), (x, y)];
    let path: Vec<_> = ends.into_iter().flat_map(cap).collect();
    page.draw(&PathElement::new(path, style))
}

/// A ring around a marker.
pub(crate) fn ring(page: &Page, at: (i32, i32), color: Rgb) -> Result<(), Fault> {
    page.draw(&Circle::new(at, px(8.0), stroke(color, 1.3)))
}

/// A marker.
pub(crate) fn marker(page: &Page, at: (i32, i32), look: Look, hollow: bool) -> Result<(), Fault> {
    let fill = rgb(if hollow { PAPER } else { look.color }).filled();
    let edge = if hollow { stroke(look.color, 1.6) } else { stroke(PAPER, 0.8) };
    // The corner at an angle, in degrees from the top, and at a distance.
    let corner = |angle: f64, distance: f64| {
        let (sin, cos) = angle.to_radians().sin_cos();
        (at.0 + px(distance * sin), at.1 - px(distance * cos))
    };
    let (corners, turn, far, near) = match look.shape {
        Shape::Circle => {
            page.draw(&Circle::new(at, px(4.2), fill))?;
            return page.draw(&Circle::new(at, px(4.2), edge));
        }
        Shape::Cross | Shape::Plus => {
            let turn = if look.shape == Shape::Plus { 0.0 } else { 45.0 };
            for angle in [turn, turn + 90.0] {
                let arm = [corner(angle, 5.4), corner(angle + 180.0, 5.4)];
                page.draw(&PathElement::new(arm, stroke(look.color, 2.4)))?;
            }
            return Ok(());
        }
        Shape::Square => (4, 45.0, 5.9, 5.9),
        Shape::Diamond => (4, 0.0, 5.4, 5.4),
        Shape::Up => (3, 0.0, 5.8, 5.8),
        Shape::Down => (3, 180.0, 5.8, 5.8),
        Shape::Star => (10, 0.0, 6.4, 2.7),
    };
    let angle = |i: i32| turn + 360.0 / f64::from(corners) * f64::from(i);
    // The first side of the outline is repeated, so that its last corner is as sharp as the others.
    let outline: Vec<_> =
        (0..corners + 2).map(|i| corner(angle(i), if i % 2 == 0 { far } else { near })).collect();
    page.draw(&Polygon::new(outline.clone(), fill))?;
    page.draw(&PathElement::new(outline, edge))
}
