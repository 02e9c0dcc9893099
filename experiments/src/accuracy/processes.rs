//! Several processes of a model in one MIG instance, under MPS: ParvaGPU's table of an A100 80 GB.
//!
//! Two predictions of every cell. *Own latencies*: the latencies of a single process, imported as a
//! table (host part by `--launch-floor auto`), say how fast 1 to 5 processes are. *Layer shapes*: all of
//! it is computed. The instance is a device of its own, as its processes see it.

use std::sync::Arc;

use cotenant_profiles::import::{Input, LaunchFloor, TableOptions, table};
use cotenant_profiles::lower::{Config, Precision, lower};
use cotenant_profiles::{Device, Nanos, Profile, analytic, zoo};
use cotenant_sim::contention::{ContentionModel, DEFAULT};
use cotenant_sim::policy::{self, Options};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Class, Setup, Tenant, Think};
use cotenant_sim::{Load, Scenario};

use rayon::prelude::*;

use super::products::device;
use super::tables::csv;
use super::{Comparison, Data, Set};
use crate::ends::Ends;
use crate::fail::{Done, Failure};

/// The best number of processes, over all instances and batches of a model.
pub(super) struct Best {
    pub(super) model: String,
    pub(super) set: Set,
    pub(super) cells: usize,
    /// Cells in which the number that we like best measured at least 0.98 of the best.
    pub(super) right: usize,
    /// Mean share of the best throughput that our choice measured.
    pub(super) had: f64,
}

/// Their model, the zoo's, and what its rows were. BERT is the large one: its single process needs
/// 13.5 ms at batch 1 on every instance, 28 µs for each of 488 launches. Computed in TF32, the
/// default of the container (NGC PyTorch 21.11).
pub(super) const MODELS: [(&str, &str, Set); 3] = [
    ("resnet50", "resnet50", Set::Training),
    ("bert", "bert_large", Set::Training),
    ("vgg16", "vgg16", Set::Test),
];
const PRECISION: Precision = Precision::Tf32;
/// Batches that are simulated after so many that are not counted, at the pace of one process alone.
const BATCHES: u64 = 25;
const BEFORE: u64 = 4;
/// A choice that measures so much of the best counts as right: repeated measurements differ by more.
const AS_GOOD: f64 = 0.98;

/// Simulated throughputs this close are the same one.
const SAME: f64 = 0.999;

/// One measured cell: throughput of all processes, requests of one item per second.
pub(super) struct Cell {
    slices: u32,
    batch: u32,
    pub(super) processes: u32,
    pub(super) rps: f64,
}

pub(super) fn compare(data: &Data<'_>) -> Done<(Vec<Comparison>, Vec<Best>)> {
    let gpu = device("a100-sxm-80")?;
    let mut all = vec![];
    let mut best = vec![];
    for (theirs, ours, set) in MODELS {
        let cells = read(data, theirs)?;
        let own = own_latencies(&gpu, &cells, ours)?;
        let sources = [("own latencies", Source::Own(&own)), ("layer shapes", Source::Shapes)];
        for (words, source) in sources {
            let model = format!("{theirs} from {words}");
            let new = |what: &str| {
                Comparison::new(
                    "ParvaGPU",
                    "mps in a MIG instance",
                    format!("{model}, {what}"),
                    set,
                )
            };
            let (mut single, mut several) = (new("1 process"), new("2 to 5 processes"));
            let mut predicted = vec![];
            let all_predicted: Vec<Done<Option<f64>>> = cells
                .par_iter()
                .map(|cell| predict(&gpu, &cells, ours, source, cell, DEFAULT))
                .collect();
            for (cell, ours) in cells.iter().zip(all_predicted) {
                let (alone, ours) = (one(&cells, cell), ours?);
                let to = if cell.processes == 1 { &mut single } else { &mut several };
                match (ours, alone) {
                    (Some(ours), Some(alone)) => {
                        let times = alone * f64::from(cell.processes);
                        let naive = [("as many times one", times), ("as one", alone)];
                        let naive = if cell.processes == 1 { &[][..] } else { &naive[..] };
                        to.push(cell.rps, ours, naive);
                        predicted.push((cell, ours));
                    }
                    _ => to.failed += 1,
                }
            }
            best.push(choice(model, set, &predicted));
            all.extend([single, several]);
        }
    }
    Ok((all, best))
}

/// What a prediction starts from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The import of a single process's latencies.
    Own(&'a Profile),
    Shapes,
}

/// Cells that ran; those without memory have a throughput of 0.
pub(super) fn read(data: &Data<'_>, model: &str) -> Done<Vec<Cell>> {
    let path = data.at(&format!("parvagpu/prof_data/{model}.csv"));
    let columns = ["Mig instance", "Batch size", "Workload Number", "Throughput"];
    let mut cells = vec![];
    for row in csv(&path, &columns)?.iter() {
        let processes = row.count("Workload Number")?;
        let rps = row.number("Throughput")? * f64::from(processes);
        if rps > 0.0 {
            let (slices, batch) = (row.count("Mig instance")?, row.count("Batch size")?);
            cells.push(Cell { slices, batch, processes, rps });
        }
    }
    Ok(cells)
}

