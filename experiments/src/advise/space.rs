//! The settings of each mechanism: where the search starts, and the neighbours of a candidate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cotenant_deploy::Sharing;
use cotenant_profiles::device::Mig as Table;
use cotenant_profiles::{Device, Nanos};

use super::lab::{Candidate, How, Lab};
use super::screen::{self, Place};

/// A way of sharing one GPU, simplest first: of two that serve equally well, the earlier is advised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mechanism {
    TimeSlicing,
    Streams,
    Mps,
    Percent,
    Static,
    Mig,
    MigMps,
    Krisp,
}

impl Mechanism {
    pub(crate) const ALL: [Self; 8] = [
        Self::TimeSlicing,
        Self::Streams,
        Self::Mps,
        Self::Percent,
        Self::Static,
        Self::Mig,
        Self::MigMps,
        Self::Krisp,
    ];

    /// The mechanism of a candidate.
    pub(crate) fn of(c: &Candidate) -> Self {
        match &c.how {
            How::Needs(_) => Self::Krisp,
            How::Deploy(Sharing::TimeSlicing { .. }) => Self::TimeSlicing,
            How::Deploy(Sharing::Streams) => Self::Streams,
            How::Deploy(Sharing::Mps { percent }) if percent.iter().all(|&p| p >= 100) => Self::Mps,
            How::Deploy(Sharing::Mps { .. }) => Self::Percent,
            How::Deploy(Sharing::Static { .. }) => Self::Static,
            How::Deploy(Sharing::Mig { instances, place, .. }) => {
                if instances.len() < place.len() {
                    Self::MigMps
                } else {
                    Self::Mig
                }
            }
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TimeSlicing => "time slicing",
            Self::Streams => "one server",
            Self::Mps => "MPS",
            Self::Percent => "MPS percentages",
            Self::Static => "MPS static",
            Self::Mig => "MIG",
            Self::MigMps => "MPS inside MIG",
            Self::Krisp => "KRISP masks",
        }
    }

    /// Its name on a device: AMD's GPUs run processes side by side without MPS, and are partitioned by masks.
    pub(crate) fn name_on(self, device: &Device) -> &'static str {
        match self {
            Self::Mps if device.is_amd() => "side by side",
            Self::Percent if device.is_amd() => "percentages",
            Self::Static if device.is_amd() => "CU masks",
            _ => self.name(),
        }
    }

    /// Software that it requires.
    pub(crate) fn needs(self, device: &Device) -> Option<&'static str> {
        match self {
            Self::TimeSlicing if device.is_amd() => Some("the amdgpu module's hws_max_conc_proc=1"),
            Self::Static if device.is_amd() => None,
            Self::Static => Some("CUDA 13.1 or later"),
            Self::Krisp => Some("masks per kernel (KRISP's ROCm fork, libsmctrl)"),
            _ => None,
        }
    }

    /// Whether the device supports it for this many tenants.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn possible(self, lab: &Lab, tenants: usize) -> Result<(), String> {
        let device = &lab.setup.device;
        match self {
            Self::Percent if device.is_amd() => {
                Err(format!("{}: a mask says which CUs, not how many: see CU masks", device.title))
            }
            Self::Percent if device.mps.is_some_and(|m| m.round_cus >= device.cus()) => {
                Err(format!("{}: thread percentages need Volta or later", device.title))
            }
            Self::Mps | Self::Percent if device.mps.is_none() => {
                Err(format!("{} has no MPS", device.title))
            }
            Self::Static if device.mps.is_none_or(|m| m.chunks == 0) => {
                Err(format!("{} has no static partitions (Ampere or later)", device.title))
            }
            Self::Static if device.mps.is_some_and(|m| (m.chunks as usize) < tenants) => {
                Err(format!("{} has fewer chunks than there are tenants", device.title))
            }
            Self::Mig | Self::MigMps if device.mig.is_none() => {
                Err(format!("{} has no MIG", device.title))
            }
            Self::MigMps if tenants < 3 => {
                Err("takes three tenants: two would have an instance each, or MPS".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Values that the search may try for batches and workers.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) batches: Vec<u32>,
    pub(crate) workers: Vec<u32>,
    /// Earlier results of the formula.
    known: Arc<Mutex<Known>>,
}

/// Batch, workers and ratio by tenant, share of requests, CUs and bandwidth.
type Known = BTreeMap<(usize, u64, u32, u64), (u32, u32, f64)>;

impl Default for Space {
    fn default() -> Self {
        Self::new(vec![1, 2, 4, 8, 16, 32], vec![1, 2, 3])
    }
}

/// The subject of a search: tenants of the mix, and the share of each one's requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) tenants: Vec<usize>,
    pub(crate) requests: Vec<f64>,
}

