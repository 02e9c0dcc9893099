//! The search against brute force, and settings that are written and read back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cotenant_deploy::{Found, Sharing};
use cotenant_traces::rng::mix;

use std::sync::Arc;

use super::answer::{Answer, Ask};
use super::cells::Cells;
use super::check::row_of;
use super::lab::{Candidate, How, Lab};
use super::mix::Mix;
use super::planner::Planner;
use super::search::Search;
use super::space::{Group, Mechanism, Space};
use crate::fail::Failure;
use crate::study::stop::Stop;

fn ask() -> Ask {
    Ask {
        gpus: (1, 1),
        budget_s: 0.25,
        price: Some(2.0),
        threads: 1,
        curves: false,
        planners: vec![],
        study: None,
    }
}

/// Whether to run long searches in full, as in CI.
fn long() -> bool {
    std::env::var_os("COTENANT_LONG_TESTS").is_some()
}

fn cells() -> Arc<Cells> {
    Arc::default()
}

fn answer(mix: Mix, ask: &Ask) -> Answer {
    super::answer::answer(mix, ask, &cells(), &mut |_| {}).unwrap()
}

fn lab(models: &[&str], device: &str) -> Lab {
    let models: Vec<String> = models.iter().map(|&m| m.to_owned()).collect();
    Lab::new(Mix::of_models(&models, device).unwrap(), cells()).unwrap()
}

/// Every candidate of a mechanism over the grid of `space`, for two tenants.
fn grid(lab: &Lab, space: &Space, mechanism: Mechanism) -> Vec<Candidate> {
    let sharings: Vec<Sharing> = match mechanism {
        Mechanism::TimeSlicing => vec![Sharing::TURNS],
        Mechanism::Streams => vec![Sharing::Streams],
        Mechanism::Mps => vec![Sharing::Mps { percent: vec![100, 100] }],
        Mechanism::Static => {
            let n = lab.setup.device.mps.unwrap().chunks;
            (1..n).map(|c| Sharing::Static { chunks: vec![c, n - c] }).collect()
        }
        Mechanism::Mig => {
            let table = lab.setup.device.mig.as_ref().unwrap();
            let name = |p: usize| table.profiles[p].name.clone();
            let mut all = vec![];
            for a in 0..table.profiles.len() {
                for b in 0..table.profiles.len() {
                    let instances = vec![name(a), name(b)];
                    let names: Vec<&str> = instances.iter().map(String::as_str).collect();
                    if table.placements(&names).is_ok() {
                        all.push(Sharing::Mig {
                            instances,
                            place: vec![0, 1],
                            percent: vec![100; 2],
                        });
                    }
                }
            }
            all
        }
        _ => vec![],
    };
    let mut all = vec![];
    for sharing in sharings {
        for &a in &space.batches {
            for &b in &space.batches {
                all.push(Candidate {
                    tenants: vec![0, 1],
                    requests: vec![1.0; 2],
                    how: How::Deploy(sharing.clone()),
                    batch: vec![a, b],
                    tokens: vec![0; 2],
                    memory: vec![None; 2],
                    timeout: vec![cotenant_profiles::Nanos::ZERO; 2],
                    workers: vec![1, 1],
                });
            }
        }
    }
    all
}

#[test]
fn the_search_finds_what_brute_force_finds() {
    let space = Space::new(vec![1, 8], vec![1]);
    let models = ["squeezenet1_1", "mobilenet_v2", "alexnet", "resnet18"];
    let (mut compared, mut exact) = (0, 0);
    let mixes: u64 = if long() { 20 } else { 5 };
    for seed in 0..mixes {
        let pick = |k: u64, n: u64| mix(seed * 31 + k) % n;
        let tenant = |k: u64| {
            let model = models[pick(k, 4) as usize];
            let rate = 40 + pick(k + 1, 400);
            let slo = 3 + pick(k + 2, 12);
            format!("{model}@{rate}rps,slo={slo}ms,name=t{k},workers=1")
        };
        let (a, b) = (tenant(1), tenant(4));
        let lab = lab(&[&a, &b], "a30");
        // The share of the default budget for the climb on one GPU.
        let mut search = Search::new(&lab, space.clone(), 1, 8e6);
        let group = Group::all(&lab);
        let mut pools = search.first(&group, &Mechanism::ALL, 4e6);
        search.climb(&mut pools, 8e6);
        for (mechanism, pool) in &pools {
            let own = pool[0].score(&lab);
            let all = grid(&lab, &space, *mechanism);
            let scores = all.iter().filter_map(|c| search.short_score(c));
            let Some(least) = scores.min_by(|a, b| a.partial_cmp(b).unwrap()) else { continue };
            compared += 1;
            // As many goals, and the worst as close to its goal as matters to the search.
            let same = own.missed == least.missed && own.worst <= least.worst * 1.05;
            exact += usize::from(same);
            if !same {
                let name = mechanism.name();
                eprintln!("mix {seed} ({a} and {b}), {name}: {own:?}, brute force {least:?}");
            }
        }
    }
    assert!(compared >= 4 * mixes as usize && exact == compared, "{exact} of {compared}");
}

