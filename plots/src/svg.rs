//! The drawing backend under plotters: an SVG document with text as text, in 1/64 px.
//!
//! plotters' own SVG writer has whole pixels, quarter turns, no clip paths and no titles. This one
//! adds them: what plotters' style types cannot say ([`Pen`]) is set beside them before drawing.

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

/// Units of a pixel.
pub(crate) const UNIT: f64 = 64.0;
/// Leaning names stand at this angle, degrees.
pub(crate) const LEAN: f64 = -38.0;
/// Distance of the lines of one text, in sizes.
pub(crate) const LINE: f64 = 1.25;

type Done = Result<(), DrawingErrorKind<Infallible>>;

/// Pixels in the backend's unit.
pub(crate) fn px(pixels: f64) -> i32 {
    (pixels * UNIT).round() as i32
}

/// What plotters' styles do not carry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pen {
    /// Dash lengths, px; empty: solid.
    pub(crate) dash: &'static [f64],
    /// Nothing is drawn outside: left, top, width, height, px.
    pub(crate) clip: Option<[f64; 4]>,
    /// A white edge around text.
    pub(crate) halo: bool,
}

/// The document in the making.
#[derive(Default)]
struct Page {
    size: (f64, f64),
    body: String,
    clips: Vec<[f64; 4]>,
    pen: Pen,
    id: String,
    /// If a line was written last: where its path ends in the body, and its attributes.
    line: Option<(usize, String)>,
}

/// A handle of the document; plotters draws through its clones.
#[derive(Clone)]
pub(crate) struct Canvas(Rc<RefCell<Page>>);

/// What names and explains the document to those who cannot see it, and how wide it is.
pub(crate) struct Head<'a> {
    pub(crate) title: &'a str,
    pub(crate) desc: &'a str,
    /// A font family that goes before the default ones.
    pub(crate) font: &'a str,
    /// Physical width, mm.
    pub(crate) mm: Option<f64>,
}

impl Canvas {
    /// A page of that many px; `id` must be unique among the pictures of one HTML page.
    pub(crate) fn new(id: &str, width: f64, height: f64) -> Self {
        let size = (width.ceil(), height.ceil());
        Self(Rc::new(RefCell::new(Page { size, id: id.to_owned(), ..Page::default() })))
    }

    /// For plotters to draw on.
    pub(crate) fn area(&self) -> DrawingArea<Self, Shift> {
        self.clone().into_drawing_area()
    }

    /// Sets what the next drawings use.
    pub(crate) fn pen(&self, pen: Pen) {
        self.0.borrow_mut().pen = pen;
    }

    /// The SVG document.
    pub(crate) fn document(&self, head: &Head<'_>) -> String {
        let page = self.0.borrow();
        let (id, (w, h)) = (&page.id, page.size);
        let physical = match head.mm {
            Some(mm) => (format!("{}mm", short(mm)), format!("{}mm", short(mm * h / w))),
            None => (short(w), short(h)),
        };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
             viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" \
             font-family=\"{}'DejaVu Sans',Verdana,Arial,sans-serif\" fill=\"{}\">\n\
             <title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n",
            physical.0,
            physical.1,
            short(w),
            short(h),
            escape(head.font),
            INK.hex(),
            escape(head.title),
            escape(head.desc)
        );
        for (i, [x, y, w, h]) in page.clips.iter().enumerate() {
            let [x, y, w, h] = [*x, *y, *w, *h].map(short);
            let _ = writeln!(
                out,
                "<clipPath id=\"{id}-c{i}\"><rect x=\"{x}\" y=\"{y}\" width=\"{w}\" \
                 height=\"{h}\"/></clipPath>"
            );
        }
        let paper = PAPER.hex();
        let _ = writeln!(out, "<rect width=\"{w}\" height=\"{h}\" fill=\"{paper}\"/>");
        out + &page.body + "</svg>\n"
    }
}

impl Page {
    /// Writes a shape that is filled, or drawn as an outline.
    fn shape<S: BackendStyle>(&mut self, shape: &str, style: &S, fill: bool) {
        let color = style.color();
        if color.alpha == 0.0 {
            return;
        }
        let (paint, alpha) = (hex(color), color.alpha);
        let opacity = |name: &str| match alpha < 1.0 {
            true => format!(" {name}-opacity=\"{}\"", short(alpha)),
            false => String::new(),
        };
        let mut look = String::new();
        if fill {
            let _ = write!(look, " fill=\"{paint}\"{}", opacity("fill"));
        } else {
            let width = short(f64::from(style.stroke_width()) / UNIT);
            let _ = write!(
                look,
                " fill=\"none\" stroke=\"{paint}\" stroke-width=\"{width}\"{}",
                opacity("stroke")
            );
            if !self.pen.dash.is_empty() {
                let dash: Vec<String> = self.pen.dash.iter().map(|d| short(*d)).collect();
                let _ = write!(look, " stroke-dasharray=\"{}\"", dash.join(" "));
            }
        }
        if let Some(clip) = self.pen.clip {
            let known = self.clips.iter().position(|c| *c == clip);
            let i = known.unwrap_or(self.clips.len());
            if known.is_none() {
                self.clips.push(clip);
            }
            let _ = write!(look, " clip-path=\"url(#{}-c{i})\"", self.id);
        }
        let path = shape.strip_prefix(PATH).and_then(|s| s.strip_suffix('"'));
        // Opaque lines that look alike are one element: the rules of a grid, ticks.
        let joins = path.filter(|_| !fill && alpha >= 1.0);
        if let (Some(path), Some((at, last))) = (joins, &mut self.line)
            && *last == look
            && self.body.len() == *at + "\"".len() + look.len() + "/>\n".len()
        {
            self.body.insert_str(*at, path);
            *at += path.len();
            return;
        }
        // Behind the bracket and the shape, before the shape's closing quote.
        let at = self.body.len() + shape.len();
        let _ = writeln!(self.body, "<{shape}{look}/>");
        self.line = joins.map(|_| (at, look));
    }
}

