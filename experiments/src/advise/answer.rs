//! The answer: a row per way of sharing, the choice, and what would change it.

use cotenant_deploy::{Gpu, Plan, Sharing, Tenant};
use cotenant_profiles::{Bytes, Nanos};
use cotenant_results::Estimate;
use serde::Serialize;

use super::fleet::{self, Known, Member};
use super::lab::{Candidate, Got, How, Lab};
use super::mix::Mix;
use super::search::{ATTAINED, EVENTS_PER_SECOND, Score, Search, Tried, ratio};
use super::space::{Group, Mechanism, Space};

/// What the command line asks for.
pub(crate) struct Ask {
    /// GPUs, least and most.
    pub(crate) gpus: (usize, usize),
    /// What the search may simulate, in seconds of [`EVENTS_PER_SECOND`].
    pub(crate) budget_s: f64,
    /// Price of a GPU for an hour.
    pub(crate) price: Option<f64>,
    pub(crate) threads: usize,
    /// Whether curves of latency against load are wanted.
    pub(crate) curves: bool,
}

/// Everything that is known of a mix.
#[derive(Serialize)]
pub(crate) struct Answer {
    pub(crate) version: &'static str,
    pub(crate) device: String,
    pub(crate) mix: String,
    pub(crate) tenants: Vec<Asked>,
    pub(crate) rows: Vec<Row>,
    /// Index among `rows`.
    pub(crate) choice: Option<usize>,
    pub(crate) why: String,
    pub(crate) runner_up: Option<usize>,
    pub(crate) flips: String,
    /// Goals that no way meets.
    pub(crate) out_of_reach: Vec<Missed>,
    /// What would meet them, the cheapest first.
    pub(crate) changes: Vec<String>,
    /// Latency against load of the best three.
    pub(crate) curves: Vec<Curve>,
    /// Events simulated.
    pub(crate) events: u64,
    #[serde(skip)]
    pub(crate) lab: Lab,
}

/// A tenant as the mix has it.
#[derive(Clone, Serialize)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) rate_rps: Option<f64>,
    pub(crate) goal_ms: Option<f64>,
    pub(crate) best_effort: bool,
    pub(crate) isolated_p95_ms: Option<f64>,
    /// `measured`, `imported` or `analytic`.
    pub(crate) source: &'static str,
    pub(crate) source_words: String,
}

/// The worst p99 over its goal against the load, both as factors.
#[derive(Clone, Serialize)]
pub(crate) struct Curve {
    pub(crate) way: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A goal that is missed.
#[derive(Clone, Serialize)]
pub(crate) struct Missed {
    pub(crate) tenant: String,
    pub(crate) goal_ms: f64,
    pub(crate) p99_ms: Option<f64>,
}

/// A number with its 95 % interval over the seeds.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Interval {
    pub(crate) mean: f64,
    /// Half the width; `None` of a single run.
    pub(crate) half: Option<f64>,
}

/// One way of sharing.
#[derive(Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) way: String,
    pub(crate) gpus: usize,
    /// Why it cannot be.
    pub(crate) impossible: Option<String>,
    /// Software that it needs beyond the driver.
    pub(crate) needs: Option<&'static str>,
    /// A row for comparison: not to be chosen.
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
    pub(crate) met: Option<bool>,
    /// Share of requests within the goal.
    pub(crate) attained: Option<f64>,
    pub(crate) rps: f64,
    pub(crate) goodput_rps: f64,
    /// p99 over that of the tenant alone on the GPU with the same requests and settings.
    pub(crate) inflation: Option<f64>,
    pub(crate) weights_mib: f64,
    pub(crate) activations_mib: f64,
    pub(crate) context_mib: f64,
}

fn mib(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}

fn interval(values: impl Iterator<Item = f64>) -> Option<Interval> {
    let values: Vec<f64> = values.collect();
    Estimate::of(&values).map(|e| Interval { mean: e.mean, half: e.half })
}

