//! The answer: a row per way of sharing, the choice, and what would change it.

use std::path::PathBuf;
use std::sync::Arc;

use cotenant_deploy::{Plan, Sharing};
use cotenant_profiles::{Bytes, Nanos};
use serde::Serialize;

use super::cells::Cells;
use super::fleet::{self, Known, Member, Placed};
use super::goal::Goal;
use super::lab::{Candidate, How, Lab, MOST_MEMORY};
use super::mix::Mix;
use super::planner::Planner;
use super::reason::{changes, curves, flips, order, why};
use super::row::{Row, Served, alone, impossible, one_each, row};
use super::search::{Pools, SEEDS, Score, Search, Tried};
use super::space::{Group, Mechanism, Space};
use super::study;
use crate::fail::{Done, Failure};

/// What the command line asks for.
pub(crate) struct Ask {
    /// GPUs, least and most.
    pub(crate) gpus: (usize, usize),
    /// How much the search may simulate, in seconds of [`EVENTS_PER_SECOND`].
    pub(crate) budget_s: f64,
    /// Price of one GPU hour.
    pub(crate) price: Option<f64>,
    pub(crate) threads: usize,
    /// Whether curves of latency against load are wanted.
    pub(crate) curves: bool,
    /// Published planners to compare with.
    pub(crate) planners: Vec<Planner>,
    /// The folder of a study that takes the place of the search on one GPU.
    pub(crate) study: Option<PathBuf>,
}

/// Simulated events that one second of `--budget` stands for: the speed of one core of a busy virtual
/// machine.
pub(crate) const EVENTS_PER_SECOND: f64 = 3.5e6;
/// Share of one GPU's budget for the search there, and, for each of several GPUs, for the search of a
/// deployment on that many. They depend on nothing else in the question, so that every answer for more GPUs
/// begins with the result for fewer.
const SEARCH: f64 = 0.45;
const FLEET: f64 = 0.3;
/// From this number of GPUs on, the budget of the search no longer grows.
const FULL_FLEET: usize = 3;
/// Once this share of the budget is spent, no larger number of GPUs is searched.
const ENOUGH: f64 = 0.85;
/// Shares of the budget reserved for the curves, and for finding what would meet missed goals.
const CURVES: f64 = 0.14;
const CHANGES: f64 = 0.15;
/// The search often ends with smaller batches, and so with more events, than it starts with.
const MARGIN: f64 = 1.1;
/// Number of devices to name when a model fits nowhere on the requested one.
const NEAREST: usize = 4;
/// Most seeds of a row.
const MOST_SEEDS: usize = 32;

impl Ask {
    /// How many events the search may simulate.
    pub(crate) fn events(&self) -> f64 {
        self.budget_s * EVENTS_PER_SECOND
    }

    /// The budget for one of the GPUs, in whole nanoseconds, as the files give it.
    fn budget_each(&self) -> Nanos {
        Nanos((self.budget_s * 1e9 / self.gpus.1.max(1) as f64).round() as u64)
    }

    /// How many events the search may simulate for one of the GPUs. It determines the length of a run, so
    /// that `check` with the same budget sees the same requests.
    pub(crate) fn events_each(&self) -> f64 {
        self.budget_each().as_secs_f64() * EVENTS_PER_SECOND
    }
}

/// Everything that is known about a mix.
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
    /// Goals that no way of sharing meets.
    pub(crate) out_of_reach: Vec<Missed>,
    /// Changes that would meet them, the cheapest first.
    pub(crate) changes: Vec<String>,
    /// Latency against load of the best three.
    pub(crate) curves: Vec<Curve>,
    /// The budget, s.
    pub(crate) budget_s: f64,
    /// The budget for one of the GPUs.
    #[serde(skip)]
    budget_each: Nanos,
    /// Events simulated.
    pub(crate) events: u64,
    #[serde(skip)]
    pub(crate) lab: Lab,
}

