//! Marks of a panel as plotters elements.

use std::convert::Infallible;

use plotters::coord::CoordTranslate;
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::element::{Circle, EmptyElement, PathElement, Polygon, Rectangle, Text};
use plotters::prelude::DrawingArea;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, VPos};

use crate::axis::Axis;
use crate::chart::{ink, rgb, stroke};
use crate::figure::{Mark, Side};
use crate::style::{FAINT, INK, Look, ON_DARK, ON_LIGHT, PAPER, Rgb, Shape};
use crate::svg::{Canvas, Pen, px};

/// What plotters may fail with; nothing here does.
pub(crate) type Fault = DrawingAreaErrorKind<Infallible>;

type Plot = DrawingArea<Canvas, Cartesian2d<Axis, Axis>>;

const LABEL_SIZE: f64 = 10.5;

/// Draws one mark; nothing of lines and bands shows outside of `clip`.
pub(crate) fn draw(
    canvas: &Canvas,
    plot: &Plot,
    clip: Option<[f64; 4]>,
    mark: &Mark,
) -> Result<(), Fault> {
    let (x_axis, y_axis) = (plot.as_coord_spec().x_spec(), plot.as_coord_spec().y_spec());
    let pen = |dash, clip, halo| canvas.pen(Pen { dash, clip, halo });
    pen(&[], None, false);
    match mark {
        Mark::Line { points, color, dash, width } => {
            pen(dash, clip, false);
            let placed = |p: &&(f64, f64)| x_axis.place(p.0).and(y_axis.place(p.1)).is_some();
            let points: Vec<_> = points.iter().filter(placed).copied().collect();
            plot.draw(&PathElement::new(points, stroke(*color, *width)))
        }
        Mark::Band { points, color, opacity } => {
            pen(&[], clip, false);
            let upper = points.iter().map(|p| (p.0, p.2));
            let outline: Vec<_> = upper.chain(points.iter().rev().map(|p| (p.0, p.1))).collect();
            plot.draw(&Polygon::new(outline, rgb(*color).mix(*opacity)))
        }
        Mark::Point { at, look, hollow } => marker(plot, *at, *look, *hollow),
        Mark::ErrorY { x, low, high, color } => {
            whisker(plot, [(*x, *low), (*x, *high)], (px(3.0), 0), *color)
        }
        Mark::ErrorX { y, low, high, color } => {
            whisker(plot, [(*low, *y), (*high, *y)], (0, px(3.0)), *color)
        }
        Mark::Bar { from, to, top, color } => {
            let corners = [(*from, 0.0), (*to, *top)];
            plot.draw(&Rectangle::new(corners, rgb(*color).filled()))?;
            plot.draw(&Rectangle::new(corners, stroke(PAPER, 0.6)))
        }
        Mark::Rule { x, label } if x_axis.holds(*x) => {
            pen(&[4.0, 3.0], None, false);
            let (low, high) = y_ends(y_axis);
            plot.draw(&PathElement::new(vec![(*x, low), (*x, high)], stroke(FAINT, 1.2)))?;
            beside(canvas, plot, (*x, high), label)
        }
        Mark::Rule { .. } => Ok(()),
        Mark::Tile { x, y, color, text } => {
            let fill = color.unwrap_or(PAPER);
            let corners = [(x - 0.5, y - 0.5), (x + 0.5, y + 0.5)];
            plot.draw(&Rectangle::new(corners, rgb(fill).filled()))?;
            plot.draw(&Rectangle::new(corners, stroke(PAPER, 1.0)))?;
            let color = match color {
                None => INK,
                Some(c) if c.is_light() => ON_LIGHT,
                Some(_) => ON_DARK,
            };
            plot.draw(&Text::new(
                text.clone(),
                (*x, *y),
                ink(11.0, color, HPos::Center, VPos::Center),
            ))
        }
        Mark::Ring { at, color } => ring(plot, *at, *color),
        Mark::Note { at, text, side } => {
            pen(&[], None, true);
            let (offset, h, v) = match side {
                Side::Left => ((-px(9.0), 0), HPos::Right, VPos::Center),
                Side::Right => ((px(9.0), 0), HPos::Left, VPos::Center),
                Side::Over => ((0, -px(6.0)), HPos::Center, VPos::Bottom),
            };
            let style = ink(LABEL_SIZE, INK, h, v);
            plot.draw(&(EmptyElement::at(*at) + Text::new(text.clone(), offset, style)))
        }
    }
}

