//! The driver on the emulated device: every policy of the registry, beside the simulator.
#![allow(clippy::print_stderr, clippy::unwrap_used)] // tests print their numbers

use std::sync::Arc;

use cotenant_profiles::{Device, Nanos, analytic, zoo};
use cotenant_replay::clock::Clock;
use cotenant_replay::drive::{self, Kernels, Lateness, Stop, Streams};
use cotenant_replay::emulated::EmulatedDevice;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{ALL, Options, PolicyInfo};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Load, Scenario, Setup, Tenant};
use cotenant_sim::{Class, Report};
use cotenant_traces::{Arrivals, Request, Rng};

struct Poisson(Rng, f64, f64);

impl Arrivals for Poisson {
    fn next_request(&mut self) -> Option<Request> {
        self.1 += self.0.exp1() * self.2;
        Some(Request::at(Nanos(self.1 as u64)))
    }
}

const MODELS: [(&str, f64); 2] = [("alexnet", 500.0), ("vgg16", 100.0)];

fn scenario(duration: u64) -> Scenario {
    let device = Device::builtin("a100-sxm-40").unwrap();
    let specs: Vec<_> = MODELS.iter().map(|(m, _)| zoo::find(m).unwrap()).collect();
    let specs: Vec<_> = specs.iter().collect();
    let options = analytic::Options::default();
    let profile = analytic::profile(&device, &specs, &[1, 2, 4], &options).unwrap();
    let mut code = Code::default();
    let tenants = MODELS.iter().map(|(name, _)| Tenant {
        name: (*name).to_owned(),
        model: code.compile(&profile, name, 4, device.cus()).unwrap(),
        class: Class::Latency,
        slo: Some(Nanos::from_millis(50)),
        workers: 1,
        batch_max: 4,
        batch_timeout: Nanos::from_millis(1),
    });
    let tenants: Vec<_> = tenants.collect();
    let contention = ContentionModel::from_name("bandwidth", &device).unwrap();
    let loads = MODELS.iter().enumerate().map(|(i, (_, rate))| {
        Load::Open(Box::new(Poisson(Rng::for_names(i as u64, &["x"]), 0.0, 1e9 / rate)))
    });
    Scenario {
        loads: loads.collect(),
        setup: Arc::new(Setup { costs: device.costs.clone(), device, code, tenants }),
        warmup: Nanos::from_millis(20),
        duration: Nanos::from_millis(duration),
        contention,
        jitter: None,
    }
}

fn replayed(info: &PolicyInfo, duration: u64, slowdown: f64) -> (Report, Lateness) {
    let scenario = scenario(duration);
    let setup = scenario.setup.clone();
    let mut policy = (info.build)(&Options::default()).unwrap();
    let layout = policy.layout(&setup).unwrap();
    let clock = Clock::start(slowdown);
    let mut device =
        EmulatedDevice::for_scenario(&setup, &layout.pools, scenario.contention, clock);
    let mut streams = Streams::new(&mut device, Kernels::Numbered, setup.code.kernels.len());
    let done =
        drive::run(scenario, &mut *policy, &layout, &mut streams, None, &Stop::new()).unwrap();
    (done.report, done.lateness)
}

#[test]
fn every_policy() {
    let slowdown: f64 = std::env::var("K").map_or(20.0, |k| k.parse().unwrap());
    let only = std::env::var("P").ok();
    for info in ALL.iter().filter(|i| i.name != "ideal") {
        if only.as_ref().is_some_and(|p| p != info.name) {
            continue;
        }
        let mut policy = (info.build)(&Options::default()).unwrap();
        let simulated = match cotenant_sim::run(scenario(300), &mut *policy, None) {
            Ok(r) => r,
            Err(e) => {
                eprintln!("{:12} {e}", info.name);
                continue;
            }
        };
        let (report, lateness) = replayed(info, 300, slowdown);
        for (t, (s, m)) in simulated.tenants.iter().zip(&report.tenants).enumerate() {
            let q = |c: &cotenant_sim::report::TenantReport, q| {
                c.counts.latencies.quantile(q).map_or(0.0, |l| l.as_millis_f64())
            };
            eprintln!(
                "{:12} {:8} done {:4} {:4} p50 {:.3} {:.3} {:+.1}%  p99 {:.3} {:.3} {:+.1}% cu {:.3} {:.3} late(wall) a {:?} c {:?} d {:?}",
                info.name,
                MODELS[t].0,
                s.counts.completed,
                m.counts.completed,
                q(s, 0.5),
                q(m, 0.5),
                (q(s, 0.5) / q(m, 0.5) - 1.0) * 100.0,
                q(s, 0.99),
                q(m, 0.99),
                (q(s, 0.99) / q(m, 0.99) - 1.0) * 100.0,
                simulated.gpu.cu_utilization,
                report.gpu.cu_utilization,
                lateness.wall(&lateness.arrivals, 0.99),
                lateness.wall(&lateness.completions, 0.99),
                lateness.wall(&lateness.decisions, 0.99),
            );
        }
    }
}
