//! `[[plot]]` tables: what to draw from the results, checked before anything runs.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::columns::{METRICS, SERIES, metric, unknown};

/// What a plot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PlotKind {
    /// A metric of every label, sorted, as dots with 95 % confidence intervals over the repeats; a few
    /// series over several groups become bars.
    Bars,
    /// Cumulative distribution of latency (`cdf.csv`).
    Cdf,
    /// A metric over a sweep key, with confidence bands.
    Lines,
    /// A metric over time (`series.csv`).
    Timeline,
    /// A metric over two sweep keys, one panel per label.
    Heatmap,
    /// Latency against CUs with the minimum CUs marked (`curves.csv`).
    Curves,
    /// Simulated against measured (`validation.csv`).
    Parity,
    /// Two metrics against each other, with the frontier.
    Pareto,
}

impl PlotKind {
    /// Every kind with its name.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Bars, "bars"),
        (Self::Cdf, "cdf"),
        (Self::Lines, "lines"),
        (Self::Timeline, "timeline"),
        (Self::Heatmap, "heatmap"),
        (Self::Curves, "curves"),
        (Self::Parity, "parity"),
        (Self::Pareto, "pareto"),
    ];

    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(k, _)| *k == self).expect("ALL lists every kind").1
    }
}

impl<'de> Deserialize<'de> for PlotKind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            serde::de::Error::custom(unknown("plot kind", &text, &names))
        })
    }
}

/// Which axes are logarithmic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum LogAxes {
    X,
    Y,
    Xy,
    None,
}

impl<'de> Deserialize<'de> for LogAxes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match String::deserialize(d)?.as_str() {
            "x" => Ok(Self::X),
            "y" => Ok(Self::Y),
            "xy" => Ok(Self::Xy),
            "none" => Ok(Self::None),
            other => Err(serde::de::Error::custom(format!(
                "`log` is `{other}`; write \"x\", \"y\", \"xy\" or \"none\""
            ))),
        }
    }
}

/// Where a legend stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Legend {
    #[default]
    Right,
    Below,
    None,
}

/// A figure's physical width.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Width {
    /// One of two columns of a paper, or its whole text block.
    Named(Block),
    /// mm.
    Mm(f64),
}

/// Parts of a printed page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Block {
    Column,
    Text,
}

impl Width {
    /// The width in mm.
    #[must_use]
    pub fn mm(self) -> f64 {
        match self {
            Self::Named(Block::Column) => 85.0,
            Self::Named(Block::Text) => 178.0,
            Self::Mm(mm) => mm,
        }
    }
}

impl<'de> Deserialize<'de> for Width {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Name(String),
            Mm(f64),
        }
        let wrong = |w: &dyn fmt::Display| {
            let text = "write \"column\" (85 mm), \"text\" (178 mm) or a number of mm, 40 to 1000";
            serde::de::Error::custom(format!("`width` is `{w}`; {text}"))
        };
        match Written::deserialize(d)? {
            Written::Name(n) if n == "column" => Ok(Self::Named(Block::Column)),
            Written::Name(n) if n == "text" => Ok(Self::Named(Block::Text)),
            Written::Name(n) => Err(wrong(&n)),
            Written::Mm(mm) if (40.0..=1000.0).contains(&mm) => Ok(Self::Mm(mm)),
            Written::Mm(mm) => Err(wrong(&mm)),
        }
    }
}

/// One value of a `where` table, or several of which any will do.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Wanted {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Any(Vec<Wanted>),
}

