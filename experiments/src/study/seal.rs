//! JSON that carries its own checksum, so that a torn or damaged text is told from a whole one.
//!
//! The text of an object begins with `{"check":"<16 hex digits>",`; the digits are the beginning of
//! the SHA-256 digest of everything that follows them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest;

const HEAD: &str = "{\"check\":\"";
const DIGITS: usize = 16;

/// The value as one line of JSON with its checksum, without a line end.
pub(crate) fn line(value: &impl Serialize) -> String {
    seal(&serde_json::to_string(value).expect("plain data serialises"))
}

/// The value as indented JSON with its checksum and a final line end.
pub(crate) fn document(value: &impl Serialize) -> String {
    seal(&serde_json::to_string_pretty(value).expect("plain data serialises")) + "\n"
}

fn seal(json: &str) -> String {
    let rest = json.strip_prefix('{').expect("records are objects with fields");
    let rest = format!("\",{rest}");
    format!("{HEAD}{}{rest}", &digest::of_text(&rest)[..DIGITS])
}

/// Reads what [`line()`] or [`document`] wrote; nothing where a byte differs.
pub(crate) fn open<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\n');
    let (check, rest) = text.strip_prefix(HEAD)?.split_at_checked(DIGITS)?;
    if digest::of_text(rest)[..DIGITS] != *check {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize, Serialize)]
    struct Pair {
        a: u32,
        b: String,
    }

    #[test]
    fn what_is_sealed_opens_and_any_flipped_bit_shows() {
        let pair = Pair { a: 7, b: "x\ny".to_owned() };
        for text in [line(&pair), document(&pair)] {
            assert_eq!(open::<Pair>(text.as_bytes()), Some(Pair { a: 7, b: "x\ny".to_owned() }));
            let whole = text.trim_end().as_bytes();
            for i in 0..whole.len() {
                let mut bytes = whole.to_vec();
                bytes[i] ^= 1;
                assert_eq!(open::<Pair>(&bytes), None, "byte {i}");
                assert_eq!(open::<Pair>(&whole[..i]), None, "cut at {i}");
            }
        }
    }
}
