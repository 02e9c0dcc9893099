//! The profiles of DNNScaler's jobs: made from two columns of the authors' table, held against the
//! other eight.
//!
//! `experiments/dnnscaler/` holds what the authors published (`instances.csv`, `batches.csv`,
//! `jobs.csv`) and the profile folder `p40` that this file computes from it; with
//! `COTENANT_WRITE=1` the first test writes that folder again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cotenant_profiles::curve::Point;
use cotenant_profiles::kernel::{Launch, Model, Op, Source};
use cotenant_profiles::{Bytes, Curve, Device, Kernel, Nanos, Profile, files};
use cotenant_sim::Class;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::policy::{self, Options, Value};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::{Jitter, Load, Scenario, Setup, Tenant, Think};
use cotenant_traces::Rng;

/// Multiply-adds of ResNet-50, in 10⁹ (torchvision).
const RESNET50_GMACS: f64 = 4.09;
/// Batch sizes: every one up to 16, every second up to 64, every fourth up to the list's end.
fn sizes() -> Vec<u32> {
    let dense = 1..=16;
    dense.chain((18..=64).step_by(2)).chain((68..=124).step_by(4)).chain([127]).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dnnscaler")
}

/// Rows by their first column; the rest as text, by the header's names.
fn table(name: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let path = folder().join(name);
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_path(path).unwrap();
    let head = reader.headers().unwrap().clone();
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let cells = head.iter().zip(&row).skip(1).filter(|(_, v)| !v.is_empty());
        let cells = cells.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        (row[0].to_owned(), cells)
    });
    rows.collect()
}

/// Numbers by number: `instances.csv`, `batches.csv`.
fn curves(name: &str) -> BTreeMap<String, BTreeMap<u32, f64>> {
    let rows = table(name).into_iter();
    let numbers = |cells: BTreeMap<String, String>| {
        cells.into_iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
    };
    rows.map(|(model, cells)| (model, numbers(cells))).collect()
}

/// What a profile is made of, ms.
#[derive(Clone, Copy, Debug)]
struct Parts {
    /// One image on the GPU.
    gpu: f64,
    /// One image on the host.
    host: f64,
}

struct Published {
    instances: BTreeMap<String, BTreeMap<u32, f64>>,
    batches: BTreeMap<String, BTreeMap<u32, f64>>,
    /// By model: multiply-adds in 10⁹ where they are needed, wait per instance in s.
    jobs: BTreeMap<String, (Option<f64>, f64)>,
}

impl Published {
    fn read() -> Self {
        let job = |cells: &BTreeMap<String, String>| {
            let number = |k: &str| cells.get(k).map(|v| v.parse::<f64>().unwrap());
            (cells["model"].clone(), (number("gmacs"), number("bias_s").unwrap()))
        };
        Self {
            instances: curves("instances.csv"),
            batches: curves("batches.csv"),
            jobs: table("jobs.csv").iter().map(|(_, cells)| job(cells)).collect(),
        }
    }

    /// From the columns of 1 and 10 instances: ten share the GPU, so that its time for one is a
    /// tenth of the latency; what is missing of the latency alone is the host's.
    fn measured(&self, model: &str) -> Option<Parts> {
        let row = self.instances.get(model)?;
        let gpu = row[&10] / 10.0;
        Some(Parts { gpu, host: (row[&1] - gpu).max(0.0) })
    }

    /// Measured, or: GPU time of the same network on the other data set, else ResNet-v2-50's
    /// scaled by multiply-adds; host time as the median of the data set's networks.
    fn parts(&self, model: &str) -> Parts {
        if let Some(parts) = self.measured(model) {
            return parts;
        }
        let (network, set) = model.rsplit_once('_').unwrap();
        let other = if set == "caltech" { "imagenet" } else { "caltech" };
        let resnet = self.measured("resnet_v2_50_imagenet").unwrap().gpu;
        let gpu = match self.measured(&format!("{network}_{other}")) {
            Some(parts) => parts.gpu,
            None => resnet * self.jobs[model].0.expect("multiply-adds") / RESNET50_GMACS,
        };
        let of_set = self.instances.keys().filter(|m| m.ends_with(set));
        let mut hosts: Vec<f64> = of_set.map(|m| self.measured(m).unwrap().host).collect();
        hosts.sort_by(f64::total_cmp);
        Parts { gpu, host: (hosts[(hosts.len() - 1) / 2] + hosts[hosts.len() / 2]) / 2.0 }
    }

