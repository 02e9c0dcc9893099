//! Converts a figure's SVG to PNG and PDF. Both use only the embedded font, never a system font.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg;

use crate::font;

/// Pixels of the PNG per pixel of the figure: sharp in print and on dense screens.
const SCALE: f32 = 2.0;
/// Largest side of a PNG, px: a larger picture is scaled down, not refused.
const MAX_SIDE: f32 = 12_000.0;

static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(font::DATA.to_vec());
    Arc::new(fonts)
});

/// The bytes of the PNG and of the PDF.
pub(crate) fn png_and_pdf(svg: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let options = usvg::Options {
        fontdb: FONTS.clone(),
        // Regardless of the font family that the SVG names first.
        font_resolver: usvg::FontResolver {
            select_font: Box::new(|_, fonts| fonts.faces().next().map(|f| f.id)),
            select_fallback: Box::new(|_, _, _| None),
        },
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| e.to_string())?;
    let settings = svg2pdf::ConversionOptions::default();
    let pdf = svg2pdf::to_pdf(&tree, settings, svg2pdf::PageOptions { dpi: 96.0 });
    Ok((png(&tree)?, pdf.map_err(|e| e.to_string())?))
}

fn png(tree: &usvg::Tree) -> Result<Vec<u8>, String> {
    let size = tree.size();
    let scale = SCALE.min(MAX_SIDE / size.width().max(size.height()).max(1.0));
    let side = |s: f32| ((s * scale).ceil() as u32).max(1);
    let (w, h) = (side(size.width()), side(size.height()));
    let mut pixmap = Pixmap::new(w, h).ok_or("the picture is too large for a PNG")?;
    pixmap.fill(Color::WHITE);
    resvg::render(tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, w, h);
    encoder.set_depth(png::BitDepth::Eight);
    // The best compression takes four times as long and saves only a fiftieth of the bytes.
    encoder.set_compression(png::Compression::Default);
    // A palette for pictures with few colours halves both the bytes and the time.
    let data = match indexed(pixmap.data()) {
        Some((palette, indices)) => {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette);
            encoder.set_filter(png::FilterType::NoFilter);
            indices
        }
        None => {
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_filter(png::FilterType::Paeth);
            pixmap.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect()
        }
    };
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(&data).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The colours of opaque RGBA pixels, in the order of their first use, and the index of each pixel's colour;
/// `None` if there are more than 8 bits can index.
fn indexed(pixels: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut known: HashMap<[u8; 3], u8> = HashMap::new();
    let mut palette = vec![];
    let mut indices = Vec::with_capacity(pixels.len() / 4);
    let mut last = None;
    for p in pixels.chunks_exact(4) {
        let colour = [p[0], p[1], p[2]];
        // Most pixels have the colour of the previous one.
        let index = match last {
            Some((same, index)) if same == colour => index,
            _ => match known.get(&colour) {
                Some(&index) => index,
                None => {
                    let index = u8::try_from(known.len()).ok()?;
                    known.insert(colour, index);
                    palette.extend(colour);
                    index
                }
            },
        };
        last = Some((colour, index));
        indices.push(index);
    }
    Some((palette, indices))
}
