//! Times and sizes, as people write them (`250us`, `64MiB`) and as the simulator counts them.

use std::fmt;
use std::ops::{Add, AddAssign, Mul, Sub};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration or an instant in whole nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Why a duration or a size could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: write a number and a unit, such as {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

impl Nanos {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Later than every event.
    pub const MAX: Self = Self(u64::MAX);

    /// Whole microseconds.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us * 1_000)
    }

    /// Whole milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(s: u64) -> Self {
        Self(s * 1_000_000_000)
    }

    /// The nearest nanosecond to `s` seconds; negative and not-a-number give zero.
    #[must_use]
    pub fn from_secs_f64(s: f64) -> Self {
        Self((s * 1e9).round() as u64)
    }

    /// In seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// `self - earlier`, or zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Mul<u64> for Nanos {
    type Output = Self;
    fn mul(self, n: u64) -> Self {
        Self(self.0 * n)
    }
}

const TIME_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `12.5ms` exactly: decimal digits times the unit, no binary fraction on the way.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    if text == "0" {
        return Some(0);
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')?;
    let (number, unit) = text.split_at(split);
    let scale = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    if fraction.is_empty() {
        return whole.checked_mul(scale);
    }
    // Digits beyond the unit's resolution are dropped: a nanosecond has no fraction here.
    let digits = &fraction[..fraction.len().min(18)];
    let place = 10u128.pow(u32::try_from(digits.len()).ok()?);
    let part = digits.parse::<u128>().ok()? * u128::from(scale) / place;
    whole.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

impl FromStr for Nanos {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, TIME_UNITS).map(Self).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "a duration",
            example: "`250us`, `3ms`, `1.5s` or `2min`",
        })
    }
}

impl FromStr for Bytes {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, SIZE_UNITS).map(Self).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "a size",
            example: "`64MiB`, `1.5GiB` or `4096B`",
        })
    }
}

/// The largest unit that leaves a short decimal; what is printed reads back to the same value.
fn show(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if value == 0 {
        return write!(f, "0{}", units[0].0);
    }
    for (name, scale) in units.iter().rev() {
        let thousandths = u128::from(value) * 1000;
        if value >= *scale && thousandths.is_multiple_of(u128::from(*scale)) {
            let (whole, rest) = (value / scale, thousandths / u128::from(*scale) % 1000);
            let rest = format!("{rest:03}");
            let rest = rest.trim_end_matches('0');
            let dot = if rest.is_empty() { "" } else { "." };
            return write!(f, "{whole}{dot}{rest}{name}");
        }
    }
    write!(f, "{value}{}", units[0].0)
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Minutes and hours only where they come out whole: 90s reads better than 1.5min.
        let whole = |unit: u64| self.0 != 0 && self.0.is_multiple_of(unit);
        match self.0 {
            n if whole(60_000_000_000) => write!(f, "{}min", n / 60_000_000_000),
            n => show(n, &[TIME_UNITS[0], TIME_UNITS[1], TIME_UNITS[3], TIME_UNITS[4]], f),
        }
    }
}

/// `{}` reads back to the same value, `{:#}` is rounded for people: `14.9 GiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        if f.alternate()
            && let Some((name, bits)) = binary.iter().find(|(_, bits)| self.0 >> bits > 0)
        {
            return write!(f, "{:.1} {name}", self.0 as f64 / f64::from(1 << bits));
        }
        show(self.0, &SIZE_UNITS[..5], f)
    }
}

macro_rules! text_serde {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
    };
}
text_serde!(Nanos);
text_serde!(Bytes);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_are_exact() {
        for (text, ns) in [
            ("250us", 250_000),
            ("3ms", 3_000_000),
            ("1.5s", 1_500_000_000),
            ("2min", 120_000_000_000),
            ("0.0000001s", 100),
            ("0", 0),
            ("1_000ns", 1000),
            ("55.4 us", 55_400),
        ] {
            assert_eq!(text.parse::<Nanos>(), Ok(Nanos(ns)), "{text}");
        }
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("4.75GiB".parse(), Ok(Bytes(5_100_273_664)));
        assert_eq!(format!("{:#}", Bytes(16_061_804_544)), "15.0 GiB");
        assert_eq!(format!("{:#} {:#}", Bytes(3 << 19), Bytes(12)), "1.5 MiB 12B");
    }

    #[test]
    fn what_is_no_duration_says_what_would_be() {
        for text in ["", "3", "ms", "3 days", "-1ms", "1.2.3s", "99999999999h", ".s"] {
            let error = text.parse::<Nanos>().unwrap_err().to_string();
            assert!(error.contains("such as `250us`"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(ns in any::<u64>()) {
            prop_assert_eq!(Nanos(ns).to_string().parse(), Ok(Nanos(ns)));
            prop_assert_eq!(Bytes(ns).to_string().parse(), Ok(Bytes(ns)));
        }

        #[test]
        fn any_text_is_an_answer_not_a_panic(text in ".{0,24}") {
            let _ = text.parse::<Nanos>();
            let _ = text.parse::<Bytes>();
        }
    }
}
