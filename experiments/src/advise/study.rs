//! The search on one GPU as an ordinary study, for a cluster: an experiment file for each mechanism, with as
//! many candidates as lie around those that the formula ranks best, each under every seed. However the cells
//! are computed (`cotenant run`, or `plan`, shards and `merge`), the same question finds them by name.

use std::path::Path;

use cotenant_sim::policy::Value;
use toml::{Table, Value as Toml};

use super::cells::of_table;
use super::lab::{Candidate, Lab};
use super::search::{Best, Pools, SEEDS, Search, Tried};
use super::space::{Group, Mechanism};
use crate::config::{Grid, Overrides, Slo};
use crate::fail::{Done, Failure};
use crate::folder::write_whole;
use crate::plan;
use crate::text::count;

/// Most candidates of a mechanism.
const CANDIDATES: usize = 200;

/// The experiment for one mechanism.
struct Part {
    mechanism: Mechanism,
    candidates: Vec<Candidate>,
    /// Name of its file and folder.
    name: String,
    text: String,
}

/// The best of each mechanism by the cells of a study.
///
/// # Errors
/// The study is not computed yet: its files are written, and the message says what to do. A file cannot be
/// read or written.
pub(super) fn best(search: &mut Search<'_>, g: &Group, dir: &Path) -> Done<Vec<Best>> {
    let lab = search.lab;
    let mut parts = vec![];
    for mechanism in Mechanism::ALL {
        if mechanism.possible(lab, g.tenants.len()).is_ok() {
            parts.extend(part(search, g, mechanism).map_err(Failure::Input)?);
        }
    }
    let (mut pools, mut open): (Pools, Vec<&Part>) = (vec![], vec![]);
    for part in &parts {
        let file = dir.join(format!("{}.toml", part.name));
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        if there != part.text {
            write_whole(&file, part.text.as_bytes())?;
        }
        match pool(search, part, dir)? {
            Some(pool) => pools.push((part.mechanism, pool)),
            None => open.push(part),
        }
    }
    if open.is_empty() {
        return Ok(search.best(g, pools));
    }
    let cells: usize = open.iter().map(|p| p.candidates.len() * SEEDS).sum();
    let first = dir.join(&open[0].name).display().to_string();
    Err(Failure::Incomplete(format!(
        "{} in {} ({}) are to be computed first. Here: for f in {}/*.toml; do cotenant run \"$f\" --out \
         \"${{f%.toml}}\"; done. On a cluster, for each: cotenant plan {first}.toml --out {first} --shards N, \
         its shards, cotenant merge {first}. Then the same command answers",
        count(open.len(), "experiment"),
        dir.display(),
        count(cells, "cell"),
        dir.display(),
    )))
}

/// Candidates around those that the formula ranks best, and the experiment that has them as its points;
/// `None` if a mechanism has no settings for these tenants.
fn part(search: &Search<'_>, g: &Group, mechanism: Mechanism) -> Result<Option<Part>, String> {
    let lab = search.lab;
    let mut all = search.space.starts(lab, g, mechanism);
    let Some(policy) = all.first().map(|c| lab.options(c).0) else { return Ok(None) };
    let mut next = 0;
    while next < all.len() && all.len() < CANDIDATES {
        let around = search.space.neighbours(lab, &all[next], 0);
        for c in around {
            // Percentages that give the whole GPU to every tenant belong to another mechanism.
            if !all.contains(&c) && all.len() < CANDIDATES && lab.options(&c).0 == policy {
                all.push(c);
            }
        }
        next += 1;
    }
    all.retain(|c| lab.options(c).0 == policy);
    let name = mechanism.name().to_lowercase().replace(' ', "-");
    let text = text(search, &name, policy, &all)?;
    Ok(Some(Part { mechanism, candidates: all, name, text }))
}

fn text(
    search: &Search<'_>,
    name: &str,
    policy: &str,
    all: &[Candidate],
) -> Result<String, String> {
    let lab = search.lab;
    let mut table = lab.mix.table()?;
    for key in ["gpus", "route", "down", "plot", "series", "policy", "sweep"] {
        table.remove(key);
    }
    let Some(first) = all.first() else { return Err("no settings are legal".to_owned()) };
    let how = search.long(first, 0);
    table.insert("name".to_owned(), Toml::from(format!("advise-{name}")));
    let question = format!("What do settings of {policy} deliver for this mix?");
    table.insert("question".to_owned(), Toml::from(question));
    table.insert("duration".to_owned(), Toml::from(format!("{}ns", how.duration.0)));
    table.insert("warmup".to_owned(), Toml::from(format!("{}ns", how.duration.0 / 10)));
    table.insert("seed".to_owned(), Toml::Integer(how.seed as i64));
    table.insert("repeats".to_owned(), Toml::Integer(SEEDS as i64));
    let tenants = table.get_mut("tenant").and_then(Toml::as_array_mut);
    let mut tenants: Vec<&mut Table> =
        tenants.into_iter().flatten().filter_map(Toml::as_table_mut).collect();
    let names: Vec<Option<String>> =
        tenants.iter().map(|t| t.get("name").and_then(Toml::as_str).map(str::to_owned)).collect();
    let theirs: Vec<Option<String>> =
        lab.all().into_iter().map(|t| Some(lab.name(t).to_owned())).collect();
    if names != theirs {
        return Err(
            "--study: a tenant that stands for several (`tune`) has no settings of its own"
                .to_owned(),
        );
    }
    for (t, tenant) in tenants.iter_mut().enumerate() {
        tenant.remove("gpu");
        // As in the search: the baseline is that of the mix, not of each candidate.
        if let (Some(Slo::Isolated(_)), Some(slo)) =
            (lab.mix.point.tenants[t].slo, lab.facts.slos[t])
        {
            tenant.insert("slo".to_owned(), Toml::from(format!("{}ns", slo.0)));
        }
    }
    let row = Table::from_iter([("name".to_owned(), Toml::from(policy))]);
    table.insert("policy".to_owned(), Toml::Array(vec![Toml::Table(row)]));
    let (key, steps) = sweep(lab, policy, all);
    table.insert("sweep".to_owned(), Toml::Table(Table::from_iter([(key, Toml::Array(steps))])));
    toml::to_string(&table).map_err(|e| e.to_string())
}