    /// GPU time of one more image in a large batch, ms: plateaus against that of the smallest
    /// network, whose batches are all but host time; where neither data set has a plateau, the
    /// part of the single image's time that ResNet-v2-50 shows.
    fn in_a_batch(&self, model: &str) -> f64 {
        let Some((network, _)) = model.rsplit_once('_') else { unreachable!("network_set") };
        let gain = |set: &str, network: &str| {
            let per_image = |m: &str| {
                let rate = self.batches.get(&format!("{m}_{set}"))?.get(&127)?;
                Some(1e3 / rate)
            };
            Some((per_image(network)? - per_image("mobilenet_v1_025")?).max(0.0))
        };
        let set = model.rsplit_once('_').unwrap().1;
        let known = [set, "imagenet", "caltech"].iter().find_map(|s| gain(s, network));
        known.unwrap_or_else(|| {
            let resnet = self.measured("resnet_v2_50_imagenet").unwrap().gpu;
            let part = gain("imagenet", "resnet_v2_50").unwrap() / resnet;
            part * self.parts(model).gpu
        })
    }

    /// Time of a whole batch by size, ms, at the sizes known: the first from `instances.csv`, the
    /// others from `batches.csv`, or the smallest network's with the difference in GPU time.
    fn batch_ms(&self, model: &str) -> BTreeMap<u32, f64> {
        let parts = self.parts(model);
        let alone = parts.gpu + parts.host;
        if model.starts_with("deepvs") {
            // No batches are published of it: they gain nothing here.
            return [1, 127].map(|b| (b, alone * f64::from(b))).into();
        }
        let set = model.rsplit_once('_').unwrap().1;
        let whole = |m: &str| -> BTreeMap<u32, f64> {
            let rates = &self.batches[m];
            rates.iter().map(|(&b, rate)| (b, f64::from(b) * 1e3 / rate)).collect()
        };
        let mut known = match self.batches.get(model) {
            Some(rates) if rates.len() > 1 => whole(model),
            _ => {
                let more = self.in_a_batch(model);
                let base = whole(&format!("mobilenet_v1_025_{set}"));
                base.into_iter().map(|(b, ms)| (b, ms + more * f64::from(b))).collect()
            }
        };
        known.insert(1, alone);
        known
    }

    fn profile(&self) -> Profile {
        let facts = [
            ("tool", "experiments/tests/dnnscaler.rs"),
            ("from", "github.com/nabavinejad/DNNScaler and BatchDVFS, TensorFlow 1, FP32"),
            ("curves", "one pseudo-kernel per batch, on all SMs"),
            ("precision", "fp32"),
        ];
        let mut profile = Profile {
            device: "p40".to_owned(),
            source: Source::Imported,
            provenance: facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            kernels: vec![],
            models: BTreeMap::new(),
            corun: vec![],
        };
        let models = self.instances.keys().chain(self.jobs.keys());
        let models: std::collections::BTreeSet<&String> = models.collect();
        for model in models {
            self.add(&mut profile, model);
        }
        profile
    }

