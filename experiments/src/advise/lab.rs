//! Where candidates are tried: models compiled once, and the goals and baselines of a mix.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cotenant_deploy::Sharing;
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::Class;
use cotenant_sim::engine::KvSize;
use cotenant_sim::program::ModelCode;
use cotenant_sim::scenario::{Generates, Setup, Tenant};
use cotenant_traces::Request;

use super::cells::Cells;
use super::goal::Goal;
use super::mix::{LARGEST_BATCH, Mix};
use crate::config::{EngineConfig, Slo, TenantConfig};
use crate::isolated::Isolated;
use crate::prepare::{Facts, Preparer};

/// The tenants that use the GPU, and how it is divided: one point of the search. Lists are in the order of
/// `tenants`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Indices into the mix.
    pub(crate) tenants: Vec<usize>,
    /// Share of each tenant's requests.
    pub(crate) requests: Vec<f64>,
    pub(crate) how: How,
    /// Largest batch; for an engine, most sequences.
    pub(crate) batch: Vec<u32>,
    /// Most tokens of an engine's step; 0 without an engine.
    pub(crate) tokens: Vec<u32>,
    /// Share of the memory of its GPU or instance that an engine takes; `None` for what the others leave.
    pub(crate) memory: Vec<Option<f64>>,
    pub(crate) timeout: Vec<Nanos>,
    pub(crate) workers: Vec<u32>,
}

/// How the GPU is shared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum How {
    /// By settings that can be deployed.
    Deploy(Sharing),
    /// By a policy that needs additional software.
    Needs(&'static str),
}

/// Setups by the sequences and step tokens of each tenant's engine.
type Engines = BTreeMap<Vec<(u32, u32)>, Arc<Setup>>;

/// Share of the memory that a framework uses; the rest is for the driver, fragmentation and graphs. vLLM's
/// default.
pub(super) const MOST_MEMORY: f64 = 0.92;

/// Models, goals and baselines of a mix.
pub(crate) struct Lab {
    pub(crate) mix: Mix,
    /// Every tenant compiled up to its largest batch.
    pub(crate) setup: Arc<Setup>,
    pub(super) facts: Facts,
    pub(crate) isolated: Vec<Option<Isolated>>,
    /// Where each tenant's numbers come from: `measured`, `imported` or `analytic`, and in words.
    pub(crate) sources: Vec<(&'static str, String)>,
    /// Largest batch of each tenant.
    pub(crate) batch_limit: Vec<u32>,
    /// Mean tokens of the prompt and the output of a tenant that generates tokens.
    pub(crate) tokens: Vec<(f64, f64)>,
    /// The mix compiled with other engine settings, by sequences and tokens of each tenant.
    engines: Mutex<Engines>,
    /// Models for smaller batches, by tenant and batch.
    smaller: Mutex<BTreeMap<(usize, u32), ModelCode>>,
    /// Finished simulations.
    pub(crate) cells: Arc<Cells>,
}

impl Lab {
    /// Compiles the models of a mix. If a profile has no batches as large as the search would try, the search
    /// is limited to those that it has.
    ///
    /// # Errors
    /// A model that cannot be found, or a trace that cannot be read.
    pub(crate) fn new(mix: Mix, cells: Arc<Cells>) -> Result<Self, String> {
        Self::up_to(mix, 1, cells)
    }