impl Group {
    pub(crate) fn all(lab: &Lab) -> Self {
        let tenants = lab.all();
        Self { requests: vec![1.0; tenants.len()], tenants }
    }
}

/// Share of the GPU in use, with the largest batches, from which on it counts as nearly full.
const CROWDED: f64 = 0.5;
/// Parts in which such a GPU is handed out as percentages.
const FINE: u32 = 50;
/// Most placements of instances that the search considers.
const PLACEMENTS: usize = 12;

impl Space {
    /// These batches and workers, for use with one lab.
    pub(crate) fn new(batches: Vec<u32>, workers: Vec<u32>) -> Self {
        Self { batches, workers, known: Arc::default() }
    }

    /// Batch sizes that a tenant may have; numbers of sequences for an engine.
    pub(crate) fn batches(&self, lab: &Lab, tenant: usize) -> Vec<u32> {
        let limit = lab.batch_limit[tenant];
        if lab.generates(tenant) {
            return match lab.mix.fixed_engine[tenant].sequences {
                true => vec![limit],
                false => up_to(&SEQUENCES, limit),
            };
        }
        if lab.mix.fixed_batch[tenant] {
            return vec![limit];
        }
        let mut sizes: Vec<u32> = self.batches.iter().copied().filter(|&b| b <= limit).collect();
        if sizes.is_empty() {
            sizes.push(limit);
        }
        sizes
    }

    /// Workers that a tenant may have.
    pub(crate) fn workers(&self, lab: &Lab, tenant: usize) -> Vec<u32> {
        // A second engine on the same GPU would hold the weights twice.
        if lab.mix.fixed_workers[tenant] || lab.generates(tenant) {
            return vec![lab.mix.point.tenants[tenant].workers];
        }
        self.workers.clone()
    }

    /// Step tokens that a tenant's engine may have; 0 without an engine.
    fn tokens(lab: &Lab, tenant: usize) -> Vec<u32> {
        let Some(engine) = lab.mix.point.tenants[tenant].engine else { return vec![0] };
        match lab.mix.fixed_engine[tenant].tokens {
            true => vec![engine.max_batched_tokens],
            false => up_to(&STEP_TOKENS, engine.max_batched_tokens),
        }
    }

    /// The batch and workers that the formula ranks best in a place.
    fn best(&self, lab: &Lab, tenant: usize, requests: f64, place: Place) -> (u32, u32, f64) {
        let key = (tenant, requests.to_bits(), place.cus, place.bandwidth);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(best) = known().get(&key) {
            return *best;
        }
        let mut best = (1, 1, f64::INFINITY);
        for &w in &self.workers(lab, tenant) {
            for &b in &self.batches(lab, tenant) {
                let ratio = screen::ratio(lab, tenant, (b, w, requests), place);
                // More workers and larger batches cost memory: they must gain at least 2 %.
                if ratio < best.2 * 0.98 {
                    best = (b, w, ratio);
                }
            }
        }
        known().insert(key, best);
        best
    }

