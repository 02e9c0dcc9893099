//! Draws a figure as plotters charts on one page: margins grow with their labels, the legend is outside of
//! the data, and no two labels touch.

use cotenant_results::Legend;
use plotters::chart::{ChartBuilder, LabelAreaPosition};
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color as _, FontDesc, FontFamily, FontStyle, TRANSPARENT};

use crate::axis::{Axis, Scale, TICK_SIZE};
use crate::figure::{Entry, Figure, Key, Mark, Panel, Shaped, Side};
use crate::font;
use crate::labels::Taken;
use crate::marks::{self, Fault};
use crate::pen::{ink, rgb, stroke};
use crate::style::{FAINT, GRID, INK, Rgb, map_color};
use crate::svg::{Canvas, Head, LEAN, LINE, Pen, UNIT, px};

const TITLE_SIZE: f64 = 16.0;
const NOTE_SIZE: f64 = 11.5;
const AXIS_SIZE: f64 = 12.0;
const PANEL_SIZE: f64 = 12.5;
const LEGEND_SIZE: f64 = 11.5;
const PAD: f64 = 14.0;
/// Legend labels are wrapped at this width, the title of a colour bar at `BAR_TITLE`.
const LEGEND_WIDTH: f64 = 190.0;
const BAR_TITLE: f64 = 120.0;
/// Names next to or below an axis are wrapped at this width.
const NAME_WIDTH: f64 = 170.0;
/// Distance between a panel's plot area and the right edge of its cell.
const RIGHT: f64 = 18.0;
/// Distance between panels that share the names of an axis.
const BETWEEN: f64 = 6.0;
/// px per mm at 96 dpi.
const PX_PER_MM: f64 = 96.0 / 25.4;
/// Minimum width of a plot area.
const NARROWEST: f64 = 120.0;
/// Width of the report's pictures, px: one fits on a phone, and wide screens show several in a row.
const PIECE: f64 = 380.0;

/// Room around each panel's plot area.
struct Margins {
    left: f64,
    top: f64,
    bottom: f64,
    leans: bool,
}

impl Margins {
    /// Width of `columns` columns.
    fn across(&self, figure: &Figure, columns: usize) -> f64 {
        (0..columns).map(|c| self.beside(figure, c) + figure.size.0 + RIGHT).sum()
    }

    /// Room to the left of the plot area of a column.
    fn beside(&self, figure: &Figure, column: usize) -> f64 {
        if figure.share_y && column > 0 { BETWEEN } else { self.left }
    }
}

/// The SVG document of a figure.
pub(crate) fn svg(figure: &Figure, id: &str) -> String {
    let mut figure = figure.clone();
    let (margins, width) = fit(&mut figure);
    // The backend's errors have no values, and every area is large enough for its content.
    let canvas = draw(&figure, id, &margins, width).unwrap_or_else(|_| Canvas::new(id, 1.0, 1.0));
    let font = match figure.shape.font.as_str() {
        "" => String::new(),
        name => format!("'{}',", name.replace('\'', "")),
    };
    let mm = figure.shape.mm;
    canvas.document(&Head { title: &figure.title, desc: &figure.finding, font: &font, mm })
}