impl Wanted {
    /// Whether a field of a table equals this value: as text, or as the same number.
    #[must_use]
    pub fn matches(&self, field: &str) -> bool {
        let number = |n: f64| field.parse::<f64>().is_ok_and(|f| f == n);
        match self {
            Self::Bool(b) => field == if *b { "true" } else { "false" },
            Self::Integer(n) => number(*n as f64),
            Self::Float(n) => number(*n),
            Self::Text(text) => field == text,
            Self::Any(list) => list.iter().any(|w| w.matches(field)),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Integer(n) => write!(f, "{n}"),
            Self::Float(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
            Self::Any(list) => {
                for (i, w) in list.iter().enumerate() {
                    write!(f, "{}{w}", if i == 0 { "" } else { " or " })?;
                }
                Ok(())
            }
        }
    }
}

/// One `[[plot]]` table. What is left out gets the default of its kind.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Plot")]
pub struct PlotSpec {
    /// What to draw.
    pub kind: PlotKind,
    /// File stem under `plots/`; default: made of kind, `y` and `x`, and a number where two agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Title; default: the experiment's question where there is one plot, else `y` by `by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Horizontal axis. `bars`: tenant, label, policy, model or a sweep key; `lines`, `heatmap`: a
    /// sweep key; `pareto`: a metric (default `latency_p99_ms`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// A numeric column of `results.csv` (default `goodput_rps`); `timeline`: a column of
    /// `series.csv` (default `sm_active`); `parity`: one metric (default: all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// What gets a colour each: label (default), policy, tenant, model or a sweep key. `heatmap`:
    /// the sweep key of the vertical axis. `curves`: kernel (default), batch or model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// A tenant's name, `*` for the whole GPU, or `each` for one panel per tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `pareto`: whose `y` it is, where that is another tenant's than `x`: a tenant's name, or `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y_tenant: Option<String>,
    /// `pareto`: one panel for each value of this column: label, policy, tenant, model or a sweep key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panels: Option<String>,
    /// Logarithmic axes; default: a latency axis that spans more than about 30 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogAxes>,
    /// Title of the horizontal axis, in place of the one made of the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xlabel: Option<String>,
    /// A line below the title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Divides every value by that of this label, repeat by repeat: `bars`, `lines`, `heatmap`,
    /// `pareto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_to: Option<String>,
    /// `bars`: one more group with the geometric mean of the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub geomean: bool,
    /// Physical width: `column` (85 mm), `text` (178 mm) or a number of mm. Default: as wide as it
    /// takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub width: Option<Width>,
    /// A font family that viewers shall prefer, such as that of the document around the figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub font: Option<String>,
    /// Where the legend stands: `right` (default), `below` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legend: Option<Legend>,
    /// Draw only rows whose columns have these values.
    #[serde(default, rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub filter: BTreeMap<String, Wanted>,
}

/// A `[[plot]]` table that cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plot {number} ({kind}): field `{field}`: {message}")]
pub struct SpecError {
    /// Position among the tables, from 1.
    pub number: usize,
    /// The table's kind.
    pub kind: &'static str,
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong and what would be accepted.
    pub message: String,
}

/// Columns of `results.csv` that name things; sweep keys are added to them.
const DIMENSIONS: [&str; 4] = ["label", "policy", "tenant", "model"];

impl PlotSpec {
    /// The keys of a `[[plot]]` table, for messages about unknown keys.
    pub const FIELDS: &'static [&'static str] = &[
        "kind",
        "name",
        "title",
        "x",
        "y",
        "by",
        "tenant",
        "y_tenant",
        "panels",
        "log",
        "xlabel",
        "note",
        "relative_to",
        "geomean",
        "width",
        "font",
        "legend",
        "where",
    ];

    /// A plot of this kind with only defaults.
    #[must_use]
    pub fn new(kind: PlotKind) -> Self {
        Self {
            kind,
            name: None,
            title: None,
            x: None,
            y: None,
            by: None,
            tenant: None,
            y_tenant: None,
            panels: None,
            log: None,
            xlabel: None,
            note: None,
            relative_to: None,
            geomean: false,
            width: None,
            font: None,
            legend: None,
            filter: BTreeMap::new(),
        }
    }

