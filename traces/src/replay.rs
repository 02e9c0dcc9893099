//! A trace file as the arrivals of one tenant: `arrivals = { kind = "trace", file = "conv.csv" }`.

use std::path::{Path, PathBuf};

use cotenant_profiles::Nanos;
use serde::Serialize;

use crate::error::TraceError;
use crate::expand::Expand;
use crate::format::ReadOptions;
use crate::read;
use crate::request::{Arrivals, Request};
use crate::rng::Rng;
use crate::row::{Row, Source, Stream};
use crate::spec_fields::Fields;
use crate::transform::{self, Transform};

/// A trace or counts file, and what is done to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceSpec {
    /// The file, relative to the experiment file.
    pub file: PathBuf,
    /// Its format; told from its beginning when absent.
    pub format: Option<String>,
    /// Compresses time so that the rate is multiplied by this.
    pub rate_scale: f64,
    /// Only the rows of this tenant of the trace.
    pub tenant: Option<String>,
    /// Only the rows of this model of the trace.
    pub model: Option<String>,
    /// Only this part of the trace, as `0..600s`, before `rate_scale`.
    pub window: Option<String>,
    /// Applied in order, between `window` and `rate_scale`.
    pub transforms: Vec<String>,
    /// How counts become requests.
    pub expand: Option<String>,
    /// Starts again at its end.
    pub repeat: bool,
    /// How a request's service time follows from its tokens.
    pub work: Work,
}

/// Service time of a request, as a multiple of the profiled inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Work {
    /// The trace's `work` column, 1 where it has none: one request is one inference.
    #[default]
    Trace,
    /// (tokens_in × a + tokens_out × b) / mean.
    Tokens {
        /// Weight of a prompt token.
        a: f64,
        /// Weight of a generated token.
        b: f64,
        /// What counts as one inference; absent: the mean over the rows that are replayed, so that
        /// the mean work is 1.
        mean: Option<f64>,
    },
}

