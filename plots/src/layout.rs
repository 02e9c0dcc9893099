//! From a figure in data coordinates to a scene in pixels: margins grow with the labels they hold,
//! the legend stands outside of the data, and no two labels touch.

use crate::axis::{Axis, Scale, TICK_SIZE};
use crate::figure::{ColorBar, Entry, Figure, Key, Panel};
use crate::font;
use crate::marks;
use crate::scene::{Anchor, Rect, Scene, Stroke};
use crate::style::{FAINT, GRID, INK, map_color};

const TITLE_SIZE: f64 = 16.0;
const NOTE_SIZE: f64 = 11.5;
const AXIS_SIZE: f64 = 12.0;
const PANEL_SIZE: f64 = 12.5;
const LEGEND_SIZE: f64 = 11.5;
const PAD: f64 = 14.0;
const LINE: f64 = 1.3;
/// A legend's label is wrapped at this width.
const LEGEND_WIDTH: f64 = 190.0;
/// Long category names lean by this many degrees.
const LEAN: f64 = -38.0;
/// A leaning name is wrapped at this width.
const LEAN_WIDTH: f64 = 170.0;

/// How category names stand below the axis.
enum Names {
    /// One or more centred lines each.
    Upright(Vec<Vec<String>>),
    /// Leaning, because they do not fit otherwise.
    Leaning(Vec<Vec<String>>),
}

