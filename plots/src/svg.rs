//! The drawing backend for plotters: writes an SVG document with real text, in units of 1/64 px.
//!
//! plotters' own SVG writer is limited to whole pixels and quarter turns, and has neither clip paths nor
//! titles. This backend adds them: attributes that plotters' style types cannot express ([`Pen`]) are set
//! separately before drawing.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::rc::Rc;

use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle, FontTransform,
};

use crate::font;
use crate::style::{INK, PAPER};

/// Units per pixel.
pub(crate) const UNIT: f64 = 64.0;
/// Angle of slanted names, degrees.
pub(crate) const LEAN: f64 = -38.0;
/// Distance between the lines of one text, as a multiple of its size.
pub(crate) const LINE: f64 = 1.25;

type Done = Result<(), DrawingErrorKind<Infallible>>;

/// Converts pixels to the backend's unit.
pub(crate) fn px(pixels: f64) -> i32 {
    (pixels * UNIT).round() as i32
}

/// Attributes that plotters' styles cannot express.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pen {
    /// Dash lengths, px; empty: solid.
    pub(crate) dash: &'static [f64],
    /// Clip rectangle: left, top, width, height, px.
    pub(crate) clip: Option<[f64; 4]>,
    /// A white edge around text.
    pub(crate) halo: bool,
}

/// One element of the document.
struct Shape {
    /// Attributes that adjacent shapes may share.
    look: String,
    /// Element name and first attribute, up to its value.
    open: &'static str,
    geometry: String,
    close: String,
}

/// The document being built.
#[derive(Default)]
struct Page {
    id: String,
    size: (f64, f64),
    shapes: Vec<Shape>,
    clips: Vec<[f64; 4]>,
    pen: Pen,
}

/// A handle to the document; plotters draws through its clones.
#[derive(Clone)]
pub(crate) struct Canvas(Rc<RefCell<Page>>);

/// The document's title and its description for readers who cannot see it, and its width.
pub(crate) struct Head<'a> {
    pub(crate) title: &'a str,
    pub(crate) desc: &'a str,
    /// A font family to use before the default ones.
    pub(crate) font: &'a str,
    /// Physical width, mm.
    pub(crate) mm: Option<f64>,
}

impl Canvas {
    /// A page of this size in px; `id` must be unique among the pictures of one HTML page.
    pub(crate) fn new(id: &str, width: f64, height: f64) -> Self {
        let size = (width.ceil(), height.ceil());
        Self(Rc::new(RefCell::new(Page { id: id.to_owned(), size, ..Page::default() })))
    }

    /// The area for plotters to draw on.
    pub(crate) fn area(&self) -> DrawingArea<Self, Shift> {
        self.clone().into_drawing_area()
    }

    /// Sets the pen for the next drawings.
    pub(crate) fn pen(&self, pen: Pen) {
        self.0.borrow_mut().pen = pen;
    }