/// The figure for a page of any width: one picture for each panel, and one for the legend. Title and notes
/// are left to the page.
pub(crate) fn pieces(figure: &Figure, id: &str) -> Vec<String> {
    let alone = |(n, panels): (usize, Vec<Panel>)| {
        let mut piece = Figure { panels, columns: 1, notes: vec![], ..figure.clone() };
        (piece.title, piece.share_y, piece.stacked) = (String::new(), false, false);
        piece.shape = Shaped { font: figure.shape.font.clone(), ..Shaped::default() };
        let mut marks = piece.panels.iter().flat_map(|p| &p.marks);
        // Tiles contain numbers: they keep their size.
        let tiles = marks.any(|m| matches!(m, Mark::Tile { .. }));
        if piece.panels.is_empty() {
            piece.finding = "Legend".to_owned();
            piece.shape.legend = Legend::Below;
            piece.shape.mm = piece.colors.is_none().then_some(PIECE / PX_PER_MM);
        } else {
            (piece.legend, piece.colors) = (vec![], None);
        }
        if !tiles {
            let most = if figure.stacked { 1.1 * PIECE } else { PIECE };
            let beside = settle(&mut piece).left + RIGHT;
            piece.size.0 = piece.size.0.min(most - beside).max(NARROWEST);
        }
        svg(&piece, &format!("{id}-{n}"))
    };
    let hidden = figure.shape.legend == Legend::None;
    let key = !hidden && (!figure.legend.is_empty() || figure.colors.is_some());
    let panels = figure.panels.iter().map(|p| vec![p.clone()]);
    panels.chain(key.then(Vec::new)).enumerate().map(alone).collect()
}

/// Chooses ticks; if a physical width is set, also the size of the panels that results in it.
fn fit(figure: &mut Figure) -> (Margins, f64) {
    let total = |f: &Figure, m: &Margins| PAD * 2.0 + m.across(f, f.columns) + side(f, 0.0).size.0;
    figure.columns = figure.columns.max(1).min(figure.panels.len());
    let mut margins = settle(figure);
    let Some(wanted) = figure.shape.mm.map(|mm| mm * PX_PER_MM) else {
        let width = total(figure, &margins);
        return (margins, width);
    };
    if wanted < 400.0 && figure.shape.legend == Legend::Right {
        figure.shape.legend = Legend::Below;
    }
    loop {
        let columns = figure.columns.max(1) as f64;
        let room = (wanted - total(figure, &margins)) / columns + figure.size.0;
        if room >= NARROWEST || figure.columns <= 1 {
            figure.size.0 = room.max(NARROWEST);
            margins = settle(figure);
            return (margins, wanted);
        }
        figure.columns -= 1;
    }
}

/// Chooses ticks, breaks names into lines, and measures the room around the panels.
fn settle(figure: &mut Figure) -> Margins {
    let (w, h) = figure.size;
    let leans = figure.panels.iter().any(|p| matches!(&p.x.scale, Scale::Names(n) if lean(n, w)));
    let (mut left, mut below, mut ticks) = (0.0_f64, TICK_SIZE, 0.0_f64);
    for Panel { x, y, .. } in &mut figure.panels {
        x.settle(w, true);
        y.settle(h, false);
        for (_, label) in &mut y.ticks {
            let lines = font::wrap(label, TICK_SIZE, NAME_WIDTH);
            let fits = lines.len() as f64 * TICK_SIZE * LINE <= h / 2.0;
            *label = if fits { lines.join("\n") } else { lines[0].clone() };
            ticks = ticks.max(font::widest(label, TICK_SIZE));
        }
        if let Scale::Names(names) = &x.scale {
            let slot = w / names.len().max(1) as f64;
            let limit = if leans { NAME_WIDTH } else { slot - 8.0 };
            let (sin, cos) = if leans { (-LEAN).to_radians().sin_cos() } else { (0.0, 0.0) };
            for (i, label) in &mut x.ticks {
                *label = font::wrap(label, TICK_SIZE, limit).join("\n");
                let lines = label.split('\n').count() as f64 * TICK_SIZE * LINE;
                let wide = font::widest(label, TICK_SIZE);
                below = below.max(wide * sin + lines);
                left = left.max(wide * cos + TICK_SIZE - slot * (*i + 0.5));
            }
        }
    }
    let all = || figure.panels.iter();
    let titles = all().filter(|p| !p.y.title.is_empty()).map(|p| y_title(&p.y, h).len());
    let title = titles.max().map_or(0.0, |lines| lines as f64 * AXIS_SIZE * LINE + 4.0);
    Margins {
        left: left.max(ticks + 14.0 + title),
        top: if all().any(|p| !p.title.is_empty()) { PANEL_SIZE * LINE + 10.0 } else { 8.0 },
        bottom: below + 14.0 + if all().any(|p| !p.x.title.is_empty()) { 18.0 } else { 0.0 },
        leans,
    }
}