/// Compares the numbers that answers give for their settled rows with those that `check` finds for the files
/// emitted for them, for at least `least` rows.
fn emitted_checks(models: &[&str], device: &str, ask: &Ask, least: usize) {
    let models: Vec<String> = models.iter().map(|&m| m.to_owned()).collect();
    let mix = || Mix::of_models(&models, device).unwrap();
    let mut given = answer(mix(), ask);
    let rows = given.rows.iter().enumerate();
    // Other rows have fewer runs than `check` makes.
    let settled = rows.filter(|(_, r)| r.plan.len() == r.gpus && r.settled);
    let deploys: Vec<usize> = settled.map(|(i, _)| i).collect();
    assert!(deploys.len() >= least, "{deploys:?}");
    let mut alone = std::collections::BTreeSet::new();
    for i in deploys {
        given.choice = Some(i);
        let files = cotenant_deploy::emit(&given.plan().unwrap()).unwrap();
        let row = &given.rows[i];
        let same = |what: &str, some: &[&cotenant_deploy::File]| {
            let lab = Lab::new(mix(), given.lab.cells.clone()).unwrap();
            let mut found = Found::new(lab.setup.device.clone());
            for file in some {
                cotenant_deploy::read(&file.path, &file.text, &mut found).unwrap();
            }
            let back = row_of(&lab, &mut found, ask, row.seeds).unwrap();
            let what = format!("{} from {what}", row.way);
            assert_eq!(row.tenants.len(), back.tenants.len(), "{what}");
            for (own, read) in row.tenants.iter().zip(&back.tenants) {
                let p99 = |t: &super::row::Served| {
                    [t.p99_ms, t.ttft_p99_ms, t.tpot_p99_ms].map(|p| p.map(|p| p.mean))
                };
                assert_eq!(p99(own), p99(read), "{what}: {}", own.tenant);
                assert_eq!(own.goodput_rps, read.goodput_rps, "{what}: {}", own.tenant);
                assert_eq!((own.gpu, own.workers), (read.gpu, read.workers), "{what}");
            }
        };
        let all: Vec<_> = files.iter().filter(|f| !f.path.ends_with(".md")).collect();
        same("all files", &all);
        // Each format alone, with the batches that Triton and the engines are given, and the layout.
        let mig = matches!(row.plan[0].sharing, Sharing::Mig { .. });
        let alone_there =
            |g: &cotenant_deploy::Gpu| g.tenants.iter().map(|t| t.workers).sum::<u32>() < 2;
        if row.plan.iter().any(alone_there) {
            continue; // a tenant that shares nothing is under no mechanism
        }
        for (name, about) in FORMATS {
            let own: Vec<_> = all.iter().copied().filter(|f| about(&f.path)).collect();
            // Environments do not say which instance a process is on; without a script of the older commands
            // they belong to the newer ones.
            let script = own.iter().any(|f| f.path.ends_with(".sh"));
            if own.is_empty() || name.starts_with("mps") && (mig || !script) {
                continue;
            }
            let with = |f: &&&cotenant_deploy::File| {
                let p = &f.path;
                p.starts_with("triton/") || p.starts_with("engines/") || p == "mig-parted.yaml"
            };
            let rest = all.iter().filter(with).copied();
            same(name, &rest.chain(own).collect::<Vec<_>>());
            alone.insert(*name);
        }
    }
    eprintln!("{models:?}: alone {alone:?}");
}