    /// The SVG document.
    pub(crate) fn document(&self, head: &Head<'_>) -> String {
        let Page { id, size: (w, h), shapes, clips, .. } = &*self.0.borrow();
        let (unit, scale) = head.mm.map_or(("", 1.0), |mm| ("mm", mm / w));
        let [width, height] = [w * scale, h * scale].map(short);
        let (font, ink, paper) = (escape(head.font), INK.hex(), PAPER.hex());
        let [title, desc] = [head.title, head.desc].map(escape);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}{unit}\" \
             height=\"{height}{unit}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\" \
             font-family=\"{font}'DejaVu Sans',Verdana,Arial,sans-serif\" fill=\"{ink}\">\n\
             <title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">{desc}</desc>\n"
        );
        for (i, clip) in clips.iter().enumerate() {
            let [x, y, w, h] = clip.map(short);
            let rect = format!("rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"");
            let _ = writeln!(out, "<clipPath id=\"{id}-c{i}\"><{rect}/></clipPath>");
        }
        let _ = writeln!(out, "<rect width=\"{w}\" height=\"{h}\" fill=\"{paper}\"/>");
        for alike in shapes.chunk_by(|a, b| a.look == b.look) {
            let (group, own, end) = match alike {
                [one] => (String::new(), one.look.as_str(), ""),
                _ => (format!("<g{}>", alike[0].look), "", "</g>\n"),
            };
            out += &group;
            for Shape { open, geometry, close, .. } in alike {
                let _ = writeln!(out, "<{open}{geometry}\"{own}{close}");
            }
            out += end;
        }
        out + "</svg>\n"
    }

    /// Adds a shape, either filled or as an outline.
    fn shape<S: BackendStyle>(&self, open: &'static str, geometry: String, style: &S, fill: bool) {
        let (page, color) = (&mut *self.0.borrow_mut(), style.color());
        if color.alpha == 0.0 {
            return;
        }
        let paint = if fill { "fill" } else { "stroke" };
        let mut look = format!(" {paint}=\"{}\"", hex(color));
        if color.alpha < 1.0 {
            let _ = write!(look, " {paint}-opacity=\"{}\"", short(color.alpha));
        }
        if !fill {
            let width = short(f64::from(style.stroke_width()) / UNIT);
            let _ = write!(look, " fill=\"none\" stroke-width=\"{width}\"");
            if !page.pen.dash.is_empty() {
                let dash: Vec<String> = page.pen.dash.iter().map(|d| short(*d)).collect();
                let _ = write!(look, " stroke-dasharray=\"{}\"", dash.join(" "));
            }
        }
        if let Some(clip) = page.pen.clip {
            let i = page.clips.iter().position(|c| *c == clip).unwrap_or_else(|| {
                page.clips.push(clip);
                page.clips.len() - 1
            });
            let _ = write!(look, " clip-path=\"url(#{}-c{i})\"", page.id);
        }
        match page.shapes.last_mut() {
            // Adjacent lines of the same look become one element: the rules of a grid, ticks.
            Some(last) if last.look == look && !fill && open == PATH && last.open == PATH => {
                last.geometry += &geometry;
            }
            _ => page.shapes.push(Shape { look, open, geometry, close: "/>".to_owned() }),
        }
    }
}

/// Paths with more points than this are thinned: a page is not a data file.
const MANY: usize = 1000;

/// The visible ones of many points: of those within the same half pixel horizontally, the first, the last,
/// the lowest and the highest.
fn thinned(points: Vec<BackendCoord>) -> Vec<BackendCoord> {
    if points.len() <= MANY {
        return points;
    }
    let mut kept = vec![];
    for run in points.chunk_by(|a, b| a.0 / px(0.5) == b.0 / px(0.5)) {
        let mut ends = vec![0, run.len() - 1];
        ends.extend((0..run.len()).min_by_key(|&i| run[i].1));
        ends.extend((0..run.len()).max_by_key(|&i| run[i].1));
        ends.sort_unstable();
        ends.dedup();
        kept.extend(ends.into_iter().map(|i| run[i]));
    }
    kept
}

const PATH: &str = "path d=\"";

/// A line of many points, in tenths of a pixel: each coordinate is relative to the previous point, the first
/// to the origin.
fn path(points: impl IntoIterator<Item = BackendCoord>) -> String {
    let tenths = |units: i32| (f64::from(units) / UNIT * 10.0).round() as i32;
    let (mut d, mut last) = (String::new(), (0, 0));
    for (i, (x, y)) in thinned(points.into_iter().collect()).into_iter().enumerate() {
        let at = (tenths(x), tenths(y));
        d += ["M", "l"].get(i).unwrap_or(&"");
        for (n, step) in [at.0 - last.0, at.1 - last.1].into_iter().enumerate() {
            // A minus sign also separates numbers.
            if step >= 0 && (i > 1 || n > 0) {
                d.push(' ');
            }
            let number = (f64::from(step) / 10.0).to_string();
            let bare = if step.abs() < 10 { number.replacen("0.", ".", 1) } else { number };
            d += &bare;
        }
        last = at;
    }
    d
}

