//! Decimal numbers and dates as text, to whole nanoseconds, without a binary fraction on the way:
//! `5.8926549999999995` seconds is 5,892,655,000 ns on every machine.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Why a text is not a non-negative decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecimalError {
    /// It has a minus sign and is not zero.
    Negative,
    /// It is not a number at all; neither are NaN and infinities.
    NotANumber,
    /// It does not fit 64 bits.
    TooLarge,
}

/// `text` times 10^`exponent`, rounded half up to a whole number.
pub(crate) fn scaled(text: &str, exponent: i64) -> Result<u64, DecimalError> {
    let text = text.trim();
    let (negative, body) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, power) = match body.find(['e', 'E']) {
        Some(at) => {
            let power = body[at + 1..].parse::<i32>().map_err(|_| DecimalError::NotANumber)?;
            (&body[..at], i64::from(power))
        }
        None => (body, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return Err(DecimalError::NotANumber);
    }
    let value = shift(whole, fraction, exponent + power)?;
    // A negative number that rounds to zero is still negative input, except -0 itself.
    let is_zero = whole.bytes().chain(fraction.bytes()).all(|b| b == b'0');
    if negative && !is_zero {
        return Err(DecimalError::Negative);
    }
    Ok(value)
}

/// The digits `whole.fraction` with the point moved right by `places`, rounded half up.
fn shift(whole: &str, fraction: &str, places: i64) -> Result<u64, DecimalError> {
    let digit = |i: i64| -> u8 {
        let i = usize::try_from(i).unwrap_or(usize::MAX);
        let byte = whole.as_bytes().get(i);
        byte.or_else(|| fraction.as_bytes().get(i.checked_sub(whole.len())?))
            .map_or(0, |b| b - b'0')
    };
    let given = (whole.len() + fraction.len()) as i64;
    let point = whole.len() as i64 + places;
    let mut value: u64 = 0;
    for i in 0..point {
        if i >= given && value == 0 {
            break;
        }
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(u64::from(digit(i))))
            .ok_or(DecimalError::TooLarge)?;
    }
    let round_up = point >= 0 && digit(point) >= 5;
    value.checked_add(u64::from(round_up)).ok_or(DecimalError::TooLarge)
}

/// A decimal factor as a fraction: `0.25` is 25/100. At most 12 decimals.
pub(crate) fn ratio(text: &str) -> Option<(u64, u64)> {
    let fraction = text.trim().split_once('.').map_or(0, |(_, f)| f.len());
    let places = u32::try_from(fraction).ok().filter(|&p| p <= 12)?;
    if text.contains(['e', 'E']) {
        return None;
    }
    Some((scaled(text, i64::from(places)).ok()?, 10u64.pow(places)))
}

/// `YYYY-MM-DD HH:MM:SS` with `T` or a space between, a fraction of up to nine digits, and `Z`, an
/// offset or nothing behind it (nothing means UTC), in nanoseconds since 1970.
pub(crate) fn datetime(text: &str) -> Option<u64> {
    let text = text.trim();
    let stamp = match text.parse::<Timestamp>() {
        Ok(stamp) => stamp,
        Err(_) => text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
    };
    // A date without a time is not an instant.
    text.contains(':').then(|| u64::try_from(stamp.as_nanosecond()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_exact_and_rounded_half_up() {
        for (text, exponent, want) in [
            ("5.8926549999999995", 9, 5_892_655_000),
            ("0.1", 9, 100_000_000),
            ("4.314579", 9, 4_314_579_000),
            ("18446744073.709551615", 9, u64::MAX),
            ("1e-9", 9, 1),
            ("1.5e3", 0, 1500),
            ("0.5", 0, 1),
            ("0.4999999999999999999999999999", 0, 0),
            ("-0.0", 9, 0),
            (".5", 1, 5),
            ("000000000000000000000000000000007", 0, 7),
        ] {
            assert_eq!(scaled(text, exponent), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", ".", "nan", "inf", "1.2.3", "0x1", "1e", "1 2", "٣"] {
            assert_eq!(scaled(text, 9), Err(DecimalError::NotANumber), "{text}");
        }
        assert_eq!(scaled("-1", 9), Err(DecimalError::Negative));
        assert_eq!(scaled("18446744073709551616", 0), Err(DecimalError::TooLarge));
        assert_eq!(scaled("1e2000000000", 0), Err(DecimalError::TooLarge));
    }

    #[test]
    fn every_public_date_style_reads() {
        let base = 1_700_158_546_000_000_000; // 2023-11-16T18:15:46Z
        for (text, want) in [
            ("2023-11-16 18:15:46.6805900", base + 680_590_000),
            ("2023-11-16T18:15:46.269Z", base + 269_000_000),
            ("2023-11-16 18:15:46.001163+00:00", base + 1_163_000),
            ("2023-11-16 18:15:46+00:00", base),
            ("2023-11-16 18:15:46", base),
            ("2023-11-16 20:15:46+02:00", base),
            ("2023-11-16 13:15:46-05:00", base),
        ] {
            assert_eq!(datetime(text), Some(want), "{text}");
        }
        for text in ["", "2023-13-01 00:00:00", "2023-11-16 18:15:46x"] {
            assert_eq!(datetime(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_not_a_panic(text in ".{0,40}") {
            let _ = scaled(&text, 9);
            let _ = datetime(&text);
            let _ = ratio(&text);
        }

        #[test]
        fn nanoseconds_survive_any_unit(ns in any::<u64>()) {
            let seconds = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
            prop_assert_eq!(scaled(&seconds, 9), Ok(ns));
        }
    }
}