/// Answers a question; `first` is told of the answer after the first short runs.
///
/// # Errors
/// A model that is not to be found, or that fits nowhere.
pub(crate) fn answer(mix: Mix, ask: &Ask, first: &mut dyn FnMut(&str)) -> Result<Answer, String> {
    let lab = Lab::new(mix)?;
    for t in lab.all() {
        if lab.isolated[t].is_none() {
            return Err(fits_nowhere(&lab, t));
        }
    }
    let mut rows = vec![];
    let mut search = Search::new(&lab, Space::default(), ask.threads);
    let budget = ask.budget_s * EVENTS_PER_SECOND;
    let group = Group::all(&lab);
    let (low, high) = ask.gpus;
    if low <= 1 {
        let pools = search.first(&group);
        if let Some(text) = first_words(&lab, &pools) {
            first(&text);
        }
        // The rest is for headroom, inflation and intervals of the rows.
        let share = if high > 1 { 0.25 } else { 0.45 };
        for mut best in search.settle(&group, pools, budget * share) {
            rows.push(match &mut best.tried {
                Ok(tried) => {
                    search.finish(tried);
                    let members = [Member { mechanism: best.mechanism, tried: tried.clone() }];
                    row(&mut search, best.mechanism.name(), &members, ask)
                }
                Err(why) => impossible(best.mechanism, why.clone()),
            });
        }
    }
    let mut known = Known::default();
    let fleets = (low.max(2)..=high).count().max(1) as f64;
    for gpus in low.max(2)..=high {
        let share = if low > 1 { 0.6 } else { 0.4 };
        let members = fleet::place(&mut search, gpus, budget * share / fleets, &mut known);
        if let Some(mut members) = members {
            members.iter_mut().for_each(|m| search.finish(&mut m.tried));
            let mut one = row(&mut search, &format!("{gpus} GPUs"), &members, ask);
            one.gpus = gpus;
            rows.push(one);
        }
    }
    if let Some(row) = one_each(&mut search, ask) {
        rows.push(row);
    }
    let events = search.events;
    drop(search);
    Ok(conclude(lab, rows, ask, events))
}

/// Best after the first short runs, in one line.
fn first_words(lab: &Lab, pools: &[(Mechanism, Vec<Tried>)]) -> Option<String> {
    let tops = pools.iter().filter(|(m, _)| *m != Mechanism::Krisp);
    let tops = tops.filter_map(|(m, p)| p.first().map(|t| (*m, t.score(lab))));
    let best = tops.min_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal))?;
    let state = match best.1.missed {
        0 => "meets every goal".to_owned(),
        n => format!("misses {n}"),
    };
    Some(format!("first answer: {} {state} in short runs", best.0.name()))
}

fn fits_nowhere(lab: &Lab, t: usize) -> String {
    let smallest = lab.model_memory(t, 1);
    let bigger: Vec<&str> = cotenant_profiles::Device::builtin_names()
        .filter(|name| {
            let device = cotenant_profiles::Device::builtin(name);
            device.is_ok_and(|d| d.memory.capacity.0 > smallest.0 + d.costs.context_memory.0)
        })
        .collect();
    format!(
        "{} needs {smallest} for `{}` at batch {}, more than {} has ({}); {}",
        lab.name(t),
        lab.setup.tenants[t].model.name,
        lab.batch_limit[t],
        lab.setup.device.title,
        lab.setup.device.memory.capacity,
        match bigger.first() {
            Some(_) => format!("it fits on {}", bigger.join(", ")),
            None => "no device that ships is large enough".to_owned(),
        }
    )
}

fn impossible(mechanism: Mechanism, why: String) -> Row {
    Row {
        way: mechanism.name().to_owned(),
        gpus: 1,
        impossible: Some(why),
        needs: mechanism.needs(),
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
        score: None,
        plan: vec![],
        members: vec![],
    }
}

