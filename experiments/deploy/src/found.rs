//! What files say, gathered until a plan comes out.

use std::collections::BTreeMap;

use cotenant_profiles::{Bytes, Device, Nanos};

use crate::finding::{Finding, Weight};
use crate::plan::{Engine, Gpu, Sharing, Tenant, TimeSlice, slug};

/// How a GPU is shared, as far as one file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// Instances of one server process.
    Streams,
    /// Processes take turns.
    TimeSlicing,
    /// MPS.
    Mps,
    /// MPS static partitions.
    Static,
    /// Hardware instances.
    Mig,
}

/// What files say of one tenant on one GPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantFound {
    /// Percentage of the CUs.
    pub percent: Option<u32>,
    /// Chunks of a static partition.
    pub chunks: Option<u32>,
    /// Instance profile, by the device file's name.
    pub instance: Option<String>,
    /// Which of the GPU's instances, where a file of ours says so.
    pub slot: Option<usize>,
    /// Pods or processes.
    pub processes: Option<u32>,
    /// Model instances of each process.
    pub instances: Option<u32>,
    /// Most items of a batch.
    pub batch_max: Option<u32>,
    /// Longest wait for a batch to fill.
    pub batch_timeout: Option<Nanos>,
    /// Device memory that one process may take.
    pub memory_limit: Option<Bytes>,
    /// Share of the GPU's memory that an engine takes.
    pub memory_fraction: Option<f64>,
    /// Memory of an engine's cache, which holds in place of that.
    pub cache: Option<Bytes>,
    /// Most tokens of an engine's step.
    pub step_tokens: Option<u32>,
    /// Share of the tenant's requests.
    pub requests: Option<f64>,
}

/// A tenant of the mix, with the settings that hold where no file says otherwise.
pub type Known = Tenant;

/// What files say.
#[derive(Clone, Debug)]
pub struct Found {
    /// The GPU that they are for.
    pub device: Device,
    /// How it is shared.
    pub mechanism: Option<Mechanism>,
    /// How long a turn is, where processes take turns.
    pub slice: Option<TimeSlice>,
    /// Instance profiles by GPU; `None`: every GPU.
    pub layouts: BTreeMap<Option<u32>, Vec<String>>,
    /// Copies of each GPU that the device plugin hands out.
    pub replicas: Option<u32>,
    /// Percentage that holds for every client.
    pub default_percent: Option<u32>,
    /// Memory limit that holds for every client.
    pub default_limit: Option<Bytes>,
    /// By name as the first file writes it, GPU where one is said, and the GPU's instance where a file of
    /// ours says which.
    pub tenants: BTreeMap<(String, Option<u32>, Option<usize>), TenantFound>,
    /// Percentages of MPS v3's namespaces, by plain name and GPU: they hold, whatever clients ask for.
    pub(crate) namespaces: BTreeMap<(String, Option<u32>), u32>,
    /// On AMD's GPUs: processes take turns, and which CUs each has, by plain name and GPU.
    pub(crate) turns: bool,
    pub(crate) masks: BTreeMap<(String, Option<u32>), Vec<u32>>,
    /// What there is to know.
    pub findings: Vec<Finding>,
}

impl Found {
    /// Nothing read yet.
    #[must_use]
    pub fn new(device: Device) -> Self {
        Self {
            device,
            mechanism: None,
            slice: None,
            layouts: BTreeMap::new(),
            replicas: None,
            default_percent: None,
            default_limit: None,
            tenants: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            turns: false,
            masks: BTreeMap::new(),
            findings: vec![],
        }
    }

