//! A row of the answer: one way of sharing with its best settings, and what they deliver.

use std::cmp::Ordering::Equal;
use std::collections::BTreeMap;

use cotenant_deploy::{Engine, Gpu, Sharing, Tenant};
use cotenant_profiles::Bytes;
use cotenant_results::Estimate;
use cotenant_sim::engine::KvSize;
use serde::Serialize;

use super::answer::Ask;
use super::finish::MOST_LOAD;
use super::fleet::{self, Member};
use super::goal::{Goal, Got};
use super::lab::{Candidate, How, Lab};
use super::search::{SEEDS, Score, Search, Tried};
use super::space::{self, Mechanism};

/// A number with its 95 % interval over the seeds.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Interval {
    pub(crate) mean: f64,
    /// Half the width; `None` for a single run.
    pub(crate) half: Option<f64>,
}

/// One way of sharing.
#[derive(Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) way: String,
    pub(crate) gpus: usize,
    /// Why this way of sharing is impossible.
    pub(crate) impossible: Option<String>,
    /// Software that it needs beyond the driver.
    pub(crate) needs: Option<&'static str>,
    /// A row for comparison: never chosen.
    pub(crate) reference: bool,
    pub(crate) settings: String,
    pub(crate) tenants: Vec<Served>,
    pub(crate) goals: usize,
    pub(crate) goals_met: usize,
    pub(crate) goodput_rps: f64,
    pub(crate) headroom: Option<f64>,
    pub(crate) watts: f64,
    pub(crate) cu_utilization: f64,
    pub(crate) kwh_per_million: Option<f64>,
    pub(crate) price_per_million: Option<f64>,
    /// Seconds without service when these settings are applied.
    pub(crate) change_s: f64,
    pub(crate) seeds: usize,
    /// It has as many runs as every other row, and its headroom was determined; otherwise the budget ran out.
    pub(crate) settled: bool,
    /// It gets no further runs.
    #[serde(skip)]
    pub(crate) closed: bool,
    #[serde(skip)]
    pub(crate) score: Option<Score>,
    #[serde(skip)]
    pub(crate) plan: Vec<Gpu>,
    #[serde(skip)]
    pub(crate) members: Vec<Member>,
}

/// One tenant in a row.
#[derive(Clone, Serialize)]
pub(crate) struct Served {
    pub(crate) tenant: String,
    pub(crate) gpu: usize,
    pub(crate) workers: u32,
    pub(crate) batch_max: u32,
    pub(crate) p50_ms: Option<Interval>,
    pub(crate) p99_ms: Option<Interval>,
    pub(crate) goal_ms: Option<f64>,
    /// Time to the first token and time per further token of a tenant that generates tokens, and the goals
    /// for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttft_p99_ms: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tpot_p99_ms: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal_ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal_tpot_ms: Option<f64>,
    /// In half of the runs or more, more requests came than were served.
    pub(crate) overloaded: bool,
    pub(crate) met: Option<bool>,
    /// The runs do not tell whether its goal is met: the interval of p99 over goal includes 1, or few
    /// requests came.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) undecided: bool,
    /// Share of requests within the goal.
    pub(crate) attained: Option<f64>,
    /// Requests that these numbers are based on, over all seeds.
    pub(crate) requests: u64,
    pub(crate) rps: f64,
    pub(crate) goodput_rps: f64,
    /// p99 over the p99 of the tenant alone on the GPU with the same requests and settings.
    pub(crate) inflation: Option<f64>,
    /// For the most inflated tenant of a GPU: the neighbour that costs it most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inflated_by: Option<String>,
    pub(crate) weights_mib: f64,
    pub(crate) activations_mib: f64,
    pub(crate) context_mib: f64,
    /// Key-value cache of a tenant that generates tokens.
    pub(crate) cache_mib: f64,
    /// Most tokens of a step of its engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step_tokens: Option<u32>,
}

fn mib(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}

fn interval(values: impl Iterator<Item = f64>) -> Option<Interval> {
    let values: Vec<f64> = values.collect();
    Estimate::of(&values).map(|e| Interval { mean: e.mean, half: e.half })
}

pub(super) fn impossible(way: &str, needs: Option<&'static str>, why: String) -> Row {
    Row {
        way: way.to_owned(),
        gpus: 1,
        impossible: Some(why),
        needs,
        reference: false,
        settings: String::new(),
        tenants: vec![],
        goals: 0,
        goals_met: 0,
        goodput_rps: 0.0,
        headroom: None,
        watts: 0.0,
        cu_utilization: 0.0,
        kwh_per_million: None,
        price_per_million: None,
        change_s: 0.0,
        seeds: 0,
        settled: true,
        closed: true,
        score: None,
        plan: vec![],
        members: vec![],
    }
}

