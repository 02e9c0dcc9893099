//! A figure as plotters charts on one page: margins grow with the labels they hold, the legend stands
//! outside of the data, and no two labels touch.

use cotenant_results::Legend;
use plotters::chart::{ChartBuilder, LabelAreaPosition};
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color as _, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TRANSPARENT, TextStyle,
};

use crate::axis::{Axis, Scale, TICK_SIZE};
use crate::figure::{ColorBar, Entry, Figure, Key, Panel};
use crate::font;
use crate::marks::{self, Fault};
use crate::style::{FAINT, GRID, INK, Rgb, map_color};
use crate::svg::{Canvas, Head, LEAN, LINE, Pen, px};

const TITLE_SIZE: f64 = 16.0;
const NOTE_SIZE: f64 = 11.5;
const AXIS_SIZE: f64 = 12.0;
const PANEL_SIZE: f64 = 12.5;
const LEGEND_SIZE: f64 = 11.5;
const PAD: f64 = 14.0;
/// A legend's label is wrapped at this width.
const LEGEND_WIDTH: f64 = 190.0;
/// A name beside or below an axis is wrapped at this width.
const NAME_WIDTH: f64 = 170.0;
/// Room between a panel's plot area and the right edge of its place.
const RIGHT: f64 = 18.0;
/// Room between panels that share the names of an axis.
const BETWEEN: f64 = 6.0;
/// px per mm at 96 dpi.
const PX_PER_MM: f64 = 96.0 / 25.4;
/// No plot area is narrower.
const NARROWEST: f64 = 120.0;

/// plotters' form of a colour.
pub(crate) fn rgb(c: Rgb) -> RGBColor {
    RGBColor(c.0, c.1, c.2)
}

/// A line style.
pub(crate) fn stroke(color: Rgb, width: f64) -> ShapeStyle {
    ShapeStyle { color: rgb(color).to_rgba(), filled: false, stroke_width: px(width) as u32 }
}

/// A text style.
pub(crate) fn ink(size: f64, color: Rgb, h: HPos, v: VPos) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::SansSerif, f64::from(px(size)), FontStyle::Normal);
    let mut style = TextStyle::from(font);
    (style.color, style.pos) = (rgb(color).to_backend_color(), Pos::new(h, v));
    style
}

/// Room around each panel's plot area.
struct Margins {
    left: f64,
    top: f64,
    bottom: f64,
    leans: bool,
}

impl Margins {
    /// Room beside the plot area of a column of panels.
    fn left(&self, figure: &Figure, column: usize) -> f64 {
        if figure.share_y && column > 0 { BETWEEN } else { self.left }
    }

    /// Width of so many columns.
    fn across(&self, figure: &Figure, columns: usize) -> f64 {
        (0..columns).map(|c| self.left(figure, c) + figure.size.0 + RIGHT).sum()
    }
}

/// The SVG document of a figure.
pub(crate) fn svg(figure: &Figure, id: &str) -> String {
    let mut figure = figure.clone();
    let (margins, width) = fit(&mut figure);
    // The backend's error has no value, and every area is large enough for what stands in it.
    let canvas = draw(&figure, id, &margins, width).unwrap_or_else(|_| Canvas::new(id, 1.0, 1.0));
    let font = match figure.shape.font.as_str() {
        "" => String::new(),
        name => format!("'{}',", name.replace('\'', "")),
    };
    let mm = figure.shape.mm;
    canvas.document(&Head { title: &figure.title, desc: &figure.finding, font: &font, mm })
}

/// Settles ticks, and where a physical width is asked for, panels of a size that gives it.
fn fit(figure: &mut Figure) -> (Margins, f64) {
    let total = |f: &Figure, m: &Margins| PAD * 2.0 + m.across(f, f.columns) + side_width(f);
    figure.columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let mut margins = settle(figure);
    let Some(wanted) = figure.shape.mm.map(|mm| mm * PX_PER_MM) else {
        let width = total(figure, &margins);
        return (margins, width);
    };
    if wanted < 400.0 && figure.shape.legend == Legend::Right {
        figure.shape.legend = Legend::Below;
    }
    loop {
        let room = (wanted - (total(figure, &margins) - figure.size.0 * figure.columns as f64))
            / figure.columns as f64;
        if room >= NARROWEST || figure.columns == 1 {
            figure.size.0 = room.max(NARROWEST);
            margins = settle(figure);
            return (margins, wanted);
        }
        figure.columns -= 1;
    }
}