impl TraceSpec {
    /// The whole of a file, as it is.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            format: None,
            rate_scale: 1.0,
            tenant: None,
            model: None,
            window: None,
            transforms: Vec::new(),
            expand: None,
            repeat: false,
            work: Work::Trace,
        }
    }

    pub(crate) fn parse(fields: &mut Fields) -> Result<Self, TraceError> {
        let file = fields.text("file")?;
        let file = file.ok_or_else(|| TraceError::spec("file", "is missing: name a trace file"))?;
        let mut spec = Self::new(file);
        spec.format = fields.text("format")?;
        spec.rate_scale = fields.number("rate_scale")?.unwrap_or(1.0);
        spec.tenant = fields.text("tenant")?;
        spec.model = fields.text("model")?;
        spec.window = fields.text("window")?;
        spec.transforms = fields.texts("transforms")?;
        spec.expand = fields.text("expand")?;
        spec.repeat = fields.flag("loop")?.unwrap_or(false);
        let work = fields.choice("work", &["trace", "tokens"])?;
        let (a, b) = (fields.number("work_in")?, fields.number("work_out")?);
        let mean = fields.number("work_mean")?;
        spec.work = match work {
            Some("tokens") => Work::Tokens { a: a.unwrap_or(1.0), b: b.unwrap_or(1.0), mean },
            _ if a.is_some() || b.is_some() || mean.is_some() => {
                return Err(TraceError::spec("work_in", "is only for work = \"tokens\""));
            }
            _ => Work::Trace,
        };
        Ok(spec)
    }

    /// Checks every value without opening the file.
    pub(crate) fn validate(&self) -> Result<(), TraceError> {
        if !(1e-6..=1e6).contains(&self.rate_scale) {
            return Err(TraceError::spec("rate_scale", "is not from 1e-6 to 1e6"));
        }
        if let Some(name) = &self.format {
            read::find(name)?;
        }
        if let Work::Tokens { a, b, mean } = self.work {
            let legal = |x: f64| (0.0..=1e9).contains(&x);
            if !legal(a) || !legal(b) || a + b == 0.0 || mean.is_some_and(|m| !legal(m) || m == 0.0)
            {
                let problem =
                    "and work_out are not from 0 to 1e9 and not both 0, or work_mean is 0";
                return Err(TraceError::spec("work_in", problem));
            }
        }
        self.expand()?;
        self.pipeline().map(drop)
    }

    fn expand(&self) -> Result<Expand, TraceError> {
        self.expand.as_deref().map_or(Ok(Expand::default()), str::parse)
    }

    /// Everything that is done to the rows, in order.
    fn pipeline(&self) -> Result<Vec<Transform>, TraceError> {
        let mut transforms: Vec<Transform> = self.window().transpose()?.into_iter().collect();
        for (field, name) in [("tenant", &self.tenant), ("model", &self.model)] {
            if let Some(name) = name {
                transforms.push(format!("filter:{field}={name}").parse()?);
            }
        }
        for text in &self.transforms {
            transforms.push(text.parse()?);
        }
        Ok(transforms)
    }

    fn window(&self) -> Option<Result<Transform, TraceError>> {
        self.window.as_ref().map(|window| format!("window:{window}").parse())
    }

    /// The arrival, on the file's own clock, of the request that is nearest to the window; `None`
    /// where there is no window, or nothing outside it either.
    fn nearest(&self, base_dir: &Path, seed: u64) -> Result<Option<Nanos>, TraceError> {
        let Some(window) = self.window().transpose()? else { return Ok(None) };
        let Some((from, until)) = window.window() else { return Ok(None) };
        let mut stream = Self { window: None, ..self.clone() }.stream(base_dir, seed)?;
        let mut nearest: Option<(u64, Nanos)> = None;
        while let Some(row) = stream.rows.next_row()? {
            let at = row.arrival.0;
            let distance = from.0.saturating_sub(at).max(at.saturating_sub(until.0));
            if nearest.is_none_or(|(least, _)| distance < least) {
                nearest = Some((distance, row.arrival));
            }
        }
        Ok(nearest.map(|(_, at)| at))
    }

    /// What a user should know before a run of the length `until` replays the file.
    pub(crate) fn notes(
        &self,
        base_dir: &Path,
        seed: u64,
        tenant: &str,
        until: Nanos,
    ) -> Result<Vec<String>, TraceError> {
        let seed = tenant_seed(seed, tenant);
        let mut stream = self.stream(base_dir, seed)?;
        let first = stream.rows.next_row()?;
        let survey = survey(self, base_dir, seed)?;
        let mut notes = survey.warnings;
        let name = &stream.name;
        let at = first.map(|row| row.arrival.0 as f64 / self.rate_scale);
        match at {
            Some(at) if at < until.0 as f64 => {}
            Some(at) => {
                // A window counts on the clock behind the one that is given already.
                let (own, start) = (self.window.as_deref(), Nanos((at * self.rate_scale) as u64));
                let advice = match own {
                    None => format!("window = \"{}..\"", whole_seconds(start)),
                    Some(_) => "a later `window`".to_owned(),
                };
                notes.push(format!(
                    "{name}: no request falls into the run of {until}; the nearest arrives at {}: \
                     give {advice} or a longer `duration`",
                    Nanos(at.min(1.8e19) as u64)
                ));
            }
            None => {
                let window = self.window.as_deref().unwrap_or("0..");
                let nearest = self.nearest(base_dir, seed)?;
                notes.push(match nearest {
                    Some(at) => format!(
                        "{name}: no request in the window {window}; the nearest arrives at {at}"
                    ),
                    None => format!("{name}: no request at all"),
                });
            }
        }
        Ok(notes)
    }

    fn stream(&self, base_dir: &Path, seed: u64) -> Result<Stream, TraceError> {
        let expand = self.expand()?;
        let options = ReadOptions { seed, expand, ..ReadOptions::default() };
        let stream = read::open(&base_dir.join(&self.file), self.format.as_deref(), &options)?;
        transform::apply(stream, &self.pipeline()?, seed)
    }
}

/// What one pass over the trace finds.
struct Survey {
    rows: u64,
    warnings: Vec<String>,
    duration: Nanos,
    mean_tokens: f64,
}