    pub(crate) fn tell(
        &mut self,
        weight: Weight,
        file: &str,
        line: Option<usize>,
        field: &str,
        what: impl Into<String>,
    ) {
        let finding = Finding {
            weight,
            file: file.to_owned(),
            line,
            field: field.to_owned(),
            what: what.into(),
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Takes a mechanism as given; MPS refines time slicing and goes with instances.
    pub(crate) fn shared_by(&mut self, mechanism: Mechanism) {
        self.mechanism = Some(self.mechanism.map_or(mechanism, |m| m.max(mechanism)));
    }

    pub(crate) fn tenant(&mut self, name: &str, gpu: Option<u32>) -> &mut TenantFound {
        self.placed(name, gpu, None)
    }

    pub(crate) fn placed(
        &mut self,
        name: &str,
        gpu: Option<u32>,
        slot: Option<usize>,
    ) -> &mut TenantFound {
        // Formats write one name in several ways: `Vision_1`, `vision-1`, `vision_1`.
        let plain = slug(name);
        let mut known = self.tenants.keys();
        let known = known.find(|(n, g, s)| (*g, *s) == (gpu, slot) && slug(n) == plain).cloned();
        self.tenants.entry(known.unwrap_or((name.to_owned(), gpu, slot))).or_default()
    }

    /// How many CUs a percentage comes to, said where it is not what was asked for.
    pub(crate) fn percent_told(
        &mut self,
        percent: u32,
        file: &str,
        line: Option<usize>,
        field: &str,
    ) {
        if percent < 100 && self.device.mps.is_some_and(|m| m.round_cus >= self.device.cus()) {
            let title = &self.device.title;
            let what = format!(
                "thread percentages need Volta or later: every client of a {title} may use all of its SMs"
            );
            return self.tell(Weight::Ignored, file, line, field, what);
        }
        let (cus, asked) = (self.device.mps_cus(f64::from(percent)), self.device.cus() * percent);
        if percent > 0 && percent < 100 && asked != cus * 100 {
            let exact = f64::from(asked) / 100.0;
            let what = format!(
                "{percent} % of {} SMs is {exact}; MPS grants whole steps: {cus} SMs",
                self.device.cus()
            );
            self.tell(Weight::Rounded, file, line, field, what);
        }
    }

    /// The plan that the files come to, by GPU. Where they leave something open, the mix's own
    /// settings hold. [`Sharing::Mig`] has an empty `place` where no file says who is on which
    /// instance.
    ///
    /// # Errors
    /// The files do not say how the GPU is shared, or cannot all hold.
    pub fn resolve(&mut self, known: &[Known]) -> Result<Vec<Gpu>, String> {
        let whole = self.mechanism.is_none() && self.whole_gpus();
        let Some(mechanism) = self.mechanism.or(whole.then_some(Mechanism::TimeSlicing)) else {
            return Err("the files do not say how the GPU is shared: none of them sets time \
                        slicing, MPS or instances"
                .to_owned());
        };
        let entries = self.named(known);
        let of_entries = entries.iter().filter_map(|e| e.gpu);
        let last = of_entries.chain(self.layouts.keys().filter_map(|k| *k)).max();
        let gpus = last.map_or(1, |g| g + 1);
        let mut plan = vec![];
        for gpu in 0..gpus {
            plan.push(self.gpu(mechanism, gpu, gpus, known, &entries)?);
        }
        for tenant in known {
            if !plan.iter().any(|g| g.tenants.iter().any(|t| t.name == tenant.name)) {
                return Err(format!("no GPU of these files serves tenant `{}`", tenant.name));
            }
        }
        self.check_memory(&plan);
        if mechanism == Mechanism::Mig {
            // Each share is of an instance of its own.
            self.findings.retain(|f| f.field != FRACTION || f.weight != Weight::Illegal);
        }
        Ok(plan)
    }

    /// Whether files place every tenant on a GPU, and none has more than one process: nobody shares.
    fn whole_gpus(&self) -> bool {
        let mut processes: BTreeMap<u32, u32> = BTreeMap::new();
        for ((_, gpu, _), found) in &self.tenants {
            let Some(gpu) = gpu else { continue };
            *processes.entry(*gpu).or_default() += found.processes.unwrap_or(0);
        }
        !processes.is_empty() && processes.values().all(|n| *n == 1)
    }

    /// The entries that belong to tenants of the mix.
    fn named(&mut self, known: &[Known]) -> Vec<Entry> {
        let mut entries = vec![];
        let mut strangers = vec![];
        for ((name, gpu, slot), found) in &self.tenants {
            let plain = slug(name);
            let by_name = known.iter().position(|k| slug(&k.name) == plain);
            let by_model = || {
                let mut same = known.iter().enumerate().filter(|(_, k)| slug(&k.model) == plain);
                let first = same.next().map(|(i, _)| i);
                first.filter(|_| same.next().is_none())
            };
            match by_name.or_else(by_model) {
                Some(tenant) => {
                    entries.push(Entry { tenant, gpu: *gpu, slot: *slot, found: found.clone() })
                }
                None => strangers.push(name.clone()),
            }
        }
        for name in strangers {
            let what = format!("`{name}` is not a tenant of the mix and left out");
            self.tell(Weight::Note, "mix", None, "", what);
        }
        entries
    }

    fn gpu(
        &mut self,
        mechanism: Mechanism,
        gpu: u32,
        gpus: u32,
        known: &[Known],
        entries: &[Entry],
    ) -> Result<Gpu, String> {
        let mut tenants = vec![];
        let mut found = vec![];
        for (i, base) in known.iter().enumerate() {
            let own: Vec<&Entry> = entries.iter().filter(|e| e.tenant == i).collect();
            let of = |gpu: Option<u32>, slot: Option<usize>| {
                own.iter().find(|e| e.gpu == gpu && e.slot == slot).map(|e| &e.found)
            };
            let placed = own.iter().any(|e| e.gpu.is_some());
            let here: Vec<&&Entry> =
                own.iter().filter(|e| e.gpu == Some(gpu) && e.slot.is_some()).collect();
            let common = of(Some(gpu), None);
            // A tenant that no file places is on the first GPU.
            if here.is_empty() && common.is_none() && (placed || gpu > 0) {
                continue;
            }
            if gpus > 1 && !placed {
                let what = format!("no file says on which GPU `{}` is: taken as GPU 0", base.name);
                self.tell(Weight::Note, "mix", None, "", what);
            }
            // One for each instance that it is on, or one.
            let starts = here.iter().map(|e| e.found.clone());
            let starts: Vec<TenantFound> =
                if here.is_empty() { vec![TenantFound::default()] } else { starts.collect() };
            for mut settings in starts {
                settings.fill(common);
                settings.fill(of(None, None));
                tenants.push(settings.over(base));
                found.push(settings);
            }
        }
        let sharing = self.sharing(mechanism, gpu, &tenants, &found)?;
        Ok(Gpu { sharing, tenants })
    }

    fn sharing(
        &mut self,
        mechanism: Mechanism,
        gpu: u32,
        tenants: &[Tenant],
        found: &[TenantFound],
    ) -> Result<Sharing, String> {
        let default = self.default_percent.unwrap_or(100).clamp(1, 100);
        // A client can only lower what the daemon gives.
        let percent: Vec<u32> =
            found.iter().map(|f| f.percent.unwrap_or(100).min(default)).collect();
        Ok(match mechanism {
            // Whoever takes turns does not run beside others, whatever else is said.
            Mechanism::Mps if self.turns => Sharing::TURNS,
            Mechanism::TimeSlicing => {
                Sharing::TimeSlicing { slice: self.slice.unwrap_or_default() }
            }
            Mechanism::Streams => Sharing::Streams,
            Mechanism::Mps => Sharing::Mps { percent },
            Mechanism::Static => {
                for (tenant, found) in tenants.iter().zip(found) {
                    if found.chunks.is_none() {
                        return Err(format!(
                            "`{}` has no static partition: with static partitioning on, a client \
                             without CUDA_MPS_SM_PARTITION fails to start",
                            tenant.name
                        ));
                    }
                }
                Sharing::Static { chunks: found.iter().filter_map(|f| f.chunks).collect() }
            }
            Mechanism::Mig => {
                let layout = self.layouts.get(&Some(gpu)).or_else(|| self.layouts.get(&None));
                let asked: Option<Vec<String>> = found.iter().map(|f| f.instance.clone()).collect();
                let instances = match (layout, &asked) {
                    (Some(layout), _) => layout.clone(),
                    (None, Some(asked)) => {
                        let slots: Vec<usize> = found.iter().filter_map(|f| f.slot).collect();
                        by_slot(asked, &slots)
                    }
                    (None, None) => {
                        return Err("the files ask for instances, and neither a layout nor every \
                                    tenant's instance is given"
                            .to_owned());
                    }
                };
                let place = match asked {
                    Some(asked) => place(&instances, &asked, found)?,
                    None => vec![],
                };
                Sharing::Mig { instances, place, percent }
            }
        })
    }

    /// Limits below what the models need.
    fn check_memory(&mut self, plan: &[Gpu]) {
        let mut told = vec![];
        for ((name, ..), found) in &self.tenants {
            let plain = slug(name);
            let tenants = plan.iter().flat_map(|g| &g.tenants);
            let Some(t) = tenants.filter(|t| slug(&t.name) == plain).min_by_key(|t| t.workers)
            else {
                continue;
            };
            let limit = found.memory_limit.or(self.default_limit);
            // An engine takes its share, whatever it could do with; limits are in whole MiB.
            let share = t.engine.and_then(|e| e.memory_fraction);
            let share = share.map(|f| (f * self.device.memory.capacity.0 as f64) as u64);
            let need =
                Bytes(share.map_or(t.memory.0, |s| s.min(t.memory.0).saturating_sub(1 << 20)));
            if let Some(limit) = limit.filter(|l| *l < need) {
                let what =
                    format!("the limit of {limit} is below the {need} that one worker needs");
                told.push((t.name.clone(), what));
            }
        }
        for (name, what) in told {
            self.tell(Weight::Illegal, "mix", None, &format!("tenant.{name}"), what);
        }
    }
}

/// The field of findings about an engine's share of the memory.
pub(crate) const FRACTION: &str = "memory fraction";

struct Entry {
    tenant: usize,
    gpu: Option<u32>,
    slot: Option<usize>,
    found: TenantFound,
}

impl TenantFound {
    /// What is not said here and there.
    fn fill(&mut self, other: Option<&Self>) {
        let Some(o) = other else { return };
        self.percent = self.percent.or(o.percent);
        self.chunks = self.chunks.or(o.chunks);
        self.instance = self.instance.take().or_else(|| o.instance.clone());
        self.slot = self.slot.or(o.slot);
        self.processes = self.processes.or(o.processes);
        self.instances = self.instances.or(o.instances);
        self.batch_max = self.batch_max.or(o.batch_max);
        self.batch_timeout = self.batch_timeout.or(o.batch_timeout);
        self.memory_limit = self.memory_limit.or(o.memory_limit);
        self.memory_fraction = self.memory_fraction.or(o.memory_fraction);
        self.cache = self.cache.or(o.cache);
        self.step_tokens = self.step_tokens.or(o.step_tokens);
        self.requests = self.requests.or(o.requests);
    }

    /// The tenant with what files say in place of the mix's own settings.
    fn over(&self, base: &Tenant) -> Tenant {
        let workers = match (self.processes, self.instances) {
            (None, None) => base.workers,
            (p, i) => p.unwrap_or(1) * i.unwrap_or(1),
        };
        Tenant {
            workers,
            batch_max: self.batch_max.unwrap_or(base.batch_max),
            batch_timeout: self.batch_timeout.unwrap_or(base.batch_timeout),
            requests: self.requests.unwrap_or(base.requests),
            engine: base.engine.map(|engine| Engine {
                memory_fraction: match self.cache {
                    Some(_) => None,
                    None => self.memory_fraction.or(engine.memory_fraction),
                },
                cache: self.cache.or(engine.cache.filter(|_| self.memory_fraction.is_none())),
                step_tokens: self.step_tokens.unwrap_or(engine.step_tokens),
            }),
            ..base.clone()
        }
    }
}

/// Instances in the order of their slots, one for each distinct slot; in tenant order without slots.
fn by_slot(asked: &[String], slots: &[usize]) -> Vec<String> {
    if slots.len() != asked.len() {
        return asked.to_vec();
    }
    let by: BTreeMap<usize, String> = slots.iter().copied().zip(asked.iter().cloned()).collect();
    by.into_values().collect()
}

/// Which instance each tenant is on: the slot that it names, else the next free one of its profile.
fn place(
    instances: &[String],
    asked: &[String],
    found: &[TenantFound],
) -> Result<Vec<usize>, String> {
    let mut taken = vec![false; instances.len()];
    // Files of ours number the instances as they were planned; a layout may list them otherwise.
    let mut by_slot: BTreeMap<usize, usize> = BTreeMap::new();
    let mut place = vec![];
    for (wanted, found) in asked.iter().zip(found) {
        let known = found.slot.and_then(|slot| by_slot.get(&slot).copied());
        let as_numbered = found.slot.filter(|&s| instances.get(s) == Some(wanted) && !taken[s]);
        let free = || (0..instances.len()).find(|&i| instances[i] == *wanted && !taken[i]);
        let Some(i) = known.or(as_numbered).or_else(free) else {
            return Err(format!(
                "a pod asks for a {wanted} instance, and the layout ({}) has none left",
                instances.join(", ")
            ));
        };
        if let Some(slot) = found.slot {
            by_slot.insert(slot, i);
        }
        taken[i] = true;
        place.push(i);
    }
    Ok(place)
}
