//! Where candidates are tried: models compiled once, then one simulation per candidate and seed.

use std::sync::Arc;

use cotenant_deploy::{Sharing, TimeSlice};
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{self, Options, Value};
use cotenant_sim::program::ModelCode;
use cotenant_sim::scenario::{Setup, Tenant, Think};
use cotenant_sim::{Class, Load, Scenario};
use cotenant_traces::{Arrivals, Request, Rng};

use super::mix::{LARGEST_BATCH, Mix};
use crate::ends::Ends;
use crate::isolated::Isolated;
use crate::jitter::LogNormal;
use crate::prepare::Preparer;

/// Who uses the GPU, and how it is divided: one point of the search. Lists are in the order of
/// `tenants`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Indices into the mix.
    pub(crate) tenants: Vec<usize>,
    /// Share of each tenant's requests.
    pub(crate) requests: Vec<f64>,
    pub(crate) how: How,
    pub(crate) batch: Vec<u32>,
    pub(crate) timeout: Vec<Nanos>,
    pub(crate) workers: Vec<u32>,
}

/// How the GPU is shared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum How {
    /// By settings that deploy.
    Deploy(Sharing),
    /// By a policy that needs software of its own.
    Needs(&'static str),
}

/// What one tenant got in one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Got {
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Share of its requests within the goal; `None` without goal.
    pub(crate) attained: Option<f64>,
    /// Requests that were seen: ended, or late already.
    pub(crate) seen: u64,
    /// More came than were served, to the end: its goal is missed sooner or later.
    pub(crate) overloaded: bool,
    pub(crate) rps: f64,
    pub(crate) goodput_rps: f64,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) got: Vec<Got>,
    pub(crate) watts: f64,
    pub(crate) cu_utilization: f64,
    pub(crate) events: u64,
}

/// Batches of each worker that are looked at, after those that fill the place.
const SATURATED_BATCHES: u64 = 8;
const SATURATED_BEFORE: u64 = 2;
/// A place in which they take longer serves nobody.
const SATURATED_AT_MOST: Nanos = Nanos(600_000_000_000);

/// What a tenant comes to in a place of its own where it never waits for requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Saturated {
    /// Requests/s of all its workers.
    pub(crate) rps: f64,
    /// Time of a batch.
    pub(crate) batch: Nanos,
}

/// Models, goals and baselines of a mix.
pub(crate) struct Lab {
    pub(crate) mix: Mix,
    /// Every tenant compiled up to its largest batch.
    pub(crate) setup: Arc<Setup>,
    contention: ContentionModel,
    pub(crate) isolated: Vec<Option<Isolated>>,
    /// Where each tenant's numbers come from: `measured`, `imported` or `analytic`, and in words.
    pub(crate) sources: Vec<(&'static str, String)>,
    /// Largest batch of each tenant.
    pub(crate) batch_limit: Vec<u32>,
}

impl Lab {
    /// Compiles the models of a mix. Where a profile holds no batches as large as the search would
    /// try, it is cut down to those that it has.
    ///
    /// # Errors
    /// A model that is not to be found, or a trace that does not read.
    pub(crate) fn new(mix: Mix) -> Result<Self, String> {
        Self::up_to(mix, 1)
    }

    /// As [`Lab::new`], with every model compiled at least up to batches of `least`.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub(crate) fn up_to(mix: Mix, least: u32) -> Result<Self, String> {
        let mut preparer = Preparer::default();
        let mut largest = LARGEST_BATCH.max(least);
        let (point, facts) = loop {
            let mut point = mix.point.clone();
            for (t, fixed) in point.tenants.iter_mut().zip(&mix.fixed_batch) {
                t.batch_max = if *fixed { t.batch_max.max(least) } else { largest };
            }
            match preparer.facts(&mix.e, &point) {
                Ok(facts) => break (point, facts),
                Err(why) if largest <= least || !why.contains("profiled up to batch") => {
                    return Err(why);
                }
                Err(_) => largest /= 2,
            }
        };
        let ready = facts.compile(&mix.e.base, &point)?;
        let sources = facts
            .profiles
            .iter()
            .map(|f| (crate::models::source_name(f.profile.source), f.words.clone()))
            .collect();
        let batch_limit = point.tenants.iter().map(|t| t.batch_max).collect();
        Ok(Self {
            mix,
            setup: ready.setup,
            contention: ready.contention,
            isolated: facts.isolated,
            sources,
            batch_limit,
        })
    }