/// Every tenant on a GPU of its own: what no neighbour disturbs.
fn one_each(search: &mut Search<'_>, ask: &Ask) -> Option<Row> {
    let lab = search.lab;
    let sharing = match lab.setup.device.mps {
        Some(_) => Sharing::Mps { percent: vec![100] },
        None => Sharing::TimeSlicing,
    };
    let mut members = vec![];
    for t in lab.all() {
        let batch = lab.batch_limit[t].min(8);
        let c = Candidate {
            tenants: vec![t],
            requests: vec![1.0],
            how: How::Deploy(sharing.clone()),
            batch: vec![if lab.mix.fixed_batch[t] { lab.batch_limit[t] } else { batch }],
            timeout: vec![lab.mix.point.tenants[t].batch_timeout],
            workers: vec![if lab.mix.fixed_workers[t] {
                lab.mix.point.tenants[t].workers
            } else {
                1
            }],
        };
        let tried = search.measure(c).ok()?;
        members.push(Member { mechanism: Mechanism::Mps, tried });
    }
    let n = members.len();
    let mut one = row(search, "one GPU each", &members, ask);
    one.gpus = n;
    one.reference = n < ask.gpus.0 || n > ask.gpus.1;
    Some(one)
}

/// A row of one or several GPUs.
pub(crate) fn row(search: &mut Search<'_>, way: &str, members: &[Member], ask: &Ask) -> Row {
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
        let room = search.headroom(t);
        headroom = match (headroom, room) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        change = change.max(change_s(lab, &t.c));
        for i in 0..t.c.tenants.len() {
            let alone = if t.c.tenants.len() > 1 { search.alone(&t.c, i) } else { None };
            served.push(tenant(lab, t, i, gpu, alone));
        }
        plan.push(gpu_of(lab, &t.c));
    }
    let goals: Vec<bool> = served.iter().filter_map(|s| s.met).collect();
    let rps: f64 = served.iter().map(|s| s.rps).sum();
    let per_million = |per_s: f64| (rps > 0.0).then(|| per_s * 1e6 / rps);
    let settings: Vec<String> = members.iter().map(|m| words(lab, &m.tried.c)).collect();
    Row {
        way: way.to_owned(),
        gpus: members.len(),
        impossible: None,
        needs: members.iter().find_map(|m| m.mechanism.needs()),
        reference: false,
        settings: settings.join(" | "),
        goals: goals.len(),
        goals_met: goals.iter().filter(|m| **m).count(),
        goodput_rps: served.iter().map(|s| s.goodput_rps).sum(),
        tenants: served,
        headroom,
        watts,
        cu_utilization: busy,
        kwh_per_million: per_million(watts).map(|j| j / 3.6e6),
        price_per_million: ask.price.and_then(|p| per_million(p * members.len() as f64 / 3600.0)),
        change_s: change,
        seeds: members.iter().map(|m| m.tried.samples().len()).min().unwrap_or(0),
        score: Some(fleet::together(lab, members)),
        plan: plan.into_iter().flatten().collect(),
        members: members.to_vec(),
    }
}

fn tenant(lab: &Lab, t: &Tried, i: usize, gpu: usize, alone: Option<Got>) -> Served {
    let (c, index) = (&t.c, t.c.tenants[i]);
    let runs = t.samples();
    let got = || runs.iter().map(|r| r.got[i]);
    let n = runs.len().max(1) as f64;
    let p99 = interval(got().filter_map(|g| g.p99_ms));
    let slo = lab.slo(index);
    let attained: Vec<f64> = got().filter_map(|g| g.attained).collect();
    let met = slo.map(|slo| got().map(|g| ratio(&g, slo)).sum::<f64>() / n <= 1.0);
    let (model, workers) = (&lab.setup.tenants[index].model, f64::from(c.workers[i]));
    Served {
        tenant: lab.name(index).to_owned(),
        gpu,
        workers: c.workers[i],
        batch_max: c.batch[i],
        p50_ms: interval(got().filter_map(|g| g.p50_ms)),
        p99_ms: p99,
        goal_ms: slo.map(Nanos::as_millis_f64),
        met,
        attained: (slo.is_some() && !attained.is_empty())
            .then(|| attained.iter().sum::<f64>() / attained.len() as f64),
        rps: got().map(|g| g.rps).sum::<f64>() / n,
        goodput_rps: got().map(|g| g.goodput_rps).sum::<f64>() / n,
        inflation: p99.zip(alone.and_then(|a| a.p99_ms)).map(|(p, a)| p.mean / a),
        weights_mib: mib(model.weights) * workers,
        activations_mib: mib(model.activations_per_item) * f64::from(c.batch[i]) * workers,
        context_mib: mib(lab.context(&c.how)) * workers,
    }
}