/// A tenant as the mix describes it.
#[derive(Clone, Serialize)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) rate_rps: Option<f64>,
    pub(crate) goal_ms: Option<f64>,
    /// In words.
    pub(crate) goal: Option<String>,
    pub(crate) best_effort: bool,
    pub(crate) isolated_p95_ms: Option<f64>,
    /// `measured`, `imported` or `analytic`.
    pub(crate) source: &'static str,
    pub(crate) source_words: String,
    /// How wrong such numbers have been, in words.
    pub(crate) published_error: String,
}

/// The worst p99 over its goal as the load grows, both as factors.
#[derive(Clone, Serialize)]
pub(crate) struct Curve {
    pub(crate) way: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A goal that is missed.
#[derive(Clone, Serialize)]
pub(crate) struct Missed {
    pub(crate) tenant: String,
    /// In words.
    pub(crate) goal: String,
    pub(crate) goal_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) ttft_p99_ms: Option<f64>,
    pub(crate) tpot_p99_ms: Option<f64>,
    /// Its queue grows until the end of the run.
    pub(crate) overloaded: bool,
    /// Share of its requests within the goal.
    pub(crate) attained: Option<f64>,
    /// Requests that these numbers are based on.
    pub(crate) requests: u64,
}

/// A row before its numbers are final.
#[derive(Clone)]
struct Pending {
    way: String,
    members: Vec<Member>,
    reference: bool,
}

/// Unfinished rows, or why a row is impossible.
type Rows = Vec<Result<Pending, Box<Row>>>;

impl Pending {
    fn new(way: impl Into<String>, members: Vec<Member>) -> Self {
        Self { way: way.into(), members, reference: false }
    }
}

/// Answers a question; `first` receives the best so far after the first short runs.
///
/// # Errors
/// A model that cannot be found, or that fits nowhere; a study that has to be computed first; a requested
/// stop; simulations that could not be saved.
pub(crate) fn answer(
    mix: Mix,
    ask: &Ask,
    cells: &Arc<Cells>,
    first: &mut dyn FnMut(&str),
) -> Done<Answer> {
    let lab = Lab::new(mix, cells.clone()).map_err(Failure::Input)?;
    for t in lab.all() {
        if lab.isolated[t].is_none() {
            return Err(Failure::Input(fits_nowhere(&lab, t)));
        }
    }
    let start = cells.events();
    let mut search = Search::new(&lab, Space::default(), ask.threads, ask.events_each());
    let mut pending = on_one(&mut search, ask, first)?;
    let mut spare = None;
    if ask.gpus.1 > 1 {
        let one = best_of(&mut search, &pending);
        if ask.gpus.0 > 1 {
            pending.clear();
        }
        let (rows, fewer) = on_several(&mut search, ask, one);
        pending.extend(rows);
        spare = fewer.filter(|_| ask.gpus.0 > 1);
    }
    if let Some(members) = one_each(&mut search) {
        let reference = members.len() < ask.gpus.0 || members.len() > ask.gpus.1;
        pending.push(Ok(Pending { reference, ..Pending::new("one GPU each", members) }));
    }
    for &planner in &ask.planners {
        pending.push(planned(&mut search, planner));
    }
    let rows = finish(&mut search, pending, spare, ask);
    cells.check()?;
    let found = conclude(&lab, rows);
    let curves = if ask.curves { curves(&search, &found.rows, ask) } else { vec![] };
    let changes = match found.out_of_reach.as_slice() {
        [] => vec![],
        _ => changes(&search, &found, ask),
    };
    // Numbers of an interrupted search mean nothing.
    cells.check()?;
    drop(search);
    let Concluded { rows, choice, why, runner_up, flips, out_of_reach } = found;
    Ok(Answer {
        version: env!("CARGO_PKG_VERSION"),
        device: lab.setup.device.name.clone(),
        mix: lab.mix.words(),
        tenants: lab.all().into_iter().map(|t| asked(&lab, t)).collect(),
        rows,
        choice,
        why,
        runner_up,
        flips,
        out_of_reach,
        changes,
        curves,
        budget_s: ask.budget_s,
        budget_each: ask.budget_each(),
        events: cells.events() - start,
        lab,
    })
}

