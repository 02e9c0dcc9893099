//! `[[policy]]` tables: checked against the registry.

use cotenant_sim::policy::{self, Kind, OptionSpec, Options, PolicyInfo, Value};

use super::fields::{duration, no_such, table, unknown_key};
use super::tree::{Data, Entry, Flaw, Node, Place, key};
use crate::fail::did_you_mean;

/// One row of the experiment.
#[derive(Clone)]
pub(crate) struct PolicyRow {
    /// What tables and plots call it.
    pub(crate) label: String,
    /// Which policy.
    pub(crate) info: &'static PolicyInfo,
    /// Its options as given.
    pub(crate) options: Options,
    /// The same as text, `quantum = "2ms"`; what is not given has its default.
    pub(crate) options_text: String,
}

/// The name that stands for every policy.
pub(super) const ALL: &str = "all";

fn names() -> Vec<&'static str> {
    policy::ALL.iter().map(|p| p.name).collect()
}

/// Whether the policy of a row has such an option; for paths with `*`.
pub(crate) fn has_option(row: &Data, option: &str) -> bool {
    let Data::Table(entries) = row else { return false };
    let name = entries.iter().find(|e| e.key == "name").and_then(|e| e.node.text());
    name.and_then(policy::find).is_some_and(|p| p.option(option).is_some())
}

/// Replaces a table of the name `all` by one for each policy whose name no other row bears. Options
/// given there go to the policies that have them.
pub(crate) fn expand_all(root: &mut Node) -> Result<(), Flaw> {
    let Data::Table(entries) = &mut root.data else { return Ok(()) };
    let Some(Entry { node, .. }) = entries.iter_mut().find(|e| e.key == "policy") else {
        return Ok(());
    };
    let Data::List(rows) = &mut node.data else { return Ok(()) };
    let text = |row: &Node, key: &str| row.get(key).and_then(|e| e.node.text()).map(str::to_owned);
    let taken: Vec<String> =
        rows.iter().filter_map(|r| text(r, "label").or_else(|| text(r, "name"))).collect();
    let mut expanded = vec![];
    for row in rows.drain(..) {
        if text(&row, "name").as_deref() != Some(ALL) {
            expanded.push(row);
            continue;
        }
        check_all(&row)?;
        let free = policy::ALL.iter().filter(|p| !taken.iter().any(|t| t == p.name));
        expanded.extend(free.map(|p| one_of_all(&row, p)));
    }
    *rows = expanded;
    Ok(())
}

/// An option of an `all` table must belong to some policy.
fn check_all(row: &Node) -> Result<(), Flaw> {
    for e in row.entries().unwrap_or_default() {
        if e.key == "label" {
            let why = "`all` makes one row per policy, which cannot share a label; remove it";
            return Err(Flaw::new(&e.place, "policy.all.label", why));
        }
        if e.key != "name" && policy::ALL.iter().all(|p| p.option(&e.key).is_none()) {
            let known = policy::ALL.iter().flat_map(|p| p.options).map(|o| o.name);
            let why = format!("no policy has such an option{}", did_you_mean(&e.key, known));
            return Err(Flaw::new(&e.place, format!("policy.all.{}", e.key), why));
        }
    }
    Ok(())
}

fn one_of_all(row: &Node, info: &PolicyInfo) -> Node {
    let mut one = row.clone();
    if let Data::Table(entries) = &mut one.data {
        entries.retain(|e| e.key == "name" || info.option(&e.key).is_some());
        for e in entries.iter_mut().filter(|e| e.key == "name") {
            e.node.data = Data::Text(info.name.to_owned());
        }
    }
    one
}

/// Checks every row.
pub(crate) fn rows(
    root: &Node,
    tenants: Option<&[String]>,
    flaws: &mut Vec<Flaw>,
) -> Vec<PolicyRow> {
    let Some(entry) = root.get("policy") else {
        let why = format!(
            "is missing; add a [[policy]] table with name = \"{ALL}\" or one of {}",
            names().join(", ")
        );
        flaws.push(Flaw::new(&root.place, "policy", why));
        return vec![];
    };
    let Data::List(nodes) = &entry.node.data else {
        flaws.push(Flaw::new(&entry.place, "policy", "is not a list; write [[policy]]"));
        return vec![];
    };
    if nodes.is_empty() {
        let why = "is empty; an experiment needs a policy";
        flaws.push(Flaw::new(&entry.place, "policy", why));
    }
    let mut rows: Vec<PolicyRow> = vec![];
    for (i, node) in nodes.iter().enumerate() {
        let Some(row) = row(node, i, tenants, flaws) else { continue };
        if rows.iter().any(|r| r.label == row.label) {
            let why = format!(
                "two rows are called `{}`; give one of them a `label` of its own",
                row.label
            );
            flaws.push(Flaw::new(&node.place, format!("policy.{}", row.label), why));
            continue;
        }
        rows.push(row);
    }
    rows
}

