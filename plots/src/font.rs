//! The embedded font: measures text and breaks it into lines. System fonts are never used.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId};

/// DejaVu Sans, reduced to Latin, Greek, punctuation, arrows and a few signs; its licence is in the same
/// folder.
pub(crate) static DATA: &[u8] = include_bytes!("../assets/DejaVuSans-subset.ttf");

static FACE: LazyLock<Face<'static>> =
    LazyLock::new(|| Face::parse(DATA, 0).expect("the embedded font is a TrueType font"));

/// Width of `text` in px at `size` px. A character that the font lacks is drawn as `?`.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let glyph = |c| FACE.glyph_index(c).or_else(|| FACE.glyph_index('?')).unwrap_or(GlyphId(0));
    let units: u64 =
        text.chars().filter_map(|c| FACE.glyph_hor_advance(glyph(c))).map(u64::from).sum();
    units as f64 / f64::from(FACE.units_per_em()) * size
}

/// Width of the widest of the text's lines.
pub(crate) fn widest(text: &str, size: f64) -> f64 {
    text.split('\n').map(|line| width(line, size)).fold(0.0, f64::max)
}

/// Breaks `text` into lines no wider than `limit` px: at spaces, else after `-`, `_`, `.`, `,` or `=`, and
/// within a word only if the word alone is too wide.
pub(crate) fn wrap(text: &str, size: f64, limit: f64) -> Vec<String> {
    let fits = |line: &str| width(line.trim_end(), size) <= limit;
    // Where to break a line that is too wide: after at least one character.
    let cut = |line: &str| {
        let ends: Vec<usize> = line.char_indices().map(|c| c.0).skip(1).collect();
        let last = ends.iter().rfind(|&&end| fits(&line[..end])).or(ends.first()).copied();
        last.filter(|_| !fits(line))
    };
    let mut lines = vec![String::new()];
    for piece in text.split_inclusive([' ', '-', '_', '.', '=', ',']) {
        let line = lines.last_mut().expect("never empty");
        match line.is_empty() || fits(&format!("{line}{piece}")) {
            true => line.push_str(piece),
            false => lines.push(piece.trim_start().to_owned()),
        }
        while let Some(line) = lines.last_mut()
            && let Some(end) = cut(line)
        {
            let rest = line.split_off(end);
            lines.push(rest);
        }
    }
    lines.into_iter().map(|l| l.trim_end().to_owned()).collect()
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