/// Every tenant on a GPU of its own, undisturbed by neighbours.
pub(super) fn alone(lab: &Lab) -> Vec<Candidate> {
    let sharing = match lab.setup.device.mps {
        Some(_) => Sharing::Mps { percent: vec![100] },
        None => Sharing::TURNS,
    };
    let one = |t: usize| {
        let batch = lab.batch_limit[t].min(8);
        let own = lab.mix.fixed_batch[t] || lab.generates(t);
        let workers = lab.mix.fixed_workers[t] || lab.generates(t);
        Candidate {
            tenants: vec![t],
            requests: vec![1.0],
            how: How::Deploy(sharing.clone()),
            batch: vec![if own { lab.batch_limit[t] } else { batch }],
            tokens: vec![space::own_tokens(lab, t)],
            memory: vec![None],
            timeout: vec![lab.mix.point.tenants[t].batch_timeout],
            workers: vec![if workers { lab.mix.point.tenants[t].workers } else { 1 }],
        }
    };
    lab.all().into_iter().map(one).collect()
}

/// The same, simulated under one seed.
pub(super) fn one_each(search: &mut Search<'_>) -> Option<Vec<Member>> {
    let mut members = vec![];
    for c in alone(search.lab) {
        let tried = search.measure(c, 1).ok()?;
        members.push(Member { mechanism: Mechanism::Mps, tried });
    }
    Some(members)
}

/// A row of one or several GPUs. With `settled`, headroom and the cost of neighbours are determined, too.
pub(crate) fn row(
    search: &Search<'_>,
    way: &str,
    members: &[Member],
    ask: &Ask,
    settled: bool,
) -> Row {
    let lab = search.lab;
    let mut served = vec![];
    let mut headroom: Option<f64> = None;
    let (mut watts, mut busy, mut change) = (0.0, 0.0, 0.0_f64);
    let mut plan = vec![];
    for (gpu, member) in members.iter().enumerate() {
        let t = &member.tried;
        let runs = t.samples();
        let n = runs.len().max(1) as f64;
        watts += runs.iter().map(|r| r.watts).sum::<f64>() / n;
        busy += runs.iter().map(|r| r.cu_utilization).sum::<f64>() / n / members.len() as f64;
        // Of several GPUs, the least headroom counts.
        let most = headroom.unwrap_or(MOST_LOAD);
        let room = if settled { search.headroom(t, most) } else { None };
        headroom = match (headroom, room) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        change = change.max(change_s(lab, &t.c));
        let first = served.len();
        for i in 0..t.c.tenants.len() {
            let alone = settled && t.c.tenants.len() > 1;
            let alone = if alone { search.alone(&t.c, i) } else { None };
            served.push(tenant(lab, t, i, gpu, alone));
        }
        let inflated = |i: &usize| served[first + i].inflation.filter(|f| *f > NOTABLE);
        let worst = (0..t.c.tenants.len()).filter(|i| inflated(i).is_some());
        let worst = worst.max_by(|a, b| inflated(a).partial_cmp(&inflated(b)).unwrap_or(Equal));
        if let Some(i) = worst {
            let who = search.by_whom(&t.c, i).map(|j| lab.name(t.c.tenants[j]).to_owned());
            served[first + i].inflated_by = who;
        }
        plan.push(gpu_of(lab, &t.c));
    }
    // A tenant's goal is met if every part of it meets it.
    let mut goals: BTreeMap<&str, bool> = BTreeMap::new();
    for s in &served {
        if let Some(met) = s.met {
            *goals.entry(&s.tenant).or_insert(true) &= met;
        }
    }
    let (asked, kept) = (goals.len(), goals.values().filter(|met| **met).count());
    let rps: f64 = served.iter().map(|s| s.rps).sum();
    let per_million = |per_s: f64| (rps > 0.0).then(|| per_s * 1e6 / rps);
    let settings: Vec<String> = members.iter().map(|m| words(lab, &m.tried.c)).collect();
    Row {
        way: way.to_owned(),
        gpus: members.len(),
        impossible: None,
        needs: members.iter().find_map(|m| m.mechanism.needs(&lab.setup.device)),
        reference: false,
        settings: settings.join(" | "),
        goals: asked,
        goals_met: kept,
        goodput_rps: served.iter().map(|s| s.goodput_rps).sum(),
        tenants: served,
        headroom,
        watts,
        cu_utilization: busy,
        kwh_per_million: per_million(watts).map(|j| j / 3.6e6),
        price_per_million: ask.price.and_then(|p| per_million(p * members.len() as f64 / 3600.0)),
        change_s: change,
        seeds: members.iter().map(|m| m.tried.samples().len()).min().unwrap_or(0),
        settled: settled && members.iter().all(|m| m.tried.long.len() >= SEEDS),
        closed: false,
        score: Some(fleet::together(lab, members)),
        plan: plan.into_iter().flatten().collect(),
        members: members.to_vec(),
    }
}