    fn add(&self, profile: &mut Profile, name: &str) {
        let parts = self.parts(name);
        let host = parts.host;
        let known = self.batch_ms(name);
        let later = if name.starts_with("deepvs") {
            parts.gpu
        } else {
            self.in_a_batch(name).min(parts.gpu)
        };
        let mut batches = BTreeMap::new();
        for b in sizes() {
            let items = f64::from(b);
            let whole = between(&known, items);
            // What the batching loop adds to the host's time per image is issue time.
            let gpu = (parts.gpu + later * (items - 1.0)).min(whole - host * items).max(0.001);
            let issue = (whole - host * items - gpu).max(0.0);
            let id = format!("{name}-b{b}");
            profile.kernels.push(Kernel {
                name: id.clone(),
                id,
                op: Op::Pseudo,
                grid: [30, 1, 1],
                block: 0,
                regs: 0,
                smem_bytes: 0,
                blocks_per_cu: 1,
                flops: 0,
                dram_bytes: 0,
                curve: Curve::new(vec![Point::exact(30, micros(gpu).0)]).unwrap(),
            });
            let kernel = profile.kernels.len() - 1;
            batches.insert(b, vec![Launch { kernel, host: micros(issue) }]);
        }
        let bias = self.jobs.get(name).map_or(3.0, |j| j.1);
        let model = Model {
            name: name.to_owned(),
            weights: Bytes(0),
            activations_per_item: Bytes(0),
            input_per_item: Bytes(0),
            output_per_item: Bytes(0),
            // The device's process start is 3 s; the authors wait 1, 3 or 15 s per instance.
            load: Nanos::from_millis((bias - 3.0).max(0.0) as u64 * 1000),
            host_per_request: micros(host),
            batches,
        };
        profile.models.insert(name.to_owned(), model);
    }
}

/// Whole microseconds.
fn micros(ms: f64) -> Nanos {
    Nanos((ms * 1e3).round() as u64 * 1000)
}

/// Linear between the nearest known sizes.
fn between(known: &BTreeMap<u32, f64>, b: f64) -> f64 {
    let points: Vec<(f64, f64)> = known.iter().map(|(&b, &ms)| (f64::from(b), ms)).collect();
    let i = points.windows(2).position(|w| b <= w[1].0).unwrap();
    let ((b0, t0), (b1, t1)) = (points[i], points[i + 1]);
    t0 + (t1 - t0) * (b - b0) / (b1 - b0)
}

#[test]
fn the_shipped_profile_follows_from_the_published_tables() {
    let profile = Published::read().profile();
    let shipped = folder().join("p40");
    if std::env::var_os("COTENANT_WRITE").is_some() {
        files::write(&shipped, &profile).unwrap();
    }
    let fresh = tempfile::tempdir().unwrap();
    files::write(fresh.path(), &profile).unwrap();
    let mut names = vec!["kernels.csv".to_owned(), "curves.csv".to_owned()];
    names.extend(
        profile.models.keys().flat_map(|m| [format!("models/{m}.csv"), format!("models/{m}.toml")]),
    );
    for name in names {
        let text = |dir: &Path| std::fs::read_to_string(dir.join(&name)).unwrap();
        assert!(text(&shipped) == text(fresh.path()), "{name}: write again with COTENANT_WRITE=1");
    }
}

struct Normal(Rng, f64);

impl Jitter for Normal {
    fn factor(&mut self, _: u32, _: u64, _: u32) -> f64 {
        (1.0 + self.1 * self.0.normal()).max(0.1)
    }
}

/// Mean latency of one image with `n` instances that are never idle, ms.
fn predicted(profile: &Profile, model: &str, n: u32, options: &[(&str, Value)], cv: f64) -> f64 {
    let device = Device::builtin("p40").unwrap();
    let mut code = Code::default();
    let model = code.compile(profile, model, 1, device.cus()).unwrap();
    let long = model.host_per_request.0 + model.program(1).remaining_ns[0] * u64::from(n);
    let tenant = Tenant {
        name: "job".to_owned(),
        model,
        class: Class::Latency,
        slo: None,
        workers: n,
        batch_max: 1,
        batch_timeout: Nanos::ZERO,
        generates: None,
        per_request_batches: false,
        drop_after: None,
    };
    let setup =
        Setup { costs: device.costs.clone(), device, code: code.into(), tenants: vec![tenant] };
    let load = Load::Closed {
        concurrency: n,
        think: Think::Constant(Nanos::ZERO),
        items: 1,
        limit: None,
        tokens: None,
    };
    let scenario = Scenario {
        setup: Arc::new(setup),
        loads: vec![load],
        warmup: Nanos(long * 20),
        duration: Nanos(long * 200),
        contention: ContentionModel::None,
        jitter: (cv > 0.0).then(|| Box::new(Normal(Rng::new(1), cv)) as Box<dyn Jitter>),
    };
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let info = policy::find("temporal").unwrap();
    let mut policy = (info.build)(&Options(options)).unwrap();
    let report = cotenant_sim::run(scenario, policy.as_mut(), None).unwrap();
    let counts = &report.tenants[0].counts;
    counts.latency_sum as f64 / counts.completed as f64 / 1e6
}