/// The throughput of one process in the same instance at the same batch.
pub(super) fn one(cells: &[Cell], like: &Cell) -> Option<f64> {
    let same = |c: &&Cell| (c.slices, c.batch, c.processes) == (like.slices, like.batch, 1);
    cells.iter().find(same).map(|c| c.rps)
}

fn choice(model: String, set: Set, predicted: &[(&Cell, f64)]) -> Best {
    let mut best = Best { model, set, cells: 0, right: 0, had: 0.0 };
    let mut places: Vec<(u32, u32)> = predicted.iter().map(|(c, _)| (c.slices, c.batch)).collect();
    places.dedup();
    for (slices, batch) in places {
        let here: Vec<&(&Cell, f64)> =
            predicted.iter().filter(|(c, _)| (c.slices, c.batch) == (slices, batch)).collect();
        if here.len() < 2 {
            continue;
        }
        let most = here.iter().map(|(c, _)| c.rps).fold(0.0, f64::max);
        let hoped = here.iter().map(|(_, ours)| *ours).fold(0.0, f64::max);
        // The fewest that are as fast in the simulation.
        let chosen = here.iter().find(|(_, ours)| *ours >= hoped * SAME);
        let share = chosen.map_or(0.0, |(c, _)| c.rps / most);
        best.cells += 1;
        best.right += usize::from(share >= AS_GOOD);
        best.had += share;
    }
    best.had /= best.cells.max(1) as f64;
    best
}

/// A MIG instance as the device that its processes see.
fn instance(gpu: &Device, slices: u32) -> Device {
    let name = format!("{slices}g");
    let profile = gpu.mig.as_ref().and_then(|m| m.profiles.iter().find(|p| p.name == name));
    profile.map_or_else(|| gpu.clone(), |p| gpu.mig_device(p))
}

/// Requests per second of all processes; `None`: they do not fit, or nothing is known.
pub(super) fn predict(
    gpu: &Device,
    cells: &[Cell],
    model: &str,
    source: Source<'_>,
    cell: &Cell,
    contention: &str,
) -> Done<Option<f64>> {
    let place = instance(gpu, cell.slices);
    let shapes;
    let profile = match source {
        Source::Own(profile) => profile,
        Source::Shapes => {
            let spec = zoo::find(model).map_err(Failure::failed)?;
            let options = analytic::Options {
                precision: PRECISION,
                executor: None,
                ..analytic::Options::default()
            };
            shapes = analytic::profile(&place, &[&spec], &[cell.batch], &options)
                .map_err(Failure::failed)?;
            &shapes
        }
    };
    let Some(alone) = one(cells, cell) else { return Ok(None) };
    let batch_s = f64::from(cell.batch) / alone;
    let mut code = Code::default();
    let Ok(compiled) = code.compile(profile, model, cell.batch, place.cus()) else {
        return Ok(None);
    };
    let tenant = Tenant {
        name: model.to_owned(),
        model: compiled,
        class: Class::Latency,
        slo: None,
        workers: cell.processes,
        batch_max: cell.batch,
        batch_timeout: Nanos::ZERO,
        generates: None,
        per_request_batches: false,
        drop_after: None,
    };
    let contention = ContentionModel::from_name(contention, &place)
        .ok_or_else(|| Failure::failed("no such contention model"))?;
    let costs = place.costs.clone();
    let setup = Setup { device: place, costs, code: code.into(), tenants: vec![tenant] };
    let load = Load::Closed {
        concurrency: cell.processes,
        think: Think::Constant(Nanos::ZERO),
        items: cell.batch,
        tokens: None,
        limit: None,
    };
    let each = batch_s * f64::from(cell.processes);
    let scenario = Scenario {
        setup: Arc::new(setup),
        loads: vec![load],
        warmup: Nanos::ZERO,
        duration: Nanos::from_secs_f64(each * (BEFORE + BATCHES) as f64),
        contention,
        jitter: None,
    };
    let mps = policy::find("mps").expect("the registry has mps");
    let mut policy =
        (mps.build)(&Options::default()).map_err(|e| Failure::failed(e.to_string()))?;
    let mut ends = Ends::default();
    if cotenant_sim::run(scenario, &mut *policy, Some(&mut ends)).is_err() {
        return Ok(None);
    }
    let skip = (BEFORE * u64::from(cell.processes)) as usize;
    Ok(ends.gap_ns(skip, cell.processes).map(|ns| 1e9 / ns * f64::from(cell.batch)))
}

/// The profile of a single process's latencies, as a user would import them.
pub(super) fn own_latencies(gpu: &Device, cells: &[Cell], model: &str) -> Done<Profile> {
    let spec = zoo::find(model).map_err(Failure::failed)?;
    let mut text = "model,batch,cus,latency_ms,kernels\n".to_owned();
    for cell in cells.iter().filter(|c| c.processes == 1) {
        let config = Config { batch: cell.batch, precision: PRECISION, fused: false };
        let kernels = lower(&spec, gpu, config).map_err(Failure::failed)?.launches.len();
        let ms = 1e3 * f64::from(cell.batch) / cell.rps;
        let cus = instance(gpu, cell.slices).cus();
        text += &format!("{model},{},{cus},{ms},{kernels}\n", cell.batch);
    }
    let options = TableOptions { launch_floor: LaunchFloor::Auto };
    let found = table(&Input { file: "parvagpu", text: &text }, gpu, &options);
    Ok(found.map_err(Failure::failed)?.profile)
}
