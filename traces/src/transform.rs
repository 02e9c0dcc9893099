//! Transforms of a trace, written as text and logged in the file they produce.
//!
//! | text | does | streams |
//! |---|---|---|
//! | `window:0..600s` | keeps rows from the first to before the second time, and re-bases | yes |
//! | `filter:trigger!=timer` | keeps the rows that hold; `=`, `!=`, `<`, `<=`, `>`, `>=` | yes |
//! | `map:stripe:4`, `map:stripe:a,b` | gives the i-th tenant to appear model i mod n | yes |
//! | `map:hash:4` | gives a tenant the model that its name's hash says | yes |
//! | `map:zipf:4:1.1` | draws a tenant's model with weights 1/k^s | yes |
//! | `map:block:4` | gives tenant i of F model ⌊n·i/F⌋ | no |
//! | `map:rank:4` | orders tenants by their number of requests, then stripes | no |
//! | `top:8` | keeps the tenants with the most requests | no |
//! | `scale-time:0.5` | multiplies times: 0.5 doubles the rate, keeps the variation | yes |
//! | `thin:0.3` | keeps each row with this probability; 0.3 keeps a part of what 0.5 keeps | yes |
//! | `superpose:3:7s` | adds copies shifted by 7 s and 14 s, wrapping round at the end | no |
//! | `spread:3s` | spreads rows of one stamp evenly at random until the next stamp | yes |
//! | `cap-rate:10` | holds each tenant to 10 requests/s, with bursts of one second's worth | yes |
//! | `load:0.8:5ms` | scales time so that rate × 5 ms × work = 0.8 | no |
//! | `refit:gamma:window=1h:rate=1:cv=1` | redraws tenants per window, scaled | no |
//! | `slo:100ms` | sets every deadline | yes |
//! | `set:model=resnet50`, `set:tenant=a` | sets a name | yes |
//! | `rename:model:old=new`, `rename:tenant:old=new` | replaces one name | yes |
//! | `sort` | orders rows by arrival; for foreign files that are not | no |
//!
//! What does not stream holds its rows in memory. Scaling time keeps the coefficient of variation
//! and multiplies the rate; thinning pulls the variation towards 1: they are not interchangeable.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::decimal;
use crate::error::{TraceError, hint};
use crate::row::{Source, Stream, Tally, is_name};

mod stages;
mod whole;

/// One step that a trace goes through.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    spec: String,
    pub(crate) step: Step,
}

/// A test of one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) field: String,
    pub(crate) test: Test,
    pub(crate) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Is,
    IsNot,
    Below,
    AtMost,
    Above,
    AtLeast,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MapMode {
    Stripe,
    Block,
    Rank,
    Hash,
    Zipf(f64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Window {
        from: Nanos,
        to: Option<Nanos>,
    },
    Filter(Condition),
    Map {
        mode: MapMode,
        models: Vec<String>,
    },
    Top(usize),
    /// New time = old × the first / the second.
    ScaleTime(u64, u64),
    Thin(f64),
    Superpose {
        copies: u32,
        shift: Nanos,
    },
    Spread(Nanos),
    CapRate(f64),
    Load {
        load: (u64, u64),
        service: Nanos,
    },
    Refit {
        window: Nanos,
        rate: f64,
        cv: f64,
    },
    Slo(Nanos),
    Set {
        tenant: bool,
        name: String,
    },
    Rename {
        tenant: bool,
        old: String,
        new: String,
    },
    Sort,
}

const NAMES: &[&str] = &[
    "window",
    "filter",
    "map",
    "top",
    "scale-time",
    "thin",
    "superpose",
    "spread",
    "cap-rate",
    "load",
    "refit",
    "slo",
    "set",
    "rename",
    "sort",
];

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec)
    }
}

impl Transform {
    /// The bounds of a window; without an end, the end of time.
    pub(crate) fn window(&self) -> Option<(Nanos, Nanos)> {
        match self.step {
            Step::Window { from, to } => Some((from, to.unwrap_or(Nanos(u64::MAX)))),
            _ => None,
        }
    }

