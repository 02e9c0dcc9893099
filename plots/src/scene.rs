//! A picture as shapes in pixels, and its SVG form. `raster` makes PNG of the same shapes, so both
//! files of a plot agree.

use std::fmt::Write as _;

use crate::style::{INK, PAPER, Rgb};

/// Where a text's position is within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A rectangle: left, top, width, height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rect {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) w: f64,
    pub(crate) h: f64,
}

impl Rect {
    pub(crate) fn right(&self) -> f64 {
        self.x + self.w
    }
    pub(crate) fn bottom(&self) -> f64 {
        self.y + self.h
    }
}

/// An outline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stroke {
    pub(crate) color: Rgb,
    pub(crate) width: f64,
    pub(crate) dash: &'static [f64],
}

impl Stroke {
    pub(crate) const fn solid(color: Rgb, width: f64) -> Self {
        Self { color, width, dash: &[] }
    }
}

/// A filling with its opacity.
pub(crate) type Fill = (Rgb, f64);

/// One shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// Straight segments; closed paths are polygons.
    Path {
        points: Vec<(f64, f64)>,
        closed: bool,
        fill: Option<Fill>,
        stroke: Option<Stroke>,
        clip: Option<Rect>,
    },
    Circle {
        at: (f64, f64),
        radius: f64,
        fill: Option<Fill>,
        stroke: Option<Stroke>,
    },
    /// `at` is on the baseline; `angle` in degrees, clockwise.
    Text {
        at: (f64, f64),
        text: String,
        size: f64,
        anchor: Anchor,
        angle: f64,
        color: Rgb,
    },
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scene {
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) items: Vec<Item>,
}

impl Scene {
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        let points = vec![from, to];
        let stroke = Some(stroke);
        self.items.push(Item::Path { points, closed: false, fill: None, stroke, clip: None });
    }

    pub(crate) fn rect(&mut self, r: Rect, fill: Option<Fill>, stroke: Option<Stroke>) {
        let points = vec![(r.x, r.y), (r.right(), r.y), (r.right(), r.bottom()), (r.x, r.bottom())];
        self.items.push(Item::Path { points, closed: true, fill, stroke, clip: None });
    }

    pub(crate) fn text(&mut self, at: (f64, f64), text: &str, size: f64, anchor: Anchor) {
        self.text_as(at, text, size, anchor, 0.0, INK);
    }

    pub(crate) fn text_as(
        &mut self,
        at: (f64, f64),
        text: &str,
        size: f64,
        anchor: Anchor,
        angle: f64,
        color: Rgb,
    ) {
        let text = text.to_owned();
        self.items.push(Item::Text { at, text, size, anchor, angle, color });
    }

    /// The SVG document. `id` must be unique among the pictures of one page.
    pub(crate) fn svg(&self, id: &str, title: &str) -> String {
        let mut out = String::new();
        let mut clips: Vec<Rect> = Vec::new();
        let mut body = String::new();
        for item in &self.items {
            write_item(&mut body, item, id, &mut clips);
        }
        let (w, h) = (short(self.width), short(self.height));
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" \
             viewBox=\"0 0 {w} {h}\" role=\"img\" \
             font-family=\"'DejaVu Sans',Verdana,Arial,sans-serif\">\n<title>{}</title>\n",
            escape(title)
        );
        for (i, c) in clips.iter().enumerate() {
            let _ = writeln!(
                out,
                "<clipPath id=\"{id}-c{i}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\
                 </clipPath>",
                short(c.x),
                short(c.y),
                short(c.w),
                short(c.h)
            );
        }
        let _ = writeln!(out, "<rect width=\"{w}\" height=\"{h}\" fill=\"{}\"/>", hex(PAPER));
        out + &body + "</svg>\n"
    }
}

fn write_item(out: &mut String, item: &Item, id: &str, clips: &mut Vec<Rect>) {
    match item {
        Item::Path { points, closed, fill, stroke, clip } => {
            out.push_str("<path d=\"");
            for (i, (x, y)) in points.iter().enumerate() {
                let _ =
                    write!(out, "{}{} {}", if i == 0 { "M" } else { "L" }, short(*x), short(*y));
            }
            out.push_str(if *closed { "Z\"" } else { "\"" });
            paint(out, *fill, *stroke);
            if let Some(clip) = clip {
                let n = clips.iter().position(|c| c == clip).unwrap_or_else(|| {
                    clips.push(*clip);
                    clips.len() - 1
                });
                let _ = write!(out, " clip-path=\"url(#{id}-c{n})\"");
            }
            out.push_str("/>\n");
        }
        Item::Circle { at, radius, fill, stroke } => {
            let (x, y, r) = (short(at.0), short(at.1), short(*radius));
            let _ = write!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\"");
            paint(out, *fill, *stroke);
            out.push_str("/>\n");
        }
        Item::Text { at, text, size, anchor, angle, color } => {
            let (x, y) = (short(at.0), short(at.1));
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let _ = write!(
                out,
                "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" text-anchor=\"{anchor}\" fill=\"{}\"",
                short(*size),
                hex(*color)
            );
            if *angle != 0.0 {
                let _ = write!(out, " transform=\"rotate({} {x} {y})\"", short(*angle));
            }
            let _ = writeln!(out, ">{}</text>", escape(text));
        }
    }
}

fn paint(out: &mut String, fill: Option<Fill>, stroke: Option<Stroke>) {
    match fill {
        None => out.push_str(" fill=\"none\""),
        Some((color, opacity)) => {
            let _ = write!(out, " fill=\"{}\"", hex(color));
            if opacity < 1.0 {
                let _ = write!(out, " fill-opacity=\"{}\"", short(opacity));
            }
        }
    }
    if let Some(s) = stroke {
        let _ = write!(
            out,
            " stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"",
            hex(s.color),
            short(s.width)
        );
        if !s.dash.is_empty() {
            let dash: Vec<_> = s.dash.iter().map(|d| short(*d)).collect();
            let _ = write!(out, " stroke-dasharray=\"{}\"", dash.join(" "));
        }
    }
}

fn hex(c: Rgb) -> String {
    format!("#{:02x}{:02x}{:02x}", c.0, c.1, c.2)
}

/// Two decimals at most: a hundredth of a pixel is invisible, and files stay small and stable.
fn short(n: f64) -> String {
    let text = format!("{n:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text as XML content. Control characters, which XML 1.0 cannot hold, become spaces.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
