//! Turns a checked point of the sweep into the simulator's input: finds and compiles profiles, runs isolated
//! baselines, resolves SLOs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cotenant_profiles::{Device, Nanos};
use cotenant_sim::Class;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::fleet::Gpu;
use cotenant_sim::program::{Code, ModelCode};
use cotenant_sim::scenario::{Setup, Tenant};
use cotenant_traces::Request;

use crate::config::{
    CostMode, EngineConfig, Experiment, FleetConfig, Point, ProfileSource, Slo, TenantConfig,
};
use crate::digest;
use crate::generate;
use crate::isolated::{self, Isolated, Size};
use crate::models::{Found, Library};
use crate::panics::guarded;

/// Everything that the cells of one point share.
pub(crate) struct Prepared {
    pub(crate) setup: Arc<Setup>,
    pub(crate) contention: ContentionModel,
    /// By tenant: requests/s of one worker alone, if it fits.
    pub(crate) alone_rps: Vec<Option<f64>>,
    /// Everything that decides the results of this point's cells, except policy and seed.
    pub(crate) meaning: String,
    /// Each GPU with the tenants that it serves; empty if one GPU, that of `setup`, serves all.
    pub(crate) gpus: Vec<Gpu>,
}

impl Prepared {
    /// Every GPU that serves a tenant: its number if there are several, its setup as policies see it, and for
    /// each of its tenants the index in the point.
    pub(crate) fn each_gpu(&self) -> Vec<(Option<usize>, &Setup, Vec<usize>)> {
        if self.gpus.is_empty() {
            return vec![(None, &self.setup, (0..self.setup.tenants.len()).collect())];
        }
        let served = self.gpus.iter().enumerate().filter(|(_, gpu)| !gpu.tenants.is_empty());
        let tenants = |gpu: &Gpu| gpu.tenants.iter().map(|&t| t as usize).collect();
        served.map(|(g, gpu)| (Some(g), &*gpu.setup, tenants(gpu))).collect()
    }
}

/// What is known about a point before its profiles are compiled: enough to name its cells.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) contention: ContentionModel,
    /// Digest of the device.
    on: Arc<str>,
    /// By tenant: digests of the files of its arrivals.
    files: Vec<Vec<String>>,
    /// By tenant; `None` if it does not fit on the GPU even alone.
    pub(crate) isolated: Vec<Option<Isolated>>,
    pub(crate) profiles: Vec<Found>,
    /// By tenant, resolved.
    pub(crate) slos: Vec<Option<Nanos>>,
    /// By GPU of a fleet, for each tenant that it serves: its number and its profile there.
    gpus: Vec<Vec<(usize, Found)>>,
    pub(crate) meaning: String,
}

/// Prepares points one after another; work that they share is done once.
#[derive(Default)]
pub(crate) struct Preparer {
    library: Library,
    baselines: BTreeMap<String, Option<Isolated>>,
    devices: Vec<(Arc<Device>, Arc<str>)>,
    /// Sizes of requests, by tenant and arrivals.
    sizes: BTreeMap<String, BTreeMap<u32, u64>>,
    files: BTreeMap<PathBuf, String>,
    /// Models of tenants that generate tokens.
    generating: BTreeMap<String, Found>,
    /// Arrivals whose files have been checked, with the run's length.
    readable: BTreeSet<String>,
    /// Remarks on traces, each only once.
    notes: BTreeSet<String>,
}