    /// As [`Lab::new`], with every model compiled at least up to batches of `least`.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub(crate) fn up_to(mix: Mix, least: u32, cells: Arc<Cells>) -> Result<Self, String> {
        let mut preparer = Preparer::default();
        let mut largest = LARGEST_BATCH.max(least);
        let (point, facts) = loop {
            let mut point = mix.point.clone();
            for (t, fixed) in point.tenants.iter_mut().zip(&mix.fixed_batch) {
                // An engine's sequences are set separately.
                if t.engine.is_none() {
                    t.batch_max = if *fixed { t.batch_max.max(least) } else { largest };
                }
            }
            match preparer.facts(&mix.e, &point) {
                Ok(facts) => break (point, facts),
                Err(why) if largest <= least || !why.contains("profiled up to batch") => {
                    return Err(mix.as_given(&why));
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
        let tokens = point.tenants.iter().map(|t| match t.engine {
            Some(_) => mean_tokens(&mix.e.base, t),
            None => Ok((0.0, 0.0)),
        });
        let tokens = tokens.collect::<Result<Vec<_>, String>>()?;
        let batch_limit = point.tenants.iter().map(|t| t.batch_max).collect();
        Ok(Self {
            mix,
            setup: ready.setup,
            isolated: facts.isolated.clone(),
            facts,
            sources,
            batch_limit,
            tokens,
            engines: Mutex::default(),
            smaller: Mutex::default(),
            cells,
        })
    }

    /// A one-shot tenant's model for batches of at most `batch`.
    fn smaller(&self, tenant: usize, batch: u32) -> ModelCode {
        let mut known = self.smaller.lock().unwrap_or_else(PoisonError::into_inner);
        let model = known.entry((tenant, batch));
        model.or_insert_with(|| truncated(&self.setup.tenants[tenant].model, batch)).clone()
    }

    /// All tenants of the mix.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.setup.tenants.len()).collect()
    }

    /// A tenant's goal.
    pub(crate) fn goal(&self, tenant: usize) -> Option<Goal> {
        if self.best_effort(tenant) {
            return None;
        }
        match self.mix.point.tenants[tenant].slo? {
            Slo::Tokens(goals) => Some(Goal::Tokens(goals)),
            _ => self.setup.tenants[tenant].slo.map(Goal::Latency),
        }
    }

    /// A tenant's goal for whole answers.
    pub(crate) fn slo(&self, tenant: usize) -> Option<Nanos> {
        match self.goal(tenant) {
            Some(Goal::Latency(slo)) => Some(slo),
            _ => None,
        }
    }

    pub(crate) fn best_effort(&self, tenant: usize) -> bool {
        self.setup.tenants[tenant].class == Class::BestEffort
    }

    pub(crate) fn name(&self, tenant: usize) -> &str {
        &self.setup.tenants[tenant].name
    }

    /// Whether it generates tokens.
    pub(crate) fn generates(&self, tenant: usize) -> bool {
        self.mix.point.tenants[tenant].engine.is_some()
    }

    /// Device memory of one worker of a one-shot tenant, without its context.
    pub(crate) fn model_memory(&self, tenant: usize, batch: u32) -> Bytes {
        self.smaller(tenant, batch).memory()
    }

    /// Device memory of the context of each of a candidate's processes.
    pub(crate) fn context(&self, how: &How) -> Bytes {
        match how {
            How::Deploy(Sharing::TimeSlicing { .. }) => self.setup.costs.context_memory,
            How::Deploy(Sharing::Streams) => Bytes(0),
            _ => self.setup.client_memory(),
        }
    }

    /// Device memory of one worker of a candidate without its context and cache: weights and activations.
    pub(crate) fn parts(&self, c: &Candidate, i: usize) -> (Bytes, Bytes) {
        let t = c.tenants[i];
        match self.with_engines(c) {
            Ok(setup) if self.generates(t) => {
                let model = &setup.tenants[t].model;
                (model.weights, Bytes(model.memory().0 - model.weights.0))
            }
            _ => {
                let model = &self.setup.tenants[t].model;
                let batch = u64::from(c.batch[i]);
                (model.weights, Bytes(model.activations_per_item.0 * batch))
            }
        }
    }

    /// Device memory of the cache of one worker; 0 for a one-shot tenant.
    pub(crate) fn cache(&self, c: &Candidate, i: usize) -> Bytes {
        match self.engine(c, i).map(|e| e.kv) {
            None => Bytes(0),
            Some(KvSize::Bytes(kv)) => kv,
            Some(KvSize::Fraction(share)) => {
                let (weights, activations) = self.parts(c, i);
                let rest = weights.0 + activations.0 + self.context(&c.how).0;
                Bytes(((self.capacity(c, i).0 as f64 * share) as u64).saturating_sub(rest))
            }
        }
    }

    /// Memory of the GPU or instance that holds a candidate's tenant.
    pub(crate) fn capacity(&self, c: &Candidate, i: usize) -> Bytes {
        let device = &self.setup.device;
        let instance = match &c.how {
            How::Deploy(Sharing::Mig { instances, place, .. }) => instances.get(place[i]),
            _ => None,
        };
        let profile = instance.and_then(|name| {
            let (_, profile) = device.mig.as_ref()?.profile(name).ok()?;
            Some(profile.capacity)
        });
        profile.unwrap_or(device.memory.capacity)
    }

    /// Whether two tenants of a candidate share memory.
    pub(super) fn together(c: &Candidate, i: usize, j: usize) -> bool {
        match &c.how {
            How::Deploy(Sharing::Mig { place, .. }) => place[i] == place[j],
            _ => true,
        }
    }

    /// The engine of a candidate's tenant.
    pub(crate) fn engine(&self, c: &Candidate, i: usize) -> Option<EngineConfig> {
        let t = c.tenants[i];
        let own = self.mix.point.tenants[t].engine?;
        let kv = match c.memory[i] {
            Some(share) => KvSize::Fraction(share),
            None if self.mix.fixed_engine[t].memory => own.kv,
            None => KvSize::Fraction(self.left(c, i)),
        };
        Some(EngineConfig { max_seqs: c.batch[i], max_batched_tokens: c.tokens[i], kv, ..own })
    }

    /// The share of the memory that an engine may take: what the others on its GPU or instance leave, divided
    /// evenly among the caches there, in hundredths.
    fn left(&self, c: &Candidate, i: usize) -> f64 {
        let total = self.capacity(c, i).0 as f64;
        let context = self.context(&c.how).0;
        let need = |j: usize| {
            let (weights, activations) = self.parts(c, j);
            (weights.0 + activations.0 + context) as f64
        };
        let (mut taken, mut caches) = (0.0, 0.0);
        for j in (0..c.tenants.len()).filter(|&j| Self::together(c, i, j)) {
            let t = c.tenants[j];
            let workers = f64::from(c.workers[j]);
            let given = self.mix.fixed_engine[t].memory || c.memory[j].is_some();
            let kv = match self.mix.point.tenants[t].engine.map(|e| (e.kv, c.memory[j])) {
                Some((KvSize::Fraction(share), None)) | Some((_, Some(share))) if given => {
                    (total * share - need(j)).max(0.0)
                }
                Some((KvSize::Bytes(kv), None)) if given => kv.0 as f64,
                Some(_) => {
                    caches += workers;
                    0.0
                }
                None => 0.0,
            };
            taken += (need(j) + kv) * workers;
        }
        let cache = ((total * MOST_MEMORY - taken) / f64::max(caches, 1.0)).max(0.0);
        let share = (need(i) + cache) / total;
        // Rounded down, but not below what the model needs: the simulator decides whether that fits.
        let hundredths = (share * 100.0).floor().max((need(i) / total * 100.0).ceil());
        (hundredths / 100.0).clamp(0.01, 1.0)
    }

    /// The mix compiled with a candidate's engine settings.
    fn with_engines(&self, c: &Candidate) -> Result<Arc<Setup>, String> {
        let mut key = vec![(0, 0); self.setup.tenants.len()];
        let mut same = true;
        for (t, tenant) in self.mix.point.tenants.iter().enumerate() {
            let Some(own) = tenant.engine else { continue };
            let i = c.tenants.iter().position(|&x| x == t);
            key[t] =
                i.map_or((own.max_seqs, own.max_batched_tokens), |i| (c.batch[i], c.tokens[i]));
            same &= key[t] == (own.max_seqs, own.max_batched_tokens);
        }
        if same {
            return Ok(self.setup.clone());
        }
        let known = || self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(setup) = known().get(&key) {
            return Ok(setup.clone());
        }
        let mut point = self.mix.point.clone();
        for (t, tenant) in point.tenants.iter_mut().enumerate() {
            tenant.batch_max = self.batch_limit[t];
            if let Some(engine) = &mut tenant.engine {
                (engine.max_seqs, engine.max_batched_tokens) = key[t];
                tenant.batch_max = engine.max_seqs;
            }
        }
        let setup = self.facts.compile(&self.mix.e.base, &point)?.setup;
        known().insert(key, setup.clone());
        Ok(setup)
    }

    /// Names of a candidate's tenants on its GPU: a tenant with several parts there has a name for each.
    pub(crate) fn names(&self, c: &Candidate) -> Vec<String> {
        let before = |i: usize| c.tenants[..i].iter().filter(|&&t| t == c.tenants[i]).count();
        let name = |i: usize| match before(i) {
            0 => self.name(c.tenants[i]).to_owned(),
            n => format!("{}-{}", self.name(c.tenants[i]), n + 1),
        };
        (0..c.tenants.len()).map(name).collect()
    }

    /// A candidate's tenants in the order in which they are simulated: sorted by name.
    pub(super) fn by_name(&self, c: &Candidate) -> Vec<usize> {
        let names = self.names(c);
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|&a, &b| names[a].cmp(&names[b]));
        order
    }