fn survey(spec: &TraceSpec, base_dir: &Path, seed: u64) -> Result<Survey, TraceError> {
    let mut stream = spec.stream(base_dir, seed)?;
    let (mut rows, mut tokens) = (0u64, 0.0);
    while let Some(row) = stream.rows.next_row()? {
        if let Work::Tokens { a, b, .. } = spec.work {
            tokens += weigh(&row, a, b).ok_or_else(|| {
                let problem = format!(
                    "row {} has no tokens_in or tokens_out, which work = \"tokens\" needs",
                    rows + 1
                );
                TraceError::file(&stream.name, problem)
            })?;
        }
        rows += 1;
    }
    let counts = stream.tally.counts();
    // An empty window is a quiet tenant; a filter that nothing passes is a mistake.
    if rows == 0 && !counts.dropped.is_empty() && spec.nearest(base_dir, seed)?.is_none() {
        let problem =
            format!("no row is left of {} (dropped: {:?})", counts.rows_in, counts.dropped);
        return Err(TraceError::file(&stream.name, problem));
    }
    let duration = stream.rows.duration().unwrap_or(Nanos::ZERO);
    let mean_tokens = if rows == 0 { 1.0 } else { tokens / rows as f64 };
    Ok(Survey { rows, warnings: counts.warnings, duration, mean_tokens })
}

/// Rounded down, as short as a window is written by hand.
fn whole_seconds(at: Nanos) -> Nanos {
    Nanos(at.0 - at.0 % 1_000_000_000)
}

/// Two tenants that replay the same counts file must not get the same expansion.
fn tenant_seed(seed: u64, tenant: &str) -> u64 {
    Rng::for_names(seed, &[tenant, "arrivals"]).next_u64()
}

fn weigh(row: &Row, a: f64, b: f64) -> Option<f64> {
    Some(f64::from(row.tokens_in?) * a + f64::from(row.tokens_out?) * b)
}

/// Opens the arrivals of a trace. The file is read through once first: a bad row is an error here.
pub(crate) fn open(
    spec: &TraceSpec,
    base_dir: &Path,
    seed: u64,
    tenant: &str,
) -> Result<Box<dyn Arrivals>, TraceError> {
    let seed = tenant_seed(seed, tenant);
    let survey = survey(spec, base_dir, seed)?;
    let work = match spec.work {
        Work::Tokens { a, b, mean } => Some((a, b, mean.unwrap_or(survey.mean_tokens))),
        Work::Trace => None,
    };
    if work.is_some_and(|(_, _, mean)| mean <= 0.0) {
        let problem = "the mean is 0: every row has 0 tokens; give work_mean";
        return Err(TraceError::spec("work_mean", problem));
    }
    let rows = spec.stream(base_dir, seed)?.rows;
    let (spec, base_dir) = (spec.clone(), base_dir.to_owned());
    Ok(Box::new(Replay { spec, base_dir, seed, survey, work, rows, offset: 0, left: 0 }))
}

struct Replay {
    spec: TraceSpec,
    base_dir: PathBuf,
    seed: u64,
    survey: Survey,
    work: Option<(f64, f64, f64)>,
    rows: Box<dyn Source>,
    /// Start of the current round of a loop, on the trace's own clock.
    offset: u64,
    left: u64,
}

impl Replay {
    /// The row as a request on the experiment's clock; `None` past the end of time.
    fn request(&self, row: &Row) -> Option<Request> {
        let mut request = row.request();
        let at = self.offset.checked_add(row.arrival.0)?;
        request.arrival = if self.spec.rate_scale == 1.0 {
            Nanos(at)
        } else {
            let scaled = at as f64 / self.spec.rate_scale;
            if scaled >= 1.8e19 {
                return None;
            }
            Nanos(scaled as u64)
        };
        if let Some((a, b, mean)) = self.work {
            // A request of 0 tokens still costs its launch: work stays above 0.
            request.work = ((weigh(row, a, b)? / mean) as f32).max(f32::MIN_POSITIVE);
        }
        Some(request)
    }
}

impl Iterator for Replay {
    type Item = Request;

    /// The survey has read every row; a file that changes underneath ends the arrivals early.
    fn next(&mut self) -> Option<Request> {
        if let Ok(Some(row)) = self.rows.next_row() {
            self.left += 1;
            return self.request(&row);
        }
        assert_eq!(
            self.left,
            self.survey.rows,
            "{} changed while it was being replayed",
            self.spec.file.display()
        );
        if !self.spec.repeat || self.survey.duration.0 == 0 {
            return None;
        }
        self.left = 0;
        self.offset = self.offset.checked_add(self.survey.duration.0)?;
        self.rows = self.spec.stream(&self.base_dir, self.seed).ok()?.rows;
        let row = self.rows.next_row().ok()??;
        self.left = 1;
        self.request(&row)
    }
}