    /// The plots to draw if the experiment asks for none: goodput and p99 per tenant without a sweep, goodput
    /// over the first key with one, and goodput against p99.
    #[must_use]
    pub fn defaults(sweep_keys: &[String]) -> Vec<Self> {
        let with_y = |kind, y: &str| Self { y: Some(y.to_owned()), ..Self::new(kind) };
        let first = match sweep_keys {
            [] => vec![
                with_y(PlotKind::Bars, "goodput_rps"),
                with_y(PlotKind::Bars, "latency_p99_ms"),
            ],
            [_] => vec![with_y(PlotKind::Lines, "goodput_rps")],
            [_, _] => vec![with_y(PlotKind::Heatmap, "goodput_rps")],
            _ => vec![],
        };
        first.into_iter().chain([Self::new(PlotKind::Pareto)]).collect()
    }

    /// Checks the table against the sweep keys of its experiment; `index` counts from 0.
    ///
    /// # Errors
    /// A field that its kind does not accept, or a column that does not exist, with the closest name.
    pub fn check(&self, index: usize, sweep_keys: &[String]) -> Result<(), SpecError> {
        let error = |field, message| SpecError {
            number: index + 1,
            kind: self.kind.name(),
            field,
            message,
        };
        if let Some(name) = &self.name {
            check_name(name).map_err(|m| error("name", m))?;
        }
        let keys: Vec<&str> = sweep_keys.iter().map(String::as_str).collect();
        let dims: Vec<&str> = DIMENSIONS.iter().copied().chain(keys.iter().copied()).collect();
        let metrics: Vec<&str> = METRICS.iter().map(|c| c.name).collect();
        let [x, y, by] = self.accepted(&dims, &keys, &metrics);
        for (field, value, accepted) in [("x", &self.x, x), ("y", &self.y, y), ("by", &self.by, by)]
        {
            if let Some(value) = value {
                accepted.check(value, &keys).map_err(|m| error(field, m))?;
            }
        }
        self.check_sweep(&keys).map_err(|(field, m)| error(field, m))?;
        let ratios = [PlotKind::Bars, PlotKind::Lines, PlotKind::Heatmap, PlotKind::Pareto];
        if self.y_tenant.is_some() && self.kind != PlotKind::Pareto {
            return Err(error("y_tenant", "is for pareto".to_owned()));
        }
        if let Some(panels) = &self.panels {
            if self.kind != PlotKind::Pareto {
                return Err(error("panels", "is for pareto".to_owned()));
            }
            if !dims.contains(&panels.as_str()) {
                return Err(error("panels", unknown("column", panels, &dims)));
            }
        }
        if self.relative_to.is_some() && !ratios.contains(&self.kind) {
            let what = "is for bars, lines, heatmaps and pareto".to_owned();
            return Err(error("relative_to", what));
        }
        if self.geomean && self.kind != PlotKind::Bars {
            return Err(error("geomean", "is for bars".to_owned()));
        }
        let filters = self.filters(&dims);
        match self.filter.keys().find(|key| !filters.contains(&key.as_str())) {
            Some(key) => Err(error("where", unknown("column", key, &filters))),
            None => Ok(()),
        }
    }