    /// The setup of a candidate.
    ///
    /// # Errors
    /// An engine setting that does not compile.
    pub(crate) fn prepare(&self, c: &Candidate) -> Result<Arc<Setup>, String> {
        let all = self.with_engines(c)?;
        let own = Arc::ptr_eq(&all, &self.setup);
        let names = self.names(c);
        let tenants = self.by_name(c).into_iter().map(|i| {
            let whole = &all.tenants[c.tenants[i]];
            let engine = self.engine(c, i);
            let generates = whole.generates.as_ref().zip(engine).map(|(g, engine)| {
                let mut own = Generates::clone(g);
                own.rules.kv = engine.kv;
                Arc::new(own)
            });
            Tenant {
                name: names[i].clone(),
                model: match engine {
                    Some(_) => whole.model.clone(),
                    None if own => self.smaller(c.tenants[i], c.batch[i]),
                    // Next to other engines, kernels have other numbers.
                    None => truncated(&whole.model, c.batch[i]),
                },
                class: whole.class,
                slo: whole.slo,
                workers: c.workers[i],
                batch_max: c.batch[i],
                batch_timeout: c.timeout[i],
                generates,
                per_request_batches: whole.per_request_batches,
                drop_after: whole.drop_after,
            }
        });
        Ok(Arc::new(Setup {
            device: all.device.clone(),
            costs: all.costs.clone(),
            code: all.code.clone(),
            tenants: tenants.collect(),
        }))
    }
}

/// Mean tokens of a tenant's first requests; an output has at least one.
fn mean_tokens(base: &std::path::Path, config: &TenantConfig) -> Result<(f64, f64), String> {
    let requests = crate::prepare::first_requests(base, config)?;
    let n = requests.len().max(1) as f64;
    let mean = |of: fn(&Request) -> u32| requests.iter().map(|r| f64::from(of(r))).sum::<f64>() / n;
    Ok((mean(|r| r.tokens_in), mean(|r| r.tokens_out).max(1.0)))
}

/// The model for batches of at most `batch`.
fn truncated(model: &ModelCode, batch: u32) -> ModelCode {
    let mut cut = model.clone();
    cut.program_for.truncate(batch as usize + 1);
    let programs = cut.program_for.last().map_or(0, |&last| last as usize + 1);
    if programs < cut.programs.len() {
        cut.programs = Arc::new(cut.programs[..programs].to_vec());
    }
    cut
}