/// The ways of sharing one GPU.
fn on_one(search: &mut Search<'_>, ask: &Ask, first: &mut dyn FnMut(&str)) -> Done<Rows> {
    let group = Group::all(search.lab);
    let budget = ask.events_each() * SEARCH;
    let found = match &ask.study {
        Some(dir) => study::best(search, &group, dir)?,
        None => {
            let pools = search.first(&group, &Mechanism::ALL, budget / 2.0);
            if let Some(text) = first_words(search.lab, &pools) {
                first(&text);
            }
            let most = ask.events_each() - put_aside(search, &pools, ask);
            let most = budget.min(most).max(search.spent());
            search.settle(&group, pools, most)
        }
    };
    let device = &search.lab.setup.device;
    let mut found = found;
    if device.is_amd() {
        // Simplest first: side by side is the driver's default, turns need an option of its module.
        found.sort_by_key(|best| (best.mechanism == Mechanism::TimeSlicing, best.mechanism));
    }
    let rows = found.into_iter().map(|best| {
        let (mechanism, way) = (best.mechanism, best.mechanism.name_on(device));
        match best.tried {
            Ok(tried) => Ok(Pending::new(way, vec![Member { mechanism, tried }])),
            Err(why) => Err(Box::new(impossible(way, mechanism.needs(device), why))),
        }
    });
    Ok(rows.collect())
}

/// Events of one GPU's budget to reserve for work after the search, estimated from its short runs: to settle
/// its rows, for curves, and for changes if a goal is missed.
fn put_aside(search: &Search<'_>, pools: &Pools, ask: &Ask) -> f64 {
    let firsts: Vec<&Tried> = pools.iter().filter_map(|(_, pool)| pool.first()).collect();
    let rows: f64 = firsts.iter().map(|t| search.to_settle(std::iter::once(*t))).sum();
    let alone: Vec<Tried> = alone(search.lab).into_iter().map(Tried::new).collect();
    let missed = firsts.iter().all(|t| t.score(search.lab).missed > 0);
    (rows + search.to_settle(alone.iter())) * MARGIN + ask.events_each() * kept(ask, missed)
}

/// Share of the budget that is reserved for the last steps.
fn kept(ask: &Ask, missed: bool) -> f64 {
    let curves = if ask.curves { CURVES } else { 0.0 };
    curves + if missed { CHANGES } else { 0.0 }
}

/// The best of the ways of sharing one GPU, after runs under every seed for each.
fn best_of(search: &mut Search<'_>, rows: &Rows) -> Option<Placed> {
    let mut best: Option<Placed> = None;
    for mut pending in rows.iter().filter_map(|r| r.as_ref().ok()).cloned() {
        for m in pending.members.iter_mut().filter(|m| m.mechanism != Mechanism::Krisp) {
            while m.tried.long.len() < SEEDS && search.lengthen(&mut m.tried) {}
            let score = fleet::together(search.lab, std::slice::from_ref(m));
            if best.as_ref().is_none_or(|(least, _)| score < *least) {
                best = Some((score, vec![m.clone()]));
            }
        }
    }
    best
}

/// A row for each number of GPUs above one, in ascending order, since each search begins with the result for
/// fewer GPUs; and the best deployment on fewer GPUs than were asked for.
fn on_several(search: &mut Search<'_>, ask: &Ask, one: Option<Placed>) -> (Rows, Option<Pending>) {
    let (low, high) = ask.gpus;
    let mut known = Known::new(one.as_ref());
    let (mut fewer, mut rows) = (one, vec![]);
    for gpus in 2..=high {
        let way = format!("{gpus} GPUs");
        let asked = gpus >= low;
        let all_kept = fewer.as_ref().is_some_and(|(score, _)| score.missed == 0);
        if !asked && (all_kept || search.spent() > ask.events() * ENOUGH) {
            continue;
        }
        if gpus > low && search.spent() > ask.events() * ENOUGH {
            let why = "not looked at: the budget is spent (--budget)".to_owned();
            rows.push(Err(Box::new(impossible(&way, None, why))));
            continue;
        }
        let budget = ask.events_each() * FLEET * gpus.min(FULL_FLEET) as f64;
        let found = fleet::place(search, gpus, budget, &mut known);
        let missed = |placed: &Option<Placed>| placed.as_ref().map(|(score, _)| score.missed);
        if asked {
            rows.extend(found.map(|(_, members)| Ok(Pending::new(way, members))));
        } else if fewer.is_none() || found.is_some() && missed(&found) < missed(&fewer) {
            fewer = found;
        }
    }
    (rows, fewer.map(|(_, members)| of_fewer(search.lab, members)))
}