fn settle(figure: &mut Figure) -> Margins {
    let (w, h) = figure.size;
    let leans = figure.panels.iter().any(|p| matches!(&p.x.scale, Scale::Names(n) if lean(n, w)));
    let (mut ticks, mut below, mut left) = (0.0, TICK_SIZE, 0.0);
    for panel in &mut figure.panels {
        panel.y.settle(h, false);
        panel.x.settle(w, true);
        let named = matches!(panel.y.scale, Scale::Names(_));
        for (_, label) in &mut panel.y.ticks {
            let lines = font::wrap(label, TICK_SIZE, NAME_WIDTH);
            let fits = lines.len() as f64 * TICK_SIZE * LINE <= h / 2.0;
            *label = if named && fits { lines.join("\n") } else { lines[0].clone() };
        }
        if let Scale::Names(names) = &panel.x.scale {
            let slot = w / names.len().max(1) as f64;
            let limit = if leans { NAME_WIDTH } else { slot - 8.0 };
            for (i, label) in &mut panel.x.ticks {
                *label = font::wrap(label, TICK_SIZE, limit).join("\n");
                let lines = label.split('\n').count() as f64 * TICK_SIZE * LINE;
                let (sin, cos) = (-LEAN).to_radians().sin_cos();
                let wide = widest(label);
                below = f64::max(below, if leans { wide * sin + lines } else { lines });
                if leans {
                    left = f64::max(left, wide * cos + TICK_SIZE - slot * (*i + 0.5));
                }
            }
        }
        ticks = panel.y.ticks.iter().map(|t| widest(&t.1)).fold(ticks, f64::max);
    }
    let lines = figure.panels.iter().map(|p| y_title(&p.y, h)).filter(|t| !t.is_empty());
    let title = lines.map(|t| t.split('\n').count()).max().unwrap_or(0) as f64 * AXIS_SIZE * LINE;
    let titled = figure.panels.iter().any(|p| !p.title.is_empty());
    let x_titled = figure.panels.iter().any(|p| !p.x.title.is_empty());
    Margins {
        left: (ticks + 14.0 + title + if title > 0.0 { 4.0 } else { 0.0 }).max(left),
        top: if titled { PANEL_SIZE * LINE + 10.0 } else { 8.0 },
        bottom: below + 14.0 + if x_titled { AXIS_SIZE * 1.5 } else { 0.0 },
        leans,
    }
}

fn widest(label: &str) -> f64 {
    label.split('\n').map(|l| font::width(l, TICK_SIZE)).fold(0.0, f64::max)
}

/// Whether names have to lean: they do not fit below each other's neighbours otherwise.
fn lean(names: &[String], width: f64) -> bool {
    let slot = width / names.len().max(1) as f64 - 8.0;
    let fits = |n: &String| {
        let mut words = n.split_inclusive([' ', '-', '_', '.', '/', '=', ',']);
        words.all(|w| font::width(w.trim(), TICK_SIZE) <= slot)
            && font::wrap(n, TICK_SIZE, slot).len() <= 3
    };
    !names.iter().all(fits)
}

/// The y axis's title in as many lines as it needs beside a panel of that height.
fn y_title(axis: &Axis, height: f64) -> String {
    let room = height + 24.0;
    let wrap = |text: &str| font::wrap(text, AXIS_SIZE, room).join("\n");
    // The unit stays in one piece.
    match axis.title.split_once(" (") {
        Some((name, unit)) if font::width(&axis.title, AXIS_SIZE) > room => {
            format!("{}\n{}", wrap(name), wrap(&format!("({unit}")))
        }
        _ => wrap(&axis.title),
    }
}

