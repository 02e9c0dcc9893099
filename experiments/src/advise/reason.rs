//! Why a row is chosen, when another one would be, and what would meet the goals.

use cotenant_profiles::Nanos;

use super::answer::{Ask, Concluded, Curve, EVENTS_PER_SECOND};
use super::fleet::{self, Known, Member};
use super::lab::Lab;
use super::mix::Mix;
use super::row::{Row, Served, words};
use super::screen;
use super::search::{Score, Search, keeps};
use super::space::{Group, Mechanism, Space};

/// Rows that may be chosen, best first.
pub(super) fn order(rows: &[Row]) -> Vec<usize> {
    let free = |r: &Row| r.impossible.is_none() && !r.reference && !r.plan.is_empty();
    let mut order: Vec<usize> = (0..rows.len()).filter(|&i| free(&rows[i])).collect();
    let key = |i: usize| {
        let r = &rows[i];
        let s = r.score.unwrap_or(Score::NOTHING);
        // Rows are ordered from simple to involved.
        (s.missed, r.gpus, (s.worst * 50.0).round(), (s.lost * 20.0).round(), i)
    };
    order.sort_by(|&a, &b| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal));
    // Of two that keep every goal, the one that breaks under a little more load comes after the one with room
    // for it.
    let room = |i: usize| rows[i].headroom.filter(|_| rows[i].settled);
    let alike = |i: usize| {
        let (missed, gpus, worst, lost, _) = key(i);
        (missed, gpus, worst, lost)
    };
    if let Some(&first) = order.first()
        && room(first).is_some_and(|h| h < ROOM)
        && let Some(at) = order
            .iter()
            .position(|&i| alike(i) == alike(first) && room(i).is_some_and(|h| h >= ROOM))
    {
        let better = order.remove(at);
        order.insert(0, better);
    }
    order
}

/// Headroom below which goals are kept only just.
const ROOM: f64 = 1.1;

/// The reason for the choice, in one sentence.
pub(super) fn why(lab: &Lab, rows: &[Row], order: &[usize], choice: usize) -> String {
    let row = &rows[choice];
    let cost = super::table::worst(row);
    let cost = cost.map_or_else(String::new, |(factor, whose)| {
        format!("; p99 at most {factor:.2} times that alone: {whose}")
    });
    let busy = row.cu_utilization * 100.0;
    let busy = format!("{}: CUs busy {busy:.0} % of the time{cost}", bound(lab, row));
    if row.goals == 0 {
        return format!("the one that loses least to sharing; no tenant has a goal; {busy}");
    }
    if row.goals_met < row.goals {
        let closest = row.score.map_or(0.0, |s| s.ratio);
        return format!(
            "the closest of those that miss a goal: {} of {}, with a p99 up to {} times a goal; {busy}",
            row.goals - row.goals_met,
            row.goals,
            crate::text::rounded(Some(closest)),
        );
    }
    let same =
        order.iter().filter(|&&i| rows[i].goals_met == rows[i].goals && rows[i].gpus == row.gpus);
    let n = same.count();
    let spare: Vec<&Served> = row.tenants.iter().filter(|t| t.met.is_none()).collect();
    let aside = match spare.as_slice() {
        [] => String::new(),
        some => {
            let rps: f64 = some.iter().map(|t| t.rps).sum();
            format!(", with {rps:.0} requests/s left for the others")
        }
    };
    if n == 1 {
        return format!("the only way on {} that meets every goal{aside}; {busy}", gpus(row.gpus));
    }
    format!("the simplest of the best among {n} ways that meet every goal{aside}; {busy}")
}

fn gpus(n: usize) -> String {
    crate::text::count(n, "GPU")
}