    /// A candidate with the formula's batches and workers for the places of its tenants.
    fn candidate(
        &self,
        lab: &Lab,
        g: &Group,
        how: How,
        place: impl Fn(usize) -> Place,
    ) -> Candidate {
        let chosen: Vec<(u32, u32, f64)> = (0..g.tenants.len())
            .map(|i| self.best(lab, g.tenants[i], g.requests[i], place(i)))
            .collect();
        Candidate {
            tenants: g.tenants.clone(),
            requests: g.requests.clone(),
            how,
            batch: chosen.iter().map(|c| c.0).collect(),
            tokens: g.tenants.iter().map(|&t| own_tokens(lab, t)).collect(),
            memory: vec![None; g.tenants.len()],
            timeout: g.tenants.iter().map(|&t| timeout(lab, t)).collect(),
            workers: chosen.iter().map(|c| c.1).collect(),
        }
    }

    /// Where the search of a mechanism starts, the most promising first.
    pub(crate) fn starts(&self, lab: &Lab, g: &Group, mechanism: Mechanism) -> Vec<Candidate> {
        let n = g.tenants.len();
        let cus = f64::from(lab.setup.device.cus());
        let demand: Vec<f64> = (0..n)
            .map(|i| {
                screen::demand(
                    lab,
                    g.tenants[i],
                    lab.batch_limit[g.tenants[i]].min(8),
                    g.requests[i],
                )
            })
            .collect();
        let sum: f64 = demand.iter().sum();
        // On a GPU that all tenants share, a tenant has what the others leave.
        let shared = |i: usize| {
            let left = (1.0 - (sum - demand[i])).clamp(1.0 / n as f64, 1.0);
            Place::part(&lab.setup, (cus * left) as u32)
        };
        let deploy = How::Deploy;
        let whole = |how: How| {
            let screened = self.candidate(lab, g, how, shared);
            let mut all = vec![screened.clone()];
            let size = |(i, &t): (usize, &usize), batch: u32| match lab.generates(t) {
                true => screened.batch[i],
                false => nearest(&self.batches(lab, t), batch),
            };
            let with = |batch: u32, workers: u32| Candidate {
                batch: g.tenants.iter().enumerate().map(|it| size(it, batch)).collect(),
                workers: g
                    .tenants
                    .iter()
                    .map(|&t| nearest(&self.workers(lab, t), workers))
                    .collect(),
                ..screened.clone()
            };
            all.extend([with(8, 1), with(1, 1), with(32, 1), with(1, 2), with(8, 2)]);
            all
        };
        let mut starts = match mechanism {
            Mechanism::TimeSlicing => whole(deploy(Sharing::TURNS)),
            Mechanism::Streams => whole(deploy(Sharing::Streams)),
            Mechanism::Mps => whole(deploy(Sharing::Mps { percent: vec![100; n] })),
            Mechanism::Krisp => whole(How::Needs("krisp")),
            Mechanism::Percent => self.percentages(lab, g, &demand),
            Mechanism::Static => {
                let chunks = lab.setup.device.mps.map_or(0, |m| m.chunks);
                let unit = lab.setup.device.mps.map_or(1, |m| m.chunk_cus);
                let fair = self.divide(lab, g, chunks, unit);
                let equal = equal(chunks, n);
                let make = |chunks: Vec<u32>| {
                    let place = |i: usize| Place::part(&lab.setup, chunks[i] * unit);
                    let how = deploy(Sharing::Static { chunks: chunks.clone() });
                    self.candidate(lab, g, how, place)
                };
                // In proportion to the formula's ratios, evenly, and in proportion to the work of each.
                vec![make(fair), make(equal), make(by_demand(chunks, &demand))]
            }
            Mechanism::Mig => self.instances(lab, g, false),
            Mechanism::MigMps => self.instances(lab, g, true),
        };
        dedup(&mut starts);
        starts
    }

