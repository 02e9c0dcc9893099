//! The answer: a row per way of sharing, the choice, and what would change it.

use cotenant_deploy::{Plan, Sharing};
use cotenant_profiles::Nanos;
use serde::Serialize;

use super::fleet::{self, Known, Member};
use super::lab::{Candidate, How, Lab};
use super::mix::Mix;
use super::planner::Planner;
use super::reason::{changes, curves, flips, order, why};
use super::row::{Row, Served, impossible, one_each, row};
use super::search::{EVENTS_PER_SECOND, Search, Tried};
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
    /// Published planners to compare with.
    pub(crate) planners: Vec<Planner>,
}

impl Ask {
    /// What the search may simulate, events. How long a run is follows from it, so that `check` with the
    /// same budget sees the same requests.
    pub(crate) fn events(&self) -> f64 {
        self.budget_s * EVENTS_PER_SECOND
    }
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
    let mut search = Search::new(&lab, Space::default(), ask.threads, ask.events());
    let budget = ask.events();
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
                Err(why) => impossible(best.mechanism.name(), best.mechanism.needs(), why.clone()),
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
    for &planner in &ask.planners {
        rows.push(planned(&mut search, planner, ask));
    }
    let events = search.events;
    drop(search);
    Ok(conclude(lab, rows, ask, events))
}

/// What a published planner's plan delivers.
fn planned(search: &mut Search<'_>, planner: Planner, ask: &Ask) -> Row {
    let plan = planner.plan(search.lab, search.threads).and_then(|plan| {
        let member = |c: Candidate| {
            let mechanism = match &c.how {
                How::Deploy(Sharing::Mig { .. }) => Mechanism::Mig,
                _ => Mechanism::Percent,
            };
            Ok(Member { mechanism, tried: search.measure(c)? })
        };
        plan.into_iter().map(member).collect::<Result<Vec<Member>, String>>()
    });
    match plan {
        Ok(members) => Row { reference: true, ..row(search, planner.name(), &members, ask) },
        Err(why) => impossible(planner.name(), None, why),
    }
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
    let curves = if ask.curves { curves(&lab, &rows, &order, ask) } else { vec![] };
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
}