/// Under what conditions something else would be better.
pub(super) fn flips(rows: &[Row], order: &[usize], choice: usize) -> String {
    let row = &rows[choice];
    let Some(room) = row.headroom else {
        return "without goals nothing makes it flip but another measure".to_owned();
    };
    if room <= 0.0 {
        return "the goals hold at no load that was tried".to_owned();
    }
    let breaks = match room < 1.0 {
        true => format!("its goals hold up to {room:.2} times the load"),
        false => format!("beyond {room:.2} times the load a goal breaks"),
    };
    let more = order
        .iter()
        .filter(|&&i| i != choice && rows[i].headroom.is_some_and(|h| h > room * 1.05))
        .max_by(|&&a, &&b| {
            rows[a].headroom.partial_cmp(&rows[b].headroom).unwrap_or(std::cmp::Ordering::Equal)
        });
    match more {
        Some(&i) => format!(
            "{breaks}; {} holds to {:.2} times",
            rows[i].way,
            rows[i].headroom.unwrap_or(0.0)
        ),
        None if room >= 16.0 => "no goal breaks at up to 16 times the load".to_owned(),
        None => {
            // Headrooms are accurate to a tenth.
            let longer = order.iter().any(|&i| rows[i].headroom.is_some_and(|h| h > room));
            let much = if longer { "much " } else { "" };
            format!("{breaks}, and nothing else here holds {much}longer")
        }
    }
}

/// Loads of the curves: `LOW` up to the mix's load, then `HIGH` steps up to the end of the curves.
const LOW: [f64; 3] = [0.25, 0.5, 1.0];
const HIGH: u32 = 7;
/// The end of the curves: this multiple of the load at which the last goal breaks, within `ENDS` times the
/// mix's load.
const BEYOND: f64 = 1.3;
const ENDS: (f64, f64) = (2.0, 16.0);

fn loads(rows: &[&Row]) -> Vec<f64> {
    let last = rows.iter().filter_map(|r| r.headroom).fold(0.0, f64::max);
    let end = (last * BEYOND).clamp(ENDS.0, ENDS.1);
    let step = |i: u32| 1.0 + (end - 1.0) * f64::from(i) / f64::from(HIGH);
    // Rounded for readability.
    let high = (1..=HIGH).map(|i| (step(i) * 20.0).round() / 20.0);
    LOW.into_iter().chain(high).collect()
}

pub(super) fn curves(search: &Search<'_>, rows: &[Row], ask: &Ask) -> Vec<Curve> {
    let lab = search.lab;
    if lab.all().into_iter().all(|t| lab.goal(t).is_none()) {
        return vec![];
    }
    let mut all: Vec<Curve> = vec![];
    let best: Vec<&Row> = order(rows).into_iter().take(3).map(|i| &rows[i]).collect();
    let loads = loads(&best);
    let mut cost = 0.0;
    for row in best {
        // The curve of the choice is always computed.
        if !all.is_empty() && search.spent() + cost > ask.events() {
            break;
        }
        let before = search.spent();
        let at = |load: f64| {
            row.members.iter().map(|m| search.ratio_at(&m.tried, load)).fold(0.0, f64::max)
        };
        let points = loads.iter().map(|&l| (l, at(l))).collect();
        all.push(Curve { way: row.way.clone(), points });
        cost = search.spent() - before;
    }
    all
}

/// Devices to try if one GPU is not enough, the cheapest first.
const OTHERS: [&str; 5] = ["a30", "a100-sxm-40", "a100-sxm-80", "h100-sxm", "h200-sxm"];

