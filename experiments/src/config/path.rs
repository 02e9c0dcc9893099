//! Dotted paths into an experiment, as `[sweep]` and `--set` write them:
//! `device`, `tenant.vision.arrivals.rate`, `tenant.*.batch.max`, `policy.temporal.quantum`.

use super::tree::{Data, Entry, Flaw, Node, Place};
use crate::fail::did_you_mean;

/// Splits at dots outside quotes.
pub(crate) fn segments(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for c in path.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if c == q => quote = None,
            (None, '.') => parts.push(String::new()),
            (_, c) => parts.last_mut().expect("never empty").push(c),
        }
    }
    parts.iter_mut().for_each(|p| *p = p.trim().to_owned());
    parts
}

/// Puts `value` where `path` points; `at` is where the path itself stands.
pub(crate) fn set(
    root: &mut Node,
    path: &str,
    value: &Node,
    at: &Place,
    top: &[String],
) -> Result<(), Flaw> {
    let parts = segments(path);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let no_field = |why: String| Flaw::new(at, path, why);
    match parts.as_slice() {
        ["tenant" | "policy"] | ["tenant" | "policy", _] => Err(no_field(format!(
            "names no field; write {}.NAME.FIELD, or {}.*.FIELD for all of them",
            parts[0], parts[0]
        ))),
        [list @ ("tenant" | "policy"), name, rest @ ..] => {
            let rows = rows(root, list);
            let mut chosen = chosen(&rows, list, name);
            if *list == "policy" && *name == "*" {
                chosen.retain(|&i| super::policy::has_option(&rows[i].data, rest[0]));
                if chosen.is_empty() {
                    return Err(no_field(format!("no policy here has an option `{}`", rest[0])));
                }
            }
            if chosen.is_empty() {
                let known: Vec<String> = rows.iter().flat_map(|r| names_of(r, list)).collect();
                let near = did_you_mean(name, known.iter().map(String::as_str));
                let known = known.join(", ");
                return Err(no_field(format!("there is no {list} `{name}`; known: {known}{near}")));
            }
            let mut rows = rows_mut(root, list);
            chosen.into_iter().for_each(|i| put(rows[i], rest, value, at));
            rows.clear();
            Ok(())
        }
        [key] if top.iter().any(|known| known == key) => {
            put(root, &parts, value, at);
            Ok(())
        }
        _ => {
            let known = top.join(", ");
            let names = top.iter().map(String::as_str).chain(["tenant", "policy"]);
            let near = did_you_mean(parts[0], names);
            Err(no_field(format!(
                "names no field of an experiment; known are {known}, tenant.NAME.FIELD and \
                 policy.NAME.FIELD{near}"
            )))
        }
    }
}

fn rows<'a>(root: &'a Node, list: &str) -> Vec<&'a Node> {
    match root.get(list).map(|e| &e.node.data) {
        Some(Data::List(rows)) => rows.iter().collect(),
        _ => vec![],
    }
}

fn rows_mut<'a>(root: &'a mut Node, list: &str) -> Vec<&'a mut Node> {
    let Data::Table(entries) = &mut root.data else { return vec![] };
    match entries.iter_mut().find(|e| e.key == list).map(|e| &mut e.node.data) {
        Some(Data::List(rows)) => rows.iter_mut().collect(),
        _ => vec![],
    }
}

/// What a row may be called by.
fn names_of(row: &Node, list: &str) -> Vec<String> {
    let keys: &[&str] = if list == "policy" { &["label", "name"] } else { &["name"] };
    let text = |key: &&str| row.get(key).and_then(|e| e.node.text()).map(str::to_owned);
    keys.iter().find_map(text).into_iter().collect()
}

/// Rows of that label, else of that name.
fn chosen(rows: &[&Node], list: &str, name: &str) -> Vec<usize> {
    let all = 0..rows.len();
    if name == "*" {
        return all.collect();
    }
    let is = |i: &usize, key: &str| rows[*i].get(key).and_then(|e| e.node.text()) == Some(name);
    let labelled: Vec<usize> = all.clone().filter(|i| list == "policy" && is(i, "label")).collect();
    if labelled.is_empty() { all.filter(|i| is(i, "name")).collect() } else { labelled }
}

/// Walks down, making tables on the way, and replaces what is there.
fn put(node: &mut Node, path: &[&str], value: &Node, at: &Place) {
    let Some((key, rest)) = path.split_first() else {
        *node = Node { place: at.clone(), data: value.data.clone() };
        return;
    };
    if !matches!(node.data, Data::Table(_)) {
        *node = Node { place: at.clone(), data: Data::Table(vec![]) };
    }
    let Data::Table(entries) = &mut node.data else { return };
    let place = entries.iter().position(|e| e.key == *key).unwrap_or_else(|| {
        let node = Node { place: at.clone(), data: Data::Table(vec![]) };
        entries.push(Entry { key: (*key).to_owned(), place: at.clone(), node });
        entries.len() - 1
    });
    entries[place].place = at.clone();
    put(&mut entries[place].node, rest, value, at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    fn after(path: &str, value: &str) -> Result<String, Flaw> {
        let text = "device = \"a\"\n[[tenant]]\nname = \"x\"\nslo = \"1ms\"\n[[tenant]]\nname = \"y\"\n\
                    [[policy]]\nname = \"temporal\"\n[[policy]]\nname = \"mps\"\nlabel = \"M 1.0\"\n";
        let mut root = tree::parse(text, "f").unwrap();
        let value = tree::parse_value(value, "--set", path).unwrap();
        let top = ["device", "costs"].map(str::to_owned);
        set(&mut root, path, &value, &value.place, &top).map(|()| root.toml())
    }

    #[test]
    fn a_path_finds_its_rows() {
        assert!(after("device", "b").unwrap().starts_with("{ device = \"b\""));
        let one = after("tenant.y.batch.max", "4").unwrap();
        assert!(one.contains("{ name = \"y\", batch = { max = 4 } }"), "{one}");
        let all = after("tenant.*.workers", "2").unwrap();
        assert_eq!(all.matches("workers = 2").count(), 2);
        let slo = after("tenant.x.slo.isolated", "2.0").unwrap();
        assert!(slo.contains("slo = { isolated = 2.0 }"), "{slo}");
        let quantum = after("policy.temporal.quantum", "5ms").unwrap();
        assert!(quantum.contains("{ name = \"temporal\", quantum = \"5ms\" }"), "{quantum}");
        assert!(
            after("policy.\"M 1.0\".priorities", "true").unwrap().contains("priorities = true")
        );
        let starred = after("policy.*.quantum", "5ms").unwrap();
        assert_eq!(starred.matches("quantum").count(), 1);
    }

    #[test]
    fn a_path_into_nothing_says_what_there_is() {
        let message = |path| after(path, "1").unwrap_err().to_string();
        assert_eq!(
            message("tenant.z.workers"),
            "--set: tenant.z.workers: there is no tenant `z`; known: x, y"
        );
        assert!(message("tenant.x").contains("write tenant.NAME.FIELD"));
        assert!(message("devise").ends_with("(did you mean `device`?)"), "{}", message("devise"));
        assert!(message("policy.*.nothing").contains("has an option `nothing`"));
        assert!(message("").contains("names no field"));
    }
}
