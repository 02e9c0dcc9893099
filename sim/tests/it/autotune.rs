//! Autotuning end to end: the pipeline of building and measuring by hand, and what company costs.

use crate::common::{
    World, build, closed, completions, device, kernel, model, program, tenant, watch,
};
use cotenant_profiles::Nanos;
use cotenant_sim::Report;
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::{Options, Value};
use cotenant_sim::scenario::{Load, Think};

const MS: u64 = 1_000_000;

fn ms(n: u64) -> Value {
    Value::Duration(Nanos::from_millis(n))
}

fn once() -> Load {
    Load::Closed {
        concurrency: 1,
        think: Think::Constant(Nanos::ZERO),
        items: 1,
        limit: Some(1),
        tokens: None,
    }
}

/// Two operators of three candidates, two launches each; a launch takes 10 ms whatever its CUs.
fn two() -> World {
    let mut world = World::new(device(&[80]), vec![kernel(80, |_| 10 * MS); 6]);
    for (t, first) in [0, 3].into_iter().enumerate() {
        let series = [first, first, first + 1, first + 1, first + 2, first + 2];
        let model = model(vec![program(&world.code, &series, 0)]);
        world.tenants.push(tenant(&format!("op{t}"), model));
    }
    world.duration = Nanos::from_secs(10);
    world
}

fn counter(report: &Report, name: &str) -> f64 {
    report.counter(name).expect("it is counted")
}

/// `(ms, tenant)` of every launch.
fn launches(log: &[(u64, Happening)]) -> Vec<(u64, u32)> {
    let of = |&(now, what): &(u64, Happening)| match what {
        Happening::Granted { worker, .. } => Some((now / MS, worker)),
        _ => None,
    };
    log.iter().filter_map(of).collect()
}

/// One server, two build workers of 50 ms, 100 ms of rest.
///
/// Trials 0 and 1 are built at 50, trial 2 at 100. They are measured at 50 to 70, at 170 to 190 and
/// at 290 to 310. The second operator begins to build at 310: at 360 its first candidate is built,
/// but the server rests until 410.
#[test]
fn one_server_by_hand() {
    let options = [
        ("servers", Value::Integer(1)),
        ("build_workers", Value::Integer(2)),
        ("build", ms(50)),
        ("cooldown", ms(100)),
    ];
    let mut policy = build("autotune", &options);
    let (report, log) = watch(two().scenario(vec![once(), once()]), policy.as_mut());
    let expected: Vec<(u64, u32)> = [(0, 50), (0, 170), (0, 290), (1, 410), (1, 530), (1, 650)]
        .into_iter()
        .flat_map(|(t, at)| [(at, t), (at + 10, t)])
        .collect();
    assert_eq!(launches(&log), expected);
    assert_eq!(counter(&report, "tuning time (s)"), 0.67);
    assert_eq!(counter(&report, "trials"), 6.0);
    let on_gpu = counter(&report, "server's time on the GPU (%)");
    assert!((on_gpu - 100.0 * 0.12 / 0.67).abs() < 1e-9, "six trials of 20 ms");
}

/// Two servers share the build workers. Both workers begin with the first server, which comes
/// first: its candidates are built at 50, 50 and 150, the other's at 100, 100 and 150. With one
/// worker of 90 ms a candidate comes every 90 ms, to the servers in turn, and nobody waits for a
/// rest any more.
#[test]
fn two_servers_by_hand() {
    let run = |workers: i64, build_ms: u64| {
        let options = [
            ("servers", Value::Integer(2)),
            ("build_workers", Value::Integer(workers)),
            ("build", ms(build_ms)),
            ("cooldown", ms(100)),
        ];
        let mut policy = build("autotune", &options);
        let (report, log) = watch(two().scenario(vec![once(), once()]), policy.as_mut());
        let all = launches(&log);
        let of = |w: u32| -> Vec<u64> {
            all.iter().filter(|l| l.1 == w).map(|l| l.0).step_by(2).collect()
        };
        (of(0), of(1), counter(&report, "tuning time (s)"))
    };
    assert_eq!(run(2, 50), (vec![50, 170, 290], vec![100, 220, 340], 0.36));
    assert_eq!(run(1, 90), (vec![90, 270, 450], vec![180, 360, 540], 0.56));
}

/// Candidates that scale perfectly: at half of the CUs they take twice the time, undisturbed.
/// Without control they meet, and whoever comes second waits.
#[test]
fn shares_keep_measurements_true() {
    let mut world = two();
    world.code.kernels =
        (0..6u64).map(|k| kernel(80, move |c| (10 + k % 3) * MS * 80 / u64::from(c))).collect();
    let run = |sharing: &str| {
        let options = [
            ("servers", Value::Integer(2)),
            ("sharing", Value::Text(sharing.to_owned())),
            ("cooldown", ms(3)),
        ];
        let mut policy = build("autotune", &options);
        let loads = vec![closed(1), closed(1)];
        watch(world.scenario(loads), policy.as_mut()).0
    };
    let (controlled, uncontrolled) = (run("controlled"), run("uncontrolled"));
    assert_eq!(counter(&controlled, "measurement error, largest (%)"), 0.0);
    assert_eq!(counter(&controlled, "operators mistuned"), 0.0);
    assert!(counter(&uncontrolled, "measurement error, mean (%)") > 20.0, "{uncontrolled:?}");
}

#[test]
fn more_operators_than_servers_are_all_tuned() {
    let mut world = two();
    for t in 2..7 {
        let model = model(vec![program(&world.code, &[t % 6, t % 6, 0], 0)]);
        world.tenants.push(tenant(&format!("op{t}"), model));
    }
    let mut policy = build("autotune", &[("servers", Value::Integer(3))]);
    let loads = (0..7).map(|_| once()).collect();
    let (report, log) = watch(world.scenario(loads), policy.as_mut());
    assert_eq!(completions(&log).len(), 7);
    assert_eq!(counter(&report, "operators tuned"), 7.0);
}

#[test]
fn bad_options_are_refused() {
    let info = cotenant_sim::policy::find("autotune").expect("it is registered");
    let options = Options(vec![
        ("sharing".to_owned(), Value::Text("uncontrolled".to_owned())),
        ("share".to_owned(), Value::Float(25.0)),
    ]);
    let why = "option `share`: without control every server has the whole GPU; remove it";
    assert_eq!((info.build)(&options).err().map(|e| e.to_string()).as_deref(), Some(why));
}