/// Whether a path belongs to a format.
type Is = fn(&str) -> bool;

/// Formats that tell how a GPU is shared without any other file, by the paths of their files.
const FORMATS: &[(&str, Is)] = &[
    ("kubernetes", |p| p == "kubernetes.yaml" || p == "device-plugin.yaml"),
    ("dra", |p| p == "dra.yaml"),
    ("kai", |p| p == "kai.yaml"),
    ("hami", |p| p == "hami.yaml"),
    ("mps", |p| p.starts_with("mps/") && !p.contains("v3")),
    ("mps v3", |p| p.starts_with("mps/") && (p.contains("v3") || p.ends_with(".env"))),
    ("rocm", |p| p.starts_with("rocm/")),
];

#[test]
fn what_is_emitted_checks_to_the_same_numbers() {
    let ask = Ask { budget_s: 4.0, ..ask() };
    let three = ["resnet50@150rps,slo=30ms", "mobilenet_v2@100rps,slo=15ms", "alexnet,best-effort"];
    emitted_checks(&three, "a100-sxm-40", &ask, 5);
    let two = ["bert_base@20rps,slo=60ms", "squeezenet1_1@300rps,slo=8ms"];
    emitted_checks(&two, "a100-sxm-40", &ask, 4);
    emitted_checks(&two, "mi50", &ask, 3);
}

/// A language model first, so that the kernels of the others get other numbers next to each of its engines.
#[test]
fn engines_beside_others_check_to_the_same_numbers() {
    let chat = "llama-3.2-1b@1rps,tokens=128/16,ttft=500ms,tpot=40ms";
    let mix = [chat, "resnet18@20rps,slo=50ms"];
    emitted_checks(&mix, "a100-sxm-40", &Ask { budget_s: 3.0, ..ask() }, 3);
    emitted_checks(&mix, "a100-sxm-40", &Ask { budget_s: 2.0, gpus: (2, 2), ..ask() }, 1);
}

/// Stopped after the first short runs and restarted in the same folder, the same question has the same
/// answer, byte for byte, with fewer simulations; asked a third time it takes none.
#[test]
fn a_stopped_answer_goes_on_where_it_was() {
    let models = ["resnet18@300rps,slo=10ms".to_owned(), "alexnet@100rps,slo=10ms".to_owned()];
    let ask = || Ask { planners: vec![Planner::GpuLets], gpus: (1, 2), ..ask() };
    let mix = || Mix::of_models(&models, "a30").unwrap();
    let json = |a: &Answer| serde_json::to_string(a).unwrap();
    let whole = cells();
    let fresh = super::answer::answer(mix(), &ask(), &whole, &mut |_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (stop, to) = (Stop::default(), folder.path().join("out"));
    let cut = Arc::new(Cells::in_folder(&to, stop.clone()).unwrap());
    let stopped = super::answer::answer(mix(), &ask(), &cut, &mut |_| stop.set());
    assert!(matches!(stopped, Err(Failure::Stopped(_))));
    let before = cut.counts().0;
    assert!(before > 0 && before < whole.counts().0);
    for simulated in [whole.counts().0 - before, 0] {
        let again = Arc::new(Cells::in_folder(&to, Stop::default()).unwrap());
        let answer = super::answer::answer(mix(), &ask(), &again, &mut |_| {}).unwrap();
        assert_eq!(json(&answer), json(&fresh));
        assert_eq!(again.counts().0, simulated);
    }
    // A cell whose line was torn by a crash or damaged on disk is simulated again.
    let attempts = to.join("attempts/00000");
    let journals = std::fs::read_dir(attempts).unwrap().map(|e| e.unwrap().path());
    let journal = journals.max_by_key(|p| p.metadata().unwrap().len()).unwrap();
    let text = std::fs::read_to_string(&journal).unwrap();
    let damaged = text[..text.len() - 20].replacen("\"events\":", "\"events\":1", 1);
    std::fs::write(&journal, damaged).unwrap();
    let again = Arc::new(Cells::in_folder(&to, Stop::default()).unwrap());
    let answer = super::answer::answer(mix(), &ask(), &again, &mut |_| {}).unwrap();
    assert_eq!(json(&answer), json(&fresh));
    assert_eq!(again.counts().0, 2);
    // A folder that holds something else is left alone.
    std::fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(Cells::in_folder(folder.path(), Stop::default()), Err(Failure::Input(_))));
}