/// Seconds without service when a candidate's settings are applied: every process starts again, at
/// once, and loads its model; instances are destroyed and created one by one before.
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
            format!("{} chunks", list.join(" / "))
        }
        How::Deploy(sharing) => sharing.words(),
        How::Needs(policy) => (*policy).to_owned(),
    };
    let list = |values: &[u32]| {
        let same = values.iter().all(|v| *v == values[0]);
        let texts: Vec<String> = values.iter().map(u32::to_string).collect();
        if same { texts[0].clone() } else { texts.join("/") }
    };
    format!("{how}; batch {}, workers {}", list(&c.batch), list(&c.workers))
}

/// The settings as the formats take them; none where they do not deploy.
fn gpu_of(lab: &Lab, c: &Candidate) -> Option<Gpu> {
    let How::Deploy(sharing) = &c.how else { return None };
    let tenants = c.tenants.iter().enumerate().map(|(i, &t)| deploy_tenant(lab, c, i, t));
    Some(Gpu { sharing: sharing.clone(), tenants: tenants.collect() })
}

fn deploy_tenant(lab: &Lab, c: &Candidate, i: usize, t: usize) -> Tenant {
    let memory = lab.model_memory(t, c.batch[i]).0 + lab.context(&c.how).0;
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
        generates: false,
    }
}

/// A tenant of the mix with its own settings, for reading files.
pub(crate) fn known_tenants(lab: &Lab) -> Vec<Tenant> {
    let point = &lab.mix.point;
    let c = Candidate {
        tenants: lab.all(),
        requests: vec![1.0; point.tenants.len()],
        how: How::Deploy(Sharing::Mps { percent: vec![] }),
        batch: point.tenants.iter().map(|t| t.batch_max).collect(),
        timeout: point.tenants.iter().map(|t| t.batch_timeout).collect(),
        workers: point.tenants.iter().map(|t| t.workers).collect(),
    };
    lab.all().into_iter().map(|t| deploy_tenant(lab, &c, t, t)).collect()
}

/// Rows that may be chosen, best first.
fn order(rows: &[Row]) -> Vec<usize> {
    let free = |r: &Row| r.impossible.is_none() && !r.reference && !r.plan.is_empty();
    let mut order: Vec<usize> = (0..rows.len()).filter(|&i| free(&rows[i])).collect();
    let key = |i: usize| {
        let r = &rows[i];
        let s = r.score.unwrap_or(Score::NOTHING);
        // The order of rows is from simple to involved.
        (s.missed, r.gpus, (s.worst * 50.0).round(), (s.lost * 20.0).round(), i)
    };
    order.sort_by(|&a, &b| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal));
    order
}

fn conclude(lab: Lab, rows: Vec<Row>, ask: &Ask, events: u64) -> Answer {
    let order = order(&rows);
    let choice = order.first().copied();
    let runner_up = order.get(1).copied();
    let (why, flips) =
        choice.map_or_else(Default::default, |c| (why(&rows, &order, c), flips(&rows, &order, c)));
    let missed = choice.map_or_else(Vec::new, |c| {
        rows[c].tenants.iter().filter(|t| t.met == Some(false)).map(missed).collect()
    });
    let tenants = lab.all().into_iter().map(|t| asked(&lab, t)).collect();
    let curves = if ask.curves { curves(&lab, &rows, &order, ask.threads) } else { vec![] };
    let mut answer = Answer {
        version: env!("CARGO_PKG_VERSION"),
        device: lab.setup.device.name.clone(),
        mix: lab.mix.words(),
        tenants,
        rows,
        choice,
        why,
        runner_up,
        flips,
        out_of_reach: missed,
        changes: vec![],
        curves,
        events,
        lab,
    };
    if !answer.out_of_reach.is_empty() {
        answer.changes = changes(&answer, ask);
    }
    answer
}