/// All settings of a candidate as fields that are swept together.
fn sweep(lab: &Lab, policy: &str, all: &[Candidate]) -> (String, Vec<Toml>) {
    let mut keys: Vec<String> = vec![];
    let mut steps = vec![];
    for c in all {
        let mut step: Vec<(String, Toml)> = vec![];
        for (i, &t) in c.tenants.iter().enumerate() {
            let of = |key: &str| format!("tenant.{}.{key}", quoted(lab.name(t)));
            if let Some(engine) = lab.engine(c, i) {
                step.push((of("engine.max_seqs"), Toml::Integer(i64::from(engine.max_seqs))));
                let tokens = Toml::Integer(i64::from(engine.max_batched_tokens));
                step.push((of("engine.max_batched_tokens"), tokens));
                if let (false, cotenant_sim::engine::KvSize::Fraction(share)) =
                    (lab.mix.fixed_engine[t].memory, engine.kv)
                {
                    step.push((of("engine.memory_fraction"), Toml::Float(share)));
                }
            } else {
                let batch = Table::from_iter([
                    ("max".to_owned(), Toml::Integer(i64::from(c.batch[i]))),
                    ("timeout".to_owned(), Toml::from(format!("{}ns", c.timeout[i].0))),
                ]);
                step.push((of("batch"), Toml::Table(batch)));
            }
            step.push((of("workers"), Toml::Integer(i64::from(c.workers[i]))));
        }
        for (name, value) in lab.options(c).1 {
            step.push((format!("policy.{policy}.{name}"), as_toml(&value)));
        }
        if keys.is_empty() {
            keys = step.iter().map(|(key, _)| key.clone()).collect();
        }
        steps.push(Toml::Array(step.into_iter().map(|(_, value)| value).collect()));
    }
    (keys.join(", "), steps)
}

fn as_toml(value: &Value) -> Toml {
    match value {
        Value::Duration(d) => Toml::from(format!("{}ns", d.0)),
        Value::Integer(i) => Toml::Integer(*i),
        Value::Float(x) => Toml::Float(*x),
        Value::Bool(b) => Toml::Boolean(*b),
        Value::Text(text) => Toml::from(text.as_str()),
        Value::Texts(texts) => Toml::Array(texts.iter().map(|t| Toml::from(t.as_str())).collect()),
        Value::Numbers(numbers) => Toml::Array(numbers.iter().map(|n| Toml::Float(*n)).collect()),
        Value::Table(table) => {
            let number = |x: f64| match x.fract() == 0.0 {
                true => Toml::Integer(x as i64),
                false => Toml::Float(x),
            };
            Toml::Table(table.iter().map(|(k, x)| (k.clone(), number(*x))).collect())
        }
    }
}

/// A name, quoted for a path of fields.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.chars().all(plain) { name.to_owned() } else { format!("\"{name}\"") }
}

/// The candidates of a part with the results of its cells, the best first; `None` if some are missing.
fn pool(search: &mut Search<'_>, part: &Part, dir: &Path) -> Done<Option<Vec<Tried>>> {
    let lab = search.lab;
    let results = dir.join(&part.name).join("results.csv");
    let Ok(text) = std::fs::read_to_string(&results) else { return Ok(None) };
    let mut cells =
        of_table(&text).map_err(|why| Failure::input(format!("{}: {why}", results.display())))?;
    let grid = Grid::parse(&part.text, &part.name, dir.to_owned(), &Overrides::default());
    let grid = grid.map_err(Failure::Input)?;
    if grid.len() != part.candidates.len() {
        return Err(Failure::failed("a study has other points than candidates: this is a bug"));
    }
    let mut pool = vec![];
    for (k, c) in part.candidates.iter().enumerate() {
        let e = grid.at(k).map_err(Failure::Input)?;
        for seed in 0..SEEDS {
            let how = search.long(c, seed);
            let theirs = lab.cell_in(c, how, &e, seed).map_err(Failure::failed)?;
            let Some(finished) = cells.remove(&theirs.id) else { return Ok(None) };
            let own = lab.experiment(c, how).map_err(Failure::failed)?;
            let meaning = lab.meaning(c, &own.point).map_err(Failure::failed)?;
            lab.cells.learn(plan::cell(&own, &meaning, 0).id, finished);
        }
        let mut tried = Tried::new(c.clone());
        while tried.long.len() < SEEDS && search.lengthen(&mut tried) {}
        pool.push(tried);
    }
    search.rank(&mut pool);
    Ok(Some(pool))
}
