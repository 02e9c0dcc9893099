//! Converts colours, lines and text styles to those of plotters.

use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color as _, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle,
};

use crate::style::Rgb;
use crate::svg::px;

/// A colour as plotters' type.
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
