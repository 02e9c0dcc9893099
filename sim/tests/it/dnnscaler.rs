//! DNNScaler and Clipper end to end: what instances cost, what the probes choose, where the loops
//! settle.

use crate::common::{World, build, closed, device, kernel, model, program, tenant, watch};
use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::Report;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Options, Value};
use cotenant_sim::scenario::Load;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn word(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// One tenant: a request takes `host_ms` of a process's own time, then a batch of `b` takes
/// `gpu_ms(b)` on the GPU; instances come up within 1 s.
fn world(host_ms: u64, largest: u32, slo_ms: u64, gpu_ms: impl Fn(u32) -> f64) -> World {
    let kernels = (1..=largest).map(|b| kernel(30, |_| (gpu_ms(b) * 1e6) as u64));
    let mut world = World::new(device(&[30]), kernels.collect());
    let programs = (0..largest).map(|k| program(&world.code, &[k], 0)).collect();
    let mut model = model(programs);
    model.host_per_request = Nanos(host_ms * MS);
    world.costs.process_start.delay = Nanos::from_secs(1);
    // Instances take turns: little enough that n of them take n times as long as one.
    world.costs.context_switch.cost = Nanos::from_micros(25);
    world.tenants = vec![tenant("t", model)];
    world.tenants[0].slo = Some(Nanos(slo_ms * MS));
    world.duration = Nanos::from_secs(90);
    world
}

struct Run {
    report: Report,
    log: Vec<(u64, Happening)>,
}

impl Run {
    fn new(world: &World, policy: &str, options: &[(&str, Value)], load: Load) -> Self {
        let mut policy = build(policy, options);
        let (report, log) = watch(world.scenario(vec![load]), policy.as_mut());
        Self { report, log }
    }

    fn counter(&self, name: &str) -> f64 {
        self.report.counter(name).unwrap_or_else(|| panic!("no counter `{name}`"))
    }

    /// Batch sizes and instances at work, in order, without repetitions.
    fn batches(&self) -> Vec<u32> {
        let mut sizes: Vec<u32> = vec![];
        for (_, what) in &self.log {
            if let Happening::BatchEnded { items, .. } = *what
                && sizes.last() != Some(&items)
            {
                sizes.push(items);
            }
        }
        sizes
    }

    fn per_second(&self, from_s: u64, to_s: u64) -> f64 {
        let done = self.log.iter().filter(|(now, what)| {
            matches!(what, Happening::RequestDone { .. })
                && (from_s * SECOND..to_s * SECOND).contains(now)
        });
        done.count() as f64 / (to_s - from_s) as f64
    }
}

/// Mean time of one inference with `n` instances that are never idle, ms.
fn with_instances(world: &World, n: u32, run_to_completion: bool) -> f64 {
    let mut world_n = World::new(world.device.clone(), world.code.kernels.clone());
    world_n.tenants = vec![world.tenants[0].clone()];
    world_n.tenants[0].workers = n;
    world_n.duration = Nanos::from_secs(20);
    world_n.warmup = Nanos::from_secs(1);
    let options = [("run_to_completion", Value::Bool(run_to_completion))];
    // As many clients as instances: nobody waits for one.
    let report = Run::new(&world_n, "temporal", &options, closed(n)).report;
    let counts = &report.tenants[0].counts;
    counts.latency_sum as f64 / counts.completed as f64 / 1e6
}

#[test]
fn instances_hide_the_host_until_the_gpu_is_full() {
    // 9 ms on the host, 3 ms on the GPU: a cycle of 12 ms carries four inferences. From there on
    // the GPU serves one every 3 ms, plus what the switches between the contexts take.
    let world = world(9, 1, 100, |_| 3.0);
    for n in 1..=10u32 {
        let got = with_instances(&world, n, true);
        let law = f64::max(12.0, 3.0 * f64::from(n));
        assert!((law..law * 1.01).contains(&got), "{n} instances: {got} ms, law {law}");
        // Slices shorter than an inference let all of them wait for each other.
        let sliced = with_instances(&world, n, false);
        let together = 9.0 + 3.0 * f64::from(n);
        assert!((got..together * 1.01).contains(&sliced), "{n} instances: {sliced} ms");
    }
}

#[test]
fn a_host_bound_model_gets_instances() {
    // 18 ms on the host, 2 ms on the GPU. Batches gain next to nothing: 32 × 18 + 32 × 2 × 0.9.
    // Eight instances gain sevenfold. The line through 20 ms and 20 ms says ten are below 25 ms;
    // ten take 20 ms, just under the band (21.25 ms), and there are no more.
    let world = world(18, 32, 25, |b| 2.0 * f64::from(b) * if b > 1 { 0.9 } else { 1.0 });
    let run = Run::new(&world, "dnnscaler", &[], closed(256));
    assert_eq!(run.counter("tenants on multi-tenancy"), 1.0);
    assert!(run.counter("gain of batching in the probe, %, sum") < 2.0);
    let gain = run.counter("gain of multi-tenancy in the probe, %, sum");
    assert!((650.0..=700.0).contains(&gain), "{gain}");
    assert_eq!(run.counter("instances at the end, sum"), 10.0);
    assert_eq!(run.counter("instances started"), 9.0);
    // Ten in 20 ms, as far as the GPU's turns let them.
    let rate = run.per_second(60, 90);
    assert!((470.0..=501.0).contains(&rate), "{rate}");
}

#[test]
fn a_model_that_batches_well_gets_batches() {
    // 20 ms + 1 ms per item on the GPU, nothing on the host: eight instances gain nothing. Held
    // from 85 to 100 ms: batches 65 to 80; the search goes 1, 65.
    let world = world(0, 127, 100, |b| 20.0 + f64::from(b));
    let run = Run::new(&world, "dnnscaler", &[], closed(512));
    assert_eq!(run.counter("tenants on batching"), 1.0);
    assert!(run.counter("gain of multi-tenancy in the probe, %, sum") < 1.0);
    let gain = run.counter("gain of batching in the probe, %, sum");
    assert!((gain - 100.0 * (32.0 * 21.0 / 52.0 - 1.0)).abs() < 1.0, "{gain}");
    // The probes, then the search.
    assert_eq!(run.batches(), [1, 32, 1, 65]);
    assert_eq!(run.counter("batch limits at the end, sum"), 65.0);
    assert_eq!((run.counter("instances started"), run.counter("instances retired")), (7.0, 7.0));
    assert_eq!(run.counter("instances at the end, sum"), 1.0);
    assert!((run.per_second(60, 90) - 65_000.0 / 85.0).abs() < 5.0);
}

#[test]
fn clipper_and_the_search_follow_their_rules_in_time() {
    // 10 ms + 2 ms per item under 100 ms, held from 85 ms (batches 38 to 45).
    let world = world(0, 127, 100, |b| 10.0 + 2.0 * f64::from(b));
    let clipper = Run::new(&world, "clipper", &[], closed(512));
    assert_eq!(clipper.batches(), [1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41]);
    assert_eq!(clipper.counter("changes of the knob"), 10.0);
    let forced = [("approach", word("batching"))];
    let scaler = Run::new(&world, "dnnscaler", &forced, closed(512));
    assert_eq!(scaler.batches(), [1, 65, 33, 49, 41]);
    // The first batch of 41 ends after four decisions, not ten, of 3 s and the batch at hand each.
    let first = |run: &Run| {
        let found = run
            .log
            .iter()
            .find(|(_, what)| matches!(what, Happening::BatchEnded { items: 41, .. }));
        found.expect("both settle there").0 / SECOND
    };
    assert_eq!((first(&scaler), first(&clipper)), (12, 30));
    assert!((scaler.per_second(13, 30) - 41_000.0 / 92.0).abs() < 5.0);
}

#[test]
fn the_zero_among_the_samples_decides() {
    // 10 ms each on the GPU, nothing on the host: n instances take 10·n ms. The line through one
    // and eight says 40 ms for four and 50 ms for five; the SLO is 46 ms, held from 39.1 ms.
    let mut world = world(0, 1, 46, |_| 10.0);
    world.duration = Nanos::from_secs(60);
    let forced = ("approach", word("multi-tenancy"));
    let samples = ("samples", Value::Integer(10));
    let counted = [forced.clone(), samples.clone(), ("zero_sample", Value::Bool(false))];
    let run = Run::new(&world, "dnnscaler", &counted, closed(64));
    assert_eq!(run.counter("instances at the end, sum"), 4.0);
    assert_eq!(run.counter("changes of the knob"), 0.0);
    // Nine of ten samples count: 36 ms is under the band, so a fifth comes; its 45 ms of 50 are
    // inside, and the SLO is missed without anybody seeing it.
    let run = Run::new(&world, "dnnscaler", &[forced, samples], closed(64));
    assert_eq!(run.counter("instances at the end, sum"), 5.0);
    assert_eq!(run.counter("looks over the SLO"), 0.0);
}

#[test]
fn a_latency_over_the_objective_takes_one_instance_and_freezes() {
    // Known rows from a world where eight instances cost four times one make six look like 43 ms.
    let mut world = world(0, 1, 45, |_| 10.0);
    world.duration = Nanos::from_secs(90);
    let texts = ["a: 10 10 10 10 10 10 10 80 80 80", "b: 20 20 20 20 20 20 20 160 160 160"];
    let known = Value::Texts(texts.map(str::to_owned).to_vec());
    let options = [("approach", word("multi-tenancy")), ("known", known)];
    let run = Run::new(&world, "dnnscaler", &options, closed(64));
    // Seven are below 45 ms in these rows; they take 70 ms: one goes, and 60 ms stay, as released.
    assert_eq!(run.counter("instances at the end, sum"), 6.0);
    assert_eq!(run.counter("changes of the knob"), 1.0);
    assert!((run.counter("last latency held against the SLO, ms, sum") - 60.0).abs() < 2.0);
    assert!(run.counter("looks over the SLO") > 30.0);
}

#[test]
fn instances_that_find_no_memory_are_done_without() {
    let mut world = world(18, 1, 100, |_| 2.0);
    // 7.5 % each: 13 fit. With 30 % each, three.
    let run = Run::new(&world, "dnnscaler", &[("memory_share", Value::Float(30.0))], closed(64));
    assert_eq!(run.counter("instances at the end, sum"), 3.0);
    assert_eq!(run.counter("instances refused"), 5.0);
    assert_eq!(run.report.tenants[0].counts.dropped_total(), 0);
    // A model that is larger than its share takes what it needs.
    world.tenants[0].model.weights = Bytes(world.device.memory.capacity.0 / 2);
    let run = Run::new(&world, "dnnscaler", &[], closed(64));
    assert_eq!(run.counter("instances at the end, sum"), 2.0);
}

#[test]
fn start_and_load_delay_an_instance() {
    let mut world = world(18, 1, 100, |_| 2.0);
    world.tenants[0].model.load = Nanos::from_secs(4);
    let run = Run::new(
        &world,
        "dnnscaler",
        &[("probe", Value::Duration(Nanos::from_secs(2)))],
        closed(64),
    );
    let ups = run.log.iter().filter(|(_, w)| matches!(w, Happening::WorkerUp { .. }));
    // 2 s of probing, 1 s of start, 4 s of load.
    let times: Vec<u64> = ups.map(|(now, _)| now / MS).collect();
    assert_eq!(&times[..7], [7000; 7]);
}

#[test]
fn without_an_objective_nothing_is_controlled() {
    let mut world = world(18, 8, 100, |_| 2.0);
    world.tenants[0].slo = None;
    world.tenants[0].workers = 2;
    for policy in ["dnnscaler", "clipper"] {
        let run = Run::new(&world, policy, &[], closed(64));
        assert_eq!(run.batches().iter().max(), Some(&8), "{policy}");
        assert_eq!(run.counter("changes of the knob"), 0.0, "{policy}");
        assert!(!run.log.iter().any(|(_, w)| matches!(w, Happening::WorkerUp { .. })), "{policy}");
    }
}

#[test]
fn ideal_costs_bring_instances_up_at_once() {
    let mut world = world(18, 1, 100, |_| 2.0);
    world.costs = world.costs.ideal();
    let run = Run::new(&world, "dnnscaler", &[], closed(64));
    assert_eq!(run.counter("instances at the end, sum"), 10.0);
    let rate = run.per_second(30, 60);
    assert!((rate - 500.0).abs() < 1.0, "{rate}");
}

#[test]
fn options_that_cannot_be_are_refused() {
    let message = |name: &str, value: Value| {
        let info = cotenant_sim::policy::find("dnnscaler").unwrap();
        let options = Options(vec![(name.to_owned(), value)]);
        (info.build)(&options).err().map(|e| e.to_string())
    };
    let completion = message("estimate", word("completion")).unwrap();
    assert!(completion.contains("give them as `known`"), "{completion}");
    let tick = message("tick", Value::Duration(Nanos::ZERO)).unwrap();
    assert!(tick.contains("`tick`"), "{tick}");
    let known = message("known", Value::Texts(vec!["a: 1 2".to_owned()])).unwrap();
    assert!(known.contains("max_instances is 10"), "{known}");
}