/// Room around each panel's plot area.
struct Margins {
    left: f64,
    /// From the plot area to the y axis's title.
    y_title: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// Lays a figure out.
pub(crate) fn scene(figure: &Figure) -> Scene {
    let margins = margins(figure);
    let columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let rows = figure.panels.len().div_ceil(columns);
    let cell_w = margins.left + figure.size.0 + margins.right;
    // Stacked panels share the x axis of the lowest one.
    let inner = if figure.stacked { 12.0 } else { margins.bottom };
    let cell_h = margins.top + figure.size.1 + inner;
    let legend_w = legend_width(figure);
    let grid_w = cell_w * columns as f64;
    let width = PAD * 2.0 + grid_w + legend_w;
    let title = font::wrap(&figure.title, TITLE_SIZE, width - 2.0 * PAD);
    let notes: Vec<String> = figure
        .notes
        .iter()
        .flat_map(|n| font::wrap(n, NOTE_SIZE, width - 2.0 * PAD))
        .filter(|n| !n.is_empty())
        .collect();
    let head = title.len() as f64 * TITLE_SIZE * LINE + notes.len() as f64 * NOTE_SIZE * LINE + 8.0;
    let body =
        (cell_h * rows as f64 + margins.bottom - inner).max(margins.top + legend_height(figure));
    let mut scene = Scene { width, height: PAD * 2.0 + head + body, items: vec![] };
    let mut y = PAD;
    for line in &title {
        y += TITLE_SIZE * LINE;
        scene.text((PAD, y - 5.0), line, TITLE_SIZE, Anchor::Start);
    }
    for line in &notes {
        y += NOTE_SIZE * LINE;
        scene.text_as((PAD, y - 3.0), line, NOTE_SIZE, Anchor::Start, 0.0, FAINT);
    }
    let top = PAD + head;
    for (i, panel) in figure.panels.iter().enumerate() {
        let area = Rect {
            x: PAD + cell_w * (i % columns) as f64 + margins.left,
            y: top + cell_h * (i / columns) as f64 + margins.top,
            w: figure.size.0,
            h: figure.size.1,
        };
        let lowest = !figure.stacked || i + 1 == figure.panels.len();
        draw_panel(&mut scene, panel, area, &margins, lowest);
    }
    let side = (PAD + grid_w, top + margins.top);
    match &figure.colors {
        Some(bar) => color_bar(&mut scene, bar, side, figure.size.1),
        None => legend(&mut scene, &figure.legend, side),
    }
    scene
}

fn margins(figure: &Figure) -> Margins {
    let tick_width = |p: &Panel| {
        let ticks = p.y.ticks(figure.size.1, false);
        ticks.iter().map(|t| font::width(&t.1, TICK_SIZE)).fold(0.0, f64::max)
    };
    let ticks = figure.panels.iter().map(tick_width).fold(0.0, f64::max).min(170.0);
    let names = figure.panels.iter().map(|p| names_room(&p.x, figure.size.0));
    let (below, left) = names
        .fold((TICK_SIZE, 0.0), |(b, l), (below, left)| (f64::max(b, below), f64::max(l, left)));
    let titled = figure.panels.iter().any(|p| !p.title.is_empty());
    let lines = figure.panels.iter().map(|p| y_title(p, figure.size.1).len()).max().unwrap_or(1);
    let y_title = ticks + 14.0;
    Margins {
        left: (y_title + lines as f64 * AXIS_SIZE * LINE + 4.0).max(left),
        y_title,
        right: 18.0,
        top: if titled { PANEL_SIZE * LINE + 10.0 } else { 8.0 },
        bottom: below + 12.0 + AXIS_SIZE * 1.6,
    }
}

/// The y axis's title in as many lines as it needs beside a panel of that height.
fn y_title(panel: &Panel, height: f64) -> Vec<String> {
    let room = height + 24.0;
    // The unit stays in one piece.
    match panel.y.title.split_once(" (") {
        Some((name, unit)) if font::width(&panel.y.title, AXIS_SIZE) > room => {
            let mut lines = font::wrap(name, AXIS_SIZE, room);
            lines.extend(font::wrap(&format!("({unit}"), AXIS_SIZE, room));
            lines
        }
        _ => font::wrap(&panel.y.title, AXIS_SIZE, room),
    }
}

/// Room that the x axis's names need below, and to the left of the plot area.
fn names_room(axis: &Axis, width: f64) -> (f64, f64) {
    let Scale::Names(names) = &axis.scale else { return (TICK_SIZE, 0.0) };
    match stand(names, width) {
        Names::Upright(lines) => {
            let most = lines.iter().map(Vec::len).max().unwrap_or(1);
            (most as f64 * TICK_SIZE * LINE, 0.0)
        }
        Names::Leaning(lines) => {
            let slot = width / names.len().max(1) as f64;
            let (sin, cos) = (-LEAN).to_radians().sin_cos();
            let mut room = (0.0, 0.0);
            for (i, lines) in lines.iter().enumerate() {
                let w = lines.iter().map(|l| font::width(l, TICK_SIZE)).fold(0.0, f64::max);
                let depth = w * sin + lines.len() as f64 * TICK_SIZE * LINE;
                let left = w * cos + TICK_SIZE - slot * (i as f64 + 0.5);
                room = (f64::max(room.0, depth), f64::max(room.1, left));
            }
            room
        }
    }
}

fn stand(names: &[String], width: f64) -> Names {
    let slot = width / names.len().max(1) as f64 - 8.0;
    let words_fit = |n: &String| {
        n.split_inclusive([' ', '-', '_', '.', '/', '=', ','])
            .all(|w| font::width(w.trim(), TICK_SIZE) <= slot)
    };
    if names.iter().all(words_fit) {
        let lines: Vec<_> = names.iter().map(|n| font::wrap(n, TICK_SIZE, slot)).collect();
        if lines.iter().all(|l| l.len() <= 3) {
            return Names::Upright(lines);
        }
    }
    Names::Leaning(names.iter().map(|n| font::wrap(n, TICK_SIZE, LEAN_WIDTH)).collect())
}

fn draw_panel(scene: &mut Scene, panel: &Panel, area: Rect, margins: &Margins, x_labels: bool) {
    let middle = area.x + area.w / 2.0;
    if !panel.title.is_empty() {
        let room = area.w + margins.right;
        let line = font::wrap(&panel.title, PANEL_SIZE, room).swap_remove(0);
        scene.text((area.x, area.y - 8.0), &line, PANEL_SIZE, Anchor::Start);
    }
    let frame = marks::Frame { area, x: &panel.x, y: &panel.y };
    draw_y_axis(scene, &frame);
    draw_x_axis(scene, &frame, x_labels);
    for mark in &panel.marks {
        marks::draw(scene, &frame, mark);
    }
    let edge = Stroke::solid(INK, 1.0);
    scene.line((area.x, area.bottom()), (area.right(), area.bottom()), edge);
    scene.line((area.x, area.y), (area.x, area.bottom()), edge);
    let below = area.bottom() + margins.bottom - 8.0;
    if x_labels {
        scene.text((middle, below), &panel.x.title, AXIS_SIZE, Anchor::Middle);
    }
    for (i, line) in y_title(panel, area.h).iter().rev().enumerate() {
        let x = area.x - margins.y_title - i as f64 * AXIS_SIZE * LINE;
        let at = (x, area.y + area.h / 2.0);
        scene.text_as(at, line, AXIS_SIZE, Anchor::Middle, -90.0, INK);
    }
}

fn draw_y_axis(scene: &mut Scene, frame: &marks::Frame<'_>) {
    let area = frame.area;
    let named = matches!(frame.y.scale, Scale::Names(_));
    for (value, label) in frame.y.ticks(area.h, false) {
        let Some(y) = frame.y_at(value) else { continue };
        if !named {
            scene.line((area.x, y), (area.right(), y), Stroke::solid(GRID, 1.0));
        }
        scene.line((area.x - 4.0, y), (area.x, y), Stroke::solid(INK, 1.0));
        let lines = font::wrap(&label, TICK_SIZE, 170.0);
        let at = (area.x - 8.0, y + TICK_SIZE * 0.36);
        scene.text(at, &lines[0], TICK_SIZE, Anchor::End);
    }
}

fn draw_x_axis(scene: &mut Scene, frame: &marks::Frame<'_>, labels: bool) {
    let area = frame.area;
    let bottom = area.bottom();
    if let Scale::Names(names) = &frame.x.scale {
        return draw_names(scene, frame, names);
    }
    for (value, label) in frame.x.ticks(area.w, true) {
        let Some(x) = frame.x_at(value) else { continue };
        scene.line((x, area.y), (x, bottom), Stroke::solid(GRID, 1.0));
        scene.line((x, bottom), (x, bottom + 4.0), Stroke::solid(INK, 1.0));
        if labels {
            scene.text((x, bottom + 6.0 + TICK_SIZE), &label, TICK_SIZE, Anchor::Middle);
        }
    }
}

fn draw_names(scene: &mut Scene, frame: &marks::Frame<'_>, names: &[String]) {
    let bottom = frame.area.bottom();
    let place = |i: usize| frame.x_at(i as f64).unwrap_or(frame.area.x);
    match stand(names, frame.area.w) {
        Names::Upright(all) => {
            for (i, lines) in all.iter().enumerate() {
                for (n, line) in lines.iter().enumerate() {
                    let y = bottom + 6.0 + TICK_SIZE + n as f64 * TICK_SIZE * LINE;
                    scene.text((place(i), y), line, TICK_SIZE, Anchor::Middle);
                }
            }
        }
        Names::Leaning(all) => {
            for (i, lines) in all.iter().enumerate() {
                let x = place(i);
                scene.line((x, bottom), (x, bottom + 4.0), Stroke::solid(INK, 1.0));
                for (n, line) in lines.iter().enumerate() {
                    let at = (x + 4.0 + n as f64 * 9.0, bottom + 13.0 + n as f64 * 11.0);
                    scene.text_as(at, line, TICK_SIZE, Anchor::End, LEAN, INK);
                }
            }
        }
    }
}

fn legend_lines(entry: &Entry) -> Vec<String> {
    font::wrap(&entry.label, LEGEND_SIZE, LEGEND_WIDTH)
}

fn legend_width(figure: &Figure) -> f64 {
    if let Some(bar) = &figure.colors {
        let lines = font::wrap(&bar.title, LEGEND_SIZE, 120.0);
        return lines.iter().map(|l| font::width(l, LEGEND_SIZE)).fold(80.0, f64::max) + 16.0;
    }
    if figure.legend.is_empty() {
        return 0.0;
    }
    let lines = figure.legend.iter().flat_map(legend_lines);
    lines.map(|l| font::width(&l, LEGEND_SIZE)).fold(0.0, f64::max) + 50.0
}

fn legend_height(figure: &Figure) -> f64 {
    let lines: usize = figure.legend.iter().map(|e| legend_lines(e).len()).sum();
    lines as f64 * LEGEND_SIZE * LINE + figure.legend.len() as f64 * 5.0
}

fn legend(scene: &mut Scene, entries: &[Entry], at: (f64, f64)) {
    let (x, mut y) = (at.0 + 8.0, at.1);
    for entry in entries {
        let middle = y + LEGEND_SIZE * LINE / 2.0;
        let color = entry.look.color;
        let line = |dash| Stroke { color, width: 2.0, dash };
        let center = (x + 13.0, middle);
        match entry.key {
            Key::Swatch => {
                let swatch = Rect { x: x + 6.0, y: middle - 6.0, w: 14.0, h: 12.0 };
                scene.rect(swatch, Some((color, 1.0)), None);
            }
            Key::Line | Key::PlainLine => {
                scene.line((x, middle), (x + 26.0, middle), line(entry.look.dash));
                if entry.key == Key::Line {
                    marks::marker(scene, center, entry.look, false);
                }
            }
            Key::Marker => marks::marker(scene, center, entry.look, false),
            Key::Hollow => marks::marker(scene, center, entry.look, true),
            Key::Ring => marks::ring(scene, center, color),
        }
        for text in legend_lines(entry) {
            scene.text((x + 34.0, y + LEGEND_SIZE), &text, LEGEND_SIZE, Anchor::Start);
            y += LEGEND_SIZE * LINE;
        }
        y += 5.0;
    }
}

fn color_bar(scene: &mut Scene, bar: &ColorBar, at: (f64, f64), height: f64) {
    let x = at.0 + 8.0;
    let mut y = at.1;
    for line in font::wrap(&bar.title, LEGEND_SIZE, 120.0) {
        scene.text((x, y + 4.0), &line, LEGEND_SIZE, Anchor::Start);
        y += LEGEND_SIZE * LINE;
    }
    y += 4.0;
    let h = (height - (y - at.1)).max(60.0);
    let parts = 64;
    for i in 0..parts {
        let share = (f64::from(i) + 0.5) / f64::from(parts);
        let part = Rect {
            x,
            y: y + h * (1.0 - f64::from(i + 1) / f64::from(parts)),
            w: 16.0,
            h: h / f64::from(parts) + 0.6,
        };
        scene.rect(part, Some((map_color(share), 1.0)), None);
    }
    let axis = Axis::exact("", bar.lo, bar.hi);
    for (value, label) in axis.ticks(h, false) {
        let Some(place) = axis.place(value) else { continue };
        let tick = y + h * (1.0 - place);
        scene.line((x + 16.0, tick), (x + 20.0, tick), Stroke::solid(INK, 1.0));
        scene.text((x + 24.0, tick + 4.0), &label, TICK_SIZE, Anchor::Start);
    }
}