    /// Hands out units of CUs one by one to the tenant that is worst off; once the others no longer gain,
    /// tenants without a goal get the rest.
    fn divide(&self, lab: &Lab, g: &Group, units: u32, unit: u32) -> Vec<u32> {
        let n = g.tenants.len();
        let at = |i: usize, u: u32| {
            self.best(lab, g.tenants[i], g.requests[i], Place::part(&lab.setup, u * unit)).2
        };
        let mut each = vec![1; n];
        let mut ratio: Vec<f64> = (0..n).map(|i| at(i, 1)).collect();
        let spare = |i: usize| lab.slo(g.tenants[i]).is_none();
        for _ in n as u32..units {
            let worst = |wanted: bool| {
                let some = (0..n).filter(|&i| spare(i) == wanted);
                some.max_by(|&a, &b| ratio[a].total_cmp(&ratio[b]))
            };
            let next = match (worst(false), worst(true)) {
                (Some(i), _) if ratio[i] > 0.5 => i,
                (_, Some(i)) => i,
                (Some(i), None) => i,
                (None, None) => break,
            };
            each[next] += 1;
            ratio[next] = at(next, each[next]);
        }
        each
    }

    fn percentages(&self, lab: &Lab, g: &Group, demand: &[f64]) -> Vec<Candidate> {
        let n = g.tenants.len();
        let cus = lab.setup.device.cus();
        let twentieths = self.divide(lab, g, 20, cus.div_ceil(20));
        let to = |factor: u32| -> Vec<u32> {
            twentieths.iter().map(|&t| (t * 5 * factor / 2).clamp(5, 100)).collect()
        };
        let spare = |i: usize| lab.slo(g.tenants[i]).is_none();
        let aside = |low: u32| (0..n).map(|i| if spare(i) { low } else { 100 }).collect();
        let mut all = vec![to(2), to(3), to(4), vec![(100 / n as u32).max(1); n]];
        if (0..n).any(spare) && !(0..n).all(spare) {
            all.extend([aside(20), aside(50)]);
        } else {
            // The tenant with the largest demand is kept from crowding out the others.
            let largest = (0..n).max_by(|&a, &b| demand[a].total_cmp(&demand[b]));
            all.push((0..n).map(|i| if Some(i) == largest { 60 } else { 100 }).collect());
        }
        let make = |percent: Vec<u32>| {
            let place = |i: usize| Place::part(&lab.setup, cus * percent[i] / 100);
            self.candidate(lab, g, How::Deploy(Sharing::Mps { percent: percent.clone() }), place)
        };
        let mut found: Vec<Candidate> = all.into_iter().map(make).collect();
        // A nearly full GPU serves most with the largest batches, each in a place of its own.
        let largest = |i: usize| lab.batch_limit[g.tenants[i]];
        let busy = |i: usize| screen::demand(lab, g.tenants[i], largest(i), g.requests[i]);
        let busy: Vec<f64> = (0..n).map(busy).collect();
        if busy.iter().sum::<f64>() > CROWDED && n < FINE as usize {
            let units = by_demand(FINE, &busy);
            let mut full = make(units.iter().map(|u| u * 100 / FINE).collect());
            for (i, &t) in g.tenants.iter().enumerate().filter(|(_, t)| !lab.generates(**t)) {
                full.batch[i] = nearest(&self.batches(lab, t), largest(i));
                full.workers[i] = self.workers(lab, t)[0];
            }
            found.insert(1, full);
        }
        found
    }