/// A row for fewer GPUs than were asked for.
fn of_fewer(lab: &Lab, members: Vec<Member>) -> Pending {
    let way = match members.as_slice() {
        [one] => one.mechanism.name_on(&lab.setup.device).to_owned(),
        more => format!("{} GPUs", more.len()),
    };
    Pending::new(way, members)
}

/// A row for the plan of a published planner.
fn planned(search: &mut Search<'_>, planner: Planner) -> Result<Pending, Box<Row>> {
    let plan = planner.plan(search.lab, search.threads).and_then(|plan| {
        let member = |c: Candidate| {
            let mechanism = match &c.how {
                How::Deploy(Sharing::Mig { .. }) => Mechanism::Mig,
                _ => Mechanism::Percent,
            };
            Ok(Member { mechanism, tried: search.measure(c, 1)? })
        };
        plan.into_iter().map(member).collect::<Result<Vec<Member>, String>>()
    });
    match plan {
        Ok(members) => Ok(Pending { reference: true, ..Pending::new(planner.name(), members) }),
        Err(why) => Err(Box::new(impossible(planner.name(), None, why))),
    }
}

/// Gives every row the same number of runs, its headroom and the cost of its neighbours: the best rows first,
/// as far as the budget goes. The choice gets them in any case. The rest of the budget goes to goals that the
/// runs leave undecided. If in the end a goal is missed that `spare`, on fewer GPUs than were asked for,
/// keeps, `spare` becomes a row, too: GPUs may stay empty, and one GPU more never loses a goal.
fn finish(
    search: &mut Search<'_>,
    mut pending: Rows,
    mut spare: Option<Pending>,
    ask: &Ask,
) -> Vec<Row> {
    let mut rows: Vec<Option<Row>> = vec![None; pending.len()];
    let mut too_much = vec![false; pending.len()];
    loop {
        // Ranked by what is known now: more runs may change the order.
        let now: Vec<Row> = pending.iter().map(|p| so_far(p, search, ask)).collect();
        let ranked = order(&now);
        let best = ranked.first().copied();
        let missed = best.is_some_and(|i| now[i].goals_met < now[i].goals);
        let most = ask.events() * (1.0 - kept(ask, missed));
        let behind = (0..pending.len()).filter(|i| !ranked.contains(i));
        let all: Vec<usize> = ranked.iter().copied().chain(behind).collect();
        let open = |i: &usize| {
            pending[*i].is_ok() && rows[*i].is_none() && (!too_much[*i] || best == Some(*i))
        };
        let settle = all.iter().copied().find(open);
        let Some(next) = settle.or_else(|| undecided(search, &pending, &rows, &all)) else {
            let least = best.and_then(|i| now[i].score).map_or(usize::MAX, |s| s.missed);
            let fewer =
                spare.take().filter(|p| fleet::together(search.lab, &p.members).missed < least);
            let Some(fewer) = fewer else { break };
            pending.push(Ok(fewer));
            rows.push(None);
            too_much.push(false);
            continue;
        };
        let Ok(p) = &mut pending[next] else { break };
        let (seeds, cost) = match &rows[next] {
            None => (SEEDS, search.to_settle(p.members.iter().map(|m| &m.tried))),
            Some(row) => (row.seeds + 1, search.to_lengthen(&p.members)),
        };
        let must = rows[next].is_none() && best == Some(next);
        if !must && search.spent() + cost > most {
            match &mut rows[next] {
                Some(row) => row.closed = true,
                None => too_much[next] = true,
            }
            continue;
        }
        let mut closed = seeds >= MOST_SEEDS;
        for m in &mut p.members {
            while m.tried.long.len() < seeds && !closed {
                closed |= !search.lengthen(&mut m.tried);
            }
        }
        let row = row(search, &p.way, &p.members, ask, true);
        rows[next] = Some(Row { reference: p.reference, closed, ..row });
    }
    let rest = pending.iter().map(|p| so_far(p, search, ask));
    rows.into_iter().zip(rest).map(|(row, rest)| row.unwrap_or(rest)).collect()
}