/// The lower and upper end of an axis, as values.
fn y_ends(axis: &Axis) -> (f64, f64) {
    use crate::axis::Scale;
    match &axis.scale {
        Scale::Linear { lo, hi } | Scale::Log { lo, hi } => (*lo, *hi),
        Scale::Names(names) => (-0.5, names.len() as f64 - 0.5),
        Scale::Tail => (0.0, 100.0),
    }
}

/// A rule's label at its upper end, on whichever side has room.
fn beside(canvas: &Canvas, plot: &Plot, at: (f64, f64), text: &str) -> Result<(), Fault> {
    canvas.pen(Pen { halo: true, ..Pen::default() });
    let right = plot.as_coord_spec().x_spec().place(at.0).is_some_and(|p| p > 0.62);
    let (dx, h) = if right { (-9.0, HPos::Right) } else { (9.0, HPos::Left) };
    let style = ink(LABEL_SIZE, FAINT, h, VPos::Center);
    plot.draw(&(EmptyElement::at(at) + Text::new(text.to_owned(), (px(dx), px(9.0)), style)))
}

/// An interval: a line with a cap at each end, on a white edge, so that it shows on a dark bar too.
fn whisker(
    plot: &Plot,
    ends: [(f64, f64); 2],
    (dx, dy): (i32, i32),
    color: Rgb,
) -> Result<(), Fault> {
    for style in [stroke(PAPER, 3.0), stroke(color, 1.2)] {
        plot.draw(&PathElement::new(ends.to_vec(), style))?;
        for end in ends {
            let cap = PathElement::new(vec![(-dx, -dy), (dx, dy)], style);
            plot.draw(&(EmptyElement::at(end) + cap))?;
        }
    }
    Ok(())
}

/// A ring around a marker.
pub(crate) fn ring<C: CoordTranslate>(
    area: &DrawingArea<Canvas, C>,
    at: C::From,
    color: Rgb,
) -> Result<(), Fault>
where
    C::From: Clone,
{
    area.draw(&(EmptyElement::at(at) + Circle::new((0, 0), px(8.0), stroke(color, 1.3))))
}

/// A marker.
pub(crate) fn marker<C: CoordTranslate>(
    area: &DrawingArea<Canvas, C>,
    at: C::From,
    look: Look,
    hollow: bool,
) -> Result<(), Fault>
where
    C::From: Clone,
{
    let r = 4.2;
    let fill = rgb(if hollow { PAPER } else { look.color }).filled();
    let edge = if hollow { stroke(look.color, 1.6) } else { stroke(PAPER, 0.8) };
    let units = |points: Vec<(f64, f64)>| -> Vec<(i32, i32)> {
        points.into_iter().map(|(x, y)| (px(x), px(y))).collect()
    };
    let polygon = match look.shape {
        Shape::Circle => {
            let circle = |style| Circle::new((0, 0), px(r), style);
            return area.draw(&(EmptyElement::at(at) + circle(fill) + circle(edge)));
        }
        Shape::Cross | Shape::Plus => {
            let arms = if look.shape == Shape::Plus {
                [[(-5.0, 0.0), (5.0, 0.0)], [(0.0, -5.0), (0.0, 5.0)]]
            } else {
                [[(-r, -r), (r, r)], [(-r, r), (r, -r)]]
            };
            let [a, b] = arms.map(|a| PathElement::new(units(a.to_vec()), stroke(look.color, 2.4)));
            return area.draw(&(EmptyElement::at(at) + a + b));
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
    let mut outline = units(polygon);
    let inside = Polygon::new(outline.clone(), fill);
    outline.push(outline[0]);
    outline.push(outline[1]);
    area.draw(&(EmptyElement::at(at) + inside + PathElement::new(outline, edge)))
}