fn draw(figure: &Figure, id: &str, margins: &Margins, width: f64) -> Result<Canvas, Fault> {
    let columns = figure.columns;
    let rows = figure.panels.len().div_ceil(columns);
    // Stacked panels share the x axis of the lowest one.
    let inner = if figure.stacked { 12.0 } else { margins.bottom };
    let cell_h = margins.top + figure.size.1 + inner;
    let notes = figure.notes.iter().flat_map(|n| font::wrap(n, NOTE_SIZE, width - 2.0 * PAD));
    let title = font::wrap(&figure.title, TITLE_SIZE, width - 2.0 * PAD);
    let lines: Vec<(String, f64, Rgb)> = title
        .into_iter()
        .map(|l| (l, TITLE_SIZE, INK))
        .chain(notes.filter(|n| !n.is_empty()).map(|n| (n, NOTE_SIZE, FAINT)))
        .collect();
    let head = lines.iter().map(|l| l.1 * 1.3).sum::<f64>() + 8.0;
    let body = cell_h * rows as f64 + margins.bottom - inner;
    let beside = if figure.shape.legend == Legend::Right { legend_height(figure) } else { 0.0 };
    let below = if figure.shape.legend == Legend::Below { legend_height(figure) } else { 0.0 };
    let height = PAD * 2.0 + head + body.max(margins.top + beside) + below;
    let canvas = Canvas::new(id, width, height);
    let area = canvas.area();
    let mut y = PAD;
    for (text, size, color) in &lines {
        area.draw_text(text, &ink(*size, *color, HPos::Left, VPos::Top), (px(PAD), px(y)))?;
        y += size * 1.3;
    }
    let top = PAD + head;
    for (i, panel) in figure.panels.iter().enumerate() {
        let column = i % columns;
        let place = Place {
            at: (PAD + margins.across(figure, column), top + cell_h * (i / columns) as f64),
            left: margins.left(figure, column),
            size: figure.size,
            x_labels: !figure.stacked || i + 1 == figure.panels.len(),
            y_labels: !figure.share_y || column == 0,
        };
        draw_panel(&canvas, panel, &place, margins)?;
    }
    let side = (PAD + margins.across(figure, columns), top + margins.top);
    match (&figure.colors, figure.shape.legend) {
        (_, Legend::None) => {}
        (Some(bar), _) => color_bar(&area, bar, side, figure.size.1)?,
        (None, Legend::Right) => legend(&canvas, &figure.legend, side)?,
        (None, Legend::Below) => legend(&canvas, &figure.legend, (PAD, top + body))?,
    }
    Ok(canvas)
}

/// Where a panel stands.
struct Place {
    at: (f64, f64),
    /// Room beside the plot area.
    left: f64,
    size: (f64, f64),
    x_labels: bool,
    y_labels: bool,
}

fn draw_panel(
    canvas: &Canvas,
    panel: &Panel,
    place: &Place,
    margins: &Margins,
) -> Result<(), Fault> {
    let Place { at: (x, y), left, size, .. } = *place;
    let bottom = if place.x_labels { margins.bottom } else { 10.0 };
    let whole = (px(left + size.0), px(margins.top + size.1 + bottom));
    let area = canvas.area().shrink((px(x), px(y)), whole);
    if !panel.title.is_empty() {
        let line = font::wrap(&panel.title, PANEL_SIZE, size.0 + RIGHT).swap_remove(0);
        let style = ink(PANEL_SIZE, INK, HPos::Left, VPos::Bottom);
        area.draw_text(&line, &style, (px(left), px(margins.top - 5.0)))?;
    }
    let mut chart = ChartBuilder::on(&area)
        .margin_top(px(margins.top))
        .set_label_area_size(LabelAreaPosition::Left, px(left))
        .set_label_area_size(LabelAreaPosition::Bottom, px(bottom))
        .build_cartesian_2d(panel.x.clone(), panel.y.clone())?;
    let ticks = ink(TICK_SIZE, INK, HPos::Left, VPos::Top);
    let mut names = ticks.clone();
    names.font = FontDesc::new(FontFamily::SansSerif, f64::from(px(TICK_SIZE)), FontStyle::Oblique);
    let blank = |_: &f64| String::new();
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(stroke(GRID, 1.0))
        .axis_style(stroke(INK, 1.0))
        .set_all_tick_mark_size(px(4.0))
        .x_label_style(if margins.leans { names } else { ticks.clone() })
        .y_label_style(ticks)
        .axis_desc_style(ink(AXIS_SIZE, INK, HPos::Center, VPos::Top));
    if matches!(panel.x.scale, Scale::Names(_)) {
        mesh.disable_x_mesh();
    }
    match place.x_labels {
        true => mesh.x_desc(panel.x.title.clone()),
        false => mesh.x_label_formatter(&blank),
    };
    match place.y_labels {
        true => mesh.y_desc(y_title(&panel.y, size.1)),
        false => mesh.y_label_formatter(&blank),
    };
    mesh.draw()?;
    let clip = Some([x + left, y + margins.top, size.0, size.1]);
    for mark in &panel.marks {
        marks::draw(canvas, chart.plotting_area(), clip, mark)?;
    }
    canvas.pen(Pen::default());
    Ok(())
}

