//! `cotenant run --dry-run`: reports what would run and what would fail, without running it.

use std::collections::BTreeMap;

use cotenant_sim::layout::{Layout, Role};
use cotenant_sim::scenario::Setup;

use crate::config::Grid;
use crate::fail::{Done, Failure};
use crate::say;
use crate::study::survey::{Extras, Survey, survey};
use crate::study::{advice, compute::threads, inputs};
use crate::text::{align, count, rounded};

/// Most points whose layouts are checked: if there are more, the first ones stand for the rest.
const POINTS: usize = 500;

/// Prints cells, layouts, memory, time, and the first problem of each kind.
///
/// # Errors
/// Bad input; an impossible layout: status 1.
pub(crate) fn run(grid: Grid, extras: Extras, jobs: usize) -> Done {
    let Survey { study, run, mut preparer, .. } =
        survey(grid, extras, 1, inputs::build).map_err(Failure::Input)?;
    run.warnings.iter().for_each(|w| say::warn(w));
    let (points, cells) = (study.grid.len(), study.cells.len());
    let mut rows: Vec<Vec<String>> = vec![];
    let mut problems: BTreeMap<String, usize> = BTreeMap::new();
    for p in 0..points.min(POINTS) {
        let e = study.grid.at(p).map_err(Failure::Input)?;
        let point = &e.point;
        let facts = preparer.facts(&e, point).map_err(Failure::Input)?;
        let ready = facts.compile(&e.base, point).map_err(Failure::Input)?;
        for policy in &point.policies {
            for (gpu, setup, _) in ready.each_gpu() {
                let built = (policy.info.build)(&policy.options).map_err(Failure::input)?;
                let mut built = built;
                let row = match built.layout(setup) {
                    Ok(layout) => describe(setup, &layout),
                    Err(why) => Row { problem: Some(why.to_string()), ..Row::default() },
                };
                let label = match gpu {
                    Some(gpu) => format!("{}, GPU {gpu}", policy.label),
                    None => policy.label.clone(),
                };
                if let Some(problem) = &row.problem {
                    *problems.entry(format!("{label}: {problem}")).or_default() += 1;
                }
                if p == 0 {
                    let status = row.problem.unwrap_or_else(|| "ok".to_owned());
                    rows.push(vec![label, row.workers, row.places, row.memory, status]);
                }
            }
        }
    }
    let head = study.grid.head();
    let policies = cells / (points * head.seeds.len()).max(1);
    let computed = (0..cells).filter(|&i| study.first_of(i) == i).count();
    let mut text = format!(
        "{}: {} ({} × {} × {}), of which {computed} differ and are computed\n",
        run.name,
        count(cells, "cell"),
        count(points, "point"),
        if policies == 1 { "1 policy".to_owned() } else { format!("{policies} policies") },
        count(head.seeds.len(), "repeat"),
    );
    text += &format!("each simulates {} after a warm-up of {}", run.duration, run.warmup);
    let (wants, threads) = (study.wants, threads(jobs));
    text += &match advice::sample(study, preparer) {
        times if times.is_empty() => "; a cell takes longer than a few seconds\n".to_owned(),
        times => {
            let mean = times.iter().sum::<f64>() / times.len() as f64;
            let all = mean * computed as f64 / threads as f64;
            format!("; about {} on {}\n", advice::length(all), count(threads, "thread"))
        }
    };
    if wants.requests || wants.timeline {
        text += "requests or timelines of every cell are written, which may be large\n";
    }
    text += "\n";
    text += &align(&["policy", "workers", "places", "memory GiB", "layout"], &rows);
    if points > 1 {
        text += &format!("(at the first of {points} points)\n");
    }
    say::out(&text)?;
    let list: Vec<String> = problems
        .iter()
        .map(|(what, n)| if *n > 1 { format!("{what} ({n} points)") } else { what.clone() })
        .collect();
    if list.is_empty() { Ok(()) } else { Err(Failure::failed(list.join("\n"))) }
}

/// The layout of a policy.
#[derive(Default)]
struct Row {
    workers: String,
    places: String,
    memory: String,
    problem: Option<String>,
}

fn describe(setup: &Setup, layout: &Layout) -> Row {
    let mut used = vec![0_u64; layout.pools.len()];
    for worker in &layout.workers {
        // The half of an engine that generates tokens is in the process of its other half.
        if worker.role != Role::Decode {
            let total = layout.pools[worker.pool as usize].memory;
            used[worker.pool as usize] += setup.worker_memory(worker, total).0;
        }
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let mut memory = vec![];
    let mut problem = None;
    for (pool, &used) in layout.pools.iter().zip(&used) {
        memory.push(format!(
            "{} of {}",
            rounded(Some(gib(used))),
            rounded(Some(gib(pool.memory.0)))
        ));
        if used > pool.memory.0 && problem.is_none() {
            problem = Some(format!(
                "out of memory: {} GiB are needed, the place has {}",
                rounded(Some(gib(used))),
                rounded(Some(gib(pool.memory.0)))
            ));
        }
    }
    memory.dedup();
    let places = layout.pools.iter().map(|pool| match pool.lanes.as_slice() {
        [one] if *one == pool.cus => format!("{} CUs", pool.cus),
        lanes => {
            let lanes: Vec<String> = lanes.iter().map(u32::to_string).collect();
            format!("{} CUs as {}", pool.cus, lanes.join("+"))
        }
    });
    let mut caps: Vec<u32> = layout.workers.iter().map(|w| w.cap).collect();
    caps.sort_unstable();
    caps.dedup();
    let cus = setup.device.cus();
    let caps = if caps.iter().all(|&c| c == cus) {
        String::new()
    } else {
        let caps: Vec<String> = caps.iter().map(u32::to_string).collect();
        format!(", at most {} CUs each", caps.join("/"))
    };
    Row {
        workers: format!("{}{caps}", layout.workers.len()),
        places: places.collect::<Vec<_>>().join(", "),
        memory: memory.join(", "),
        problem,
    }
}
