//! The embedded font: how wide a text is, and how it breaks into lines. No system font is ever
//! asked for.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId};

/// DejaVu Sans, cut down to Latin, Greek, punctuation, arrows and a few signs; licence beside it.
pub(crate) static DATA: &[u8] = include_bytes!("../assets/DejaVuSans-subset.ttf");

static FACE: LazyLock<Face<'static>> =
    LazyLock::new(|| Face::parse(DATA, 0).expect("the embedded font is a TrueType font"));

/// A character that the font lacks is drawn as `?`.
fn glyph(c: char) -> GlyphId {
    FACE.glyph_index(c).or_else(|| FACE.glyph_index('?')).unwrap_or(GlyphId(0))
}

fn advance(id: GlyphId) -> f64 {
    f64::from(FACE.glyph_hor_advance(id).unwrap_or(0)) / f64::from(FACE.units_per_em())
}

/// Width of `text` in px at `size` px.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| advance(glyph(c))).sum::<f64>() * size
}

/// Breaks `text` into lines no wider than `limit` px: at spaces, else after `-`, `_`, `.`, `,` or
/// `=`, and within a word only where it alone is too wide.
pub(crate) fn wrap(text: &str, size: f64, limit: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in pieces(text) {
        let current = lines.last_mut().expect("never empty");
        let joined = format!("{current}{piece}");
        if width(joined.trim_end(), size) <= limit || current.is_empty() {
            *current = joined;
        } else {
            lines.push(piece.trim_start().to_owned());
        }
        while width(lines.last().expect("never empty").trim_end(), size) > limit {
            let line = lines.pop().expect("never empty");
            let mut cut = line.chars().count();
            let head = |n: usize| line.chars().take(n).collect::<String>();
            while cut > 1 && width(&head(cut), size) > limit {
                cut -= 1;
            }
            if cut == line.chars().count() {
                lines.push(line);
                break;
            }
            lines.push(head(cut));
            lines.push(line.chars().skip(cut).collect());
        }
    }
    lines.into_iter().map(|l| l.trim_end().to_owned()).collect()
}

fn pieces(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    for c in text.chars() {
        out.last_mut().expect("never empty").push(c);
        if matches!(c, ' ' | '-' | '_' | '.' | '=' | ',') {
            out.push(String::new());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_subset_has_every_sign_that_figures_draw() {
        let drawn = "µ×%–−±≤≥·…→²³⁰¹⁴⁵⁶⁷⁸⁹⁻∞≈ÄÖÜäöüßéèñç";
        let ascii: String = (' '..='~').collect();
        for c in drawn.chars().chain(ascii.chars()) {
            assert!(FACE.glyph_index(c).is_some(), "{c}");
        }
    }

    #[test]
    fn lines_break_at_spaces_first() {
        assert_eq!(wrap("one two three", 10.0, 50.0), ["one two", "three"]);
        assert_eq!(wrap("", 10.0, 50.0), [""]);
    }

    proptest! {
        #[test]
        fn wrapping_loses_nothing_but_spaces(text in ".{0,60}", limit in 5.0..200.0f64) {
            let lines = wrap(&text, 11.0, limit);
            let solid = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(solid(&lines.concat()), solid(&text));
        }
    }
}