/// Changes that would meet the goals, each tried by a short search of its own, as far as the budget goes.
pub(super) fn changes(search: &Search<'_>, found: &Concluded, ask: &Ask) -> Vec<String> {
    let lab = search.lab;
    let mut changes = vec![];
    let (begin, most) = (search.spent(), ask.events() * 0.15);
    let left = || search.spent() < (begin + most).max(ask.events());
    let budget = EVENTS_PER_SECOND.min(most / 2.0);
    let mut asked_all = true;
    if let Some(load) =
        found.choice.and_then(|c| found.rows[c].headroom).filter(|h| *h > 0.0 && *h < 1.0)
    {
        changes.push(format!("at {load:.2} times the load the goals hold as it is"));
    }
    let try_mix = |mix: Mix| {
        let lab = Lab::new(mix, lab.cells.clone()).ok()?;
        if !below_alone(&lab).is_empty() {
            return None;
        }
        let mut search = Search::new(&lab, Space::default(), ask.threads, budget);
        let group = Group::all(&lab);
        let pools = search.first(&group, &Mechanism::ALL, budget * 0.4);
        let member = search.settle_one(pools, budget)?;
        kept(&lab, &member).then(|| {
            format!(
                "{} ({})",
                member.mechanism.name_on(&lab.setup.device),
                words(&lab, &member.tried.c)
            )
        })
    };
    // No GPU of this kind meets a goal below the model's latency when alone.
    let below = below_alone(lab);
    if below.is_empty()
        && lab.mix.fixed_batch.contains(&true)
        && let Some(way) = try_mix(lab.mix.with_open_batches())
    {
        changes.push(format!("other batch sizes meet them: {way}"));
    }
    let more = if below.is_empty() { 2 } else { 0 };
    for gpus in ask.gpus.1 + 1..=ask.gpus.1 + more {
        if !left() {
            asked_all = false;
            break;
        }
        let mut search = Search::new(lab, Space::default(), ask.threads, budget);
        let members = fleet::place(&mut search, gpus, budget, &mut Known::default());
        let Some((_, members)) = members else { continue };
        if members.iter().all(|m| kept(lab, m)) {
            changes.push(format!("{gpus} GPUs of this kind meet them"));
            break;
        }
    }
    if ask.gpus.1 == 1 {
        let own = &lab.setup.device;
        for name in OTHERS {
            let better = cotenant_profiles::Device::builtin(name).is_ok_and(|d| {
                d.compute.fp16_tflops > own.compute.fp16_tflops
                    || d.memory.dram_gbps > own.memory.dram_gbps
            });
            if !better || name == own.name {
                continue;
            }
            if !left() {
                asked_all = false;
                break;
            }
            let way = lab.mix.on(name).ok().and_then(try_mix);
            if let Some(way) = way {
                changes.push(format!("one {name} meets them: {way}"));
                break;
            }
        }
    }
    for (t, slo, alone) in below.into_iter().rev() {
        let rounded = crate::text::rounded(Some(alone.as_millis_f64()));
        let (name, title) = (lab.name(t), &lab.setup.device.title);
        let what =
            format!("{name} takes {rounded} ms alone on {title}: no sharing there meets {slo}");
        changes.insert(0, what);
    }
    match (changes.is_empty(), asked_all) {
        (true, true) => changes
            .push("none of: other batches, two more GPUs, another device that ships".to_owned()),
        (_, true) => {}
        (_, false) => changes.push("a larger --budget looks at more".to_owned()),
    }
    changes
}

/// Whether every goal of one GPU is kept in its runs.
fn kept(lab: &Lab, m: &Member) -> bool {
    keeps(lab, &m.tried.c.tenants, &m.tried.samples())
}

/// Goals for whole answers that are below the model's latency when alone, with both times.
fn below_alone(lab: &Lab) -> Vec<(usize, Nanos, Nanos)> {
    let goals = lab.all().into_iter().filter_map(|t| Some((t, lab.slo(t)?, lab.isolated[t]?.p95)));
    goals.filter(|(_, slo, alone)| slo < alone).collect()
}

/// What limits a row's batches: their hosts, or the GPU.
fn bound(lab: &Lab, row: &Row) -> &'static str {
    let tenants = row.members.iter().flat_map(|m| {
        let c = &m.tried.c;
        c.tenants.iter().copied().zip(c.batch.iter().copied())
    });
    let host = |(t, batch): (usize, u32)| {
        let (gpu, host) = screen::batch_ns(lab, t, batch, screen::Place::whole(&lab.setup));
        host > gpu
    };
    let all: Vec<bool> = tenants.map(host).collect();
    match (all.contains(&true), all.contains(&false)) {
        (true, false) => "host-bound",
        (false, true) => "GPU-bound",
        _ => "partly host-bound",
    }
}
