//! An evaluation is a cell of an ordinary experiment: one candidate under one seed, for some duration and
//! load. Its result and its name are those that `cotenant run` gives to that experiment.

use cotenant_deploy::{Sharing, TimeSlice};
use cotenant_profiles::Nanos;
use cotenant_sim::policy::{self, Options, Value};

use super::cells::Finished;
use super::goal::Got;
use super::lab::{Candidate, How, Lab};
use crate::config::{Experiment, Point, PolicyRow, Slo, TenantConfig};
use crate::loads::{part, scaled};
use crate::plan::{self, Cell};
use crate::prepare::Prepared;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// In the order of the candidate's tenants.
    pub(crate) got: Vec<Got>,
    pub(crate) watts: f64,
    pub(crate) cu_utilization: f64,
    pub(crate) events: u64,
}

/// How a candidate is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct For {
    pub(crate) seed: u64,
    /// Measured time; a tenth of it comes before, as warm-up.
    pub(crate) duration: Nanos,
    /// Multiplies the rates.
    pub(crate) load: f64,
}

impl Lab {
    /// Simulates a candidate, or looks its result up if it was simulated before. Equal arguments give equal
    /// results; the arrivals of a tenant depend only on the seed, so that candidates are compared on the same
    /// requests.
    ///
    /// # Errors
    /// The device does not support it, the models do not fit, or a stop was requested.
    pub(crate) fn run(&self, c: &Candidate, how: For) -> Result<Run, String> {
        let e = self.experiment(c, how)?;
        let meaning = self.meaning(c, &e.point)?;
        let cell = plan::cell(&e, &meaning, 0);
        // Setups are large: each is dropped after its run.
        let finished = self.cells.finished(&e, &cell, || {
            Ok(Prepared {
                setup: self.prepare(c)?,
                contention: self.facts.contention,
                alone_rps: self.by_name(c).iter().map(|&i| self.alone_rps(c, i)).collect(),
                meaning: String::new(),
                gpus: vec![],
            })
        })?;
        self.run_of(c, &finished)
    }

    /// The run that a finished cell of a candidate describes.
    pub(super) fn run_of(&self, c: &Candidate, finished: &Finished) -> Result<Run, String> {
        if !cotenant_results::columns::has_numbers(&finished.status) {
            return Err(finished.status.clone());
        }
        let of = |name: String| finished.tenants.iter().find(|(n, _)| *n == name).map(|(_, g)| *g);
        let got: Option<Vec<Got>> = self.names(c).into_iter().map(of).collect();
        Ok(Run {
            got: got.ok_or("a cell without one of its tenants")?,
            watts: finished.watts,
            cu_utilization: finished.cu_utilization,
            events: finished.events,
        })
    }

    fn alone_rps(&self, c: &Candidate, i: usize) -> Option<f64> {
        self.isolated[c.tenants[i]].map(|alone| alone.rps)
    }

    /// The experiment of an evaluation.
    pub(super) fn experiment(&self, c: &Candidate, how: For) -> Result<Experiment, String> {
        let point = self.point(c, how)?;
        Ok(Experiment::alone("advise", self.mix.e.base.clone(), how.seed, point))
    }

    fn point(&self, c: &Candidate, how: For) -> Result<Point, String> {
        let mix = &self.mix.point;
        let names = self.names(c);
        let tenants = self.by_name(c).into_iter().map(|i| {
            let whole = &mix.tenants[c.tenants[i]];
            let loaded = if how.load == 1.0 { None } else { scaled(&whole.arrivals, how.load) };
            TenantConfig {
                name: names[i].clone(),
                place: i,
                arrivals: part(loaded.as_ref().unwrap_or(&whole.arrivals), c.requests[i]),
                slo: match (whole.slo, self.facts.slos[c.tenants[i]]) {
                    (Some(Slo::Isolated(_)), Some(slo)) => Some(Slo::Absolute(slo)),
                    (slo, _) => slo,
                },
                workers: c.workers[i],
                batch_max: c.batch[i],
                batch_timeout: c.timeout[i],
                engine: self.engine(c, i),
                gpus: None,
                ..whole.clone()
            }
        });
        Ok(Point {
            values: vec![],
            duration: how.duration,
            warmup: Nanos(how.duration.0 / 10),
            series: None,
            tenants: tenants.collect(),
            policies: vec![self.policy(c)?],
            fleet: None,
            ..mix.clone()
        })
    }