    /// Legal layouts with an assignment of tenants: one instance each, or several tenants in one.
    fn instances(&self, lab: &Lab, g: &Group, together: bool) -> Vec<Candidate> {
        let Some(table) = &lab.setup.device.mig else { return vec![] };
        let n = g.tenants.len();
        let rate = Rates::new(self, lab, g, table);
        let mut found: Vec<(f64, f64, Vec<usize>, Vec<usize>)> = vec![];
        for groups in partitions(n, table.compute_slices.min(7) as usize) {
            let k = groups.iter().max().map_or(0, |m| m + 1);
            if (k == n) == together || (together && (k < 2 || n > 6 && k > 3)) {
                continue;
            }
            for set in table.combinations(k) {
                permute(&mut set.clone(), 0, &mut |order| {
                    let (worst, sum) = rate.of(&groups, order);
                    if worst.is_finite() {
                        found.push((worst, sum, order.to_vec(), groups.clone()));
                    }
                });
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        found.dedup_by(|a, b| a.2 == b.2 && a.3 == b.3);
        let make = |(_, _, order, place): (f64, f64, Vec<usize>, Vec<usize>)| {
            let names = order.iter().map(|&p| table.profiles[p].name.clone()).collect();
            let how =
                Sharing::Mig { instances: names, place: place.clone(), percent: vec![100; n] };
            let at = |i: usize| place_of(lab, table, order[place[i]]);
            self.candidate(lab, g, How::Deploy(how), at)
        };
        found.into_iter().take(PLACEMENTS).map(make).collect()
    }

    /// Candidates that differ from `c` in one setting; those that help `worst` first.
    pub(crate) fn neighbours(&self, lab: &Lab, c: &Candidate, worst: usize) -> Vec<Candidate> {
        let n = c.tenants.len();
        let mut all = vec![];
        let order = std::iter::once(worst).chain((0..n).filter(|&i| i != worst));
        for i in order {
            let t = c.tenants[i];
            for value in around(&self.batches(lab, t), c.batch[i]) {
                let mut next = c.clone();
                next.batch[i] = value;
                all.push(next);
            }
            for value in around(&Self::tokens(lab, t), c.tokens[i]) {
                let mut next = c.clone();
                next.tokens[i] = value;
                all.push(next);
            }
            for value in around(&self.workers(lab, t), c.workers[i]) {
                let mut next = c.clone();
                next.workers[i] = value;
                all.push(next);
            }
            self.shares(lab, c, i, &mut all);
        }
        all
    }

    /// A candidate whose tenants have places of their own, with the batches and workers that the formula
    /// ranks best there.
    fn refitted(&self, lab: &Lab, c: &Candidate) -> Candidate {
        let place = |i: usize| match &c.how {
            How::Deploy(Sharing::Static { chunks }) => {
                let unit = lab.setup.device.mps.map_or(1, |m| m.chunk_cus);
                Some(Place::part(&lab.setup, chunks[i] * unit))
            }
            How::Deploy(Sharing::Mig { instances, place, .. }) => {
                let table = lab.setup.device.mig.as_ref()?;
                let (profile, _) = table.profile(&instances[place[i]]).ok()?;
                Some(place_of(lab, table, profile))
            }
            _ => None,
        };
        let mut fitted = c.clone();
        for (i, &t) in c.tenants.iter().enumerate() {
            if let Some(place) = place(i) {
                let (batch, workers, _) = self.best(lab, t, c.requests[i], place);
                (fitted.batch[i], fitted.workers[i]) = (batch, workers);
            }
        }
        fitted
    }

    /// Neighbours that give tenant `i` more of the GPU.
    fn shares(&self, lab: &Lab, c: &Candidate, i: usize, all: &mut Vec<Candidate>) {
        let n = c.tenants.len();
        // With the current batches, and with those that the formula ranks best in the new places: a better
        // share often pays only with another batch.
        let mut push = |sharing: Sharing| {
            let moved = Candidate { how: How::Deploy(sharing), ..c.clone() };
            all.push(self.refitted(lab, &moved));
            all.push(moved);
        };
        match &c.how {
            How::Deploy(Sharing::Static { chunks }) => {
                for j in (0..n).filter(|&j| j != i) {
                    for step in [1, 2].into_iter().filter(|&step| chunks[j] > step) {
                        let mut chunks = chunks.clone();
                        chunks[i] += step;
                        chunks[j] -= step;
                        push(Sharing::Static { chunks });
                    }
                }
            }
            How::Deploy(Sharing::Mps { percent }) if percent.iter().any(|&p| p < 100) => {
                for value in [percent[i] + 20, percent[i] + 10, percent[i].saturating_sub(10), 100]
                {
                    let mut percent = percent.clone();
                    percent[i] = value.clamp(5, 100);
                    push(Sharing::Mps { percent });
                }
            }
            How::Deploy(Sharing::Mig { instances, place, percent }) => {
                let Some(table) = &lab.setup.device.mig else { return };
                for profile in &table.profiles {
                    let mut other = instances.clone();
                    other[place[i]].clone_from(&profile.name);
                    let names: Vec<&str> = other.iter().map(String::as_str).collect();
                    if other != *instances && table.placements(&names).is_ok() {
                        let (place, percent) = (place.clone(), percent.clone());
                        push(Sharing::Mig { instances: other, place, percent });
                    }
                }
                // Into another tenant's instance, or swapped with that tenant.
                for j in (0..n).filter(|&j| place[j] != place[i]) {
                    let mut swapped = place.clone();
                    swapped.swap(i, j);
                    push(Sharing::Mig {
                        instances: instances.clone(),
                        place: swapped,
                        percent: percent.clone(),
                    });
                    let together = instances.len() < n;
                    if together && place.iter().filter(|&&p| p == place[i]).count() > 1 {
                        let mut moved = place.clone();
                        moved[i] = place[j];
                        push(Sharing::Mig {
                            instances: instances.clone(),
                            place: moved,
                            percent: percent.clone(),
                        });
                    }
                }
            }
            How::Deploy(_) | How::Needs(_) => {}
        }
    }
}

/// Numbers of concurrent sequences to try for an engine.
const SEQUENCES: [u32; 8] = [8, 16, 32, 64, 128, 256, 512, 1024];
/// Step tokens to try for an engine: fewer stretch prompts, more stretch the steps of the sequences that
/// generate.
const STEP_TOKENS: [u32; 6] = [512, 1024, 2048, 4096, 8192, 16_384];

/// The values below `limit`, and `limit` itself.
fn up_to(values: &[u32], limit: u32) -> Vec<u32> {
    values.iter().copied().filter(|&v| v < limit).chain([limit]).collect()
}

/// Step tokens of a tenant's engine in the mix.
pub(crate) fn own_tokens(lab: &Lab, tenant: usize) -> u32 {
    lab.mix.point.tenants[tenant].engine.map_or(0, |e| e.max_batched_tokens)
}

/// How long to wait for a batch to fill: the mix's own time if it fixes the batch.
pub(crate) fn timeout(lab: &Lab, tenant: usize) -> Nanos {
    match lab.mix.fixed_batch[tenant] {
        true => lab.mix.point.tenants[tenant].batch_timeout,
        false => Nanos::ZERO,
    }
}

/// The place that an instance is to the formula.
pub(crate) fn place_of(lab: &Lab, table: &Table, profile: usize) -> Place {
    let instance = lab.setup.device.mig_instance(&table.profiles[profile]);
    Place { cus: instance.cus, bandwidth: (instance.dram_gbps * 1000.0) as u64 }
}

/// The formula's ratios of every tenant on every instance profile, alone and with others.
struct Rates {
    /// By tenant, profile and share of the instance (whole, half, third).
    ratio: Vec<Vec<[f64; 3]>>,
}

impl Rates {
    fn new(space: &Space, lab: &Lab, g: &Group, table: &Table) -> Self {
        let context = lab.setup.client_memory().0;
        let of = |i: usize, p: usize| {
            let (t, whole) = (g.tenants[i], place_of(lab, table, p));
            let smallest = space.batches(lab, t)[0];
            if lab.model_memory(t, smallest).0 + context > table.profiles[p].capacity.0 {
                return [f64::INFINITY; 3];
            }
            [1, 2, 3].map(|share| {
                let place = Place {
                    cus: (whole.cus / share).max(1),
                    bandwidth: whole.bandwidth / u64::from(share),
                };
                space.best(lab, t, g.requests[i], place).2
            })
        };
        let n = g.tenants.len();
        let ratio = (0..n).map(|i| (0..table.profiles.len()).map(|p| of(i, p)).collect()).collect();
        Self { ratio }
    }

    /// The worst ratio, and the sum of their logarithms.
    fn of(&self, place: &[usize], order: &[usize]) -> (f64, f64) {
        let (mut worst, mut sum) = (0.0_f64, 0.0);
        for (i, &slot) in place.iter().enumerate() {
            let company = place.iter().filter(|&&p| p == slot).count();
            let ratio = self.ratio[i][order[slot]][company.min(3) - 1];
            worst = worst.max(ratio);
            sum += libm::log(ratio);
        }
        (worst, sum)
    }
}

/// Every way to divide `n` items into at most `most` groups, as the group of each item.
fn partitions(n: usize, most: usize) -> Vec<Vec<usize>> {
    fn go(
        n: usize,
        most: usize,
        groups: usize,
        so_far: &mut Vec<usize>,
        out: &mut Vec<Vec<usize>>,
    ) {
        if so_far.len() == n {
            return out.push(so_far.clone());
        }
        for g in 0..(groups + 1).min(most) {
            so_far.push(g);
            go(n, most, groups.max(g + 1), so_far, out);
            so_far.pop();
        }
    }
    let mut out = vec![];
    // Beyond eight tenants there are too many ways: each tenant alone, or all in one group.
    if n > 8 {
        let own: Vec<usize> = (0..n).collect();
        return if n <= most { vec![own, vec![0; n]] } else { vec![vec![0; n]] };
    }
    go(n, most, 0, &mut vec![], &mut out);
    out
}

/// Every distinct order of `set`.
fn permute(set: &mut [usize], from: usize, visit: &mut impl FnMut(&[usize])) {
    if from == set.len() {
        return visit(set);
    }
    for i in from..set.len() {
        if set[from..i].contains(&set[i]) {
            continue;
        }
        set.swap(from, i);
        permute(set, from + 1, visit);
        set.swap(from, i);
    }
}

/// Units in proportion to `demand`, at least one each.
fn by_demand(units: u32, demand: &[f64]) -> Vec<u32> {
    let mut each = vec![1; demand.len()];
    for _ in demand.len() as u32..units {
        let need = |i: &usize| demand[*i] / f64::from(each[*i]);
        let next = (0..demand.len()).max_by(|a, b| need(a).total_cmp(&need(b)));
        each[next.unwrap_or(0)] += 1;
    }
    each
}

fn equal(units: u32, n: usize) -> Vec<u32> {
    let n = n as u32;
    (0..n).map(|i| units / n + u32::from(i < units % n)).collect()
}

/// The value of a sorted list closest to `wanted`, preferably not above it.
fn nearest(list: &[u32], wanted: u32) -> u32 {
    list.iter().rev().find(|&&v| v <= wanted).or(list.first()).copied().unwrap_or(1)
}

/// The values before and after `now`.
fn around(list: &[u32], now: u32) -> Vec<u32> {
    let at = list.iter().position(|&v| v == now);
    let Some(at) = at else { return vec![] };
    let before = at.checked_sub(1).and_then(|i| list.get(i));
    list.get(at + 1).into_iter().chain(before).copied().collect()
}

pub(crate) fn dedup(list: &mut Vec<Candidate>) {
    let mut kept: Vec<Candidate> = vec![];
    for c in list.drain(..) {
        if !kept.contains(&c) {
            kept.push(c);
        }
    }
    *list = kept;
}