/// Whether names must be slanted because they do not fit next to each other.
fn lean(names: &[String], width: f64) -> bool {
    let slot = width / names.len().max(1) as f64 - 8.0;
    let fits = |n: &String| {
        let mut words = n.split_inclusive([' ', '-', '_', '.', '/', '=', ',']);
        words.all(|w| font::width(w.trim(), TICK_SIZE) <= slot)
            && font::wrap(n, TICK_SIZE, slot).len() <= 3
    };
    !names.iter().all(fits)
}

/// The y axis's title in as many lines as it needs next to a panel of height `height`; if it must be broken,
/// the unit starts a new line.
fn y_title(axis: &Axis, height: f64) -> Vec<String> {
    let whole = font::wrap(&axis.title, AXIS_SIZE, height + 24.0);
    let parts = axis.title.split_once(" (").filter(|_| whole.len() > 1);
    parts.map_or(whole, |(name, unit)| {
        let mut lines = font::wrap(name, AXIS_SIZE, height + 24.0);
        lines.push(format!("({unit}"));
        lines
    })
}

fn draw(figure: &Figure, id: &str, margins: &Margins, width: f64) -> Result<Canvas, Fault> {
    let broken = |text: &str, size, color| {
        let lines = font::wrap(text, size, width - 2.0 * PAD);
        lines.into_iter().filter(|l| !l.is_empty()).map(move |l| (l, size, color))
    };
    let notes = figure.notes.iter().flat_map(|n| broken(n, NOTE_SIZE, FAINT));
    let head: Vec<(String, f64, Rgb)> =
        broken(&figure.title, TITLE_SIZE, INK).chain(notes).collect();
    let gap = if head.is_empty() { 0.0 } else { 8.0 };
    let top = PAD + head.iter().map(|l| l.1 * 1.3).sum::<f64>() + gap;
    // Stacked panels share the x axis of the lowest panel.
    let inner = if figure.stacked { 12.0 } else { margins.bottom };
    let rows = figure.panels.len().div_ceil(figure.columns.max(1));
    let cell = margins.top + figure.size.1 + inner;
    let body = if rows > 0 { cell * rows as f64 + margins.bottom - inner } else { 0.0 };
    let (below, key) = (figure.shape.legend == Legend::Below, side(figure, width));
    let (under, beside) = match below && figure.colors.is_none() {
        true => (key.size.1, 0.0),
        false => (0.0, key.size.1 + margins.top),
    };
    let canvas = Canvas::new(id, width, top + body.max(beside) + under + PAD);
    let area = canvas.area();
    let mut y = PAD;
    for (text, size, color) in &head {
        area.draw_text(text, &ink(*size, *color, HPos::Left, VPos::Top), (px(PAD), px(y)))?;
        y += size * 1.3;
    }
    for (i, panel) in figure.panels.iter().enumerate() {
        let (row, column) = (i / figure.columns, i % figure.columns);
        let place = Place {
            at: (PAD + margins.across(figure, column), top + cell * row as f64),
            left: margins.beside(figure, column),
            size: figure.size,
            x_labels: !figure.stacked || i + 1 == figure.panels.len(),
            y_labels: !figure.share_y || column == 0,
        };
        draw_panel(&canvas, panel, &place, margins)?;
    }
    let right = (PAD + margins.across(figure, figure.columns) + 8.0, top + margins.top);
    match figure.colors {
        Some(_) => color_bar(&area, figure, right)?,
        None => legend(&canvas, figure, &key, if below { (PAD, top + body) } else { right })?,
    }
    Ok(canvas)
}