/// The policy that a row names.
fn named(node: &Node, path: &str) -> Result<&'static PolicyInfo, Flaw> {
    let field = format!("{path}.name");
    let Some(entry) = node.get("name") else {
        let why = format!("is missing; known are {ALL}, {}", names().join(", "));
        return Err(Flaw::new(&node.place, field, why));
    };
    let Some(name) = entry.node.text() else {
        return Err(Flaw::new(&entry.node.place, field, "is not text"));
    };
    policy::find(name).ok_or_else(|| Flaw::new(&entry.node.place, field, no_policy(name)))
}

/// What people call a policy elsewhere, and its name here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("time-slicing", "temporal"),
    ("timeslicing", "temporal"),
    ("time-sharing", "temporal"),
    ("default", "temporal"),
    ("exclusive", "temporal"),
    ("mps-limit", "mps-percent"),
    ("mps-default", "mps"),
    ("fractional", "mps-percent"),
    ("d-stack", "dstack"),
    ("batching", "clipper"),
    ("multi-stream", "streams"),
    ("abacus", "overlap"),
    ("fcfs", "serve"),
    ("sjf", "serve"),
    ("edf", "serve"),
    ("hami-core", "hami"),
    ("gpucores", "hami"),
];

/// That there is no policy of a name, and which one was probably meant.
pub(crate) fn no_policy(name: &str) -> String {
    let known: Vec<&str> = [ALL].into_iter().chain(names()).collect();
    let plain = name.to_lowercase().replace('_', "-");
    match ELSEWHERE.iter().find(|(other, _)| *other == plain) {
        Some((_, here)) => {
            format!("`{name}` is none of {} (it is called `{here}` here)", known.join(", "))
        }
        None => no_such(name, &known),
    }
}

fn row(
    node: &Node,
    index: usize,
    tenants: Option<&[String]>,
    flaws: &mut Vec<Flaw>,
) -> Option<PolicyRow> {
    let before = flaws.len();
    let mut take = |flaw: Flaw| flaws.push(flaw);
    let path = format!("policy[{index}]");
    let entries = table(node, &path).map_err(&mut take).ok()?;
    let info = named(node, &path).map_err(&mut take).ok()?;
    let label = label(node, info.name).map_err(&mut take).ok()?;
    let path = format!("policy.{label}");
    let known: Vec<&str> =
        ["name", "label"].into_iter().chain(info.options.iter().map(|o| o.name)).collect();
    let mut options = Options::default();
    let mut texts = vec![];
    for e in entries.iter().filter(|e| !matches!(e.key.as_str(), "name" | "label")) {
        let Some(spec) = info.option(&e.key) else {
            flaws.push(unknown_key(e, &path, &known));
            continue;
        };
        match value(&e.node, spec, tenants) {
            Ok(value) => options.0.push((e.key.clone(), value)),
            Err(why) => flaws.push(Flaw::new(&e.node.place, format!("{path}.{}", e.key), why)),
        }
        texts.push(format!("{} = {}", key(&e.key), e.node.toml()));
    }
    if flaws.len() > before {
        return None;
    }
    name_instances(info, tenants, &mut options);
    if let Err(e) = (info.build)(&options) {
        let place: &Place = node.get(&e.name).map_or(&node.place, |entry| &entry.node.place);
        flaws.push(Flaw::new(place, format!("{path}.{}", e.name), e.why));
        return None;
    }
    Some(PolicyRow { label, info, options, options_text: texts.join(", ") })
}