/// Room that stands beside the panels.
fn side_width(figure: &Figure) -> f64 {
    if let Some(bar) = &figure.colors {
        let lines = font::wrap(&bar.title, LEGEND_SIZE, 120.0);
        return lines.iter().map(|l| font::width(l, LEGEND_SIZE)).fold(80.0, f64::max) + 16.0;
    }
    if figure.legend.is_empty() || figure.shape.legend != Legend::Right {
        return 0.0;
    }
    let lines = figure.legend.iter().flat_map(legend_lines);
    lines.map(|l| font::width(&l, LEGEND_SIZE)).fold(0.0, f64::max) + 50.0
}

fn legend_lines(entry: &Entry) -> Vec<String> {
    font::wrap(&entry.label, LEGEND_SIZE, LEGEND_WIDTH)
}

fn legend_height(figure: &Figure) -> f64 {
    let lines: usize = figure.legend.iter().map(|e| legend_lines(e).len()).sum();
    lines as f64 * LEGEND_SIZE * LINE + figure.legend.len() as f64 * 5.0
}

fn legend(canvas: &Canvas, entries: &[Entry], (x, mut y): (f64, f64)) -> Result<(), Fault> {
    let area = canvas.area();
    let x = x + 8.0;
    for entry in entries {
        let middle = y + LEGEND_SIZE * LINE / 2.0;
        let (color, center) = (entry.look.color, (px(x + 13.0), px(middle)));
        match entry.key {
            Key::Swatch => {
                let at = |dx, dy| (px(x + dx), px(middle + dy));
                area.draw(&Rectangle::new([at(6.0, -6.0), at(20.0, 6.0)], rgb(color).filled()))?;
            }
            Key::Line | Key::PlainLine => {
                canvas.pen(Pen { dash: entry.look.dash, ..Pen::default() });
                let ends = vec![(px(x), px(middle)), (px(x + 26.0), px(middle))];
                area.draw(&PathElement::new(ends, stroke(color, 2.0)))?;
                canvas.pen(Pen::default());
                if entry.key == Key::Line {
                    marks::marker(&area, center, entry.look, false)?;
                }
            }
            Key::Marker => marks::marker(&area, center, entry.look, false)?,
            Key::Hollow => marks::marker(&area, center, entry.look, true)?,
            Key::Ring => marks::ring(&area, center, color)?,
        }
        let lines = legend_lines(entry);
        let style = ink(LEGEND_SIZE, INK, HPos::Left, VPos::Top);
        area.draw_text(&lines.join("\n"), &style, (px(x + 34.0), px(y)))?;
        y += lines.len() as f64 * LEGEND_SIZE * LINE + 5.0;
    }
    Ok(())
}

fn color_bar(
    area: &DrawingArea<Canvas, Shift>,
    bar: &ColorBar,
    (x, y): (f64, f64),
    height: f64,
) -> Result<(), Fault> {
    let x = x + 8.0;
    let title = font::wrap(&bar.title, LEGEND_SIZE, 120.0);
    let style = ink(LEGEND_SIZE, INK, HPos::Left, VPos::Top);
    area.draw_text(&title.join("\n"), &style, (px(x), px(y - 6.0)))?;
    let y = y + title.len() as f64 * LEGEND_SIZE * LINE + 4.0;
    let h = (height - title.len() as f64 * LEGEND_SIZE * LINE - 4.0).max(60.0);
    let parts = 64;
    for i in 0..parts {
        let edge = |i: i32| y + h * (1.0 - f64::from(i) / f64::from(parts));
        let color = map_color((f64::from(i) + 0.5) / f64::from(parts));
        let corners = [(px(x), px(edge(i + 1))), (px(x + 16.0), px(edge(i) + 0.6))];
        area.draw(&Rectangle::new(corners, rgb(color).filled()))?;
    }
    let mut axis = Axis::exact("", bar.lo, bar.hi);
    axis.settle(h, false);
    for (value, label) in &axis.ticks {
        let Some(place) = axis.place(*value) else { continue };
        let tick = y + h * (1.0 - place);
        let ends = vec![(px(x + 16.0), px(tick)), (px(x + 20.0), px(tick))];
        area.draw(&PathElement::new(ends, stroke(INK, 1.0)))?;
        let style = ink(TICK_SIZE, INK, HPos::Left, VPos::Center);
        area.draw_text(label, &style, (px(x + 24.0), px(tick)))?;
    }
    Ok(())
}
