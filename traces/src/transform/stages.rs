//! The transforms that work on one row after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cotenant_profiles::Nanos;
use rand_distr::Zipf;

use super::{Condition, MapMode, Step, Test, Transform, whole};
use crate::error::{TraceError, hint};
use crate::rng::{Real, Rng, mix};
use crate::row::{Columns, Row, Source, Stream, Tally};

pub(super) fn apply(
    stream: Stream,
    transform: &Transform,
    seed: u64,
) -> Result<Stream, TraceError> {
    let Stream { name, meta, mut columns, tally, rows } = stream;
    let shared = Arc::clone(&tally);
    let each = |rows, change| -> Box<dyn Source> { Box::new(Each { rows, change }) };
    let rows: Box<dyn Source> = match &transform.step {
        Step::Window { from, to } => Box::new(Window { rows, from: *from, to: *to, tally: shared }),
        Step::Filter(condition) => {
            let column = field(condition, &columns, &transform.spec)?;
            let (condition, number) = (condition.clone(), condition.value.parse().ok());
            Box::new(Keep { rows, keep: Filter { condition, number, column }, tally: shared })
        }
        Step::Map { mode: MapMode::Block | MapMode::Rank, .. }
        | Step::Top(_)
        | Step::Superpose { .. }
        | Step::Load { .. }
        | Step::Refit { .. }
        | Step::Sort => {
            let (step, spec) = (transform.step.clone(), transform.spec.clone());
            Box::new(whole::Whole::new(rows, step, spec, seed, shared))
        }
        Step::Map { mode, models } => {
            let models = models.iter().map(|m| Arc::from(m.as_str())).collect();
            let mode = *mode;
            each(rows, Change::Map(Mapper { mode, models, seen: BTreeMap::new(), seed }))
        }
        Step::ScaleTime(by, over) => {
            Box::new(Scale { rows, by: (*by).into(), over: (*over).into() })
        }
        Step::Thin(p) => {
            Box::new(Keep { rows, keep: Thin { p: *p, seed, index: 0 }, tally: shared })
        }
        Step::Spread(quantum) => Box::new(Spread::new(rows, *quantum, seed)),
        Step::CapRate(rate) => {
            let keep = Cap { rate: *rate, buckets: BTreeMap::new() };
            Box::new(Keep { rows, keep, tally: shared })
        }
        Step::Slo(slo) => {
            columns.slo = true;
            each(rows, Change::Slo(*slo))
        }
        Step::Set { tenant, name } => each(rows, Change::Set(*tenant, Arc::from(name.as_str()))),
        Step::Rename { tenant, old, new } => {
            each(rows, Change::Rename(*tenant, old.clone(), Arc::from(new.as_str())))
        }
    };
    Ok(Stream { name, meta, columns, tally, rows })
}

/// Windows and re-bases time.
struct Window {
    rows: Box<dyn Source>,
    from: Nanos,
    to: Option<Nanos>,
    tally: Arc<Tally>,
}

impl Source for Window {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        while let Some(mut row) = self.rows.next_row()? {
            if row.arrival >= self.from && self.to.is_none_or(|to| row.arrival < to) {
                row.arrival = row.arrival - self.from;
                return Ok(Some(row));
            }
            self.tally.drop_row("window");
        }
        Ok(None)
    }

    fn duration(&self) -> Option<Nanos> {
        let whole = self.rows.duration()?;
        Some(self.to.map_or(whole, |to| to.min(whole)).since(self.from))
    }
}

/// Decides about one row.
trait Decide: Send {
    const REASON: &'static str;
    fn keeps(&mut self, row: &Row) -> bool;
}

struct Keep<D> {
    rows: Box<dyn Source>,
    keep: D,
    tally: Arc<Tally>,
}

impl<D: Decide> Source for Keep<D> {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        while let Some(row) = self.rows.next_row()? {
            if self.keep.keeps(&row) {
                return Ok(Some(row));
            }
            self.tally.drop_row(D::REASON);
        }
        Ok(None)
    }

    fn duration(&self) -> Option<Nanos> {
        self.rows.duration()
    }
}

const FIELDS: [&str; 9] =
    ["tenant", "model", "items", "prio", "work", "tokens_in", "tokens_out", "session", "slo_ns"];