/// Cells at which the GPU bounds the throughput of the published row: there are so many instances
/// that the GPU's part of each, from the last column, fills the latency of the first.
fn gpu_bound(row: &BTreeMap<u32, f64>, n: u32) -> bool {
    row[&10] / 10.0 * f64::from(n) >= row[&1]
}

/// The GPU-bound cells of 2 to 9 instances whose prediction is off by more than 10 %, as
/// `(model, instances)`, with the errors of all cells printed.
fn off(profile: &Profile, published: &Published, whole: bool, cv: f64) -> (usize, Vec<String>) {
    let options = [("run_to_completion", Value::Bool(whole))];
    let (mut cells, mut off) = (0, vec![]);
    eprintln!("run to completion: {whole}, jitter {cv}: errors in % with 1 to 10 instances");
    for (model, row) in &published.instances {
        let mut line = format!("{model:26}");
        for (&n, &ms) in row {
            let error = 100.0 * (predicted(profile, model, n, &options, cv) / ms - 1.0);
            let bound = gpu_bound(row, n);
            line += &format!(" {error:6.1}{}", if bound { "*" } else { " " });
            if (2..=9).contains(&n) && bound {
                cells += 1;
                if error.abs() > 10.0 {
                    off.push(format!("{model} {n}"));
                }
            }
        }
        eprintln!("{line}");
    }
    eprintln!("{} of {cells} GPU-bound cells (*) are off by more than 10 %: {off:?}", off.len());
    (cells, off)
}

#[test]
fn the_other_columns_are_the_test() {
    let published = Published::read();
    let profile = published.profile();
    // As shipped: the device's slices, and kernels whose times vary by a tenth.
    let (cells, sliced) = off(&profile, &published, false, 0.1);
    assert_eq!((cells, sliced.as_slice()), (98, spelled(SLICED).as_slice()));
    // A turn that lasts a whole inference: T(N) = max(C, s·N), the law of two stages in series.
    let (_, whole) = off(&profile, &published, true, 0.0);
    assert_eq!(whole, spelled(WHOLE));
}

/// A model and the numbers of instances at which it is off.
type Off = (&'static str, &'static [u32]);

fn spelled(off: &[Off]) -> Vec<String> {
    off.iter().flat_map(|(model, ns)| ns.iter().map(move |n| format!("{model} {n}"))).collect()
}

/// The video model's published curves bend at random (2170, 3055, 3714, 3781, 5362 ms), and
/// MobileNet-v2's last column on ImageNet lies above the line of those before it. The others are
/// at the knee, where slices let instances wait for each other more than the authors' did.
const SLICED: &[Off] = &[
    ("deepvs_dhf1k", &[2, 3, 4, 5, 6, 7, 8]),
    ("deepvs_ledov", &[5, 6, 7]),
    ("mobilenet_v2_14_imagenet", &[5]),
    ("mobilenet_v2_1_caltech", &[5, 6]),
    ("mobilenet_v2_1_imagenet", &[4, 5, 6, 7, 8, 9]),
];
/// Here the knee is too sharp.
const WHOLE: &[Off] = &[
    ("deepvs_dhf1k", &[3, 4, 5, 6, 7, 8]),
    ("deepvs_ledov", &[5, 6, 8]),
    ("inception_v1_imagenet", &[3]),
    ("inception_v2_imagenet", &[2]),
    ("mobilenet_v2_1_caltech", &[3, 4]),
    ("mobilenet_v2_1_imagenet", &[6, 7, 8, 9]),
    ("nasnet_mobile_imagenet", &[4]),
];