impl Preparer {
    /// What is known about a point before its profiles are compiled.
    ///
    /// # Errors
    /// A model that cannot be found or is not profiled far enough, a trace that cannot be read.
    pub(crate) fn facts(&mut self, e: &Experiment, point: &Point) -> Result<Facts, String> {
        let device = &point.device;
        let contention = ContentionModel::from_name(point.contention, device)
            .ok_or_else(|| format!("no contention model `{}`", point.contention))?;
        let on = self.device(device);
        let mut facts = Facts {
            contention,
            on: on.clone(),
            files: vec![],
            isolated: vec![],
            profiles: vec![],
            slos: vec![],
            gpus: vec![],
            meaning: String::new(),
        };
        // Errors of several tenants are reported together.
        let mut wrong: Vec<String> = vec![];
        for config in &point.tenants {
            let mut found = match &config.engine {
                Some(engine) => {
                    self.generating(&e.base, (device, &on), config, engine, &point.profiles)
                }
                None => self.library.find(config, device, &on, &point.profiles),
            };
            let mut digests = vec![];
            for file in config.arrivals.files(&e.base) {
                found = found.and_then(|found| {
                    digests.push(self.file(&file, &config.arrivals_at)?);
                    Ok(found)
                });
            }
            facts.files.push(digests);
            let known = found.and_then(|found| {
                let baseline = self.baseline(&e.base, point, config, &found, &on, contention)?;
                Ok((found, baseline))
            });
            match known {
                Ok((found, baseline)) => {
                    facts.slos.push(slo(config, baseline.as_ref()));
                    facts.profiles.push(found);
                    facts.isolated.push(baseline);
                }
                Err(why) => wrong.push(why),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        if let Some(fleet) = &point.fleet {
            facts.gpus = self.on_each_gpu(&e.base, point, fleet)?;
        }
        facts.meaning = self.meaning(&e.base, point, &facts)?;
        Ok(facts)
    }

    /// The profiles of the tenants that each GPU of a fleet serves.
    fn on_each_gpu(
        &mut self,
        base: &Path,
        point: &Point,
        fleet: &FleetConfig,
    ) -> Result<Vec<Vec<(usize, Found)>>, String> {
        let mut gpus = vec![];
        for (g, device) in fleet.devices.iter().enumerate() {
            let on = self.device(device);
            let here = point.tenants.iter().enumerate().filter(|(_, t)| fleet.serves(g, t));
            let find = |(t, config): (usize, &TenantConfig)| {
                let found = match &config.engine {
                    Some(engine) => {
                        self.generating(base, (device, &on), config, engine, &point.profiles)?
                    }
                    None => self.library.find(config, device, &on, &point.profiles)?,
                };
                Ok((t, found))
            };
            gpus.push(here.map(find).collect::<Result<Vec<_>, String>>()?);
        }
        Ok(gpus)
    }

    /// The model of a tenant that generates tokens.
    fn generating(
        &mut self,
        base: &Path,
        (device, on): (&Device, &str),
        config: &TenantConfig,
        engine: &EngineConfig,
        sources: &[ProfileSource],
    ) -> Result<Found, String> {
        let key = format!("{} {} {engine:?} {sources:?} {on}", config.model, config.precision);
        if let Some(found) = self.generating.get(&key) {
            return Ok(found.clone());
        }
        let found = generate::find(base, config, engine, device, sources)?;
        self.generating.insert(key, found.clone());
        Ok(found)
    }

    /// Input files that have been read, with their digests.
    pub(crate) fn files(&self) -> &BTreeMap<PathBuf, String> {
        &self.files
    }

    /// Remarks on the traces that have been read.
    pub(crate) fn notes(&self) -> &BTreeSet<String> {
        &self.notes
    }

    /// Starts with known digests of files.
    pub(crate) fn with_files(files: BTreeMap<PathBuf, String>) -> Self {
        Self { files, ..Self::default() }
    }

    /// The digest of a device, computed once.
    fn device(&mut self, device: &Arc<Device>) -> Arc<str> {
        if let Some((_, digest)) = self.devices.iter().find(|(d, _)| Arc::ptr_eq(d, device)) {
            return digest.clone();
        }
        let digest: Arc<str> = digest::of_device(device).into();
        self.devices.push((device.clone(), digest.clone()));
        digest
    }

    fn baseline(
        &mut self,
        base: &Path,
        point: &Point,
        config: &TenantConfig,
        found: &Found,
        on: &str,
        contention: ContentionModel,
    ) -> Result<Option<Isolated>, String> {
        if config.engine.is_some() {
            return self.generating_baseline(base, point, config, found, on, contention);
        }
        let sizes = self.request_sizes(base, config)?;
        let key = format!(
            "{on} {} {} {} {} {} {} {sizes:?}",
            found.digest,
            config.batch_max,
            config.batch_timeout,
            point.contention,
            point.jitter,
            found.model,
        );
        if let Some(known) = self.baselines.get(&key) {
            return Ok(*known);
        }
        let run = |batch_max: u32| -> Result<Arc<Setup>, String> {
            let mut code = Code::default();
            let alone = TenantConfig {
                workers: 1,
                batch_max,
                per_request_batches: false,
                drop_after: None,
                ..config.clone()
            };
            let device = &*point.device;
            let place = Place { base, device, sources: &point.profiles };
            let tenant = tenant(&mut code, place, &alone, found, slo(config, None))?;
            let device = (*point.device).clone();
            let costs = device.costs.clone();
            Ok(Arc::new(Setup { device, costs, code: code.into(), tenants: vec![tenant] }))
        };
        let full = run(config.batch_max)?;
        let size = |(items, count): (u32, u64)| {
            let setup = run(items.clamp(1, config.batch_max))?;
            Ok(Size { items, count, setup })
        };
        let sizes = sizes.into_iter().map(size).collect::<Result<Vec<_>, String>>()?;
        let measured = guarded(|| isolated::measure(&sizes, &full, contention, point.jitter));
        let isolated = measured.unwrap_or_else(|why| {
            self.notes.insert(format!("{} alone: {why}: this is a bug", config.name));
            None
        });
        self.baselines.insert(key, isolated);
        Ok(isolated)
    }

    /// The baseline of a tenant that generates tokens: its own first requests, one after another, and many at
    /// once.
    fn generating_baseline(
        &mut self,
        base: &Path,
        point: &Point,
        config: &TenantConfig,
        found: &Found,
        on: &str,
        contention: ContentionModel,
    ) -> Result<Option<Isolated>, String> {
        let arrivals = serde_json::to_string(&config.arrivals)
            .map_err(|e| format!("{}: {e}", config.arrivals_at))?;
        let key = format!("{on} {} {arrivals} {} {}", found.digest, point.contention, point.jitter);
        if let Some(known) = self.baselines.get(&key) {
            return Ok(*known);
        }
        let requests = first_requests(base, config)?;
        let mut code = Code::default();
        let alone = TenantConfig { workers: 1, ..config.clone() };
        let place = Place { base, device: &point.device, sources: &point.profiles };
        let tenant = tenant(&mut code, place, &alone, found, slo(config, None))?;
        let device = (*point.device).clone();
        let setup =
            Setup { costs: device.costs.clone(), device, code: code.into(), tenants: vec![tenant] };
        let setup = Arc::new(setup);
        let measured =
            guarded(|| isolated::generating(&setup, &requests, contention, point.jitter));
        let isolated = measured.unwrap_or_else(|why| {
            self.notes.insert(format!("{} alone: {why}: this is a bug", config.name));
            None
        });
        self.baselines.insert(key, isolated);
        Ok(isolated)
    }

    /// The sizes (items) of the tenant's first requests, with their counts: the load of the isolated
    /// baseline.
    fn request_sizes(
        &mut self,
        base: &Path,
        config: &TenantConfig,
    ) -> Result<BTreeMap<u32, u64>, String> {
        if let Some(closed) = config.arrivals.closed() {
            return Ok(BTreeMap::from([(closed.items, isolated::SAMPLES)]));
        }
        let arrivals = serde_json::to_string(&config.arrivals)
            .map_err(|e| format!("{}: {e}", config.arrivals_at))?;
        let key = format!("{} {arrivals}", config.name);
        if let Some(known) = self.sizes.get(&key) {
            return Ok(known.clone());
        }
        let open = config.arrivals.open(base, 1, &config.name);
        let mut open = open.map_err(|e| format!("{}: {e}", config.arrivals_at))?;
        let mut sizes = BTreeMap::new();
        for _ in 0..isolated::SAMPLES {
            let Some(request) = open.next_request() else { break };
            *sizes.entry(request.items.max(1)).or_default() += 1;
        }
        if sizes.is_empty() {
            sizes.insert(1, isolated::SAMPLES);
        }
        self.sizes.insert(key, sizes.clone());
        Ok(sizes)
    }

    /// Canonical text of everything that a point's cells have in common.
    fn meaning(&mut self, base: &Path, point: &Point, facts: &Facts) -> Result<String, String> {
        for config in &point.tenants {
            let arrivals = serde_json::to_string(&config.arrivals)
                .map_err(|e| format!("{}: {e}", config.arrivals_at))?;
            self.readable(base, config, &arrivals, point.warmup + point.duration)?;
        }
        let all: Vec<(usize, Option<String>)> =
            (0..point.tenants.len()).map(|t| (t, None)).collect();
        let mut text = facts.meaning_of(point, &all)?;
        if let Some(fleet) = &point.fleet {
            text += &format!("fleet route {}\n", fleet.route_name());
            for (device, served) in fleet.devices.iter().zip(&facts.gpus) {
                let on = self.device(device);
                let served = served.iter().map(|(t, found)| format!("{t} {}", found.digest));
                text += &format!("gpu {on} serves {}\n", served.collect::<Vec<_>>().join(", "));
            }
            for o in &fleet.outages {
                text += &format!("down gpu {} at {} for {}\n", o.gpu, o.at.0, o.lasts.0);
            }
        }
        Ok(text)
    }

    /// Reads arrivals that come from a file once, so that a bad row is reported as bad input and not as a
    /// failed cell, and a trace without a request in the run is pointed out.
    fn readable(
        &mut self,
        base: &Path,
        config: &TenantConfig,
        arrivals: &str,
        until: Nanos,
    ) -> Result<(), String> {
        if !config.arrivals.files(base).is_empty()
            && self.readable.insert(format!("{} {} {arrivals}", config.name, until.0))
        {
            let notes = config.arrivals.notes(base, 1, &config.name, until);
            let notes = notes.map_err(|e| format!("{}: {e}", config.arrivals_at))?;
            self.notes.extend(notes.into_iter().map(|n| format!("tenant `{}`: {n}", config.name)));
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, at: &str) -> Result<String, String> {
        if let Some(known) = self.files.get(path) {
            return Ok(known.clone());
        }
        let digest =
            digest::of_path(path).map_err(|e| format!("{at}.file: {}: {e}", path.display()))?;
        self.files.insert(path.to_owned(), digest.clone());
        Ok(digest)
    }
}

/// The name of a class in files.
pub(crate) fn class(class: Class) -> &'static str {
    match class {
        Class::Latency => "latency",
        Class::BestEffort => "best-effort",
    }
}

/// The specification without its file name.
fn without_file(json: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(json) {
        Ok(mut value) => {
            if let Some(file) = value.get_mut("file") {
                *file = "".into();
            }
            value.to_string()
        }
        Err(_) => json.to_owned(),
    }
}

impl Facts {
    /// Canonical text of everything that the cells of a point have in common, for a point whose tenants are
    /// some of ours with their own settings; with one GPU, the whole meaning. `tenants` holds the index of
    /// each here, and the digest of its profile if it has a different one.
    ///
    /// # Errors
    /// Arrivals that are not JSON.
    pub(crate) fn meaning_of(
        &self,
        point: &Point,
        tenants: &[(usize, Option<String>)],
    ) -> Result<String, String> {
        let mut text = format!(
            "device {} costs {} contention {} duration {} warmup {} jitter {}\n",
            self.on,
            point.costs.name(),
            point.contention,
            point.duration.0,
            point.warmup.0,
            point.jitter,
        );
        for (config, (t, other)) in point.tenants.iter().zip(tenants) {
            let (found, slo, files) = (&self.profiles[*t], self.slos[*t], &self.files[*t]);
            // Serialised without the file's folder: only its content matters.
            let arrivals = serde_json::to_string(&config.arrivals)
                .map_err(|e| format!("{}: {e}", config.arrivals_at))?;
            text += &format!(
                "tenant {} model {} profile {} arrivals {} files {} slo {} class {} workers {} \
                 batch {} {}\n",
                config.name,
                found.model,
                other.as_ref().unwrap_or(&found.digest),
                if files.is_empty() { arrivals } else { without_file(&arrivals) },
                files.join(","),
                slo.map_or_else(|| "none".to_owned(), |s| format!("{} ns", s.0)),
                class(config.class),
                config.workers,
                config.batch_max,
                config.batch_timeout.0,
            );
            // Only if they are set: cells without them keep their earlier names.
            if config.per_request_batches {
                text += "a batch per request\n";
            }
            if let Some(rule) = config.drop_after {
                let limit = rule.limit.map_or_else(|| "slo".to_owned(), |l| format!("{} ns", l.0));
                text += &format!("drop after {limit} predict {}\n", rule.predict);
            }
            if let Some(Slo::Tokens(goals)) = config.slo {
                text += &format!("goals {} {} ns\n", goals.ttft.0, goals.tpot.0);
            }
        }
        Ok(text)
    }

    /// Compiles the profiles of the point.
    ///
    /// # Errors
    /// As [`Preparer::facts`], which has compiled each profile alone.
    pub(crate) fn compile(&self, base: &Path, point: &Point) -> Result<Prepared, String> {
        let device = &*point.device;
        let mut code = Code::default();
        let mut tenants = vec![];
        for ((config, found), slo) in point.tenants.iter().zip(&self.profiles).zip(&self.slos) {
            let place = Place { base, device, sources: &point.profiles };
            tenants.push(tenant(&mut code, place, config, found, *slo)?);
        }
        let costs = |device: &Device| match point.costs {
            CostMode::Real => device.costs.clone(),
            CostMode::Ideal => device.costs.ideal(),
        };
        let devices = point.fleet.iter().flat_map(|f| &f.devices);
        let mut gpus = vec![];
        for (device, served) in devices.zip(&self.gpus) {
            let (mut code, mut tenants) = (Code::default(), vec![]);
            for (t, found) in served {
                let slo = self.slos[*t];
                let place = Place { base, device, sources: &point.profiles };
                tenants.push(tenant(&mut code, place, &point.tenants[*t], found, slo)?);
            }
            let setup = Setup {
                device: (**device).clone(),
                costs: costs(device),
                code: code.into(),
                tenants,
            };
            let contention = ContentionModel::from_name(point.contention, device)
                .ok_or_else(|| format!("no contention model `{}`", point.contention))?;
            let tenants = served.iter().map(|(t, _)| *t as u32).collect();
            gpus.push(Gpu { setup: Arc::new(setup), tenants, contention });
        }
        Ok(Prepared {
            gpus,
            setup: Arc::new(Setup {
                device: device.clone(),
                costs: costs(device),
                code: code.into(),
                tenants,
            }),
            contention: self.contention,
            alone_rps: self.isolated.iter().map(|i| i.map(|i| i.rps)).collect(),
            meaning: self.meaning.clone(),
        })
    }
}

/// The objective as a time; `None` if it is a multiple of a baseline that does not exist.
fn slo(config: &TenantConfig, isolated: Option<&Isolated>) -> Option<Nanos> {
    match (config.slo?, isolated) {
        (Slo::Absolute(limit), _) => Some(limit),
        (Slo::Isolated(factor), Some(isolated)) => {
            Some(Nanos((isolated.p95.0 as f64 * factor).round() as u64))
        }
        (Slo::Isolated(_), None) | (Slo::Tokens(_), _) => None,
    }
}

/// The device that a tenant's model is compiled for, and where to find files.
#[derive(Clone, Copy)]
struct Place<'a> {
    base: &'a Path,
    device: &'a Device,
    sources: &'a [ProfileSource],
}

fn tenant(
    code: &mut Code,
    place: Place<'_>,
    config: &TenantConfig,
    found: &Found,
    slo: Option<Nanos>,
) -> Result<Tenant, String> {
    let Place { base, device, sources } = place;
    let (model, generates) = match &config.engine {
        Some(engine) => {
            let (model, generates) =
                generate::compile(code, base, config, engine, device, sources)?;
            (model, Some(generates))
        }
        None => (one_shot(code, config, found, device.cus())?, None),
    };
    Ok(Tenant {
        name: config.name.clone(),
        model,
        class: config.class,
        slo,
        workers: config.workers,
        batch_max: config.batch_max,
        batch_timeout: config.batch_timeout,
        generates,
        per_request_batches: config.per_request_batches,
        drop_after: config.drop_after,
    })
}

/// A model that runs one batch after another.
fn one_shot(
    code: &mut Code,
    config: &TenantConfig,
    found: &Found,
    cus: u32,
) -> Result<ModelCode, String> {
    code.compile(&found.profile, &found.model, config.batch_max, cus)
        .map_err(|e| format!("{}: {e}", config.model_at))
}

/// The first requests of a tenant that generates tokens.
///
/// # Errors
/// Its arrivals cannot be read.
pub(crate) fn first_requests(base: &Path, config: &TenantConfig) -> Result<Vec<Request>, String> {
    if config.arrivals.closed().is_some() {
        let mut draws = config.arrivals.tokens.map(|law| law.draws(1, &config.name));
        let request = |_| {
            let (tokens_in, tokens_out) = draws.as_mut().map_or((1, 1), |d| d.draw());
            Request { tokens_in, tokens_out, ..Request::at(Nanos::ZERO) }
        };
        return Ok((0..isolated::GENERATING).map(request).collect());
    }
    let open = config.arrivals.open(base, 1, &config.name);
    let mut open = open.map_err(|e| format!("{}: {e}", config.arrivals_at))?;
    Ok(std::iter::from_fn(|| open.next_request()).take(isolated::GENERATING).collect())
}