fn asked(lab: &Lab, t: usize) -> Asked {
    Asked {
        name: lab.name(t).to_owned(),
        model: lab.mix.point.tenants[t].model.clone(),
        rate_rps: lab.mix.rate(t),
        goal_ms: lab.slo(t).map(Nanos::as_millis_f64),
        best_effort: lab.best_effort(t),
        isolated_p95_ms: lab.isolated[t].map(|i| i.p95.as_millis_f64()),
        source: lab.sources[t].0,
        source_words: lab.sources[t].1.clone(),
    }
}

fn missed(t: &Served) -> Missed {
    let (goal_ms, p99_ms) = (t.goal_ms.unwrap_or(0.0), t.p99_ms.map(|p| p.mean));
    Missed { tenant: t.tenant.clone(), goal_ms, p99_ms }
}

/// One sentence.
fn why(rows: &[Row], order: &[usize], choice: usize) -> String {
    let row = &rows[choice];
    let busy = format!("its CUs are busy {:.0} % of the time", row.cu_utilization * 100.0);
    if row.goals == 0 {
        return format!("no tenant has a goal; it loses least to sharing ({busy})");
    }
    if row.goals_met < row.goals {
        let closest = row.score.map_or(0.0, |s| s.ratio);
        return format!(
            "nothing meets every goal; it misses {} of {} and comes closest (p99 up to {closest:.2} \
             times a goal; {busy})",
            row.goals - row.goals_met,
            row.goals
        );
    }
    let same =
        order.iter().filter(|&&i| rows[i].goals_met == rows[i].goals && rows[i].gpus == row.gpus);
    let n = same.count();
    let spare: Vec<&Served> = row.tenants.iter().filter(|t| t.goal_ms.is_none()).collect();
    let aside = match spare.as_slice() {
        [] => String::new(),
        some => {
            let rps: f64 = some.iter().map(|t| t.rps).sum();
            format!(", with {rps:.0} requests/s left for the others")
        }
    };
    if n == 1 {
        return format!("the only way on {} that meets every goal{aside} ({busy})", gpus(row.gpus));
    }
    format!("the simplest of the best among {n} ways that meet every goal{aside} ({busy})")
}

fn gpus(n: usize) -> String {
    crate::text::count(n, "GPU")
}

/// When something else would be better.
fn flips(rows: &[Row], order: &[usize], choice: usize) -> String {
    let row = &rows[choice];
    let Some(room) = row.headroom else {
        return "without goals nothing makes it flip but another measure".to_owned();
    };
    let more = order
        .iter()
        .filter(|&&i| i != choice && rows[i].headroom.is_some_and(|h| h > room * 1.05))
        .max_by(|&&a, &&b| {
            rows[a].headroom.partial_cmp(&rows[b].headroom).unwrap_or(std::cmp::Ordering::Equal)
        });
    match more {
        Some(&i) => format!(
            "beyond {room:.2} times the load a goal breaks; {} holds to {:.2} times",
            rows[i].way,
            rows[i].headroom.unwrap_or(0.0)
        ),
        None if room >= 16.0 => "no goal breaks at up to 16 times the load".to_owned(),
        None => format!(
            "beyond {room:.2} times the load a goal breaks, and nothing else here holds longer"
        ),
    }
}

/// Loads of the curves.
const LOADS: [f64; 9] = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0];

fn curves(lab: &Lab, rows: &[Row], order: &[usize], threads: usize) -> Vec<Curve> {
    if lab.all().into_iter().all(|t| lab.slo(t).is_none()) {
        return vec![];
    }
    let search = Search::new(lab, Space::default(), threads);
    let of = |i: &usize| {
        let row = &rows[*i];
        let at = |load: f64| {
            row.members.iter().map(|m| search.ratio_at(&m.tried, load)).fold(0.0, f64::max)
        };
        Curve { way: row.way.clone(), points: LOADS.iter().map(|&l| (l, at(l))).collect() }
    };
    order.iter().take(3).map(of).collect()
}