/// The place of a panel.
struct Place {
    at: (f64, f64),
    /// Room to the left of the plot area.
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
    let Place { at: (x, y), left, size: (w, h), .. } = *place;
    let bottom = if place.x_labels { margins.bottom } else { 10.0 };
    let area = canvas.area().shrink((px(x), px(y)), (px(left + w), px(margins.top + h + bottom)));
    let title = font::wrap(&panel.title, PANEL_SIZE, w + RIGHT).swap_remove(0);
    let style = ink(PANEL_SIZE, INK, HPos::Left, VPos::Bottom);
    area.draw_text(&title, &style, (px(left), px(margins.top - 5.0)))?;
    let mut chart = ChartBuilder::on(&area)
        .margin_top(px(margins.top))
        .set_label_area_size(LabelAreaPosition::Left, px(left))
        .set_label_area_size(LabelAreaPosition::Bottom, px(bottom))
        .build_cartesian_2d(panel.x.clone(), panel.y.clone())?;
    let ticks = ink(TICK_SIZE, INK, HPos::Left, VPos::Top);
    let mut names = ticks.clone();
    if margins.leans {
        names.font =
            FontDesc::new(FontFamily::SansSerif, f64::from(px(TICK_SIZE)), FontStyle::Oblique);
    }
    let blank = |_: &f64| String::new();
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(stroke(GRID, 1.0))
        .axis_style(stroke(INK, 1.0))
        .set_all_tick_mark_size(px(4.0))
        .x_label_style(names)
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
        true => mesh.y_desc(y_title(&panel.y, h).join("\n")),
        false => mesh.y_label_formatter(&blank),
    };
    mesh.draw()?;
    // Text is drawn last, on top of what it labels; and adjacent marks of the same look take fewer bytes.
    let mut marks: Vec<&Mark> = panel.marks.iter().collect();
    marks.sort_by_key(|m| m.layer());
    let (plot, frame) = (chart.plotting_area(), [x + left, y + margins.top, w, h]);
    let place = |at| {
        let (x, y) = plot.map_coordinate(&at);
        (f64::from(x) / UNIT, f64::from(y) / UNIT)
    };
    let edges = [frame[0], frame[1], frame[0] + w, frame[1] + h];
    let mut taken = Taken::by(&panel.marks, place, edges);
    for mark in marks {
        let mut mark = mark.clone();
        if let Mark::Note { at, text, side: side @ Side::Free } = &mut mark {
            let Some(free) = taken.side(place(*at), text) else { continue };
            *side = free;
        }
        marks::draw(canvas, plot, frame, &mark)?;
    }
    canvas.pen(Pen::default());
    Ok(())
}

/// The legend or colour bar, next to the panels or below them.
struct Beside {
    size: (f64, f64),
    /// Labels of the legend with their positions.
    labels: Vec<(String, (f64, f64))>,
}

/// Lays out the legend: in one column next to the panels, or below them in as many columns as fit.
fn side(figure: &Figure, width: f64) -> Beside {
    if let Some(bar) = &figure.colors {
        let title = font::wrap(&bar.title, LEGEND_SIZE, BAR_TITLE).join("\n");
        let size = (font::widest(&title, LEGEND_SIZE).max(80.0) + 16.0, figure.size.1);
        return Beside { size, labels: vec![] };
    }
    let below = figure.shape.legend == Legend::Below;
    // Below the panels, at least two columns.
    let most = if below { ((width - 2.0 * PAD) / 2.0 - 50.0).max(60.0) } else { LEGEND_WIDTH };
    let limit = LEGEND_WIDTH.min(most);
    let wrapped = |e: &Entry| font::wrap(&e.label, LEGEND_SIZE, limit).join("\n");
    let all: Vec<String> = match figure.shape.legend {
        Legend::None => vec![],
        _ => figure.legend.iter().map(wrapped).collect(),
    };
    let column = all.iter().map(|l| font::widest(l, LEGEND_SIZE) + 50.0).fold(0.0, f64::max);
    let columns = if below { ((width - 2.0 * PAD) / column).max(1.0) as usize } else { 1 };
    let (mut labels, mut y) = (vec![], 0.0);
    for row in all.chunks(columns) {
        let places = row.iter().enumerate().map(|(i, l)| (l.clone(), (i as f64 * column, y)));
        labels.extend(places);
        let lines = row.iter().map(|l| l.split('\n').count()).max().unwrap_or(0);
        y += lines as f64 * LEGEND_SIZE * LINE + 5.0;
    }
    Beside { size: (if below { 0.0 } else { column }, y), labels }
}