/// Smaller inflations are not attributed to a neighbour.
const NOTABLE: f64 = 1.02;
/// Fewer requests than these cannot tell 99 % from 97 %.
pub(crate) const FEW: u64 = 100;
/// Larger ratios of p99 and goal count as this one: how far a queue has grown does not matter.
const FAR: f64 = 2.0;

/// Whether the runs of a candidate leave open if a tenant keeps its goal.
pub(super) fn undecided(lab: &Lab, t: &Tried, i: usize) -> bool {
    let Some(goal) = lab.goal(t.c.tenants[i]) else { return false };
    let runs = t.samples();
    let got = Goal::telling(runs.iter().map(|r| r.got[i]));
    let ratios: Vec<f64> = got.map(|got| goal.ratio(&got).min(FAR)).collect();
    let seen: u64 = runs.iter().map(|r| r.got[i].seen).sum();
    let across = Estimate::of(&ratios)
        .is_none_or(|e| e.half.is_none_or(|half| (e.mean - 1.0).abs() <= half));
    across || seen < FEW
}

fn tenant(lab: &Lab, t: &Tried, i: usize, gpu: usize, alone: Option<Got>) -> Served {
    let (c, index) = (&t.c, t.c.tenants[i]);
    let runs = t.samples();
    let got = || runs.iter().map(|r| r.got[i]);
    let n = runs.len().max(1) as f64;
    let of = |f: fn(&Got) -> Option<f64>| interval(got().filter_map(|g| f(&g)));
    let p99 = of(|g| g.p99_ms);
    let goal = lab.goal(index);
    let attained: Vec<f64> = got().filter_map(|g| g.attained).collect();
    let seen: u64 = got().map(|g| g.seen).sum();
    let grew = got().filter(|g| g.overloaded).count();
    // If no request arrived, nothing is known.
    let met = goal.filter(|_| seen > 0).map(|goal| goal.mean_ratio(got()) <= 1.0);
    let (goal_ms, tokens) = match goal {
        Some(Goal::Latency(slo)) => (Some(slo.as_millis_f64()), None),
        Some(Goal::Tokens(goals)) => (None, Some(goals)),
        None => (None, None),
    };
    let (weights, activations) = lab.parts(c, i);
    let workers = f64::from(c.workers[i]);
    Served {
        tenant: lab.name(index).to_owned(),
        gpu,
        workers: c.workers[i],
        batch_max: c.batch[i],
        p50_ms: of(|g| g.p50_ms),
        p99_ms: p99,
        goal_ms,
        ttft_p99_ms: of(|g| g.ttft_p99_ms),
        tpot_p99_ms: of(|g| g.tpot_p99_ms),
        goal_ttft_ms: tokens.map(|g| g.ttft.as_millis_f64()),
        goal_tpot_ms: tokens.map(|g| g.tpot.as_millis_f64()),
        overloaded: grew > 0 && grew * 2 >= runs.len(),
        met,
        undecided: undecided(lab, t, i),
        attained: (goal.is_some() && !attained.is_empty())
            .then(|| attained.iter().sum::<f64>() / attained.len() as f64),
        requests: seen,
        rps: got().map(|g| g.rps).sum::<f64>() / n,
        goodput_rps: got().map(|g| g.goodput_rps).sum::<f64>() / n,
        inflated_by: None,
        inflation: p99.zip(alone.and_then(|a| a.p99_ms)).map(|(p, a)| p.mean / a),
        weights_mib: mib(weights) * workers,
        activations_mib: mib(activations) * workers,
        context_mib: mib(lab.context(&c.how)) * workers,
        cache_mib: mib(lab.cache(c, i)) * workers,
        step_tokens: lab.generates(index).then_some(c.tokens[i]),
    }
}

/// Seconds without service when a candidate's settings are applied: first instances are destroyed and created
/// one by one; then all processes restart at once and load their models.
fn change_s(lab: &Lab, c: &Candidate) -> f64 {
    let costs = &lab.setup.costs;
    let load = c.tenants.iter().map(|&t| lab.setup.tenants[t].model.load.0).max().unwrap_or(0);
    let start = costs.process_start.cost.0 + costs.process_start.delay.0;
    let instances = match &c.how {
        How::Deploy(Sharing::Mig { instances, .. }) => instances.len() as u64,
        _ => 0,
    };
    let each = |m: &cotenant_profiles::device::Mechanism| m.cost.0 + m.delay.0;
    let mig = instances * (each(&costs.mig_destroy) + each(&costs.mig_create));
    (start + load + mig) as f64 / 1e9
}

