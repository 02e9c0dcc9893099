//! A scene as PNG.

use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Mask, Paint, Path, PathBuilder, Pixmap, StrokeDash,
    Transform,
};

use crate::font;
use crate::scene::{Anchor, Fill, Item, Rect, Scene, Stroke};
use crate::style::{PAPER, Rgb};

/// Pixels of the PNG per pixel of the scene: sharp in print and on dense screens.
const SCALE: f32 = 2.0;

/// Largest PNG side, in pixels: beyond it a picture is drawn smaller, not refused.
const MAX_SIDE: f64 = 12_000.0;

struct Canvas {
    pixmap: Pixmap,
    transform: Transform,
}

/// The PNG file's bytes.
pub(crate) fn png(scene: &Scene) -> Result<Vec<u8>, String> {
    let scale = f64::from(SCALE).min(MAX_SIDE / scene.width.max(scene.height).max(1.0));
    let (w, h) = ((scene.width * scale).ceil() as u32, (scene.height * scale).ceil() as u32);
    let pixmap = Pixmap::new(w.max(1), h.max(1)).ok_or("the picture is too large for a PNG")?;
    let transform = Transform::from_scale(scale as f32, scale as f32);
    let mut canvas = Canvas { pixmap, transform };
    canvas.pixmap.fill(Color::from_rgba8(PAPER.0, PAPER.1, PAPER.2, 255));
    let mut mask: Option<(Rect, Mask)> = None;
    for item in &scene.items {
        canvas.draw(item, &mut mask);
    }
    canvas.pixmap.encode_png().map_err(|e| e.to_string())
}

impl Canvas {
    fn draw(&mut self, item: &Item, mask: &mut Option<(Rect, Mask)>) {
        match item {
            Item::Path { points, closed, fill, stroke, clip } => {
                let mut builder = PathBuilder::new();
                for (i, &(x, y)) in points.iter().enumerate() {
                    if i == 0 {
                        builder.move_to(x as f32, y as f32);
                    } else {
                        builder.line_to(x as f32, y as f32);
                    }
                }
                if *closed {
                    builder.close();
                }
                if let Some(clip) = clip
                    && mask.as_ref().is_none_or(|(r, _)| r != clip)
                {
                    *mask = self.mask(*clip).map(|m| (*clip, m));
                }
                let clip = clip.and(mask.as_ref()).map(|(_, m)| m);
                if let Some(path) = builder.finish() {
                    self.paint(&path, *fill, *stroke, clip);
                }
            }
            Item::Circle { at, radius, fill, stroke } => {
                let circle = PathBuilder::from_circle(at.0 as f32, at.1 as f32, *radius as f32);
                if let Some(path) = circle {
                    self.paint(&path, *fill, *stroke, None);
                }
            }
            Item::Text { at, text, size, anchor, angle, color } => {
                let mut builder = Glyphs(PathBuilder::new());
                font::outline(text, *size, &mut builder);
                let Some(path) = builder.0.finish() else { return };
                let shift = match anchor {
                    Anchor::Start => 0.0,
                    Anchor::Middle => 0.5,
                    Anchor::End => 1.0,
                } * font::width(text, *size);
                let place = Transform::from_translate(-shift as f32, 0.0)
                    .post_rotate(*angle as f32)
                    .post_translate(at.0 as f32, at.1 as f32);
                if let Some(path) = path.transform(place) {
                    self.paint(&path, Some((*color, 1.0)), None, None);
                }
            }
        }
    }

    fn mask(&self, r: Rect) -> Option<Mask> {
        let mut mask = Mask::new(self.pixmap.width(), self.pixmap.height())?;
        let rect = tiny_skia::Rect::from_xywh(r.x as f32, r.y as f32, r.w as f32, r.h as f32)?;
        mask.fill_path(&PathBuilder::from_rect(rect), FillRule::Winding, true, self.transform);
        Some(mask)
    }

    fn paint(&mut self, path: &Path, fill: Option<Fill>, stroke: Option<Stroke>, m: Option<&Mask>) {
        if let Some((color, opacity)) = fill {
            let paint = paint(color, opacity);
            self.pixmap.fill_path(path, &paint, FillRule::Winding, self.transform, m);
        }
        if let Some(s) = stroke {
            let dash = s.dash.iter().map(|d| *d as f32).collect::<Vec<_>>();
            let stroke = tiny_skia::Stroke {
                width: s.width as f32,
                line_join: LineJoin::Round,
                line_cap: LineCap::Butt,
                dash: if dash.is_empty() { None } else { StrokeDash::new(dash, 0.0) },
                ..tiny_skia::Stroke::default()
            };
            self.pixmap.stroke_path(path, &paint(s.color, 1.0), &stroke, self.transform, m);
        }
    }
}

fn paint(color: Rgb, opacity: f64) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(color.0, color.1, color.2, (opacity * 255.0) as u8);
    paint
}

struct Glyphs(PathBuilder);

impl ttf_parser::OutlineBuilder for Glyphs {
    fn move_to(&mut self, x: f32, y: f32) {
        self.0.move_to(x, y);
    }
    fn line_to(&mut self, x: f32, y: f32) {
        self.0.line_to(x, y);
    }
    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.0.quad_to(x1, y1, x, y);
    }
    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.0.cubic_to(x1, y1, x2, y2, x, y);
    }
    fn close(&mut self) {
        self.0.close();
    }
}