impl DrawingBackend for Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        let (w, h) = self.0.borrow().size;
        (px(w) as u32, px(h) as u32)
    }

    fn ensure_prepared(&mut self) -> Done {
        Ok(())
    }

    fn present(&mut self) -> Done {
        Ok(())
    }

    fn draw_pixel(&mut self, _: BackendCoord, _: BackendColor) -> Done {
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, a: BackendCoord, b: BackendCoord, s: &S) -> Done {
        self.draw_path([a, b], s)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (x0, y0): BackendCoord,
        (x1, y1): BackendCoord,
        style: &S,
        fill: bool,
    ) -> Done {
        let [x, y, w, h] = [x0.min(x1), y0.min(y1), (x1 - x0).abs(), (y1 - y0).abs()].map(at);
        let rest = format!("{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}");
        self.shape("rect x=\"", rest, style, fill);
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Done {
        self.shape(PATH, path(points), style, false);
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Done {
        self.shape(PATH, path(points) + "Z", style, true);
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Done {
        let [x, y, r] = [x, y, radius as i32].map(at);
        self.shape("circle cx=\"", format!("{x}\" cy=\"{y}\" r=\"{r}"), style, fill);
        Ok(())
    }

    /// Line feeds separate the lines of the text; oblique text is slanted by [`LEAN`].
    fn draw_text<T: BackendTextStyle>(&mut self, text: &str, s: &T, pos: BackendCoord) -> Done {
        let page = &mut *self.0.borrow_mut();
        let (size, lines) = (s.size() / UNIT, text.split('\n').count() as f64);
        let (turn, anchor) = match (s.style(), s.transform(), s.anchor().h_pos) {
            (FontStyle::Oblique, ..) => (LEAN, "end"),
            (_, FontTransform::Rotate270, _) => (-90.0, "middle"),
            (_, _, HPos::Left) => (0.0, ""),
            (_, _, HPos::Center) => (0.0, "middle"),
            (_, _, HPos::Right) => (0.0, "end"),
        };
        let first = match s.anchor().v_pos {
            VPos::Top => 0.9,
            VPos::Center => 0.36 - (lines - 1.0) / 2.0 * LINE,
            VPos::Bottom => -0.24 - (lines - 1.0) * LINE,
        };
        let mut look = format!(" font-size=\"{}\"", short(size));
        let mut say = |name: &str, value: &str| {
            let _ = write!(look, " {name}=\"{value}\"");
        };
        let (x, color) = (at(pos.0), hex(s.color()));
        if !anchor.is_empty() {
            say("text-anchor", anchor);
        }
        if color != INK.hex() {
            say("fill", &color);
        }
        if page.pen.halo {
            say("stroke", &PAPER.hex());
            say("stroke-width", "3");
            say("paint-order", "stroke");
        }
        for (i, line) in text.split('\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let y = f64::from(pos.1) / UNIT + (first + i as f64 * LINE) * size;
            let mut geometry = format!("{x}\" y=\"{}", short(y));
            if turn != 0.0 {
                let _ = write!(geometry, "\" transform=\"rotate({turn} {x} {})", at(pos.1));
            }
            let (look, close) = (look.clone(), format!(">{}</text>", escape(line)));
            page.shapes.push(Shape { look, open: "text x=\"", geometry, close });
        }
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(
        &self,
        text: &str,
        style: &T,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let lines = text.split('\n').count() as f64;
        Ok((font::widest(text, style.size()) as u32, (lines * LINE * style.size()) as u32))
    }
}

fn hex(c: BackendColor) -> String {
    crate::style::Rgb(c.rgb.0, c.rgb.1, c.rgb.2).hex()
}

/// A coordinate in px.
fn at(units: i32) -> String {
    short(f64::from(units) / UNIT)
}

/// At most two decimals: a hundredth of a pixel is invisible, and files stay small and stable.
fn short(n: f64) -> String {
    ((n * 100.0).round() / 100.0 + 0.0).to_string()
}

/// Text as XML content. Control characters, which XML 1.0 cannot hold, become spaces.
fn escape(text: &str) -> String {
    let legal = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let clean: String = text.chars().map(|c| if legal(c) { c } else { ' ' }).collect();
    maud::html!((clean)).into_string()
}
