//! Numbers and sweep values in readable form.

/// `value` with `decimals` decimals and a comma between thousands.
#[must_use]
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    let zero = text.bytes().all(|b| b == b'0' || b == b'.');
    if value < 0.0 && !zero {
        out.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// Three significant digits, but all digits before the decimal point; powers of ten for values far from 1.
#[must_use]
pub fn pretty(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        s if !(1e-4..1e9).contains(&s) => power(value),
        s if s >= 99.95 => fixed(value, 0),
        s if s >= 9.995 => fixed(value, 1),
        s if s >= 0.9995 => fixed(value, 2),
        s if s >= 0.01 => fixed(value, 3),
        _ => fixed(value, 5),
    }
}

/// `3.2×10⁻⁵`, or `10⁻⁵` for a plain power.
fn power(value: f64) -> String {
    let text = format!("{value:.1e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let raised: String = exponent.chars().map(superscript).collect();
    match mantissa.trim_end_matches(".0") {
        "1" => format!("10{raised}"),
        m => format!("{}×10{raised}", m.replace('-', "−")),
    }
}

fn superscript(c: char) -> char {
    match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' => '⁰',
        c => c.to_digit(10).and_then(|d| char::from_u32(0x2070 + d)).unwrap_or(c),
    }
}

/// The number with only as many digits as it has.
#[must_use]
pub fn plain(value: f64) -> String {
    let text = match value.abs() {
        s if s != 0.0 && !(1e-3..1e6).contains(&s) => return pretty(value),
        s if s >= 1000.0 => fixed(value, 1),
        _ => fixed(value, 4),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A time in ms with its unit, without superfluous digits: `100 ms`, `2.5 ms`.
#[must_use]
pub fn plain_ms(value: f64) -> String {
    format!("{} ms", plain(value))
}

/// A sweep value that is a number: plain, or with a unit of time or size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    /// Plain value, or converted to ms or MiB.
    pub value: f64,
    /// `""`, `ms` or `MiB`.
    pub unit: &'static str,
}

/// Units of the experiment file, each with its drawn unit and the conversion factor.
const UNITS: [(&str, &str, f64); 15] = [
    ("ns", "ms", 1e-6),
    ("us", "ms", 1e-3),
    ("µs", "ms", 1e-3),
    ("ms", "ms", 1.0),
    ("s", "ms", 1e3),
    ("min", "ms", 6e4),
    ("h", "ms", 3.6e6),
    ("B", "MiB", 1.0 / 1_048_576.0),
    ("KiB", "MiB", 1.0 / 1024.0),
    ("MiB", "MiB", 1.0),
    ("GiB", "MiB", 1024.0),
    ("TiB", "MiB", 1_048_576.0),
    ("kB", "MiB", 1e3 / 1_048_576.0),
    ("MB", "MiB", 1e6 / 1_048_576.0),
    ("GB", "MiB", 1e9 / 1_048_576.0),
];

/// Reads `250us`, `1.5`, `64MiB`; anything else is a category.
#[must_use]
pub fn quantity(text: &str) -> Option<Quantity> {
    let finite = |n: f64| n.is_finite().then_some(n);
    if let Some(value) = text.parse().ok().and_then(finite) {
        return Some(Quantity { value, unit: "" });
    }
    let split = text.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let (_, unit, scale) = UNITS.iter().find(|(name, ..)| *name == unit)?;
    let value = number.trim().parse::<f64>().ok().and_then(finite)? * scale;
    Some(Quantity { value, unit })
}

/// The shortest form of a sweep key that is still clear: `tenant.vision.arrivals.rate` becomes
/// `vision.arrivals.rate`, as in the experiment file without the table's name.
#[must_use]
pub fn key_title(key: &str) -> String {
    let short = key.strip_prefix("tenant.").or_else(|| key.strip_prefix("policy."));
    short.unwrap_or(key).to_owned()
}

/// Axis title of a sweep key with the unit of its values, if they have one.
#[must_use]
pub fn key_axis(key: &str, unit: &str) -> String {
    let title = key_title(key);
    if unit.is_empty() { title } else { format!("{title} ({unit})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (value, text) in [
            (0.0, "0"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (12.345, "12.3"),
            (1.0, "1.00"),
            (0.0123, "0.012"),
            (-3.5, "−3.50"),
            (3.2e-5, "3.2×10⁻⁵"),
            (1e12, "10¹²"),
        ] {
            assert_eq!(pretty(value), text);
        }
        assert_eq!(fixed(-0.001, 1), "0.0");
    }

    #[test]
    fn sweep_values_have_units() {
        assert_eq!(quantity("250us"), Some(Quantity { value: 0.25, unit: "ms" }));
        assert_eq!(quantity("1.5s"), Some(Quantity { value: 1500.0, unit: "ms" }));
        assert_eq!(quantity("60"), Some(Quantity { value: 60.0, unit: "" }));
        assert_eq!(quantity("NaN"), None);
        assert_eq!(quantity("2 GiB"), Some(Quantity { value: 2048.0, unit: "MiB" }));
        assert_eq!(quantity("resnet50"), None);
        assert_eq!(
            key_axis("tenant.a.arrivals.rate", "requests/s"),
            "a.arrivals.rate (requests/s)"
        );
        assert_eq!(key_axis("policy.krisp.oversubscription", ""), "krisp.oversubscription");
        assert_eq!(key_axis("policy.temporal.quantum", "ms"), "temporal.quantum (ms)");
    }
}
