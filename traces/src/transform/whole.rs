//! The transforms that need every row before they can give the first.

use std::collections::BTreeMap;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use super::stages::scaled;
use super::{MapMode, Step};
use crate::error::TraceError;
use crate::generate::Gap;
use crate::rng::Rng;
use crate::row::{Row, Source, Tally};

/// Holds all rows in memory once the first is asked for.
pub(super) struct Whole {
    rows: Box<dyn Source>,
    step: Step,
    spec: String,
    seed: u64,
    tally: Arc<Tally>,
    ready: Option<std::vec::IntoIter<Row>>,
    duration: Option<Nanos>,
}

impl Whole {
    pub(super) fn new(
        rows: Box<dyn Source>,
        step: Step,
        spec: String,
        seed: u64,
        tally: Arc<Tally>,
    ) -> Self {
        Self { rows, step, spec, seed, tally, ready: None, duration: None }
    }

    fn fail(&self, problem: &str) -> TraceError {
        TraceError::transform(&self.spec, problem)
    }

    fn run(&mut self) -> Result<Vec<Row>, TraceError> {
        let mut rows = Vec::new();
        while let Some(row) = self.rows.next_row()? {
            rows.push(row);
        }
        self.duration = self.rows.duration();
        match self.step.clone() {
            Step::Map { mode, models } => map(&mut rows, mode, &models),
            Step::Top(k) => self.top(&mut rows, k),
            Step::Superpose { copies, shift } => self.superpose(&mut rows, copies, shift)?,
            Step::Load { load, service } => self.load(&mut rows, load, service)?,
            Step::Refit { window, rate, cv } => rows = self.refit(&rows, window, rate, cv)?,
            _ => {}
        }
        rows.sort_by_key(|row| row.arrival);
        Ok(rows)
    }

    fn top(&self, rows: &mut Vec<Row>, k: usize) {
        let kept: Vec<Arc<str>> = by_volume(rows).into_iter().take(k).collect();
        let before = rows.len();
        rows.retain(|row| kept.contains(&row.tenant));
        self.tally.drop_rows("top", (before - rows.len()) as u64);
    }

    /// Copies wrap round at the end of the trace, so that its rate is the same everywhere.
    fn superpose(&self, rows: &mut Vec<Row>, k: u32, shift: Nanos) -> Result<(), TraceError> {
        let Some(duration) = self.duration.filter(|d| d.0 > 0) else { return Ok(()) };
        if rows.len().saturating_mul(k as usize) > 1 << 32 {
            return Err(self.fail("makes over 4 billion rows"));
        }
        let original = rows.len();
        for copy in 1..u64::from(k) {
            let offset = (u128::from(copy) * u128::from(shift.0) % u128::from(duration.0)) as u64;
            if offset == 0 {
                let problem =
                    format!("copy {copy} is shifted by a multiple of the trace's {duration}");
                return Err(self.fail(&problem));
            }
            for i in 0..original {
                let mut row = rows[i].clone();
                let at = u128::from(row.arrival.0) + u128::from(offset);
                row.arrival = Nanos((at % u128::from(duration.0)) as u64);
                rows.push(row);
            }
        }
        self.tally.add_rows("superpose", (rows.len() - original) as u64);
        Ok(())
    }

    /// Time × Σ(service × work) / (load × duration).
    fn load(
        &mut self,
        rows: &mut [Row],
        load: (u64, u64),
        service: Nanos,
    ) -> Result<(), TraceError> {
        let duration = self.duration.unwrap_or(Nanos::ZERO);
        let busy: f64 = rows.iter().map(|row| f64::from(row.work) * service.0 as f64).sum();
        if rows.is_empty() || duration.0 == 0 {
            return Ok(());
        }
        let too_long = || self.fail("the trace gets longer than 584 years");
        if busy >= 1e19 || busy.is_nan() {
            return Err(too_long());
        }
        // Both sides fit 128 bits: 64 of busy time and at most 40 of the decimals of the load.
        let by = u128::from(busy as u64) * u128::from(load.1);
        let over = u128::from(duration.0) * u128::from(load.0);
        let common = gcd(by, over).max(1);
        let (by, over) = (by / common, (over / common).max(1));
        let scale = |ns: u64| {
            scaled(ns, by, over).or_else(|| {
                let wide = ns as f64 * (by as f64 / over as f64);
                (wide < 1.8e19).then_some(wide as u64)
            })
        };
        for row in rows.iter_mut() {
            row.arrival = Nanos(scale(row.arrival.0).ok_or_else(too_long)?);
        }
        let last = rows.last().map_or(0, |row| row.arrival.0);
        let end = scale(duration.0).ok_or_else(too_long)?;
        self.duration = Some(Nanos(end.max(last.saturating_add(1))));
        Ok(())
    }

