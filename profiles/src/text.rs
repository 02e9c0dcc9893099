//! What error messages need: the closest known name, and where in a file something stands.

/// The known name closest to `name`, if any is close enough to be what was meant.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    // Jaro-Winkler weighs a common beginning, as in `h100` for `h100-sxm`; 0.75 still forgives a
    // typo in a five-letter word and no longer matches unrelated ones.
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&lower, &k.to_lowercase()), k))
        .filter(|(score, _)| *score >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// `: did you mean …?` or nothing.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, known).map_or_else(String::new, |k| format!(": did you mean `{k}`?"))
}

/// Where a TOML error stands, and its message with the closest known name.
#[derive(Debug)]
pub(crate) struct TomlPlace {
    /// Line, from 1.
    pub line: usize,
    /// Table and key, or `file` where there is none.
    pub field: String,
    /// The message.
    pub message: String,
}

impl TomlPlace {
    pub(crate) fn of(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |s| s.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|&&b| b == b'\n').count() + 1;
        let field = toml_fields(text)
            .into_iter()
            .rfind(|(l, _)| *l <= line)
            .map_or_else(|| "file".to_owned(), |(_, f)| f);
        let mut message = error.message().replace('\n', " ");
        if let Some(rest) = message.strip_prefix("unknown field `")
            && let Some((unknown, expected)) = rest.split_once('`')
        {
            let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            message += &did_you_mean(unknown, known.iter().copied());
        }
        Self { line, field, message }
    }
}

/// The line, from 1, where `field` (table, key; arrays of tables as `mig.profiles[2].cus`) is
/// set, or where its closest ancestor is.
pub(crate) fn toml_line(text: &str, field: &str) -> usize {
    let fields = toml_fields(text);
    let mut wanted = field;
    loop {
        if let Some((line, _)) = fields.iter().find(|(_, f)| f == wanted) {
            return *line;
        }
        match wanted.rfind(['.', '[']) {
            Some(cut) => wanted = &wanted[..cut],
            None => return 1,
        }
    }
}

/// Line and full name of every table header and key that begins a line.
fn toml_fields(text: &str) -> Vec<(usize, String)> {
    let mut fields: Vec<(usize, String)> = Vec::new();
    let mut table = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if let Some(name) = line.strip_prefix("[[").and_then(|l| l.split("]]").next()) {
            let name = name.trim();
            let index =
                fields.iter().filter(|(_, f)| f.starts_with(name) && f.ends_with(']')).count();
            table = format!("{name}[{index}]");
            fields.push((number + 1, table.clone()));
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            name.trim().clone_into(&mut table);
            fields.push((number + 1, table.clone()));
        } else if let Some((key, _)) = line.split_once('=')
            && !line.starts_with('#')
        {
            let dot = if table.is_empty() { "" } else { "." };
            let key = key.trim().trim_matches('"');
            fields.push((number + 1, format!("{table}{dot}{key}")));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_close() {
        let known = ["h100-sxm", "h200-sxm", "mi50", "p40"];
        assert_eq!(closest("h100", known), Some("h100-sxm"));
        assert_eq!(closest("MI-50", known), Some("mi50"));
        assert_eq!(closest("tpu", known), None);
        assert_eq!(closest("", known), None);
    }

    #[test]
    fn fields_are_found_by_table_and_index() {
        let text = "name = \"x\"\n\n[a]\nb = 1\n[[a.list]]\nc = 2\n[[a.list]]\nc = 3 # d = 4\n";
        assert_eq!(toml_line(text, "a.b"), 4);
        assert_eq!(toml_line(text, "a.list[1].c"), 8);
        assert_eq!(toml_line(text, "a.list[1].missing"), 7);
        assert_eq!(toml_line(text, "nothing"), 1);
    }
}
