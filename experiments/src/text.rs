//! Tables for the terminal.

/// Aligns columns: text to the left, numbers to the right, two spaces between.
pub(crate) fn align(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().map(|r| width(&r[c])).chain([width(header[c])]).max().unwrap_or(0))
        .collect();
    let numeric: Vec<bool> = (0..columns)
        .map(|c| {
            let mut any = false;
            let all =
                rows.iter().map(|r| r[c].as_str()).filter(|t| !matches!(*t, "" | "-")).all(|t| {
                    any = true;
                    t.parse::<f64>().is_ok()
                });
            any && all
        })
        .collect();
    let line = |fields: &[&str]| {
        let mut text = String::new();
        for (c, field) in fields.iter().enumerate() {
            let pad = " ".repeat(widths[c] - width(field));
            let gap = if c == 0 { "" } else { "  " };
            let cell = if numeric[c] {
                format!("{gap}{pad}{field}")
            } else {
                format!("{gap}{field}{pad}")
            };
            text += &cell;
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut out = line(header);
    for row in rows {
        out += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    out
}

/// Three or more significant digits; `-` for a missing value.
pub(crate) fn rounded(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(x) if x.abs() >= 100.0 => format!("{x:.0}"),
        Some(x) if x.abs() >= 10.0 => format!("{x:.1}"),
        Some(x) if x.abs() >= 0.1 => format!("{x:.2}"),
        Some(x) => format!("{x:.4}"),
    }
}

/// A share, written as `5%` or `0.05`.
///
/// # Errors
/// It is not a number, or it is below 0.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|p| p / 100.0),
        None => number(text),
    };
    share.filter(|s| s.is_finite() && *s >= 0.0).ok_or_else(|| "write 5% or 0.05".to_owned())
}

/// `12 cells`, `1 cell`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("0.05"), Ok(0.05));
        assert_eq!(percent("12.5 %"), Ok(0.125));
        assert!(percent("-1%").is_err() && percent("few").is_err() && percent("inf").is_err());
    }

    #[test]
    fn numbers_align_to_the_right() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bbb".to_owned(), "22".to_owned()]];
        assert_eq!(align(&["x", "n"], &rows), "x     n\na     1\nbbb  22\n");
    }
}