    /// The values that this kind accepts for x, y and by.
    fn accepted<'a>(
        &self,
        dims: &[&'a str],
        keys: &[&'a str],
        metrics: &[&'a str],
    ) -> [Accepted<'a>; 3] {
        let one = |what, list: &[&'a str]| Accepted { what, list: list.to_vec() };
        let metric = one("column", metrics);
        let no_y = one("column", &[]);
        let short: Vec<&str> =
            ["label", "tenant"].into_iter().chain(keys.iter().copied()).collect();
        match self.kind {
            PlotKind::Bars => [one("column", dims), metric, one("column", dims)],
            PlotKind::Lines => [one("sweep key", keys), metric, one("column", dims)],
            PlotKind::Heatmap => [one("sweep key", keys), metric, one("sweep key", keys)],
            PlotKind::Pareto => [metric.clone(), metric, one("column", dims)],
            PlotKind::Cdf => [no_y, one("column", &["latency_ms"]), one("column", &short)],
            PlotKind::Timeline => [no_y, one("column", &SERIES), one("column", &short)],
            PlotKind::Curves => [
                no_y,
                one("column", &["duration_us", "slowdown"]),
                one("column", &["kernel", "batch", "model"]),
            ],
            PlotKind::Parity => {
                [no_y, Accepted { what: "", list: vec![] }, one("column", &["label", "tenant"])]
            }
        }
    }

    /// Lines and heatmaps need sweep keys for their axes.
    fn check_sweep(&self, keys: &[&str]) -> Result<(), (&'static str, String)> {
        let missing = |n: usize| {
            Err(("x", format!("needs {n} sweep keys, the experiment has {}", keys.len())))
        };
        match self.kind {
            PlotKind::Lines if keys.is_empty() => {
                Err(("x", "needs a sweep key and the experiment has no [sweep]".to_owned()))
            }
            PlotKind::Heatmap if keys.len() < 2 => missing(2),
            PlotKind::Heatmap if self.x.is_some() && self.x == self.by => {
                Err(("by", "is the same sweep key as `x`".to_owned()))
            }
            PlotKind::Bars if self.x.is_some() && self.x == self.by => {
                Err(("by", "is the same column as `x`".to_owned()))
            }
            PlotKind::Pareto => {
                let directed = |c: &Option<String>| {
                    c.as_deref()
                        .and_then(metric)
                        .is_none_or(|c| c.better != crate::columns::Better::Neither)
                };
                let what = "has no better and no worse: a frontier needs a direction";
                match (directed(&self.x), directed(&self.y)) {
                    (false, _) => Err(("x", what.to_owned())),
                    (_, false) => Err(("y", what.to_owned())),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Columns that `where` may contain.
    fn filters<'a>(&self, dims: &[&'a str]) -> Vec<&'a str> {
        match self.kind {
            PlotKind::Curves => vec!["model", "batch", "kernel"],
            PlotKind::Parity => vec!["label", "tenant", "metric"],
            PlotKind::Cdf | PlotKind::Timeline => {
                let named = |d: &&str| !matches!(*d, "policy" | "model");
                dims.iter().copied().filter(named).chain(["repeat", "cell"]).collect()
            }
            _ => dims.iter().copied().chain(["repeat", "cell", "seed"]).collect(),
        }
    }

    /// The file stem: `name`, or one built from kind, y and x.
    #[must_use]
    pub fn stem(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let parts = [Some(self.kind.name()), self.y.as_deref(), self.x.as_deref()];
        let tenant = self.tenant.as_deref().filter(|t| *t != "*");
        let text = parts.into_iter().chain([tenant]).flatten().collect::<Vec<_>>().join("-");
        text.chars().map(|c| if is_stem_char(c) { c } else { '-' }).collect()
    }
}

/// A closed list of names; if it is empty, the field is not accepted or, without `what`, anything is.
#[derive(Clone, Debug)]
struct Accepted<'a> {
    what: &'static str,
    list: Vec<&'a str>,
}

impl Accepted<'_> {
    fn check(&self, value: &str, keys: &[&str]) -> Result<(), String> {
        if self.what.is_empty() || self.list.contains(&value) {
            return Ok(());
        }
        if self.list.is_empty() && keys.is_empty() && self.what == "sweep key" {
            return Err("needs a sweep key and the experiment has no [sweep]".to_owned());
        }
        if self.list.is_empty() {
            return Err(format!("is fixed for this kind; remove `{value}`"));
        }
        Err(unknown(self.what, value, &self.list))
    }
}

fn is_stem_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// A stem becomes a file name: it must not lead out of `plots/`.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_stem_char) {
        return Err(format!(
            "`{name}` is not a valid file name: use letters, digits, `-`, `_` and `.`"
        ));
    }
    Ok(())
}