/// The settled row that should get another run: the choice first, then the row with the longest goal that its
/// runs leave undecided.
fn undecided(
    search: &Search<'_>,
    pending: &Rows,
    rows: &[Option<Row>],
    ranked: &[usize],
) -> Option<usize> {
    let lab = search.lab;
    let open = ranked.iter().copied().filter(|&i| {
        // A row for comparison is never chosen.
        let row = rows[i].as_ref().filter(|r| r.settled && !r.closed && !r.reference);
        row.is_some_and(|r| r.tenants.iter().any(|t| t.undecided))
    });
    let longest = |i: usize| {
        let members = pending[i].as_ref().map_or(&[][..], |p| &p.members);
        let all = members.iter().flat_map(|m| (0..m.tried.c.tenants.len()).map(move |i| (m, i)));
        let goals = all.filter(|(m, i)| super::row::undecided(lab, &m.tried, *i));
        goals.filter_map(|(m, i)| lab.goal(m.tried.c.tenants[i])).map(Goal::longest).max()
    };
    // Among equals, the best.
    let key = |&i: &usize| (ranked.first() == Some(&i), longest(i));
    open.rev().max_by_key(key)
}

/// A row from the runs made so far.
fn so_far(pending: &Result<Pending, Box<Row>>, search: &Search<'_>, ask: &Ask) -> Row {
    match pending {
        Ok(p) => {
            let row = row(search, &p.way, &p.members, ask, false);
            Row { reference: p.reference, ..row }
        }
        Err(row) => Row::clone(row),
    }
}

/// The best candidate after the first short runs, in one line.
fn first_words(lab: &Lab, pools: &[(Mechanism, Vec<Tried>)]) -> Option<String> {
    let tops = pools.iter().filter(|(m, _)| *m != Mechanism::Krisp);
    let tops = tops.filter_map(|(m, p)| p.first().map(|t| (*m, t.score(lab))));
    let tops = tops.filter(|(_, score)| *score != Score::NOTHING);
    let best = tops.min_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal))?;
    let state = match best.1.missed {
        0 => "meets every goal".to_owned(),
        n => format!("misses {n}"),
    };
    Some(format!("first answer: {} {state} in short runs", best.0.name_on(&lab.setup.device)))
}

fn fits_nowhere(lab: &Lab, t: usize) -> String {
    // A model that generates tokens needs room for its cache as well.
    let most = if lab.generates(t) { MOST_MEMORY } else { 1.0 };
    let need = lab.model_memory(t, 1).0 + lab.setup.costs.context_memory.0;
    let devices = cotenant_profiles::Device::builtin_names().filter_map(|name| {
        let size = cotenant_profiles::Device::builtin(name).ok()?.memory.capacity;
        (size.0 as f64 * most > need as f64).then_some((size, name))
    });
    let mut bigger: Vec<(Bytes, &str)> = devices.collect();
    bigger.sort();
    format!(
        "{} needs {:#} for `{}` and a context, more than {} has ({:#}); {}",
        lab.name(t),
        Bytes(need),
        lab.setup.tenants[t].model.name,
        lab.setup.device.title,
        lab.setup.device.memory.capacity,
        match bigger.as_slice() {
            [] => "no device that ships is large enough".to_owned(),
            some => {
                let more = if some.len() > NEAREST { ", and larger ones" } else { "" };
                let near = some.iter().take(NEAREST);
                let near: Vec<String> =
                    near.map(|(size, name)| format!("{name} ({size:#})")).collect();
                format!("the smallest that hold it: {}{more}", near.join(", "))
            }
        }
    )
}