/// The pass-through column that a condition is about, if it is about one: `trigger` finds
/// `x_trigger`.
fn field(
    condition: &Condition,
    columns: &Columns,
    spec: &str,
) -> Result<Option<usize>, TraceError> {
    let field = condition.field.as_str();
    let is_ordered = !matches!(condition.test, Test::Is | Test::IsNot);
    if is_ordered && condition.value.parse::<f64>().is_err() {
        let problem = format!("`{}` is not a number to compare with", condition.value);
        return Err(TraceError::transform(spec, problem));
    }
    if FIELDS.contains(&field) {
        return Ok(None);
    }
    let matches = |name: &String| name == field || name.strip_prefix("x_") == Some(field);
    columns.extra.iter().position(matches).map(Some).ok_or_else(|| {
        let known = FIELDS.into_iter().chain(columns.extra.iter().map(String::as_str));
        TraceError::transform(spec, format!("no field `{field}`{}", hint(field, known)))
    })
}

struct Filter {
    condition: Condition,
    number: Option<f64>,
    column: Option<usize>,
}

impl Filter {
    /// The field as text and, where it has one, as a number.
    fn is(&self, row: &Row) -> bool {
        let value = self.condition.value.as_str();
        let text = |text: &str| match (text.parse::<f64>(), self.number) {
            (Ok(a), Some(b)) if !text.is_empty() => self.ordered(a, b, text == value || a == b),
            _ => self.plain(text == value),
        };
        let number = |x: Option<f64>| match (x, self.number) {
            (Some(a), Some(b)) => self.ordered(a, b, a == b),
            // An absent value equals the empty text and nothing else.
            (None, _) => self.plain(value.is_empty()),
            (Some(_), None) => self.plain(false),
        };
        match (self.column, self.condition.field.as_str()) {
            (Some(i), _) => text(row.extra.get(i).map_or("", |v| v)),
            (None, "tenant") => self.plain(&*row.tenant == value),
            (None, "model") => self.plain(&*row.model == value),
            (None, "session") => self.plain(row.session.as_deref().unwrap_or("") == value),
            (None, "items") => number(Some(f64::from(row.items))),
            (None, "prio") => number(Some(f64::from(row.prio))),
            (None, "work") => number(Some(f64::from(row.work))),
            (None, "tokens_in") => number(row.tokens_in.map(f64::from)),
            (None, "tokens_out") => number(row.tokens_out.map(f64::from)),
            (None, _) => number(row.slo.map(|slo| slo.0 as f64)),
        }
    }

    fn plain(&self, equal: bool) -> bool {
        match self.condition.test {
            Test::Is => equal,
            Test::IsNot => !equal,
            // What has no number is neither above nor below one.
            _ => false,
        }
    }

    fn ordered(&self, a: f64, b: f64, equal: bool) -> bool {
        match self.condition.test {
            Test::Is => equal,
            Test::IsNot => !equal,
            Test::Below => a < b,
            Test::AtMost => a <= b,
            Test::Above => a > b,
            Test::AtLeast => a >= b,
        }
    }
}

impl Decide for Filter {
    const REASON: &'static str = "filter";

    fn keeps(&mut self, row: &Row) -> bool {
        self.is(row)
    }
}

/// Keeps by a hash of the row's number: what 0.3 keeps, 0.5 keeps too.
struct Thin {
    p: f64,
    seed: u64,
    index: u64,
}

impl Decide for Thin {
    const REASON: &'static str = "thin";

    fn keeps(&mut self, _: &Row) -> bool {
        let hash = mix(mix(self.seed ^ 0x7468_696E).wrapping_add(mix(self.index)));
        self.index += 1;
        ((hash >> 11) as f64) < self.p * (1u64 << 53) as f64
    }
}

/// A token bucket per tenant, one second deep.
struct Cap {
    rate: f64,
    buckets: BTreeMap<Arc<str>, (f64, Nanos)>,
}

impl Decide for Cap {
    const REASON: &'static str = "cap-rate";

    fn keeps(&mut self, row: &Row) -> bool {
        let depth = self.rate.max(1.0);
        let full = (depth, row.arrival);
        let bucket = self.buckets.entry(Arc::clone(&row.tenant)).or_insert(full);
        let gained = row.arrival.since(bucket.1).as_secs_f64() * self.rate;
        *bucket = ((bucket.0 + gained).min(depth), row.arrival);
        let keeps = bucket.0 >= 1.0;
        if keeps {
            bucket.0 -= 1.0;
        }
        keeps
    }
}

/// Changes that leave the time alone.
enum Change {
    Map(Mapper),
    Slo(Nanos),
    Set(bool, Arc<str>),
    Rename(bool, String, Arc<str>),
}

struct Each {
    rows: Box<dyn Source>,
    change: Change,
}