/// The whole answer keeps its budget, and tells what was not settled within it.
#[test]
fn the_budget_bounds_the_answer() {
    let models = ["resnet50@900rps,slo=20ms", "bert_base@200rps,slo=40ms", "vgg16@300rps,slo=60ms"];
    let models = models.map(str::to_owned);
    for (budget_s, gpus) in [(0.5, (1, 1)), (1.0, (1, 4)), (1.0, (2, 6))] {
        let planners = vec![Planner::ParvaGpu];
        let ask = Ask { budget_s, gpus, curves: true, planners, ..ask() };
        let a = answer(Mix::of_models(&models, "a30").unwrap(), &ask);
        let (spent, budget) = (a.events as f64, ask.events());
        assert!(spent < 1.25 * budget, "{gpus:?}: {spent} of {budget}");
        let choice = &a.rows[a.choice.unwrap()];
        assert!(
            choice.settled && choice.headroom.is_some() && choice.seeds >= 4,
            "{gpus:?}: {} {:?} {}",
            choice.settled,
            choice.headroom,
            choice.seeds
        );
        for row in a.rows.iter().filter(|r| !r.settled) {
            assert!(row.headroom.is_none() && row.tenants.iter().all(|t| t.inflation.is_none()));
        }
        let text = super::table::advise(&a, true);
        let open = a.rows.iter().filter(|r| !r.settled).count();
        assert_eq!(open > 0, text.contains("not settled within the budget"), "{text}");
    }
}

/// Every way of sharing, and one GPU each, gets all of its runs, its headroom and the cost of its neighbours.
#[test]
fn every_row_is_settled() {
    let five = [
        "bert_large@60rps,slo=50ms",
        "resnet50@200rps,slo=20ms",
        "vgg16@50rps,slo=40ms",
        "efficientnet_b0@80rps,slo=40ms",
        "mobilenet_v2,best-effort",
    ];
    let three = [five[0], "resnet50@200rps,slo=20ms,batch=8", five[4]];
    let hard = ["bert_large@400rps,slo=20ms", "resnet50@900rps,slo=10ms"];
    // The full default budget takes a minute without optimisation.
    let budget_s = if long() { 10.0 } else { 4.0 };
    for (models, device) in [(&three[..], "h100-sxm"), (&five[..], "h100-sxm"), (&hard[..], "a30")]
    {
        let models: Vec<String> = models.iter().map(|&m| m.to_owned()).collect();
        let ask = Ask { budget_s, ..ask() };
        let a = answer(Mix::of_models(&models, device).unwrap(), &ask);
        for row in a.rows.iter().filter(|r| r.impossible.is_none()) {
            assert!(row.settled && row.headroom.is_some(), "{models:?}: {}", row.way);
        }
        assert!((a.events as f64) < 1.05 * ask.events(), "{models:?}: {}", a.events);
    }
}