fn conclude(lab: &Lab, rows: Vec<Row>) -> Concluded {
    let order = order(&rows);
    let choice = order.first().copied();
    let runner_up = order.get(1).copied();
    let (why, flips) = choice
        .map_or_else(Default::default, |c| (why(lab, &rows, &order, c), flips(&rows, &order, c)));
    let out_of_reach = choice.map_or_else(Vec::new, |c| {
        let served = rows[c].tenants.iter().filter(|t| t.met == Some(false));
        served.map(|t| missed(lab, t)).collect()
    });
    Concluded { rows, choice, why, runner_up, flips, out_of_reach }
}

/// What follows from the rows.
pub(super) struct Concluded {
    pub(super) rows: Vec<Row>,
    pub(super) choice: Option<usize>,
    why: String,
    runner_up: Option<usize>,
    flips: String,
    out_of_reach: Vec<Missed>,
}

fn asked(lab: &Lab, t: usize) -> Asked {
    Asked {
        name: lab.name(t).to_owned(),
        model: lab.mix.point.tenants[t].model.clone(),
        rate_rps: lab.mix.rate(t),
        goal_ms: lab.slo(t).map(|slo| slo.as_millis_f64()),
        goal: lab.goal(t).map(Goal::words),
        best_effort: lab.best_effort(t),
        isolated_p95_ms: lab.isolated[t].map(|i| i.p95.as_millis_f64()),
        source: lab.sources[t].0,
        source_words: lab.sources[t].1.clone(),
        published_error: super::published::error(lab, t),
    }
}

fn missed(lab: &Lab, t: &Served) -> Missed {
    let index = lab.all().into_iter().find(|&i| lab.name(i) == t.tenant);
    let goal = index.and_then(|i| lab.goal(i)).map_or_else(String::new, Goal::words);
    let mean = |i: Option<super::row::Interval>| i.map(|i| i.mean);
    Missed {
        tenant: t.tenant.clone(),
        goal,
        goal_ms: t.goal_ms,
        p99_ms: mean(t.p99_ms),
        ttft_p99_ms: mean(t.ttft_p99_ms),
        tpot_p99_ms: mean(t.tpot_p99_ms),
        overloaded: t.overloaded,
        attained: t.attained,
        requests: t.requests,
    }
}

impl Answer {
    /// The plan that deploys the choice.
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
            let ms = |i: Option<super::row::Interval>| {
                i.map_or_else(|| "-".to_owned(), |p| format!("{:.2} ms", p.mean))
            };
            let goal = match (t.goal_ms, t.goal_ttft_ms, t.goal_tpot_ms) {
                (Some(goal), ..) => format!("goal {goal} ms"),
                (_, Some(first), Some(each)) => format!(
                    "p99 to the first token {}, goal {first} ms, per token {}, goal {each} ms",
                    ms(t.ttft_p99_ms),
                    ms(t.tpot_p99_ms)
                ),
                _ => "no goal".to_owned(),
            };
            let p99 = ms(t.p99_ms);
            header
                .push(format!("expected: {} p99 {p99}, {goal}, {:.1} requests/s", t.tenant, t.rps));
        }
        let sources: std::collections::BTreeSet<&str> =
            self.tenants.iter().map(|t| t.source).collect();
        let sources: Vec<&str> = sources.into_iter().collect();
        header.push(format!(
            "numbers: simulated from {} profiles with --budget {}s --seeds {}; measure before you rely on them",
            sources.join(" and "),
            self.budget_each.as_secs_f64(),
            row.seeds
        ));
        Some(Plan { device: self.lab.setup.device.clone(), header, gpus: row.plan.clone() })
    }
}
