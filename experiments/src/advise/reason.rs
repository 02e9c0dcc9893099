//! Why a row is chosen, when another would be, and what would meet the goals.

use super::answer::{Ask, Concluded, Curve, EVENTS_PER_SECOND};
use super::fleet::{self, Known};
use super::lab::Lab;
use super::mix::Mix;
use super::row::{Row, Served, words};
use super::search::{Score, Search};
use super::space::{Group, Mechanism, Space};

/// Rows that may be chosen, best first.
pub(super) fn order(rows: &[Row]) -> Vec<usize> {
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

/// One sentence.
pub(super) fn why(rows: &[Row], order: &[usize], choice: usize) -> String {
    let row = &rows[choice];
    let busy = format!("its CUs are busy {:.0} % of the time", row.cu_utilization * 100.0);
    if row.goals == 0 {
        return format!("the one that loses least to sharing; no tenant has a goal ({busy})");
    }
    if row.goals_met < row.goals {
        let closest = row.score.map_or(0.0, |s| s.ratio);
        return format!(
            "the closest of those that miss a goal: {} of {}, with a p99 up to {closest:.2} times a goal \
             ({busy})",
            row.goals - row.goals_met,
            row.goals
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
        return format!("the only way on {} that meets every goal{aside} ({busy})", gpus(row.gpus));
    }
    format!("the simplest of the best among {n} ways that meet every goal{aside} ({busy})")
}

fn gpus(n: usize) -> String {
    crate::text::count(n, "GPU")
}

/// When something else would be better.
pub(super) fn flips(rows: &[Row], order: &[usize], choice: usize) -> String {
    let row = &rows[choice];
    let Some(room) = row.headroom else {
        return "without goals nothing makes it flip but another measure".to_owned();
    };
    if room <= 0.0 {
        return "the goals hold at no load that was tried".to_owned();
    }
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

pub(super) fn curves(search: &Search<'_>, rows: &[Row], ask: &Ask) -> Vec<Curve> {
    let lab = search.lab;
    if lab.all().into_iter().all(|t| lab.goal(t).is_none()) {
        return vec![];
    }
    let mut all: Vec<Curve> = vec![];
    for i in order(rows).into_iter().take(3) {
        // That of the choice in any case.
        if !all.is_empty() && search.spent() > ask.events() {
            break;
        }
        let row = &rows[i];
        let at = |load: f64| {
            row.members.iter().map(|m| search.ratio_at(&m.tried, load)).fold(0.0, f64::max)
        };
        let points = LOADS.iter().map(|&l| (l, at(l))).collect();
        all.push(Curve { way: row.way.clone(), points });
    }
    all
}

/// Devices that are asked about where one GPU does not do, the cheapest first.
const OTHERS: [&str; 5] = ["a30", "a100-sxm-40", "a100-sxm-80", "h100-sxm", "h200-sxm"];

/// What would meet the goals, each tried by a short search of its own, as far as the budget goes.
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
        let mut search = Search::new(&lab, Space::default(), ask.threads, budget);
        let group = Group::all(&lab);
        let pools = search.first(&group, &Mechanism::ALL, budget * 0.4);
        let member = search.settle_one(pools, budget)?;
        (member.tried.score(&lab).missed == 0)
            .then(|| format!("{} ({})", member.mechanism.name(), words(&lab, &member.tried.c)))
    };
    if lab.mix.fixed_batch.contains(&true)
        && let Some(way) = try_mix(lab.mix.with_open_batches())
    {
        changes.push(format!("other batch sizes meet them: {way}"));
    }
    for gpus in ask.gpus.1 + 1..=ask.gpus.1 + 2 {
        if !left() {
            asked_all = false;
            break;
        }
        let mut search = Search::new(lab, Space::default(), ask.threads, budget);
        let members = fleet::place(&mut search, gpus, budget, &mut Known::default());
        let Some(members) = members else { continue };
        if fleet::together(lab, &members).missed == 0 {
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
    // A goal below what the model takes alone is met by nothing here.
    for t in lab.all() {
        if let (Some(slo), Some(alone)) = (lab.slo(t), lab.isolated[t])
            && slo < alone.p95
        {
            changes.push(format!(
                "{} takes {} alone on {}: no sharing meets {}",
                lab.name(t),
                alone.p95,
                lab.setup.device.title,
                slo
            ));
        }
    }
    match (changes.is_empty(), asked_all) {
        (true, true) => changes
            .push("none of: other batches, two more GPUs, another device that ships".to_owned()),
        (_, true) => {}
        (_, false) => changes.push("a larger --budget looks at more".to_owned()),
    }
    changes
}