    /// Whether it is `sort`, which foreign readers do themselves before they check the order.
    #[must_use]
    pub fn is_sort(&self) -> bool {
        self.step == Step::Sort
    }
}

impl FromStr for Transform {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let fail = |problem: &str| TraceError::transform(text, problem);
        let step = match name {
            "window" => window(rest),
            "filter" => filter(rest),
            "map" => map(rest),
            "top" => rest.parse().ok().filter(|&k| k > 0).map(Step::Top),
            "scale-time" => {
                factor(rest).map(|(numerator, denominator)| Step::ScaleTime(numerator, denominator))
            }
            "thin" => rest.parse().ok().filter(|p| (0.0..=1.0).contains(p)).map(Step::Thin),
            "superpose" => superpose(rest),
            "spread" => positive(rest).map(Step::Spread),
            "cap-rate" => rest.parse().ok().filter(|r| (1e-9..=1e9).contains(r)).map(Step::CapRate),
            "load" => load(rest),
            "refit" => refit(rest),
            "slo" => positive(rest).map(Step::Slo),
            "set" => set(rest),
            "rename" => rename(rest),
            "sort" => rest.is_empty().then_some(Step::Sort),
            _ => {
                let hint = hint(name, NAMES.iter().copied());
                return Err(fail(&format!("`{name}` is unknown{hint}")));
            }
        };
        let step = step.ok_or_else(|| fail(&format!("write it as `{}`", usage(name))))?;
        Ok(Self { spec: text.to_owned(), step })
    }
}

/// What each transform looks like.
fn usage(name: &str) -> &'static str {
    match name {
        "window" => "window:0..600s` or `window:5min..",
        "filter" => "filter:trigger!=timer",
        "map" => "map:stripe:4`, `map:block:a,b`, `map:rank:4`, `map:hash:4` or `map:zipf:4:1.1",
        "top" => "top:8",
        "scale-time" => "scale-time:0.5",
        "thin" => "thin:0.3",
        "superpose" => {
            "superpose:3:7s` (the shift is above 0: clones at one instant batch too well)"
        }
        "spread" => "spread:3s",
        "cap-rate" => "cap-rate:10",
        "load" => "load:0.8:5ms",
        "refit" => "refit:gamma:window=1h:rate=1:cv=1",
        "slo" => "slo:100ms",
        "set" => "set:model=resnet50` or `set:tenant=a",
        "rename" => "rename:model:old=new` or `rename:tenant:old=new",
        _ => "sort",
    }
}

fn positive(text: &str) -> Option<Nanos> {
    text.parse::<Nanos>().ok().filter(|t| t.0 > 0)
}

/// A decimal factor above 0 and at most 1e9.
fn factor(text: &str) -> Option<(u64, u64)> {
    decimal::ratio(text).filter(|&(n, d)| n > 0 && n / d <= 1_000_000_000)
}

fn window(text: &str) -> Option<Step> {
    let (from, to) = text.split_once("..")?;
    let from = if from.is_empty() { Nanos::ZERO } else { from.parse().ok()? };
    let to = if to.is_empty() { None } else { Some(to.parse::<Nanos>().ok()?) };
    to.is_none_or(|to| to > from).then_some(Step::Window { from, to })
}

fn filter(text: &str) -> Option<Step> {
    let at = text.find(['!', '=', '<', '>'])?;
    let (field, rest) = text.split_at(at);
    let tests = [
        ("!=", Test::IsNot),
        ("<=", Test::AtMost),
        (">=", Test::AtLeast),
        ("==", Test::Is),
        ("=", Test::Is),
        ("<", Test::Below),
        (">", Test::Above),
    ];
    let (sign, test) = tests.into_iter().find(|(sign, _)| rest.starts_with(sign))?;
    let value = rest[sign.len()..].trim().to_owned();
    let field = field.trim().to_owned();
    (!field.is_empty()).then_some(Step::Filter(Condition { field, test, value }))
}

