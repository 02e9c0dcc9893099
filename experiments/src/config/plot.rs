//! `[[plot]]` tables: the plots crate defines them, this adds the line to its errors.

use cotenant_results::PlotSpec;

use super::fields::{table, unknown_key};
use super::tree::{Data, Flaw, Node};

/// Checks every table against the sweep.
pub(crate) fn rows(root: &Node, sweep_keys: &[String], flaws: &mut Vec<Flaw>) -> Vec<PlotSpec> {
    let Some(entry) = root.get("plot") else { return vec![] };
    let Data::List(nodes) = &entry.node.data else {
        flaws.push(Flaw::new(&entry.place, "plot", "is not a list; write [[plot]]"));
        return vec![];
    };
    let specs = nodes.iter().enumerate().map(|(i, node)| plot(node, i, sweep_keys));
    specs.filter_map(|spec| spec.map_err(|flaw| flaws.push(flaw)).ok()).collect()
}

fn plot(node: &Node, index: usize, sweep_keys: &[String]) -> Result<PlotSpec, Flaw> {
    let path = format!("plot[{index}]");
    let entries = table(node, &path)?;
    if let Some(e) = entries.iter().find(|e| !PlotSpec::FIELDS.contains(&e.key.as_str())) {
        return Err(unknown_key(e, &path, PlotSpec::FIELDS));
    }
    let Some(kind) = node.get("kind") else {
        let why = "is missing; write kind = \"bars\"";
        return Err(Flaw::new(&node.place, format!("{path}.kind"), why));
    };
    // Key by key, so that an error of the reader has a place.
    for e in entries {
        let mut alone = serde_json::Map::new();
        alone.insert("kind".to_owned(), kind.node.json());
        alone.insert(e.key.clone(), e.node.json());
        if let Err(error) = serde_json::from_value::<PlotSpec>(alone.into()) {
            let field = format!("{path}.{}", e.key);
            return Err(Flaw::new(&e.node.place, field, error.to_string()));
        }
    }
    let spec: PlotSpec = serde_json::from_value(node.json())
        .map_err(|e| Flaw::new(&node.place, &path, e.to_string()))?;
    spec.check(index, sweep_keys).map_err(|e| {
        let place = node.get(e.field).map_or(&node.place, |entry| &entry.node.place);
        Flaw::new(place, format!("{path}.{}", e.field), e.message)
    })?;
    Ok(spec)
}