fn legend(canvas: &Canvas, figure: &Figure, side: &Beside, at: (f64, f64)) -> Result<(), Fault> {
    let area = canvas.area();
    for (Entry { look, key, .. }, (label, place)) in figure.legend.iter().zip(&side.labels) {
        let (x, y) = (at.0 + place.0, at.1 + place.1);
        let middle = y + LEGEND_SIZE * LINE / 2.0;
        let center = (px(x + 13.0), px(middle));
        if matches!(key, Key::Line | Key::PlainLine) {
            canvas.pen(Pen { dash: look.dash, ..Pen::default() });
            let ends = [(px(x), px(middle)), (px(x + 26.0), px(middle))];
            area.draw(&PathElement::new(ends, stroke(look.color, 2.0)))?;
            canvas.pen(Pen::default());
        }
        match key {
            Key::Swatch => {
                let corners = [-6.0, 6.0].map(|d| (px(x + 13.0 + d), px(middle + d)));
                area.draw(&Rectangle::new(corners, rgb(look.color).filled()))?;
            }
            Key::PlainLine => {}
            Key::Line | Key::Marker => marks::marker(&area, center, *look, false)?,
            Key::Hollow => marks::marker(&area, center, *look, true)?,
            Key::Ring => marks::ring(&area, center, look.color)?,
        }
        let style = ink(LEGEND_SIZE, INK, HPos::Left, VPos::Top);
        area.draw_text(label, &style, (px(x + 34.0), px(y)))?;
    }
    Ok(())
}

/// The colour scale of a heatmap: a chart of its own with its y axis on the right.
fn color_bar(
    area: &DrawingArea<Canvas, Shift>,
    figure: &Figure,
    (x, y): (f64, f64),
) -> Result<(), Fault> {
    let Some(bar) = &figure.colors else { return Ok(()) };
    let title = font::wrap(&bar.title, LEGEND_SIZE, BAR_TITLE);
    let style = ink(LEGEND_SIZE, INK, HPos::Left, VPos::Top);
    area.draw_text(&title.join("\n"), &style, (px(x), px(y - 6.0)))?;
    let above = title.len() as f64 * LEGEND_SIZE * LINE + 4.0;
    let h = (figure.size.1 - above).max(60.0);
    let mut axis = Axis::exact("", bar.lo, bar.hi);
    axis.settle(h, false);
    let (lo, hi) = axis.ends();
    let place = area.clone().shrink((px(x), px(y + above)), (px(76.0), px(h)));
    let mut chart = ChartBuilder::on(&place)
        .set_label_area_size(LabelAreaPosition::Right, px(60.0))
        .build_cartesian_2d(Axis::exact("", 0.0, 1.0), axis)?;
    // From the top down, each rectangle over the previous ones, so that no seams show.
    let steps = 64;
    chart.draw_series((1..=steps).rev().map(|i| {
        let share = |i: f64| i / f64::from(steps);
        let top = lo + (hi - lo) * share(f64::from(i));
        let color = map_color(share(f64::from(i) - 0.5));
        Rectangle::new([(0.0, lo), (1.0, top)], rgb(color).filled())
    }))?;
    let ticks = ink(TICK_SIZE, INK, HPos::Left, VPos::Center);
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().y_label_style(ticks).axis_style(stroke(INK, 1.0));
    mesh.set_all_tick_mark_size(px(4.0)).draw()
}