fn map(text: &str) -> Option<Step> {
    let mut parts = text.split(':');
    let mode = parts.next()?;
    let models = models(parts.next()?)?;
    let mode = match (mode, parts.next()) {
        ("stripe", None) => MapMode::Stripe,
        ("block", None) => MapMode::Block,
        ("rank", None) => MapMode::Rank,
        ("hash", None) => MapMode::Hash,
        ("zipf", Some(s)) => MapMode::Zipf(s.parse().ok().filter(|s| (0.0..=100.0).contains(s))?),
        _ => return None,
    };
    parts.next().is_none().then_some(Step::Map { mode, models })
}

/// `4` is m0 to m3; else a list of names.
fn models(text: &str) -> Option<Vec<String>> {
    if let Ok(n) = text.parse::<u32>() {
        return (1..=100_000).contains(&n).then(|| (0..n).map(|i| format!("m{i}")).collect());
    }
    let names: Vec<String> = text.split(',').map(|m| m.trim().to_owned()).collect();
    names.iter().all(|m| is_name(m)).then_some(names)
}

fn superpose(text: &str) -> Option<Step> {
    let (copies, shift) = text.split_once(':')?;
    let copies = copies.parse().ok().filter(|k| (1..=10_000).contains(k))?;
    Some(Step::Superpose { copies, shift: positive(shift)? })
}

fn load(text: &str) -> Option<Step> {
    let (load, service) = text.split_once(':')?;
    Some(Step::Load { load: factor(load)?, service: positive(service)? })
}

fn refit(text: &str) -> Option<Step> {
    let mut parts = text.split(':');
    if parts.next() != Some("gamma") {
        return None;
    }
    let (mut window, mut rate, mut cv) = (Nanos::from_secs(3600), 1.0, 1.0);
    for part in parts {
        let (key, value) = part.split_once('=')?;
        match key {
            "window" => window = positive(value)?,
            "rate" => rate = value.parse().ok().filter(|r| (1e-6..=1e6).contains(r))?,
            "cv" => cv = value.parse().ok().filter(|c| (0.0..=1e3).contains(c))?,
            _ => return None,
        }
    }
    Some(Step::Refit { window, rate, cv })
}

fn is_tenant(text: &str) -> Option<bool> {
    match text {
        "tenant" => Some(true),
        "model" => Some(false),
        _ => None,
    }
}

fn set(text: &str) -> Option<Step> {
    let (field, name) = text.split_once('=')?;
    is_name(name).then_some(Step::Set { tenant: is_tenant(field)?, name: name.to_owned() })
}

fn rename(text: &str) -> Option<Step> {
    let (field, names) = text.split_once(':')?;
    let (old, new) = names.split_once('=')?;
    let tenant = is_tenant(field)?;
    is_name(new).then(|| Step::Rename { tenant, old: old.to_owned(), new: new.to_owned() })
}

/// The rows in order of arrival, held in memory; equal times keep their order.
pub(crate) fn sorted(rows: Box<dyn Source>, tally: &Arc<Tally>) -> Box<dyn Source> {
    Box::new(whole::Whole::new(rows, Step::Sort, "sort".to_owned(), 0, Arc::clone(tally)))
}

/// Puts the transforms behind the stream, in order, and logs each in its `# transform=` lines.
///
/// # Errors
/// A transform names a field that the stream does not have, or a transform that needs all rows
/// finds a bad one.
pub fn apply(
    mut stream: Stream,
    transforms: &[Transform],
    seed: u64,
) -> Result<Stream, TraceError> {
    for transform in transforms {
        stream.meta.push("transform", transform.spec.clone());
        stream = stages::apply(stream, transform, seed)?;
    }
    let is_random =
        |t: &Transform| matches!(t.step, Step::Thin(_) | Step::Spread(_) | Step::Refit { .. });
    if transforms.iter().any(is_random) && stream.meta.get("seed").is_none() {
        stream.meta.push("seed", seed.to_string());
    }
    Ok(stream)
}