#[test]
fn the_answer_does_not_depend_on_threads() {
    let models = ["resnet18@300rps,slo=10ms".to_owned(), "alexnet@100rps,slo=10ms".to_owned()];
    let with = |threads: usize| {
        let ask = Ask { threads, ..ask() };
        let a = answer(Mix::of_models(&models, "a30").unwrap(), &ask);
        serde_json::to_string(&a).unwrap()
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn a_goal_below_the_isolated_latency_is_named() {
    let models = ["resnet50@10rps,slo=100us".to_owned()];
    let a = answer(Mix::of_models(&models, "a30").unwrap(), &ask());
    assert_eq!(a.out_of_reach.len(), 1);
    assert!(a.changes[0].contains("no sharing there meets"), "{:?}", a.changes);
    // If no request arrives, no goal is kept: fewer requests on more GPUs, or at less load, do not help.
    let never = ["GPUs of this kind", "times the load"];
    assert!(!a.changes.iter().any(|c| never.iter().any(|n| c.contains(n))), "{:?}", a.changes);
    assert!(a.plan().is_some());
}

#[test]
fn a_device_without_mig_says_so() {
    let models = ["resnet18@50rps,slo=50ms".to_owned(), "alexnet@20rps,slo=50ms".to_owned()];
    let a = answer(Mix::of_models(&models, "v100-sxm2-16").unwrap(), &ask());
    let mig = a.rows.iter().find(|r| r.way == "MIG").unwrap();
    assert!(mig.impossible.as_deref().unwrap().contains("no MIG"));
    assert!(a.choice.is_some());
}

#[test]
fn several_gpus_serve_what_one_cannot() {
    let models = ["resnet50@1500rps,slo=40ms".to_owned(), "bert_base@300rps,slo=60ms".to_owned()];
    let ask = Ask { gpus: (1, 3), budget_s: 1.0, ..ask() };
    let a = answer(Mix::of_models(&models, "a30").unwrap(), &ask);
    let of = |n: usize| a.rows.iter().find(|r| r.way == format!("{n} GPUs"));
    let (two, three) = (of(2).unwrap(), of(3).unwrap());
    // Windows of different lengths count different requests.
    let (fewer, more) = (two.goodput_rps, three.goodput_rps);
    assert!(more > fewer * 0.9, "{more} {fewer}");
    for row in [two, three] {
        let shares: f64 = row.plan.iter().flat_map(|g| &g.tenants).map(|t| t.requests).sum();
        assert!((shares - 2.0).abs() < 1e-9, "every request goes somewhere: {shares}");
    }
}

/// One GPU more never loses a goal when each number of GPUs is asked for separately, with the same budget for
/// each GPU, apart from goals that the runs leave undecided.
#[test]
fn more_gpus_meet_no_fewer_goals() {
    for seed in 0..if long() { 12 } else { 3 } {
        let pick = |k: u64, n: u64| mix(seed * 17 + k) % n;
        let all = ["squeezenet1_1", "mobilenet_v2", "alexnet", "resnet18", "resnet50"];
        let tenants = 2 + pick(20, 3);
        let models: Vec<String> = (0..tenants)
            .map(|i| {
                let model = all[pick(i, 5) as usize];
                let (rate, slo) = (100 + pick(i + 5, 2900), 3 + pick(i + 10, 18));
                format!("{model}@{rate}rps,slo={slo}ms,name=t{i}")
            })
            .collect();
        let met = |gpus: usize| {
            let ask = Ask { gpus: (gpus, gpus), budget_s: 0.5 * gpus as f64, ..ask() };
            let a = answer(Mix::of_models(&models, "a30").unwrap(), &ask);
            assert!(a.rows.iter().all(|r| r.reference || r.gpus <= gpus), "{models:?}");
            let row = &a.rows[a.choice.unwrap()];
            let open = row.tenants.iter().filter(|t| t.met == Some(true) && t.undecided);
            (row.goals_met, row.goals_met.saturating_sub(open.count()))
        };
        let met: Vec<(usize, usize)> = (1..=3).map(met).collect();
        let lost = met.windows(2).any(|two| two[1].0 < two[0].1);
        assert!(!lost, "{models:?}: goals met, and those for certain: {met:?}");
    }
}

/// The promises of a plan: every request goes somewhere, on layouts that the device allows.
#[test]
fn published_planners_plan() {
    let models = [
        "resnet50@900rps,slo=60ms",
        "mobilenet_v2@500rps,slo=40ms",
        "bert_base@60rps,slo=120ms",
        "alexnet@10rps,slo=200ms",
    ];
    let lab = lab(&models, "a100-sxm-40");
    for planner in [Planner::ParvaGpu, Planner::GpuLets, Planner::Igniter, Planner::Fgd] {
        let plan = planner.plan(&lab, 2).unwrap();
        assert_eq!(plan, planner.plan(&lab, 1).unwrap(), "{planner:?}: any number of threads");
        for t in lab.all() {
            let parts = plan.iter().flat_map(|c| c.tenants.iter().zip(&c.requests));
            let share: f64 = parts.filter(|(i, _)| **i == t).map(|(_, share)| share).sum();
            assert!((share - 1.0).abs() < 1e-9, "{planner:?}: {} of {}", share, lab.name(t));
        }
        for c in &plan {
            match &c.how {
                How::Deploy(Sharing::Mig { instances, .. }) => {
                    let names: Vec<&str> = instances.iter().map(String::as_str).collect();
                    lab.setup.device.mig.as_ref().unwrap().placements(&names).unwrap();
                }
                How::Deploy(Sharing::Mps { percent }) => {
                    assert!(percent.iter().sum::<u32>() <= 100, "{planner:?}: {percent:?}");
                    assert!(planner != Planner::GpuLets || percent.len() <= 2);
                }
                how => panic!("{planner:?}: {how:?}"),
            }
        }
        // The planned rates are served.
        let mut search = Search::new(&lab, Space::default(), 2, 8e6);
        for c in plan {
            let tried = search.measure(c, 4).unwrap();
            for (i, &t) in tried.c.tenants.iter().enumerate() {
                let asked = lab.mix.rate(t).unwrap() * tried.c.requests[i];
                let runs = tried.samples();
                let served = runs.iter().map(|r| r.got[i].rps).sum::<f64>() / runs.len() as f64;
                assert!(served > 0.8 * asked, "{planner:?}: {}: {served} of {asked}", lab.name(t));
            }
        }
    }
}

#[test]
fn planners_say_what_they_cannot_plan() {
    let why = |models: &[&str], device: &str, planner: Planner| {
        planner.plan(&lab(models, device), 1).unwrap_err()
    };
    let one = ["alexnet@50rps,slo=20ms", "resnet18@20rps,slo=50ms"];
    assert!(why(&one, "v100-sxm2-16", Planner::ParvaGpu).contains("no MIG"));
    let idle = ["alexnet@50rps,slo=20ms", "resnet18,best-effort"];
    assert!(why(&idle, "a30", Planner::Igniter).contains("`resnet18` has no goal"));
    let hard = ["alexnet@50rps,slo=20ms", "resnet50@10rps,slo=300us"];
    for planner in [Planner::ParvaGpu, Planner::Igniter] {
        assert!(why(&hard, "a30", planner).contains("`resnet50`"));
    }
}

/// A tenant in two instances, whose requests no file divides, gets them in proportion to what each instance
/// serves, and none twice.
#[test]
fn requests_in_several_places_are_divided() {
    let map = "Num instance,Num GPU,Model,Placement,Instance size,Batch size,Num proc\n\
               0,0,resnet50,0,3,8,2\n0,0,alexnet,4,1,4,1\n0,1,resnet50,0,1,8,1\n";
    let lab = lab(&["resnet50@200rps,slo=60ms", "alexnet@50rps,slo=60ms"], "a100-sxm-40");
    let mut found = Found::new(lab.setup.device.clone());
    cotenant_deploy::read("plan.csv", map, &mut found).unwrap();
    // Long enough to count requests.
    let ask = Ask { budget_s: 2.0, ..ask() };
    let row = row_of(&lab, &mut found, &ask, 4).unwrap();
    let parts: Vec<&super::row::Served> =
        row.tenants.iter().filter(|t| t.tenant == "resnet50").collect();
    assert_eq!(parts.len(), 2);
    let (large, small) = (parts[0].rps, parts[1].rps);
    assert!((large + small - 200.0).abs() < 20.0, "{large} + {small}");
    assert!(large > 2.0 * small, "{large} against {small}");
    assert_eq!(row.goals, 2, "goals are those of tenants, not of their parts");
    assert!(found.findings.iter().any(|f| f.what.contains("in 2 places")));
}

#[test]
fn models_are_read_from_flags() {
    let wrong = |text: &str| Mix::of_models(&[text.to_owned()], "a30").err().unwrap();
    assert!(wrong("resnet50").contains("gives no rate"));
    assert!(wrong("resnet50@fast").contains("is not a rate"));
    assert!(wrong("resnet50@5rps,goal=3ms").contains("slo=20ms"));
    // In terms of what the user gave: flags have no lines.
    assert!(wrong("resnet50@5rps,slo=3").starts_with("--model: tenant.resnet50.slo: `3` is"));
    let device = Mix::of_models(&["alexnet@5rps".to_owned()], "h100").err().unwrap();
    assert!(device.starts_with("--gpu: no device `h100`: did you mean"), "{device}");
    let models = ["a@1rps,slo=3x".replace('a', "alexnet"), "alexnet@2rps,batch=4".to_owned()];
    let mix = Mix::of_models(&models, "a30").unwrap();
    let names: Vec<&str> = mix.point.tenants.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["alexnet", "alexnet-2"]);
    assert_eq!(mix.fixed_batch, [false, true]);
}