    /// Canonical text of everything that decides a candidate's cells, except policy and seed.
    pub(super) fn meaning(&self, c: &Candidate, point: &Point) -> Result<String, String> {
        let mut tenants = vec![];
        for i in self.by_name(c) {
            let t = c.tenants[i];
            let digest = self.engine(c, i).map(|engine| {
                let config = &self.mix.point.tenants[t];
                let (base, device) = (&self.mix.e.base, &self.mix.point.device);
                crate::generate::digest(base, config, &engine, device, &self.mix.point.profiles)
            });
            tenants.push((t, digest.transpose()?));
        }
        self.facts.meaning_of(point, &tenants)
    }

    /// The policy that implements a candidate.
    fn policy(&self, c: &Candidate) -> Result<PolicyRow, String> {
        let (name, options) = self.options(c);
        let info = policy::find(name).ok_or_else(|| format!("no policy `{name}`"))?;
        let (label, options_text) = (name.to_owned(), String::new());
        Ok(PolicyRow { label, info, options: Options(options), options_text })
    }

    /// The name of its policy, and the options; options per tenant are sorted by tenant name.
    pub(super) fn options(&self, c: &Candidate) -> (&'static str, Vec<(String, Value)>) {
        let names = self.names(c);
        let each = |numbers: Vec<f64>| {
            let mut table: Vec<(String, f64)> = names.iter().cloned().zip(numbers).collect();
            table.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Table(table)
        };
        let shares = |list: &[u32]| {
            ("shares".to_owned(), each(list.iter().map(|&n| f64::from(n)).collect()))
        };
        match &c.how {
            How::Needs(policy) => (policy, vec![]),
            How::Deploy(Sharing::TimeSlicing { slice: TimeSlice::Default }) => ("temporal", vec![]),
            How::Deploy(Sharing::TimeSlicing { slice }) => {
                let interval = Value::Text(slice.word().to_owned());
                ("temporal", vec![("interval".to_owned(), interval)])
            }
            How::Deploy(Sharing::Streams) => ("streams", vec![]),
            How::Deploy(Sharing::Mps { percent }) if percent.iter().all(|&p| p >= 100) => {
                ("mps", vec![])
            }
            How::Deploy(Sharing::Mps { percent }) => ("mps-percent", vec![shares(percent)]),
            How::Deploy(Sharing::Static { chunks }) => {
                let all = self.setup.device.mps.map_or(1, |m| m.chunks.max(1));
                let share = |&c: &u32| 100.0 * f64::from(c) / f64::from(all);
                let value = each(chunks.iter().map(share).collect());
                ("mps-static", vec![("shares".to_owned(), value)])
            }
            How::Deploy(Sharing::Mig { instances, place, percent }) => {
                let place = each(place.iter().map(|&p| p as f64).collect());
                let mut list = vec![
                    ("instances".to_owned(), Value::Texts(instances.clone())),
                    ("place".to_owned(), place),
                ];
                if percent.iter().any(|&p| p < 100) {
                    list.push(shares(percent));
                }
                ("mig", list)
            }
        }
    }

    /// The name of an evaluation's cell in an experiment that has the evaluation as one of its points.
    pub(super) fn cell_in(
        &self,
        c: &Candidate,
        how: For,
        e: &Experiment,
        number: usize,
    ) -> Result<Cell, String> {
        let point = self.point(c, how)?;
        Ok(plan::cell(e, &self.meaning(c, &point)?, number))
    }
}