    /// All tenants of the mix.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.setup.tenants.len()).collect()
    }

    /// A tenant's goal.
    pub(crate) fn slo(&self, tenant: usize) -> Option<Nanos> {
        self.setup.tenants[tenant].slo.filter(|_| !self.best_effort(tenant))
    }

    pub(crate) fn best_effort(&self, tenant: usize) -> bool {
        self.setup.tenants[tenant].class == Class::BestEffort
    }

    pub(crate) fn name(&self, tenant: usize) -> &str {
        &self.setup.tenants[tenant].name
    }

    /// Device memory of one worker of a tenant, its context not included.
    pub(crate) fn model_memory(&self, tenant: usize, batch: u32) -> Bytes {
        truncated(&self.setup.tenants[tenant].model, batch).memory()
    }

    /// Device memory of the context that a candidate's processes have.
    pub(crate) fn context(&self, how: &How) -> Bytes {
        match how {
            How::Deploy(Sharing::TimeSlicing { .. }) => self.setup.costs.context_memory,
            How::Deploy(Sharing::Streams) => Bytes(0),
            _ => self.setup.client_memory(),
        }
    }

    /// The setup of a candidate.
    pub(crate) fn prepare(&self, c: &Candidate) -> Arc<Setup> {
        let tenants = c.tenants.iter().enumerate().map(|(i, &t)| {
            let whole = &self.setup.tenants[t];
            Tenant {
                name: whole.name.clone(),
                model: truncated(&whole.model, c.batch[i]),
                class: whole.class,
                slo: whole.slo,
                workers: c.workers[i],
                batch_max: c.batch[i],
                batch_timeout: c.timeout[i],
                generates: whole.generates.clone(),
                per_request_batches: whole.per_request_batches,
                drop_after: whole.drop_after,
            }
        });
        Arc::new(Setup {
            device: self.setup.device.clone(),
            costs: self.setup.costs.clone(),
            code: self.setup.code.clone(),
            tenants: tenants.collect(),
        })
    }

    /// Simulates a candidate for `duration` behind a tenth of it as warm-up. Equal arguments give equal
    /// results; the arrivals of a tenant depend on the seed alone, so that candidates are compared on
    /// the same requests. `load` multiplies the rates.
    ///
    /// # Errors
    /// The device cannot do it, or the models do not fit.
    pub(crate) fn run(
        &self,
        c: &Candidate,
        setup: &Arc<Setup>,
        seed: u64,
        duration: Nanos,
        load: f64,
    ) -> Result<Run, String> {
        let (name, options) = policy_of(c, setup);
        let info = policy::find(name).ok_or_else(|| format!("no policy `{name}`"))?;
        let mut policy = (info.build)(&options).map_err(|e| e.to_string())?;
        let names: Vec<&str> = setup.tenants.iter().map(|t| t.name.as_str()).collect();
        let mut loads = vec![];
        for (i, &t) in c.tenants.iter().enumerate() {
            loads.push(self.load(t, c.requests[i], seed, load)?);
        }
        let scenario = Scenario {
            setup: setup.clone(),
            loads,
            warmup: Nanos(duration.0 / 10),
            duration,
            contention: self.contention,
            jitter: LogNormal::boxed(self.mix.point.jitter, seed, &names),
        };
        let report = cotenant_sim::run(scenario, &mut *policy, None).map_err(|r| r.to_string())?;
        let window = report.window.as_secs_f64();
        let got = report.tenants.iter().map(|t| {
            let quantile = |q| t.counts.latencies.quantile(q).map(Nanos::as_millis_f64);
            Got {
                p50_ms: quantile(0.5),
                p99_ms: quantile(0.99),
                attained: t.attainment(),
                seen: t.counts.completed + t.counts.dropped_total() + t.in_flight_late,
                overloaded: t.overload(report.window).is_some(),
                rps: t.counts.completed as f64 / window,
                goodput_rps: t.counts.good as f64 / window,
            }
        });
        Ok(Run {
            got: got.collect(),
            watts: report.gpu.energy_j / window,
            cu_utilization: report.gpu.cu_utilization,
            events: report.events,
        })
    }

    /// A tenant that has a place to itself and always has a batch to run: what planners call its
    /// profile. `None` where it does not fit, or the device cannot do it.
    pub(crate) fn saturated(
        &self,
        tenant: usize,
        sharing: Sharing,
        batch: u32,
        workers: u32,
    ) -> Option<Saturated> {
        let c = Candidate {
            tenants: vec![tenant],
            requests: vec![1.0],
            how: How::Deploy(sharing),
            batch: vec![batch],
            timeout: vec![Nanos::ZERO],
            workers: vec![workers],
        };
        let setup = self.prepare(&c);
        let (name, options) = policy_of(&c, &setup);
        // A request is a whole batch. So many of them end in order, whatever one takes.
        let requests = u64::from(workers) * (SATURATED_BEFORE + SATURATED_BATCHES);
        let mut ends = Ends::default();
        let scenario = Scenario {
            setup,
            loads: vec![Load::Closed {
                concurrency: workers,
                think: Think::Constant(Nanos::ZERO),
                items: batch,
                tokens: None,
                limit: Some(requests),
            }],
            warmup: Nanos::ZERO,
            duration: SATURATED_AT_MOST,
            contention: self.contention,
            jitter: None,
        };
        let mut policy = (policy::find(name)?.build)(&options).ok()?;
        cotenant_sim::run(scenario, &mut *policy, Some(&mut ends)).ok()?;
        let skip = (u64::from(workers) * SATURATED_BEFORE) as usize;
        let per_batch = ends.gap_ns(skip)?;
        Some(Saturated {
            rps: f64::from(batch) * 1e9 / per_batch,
            // Little's law: so many batches are in it at any time.
            batch: Nanos((per_batch * f64::from(workers)) as u64),
        })
    }

    fn load(&self, tenant: usize, share: f64, seed: u64, factor: f64) -> Result<Load, String> {
        let config = &self.mix.point.tenants[tenant];
        if let Some(closed) = config.arrivals.closed() {
            let think = if closed.exponential {
                Think::Exponential(closed.think, Rng::for_names(seed, &[&config.name, "think"]))
            } else {
                Think::Constant(closed.think)
            };
            let concurrency = (f64::from(closed.concurrency) * share).round().max(1.0) as u32;
            let (items, limit) = (closed.items, closed.max_requests);
            let tokens = config.arrivals.tokens.map(|t| t.draws(seed, &config.name));
            return Ok(Load::Closed { concurrency, think, items, tokens, limit });
        }
        let inner = config.arrivals.open(&self.mix.e.base, seed, &config.name);
        let inner = inner.map_err(|why| format!("{}: {why}", config.arrivals_at))?;
        if share >= 1.0 && factor == 1.0 {
            return Ok(Load::Open(inner));
        }
        Ok(Load::Open(Box::new(Scaled { inner, factor, share, credit: 0.0 })))
    }
}