/// What would meet the goals, each tried by a short search of its own.
fn changes(answer: &Answer, ask: &Ask) -> Vec<String> {
    let mut found = vec![];
    let budget = 1.0_f64.min(ask.budget_s / 4.0);
    let lab = &answer.lab;
    if let Some(load) =
        answer.choice.and_then(|c| answer.rows[c].headroom).filter(|h| *h > 0.0 && *h < 1.0)
    {
        found.push(format!("at {load:.2} times the load the goals hold as it is"));
    }
    let try_mix = |mix: Mix| {
        let lab = Lab::new(mix).ok()?;
        let mut search = Search::new(&lab, Space::default(), ask.threads);
        let group = Group::all(&lab);
        let pools = search.first(&group);
        let all = search.settle(&group, pools, budget * EVENTS_PER_SECOND);
        let member = fleet::choose(&lab, &all)?;
        (member.tried.score(&lab).missed == 0)
            .then(|| format!("{} ({})", member.mechanism.name(), words(&lab, &member.tried.c)))
    };
    if lab.mix.fixed_batch.contains(&true)
        && let Some(way) = try_mix(lab.mix.with_open_batches())
    {
        found.push(format!("other batch sizes meet them: {way}"));
    }
    for gpus in ask.gpus.1 + 1..=ask.gpus.1 + 2 {
        let mut search = Search::new(lab, Space::default(), ask.threads);
        let members =
            fleet::place(&mut search, gpus, budget * EVENTS_PER_SECOND, &mut Known::default());
        let Some(members) = members else { continue };
        if fleet::together(lab, &members).missed == 0 {
            found.push(format!("{gpus} GPUs of this kind meet them"));
            break;
        }
    }
    if ask.gpus.1 == 1 {
        let own = &lab.setup.device;
        for name in ["a30", "a100-sxm-40", "a100-sxm-80", "h100-sxm", "h200-sxm"] {
            let better = cotenant_profiles::Device::builtin(name).is_ok_and(|d| {
                d.compute.fp16_tflops > own.compute.fp16_tflops
                    || d.memory.dram_gbps > own.memory.dram_gbps
            });
            if !better || name == own.name {
                continue;
            }
            let way = lab.mix.on(name).ok().and_then(try_mix);
            if let Some(way) = way {
                found.push(format!("one {name} meets them: {way}"));
                break;
            }
        }
    }
    // A goal below what the model takes alone is met by nothing here.
    for t in lab.all() {
        if let (Some(slo), Some(alone)) = (lab.slo(t), lab.isolated[t])
            && slo < alone.p95
        {
            found.push(format!(
                "{} takes {} alone on {}: no sharing meets {}",
                lab.name(t),
                alone.p95,
                lab.setup.device.title,
                slo
            ));
        }
    }
    if found.is_empty() {
        found.push("none of: other batches, two more GPUs, another device that ships".to_owned());
    }
    found
}

impl Answer {
    /// What deploys the choice.
    pub(crate) fn plan(&self) -> Option<Plan> {
        let row = &self.rows[self.choice?];
        let mut header = vec![
            format!(
                "cotenant {} advise: {} on {}",
                self.version, row.way, self.lab.setup.device.title
            ),
            format!("mix: {}", self.mix),
        ];
        for t in &row.tenants {
            let goal = t.goal_ms.map_or_else(|| "no goal".to_owned(), |g| format!("goal {g} ms"));
            let p99 = t.p99_ms.map_or_else(|| "-".to_owned(), |p| format!("{:.2} ms", p.mean));
            header
                .push(format!("expected: {} p99 {p99}, {goal}, {:.1} requests/s", t.tenant, t.rps));
        }
        let sources: std::collections::BTreeSet<&str> =
            self.tenants.iter().map(|t| t.source).collect();
        let sources: Vec<&str> = sources.into_iter().collect();
        header.push(format!(
            "numbers: simulated from {} profiles; measure before you rely on them",
            sources.join(" and ")
        ));
        Some(Plan { device: self.lab.setup.device.clone(), header, gpus: row.plan.clone() })
    }

    /// Whether a goal is met by so many requests.
    pub(crate) fn attained_goal() -> f64 {
        ATTAINED
    }
}