/// Paths with more points are thinned: a page is no data file.
const MANY: usize = 1000;

/// What can be seen of many points: of those within half a pixel across, the first, the last, the
/// lowest and the highest.
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

/// A line or an outline, in tenths of a pixel, of which there are many: each step from the point
/// before, the first from the origin.
fn path(points: impl IntoIterator<Item = BackendCoord>, close: bool) -> String {
    let tenths = |units: i32| (f64::from(units) / UNIT * 10.0).round() as i64;
    let mut d = PATH.to_owned();
    let mut last = (0, 0);
    for (i, p) in thinned(points.into_iter().collect()).into_iter().enumerate() {
        let p = (tenths(p.0), tenths(p.1));
        match i {
            0 => d.push('M'),
            1 => d.push('l'),
            _ => {}
        }
        step(&mut d, p.0 - last.0, i < 2);
        step(&mut d, p.1 - last.1, false);
        last = p;
    }
    d + if close { "Z\"" } else { "\"" }
}

/// So many tenths, as short as SVG takes them; behind another number with a space, if no sign stands
/// between them.
fn step(d: &mut String, tenths: i64, first: bool) {
    if tenths < 0 {
        d.push('-');
    } else if !first {
        d.push(' ');
    }
    let (whole, part) = (tenths.abs() / 10, tenths.abs() % 10);
    let _ = match (whole, part) {
        (whole, 0) => write!(d, "{whole}"),
        (0, part) => write!(d, ".{part}"),
        (whole, part) => write!(d, "{whole}.{part}"),
    };
}

impl DrawingBackend for Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        let size = self.0.borrow().size;
        (px(size.0) as u32, px(size.1) as u32)
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
        let (w, h) = (at((x1 - x0).abs()), at((y1 - y0).abs()));
        let (x, y) = (at(x0.min(x1)), at(y0.min(y1)));
        let rect = format!("rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"");
        self.0.borrow_mut().shape(&rect, style, fill);
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Done {
        self.0.borrow_mut().shape(&path(points, false), style, false);
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        points: I,
        style: &S,
    ) -> Done {
        self.0.borrow_mut().shape(&path(points, true), style, true);
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Done {
        let circle =
            format!("circle cx=\"{}\" cy=\"{}\" r=\"{}\"", at(x), at(y), at(radius as i32));
        self.0.borrow_mut().shape(&circle, style, fill);
        Ok(())
    }

    /// Lines of the text are separated by line feeds; an oblique text leans by [`LEAN`].
    fn draw_text<T: BackendTextStyle>(&mut self, text: &str, s: &T, pos: BackendCoord) -> Done {
        if text.is_empty() {
            return Ok(());
        }
        let mut page = self.0.borrow_mut();
        let (size, lines) = (s.size() / UNIT, text.split('\n').count() as f64);
        let (h, v) = (s.anchor().h_pos, s.anchor().v_pos);
        let leans = matches!(s.style(), FontStyle::Oblique);
        let anchor = match h {
            _ if leans => " text-anchor=\"end\"",
            HPos::Left => "",
            HPos::Center => " text-anchor=\"middle\"",
            HPos::Right => " text-anchor=\"end\"",
        };
        let (x, y) = (f64::from(pos.0) / UNIT, f64::from(pos.1) / UNIT);
        let first = match v {
            VPos::Top => 0.9 * size,
            VPos::Center => (0.36 - (lines - 1.0) / 2.0 * LINE) * size,
            VPos::Bottom => (-0.24 - (lines - 1.0) * LINE) * size,
        };
        let turn = match s.transform() {
            _ if leans => LEAN,
            FontTransform::None => 0.0,
            FontTransform::Rotate90 => 90.0,
            FontTransform::Rotate180 => 180.0,
            FontTransform::Rotate270 => -90.0,
        };
        let turn = match turn == 0.0 {
            true => String::new(),
            false => format!(" transform=\"rotate({turn} {} {})\"", short(x), short(y)),
        };
        let color = hex(s.color());
        let fill = if color == INK.hex() { String::new() } else { format!(" fill=\"{color}\"") };
        let halo = match page.pen.halo {
            true => {
                format!(" stroke=\"{}\" stroke-width=\"3\" paint-order=\"stroke\"", PAPER.hex())
            }
            false => String::new(),
        };
        for (i, line) in text.split('\n').enumerate() {
            let y = short(y + first + i as f64 * LINE * size);
            let _ = writeln!(
                page.body,
                "<text x=\"{}\" y=\"{y}\" font-size=\"{}\"{anchor}{fill}{halo}{turn}>{}</text>",
                short(x),
                short(size),
                escape(line)
            );
        }
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(
        &self,
        text: &str,
        style: &T,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let wide = text.split('\n').map(|l| font::width(l, style.size())).fold(0.0, f64::max);
        Ok((wide as u32, (text.split('\n').count() as f64 * LINE * style.size()) as u32))
    }
}

fn hex(c: BackendColor) -> String {
    let (r, g, b) = c.rgb;
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A coordinate in px.
fn at(units: i32) -> String {
    short(f64::from(units) / UNIT)
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