/// Arrivals at `factor` times the rate, of which every GPU gets its share in turn.
struct Scaled {
    inner: Box<dyn Arrivals>,
    factor: f64,
    share: f64,
    credit: f64,
}

impl Arrivals for Scaled {
    fn next_request(&mut self) -> Option<Request> {
        loop {
            let request = self.inner.next_request()?;
            self.credit += self.share;
            if self.credit >= 1.0 - 1e-9 {
                self.credit -= 1.0;
                let arrival = Nanos((request.arrival.0 as f64 / self.factor) as u64);
                return Some(Request { arrival, ..request });
            }
        }
    }
}

/// The model for batches of at most `batch`.
fn truncated(model: &ModelCode, batch: u32) -> ModelCode {
    let mut cut = model.clone();
    cut.program_for.truncate(batch as usize + 1);
    cut
}

/// The policy that carries a candidate out, and its options.
fn policy_of(c: &Candidate, setup: &Setup) -> (&'static str, Options) {
    let numbers = |list: &[u32]| Value::Numbers(list.iter().map(|&n| f64::from(n)).collect());
    let options = |list: Vec<(&str, Value)>| {
        Options(list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    match &c.how {
        How::Needs(policy) => (policy, Options::default()),
        How::Deploy(Sharing::TimeSlicing { slice: TimeSlice::Default }) => {
            ("temporal", Options::default())
        }
        How::Deploy(Sharing::TimeSlicing { slice }) => {
            ("temporal", options(vec![("interval", Value::Text(slice.word().to_owned()))]))
        }
        How::Deploy(Sharing::Streams) => ("streams", Options::default()),
        How::Deploy(Sharing::Mps { percent }) if percent.iter().all(|&p| p >= 100) => {
            ("mps", Options::default())
        }
        How::Deploy(Sharing::Mps { percent }) => {
            ("mps-percent", options(vec![("shares", numbers(percent))]))
        }
        How::Deploy(Sharing::Static { chunks }) => {
            let all = setup.device.mps.map_or(1, |m| m.chunks.max(1));
            let share = |&c: &u32| 100.0 * f64::from(c) / f64::from(all);
            let shares = Value::Numbers(chunks.iter().map(share).collect());
            ("mps-static", options(vec![("shares", shares)]))
        }
        How::Deploy(Sharing::Mig { instances, place, percent }) => {
            let places = Value::Numbers(place.iter().map(|&p| p as f64).collect());
            let mut list = vec![("instances", Value::Texts(instances.clone())), ("place", places)];
            if percent.iter().any(|&p| p < 100) {
                list.push(("shares", numbers(percent)));
            }
            ("mig", options(list))
        }
    }
}