/// One instance per tenant, in their order in the file, says whose each is: by name from here on, since
/// tenants are simulated in another order.
fn name_instances(info: &PolicyInfo, tenants: Option<&[String]>, options: &mut Options) {
    let (Some(tenants), Some(_)) = (tenants, info.option("place")) else { return };
    let given = |name: &str| options.0.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    if let (Some(Value::Texts(instances)), None) = (given("instances"), given("place"))
        && instances.len() == tenants.len()
    {
        let places = (0..tenants.len()).map(|i| i as f64);
        let place = named_numbers(tenants.iter().cloned().zip(places).collect());
        options.0.push(("place".to_owned(), place));
    }
}

fn label(node: &Node, name: &str) -> Result<String, Flaw> {
    let Some(entry) = node.get("label") else { return Ok(name.to_owned()) };
    // A spreadsheet would take a cell that begins so for a formula, and run it.
    let formula = |t: &str| t.starts_with(['=', '+', '-', '@']);
    let legal = |t: &&str| {
        let length = t.chars().count();
        !t.trim().is_empty() && length <= 60 && !t.contains(char::is_control) && !formula(t)
    };
    entry.node.text().filter(legal).map(str::to_owned).ok_or_else(|| {
        let why = format!(
            "`{}` is not a valid label: use 1 to 60 characters on one line, the first of them none of \
             `=`, `+`, `-` and `@`",
            entry.node.plain()
        );
        Flaw::new(&entry.node.place, format!("policy.{name}.label"), why)
    })
}

/// The value of an option, of the kind that its policy asks for.
fn value(node: &Node, spec: &OptionSpec, tenants: Option<&[String]>) -> Result<Value, String> {
    let value = of_kind(node, spec, tenants)?;
    spec.check(&value).map(|()| value)
}

/// The value in the option's type; its range is the option's own affair.
fn of_kind(node: &Node, spec: &OptionSpec, tenants: Option<&[String]>) -> Result<Value, String> {
    let wrong = || format!("`{}` is not {}", node.plain(), spec.kind);
    match (spec.kind, &node.data) {
        (Kind::Duration(_), _) => duration(node).map(Value::Duration),
        (Kind::Integer(..), Data::Integer(i)) => Ok(Value::Integer(*i)),
        (Kind::Float(..), _) => node.number().map(Value::Float).ok_or_else(wrong),
        (Kind::Bool, Data::Bool(b)) => Ok(Value::Bool(*b)),
        (Kind::Choice(_) | Kind::Text | Kind::PerTenant(_), Data::Text(t)) => {
            Ok(Value::Text(t.clone()))
        }
        (Kind::Texts, Data::List(list)) => {
            let texts: Option<Vec<_>> = list.iter().map(|n| n.text().map(str::to_owned)).collect();
            texts.map(Value::Texts).ok_or_else(wrong)
        }
        (Kind::PerTenant(_) | Kind::Places, Data::List(list)) => {
            let numbers: Option<Vec<f64>> = list.iter().map(Node::number).collect();
            let numbers = numbers.ok_or_else(wrong)?;
            if let Some(tenants) = tenants.filter(|t| t.len() != numbers.len()) {
                let (n, t) = (numbers.len(), tenants.len());
                return Err(format!("has {n} numbers for {t} tenants; give one per tenant"));
            }
            // By name, since the order of tenants decides nothing else.
            Ok(match tenants {
                Some(tenants) => named_numbers(tenants.iter().cloned().zip(numbers).collect()),
                None => Value::Numbers(numbers),
            })
        }
        (Kind::PerTenant(_) | Kind::Places, Data::Table(entries)) => per_tenant(entries, tenants),
        _ => Err(wrong()),
    }
}

fn per_tenant(entries: &[Entry], tenants: Option<&[String]>) -> Result<Value, String> {
    let mut values = vec![];
    for e in entries {
        if let Some(tenants) = tenants.filter(|t| !t.contains(&e.key)) {
            let known: Vec<&str> = tenants.iter().map(String::as_str).collect();
            return Err(format!("there is no such tenant: {}", no_such(&e.key, &known)));
        }
        let number = e.node.number().ok_or_else(|| format!("`{}` has no number", e.key))?;
        values.push((e.key.clone(), number));
    }
    if let Some(missing) =
        tenants.unwrap_or_default().iter().find(|t| !values.iter().any(|(n, _)| n == *t))
    {
        return Err(format!("has no number for tenant `{missing}`"));
    }
    Ok(named_numbers(values))
}

/// A number per tenant; the same whatever the order in which they are given.
fn named_numbers(mut values: Vec<(String, f64)>) -> Value {
    values.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Table(values)
}