    /// Redraws every tenant's arrivals per window with gamma gaps of the window's rate and
    /// variation, both scaled; the rows' other values are taken in turn from the window. The rest
    /// of a gap is carried into the next window.
    fn refit(
        &self,
        rows: &[Row],
        window: Nanos,
        rate: f64,
        cv: f64,
    ) -> Result<Vec<Row>, TraceError> {
        let mut tenants: BTreeMap<Arc<str>, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            tenants.entry(Arc::clone(&row.tenant)).or_default().push(row);
        }
        let duration = self.duration.unwrap_or(Nanos::ZERO);
        let mut out = Vec::new();
        for (tenant, rows) in &tenants {
            let mut rng = Rng::for_names(self.seed, &[tenant, "refit"]);
            let mut left: Option<f64> = None;
            for group in rows.chunk_by(|a, b| a.arrival.0 / window.0 == b.arrival.0 / window.0) {
                let start = group[0].arrival.0 / window.0 * window.0;
                let end = start.saturating_add(window.0).min(duration.0);
                let expected = group.len() as f64 * rate;
                let gap = Gap::gamma_cv((gap_cv(group) * cv).min(1000.0));
                let mut at = left.unwrap_or_else(|| gap.draw(&mut rng));
                let mut index = 0;
                while at < expected {
                    let mut row = group[index % group.len()].clone();
                    let offset = at / expected * (end - start) as f64;
                    row.arrival = Nanos((start + offset as u64).min(end.saturating_sub(1)));
                    out.push(row);
                    index += 1;
                    at += gap.draw(&mut rng);
                }
                left = Some(at - expected);
            }
        }
        self.tally.drop_rows("refit", rows.len() as u64);
        self.tally.add_rows("refit", out.len() as u64);
        Ok(out)
    }
}

impl Source for Whole {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        if self.ready.is_none() {
            self.ready = Some(self.run()?.into_iter());
        }
        Ok(self.ready.as_mut().and_then(Iterator::next))
    }

    fn duration(&self) -> Option<Nanos> {
        self.duration
    }
}

/// Tenants by falling number of requests; equal ones in order of their names.
fn by_volume(rows: &[Row]) -> Vec<Arc<str>> {
    let mut counts: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for row in rows {
        *counts.entry(Arc::clone(&row.tenant)).or_default() += 1;
    }
    let mut tenants: Vec<_> = counts.into_iter().collect();
    tenants.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    tenants.into_iter().map(|(tenant, _)| tenant).collect()
}

fn in_order(rows: &[Row]) -> Vec<Arc<str>> {
    let mut seen = std::collections::BTreeSet::new();
    let new = |row: &&Row| seen.insert(Arc::clone(&row.tenant));
    rows.iter().filter(new).map(|row| Arc::clone(&row.tenant)).collect()
}

fn map(rows: &mut [Row], mode: MapMode, models: &[String]) {
    let models: Vec<Arc<str>> = models.iter().map(|m| Arc::from(m.as_str())).collect();
    let n = models.len();
    let tenants = if mode == MapMode::Rank { by_volume(rows) } else { in_order(rows) };
    let count = tenants.len();
    let index: BTreeMap<Arc<str>, usize> =
        tenants.into_iter().enumerate().map(|(i, tenant)| (tenant, i)).collect();
    for row in rows {
        let i = index[&row.tenant];
        let model = if mode == MapMode::Rank { i % n } else { n * i / count };
        row.model = Arc::clone(&models[model]);
    }
}

/// Coefficient of variation of the gaps; 1 where there are too few to tell.
fn gap_cv(rows: &[&Row]) -> f64 {
    let gaps: Vec<f64> =
        rows.windows(2).map(|w| w[1].arrival.since(w[0].arrival).0 as f64).collect();
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    if gaps.len() < 2 || mean <= 0.0 {
        return 1.0;
    }
    let variance = gaps.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / (n - 1.0);
    libm::sqrt(variance) / mean
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