impl Source for Each {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        let Some(mut row) = self.rows.next_row()? else { return Ok(None) };
        match &mut self.change {
            Change::Map(mapper) => row.model = mapper.model(&row.tenant),
            Change::Slo(slo) => row.slo = Some(*slo),
            Change::Set(true, name) => row.tenant = Arc::clone(name),
            Change::Set(false, name) => row.model = Arc::clone(name),
            Change::Rename(true, old, new) if *row.tenant == **old => row.tenant = Arc::clone(new),
            Change::Rename(false, old, new) if *row.model == **old => row.model = Arc::clone(new),
            Change::Rename(..) => {}
        }
        Ok(Some(row))
    }

    fn duration(&self) -> Option<Nanos> {
        self.rows.duration()
    }
}

struct Mapper {
    mode: MapMode,
    models: Vec<Arc<str>>,
    seen: BTreeMap<Arc<str>, usize>,
    seed: u64,
}

impl Mapper {
    fn model(&mut self, tenant: &Arc<str>) -> Arc<str> {
        if let Some(&model) = self.seen.get(tenant) {
            return Arc::clone(&self.models[model]);
        }
        let n = self.models.len();
        let model = match self.mode {
            MapMode::Zipf(s) => {
                let mut rng = Rng::for_names(self.seed, &[tenant, "map-zipf"]);
                let zipf = Zipf::new(Real(n as f64), Real(s)).expect("models, and s from 0");
                // Ranks count from 1.
                (rng.sample(zipf) as usize).clamp(1, n) - 1
            }
            MapMode::Hash => {
                (Rng::for_names(0, &[tenant, "map-hash"]).next_u64() % n as u64) as usize
            }
            _ => self.seen.len() % n,
        };
        self.seen.insert(Arc::clone(tenant), model);
        Arc::clone(&self.models[model])
    }
}

/// Multiplies times by a fraction, exactly and rounded down.
struct Scale {
    rows: Box<dyn Source>,
    by: u128,
    over: u128,
}

pub(super) fn scaled(ns: u64, by: u128, over: u128) -> Option<u64> {
    u64::try_from(u128::from(ns).checked_mul(by)? / over).ok()
}

impl Source for Scale {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        let Some(mut row) = self.rows.next_row()? else { return Ok(None) };
        let at = scaled(row.arrival.0, self.by, self.over).ok_or_else(|| {
            TraceError::transform("scale-time", "the trace gets longer than 584 years")
        })?;
        row.arrival = Nanos(at);
        Ok(Some(row))
    }

    fn duration(&self) -> Option<Nanos> {
        // Rounded up: the end stays behind every row.
        let whole = u128::from(self.rows.duration()?.0) * self.by;
        Some(Nanos(u64::try_from(whole.div_ceil(self.over)).unwrap_or(u64::MAX)))
    }
}

/// Spreads the rows of one tick uniformly up to the next tick, keeping their order.
struct Spread {
    rows: Box<dyn Source>,
    quantum: u64,
    rng: Rng,
    ahead: Option<Row>,
    ready: VecDeque<Row>,
    end: u64,
}

impl Spread {
    fn new(rows: Box<dyn Source>, quantum: Nanos, seed: u64) -> Self {
        let rng = Rng::for_names(seed, &["spread"]);
        Self { rows, quantum: quantum.0, rng, ahead: None, ready: VecDeque::new(), end: 0 }
    }

    /// Reads one tick. A tick is what lies within half a quantum of its first row: stamps jitter,
    /// so dividing them by the quantum would put some in the wrong bin.
    fn fill(&mut self) -> Result<(), TraceError> {
        let first = match self.ahead.take() {
            Some(row) => row,
            None => match self.rows.next_row()? {
                Some(row) => row,
                None => return Ok(()),
            },
        };
        let start = first.arrival.0;
        self.ready.push_back(first);
        while let Some(row) = self.rows.next_row()? {
            if row.arrival.0 - start >= self.quantum.div_ceil(2) {
                self.ahead = Some(row);
                break;
            }
            self.ready.push_back(row);
        }
        let regular = start.saturating_add(self.quantum);
        // The next tick bounds this one, unless ticks without rows lie between.
        let next = self.ahead.as_ref().map(|row| row.arrival.0);
        let late = regular.saturating_add(self.quantum / 2);
        let end = next.filter(|&next| next < late).unwrap_or(regular);
        let width = (end - start) as f64;
        let mut times: Vec<u64> =
            self.ready.iter().map(|_| start + (self.rng.uniform() * width) as u64).collect();
        times.sort_unstable();
        for (row, at) in self.ready.iter_mut().zip(times) {
            row.arrival = Nanos(at);
        }
        self.end = end;
        Ok(())
    }
}

impl Source for Spread {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        if self.ready.is_empty() {
            self.fill()?;
        }
        Ok(self.ready.pop_front())
    }

    fn duration(&self) -> Option<Nanos> {
        self.rows.duration().map(|whole| whole.max(Nanos(self.end)))
    }
}