/// The settings in words.
pub(crate) fn words(lab: &Lab, c: &Candidate) -> String {
    let how = match &c.how {
        How::Deploy(Sharing::Mig { instances, place, .. }) => {
            let each: Vec<String> = instances
                .iter()
                .enumerate()
                .map(|(slot, name)| {
                    let here = (0..place.len()).filter(|&i| place[i] == slot);
                    let here: Vec<&str> = here.map(|i| lab.name(c.tenants[i])).collect();
                    format!("{name} ({})", here.join(", "))
                })
                .collect();
            each.join(" + ")
        }
        How::Deploy(Sharing::Mps { percent }) if percent.iter().any(|&p| p < 100) => {
            percent.iter().map(|p| format!("{p} %")).collect::<Vec<_>>().join(" / ")
        }
        How::Deploy(Sharing::Static { chunks }) => {
            let list: Vec<String> = chunks.iter().map(u32::to_string).collect();
            let unit = if lab.setup.device.is_amd() { "CUs" } else { "chunks" };
            format!("{} {unit}", list.join(" / "))
        }
        How::Deploy(sharing) => sharing.words_on(&lab.setup.device),
        How::Needs(policy) => (*policy).to_owned(),
    };
    let list = |values: &[u32]| {
        let same = values.iter().all(|v| *v == values[0]);
        let texts: Vec<String> = values.iter().map(u32::to_string).collect();
        if same { texts[0].clone() } else { texts.join("/") }
    };
    let mut text = format!("{how}; batch {}, workers {}", list(&c.batch), list(&c.workers));
    for (i, &t) in c.tenants.iter().enumerate() {
        if let Some(engine) = lab.engine(c, i) {
            let memory = match engine.kv {
                KvSize::Fraction(share) => format!("{share:.2} of the memory"),
                KvSize::Bytes(kv) => format!("a cache of {kv}"),
            };
            text += &format!(
                "; {}: {} sequences, steps of {} tokens, {memory}",
                lab.name(t),
                engine.max_seqs,
                engine.max_batched_tokens
            );
        }
    }
    text
}

/// The settings in the form that the file formats take; `None` if they cannot be deployed.
fn gpu_of(lab: &Lab, c: &Candidate) -> Option<Gpu> {
    let How::Deploy(sharing) = &c.how else { return None };
    let tenants = c.tenants.iter().enumerate().map(|(i, &t)| deploy_tenant(lab, c, i, t));
    Some(Gpu { sharing: sharing.clone(), tenants: tenants.collect() })
}

fn deploy_tenant(lab: &Lab, c: &Candidate, i: usize, t: usize) -> Tenant {
    let (weights, activations) = lab.parts(c, i);
    let memory = weights.0 + activations.0 + lab.cache(c, i).0 + lab.context(&c.how).0;
    Tenant {
        name: lab.name(t).to_owned(),
        model: lab.mix.point.tenants[t].model.clone(),
        requests: c.requests[i],
        workers: c.workers[i],
        batch_max: c.batch[i],
        batch_timeout: c.timeout[i],
        slo: lab.setup.tenants[t].slo,
        best_effort: lab.best_effort(t),
        memory: Bytes(memory),
        engine: lab.engine(c, i).map(|e| Engine {
            memory_fraction: match e.kv {
                KvSize::Fraction(share) => Some(share),
                KvSize::Bytes(_) => None,
            },
            cache: match e.kv {
                KvSize::Fraction(_) => None,
                KvSize::Bytes(kv) => Some(kv),
            },
            step_tokens: e.max_batched_tokens,
        }),
    }
}

/// The tenants of the mix with their own settings, for reading files.
pub(crate) fn known_tenants(lab: &Lab) -> Vec<Tenant> {
    let point = &lab.mix.point;
    let c = Candidate {
        tenants: lab.all(),
        requests: vec![1.0; point.tenants.len()],
        how: How::Deploy(Sharing::Mps { percent: vec![] }),
        batch: point.tenants.iter().map(|t| t.batch_max).collect(),
        tokens: lab.all().into_iter().map(|t| space::own_tokens(lab, t)).collect(),
        memory: vec![None; point.tenants.len()],
        timeout: point.tenants.iter().map(|t| t.batch_timeout).collect(),
        workers: point.tenants.iter().map(|t| t.workers).collect(),
    };
    lab.all().into_iter().map(|t| deploy_tenant(lab, &c, t, t)).collect()
}
